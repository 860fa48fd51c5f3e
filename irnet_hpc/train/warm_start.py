"""Start a run from the weights of another run, its origin, and count the formulas that they share.

    python -m irnet_hpc.train --pack mine --property band_gap --layers 64BARx2-1 --init RUN
    python -m irnet_hpc.train --pack mine-magpie+elements --property band_gap --architecture irnet \
        --depth 17 --init pretrained:oqmd

All layers except the output layer start with the weights of the origin; the output layer is
initialised anew. The weights expect features that are scaled as for the origin, so the origin's
scaling of features is used. The target is scaled by the training rows of the new run, and
population statistics are computed anew.
"""

import dataclasses
import logging
from pathlib import Path

import numpy as np
from torch import Tensor

from irnet_hpc.data.benchmarks import is_benchmark
from irnet_hpc.data.formulas import parse_formula, reduced_formula
from irnet_hpc.data.known_formulas import KnownFormulas
from irnet_hpc.errors import UserError
from irnet_hpc.models.network import Network
from irnet_hpc.pack.store import Pack, open_pack, pack_path, reported_rows
from irnet_hpc.runs.classical_grids import Grid
from irnet_hpc.runs.pack_identity import differing_fields
from irnet_hpc.runs.portable import EVIDENCE, folder_of, is_portable, name_of
from irnet_hpc.runs.recipes import Recipe, cannot_start
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec, run_id
from irnet_hpc.train.dataset import Dataset
from irnet_hpc.train.model_file import read_finished, read_tensors
from irnet_hpc.train.scaling import Scaling

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Origin:
    """A finished run of a network, with everything that a new run needs to start from it."""

    folder: Path
    spec: RunSpec
    recipe: Recipe
    result: RunResult
    feature_labels: list[str]
    scaling: Scaling  # for features only
    # The weights and statistics without the output layer, by their names in Network.state_dict().
    tensors: dict[str, Tensor]

    @property
    def id(self) -> str:
        """The run_id of the origin."""
        return run_id(self.spec, self.recipe)

    @property
    def key(self) -> str:
        """The key of the origin, from its result."""
        return self.result.key


def read_origin(run_or_name: Path | str) -> Origin:
    """Read a run, given by its folder or as `pretrained:NAME`, to start from it.

    Raises:
        UserError: If there is no run, or the run has not finished, has no network, or is damaged.
    """
    run = read_finished(folder_of(run_or_name), "an init run")
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
    """Raise UserError if a network cannot start from the origin, or cannot follow the recipe."""
    if isinstance(recipe, Grid):
        return
    assert spec.depth is not None  # since the model is a network
    if reason := cannot_start(recipe, spec.depth, origin.recipe if origin else None):
        raise UserError(reason)
    if origin and _body(origin.spec) != _body(spec):
        raise UserError(
            f"an init run must have the same layers, got {spec.model} {spec.layer_string} and init "
            f"run {origin.folder} with {origin.spec.layer_string} ({origin.spec.model})"
        )


def _body(spec: RunSpec) -> str:
    """Return the layer string without the output layer, which may have another width."""
    return spec.layer_string.rpartition("-")[0]


def check_features(origin: Origin | None, pack: Pack) -> None:
    """Raise UserError if the origin was trained on features other than those of the pack."""
    if origin is None:
        return
    identity = origin.result.pack_identity
    if origin.feature_labels != pack.feature_labels:
        raise UserError(
            f"the init run has another feature set: {origin.folder} was trained on "
            f"{identity['features']} ({len(origin.feature_labels)} features), pack {pack.name} has "
            f"{pack.features} ({pack.n_features})"
        )
    before, now = identity.get("feature_versions") or {}, pack.identity["feature_versions"]
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            raise UserError(
                f"the init run has other features: {origin.folder} was trained on version "
                f"{before[name]} of feature set {name}, pack {pack.name} has {now[name]}"
            )


def take_over(origin: Origin, network: Network) -> None:
    """Copy the weights of the origin, except for the output layer, into a network.

    Raises:
        UserError: If names or shapes of the origin's tensors differ from those of the network.
    """
    own = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("output.")
    }
    expected, stored = (
        {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for tensors in (own, origin.tensors)
    )
    if expected != stored:
        names = expected.keys() | stored.keys()
        wrong = min(name for name in names if expected.get(name) != stored.get(name))
        raise UserError(
            f"{origin.folder / 'model.safetensors'} is damaged: {wrong} is missing, or of another "
            "shape"
        )
    for name, tensor in own.items():
        tensor.copy_(origin.tensors[name])


# --------------------------------------------------------------------------------- shared formulas


def describe(origin: Origin, pack: Pack, data: Dataset, pack_dir: Path | str | None) -> dict:
    """Describe the origin for run.json and result.json.

    The origin's pack is read to count the formulas that its rows share with the val and test
    rows. If the pack cannot be read, a warning says why, and the counts are None. A portable model
    knows the formulas itself.

    Raises:
        UserError: If a formula that the pack tests trained a portable model; or if the pack is a
            benchmark, and such a formula trained any other origin, on any property, or it is not
            known whether one did.
    """
    spec = origin.spec
    if is_portable(origin.folder):
        return _described(origin, _shared_with_portable(origin, pack, data))
    shared: tuple[int | None, int | None] = (None, None)
    try:
        path = pack.path if spec.pack == pack.name else pack_path(spec.pack, pack_dir)
        shared = n_shared(pack, data, trained_on(origin, path))
    except UserError as error:
        if is_benchmark(pack.identity["source"]):
            raise UserError(
                f"a run on {pack.identity['source']} cannot start from {origin.folder}, since it "
                f"is not known whether formulas that it tests trained that run: {error}"
            ) from None
        logger.warning(
            f"warning: the formulas that the init run was trained on are not known: {error}"
        )
    if shared[1] and is_benchmark(pack.identity["source"]):
        raise UserError(
            f"a run on {pack.identity['source']} cannot start from {origin.folder}, since "
            f"{shared[1]:,} formulas that it tests have trained or selected that run "
            f"({spec.property} of {spec.pack}); its test MAE would not compare to published ones"
        )
    return _described(origin, shared)


def _described(origin: Origin, shared: tuple[int | None, int | None]) -> dict:
    """Return the facts about an origin, with the numbers of val and test formulas it has seen."""
    named = {
        name: getattr(origin.spec, name)
        for name in ("pack", "property", "model", "recipe", "protocol", "train_rows")
    }
    return (
        {"folder": name_of(origin.folder), "key": origin.key}
        | named
        | dict(zip(SHARED, shared, strict=True))
    )


SHARED = ("n_shared_val", "n_shared_test")


def trained_on(origin: Origin, path: Path) -> set[str]:
    """List the reduced formulas of the rows that trained the origin or selected its epoch.

    Args:
        origin: The origin.
        path: The path of the origin's pack.

    Raises:
        UserError: If the pack is missing or not the right one, or if the origin itself has an
            origin.
    """
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
        if spec.protocol == "paper":
            # Protocol paper trains on val, and selects on test.
            train, val = np.concatenate([train, val]), test
        rows = [*train[: spec.train_rows], *val]
        formulas = pack.formulas(slice(0, pack.n_rows))
        return {
            reduced_formula(parse_formula(formula)) for formula in {formulas[row] for row in rows}
        }


def n_shared(pack: Pack, data: Dataset, others: set[str]) -> tuple[int, int]:
    """Count how many of the formulas in `others` occur in val rows, and how many in test rows."""
    in_val, in_test = _held_out_formulas(pack, data)
    return len(in_val & others), len(in_test & others)


def _held_out_formulas(pack: Pack, data: Dataset) -> tuple[set[str], set[str]]:
    """Return the reduced formulas of the val rows, and those of the test rows."""
    formulas = pack.formulas(slice(0, pack.n_rows))
    in_val, in_test = (
        {reduced_formula(parse_formula(formula)) for formula in {formulas[row] for row in part.row}}
        for part in (data.val, data.test)
    )
    return in_val, in_test


def formulas_of_portable(folder: Path) -> KnownFormulas:
    """Read which formulas trained a portable model, and which selected its epoch.

    Raises:
        UserError: If the file is missing or damaged.
    """
    path = folder / EVIDENCE
    tensors, _ = read_tensors(path)
    try:
        train, val = (tensors[f"formulas.{role}"].numpy() for role in ("train", "val"))
    except KeyError as error:
        raise UserError(f"{path}: it is damaged: it has no {error}") from None
    return KnownFormulas(train, val)


def _shared_with_portable(origin: Origin, pack: Pack, data: Dataset) -> tuple[int, int]:
    """Count the val formulas that a portable model has seen; it has seen none of the test formulas.

    Raises:
        UserError: If it has seen a test formula.
    """
    known = formulas_of_portable(origin.folder)
    in_val, in_test = _held_out_formulas(pack, data)
    if n_test := known.n_seen(in_test):
        raise UserError(
            f"a run on {pack.name} cannot start from {name_of(origin.folder)}, since {n_test:,} of "
            f"the {len(in_test):,} formulas that it tests have trained that network or selected "
            f"its epoch; a pack with the {_split_in_words(origin)} has no such formula"
        )
    return known.n_seen(in_val), 0


def _split_in_words(origin: Origin) -> str:
    """Say how a pack must be split so that it tests no formula that the origin has seen."""
    split = origin.result.pack_identity["split"]
    if split.get("by") == "reduced formula":
        return f"split `random` and split seed {split['seed']}"
    return f"split of {origin.spec.pack}"


def in_words(facts: dict | None, recipe: Recipe, spec: RunSpec) -> str:
    """Describe the origin for the log at the start of a run; empty if there is no origin."""
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
        f"\nstarts from {facts['folder']}: {facts['model']} on {facts['property']} of "
        f"{facts['pack']}, recipe {facts['recipe']}; trains {trained}; formulas that trained or "
        f"selected it: {shared}"
    )
    if n_test:
        text += (
            f"\nwarning: {n_test:,} formulas of the test rows have trained or selected the init "
            "run, so the test MAE will be optimistic; no formula is shared if the origin has "
            "protocol honest and both packs are split by formula with the same seed"
        )
    return text
