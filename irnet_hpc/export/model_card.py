"""Write the model card of an exported model from the run's records.

A model card describes a model to its users: data, protocol, errors, limits and use. It follows
Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019).
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from irnet_hpc.data.sources import SOURCES
from irnet_hpc.features.sets import ELEMENTS, FEATURE_SETS, parse_feature_sets
from irnet_hpc.runs.classical_grids import point_text
from irnet_hpc.runs.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec, run_folder

if TYPE_CHECKING:
    from irnet_hpc.predict.committee import EnsembleReport

# Fields of a result that have a separate value for each property.
ROW = (
    *("unit", "test_mae", "test_rmse", "test_r2", "val_mae", "baseline_mae"),
    *("n_train", "n_val", "n_test"),
)


class ExportedModel(NamedTuple):
    """An exported model, with the facts on its card that the run's own records do not have."""

    file: str  # name of the model's file
    units: dict[str, str]  # property -> unit, in the order of the outputs
    feature_labels: Sequence[str]  # (n_features,)
    floors: dict[str, float]  # property -> lowest prediction, if predictions are cut there
    elements: frozenset[str] | None  # symbols in the training rows; None: not known
    licence: str
    citation: str
    verified: str  # a sentence on how well the graph agrees with the model
    reports: Sequence["EnsembleReport"]  # with intervals only if the run's pack was available


class SourceFacts(NamedTuple):
    """Title, licence and citation of a source. An unknown one is empty."""

    title: str
    licence: str
    citation: str


def model_card(spec: RunSpec, result: RunResult, exported: ExportedModel) -> str:
    """Return the card as Markdown.

    Args:
        spec: The specification of the run.
        result: The result of the run.
        exported: The model that was written.
    """
    names = ", ".join(f"{name} ({unit})" for name, unit in exported.units.items())
    sections = {
        "Data": _data(spec, result, exported),
        "Protocol": _protocol(spec, result),
        "Errors": _errors(spec, result, exported),
        "Limits": _limits(result, exported),
        "Use": _use(result, exported),
        "Origin": _origin(spec, result),
    }
    intro = (
        f"`{exported.file}` predicts {names} of a material from {len(exported.feature_labels)} "
        f"features, feature set `{result.pack_identity['features']}`. {exported.verified}"
    )
    parts = [f"# {spec.model}: {names}", intro]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def portable_card(
    spec: RunSpec, result: RunResult, exported: ExportedModel, n_formulas: str
) -> str:
    """Return the card of a portable model as Markdown.

    Args:
        spec: The specification of the run.
        result: The result of the run.
        exported: The model that was written.
        n_formulas: The numbers of training and of val formulas that the model knows, as text.
    """
    names = ", ".join(f"{name} ({unit})" for name, unit in exported.units.items())
    sections = {
        "Data": _data(spec, result, exported),
        "Protocol": _protocol(spec, result),
        "Errors": _errors(spec, result, exported) + f"\n\n{exported.verified}",
        "Limits": _limits(result, exported),
        "Use": _portable_use(n_formulas),
        "Origin": _origin(spec, result).replace("; the exported graph computes in float32", ""),
        "Made by": _commands(spec, result),
    }
    intro = (
        f"One network predicts {names} from a formula. Its weights are in bf16, in "
        f"`{exported.file}`; beside them are the errors that calibrate its intervals, training "
        "rows to measure distances to, and hashes of the formulas that it has seen."
    )
    parts = [f"# {spec.model}: {names}", intro]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def _portable_use(n_formulas: str) -> str:
    return (
        "`python -m irnet_hpc.predict FOLDER formulas.csv -o predictions.csv` predicts, "
        "`irnet_hpc.load_model(FOLDER)` does so in Python, and `python -m irnet_hpc.train ... "
        "--init FOLDER` starts another network from this one. For a model that ships with the "
        "package, FOLDER is `pretrained:NAME`. The column `seen_as` marks rows whose formula is "
        f"one of the {n_formulas} formulas of the training and val rows. They are kept as 64-bit "
        "hashes: a formula that the network has not seen is marked with a probability of their "
        "number divided by 2^64."
    )


def _commands(spec: RunSpec, result: RunResult) -> str:
    """Return the commands that make the model again, from the source on."""
    identity = result.pack_identity
    known = _inline_recipe(Recipe(**result.recipe))
    recipe = known if isinstance(known, str) else json.dumps(known)
    network = (
        f"--layers {spec.layers}"
        if spec.layers
        else f"--architecture {spec.architecture} --depth {spec.depth}"
    )
    more = (f" --train-rows {spec.train_rows}" if spec.train_rows else "") + (
        f" --seed {spec.seed}" if spec.seed else ""
    )
    return f"""```bash
python -m irnet_hpc.pack --source {identity["source"]} --features {identity["features"]}
python -m irnet_hpc.train --pack {spec.pack} --property {spec.property} {network}{more} \\
    --recipe '{recipe}'
python -m irnet_hpc.export {run_folder("results", spec)} FOLDER --portable
```

The pack has this identity:

```json
{json.dumps(identity, indent=1, ensure_ascii=False)}
```"""


def source_facts(identity: dict) -> SourceFacts:
    """Return the title, licence and citation of a pack's source."""
    name = str(identity["source"])
    known = SOURCES.get(name)
    if known is None:
        return SourceFacts(name, "", "")
    return SourceFacts(f"{name}, {known.title}", known.licence, known.citation)


def _inline_recipe(recipe: Recipe) -> str | dict:
    """Return a recipe as `train --recipe` takes it: its name, or what differs from the default."""
    if RECIPES.get(recipe.name) == recipe:
        return recipe.name
    base = dataclasses.asdict(RECIPES[DEFAULT_RECIPE])
    changes = {n: v for n, v in dataclasses.asdict(recipe).items() if v != base[n]}
    return {"name": recipe.name, "base": DEFAULT_RECIPE, **changes}


def _data(spec: RunSpec, result: RunResult, exported: ExportedModel) -> str:
    identity = result.pack_identity
    filters = "; ".join(identity["filters"]) or "none"
    licence = exported.licence or "not stated by the source; ask the authors of the table"
    lines = [
        f"- source: {source_facts(identity).title} "
        f"(sha256 of its table: `{identity['source_sha256'][:16]}`)",
        f"- licence: {licence}",
        f"- citation: {exported.citation or 'not stated by the source'}",
        f"- pack: {spec.pack}, of {identity['n_source_rows']:,} rows of the source; "
        f"filters of values: {filters}",
        f"- rows: {result.n_train:,} train, {result.n_val:,} val, {result.n_test:,} test",
    ]
    return "\n".join(lines)


def _protocol(spec: RunSpec, result: RunResult) -> str:
    split = result.pack_identity["split"]
    if split["by"] in ("element", "family"):
        elements = ", ".join(split["elements"])
        text = f"The test rows are all materials that contain {elements}; train has none of them"
    elif split["by"] == "column":
        text = "Train, val and test are those of the source's own table"
    elif split["by"] == "fold":
        text = f"The test rows are those of the benchmark's official fold {split['seed']}"
    elif split["by"] == "folds":
        repeat, fold = divmod(split["seed"], split["n_folds"])
        again = f" of repeat {repeat}" if repeat else ""
        text = (
            f"The test rows are fold {fold}{again}: a hash of the reduced formula deals all rows "
            f"to {split['n_folds']} folds"
        )
    else:
        text = (
            "Train, val and test rows are drawn at random, by a hash of the reduced formula "
            f"(seed {split.get('seed', 0)})"
        )
    text += f". Protocol `{spec.protocol}`: "
    selected = "point of the grid" if spec.is_classical else "epoch"
    if result.selected_on != "test":
        return text + f"the {selected} was selected on val; test was used only once, afterwards."
    text += (
        f"trained on train and val. **The {selected} was selected on test**, as in the papers' "
        "code, so the test errors below are too low"
    )
    if result.optimism is not None:
        text += f", by about {result.optimism:.3g} as measured on halves of test"
    return text + "."


def _errors(spec: RunSpec, result: RunResult, exported: ExportedModel) -> str:
    per_property = result.per_property or {
        spec.property: {name: getattr(result, name) for name in ROW}
    }
    lines = [
        "| property | unit | test MAE | test RMSE | test R² | val MAE | MAE of the baseline "
        "| train rows |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, values in per_property.items():
        errors = (
            values[key] for key in ("test_mae", "test_rmse", "test_r2", "val_mae", "baseline_mae")
        )
        cells = " | ".join("" if error is None else f"{error:.4g}" for error in errors)
        lines.append(f"| {name} | {exported.units[name]} | {cells} | {values['n_train']:,} |")
    lines += ["", "The baseline predicts the median of the training rows for every material."]
    for report in exported.reports:
        if report.coverage is not None:
            lines += [
                "",
                f"{report.property}: the interval ±{report.half_width:.3g} {report.unit} "
                + ("(on average) was " if report.coverage_above_floor is not None else "was ")
                + f"calibrated on {report.n_val:,} {report.calibrated_on} rows to hold "
                f"{report.level:.0%} of values; it holds {report.coverage:.1%} of the test values"
                + _above_floor(report)
                + ".",
            ]
    return "\n".join(lines)


def _above_floor(report: "EnsembleReport") -> str:
    if report.coverage_above_floor is None:
        return ""
    return (
        f", and {report.coverage_above_floor:.1%} of the {report.above_floor:.1%} of them that are "
        "above the floor. Its width depends on the prediction"
    )


def _limits(result: RunResult, exported: ExportedModel) -> str:
    lines = []
    if exported.elements is None:
        lines.append("- The elements of the training rows are not recorded.")
    else:
        unseen = [symbol for symbol in ELEMENTS if symbol not in exported.elements]
        listed = ", ".join(unseen) or f"none of the {len(ELEMENTS)} known"
        lines.append(f"- Elements that no training row has: {listed}.")
        lines.append(f"- Elements trained on: {', '.join(sorted(exported.elements))}.")
    if result.pack_identity["split"]["by"] in ("reduced formula", "folds"):
        lines.append(
            "- Test formulas are random, so train has similar formulas of the same elements. For "
            "chemistry that train lacks, errors are several times as large, and intervals hold "
            "fewer values than their level."
        )
    if not any(FEATURE_SETS[name].of_structure for name in _feature_sets(result)):
        lines.append(
            "- The features depend on composition only: all polymorphs get the same prediction."
        )
    lines.append(
        "- The model predicts what the source computed or measured, including the source's errors."
    )
    lines += [
        f"- Predictions of {name} are never below {floor:g}; lower ones are set to it."
        for name, floor in exported.floors.items()
    ]
    return "\n".join(lines)


def _feature_sets(result: RunResult) -> tuple[str, ...]:
    return parse_feature_sets(result.pack_identity["features"])


def _use(result: RunResult, exported: ExportedModel) -> str:
    identity = result.pack_identity
    versions = ", ".join(f"{name} {v}" for name, v in identity["feature_versions"].items())
    text = (
        f"Input `features`: float32 (n_rows, {len(exported.feature_labels)}), unscaled, since the "
        f"graph scales them. Output `prediction`: float32 (n_rows, {len(exported.units)}), in "
        f"{', '.join(exported.units.values())}. Versions of the feature sets: {versions}. "
    )
    if all(FEATURE_SETS[name].of_formula for name in _feature_sets(result)):
        text += "From formulas:"
        code = _code_for_formulas(identity["features"], exported.file)
    else:
        text += (
            "The features are those of a pack: `python -m irnet_hpc.pack` computes them from your "
            "table."
        )
        code = _code_for_pack(identity["features"], exported.file)
    labels = "\n".join(f"{place}. {label}" for place, label in enumerate(exported.feature_labels))
    return f"{text}\n\n```python\n{code}\n```\n\nThe features, in order:\n\n{labels}"


def _code_for_formulas(features: str, file: str) -> str:
    return f"""import onnxruntime
from irnet_hpc import featurize

formulas = ["Fe2O3", "NaCl"]
x = featurize(formulas, "{features}").to_numpy("float32")
prediction = onnxruntime.InferenceSession("{file}").run(None, {{"features": x}})[0]"""


def _code_for_pack(features: str, file: str) -> str:
    return f"""import onnxruntime
from irnet_hpc import load_pack

with load_pack("packs/mine-{features}.h5") as pack:
    x = pack.x(slice(0, pack.n_rows))
prediction = onnxruntime.InferenceSession("{file}").run(None, {{"features": x}})[0]"""


def _origin(spec: RunSpec, result: RunResult) -> str:
    lines = [
        f"- run key `{result.key}`, commit `{result.commit or 'not known'}`, "
        f"irnet_hpc {result.versions.get('irnet_hpc', '')}",
        *(_classical_origin(spec, result) if spec.is_classical else _network_origin(spec, result)),
    ]
    if result.origin:
        origin = result.origin
        lines.append(
            f"- started from {origin['model']} on {origin['property']} of {origin['pack']}"
        )
    lines.append(
        "- models: scikit-learn, Pedregosa et al., J. Mach. Learn. Res. 12, 2825 (2011)"
        if spec.is_classical
        else "- networks: Jha et al., KDD 2019, doi:10.1145/3292500.3330703, and "
        "Sci. Rep. 11, 4244 (2021)"
    )
    return "\n".join(lines)


def _network_origin(spec: RunSpec, result: RunResult) -> list[str]:
    return [
        f"- architecture {spec.model}, layers `{spec.layer_string}`, "
        f"{result.n_parameters:,} parameters",
        f"- recipe {spec.recipe}, seed {spec.seed}, best epoch {result.best_epoch} of "
        f"{result.epochs}, trained in {result.precision}; the exported graph computes in float32",
    ]


def _classical_origin(spec: RunSpec, result: RunResult) -> list[str]:
    chosen = result.chosen or {"point": {}, "tried": []}
    fewer = (
        f", fitted on the first {result.fitted_rows:,} of the training rows"
        if result.fitted_rows is not None and result.fitted_rows < result.n_train
        else ""
    )
    return [
        f"- classical model {spec.model}, {point_text(chosen['point'])}, chosen among "
        f"{len(chosen['tried'])} points of its grid{fewer}",
        f"- seed {spec.seed}, scikit-learn {result.versions.get('scikit-learn', '')}; the exported "
        "graph computes in float32",
    ]
