"""A pack's rows as tensors on the device, scaled as the recipe says, and the order in which training visits them."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.errors import UserError
from irnet_hpc.grids import Grid
from irnet_hpc.joint import spreads
from irnet_hpc.properties import floor_of
from irnet_hpc.recipes import RECIPES, Recipe
from irnet_hpc.runs import RunSpec
from irnet_hpc.store import Pack

# The order of training is shuffled by chunks, then by rows within a window of chunks, so that a pack too large for the
# device can be streamed in the very same order. 65,536 rows a window.
CHUNK_ROWS = 4096
WINDOW_CHUNKS = 16

SLAB_ROWS = 65536  # read at once: whole slabs are 40 times faster than single rows


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows of one role (train, val or test) that report the property; of several, (n_rows, n_properties), at least one."""

    row: np.ndarray  # (n_rows,) int64, their numbers in the pack, ascending
    target: np.ndarray  # (n_rows,) float64, in the property's unit; of several, NaN where not reported
    x: Tensor  # (n_rows, n_features), scaled, on the device
    y: Tensor  # (n_rows,), scaled, on the device

    def __len__(self) -> int:
        return len(self.row)


@dataclasses.dataclass(frozen=True)
class Scaling:
    """The recipe's scaling of features and target, and how to undo it. Statistics are those of the training rows."""

    feature_mean: np.ndarray  # (n_features,) float64
    feature_scale: np.ndarray  # (n_features,) float64, 1 where a feature does not vary
    clip: float  # standard deviations; 0: no limit
    target_mean: float | np.ndarray  # in the property's unit; of several properties (n_properties,)
    target_scale: float | np.ndarray
    spread: np.ndarray | None = None  # of several properties (n_properties,), what their errors are relative to
    floor: float | np.ndarray = -np.inf  # in the unit: what predictions are cut at; -inf: at nothing

    def features(self, x: np.ndarray) -> np.ndarray:
        """(n_rows, n_features) as packed -> scaled, float32."""
        scaled = (x - self.feature_mean) / self.feature_scale
        if self.clip:
            np.clip(scaled, -self.clip, self.clip, out=scaled)
        return scaled.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Dataset:
    train: Part
    val: Part
    test: Part
    scaling: Scaling


def load(
    pack: Pack,
    spec: RunSpec,
    recipe: Recipe | Grid,
    device: torch.device,
    dtype: torch.dtype,
    given: Scaling | None = None,
) -> Dataset:
    """Read the rows that report the property, or one of several, and scale them; features as `given`, where weights expect that.

    Protocol `paper` trains on train and val together, as the published code does; then val is empty.
    Raises UserError where a role has no rows of a property, or training has fewer than a batch.
    """
    train, val, test = (_reported(pack, spec.properties, pack.rows(role)) for role in ("train", "val", "test"))
    if spec.protocol == "paper":
        train, val = tuple(np.concatenate(pair) for pair in zip(train, val, strict=True)), tuple(a[:0] for a in val)
    if spec.train_rows is not None:
        if spec.train_rows > len(train[0]):
            raise UserError(
                f"train_rows must be at most the {len(train[0])} rows there are, however: {spec.train_rows}"
            )
        train = tuple(array[: spec.train_rows] for array in train)  # rows are in random order: subsets are nested
    for role, (row, target) in {"train": train, "val": val, "test": test}.items():
        reports = (~np.isnan(target)).reshape(len(row), len(spec.properties)).any(0)
        for name, reported in zip(spec.properties, reports, strict=True):
            if not reported and (role != "val" or spec.protocol == "honest"):
                raise UserError(f"{name} of pack {spec.pack} has no {role} rows that report it")
    if len(train[0]) < recipe.batch:
        fits = 2 ** int(np.log2(max(2, min(64, len(train[0])))))
        raise UserError(
            f"training rows must be at least one batch, however: {len(train[0])} rows of {spec.property} and a batch of "
            f"{recipe.batch} (recipe {recipe.name}); e.g. --recipe '{{name: small, base: "
            f"{recipe.name if recipe.name in RECIPES else 'onecycle'}, batch: {fits}, norm_group: {fits}}}'"
        )
    roles = [(row, _features(pack, row), target) for row, target in (train, val, test)]
    data = arrange(*roles, recipe=recipe, device=device, dtype=dtype, given=given)
    if recipe.floor == "none":
        return data
    floors = np.array([floor_of(name) for name in spec.properties])
    floor = floors if len(floors) > 1 else float(floors[0])
    return dataclasses.replace(data, scaling=dataclasses.replace(data.scaling, floor=floor))


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # ascending numbers (n,), features (n, n_features), target of Part


def arrange(
    train: Rows,
    val: Rows,
    test: Rows,
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype,
    given: Scaling | None = None,
) -> Dataset:
    """Rows as they are -> scaled, on the device; the scaling of features is that of `given`, if it is."""
    scaling = _scaling(train[1], train[2], recipe)
    if given:
        of_features = {name: getattr(given, name) for name in ("feature_mean", "feature_scale", "clip")}
        scaling = dataclasses.replace(scaling, **of_features)

    def part(row: np.ndarray, features: np.ndarray, target: np.ndarray) -> Part:
        scaled = (target - scaling.target_mean) / scaling.target_scale
        x = torch.from_numpy(scaling.features(features))
        return Part(row, target, x.to(device, dtype), torch.from_numpy(scaled).to(device, dtype))

    return Dataset(part(*train), part(*val), part(*test), scaling)


def _reported(pack: Pack, names: tuple[str, ...], rows: slice) -> tuple[np.ndarray, np.ndarray]:
    target = np.stack([pack.y(name, rows) for name in names], 1)
    reported = np.flatnonzero((~np.isnan(target)).any(1))
    return reported + rows.start, target[reported] if len(names) > 1 else target[reported, 0]


def _features(pack: Pack, row: np.ndarray) -> np.ndarray:
    """Features of ascending row numbers (n_rows, n_features) float32, read slab by slab."""
    out = np.empty((len(row), pack.n_features), np.float32)
    if not len(row):
        return out
    for start in range(int(row[0]), int(row[-1]) + 1, SLAB_ROWS):
        stop = min(start + SLAB_ROWS, int(row[-1]) + 1)
        first, last = np.searchsorted(row, (start, stop))
        out[first:last] = pack.x(slice(start, stop))[row[first:last] - start]
    return out


def _scaling(x: np.ndarray, target: np.ndarray, recipe: Recipe | Grid) -> Scaling:
    mean, scale, target_mean, target_scale = np.zeros(x.shape[1]), np.ones(x.shape[1]), 0.0, 1.0
    if recipe.features == "standard":
        mean, scale = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
        scale[scale <= 1e-7 * np.abs(mean)] = 0  # rounding of a constant is not variation
        scale[scale == 0] = 1
    if target.ndim == 2:
        spread, n = spreads(target), target.shape[1]
        standard = recipe.target == "standard"
        target_mean, target_scale = (np.nanmean(target, 0), spread) if standard else (np.zeros(n), np.ones(n))
        return Scaling(mean, scale, recipe.clip, target_mean, target_scale, spread=spread)
    if recipe.target == "standard":
        target_mean, target_scale = float(target.mean()), float(target.std()) or 1.0
    return Scaling(mean, scale, recipe.clip, target_mean, target_scale)


def epoch_order(row: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the training rows: positions (n_rows,), a pure function of (seed, epoch).

    `row` are the rows' numbers in the pack, ascending, which say in which chunk of it each one lies.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    bounds = np.flatnonzero(np.diff(row // CHUNK_ROWS)) + 1
    chunks = np.split(np.arange(len(row)), bounds)
    chunks = [chunks[i] for i in random.permutation(len(chunks))]
    windows = [np.concatenate(chunks[i : i + WINDOW_CHUNKS]) for i in range(0, len(chunks), WINDOW_CHUNKS)]
    for window in windows:
        random.shuffle(window)
    return np.concatenate(windows)
