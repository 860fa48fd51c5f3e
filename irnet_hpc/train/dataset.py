"""A pack's rows as tensors on the device, scaled as the recipe says, and the order in which training visits them."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.data.properties import floor_of
from irnet_hpc.distributed import memory
from irnet_hpc.distributed.engines import Comm
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.pack.store import Pack, open_pack
from irnet_hpc.runs.grids import Grid
from irnet_hpc.runs.recipes import RECIPES, Recipe, fitting_batch
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train import scaling, stream
from irnet_hpc.train.scaling import Scaling
from irnet_hpc.train.stream import CHUNK_ROWS, WINDOW_CHUNKS, Stream

# Where the features are while a network trains: on the device, or in the pack. The results are the same.
PLACES = ("auto", "resident", "stream")
SHARE = 0.5  # of the free memory, of the host and of the device, that `auto` lets resident features fill


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows of one role (train, val or test) that report the property; of several, (n_rows, n_properties), at least one."""

    row: np.ndarray  # (n_rows,) int64, their numbers in the pack, ascending
    target: (
        np.ndarray
    )  # (n_rows,) float64, in the property's unit; of several, NaN where not reported
    x: Tensor | Stream  # (n_rows, n_features), scaled, on the device or to be read
    y: Tensor  # (n_rows,), scaled, on the device

    def __len__(self) -> int:
        return len(self.row)

    @property
    def n_features(self) -> int:
        return self.x.n_features if self.streams else self.x.shape[1]

    @property
    def streams(self) -> bool:
        return isinstance(self.x, Stream)

    @property
    def device(self) -> torch.device:
        return self.x.device

    def batches(self, order: np.ndarray, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """x (n_local, n_features) and y (n_local,) on the device for each step of `order` (n_steps, n_local) from `first` on.

        `order` holds positions among these rows. Raises Unreadable where a pack that streams can no longer be read.
        """
        places = torch.from_numpy(np.ascontiguousarray(order)).to(self.device)
        if self.streams:
            found = stream.batches(self.x, order[first:].ravel(), order.shape[1])
        else:
            found = (self.x[places[i]] for i in range(first, len(order)))
        for i, x in enumerate(found, first):
            yield x, self.y[places[i]]

    def slabs(self, first: int, last: int, n: int) -> Iterator[tuple[slice, Tensor]]:
        """Rows from `first` to `last`, n after n: where they stand, and x (n, n_features) on the device."""
        begins = range(first, last, n)
        if self.streams:
            found = stream.batches(self.x, np.arange(first, last), n)
        else:
            found = (self.x[begin : min(begin + n, last)] for begin in begins)
        for begin, x in zip(begins, found, strict=True):
            yield slice(begin, begin + len(x)), x


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
    place: str = "resident",
) -> Dataset:
    """The rows that report the property, or one of several, scaled; features as `given`, where weights expect that.

    `place` is one of PLACES. Protocol `paper` trains on train and val together, as the published code does; then val is empty.
    Raises UserError where a role has no rows of a property, or training has fewer than a batch.
    """
    train, val, test = (
        _reported(pack, spec.properties, pack.rows(role)) for role in ("train", "val", "test")
    )
    if spec.protocol == "paper":
        train, val = (
            tuple(np.concatenate(pair) for pair in zip(train, val, strict=True)),
            tuple(a[:0] for a in val),
        )
    if spec.train_rows is not None:
        if spec.train_rows > len(train[0]):
            raise UserError(
                f"train_rows must be at most the {len(train[0])} rows there are, however: {spec.train_rows}"
            )
        train = tuple(
            array[: spec.train_rows] for array in train
        )  # rows are in random order: subsets are nested
    for role, (row, target) in {"train": train, "val": val, "test": test}.items():
        reports = (~np.isnan(target)).reshape(len(row), len(spec.properties)).any(0)
        for name, reported in zip(spec.properties, reports, strict=True):
            if not reported and (role != "val" or spec.protocol == "honest"):
                raise UserError(f"{name} of pack {spec.pack} has no {role} rows that report it")
    if len(train[0]) < recipe.batch:
        fits = fitting_batch(len(train[0]))
        raise UserError(
            f"training rows must be at least one batch, however: {len(train[0])} rows of {spec.property} and a batch of "
            f"{recipe.batch} (recipe {recipe.name}); e.g. --recipe '{{name: small, base: "
            f"{recipe.name if recipe.name in RECIPES else 'onecycle'}, batch: {fits}, norm_group: {fits}}}'"
        )
    roles = (train, val, test)
    if streams(place, sum(len(row) for row, _ in roles), pack.n_features, device, dtype):
        data = _streaming(pack, *roles, recipe=recipe, device=device, dtype=dtype, given=given)
    else:
        held = [(row, _features(pack, row), target) for row, target in roles]
        data = arrange(*held, recipe=recipe, device=device, dtype=dtype, given=given, own=True)
    if recipe.floor == "none":
        return data
    floors = np.array([floor_of(name) for name in spec.properties])
    floor = floors if len(floors) > 1 else float(floors[0])
    return dataclasses.replace(data, scaling=dataclasses.replace(data.scaling, floor=floor))


Rows = tuple[
    np.ndarray, np.ndarray, np.ndarray
]  # ascending numbers (n,), features (n, n_features), target of Part


def arrange(
    train: Rows,
    val: Rows,
    test: Rows,
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype,
    given: Scaling | None = None,
    own: bool = False,
) -> Dataset:
    """Rows as they are -> scaled, on the device; the scaling of features is that of `given`, if it is.

    Features that nobody else wants, `own`, are scaled where they lie: twice as fast as in new memory.
    """
    fitted = scaling.fit(lambda: [train[1]], train[1].shape[1], train[2], recipe, given)

    def part(row: np.ndarray, features: np.ndarray, target: np.ndarray) -> Part:
        x = torch.from_numpy(fitted.features(features, features if own else None))
        return Part(
            row,
            target,
            x.to(device, dtype),
            torch.from_numpy(fitted.target(target)).to(device, dtype),
        )

    return Dataset(part(*train), part(*val), part(*test), fitted)


def streams(
    place: str, n_rows: int, n_features: int, device: torch.device, dtype: torch.dtype
) -> bool:
    """Whether features stay in the pack: as asked, or where they would fill more than SHARE of what memory is free."""
    if check_choice("data", place, PLACES) != "auto":
        return place == "stream"
    on_host, on_device = 4 * n_rows * n_features, dtype.itemsize * n_rows * n_features
    if device.type == "cuda" and on_device > SHARE * torch.cuda.mem_get_info(device)[0]:
        return True
    if (
        device.type == "cpu" and dtype.itemsize != 4
    ):  # another copy, beside the float32 that were read
        on_host += on_device
    return on_host > SHARE * memory.free_bytes()


def place_of(data: Dataset, comm: Comm) -> str:
    """Where the ranks have their features: resident, streamed, or both, since a rank may find less memory than another."""
    n_streaming = sum(comm.gather(data.train.streams))
    some = "resident" if not n_streaming else f"streamed by {n_streaming} of {comm.size} ranks"
    return "streamed" if n_streaming == comm.size else some


def _streaming(
    pack: Pack,
    *roles: tuple[np.ndarray, np.ndarray],
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype,
    given: Scaling | None,
) -> Dataset:
    """What `arrange` gives, with features that stay in the pack; statistics take two passes over it."""
    row, target = roles[0]
    fitted = scaling.fit(
        lambda: (x for _, x in stream.slabs(pack, row)), pack.n_features, target, recipe, given
    )
    source = open_pack(pack.path)  # which stays open for as long as anyone has these rows

    def part(row: np.ndarray, target: np.ndarray) -> Part:
        rows = Stream(source, row, fitted, device, dtype)
        return Part(row, target, rows, torch.from_numpy(fitted.target(target)).to(device, dtype))

    return Dataset(*(part(*role) for role in roles), fitted)


def _reported(pack: Pack, names: tuple[str, ...], rows: slice) -> tuple[np.ndarray, np.ndarray]:
    target = np.stack([pack.y(name, rows) for name in names], 1)
    reported = np.flatnonzero((~np.isnan(target)).any(1))
    return reported + rows.start, target[reported] if len(names) > 1 else target[reported, 0]


def _features(pack: Pack, row: np.ndarray) -> np.ndarray:
    """Features of ascending row numbers (n_rows, n_features) float32."""
    out = np.empty((len(row), pack.n_features), np.float32)
    for places, x in stream.slabs(pack, row):
        out[places] = x
    return out


def epoch_order(row: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the training rows: positions (n_rows,), a pure function of (seed, epoch).

    `row` are the rows' numbers in the pack, ascending, which say in which chunk of it each one lies.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    bounds = np.flatnonzero(np.diff(row // CHUNK_ROWS)) + 1
    chunks = np.split(np.arange(len(row)), bounds)
    chunks = [chunks[i] for i in random.permutation(len(chunks))]
    windows = [
        np.concatenate(chunks[i : i + WINDOW_CHUNKS]) for i in range(0, len(chunks), WINDOW_CHUNKS)
    ]
    for window in windows:
        random.shuffle(window)
    return np.concatenate(windows)
