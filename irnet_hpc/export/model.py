"""Write the model of runs as ONNX, compare the graph with the models, and write its card."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch

from irnet_hpc.errors import UserError
from irnet_hpc.export.classical_graph import classical_graph
from irnet_hpc.export.convertible import check_converted
from irnet_hpc.export.graph import (
    evaluate_graph,
    float32_predictions,
    metadata_of,
    network_graph,
    write_graph,
)
from irnet_hpc.export.mean_graph import mean_graph, mean_of_members, member_weights
from irnet_hpc.export.model_card import ExportedModel, model_card, source_facts
from irnet_hpc.files import followed, replacing, write_text
from irnet_hpc.models.modes import own_modes
from irnet_hpc.pack.store import pack_path
from irnet_hpc.predict.committee import calibrate_ensemble, load_ensemble, own_pack
from irnet_hpc.predict.members import ClassicalMember, Member, NetworkMember
from irnet_hpc.predict.run_folders import runs_in
from irnet_hpc.predict.screening import Ensemble, training_elements
from irnet_hpc.predict.weights import weigh
from irnet_hpc.runs.portable import folder_of
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
HINT_OF_NETWORKS = "A network of fewer layers, or features that distinguish more rows, may help"
HINT_OF_CLASSICAL = "The numbers of this model cancel, and ONNX computes it in float32 only"

Run = str | Path


class _Data(NamedTuple):
    """Rows to check a model on, with the licence and citation of the training data."""

    x: np.ndarray  # (n_rows, n_features) float32, features as packed
    rows: str  # what the rows are
    licence: str
    citation: str


@own_modes()
def export_model(
    runs: Run | Sequence[Run],
    model: Run,
    pack_dir: Run | None = None,
    *,
    committee: bool = False,
) -> tuple[Path, Path, ExportedModel]:
    """Export the model of a finished run, or the mean of several, as ONNX with a card beside it.

    Args:
        runs: The folder of a run, or of all seeds or folds of a model, or several folders. Several
            runs are one graph with the mean that `predict` gives.
        model: The file to write. Its name must end in .onnx; the card gets the same name with .md.
        pack_dir: Folder of the runs' packs, whose test rows verify the graph; None: $IRNET_PACKS,
            else packs/. If a pack is missing, random rows verify the graph.
        committee: Whether to weigh several runs by their errors on val, as `predict --committee`.

    Returns:
        The path of the graph, the path of the card, and the facts that the card states.

    Raises:
        UserError: If the name has another ending, a run cannot be read, its model is of a kind
            that cannot be converted, the runs predict different properties, a library is missing,
            or the graph and the models predict different numbers.
    """
    path = Path(model)
    if path.suffix != ".onnx":
        raise UserError(f"the model's name must end in .onnx, got {path}")
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    folders = [one for folder in given for one in runs_in(folder_of(folder))]
    check_converted(folders, path)
    _require("onnx")
    ensemble, evidence = load_ensemble(folders, pack_dir, torch.device("cpu"))
    members = ensemble.members
    _check_properties(ensemble)
    classical = [member for member in members if isinstance(member, ClassicalMember)]
    if classical:
        _require("skl2onnx")
    if len(classical) < len(members):
        _require("onnxscript")
    if committee:
        if len(ensemble.all_groups) < 2:
            raise UserError("a committee needs several models, got one")
        ensemble, evidence = weigh(ensemble, evidence)
    ensemble, reports = calibrate_ensemble(ensemble, evidence, LEVEL)
    data = _data(ensemble, pack_dir)
    with replacing(followed(path)) as temporary:
        verified = _write(temporary, ensemble, data)
        size = temporary.stat().st_size
    member = members[0]
    floors = np.broadcast_to(member.scaling.floor, len(member.units))
    exported = ExportedModel(
        file=path.name,
        size=size,
        units=member.units,
        features="+".join(ensemble.layout.names),
        feature_labels=_labels(ensemble),
        pack=str(pack_path(member.spec.pack, pack_dir)),
        floors={n: float(f) for n, f in zip(member.units, floors, strict=True) if np.isfinite(f)},
        elements=training_elements(ensemble),
        licence=data.licence,
        citation=data.citation,
        verified=verified,
        reports=reports,
        intervals=ensemble.intervals,
        weights=member_weights(ensemble),
        n_groups=len(ensemble.all_groups),
    )
    card = path.with_suffix(".md")
    write_text(followed(card), model_card(members, exported))
    return path, card, exported


def _check_properties(ensemble: Ensemble) -> None:
    """Raise UserError unless all members predict the same properties in the same order."""
    first = ensemble.members[0]
    for member in ensemble.members[1:]:
        if list(member.units) != list(first.units):
            raise UserError(
                "runs that are exported together must predict the same properties, got "
                f"{', '.join(first.units)} in {first.folder} and {', '.join(member.units)} in "
                f"{member.folder}"
            )


def _labels(ensemble: Ensemble) -> list[str]:
    """Return the label of each feature of the graph, in order."""
    picks = ensemble.layout.picks
    labels = [""] * (1 + max(int(pick.max()) for pick in picks))
    for member, pick in zip(ensemble.members, picks, strict=True):
        for place, label in zip(pick.tolist(), member.feature_labels, strict=True):
            labels[place] = label
    return labels


def _write(path: Path, ensemble: Ensemble, data: _Data) -> str:
    """Write the graph, compare it with the models, and say in a sentence how well they agree."""
    members = ensemble.members
    graphs = [
        classical_graph(member)
        if isinstance(member, ClassicalMember)
        else network_graph(cast(NetworkMember, member))
        for member in members
    ]
    if len(members) == 1:
        write_graph(path, graphs[0], members[0].spec.model)
    else:
        sets = "+".join(ensemble.layout.names)
        joined = mean_graph(ensemble, graphs, metadata_of(members, sets, _labels(ensemble)))
        write_graph(path, joined, f"{len(members)} runs")
    inputs = [data.x[:, pick] for pick in ensemble.layout.picks]
    # As the run computed, in its own precision; and as the graph should, in float32.
    by_run = [predict(own) for predict, own in zip(ensemble.predictors, inputs, strict=True)]
    in_float32 = [
        float32_predictions(member, own) if isinstance(member, NetworkMember) else predicted
        for member, own, predicted in zip(members, inputs, by_run, strict=True)
    ]
    deviation = np.min([_deviation(*one) for one in zip(members, by_run, strict=True)], axis=0)
    expected, stated = (mean_of_members(ensemble, one) for one in (in_float32, by_run))
    predicted, evaluator = evaluate_graph(path, data.x)
    differences = np.abs(predicted - expected.mean).max(0)
    networks = [member for member in members if isinstance(member, NetworkMember)]
    hint = HINT_OF_NETWORKS if networks else HINT_OF_CLASSICAL
    _check("torch's" if networks else "scikit-learn's", differences / deviation, TOLERANCE, hint)
    if len(ensemble.all_groups) > 1:
        spread, _ = evaluate_graph(path, data.x, "sd")
        apart = np.abs(spread - expected.sd).max(0) / deviation
        _check("as far apart as the models'", apart, TOLERANCE, hint)
    member = members[0]
    mean = f"as the mean of {len(members)} runs " if len(members) > 1 else ""
    rows = f"On {len(data.x):,} {data.rows} {evaluator}"
    if not networks:
        return (
            f"{rows} gives {mean}in float32 what scikit-learn and `python -m irnet_hpc.predict` "
            f"give in float64, to {_in_units(differences, member)}."
        )
    to_predict = np.abs(predicted - stated.mean)
    _check("those of the run itself", to_predict.mean(0) / deviation, TOLERANCE_OF_PRECISION, hint)
    precision = " and ".join(dict.fromkeys(network.recipe.precision for network in networks))
    others = " and scikit-learn in float64" if len(networks) < len(members) else ""
    did = "these runs did" if len(members) > 1 else "this run did"
    return (
        f"{rows} gives {mean}what torch gives in float32{others}, to "
        f"{_in_units(differences, member)}. "
        f"`python -m irnet_hpc.predict` computes in {precision}, as {did} for "
        "the errors: there its predictions differ from this graph's by up to "
        f"{_in_units(to_predict.max(0), member)} ({_in_units(to_predict.mean(0), member)} on "
        "average)."
    )


def _deviation(member: Member, predicted: np.ndarray) -> np.ndarray:
    """Return the standard deviations (n_properties,) of the target that differences are of.

    A network's is the scale of its target; a constant target has none, and its predictions are
    equal. Trees have no such scale; their predictions vary at most as much as the targets.
    """
    if isinstance(member, NetworkMember):
        return nonzero(member.scaling.target_scale)
    return nonzero(predicted.std(0))


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


def _data(ensemble: Ensemble, pack_dir: str | Path | None) -> _Data:
    """Return test rows of the first member's pack, or random rows.

    They are random if the pack is missing, or does not have the features of all members.
    """
    member, picks = ensemble.members[0], ensemble.layout.picks
    source = source_facts(member.result.pack_identity)
    licence, citation = source.licence, source.citation
    x, n_features = None, 1 + max(int(pick.max()) for pick in picks)
    try:
        with own_pack(member, pack_dir) as pack:
            test = pack.rows("test")
            licence = pack.attrs.get("licence") or licence
            citation = pack.attrs.get("citation") or citation
            if all(np.array_equal(pick, np.arange(n_features)) for pick in picks):
                x = pack.x(slice(test.start, min(test.stop, test.start + CHECKED_ROWS)))
    except UserError:
        pass  # load_ensemble has said why
    if x is not None:
        return _Data(x, "test rows", licence, citation)
    drawn = np.empty((CHECKED_ROWS, n_features))
    random = np.random.default_rng(0)
    for one, pick in zip(ensemble.members, picks, strict=True):
        scale = np.where(np.isinf(one.scaling.feature_scale), 0, one.scaling.feature_scale)
        normal = random.normal(size=(CHECKED_ROWS, len(pick)))
        drawn[:, pick] = normal * scale + one.scaling.feature_mean
    return _Data(drawn.astype(np.float32), "random rows", licence, citation)
