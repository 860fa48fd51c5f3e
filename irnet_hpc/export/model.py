"""Write a run's model as ONNX, compare the graph with the model, and write its card."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from irnet_hpc.errors import UserError
from irnet_hpc.export.classical_graph import check_converted, write_classical_graph
from irnet_hpc.export.graph import evaluate_graph, float32_predictions, write_graph
from irnet_hpc.export.model_card import ExportedModel, model_card, source_facts
from irnet_hpc.files import followed, replacing, write_text
from irnet_hpc.models.modes import own_modes
from irnet_hpc.predict.committee import calibrate_ensemble, load_ensemble, own_pack
from irnet_hpc.predict.members import ClassicalMember, Member, NetworkMember
from irnet_hpc.predict.screening import Ensemble, training_elements
from irnet_hpc.train.scaling import nonzero

# Number of rows on which the graph and the model are compared.
CHECKED_ROWS = 2000
# Allowed difference, in standard deviations of the target. Graph and model differ in rounding,
# since they add float32 numbers in different orders.
TOLERANCE = 1e-4
# The same for the mean difference between the graph, in float32, and the run in its own precision.
TOLERANCE_OF_PRECISION = 0.1
# Level of the intervals that the card describes.
LEVEL = 0.9


class _Data(NamedTuple):
    """Rows to check a model on, with the licence and citation of the training data."""

    x: np.ndarray  # (n_rows, n_features) float32, features as packed
    rows: str  # what the rows are
    licence: str
    citation: str


@own_modes()
def export_model(
    run: str | Path, model: str | Path, pack_dir: str | Path | None = None
) -> tuple[Path, Path, ExportedModel]:
    """Export the model of a finished run as ONNX, with a model card beside it.

    Args:
        run: The folder of the run.
        model: The file to write. Its name must end in .onnx; the card gets the same name with .md.
        pack_dir: Folder of the run's pack, whose test rows verify the graph; None: $IRNET_PACKS,
            else packs/. If the pack is missing, random rows verify the graph.

    Returns:
        The path of the graph, the path of the card, and the facts that the card states.

    Raises:
        UserError: If the name has another ending, the run cannot be read, its model is of a kind
            that cannot be converted, a library is missing, or the graph and the model predict
            different numbers.
    """
    path = Path(model)
    if path.suffix != ".onnx":
        raise UserError(f"the model's name must end in .onnx, got {path}")
    _require("onnx")
    ensemble, evidence = load_ensemble([run], pack_dir, torch.device("cpu"))
    if len(ensemble.members) > 1:
        raise UserError(
            f"one run is exported at a time, got {run} with {len(ensemble.members)} runs; give the "
            "folder of one of them"
        )
    (member,) = ensemble.members
    if isinstance(member, ClassicalMember):
        check_converted(member)
        _require("skl2onnx")
    else:
        _require("onnxscript")
    ensemble, reports = calibrate_ensemble(ensemble, evidence, LEVEL)
    data = _data(member, pack_dir)
    with replacing(followed(path)) as temporary:
        write = _write_classical if isinstance(member, ClassicalMember) else _write_network
        verified = write(temporary, ensemble, data)
    floors = np.broadcast_to(member.scaling.floor, len(member.units))
    exported = ExportedModel(
        file=path.name,
        units=member.units,
        feature_labels=member.feature_labels,
        floors={n: float(f) for n, f in zip(member.units, floors, strict=True) if np.isfinite(f)},
        elements=training_elements(ensemble),
        licence=data.licence,
        citation=data.citation,
        verified=verified,
        reports=reports,
    )
    card = path.with_suffix(".md")
    write_text(followed(card), model_card(member.spec, member.result, exported))
    return path, card, exported


def _write_network(path: Path, ensemble: Ensemble, data: _Data) -> str:
    """Write the graph of a network, compare it with torch, and say how well they agree."""
    (member,), (predict,) = ensemble.members, ensemble.predictors
    assert isinstance(member, NetworkMember)
    write_graph(path, member)
    predicted, evaluator = evaluate_graph(path, data.x)
    differences = np.abs(predicted - float32_predictions(member, data.x)).max(0)
    # The scale of a constant target is 0; its predictions are equal.
    to_predict = np.abs(predicted - predict(data.x))
    deviation = nonzero(member.scaling.target_scale)
    hint = "A network of fewer layers, or features that distinguish more rows, may help"
    _check("torch's", differences / deviation, TOLERANCE, hint)
    _check("those of the run itself", to_predict.mean(0) / deviation, TOLERANCE_OF_PRECISION, hint)
    return (
        f"On {len(data.x):,} {data.rows} {evaluator} gives what torch gives in float32, to "
        f"{_in_units(differences, member)}. "
        f"`python -m irnet_hpc.predict` computes in {member.recipe.precision}, as this run did "
        "for its errors: there its predictions differ from this graph's by up to "
        f"{_in_units(to_predict.max(0), member)} ({_in_units(to_predict.mean(0), member)} on "
        "average)."
    )


def _write_classical(path: Path, ensemble: Ensemble, data: _Data) -> str:
    """Write the graph of a classical model, compare it with the model, and say how they agree."""
    (member,), (predict,) = ensemble.members, ensemble.predictors
    assert isinstance(member, ClassicalMember)
    write_classical_graph(path, member)
    predicted, evaluator = evaluate_graph(path, data.x)
    expected = predict(data.x)
    differences = np.abs(predicted - expected).max(0)
    # Trees have no scale of the target; the predictions vary at most as much as the targets.
    deviation = nonzero(expected.std(0))
    hint = "The numbers of this model cancel, and ONNX computes it in float32 only"
    _check("scikit-learn's", differences / deviation, TOLERANCE, hint)
    return (
        f"On {len(data.x):,} {data.rows} {evaluator} gives in float32 what scikit-learn and "
        f"`python -m irnet_hpc.predict` give in float64, to {_in_units(differences, member)}."
    )


def _check(of: str, relative: np.ndarray, tolerance: float, hint: str) -> None:
    """Raise UserError if the predictions of the graph differ too much from those of the model.

    Args:
        of: Whose predictions the graph's must be.
        relative: The differences (n_properties,), in standard deviations. If the targets were
            constant, the predictions must be equal.
        tolerance: The largest difference that is allowed.
        hint: What may help.
    """
    largest = float(relative.max())
    if not largest <= tolerance:
        raise UserError(
            f"the graph's predictions, in float32, must be {of} to {tolerance:g} standard "
            f"deviations of the target, got a difference of {largest:.2g}; no graph is written. "
            f"{hint}"
        )


def _in_units(values: np.ndarray, member: Member) -> str:
    """Format a value of each property (n_properties,) with its unit."""
    units = zip(values, member.units.values(), strict=True)
    return ", ".join(f"{value:.2g} {unit}" for value, unit in units)


def _require(*names: str) -> None:
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise UserError(f"export needs {' and '.join(missing)}: pip install 'irnet_hpc[onnx]'")


def _data(member: Member, pack_dir: str | Path | None) -> _Data:
    """Return test rows of the member's pack, or random rows if the pack is missing."""
    source = source_facts(member.result.pack_identity)
    try:
        with own_pack(member, pack_dir) as pack:
            test = pack.rows("test")
            x = pack.x(slice(test.start, min(test.stop, test.start + CHECKED_ROWS)))
            licence = pack.attrs.get("licence") or source.licence
            return _Data(x, "test rows", licence, pack.attrs.get("citation") or source.citation)
    except UserError:
        drawn = np.random.default_rng(0).normal(size=(CHECKED_ROWS, len(member.feature_labels)))
        scale = member.scaling.feature_scale
        x = drawn * np.where(np.isinf(scale), 0, scale) + member.scaling.feature_mean
        return _Data(x.astype(np.float32), "random rows", source.licence, source.citation)
