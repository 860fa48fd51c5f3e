"""The model card: what whoever uses an exported model should know, from the run's own records.

After Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019): data, protocol, errors, limits, how to use it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from irnet_hpc.data.sources import SOURCES
from irnet_hpc.features.sets import ELEMENTS
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec

if TYPE_CHECKING:
    from irnet_hpc.predict.committee import Trust


ROW = (
    "unit",
    "test_mae",
    "test_rmse",
    "test_r2",
    "val_mae",
    "baseline_mae",
    "n_train",
    "n_val",
    "n_test",
)


class Exported(NamedTuple):
    """What export knows besides the run's records."""

    file: str  # name of the model's file
    units: dict[str, str]  # property -> unit, in the order of the outputs
    feature_labels: Sequence[str]
    floors: dict[str, float]  # property -> what predictions are cut at, where they are
    elements: frozenset[str] | None  # symbols that training rows have; None: not known
    licence: str
    citation: str
    verified: str  # in a sentence
    trust: Sequence["Trust"]  # intervals, where the run's pack was at hand


def model_card(spec: RunSpec, result: RunResult, exported: Exported) -> str:
    """The card as Markdown."""
    names = ", ".join(f"{name} ({unit})" for name, unit in exported.units.items())
    parts = [
        f"# {spec.model}: {names}",
        f"`{exported.file}` predicts {names} of a material from {len(exported.feature_labels)} features, feature set "
        f"`{result.pack_identity['features']}`. {exported.verified}",
        "## Data\n\n" + _data(spec, result, exported),
        "## Protocol\n\n" + _protocol(spec, result),
        "## Errors\n\n" + _errors(spec, result, exported),
        "## Limits\n\n" + _limits(result, exported),
        "## Use\n\n" + _use(result, exported),
        "## Origin\n\n" + _origin(spec, result),
    ]
    return "\n\n".join(parts) + "\n"


def source_of(identity: dict) -> tuple[str, str, str]:
    """Title, licence and citation of a pack's source, as far as this program knows it."""
    name = str(identity["source"])
    known = SOURCES.get(name)
    if known is None:
        return name, "", ""
    return f"{name}, {known.title}", known.licence, known.citation


def _data(spec: RunSpec, result: RunResult, exported: Exported) -> str:
    identity = result.pack_identity
    filters = "; ".join(identity["filters"]) or "none"
    return "\n".join(
        [
            f"- source: {source_of(identity)[0]} (sha256 of its table: `{identity['source_sha256'][:16]}`)",
            f"- licence: {exported.licence or 'not stated by the source; ask whoever made the table'}",
            f"- citation: {exported.citation or 'not stated by the source'}",
            f"- pack: {spec.pack}, of {identity['n_source_rows']:,} rows of the source; filters of values: {filters}",
            f"- rows: {result.n_train:,} train, {result.n_val:,} val, {result.n_test:,} test",
        ]
    )


def _protocol(spec: RunSpec, result: RunResult) -> str:
    split = result.pack_identity["split"]
    by = split["by"]
    if by in ("element", "family"):
        split_text = (
            f"test is every material that contains {', '.join(split['elements'])}; train has none"
        )
    elif by == "column":
        split_text = "train, val and test are those of the source's own table"
    else:
        split_text = f"train, val and test are a hash of the reduced formula (seed {split.get('seed', 0)}), at random"
    text = f"{split_text[0].upper()}{split_text[1:]}. Protocol `{spec.protocol}`: "
    if result.selected_on == "test":
        text += (
            "trained on train and val. **The epoch was selected on test**, as the papers' code does, so the errors below are "
            "optimistic"
        )
        text += (
            ""
            if result.optimism is None
            else f", by about {result.optimism:.3g} as measured on halves of test"
        )
        return text + "."
    return text + "the epoch was selected on val, and test was used once, afterwards."


def _errors(spec: RunSpec, result: RunResult, exported: Exported) -> str:
    per_property = result.per_property or {
        spec.property: {name: getattr(result, name) for name in ROW}
    }
    lines = [
        "| property | unit | test MAE | test RMSE | test R² | val MAE | MAE of the baseline | train rows |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, of in per_property.items():
        numbers = (
            of[key] for key in ("test_mae", "test_rmse", "test_r2", "val_mae", "baseline_mae")
        )
        cells = " | ".join("" if number is None else f"{number:.4g}" for number in numbers)
        lines.append(f"| {name} | {exported.units[name]} | {cells} | {of['n_train']:,} |")
    lines += ["", "The baseline predicts the median of the training rows for every material."]
    for trust in exported.trust:
        if trust.coverage is not None:
            lines += [
                "",
                f"{trust.property}: ±{trust.half_width:.3g} {trust.unit} was calibrated to hold {trust.level:.0%} on val; it "
                f"holds {trust.coverage:.1%} of the test rows.",
            ]
    return "\n".join(lines)


def _limits(result: RunResult, exported: Exported) -> str:
    by = result.pack_identity["split"]["by"]
    lines = []
    if exported.elements is None:
        lines.append("- Which elements the training rows have is not recorded.")
    else:
        unseen = [symbol for symbol in ELEMENTS if symbol not in exported.elements]
        lines.append(
            f"- Elements that no training row has: {', '.join(unseen) or f'none of the {len(ELEMENTS)} known'}."
        )
        lines.append(f"- Elements trained on: {', '.join(sorted(exported.elements))}.")
    if by == "reduced formula":
        lines.append(
            "- Test formulas are random, so they have relatives of the same elements in train. Of chemistry that train has "
            "not, errors are several times as large; intervals, too, hold less than they say."
        )
    if (
        "structure" not in result.pack_identity["features"]
        and "asph" not in result.pack_identity["features"]
    ):
        lines.append(
            "- The features know the composition only: polymorphs get one and the same prediction."
        )
    lines.append(
        "- What is predicted is what the source computed or measured, with its errors, not nature."
    )
    lines += [
        f"- Predictions of {name} are cut at {floor:g}." for name, floor in exported.floors.items()
    ]
    return "\n".join(lines)


def _use(result: RunResult, exported: Exported) -> str:
    sets = result.pack_identity["features"]
    versions = ", ".join(
        f"{name} {version}" for name, version in result.pack_identity["feature_versions"].items()
    )
    labels = "\n".join(f"{place}. {label}" for place, label in enumerate(exported.feature_labels))
    how = f'x = featurize(formulas, "{sets}", errors="nan").to_numpy()'
    text = (
        f"Input `features`: float32 (n_rows, {len(exported.feature_labels)}), unscaled; scaling is in the graph. Output "
        f"`prediction`: float32 (n_rows, {len(exported.units)}), in {', '.join(exported.units.values())}. Versions of the "
        f"feature sets: {versions}. "
    )
    if "structure" in sets or "asph" in sets or "columns" in sets:
        text += "The features are those of a pack: `python -m irnet_hpc.pack` computes them from your table.\n\n"
        how = f'x = open_pack("packs/mine-{sets}.h5").x(slice(0, None))'
        imports = "import onnxruntime\nfrom irnet_hpc.pack.store import open_pack"
    else:
        text += "From formulas:\n\n"
        imports = "import onnxruntime\nfrom irnet_hpc import featurize"
    run = f'onnxruntime.InferenceSession("{exported.file}").run(None, {{"features": x}})[0]'
    return f"{text}```python\n{imports}\n\n{how}\nprediction = {run}\n```\n\nThe features, in order:\n\n{labels}"


def _origin(spec: RunSpec, result: RunResult) -> str:
    lines = [
        f"- run key `{result.key}`, commit `{result.commit or 'not known'}`, irnet_hpc {result.versions.get('irnet_hpc', '')}",
        f"- architecture {spec.model}, layers `{spec.layer_string}`, {result.n_parameters:,} parameters",
        f"- recipe {spec.recipe}, seed {spec.seed}, best epoch {result.best_epoch} of {result.epochs}, trained in "
        f"{result.precision}; the exported graph computes in float32",
    ]
    if result.origin:
        lines.append(
            f"- started from {result.origin['model']} on {result.origin['property']} of {result.origin['pack']}"
        )
    lines.append(
        "- networks: Jha et al., KDD 2019, doi:10.1145/3292500.3330703, and Sci. Rep. 11, 4244 (2021)"
    )
    return "\n".join(lines)
