"""Write the model card, which describes an exported model to its users, from the run's records.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019): data, protocol, errors,
limits, use.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from irnet_hpc.data.sources import SOURCES
from irnet_hpc.features.sets import ELEMENTS, FEATURE_SETS, parse_feature_sets
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec

if TYPE_CHECKING:
    from irnet_hpc.predict.committee import EnsembleReport

# Fields of a result that have one value for each property.
ROW = (
    *("unit", "test_mae", "test_rmse", "test_r2", "val_mae", "baseline_mae"),
    *("n_train", "n_val", "n_test"),
)


class ExportedModel(NamedTuple):
    """An exported model, with the facts that its card states beside the run's own records."""

    file: str  # name of the model's file
    units: dict[str, str]  # property -> unit, in the order of the outputs
    feature_labels: Sequence[str]  # (n_features,)
    floors: dict[str, float]  # property -> lowest prediction, where there is one
    elements: frozenset[str] | None  # symbols in the training rows; None: not known
    licence: str
    citation: str
    verified: str  # a sentence
    reports: Sequence["EnsembleReport"]  # with intervals, if the run's pack was at hand


class SourceFacts(NamedTuple):
    """Title, licence and citation of a source, each empty if it is not known."""

    title: str
    licence: str
    citation: str


def model_card(spec: RunSpec, result: RunResult, exported: ExportedModel) -> str:
    """Return the card as Markdown.

    Args:
        spec: The specification of the run.
        result: Its result.
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


def source_facts(identity: dict) -> SourceFacts:
    """Return title, licence and citation of a pack's source."""
    name = str(identity["source"])
    known = SOURCES.get(name)
    if known is None:
        return SourceFacts(name, "", "")
    return SourceFacts(f"{name}, {known.title}", known.licence, known.citation)


def _data(spec: RunSpec, result: RunResult, exported: ExportedModel) -> str:
    identity = result.pack_identity
    filters = "; ".join(identity["filters"]) or "none"
    licence = exported.licence or "not stated by the source; ask whoever made the table"
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
        text = f"Test is every material that contains {elements}; train has none"
    elif split["by"] == "column":
        text = "Train, val and test are those of the source's own table"
    else:
        text = (
            "Train, val and test are a hash of the reduced formula "
            f"(seed {split.get('seed', 0)}), at random"
        )
    text += f". Protocol `{spec.protocol}`: "
    if result.selected_on != "test":
        return text + "the epoch was selected on val, and test was used once, afterwards."
    text += (
        "trained on train and val. **The epoch was selected on test**, as the papers' code does, "
        "so the errors below are optimistic"
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
                f"{report.property}: ±{report.half_width:.3g} {report.unit} was calibrated to hold "
                f"{report.level:.0%} on val; it holds {report.coverage:.1%} of the test rows.",
            ]
    return "\n".join(lines)


def _limits(result: RunResult, exported: ExportedModel) -> str:
    lines = []
    if exported.elements is None:
        lines.append("- The elements of the training rows are not recorded.")
    else:
        unseen = [symbol for symbol in ELEMENTS if symbol not in exported.elements]
        listed = ", ".join(unseen) or f"none of the {len(ELEMENTS)} known"
        lines.append(f"- Elements that no training row has: {listed}.")
        lines.append(f"- Elements trained on: {', '.join(sorted(exported.elements))}.")
    if result.pack_identity["split"]["by"] == "reduced formula":
        lines.append(
            "- Test formulas are random, so they have relatives of the same elements in train. For "
            "chemistry that train lacks, errors are several times as large, and intervals hold "
            "less than their level."
        )
    if not any(FEATURE_SETS[name].of_structure for name in _feature_sets(result)):
        lines.append(
            "- The features know the composition only: polymorphs get one and the same prediction."
        )
    lines.append(
        "- Predictions are of what the source computed or measured, with its errors, not of nature."
    )
    lines += [
        f"- Predictions of {name} are cut at {floor:g}." for name, floor in exported.floors.items()
    ]
    return "\n".join(lines)


def _feature_sets(result: RunResult) -> tuple[str, ...]:
    return parse_feature_sets(result.pack_identity["features"])


def _use(result: RunResult, exported: ExportedModel) -> str:
    identity = result.pack_identity
    versions = ", ".join(f"{name} {v}" for name, v in identity["feature_versions"].items())
    text = (
        f"Input `features`: float32 (n_rows, {len(exported.feature_labels)}), unscaled; scaling is "
        f"in the graph. Output `prediction`: float32 (n_rows, {len(exported.units)}), in "
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
        f"- architecture {spec.model}, layers `{spec.layer_string}`, "
        f"{result.n_parameters:,} parameters",
        f"- recipe {spec.recipe}, seed {spec.seed}, best epoch {result.best_epoch} of "
        f"{result.epochs}, trained in {result.precision}; the exported graph computes in float32",
    ]
    if result.origin:
        origin = result.origin
        lines.append(
            f"- started from {origin['model']} on {origin['property']} of {origin['pack']}"
        )
    lines.append(
        "- networks: Jha et al., KDD 2019, doi:10.1145/3292500.3330703, and "
        "Sci. Rep. 11, 4244 (2021)"
    )
    return "\n".join(lines)
