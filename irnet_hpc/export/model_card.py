"""Write the model card of an exported model from the records of its runs.

A model card describes a model to its users: data, protocol, errors, limits and use. It follows
Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from irnet_hpc.data.properties import PROPERTIES, lowest_of
from irnet_hpc.data.sources import SOURCES
from irnet_hpc.features.sets import ELEMENTS, FEATURE_SETS, parse_feature_sets
from irnet_hpc.predict.committee import describe_report
from irnet_hpc.predict.intervals import ConformalInterval
from irnet_hpc.runs.classical_grids import point_text
from irnet_hpc.runs.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec, run_folder, run_name

if TYPE_CHECKING:
    from irnet_hpc.predict.committee import EnsembleReport
    from irnet_hpc.predict.intervals import SteppedInterval
    from irnet_hpc.predict.members import Member

# Fields of a result that have a separate value for each property.
ROW = (
    *("unit", "test_mae", "test_rmse", "test_r2", "val_mae", "baseline_mae"),
    *("n_train", "n_val", "n_test"),
)


class ExportedModel(NamedTuple):
    """An exported model, with the facts on its card that the runs' own records do not have."""

    file: str  # name of the model's file
    size: int  # of this file, in bytes
    units: dict[str, str]  # property -> unit, in the order of the outputs
    features: str  # the feature sets, as a sum
    feature_labels: Sequence[str]  # (n_features,)
    pack: str  # path of the pack of the first run
    floors: dict[str, float]  # property -> lowest prediction, if predictions are cut there
    elements: frozenset[str] | None  # symbols in the training rows; None: not known
    licence: str
    citation: str
    verified: str  # a sentence on how well the graph agrees with the model
    reports: Sequence["EnsembleReport"]  # with intervals only if the run's pack was available
    # Property -> how wide its intervals are; None: not calibrated.
    intervals: "Mapping[str, ConformalInterval | SteppedInterval | None]"
    weights: Sequence[dict[str, float]]  # of each run in the mean: property -> weight
    n_groups: int  # number of models that are averaged; the runs of a model on folds are one


class SourceFacts(NamedTuple):
    """Title, licence and citation of a source. An unknown one is empty."""

    title: str
    licence: str
    citation: str


def model_card(members: Sequence["Member"], exported: ExportedModel) -> str:
    """Return the card as Markdown.

    Args:
        members: The runs whose model, or whose mean, was exported.
        exported: The model that was written.
    """
    first, names = members[0], ", ".join(f"{n} ({unit})" for n, unit in exported.units.items())
    sections = {
        "Data": _data(members, exported),
        "Protocol": _protocol(members),
        "Errors": _errors(members, exported),
        "Limits": _limits(first.result, exported),
        "Use": _use(first.result, exported),
        "Origin": "\n\n".join(_origin(member) for member in members),
    }
    what = f"of {len(members)} runs, " if len(members) > 1 else ""
    models = " and ".join(dict.fromkeys(member.spec.model for member in members))
    intro = (
        f"`{exported.file}` ({size_text(exported.size)}) predicts {names} of a material from "
        f"{len(exported.feature_labels)} features, feature set `{exported.features}`. "
        f"{exported.verified}"
    )
    parts = [f"# {'Mean ' if what else ''}{what}{models}: {names}", intro]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def size_text(size: int) -> str:
    """Write the size of a file, in bytes, as kB or MB."""
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"


def portable_card(member: "Member", exported: ExportedModel, n_formulas: str) -> str:
    """Return the card of a portable model as Markdown.

    Args:
        member: The model, and the records of its run.
        exported: The model that was written.
        n_formulas: The numbers of training and of val formulas that the model knows, as text.
    """
    spec, result = member.spec, member.result
    names = ", ".join(f"{name} ({unit})" for name, unit in exported.units.items())
    sections = {
        "Data": _data([member], exported),
        "Protocol": _protocol([member]),
        "Errors": _errors([member], exported) + f"\n\n{exported.verified}",
        "Limits": _limits(result, exported),
        "Use": _portable_use(n_formulas),
        "Origin": _origin(member).replace("; the exported graph computes in float32", ""),
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


def _data(members: Sequence["Member"], exported: ExportedModel) -> str:
    first = members[0]
    identity = first.result.pack_identity
    filters = "; ".join(identity["filters"]) or "none"
    licence = exported.licence or "not stated by the source; ask the authors of the table"
    lines = [
        f"- source: {source_facts(identity).title} "
        f"(sha256 of its table: `{identity['source_sha256'][:16]}`)",
        f"- licence: {licence}",
        f"- citation: {exported.citation or 'not stated by the source'}",
    ]
    packs = {member.spec.pack: member.result for member in members}
    n_rows = f"{identity['n_source_rows']:,} rows of the source; filters of values: {filters}"
    if len(packs) == 1:
        lines.append(f"- pack: {first.spec.pack}, of {n_rows}")
        lines.append(f"- rows: {_counts(first.result)}")
    else:
        lines.append(f"- packs, each of {n_rows}")
        lines += [f"- rows of {pack}: {_counts(result)}" for pack, result in packs.items()]
    return "\n".join(lines)


def _counts(result: RunResult) -> str:
    return f"{result.n_train:,} train, {result.n_val:,} val, {result.n_test:,} test"


def _protocol(members: Sequence["Member"]) -> str:
    spec, result = members[0].spec, members[0].result
    split = result.pack_identity["split"]
    seeds = {member.result.pack_identity["split"].get("seed") for member in members}
    if split["by"] in ("element", "family"):
        elements = ", ".join(split["elements"])
        text = f"The test rows are all materials that contain {elements}; train has none of them"
    elif split["by"] == "column":
        text = "Train, val and test are those of the source's own table"
    elif split["by"] in ("fold", "folds") and len(seeds) > 1:
        text = (
            f"The rows were dealt to folds; the {len(members)} runs have {len(seeds)} of them as "
            "test rows, and none was trained on its own"
        )
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


def _errors(members: Sequence["Member"], exported: ExportedModel) -> str:
    if len(members) == 1:
        lines = _errors_of_one(members[0], exported)
    else:
        lines = [describe_report(report) + "." for report in exported.reports]
        lines = [*"\n\n".join(lines).split("\n"), "", *_errors_of_members(members, exported)]
    lines += ["", "The baseline predicts the median of the training rows for every material."]
    for report in exported.reports:
        interval = exported.intervals.get(report.property)
        if report.coverage is not None and len(members) == 1:
            lines += [
                "",
                f"{report.property}: the interval ±{report.half_width:.3g} {report.unit} "
                + ("(on average) was " if report.coverage_above_floor is not None else "was ")
                + f"calibrated on {report.n_val:,} {report.calibrated_on} rows to hold "
                f"{report.level:.0%} of values; it holds {report.coverage:.1%} of the test values"
                + _above_floor(report)
                + ".",
            ]
        elif isinstance(interval, ConformalInterval) and len(members) > 1:
            lines += ["", _interval_of_several(report, interval, exported.n_groups)]
        if interval is not None and (bound := _bound(report)):
            lines += ["", bound]
    return "\n".join(lines)


def _bound(report: "EnsembleReport") -> str:
    """Say where the intervals of a property end, if it has a bound; else return an empty text."""
    bound, known = lowest_of(report.property), PROPERTIES.get(report.property)
    if bound >= 0:
        return (
            f"{report.property}: no value is below {bound:g} {report.unit}, so an interval that "
            f"would go below ends at {bound:g}."
        )
    if known and known.low >= 0:
        return (
            f"{report.property}: values below 0 are possible, if rare, so an interval is not cut "
            "at 0."
        )
    return ""


def _above_floor(report: "EnsembleReport") -> str:
    if report.coverage_above_floor is None:
        return ""
    return (
        f", and {report.coverage_above_floor:.1%} of the {report.above_floor:.1%} of them that are "
        "above the floor. Its width depends on the prediction"
    )


def _interval_of_several(
    report: "EnsembleReport", interval: "ConformalInterval", n_groups: int
) -> str:
    """Say how the intervals of a mean follow from the outputs of the graph."""
    if n_groups == 1:
        half = float(interval.half_width(np.zeros(1))[0])
        return (
            f"{report.property}: the {report.level:.0%} interval of each material is "
            f"`prediction` ±{half:.4g} {report.unit}."
        )
    return (
        f"{report.property}: half the width of the {report.level:.0%} interval of a material is "
        f"{interval.factor:.6g} × (`sd` + {interval.softening:.6g} {report.unit}), where `sd` is "
        f"the second output, the standard deviation of the {n_groups} models."
    )


def _errors_of_one(member: "Member", exported: ExportedModel) -> list[str]:
    lines = [
        "| property | unit | test MAE | test RMSE | test R² | val MAE | MAE of the baseline "
        "| train rows |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, values in _per_property(member).items():
        errors = (
            values[key] for key in ("test_mae", "test_rmse", "test_r2", "val_mae", "baseline_mae")
        )
        cells = " | ".join("" if error is None else f"{error:.4g}" for error in errors)
        lines.append(f"| {name} | {exported.units[name]} | {cells} | {values['n_train']:,} |")
    return lines


def _errors_of_members(members: Sequence["Member"], exported: ExportedModel) -> list[str]:
    lines = [
        "The runs by themselves, each on the test rows of its own pack:",
        "",
        "| run | property | unit | weight | test MAE | val MAE | MAE of the baseline "
        "| train rows |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for member, weights in zip(members, exported.weights, strict=True):
        for name, values in _per_property(member).items():
            errors = (values[key] for key in ("test_mae", "val_mae", "baseline_mae"))
            cells = " | ".join("" if error is None else f"{error:.4g}" for error in errors)
            lines.append(
                f"| {run_name(member.spec)} | {name} | {exported.units[name]} "
                f"| {weights[name]:.3f} | {cells} | {values['n_train']:,} |"
            )
    return lines


def _per_property(member: "Member") -> dict:
    """Return the fields of ROW of each property of a run."""
    result = member.result
    return result.per_property or {
        member.spec.property: {name: getattr(result, name) for name in ROW}
    }


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
    if not any(FEATURE_SETS[name].of_structure for name in parse_feature_sets(exported.features)):
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


def _use(result: RunResult, exported: ExportedModel) -> str:
    sets = parse_feature_sets(exported.features)
    versions = ", ".join(f"{name} {FEATURE_SETS[name].version}" for name in sets)
    more = "; output `sd`, of the same shape and units" if exported.n_groups > 1 else ""
    text = (
        f"Input `features`: float32 (n_rows, {len(exported.feature_labels)}), unscaled, since the "
        f"graph scales them. Output `prediction`: float32 (n_rows, {len(exported.units)}), in "
        f"{', '.join(exported.units.values())}{more}. Versions of the feature sets: {versions}. "
    )
    if all(FEATURE_SETS[name].of_formula for name in sets):
        text += "From formulas:"
        rows = f"""from irnet_hpc import featurize

formulas = ["Fe2O3", "NaCl"]
x = featurize(formulas, "{exported.features}").to_numpy("float32")"""
    elif "columns" not in sets:
        text += "From a folder or archive of structures, or a list of those of pymatgen or ASE:"
        rows = f"""from irnet_hpc import featurize_structures

frame = featurize_structures("new_cifs", "{exported.features}")
x = frame.to_numpy("float32")"""
    else:
        text += (
            "The features are columns of your table, as a pack of it has them; these are the rows "
            "of the pack of the run:"
        )
        rows = f"""from irnet_hpc import load_pack

with load_pack({exported.pack!r}) as pack:
    x = pack.x(slice(0, pack.n_rows))"""
    code = f"""import onnxruntime
{rows}
prediction = onnxruntime.InferenceSession("{exported.file}").run(None, {{"features": x}})[0]"""
    labels = "\n".join(f"{place}. {label}" for place, label in enumerate(exported.feature_labels))
    return f"{text}\n\n```python\n{code}\n```\n\nThe features, in order:\n\n{labels}"


def _origin(member: "Member") -> str:
    spec, result = member.spec, member.result
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
