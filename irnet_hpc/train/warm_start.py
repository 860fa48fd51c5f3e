"""The run that another starts from: read and checked, its weights taken over, and which formulas the two share.

    python -m irnet_hpc.train --pack mine --property band_gap --layers 64BARx2-1 --init results/oqmd-magpie/.../seed0

All but the output layer comes from the origin, which is initialised anew. The weights expect the origin's scaling of
features, so that is used, too; the target is scaled by its own training rows, and population statistics are retaken.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
from torch import Tensor

from irnet_hpc.data.formulas import parse_formula, reduced_formula
from irnet_hpc.errors import UserError
from irnet_hpc.models.network import Network
from irnet_hpc.pack.store import Pack, open_pack, pack_path, reported_rows
from irnet_hpc.runs.grids import Grid
from irnet_hpc.runs.pack_identity import differing_fields
from irnet_hpc.runs.recipes import Recipe, cannot_start
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec, run_id
from irnet_hpc.train.dataset import Dataset
from irnet_hpc.train.model_file import read_finished
from irnet_hpc.train.scaling import Scaling


@dataclasses.dataclass(frozen=True)
class Origin:
    """A finished run of a network, as far as one that starts from it needs it."""

    folder: Path
    spec: RunSpec
    recipe: Recipe
    result: RunResult
    feature_labels: list[str]
    scaling: Scaling  # of features; that of its target is left out
    tensors: dict[
        str, Tensor
    ]  # name in Network.state_dict() -> weights and statistics, the output layer left out

    @property
    def id(self) -> str:
        return run_id(self.spec, self.recipe)

    @property
    def key(self) -> str:
        return self.result.key


def read_origin(folder: Path | str) -> Origin:
    """A run by its folder. Raises UserError where there is none, it has not finished, is no network's, or is damaged."""
    run = read_finished(folder, "an init run")
    try:
        mean, scale = (
            run.tensors[f"feature_{name}"].double().numpy() for name in ("mean", "scale")
        )
        scaling = Scaling(mean, scale, run.facts["clip"], 0.0, 1.0)
    except (ValueError, TypeError) as error:
        raise run.damaged(error) from None
    body = {name: tensor for name, tensor in run.weights.items() if not name.startswith("output.")}
    return Origin(
        run.folder, run.spec, run.recipe, run.result, run.facts["feature_labels"], scaling, body
    )


def check_start(spec: RunSpec, recipe: Recipe | Grid, origin: Origin | None) -> None:
    """Raise UserError where a network cannot start, or be trained in part, as it is asked to."""
    if isinstance(recipe, Grid):
        return
    if why := cannot_start(recipe, spec.depth, origin and origin.recipe):
        raise UserError(why)
    if origin and _body(origin.spec) != _body(spec):
        raise UserError(
            f"an init run must have the same layers, however: {origin.folder} has {origin.spec.layer_string} "
            f"({origin.spec.model}), and {spec.model} {spec.layer_string}"
        )


def _body(spec: RunSpec) -> str:
    """The layer string without the output layer, whose width is no matter: it is initialised anew."""
    return spec.layer_string.rpartition("-")[0]


def check_features(origin: Origin | None, pack: Pack) -> None:
    """Raise UserError where the weights expect other features than the pack has."""
    if origin and origin.feature_labels != pack.feature_labels:
        raise UserError(
            f"an init run of another feature set: {origin.folder} was trained on {origin.result.pack_identity['features']} "
            f"({len(origin.feature_labels)} features), pack {pack.name} has {pack.features} ({pack.n_features})"
        )
    if origin:
        trained, ours = (
            origin.result.pack_identity.get("feature_versions") or {},
            pack.identity["feature_versions"],
        )
        if differing := sorted(
            name for name in trained.keys() & ours.keys() if trained[name] != ours[name]
        ):
            name = differing[0]
            raise UserError(
                f"an init run of other features: {origin.folder} was trained on version {trained[name]} of feature set {name}, "
                f"pack {pack.name} has {ours[name]}"
            )


def take_over(origin: Origin, network: Network) -> None:
    """Copy all but the output layer. Raises UserError where the model's tensors are not those of the network."""
    own = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("output.")
    }
    shapes, theirs = (
        {n: tuple(t.shape) for n, t in side.items()} for side in (own, origin.tensors)
    )
    if shapes != theirs:
        wrong = sorted(
            name for name in shapes.keys() | theirs.keys() if shapes.get(name) != theirs.get(name)
        )
        raise UserError(
            f"{origin.folder / 'model.safetensors'} is damaged: it lacks, or has otherwise, {wrong[0]}"
        )
    for name, tensor in own.items():
        tensor.copy_(origin.tensors[name])


# ------------------------------------------------------------------------------------------------------ shared formulas


def describe(origin: Origin, pack: Pack, data: Dataset, pack_dir: Path | str | None) -> dict:
    """What run.json and result.json say of the origin. Reads its pack; where that is not at hand, says why."""
    spec, shared = origin.spec, (None, None)
    try:
        theirs = (
            pack.path if origin.spec.pack == pack.name else pack_path(origin.spec.pack, pack_dir)
        )
        shared = n_shared(pack, data, trained_on(origin, theirs))
    except UserError as error:
        print(
            f"warning: which formulas the init run was trained on is not known: {error}",
            file=sys.stderr,
            flush=True,
        )
    named = {
        name: getattr(spec, name)
        for name in ("pack", "property", "model", "recipe", "protocol", "train_rows")
    }
    return (
        {"folder": str(origin.folder), "key": origin.key}
        | named
        | dict(zip(SHARED, shared, strict=True))
    )


SHARED = ("n_shared_val", "n_shared_test")


def trained_on(origin: Origin, path: Path) -> set[str]:
    """Reduced formulas of the rows of its pack that trained or selected the origin. Raises UserError where they cannot be
    known."""
    spec = origin.spec
    if spec.start_from:
        raise UserError(
            f"{origin.folder} itself started from another run, whose rows are not known here"
        )
    with open_pack(path) as pack:
        if differing_fields(pack.identity, origin.result.pack_identity):
            raise UserError(f"{pack.path} is not the pack that {origin.folder} was trained on")
        train, val, test = (
            reported_rows(pack, spec.property, pack.rows(role)) for role in ("train", "val", "test")
        )
        if spec.protocol == "paper":  # trains on val, and selects on test
            train, val = np.concatenate([train, val]), test
        rows = [*train[: spec.train_rows], *val]
        formulas = pack.formulas(slice(0, pack.n_rows))
        return {
            reduced_formula(parse_formula(formula)) for formula in {formulas[row] for row in rows}
        }


def n_shared(pack: Pack, data: Dataset, theirs: set[str]) -> tuple[int, int]:
    """How many reduced formulas of the val and the test rows are among `theirs`."""
    formulas, counts = pack.formulas(slice(0, pack.n_rows)), []
    for part in (data.val, data.test):
        ours = {
            reduced_formula(parse_formula(formula))
            for formula in {formulas[row] for row in part.row}
        }
        counts.append(len(ours & theirs))
    return counts[0], counts[1]


def in_words(facts: dict | None, recipe: Recipe, spec: RunSpec) -> str:
    """What is said at the start of a run of the one that it starts from; nothing where there is none."""
    if facts is None:
        return ""
    n_val, n_test = (facts[name] for name in SHARED)
    trained = (
        f"the last {recipe.trained_layers} of {spec.depth} layers"
        if recipe.trained_layers
        else "all layers"
    )
    shared = "not known" if n_test is None else f"{n_val:,} of val, {n_test:,} of test"
    text = (
        f"\nstarts from {facts['folder']}: {facts['model']} on {facts['property']} of {facts['pack']}, recipe "
        f"{facts['recipe']}; trains {trained}; formulas that trained or selected it: {shared}"
    )
    if n_test:
        text += (
            f"\nwarning: {n_test:,} formulas of the test rows have trained or selected the init run, so the test MAE will be "
            "optimistic; origins of protocol honest, of packs that are split by formula with one seed, share none"
        )
    return text
