"""Load a pack's rows as scaled tensors on the device, and order them for each epoch."""

import dataclasses
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.data.properties import floor_of
from irnet_hpc.distributed import memory
from irnet_hpc.distributed.engines import Comm
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.pack.store import Pack, open_pack
from irnet_hpc.runs.classical_grids import Grid
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train import scaling, stream
from irnet_hpc.train.kept_rows import kept_rows
from irnet_hpc.train.run import PLACES
from irnet_hpc.train.scaling import Scaling
from irnet_hpc.train.stream import SHUFFLED_ROWS, WINDOW_PIECES, Stream

# With `auto`, features may fill this share of the free memory of the host and of the device.
SHARE = 0.5
# The types of weights and data.
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of one role (train, val or test) that report at least one of the properties."""

    row: np.ndarray  # (n_rows,) int64, their numbers in the pack, ascending
    # (n_rows,) float64, in the property's unit; for several properties (n_rows, n_properties), with
    # NaN for values that are not reported
    target: np.ndarray
    x: Tensor | Stream  # (n_rows, n_features), scaled, on the device or still in the pack
    y: Tensor  # the target, scaled, on the device

    def __len__(self) -> int:
        return len(self.row)

    @property
    def n_features(self) -> int:
        """The number of columns of x."""
        return self.x.n_features if isinstance(self.x, Stream) else self.x.shape[1]

    @property
    def streams(self) -> bool:
        """True if x is read from the pack when it is needed."""
        return isinstance(self.x, Stream)

    @property
    def device(self) -> torch.device:
        """The device where x is, or to which x is read."""
        return self.x.device

    @property
    def resident(self) -> Tensor:
        """The features in memory; call it only if they do not stream."""
        assert isinstance(self.x, Tensor)
        return self.x

    def batches(
        self, order: np.ndarray, first: int = 0
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield the batch of each step, on the device.

        Args:
            order: (n_steps, n_local): for each step, the positions of its rows among the rows of
                this part.
            first: The step to begin with.

        Yields:
            x (n_local, n_features) and y (n_local,).

        Raises:
            PackUnreadable: If features are streamed and the pack can no longer be read.
        """
        places = torch.from_numpy(np.ascontiguousarray(order)).to(self.device)
        x = self.x
        if isinstance(x, Stream):
            batches = stream.batches(x, order[first:].ravel(), order.shape[1])
        else:
            batches = (x[places[i]] for i in range(first, len(order)))
        for i, batch in enumerate(batches, first):
            yield batch, self.y[places[i]]

    def slabs(self, first: int, last: int, n: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows `first` to `last`, n at a time: their positions and x (n, n_features)."""
        begins, x = range(first, last, n), self.x
        if isinstance(x, Stream):
            slabs = stream.batches(x, np.arange(first, last), n)
        else:
            slabs = (x[begin : min(begin + n, last)] for begin in begins)
        for begin, slab in zip(begins, slabs, strict=True):
            yield slice(begin, begin + len(slab)), slab


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The rows of a training, by role."""

    train: Part
    val: Part
    test: Part
    scaling: Scaling


def dtype_of(recipe: Recipe | Grid) -> torch.dtype:
    """Return the type of weights and data, which is float64 for classical models."""
    return DTYPES[recipe.precision] if isinstance(recipe, Recipe) else torch.float64


def load(
    pack: Pack,
    spec: RunSpec,
    recipe: Recipe | Grid,
    device: torch.device,
    given: Scaling | None = None,
    place: str = "resident",
) -> Dataset:
    """Load and scale the rows that report at least one of the properties.

    Under protocol `paper`, train and val are joined for training, as in the published code, and val
    is empty.

    Args:
        pack: The pack; if features stream, it is opened a second time.
        spec: The specification of the run.
        recipe: The recipe of the run, which says how rows are scaled.
        device: The device of the tensors.
        given: A scaling of features to use in place of that of the training rows, if the initial
            weights expect this scaling.
        place: One of PLACES.

    Raises:
        UserError: If a role has no row that reports a property.
    """
    train, val, test = (
        _reported(pack, spec.properties, pack.rows(role)) for role in ("train", "val", "test")
    )
    if spec.protocol == "paper":
        train, val = _joined(train, val), (val[0][:0], val[1][:0])
    if spec.train_rows is not None:
        if spec.train_rows > len(train[0]):
            raise UserError(
                f"train_rows must be at most the {len(train[0])} training rows of the pack, "
                f"got {spec.train_rows}"
            )
        # Rows are in random order, so the first rows are a random sample, and samples are nested.
        train = (train[0][: spec.train_rows], train[1][: spec.train_rows])
    _check_rows(spec, {"train": train, "val": val, "test": test})
    roles, dtype = (train, val, test), dtype_of(recipe)

    def in_place() -> Dataset:
        if streams(place, sum(len(row) for row, _ in roles), pack.n_features, device, dtype):
            return _streaming(pack, roles, recipe, device, given)
        held = [(row, _features(pack, row), target) for row, target in roles]
        return arrange(held, recipe, device, given, own=True)

    kept = kept_rows()
    if kept is None or given is not None:
        data = in_place()
    else:
        # What decides the rows (the specification), and how they are scaled (the recipe).
        key = (
            *(spec.properties, spec.protocol, spec.train_rows),
            *(recipe.features, recipe.clip, recipe.target, dtype, device, place),
        )
        data = kept.get(pack.identity["content_sha256"], key, in_place)
    floors = np.array([floor_of(name) for name in spec.properties])
    floor = floors if len(floors) > 1 else float(floors[0])
    return dataclasses.replace(data, scaling=dataclasses.replace(data.scaling, floor=floor))


# The rows of one role: row numbers in the pack (n_rows,), ascending, and targets as in Part.
Targets = tuple[np.ndarray, np.ndarray]
# The rows of one role with features: row numbers, features (n_rows, n_features) and targets.
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def _joined(first: Targets, second: Targets) -> Targets:
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def _check_rows(spec: RunSpec, roles: dict[str, Targets]) -> None:
    """Raise UserError if no row of a role reports a property."""
    for role, (row, target) in roles.items():
        values = target.reshape(len(row), len(spec.properties))
        reports: list[bool] = np.any(~np.isnan(values), axis=0).tolist()
        for name, reported in zip(spec.properties, reports, strict=True):
            if not reported and (role != "val" or spec.protocol == "honest"):
                raise UserError(f"no {role} row of pack {spec.pack} reports {name}")


def arrange(
    roles: Sequence[Rows],
    recipe: Recipe | Grid,
    device: torch.device,
    given: Scaling | None = None,
    own: bool = False,
) -> Dataset:
    """Scale rows and move them to the device.

    Args:
        roles: The rows for training, validation and test.
        recipe: The recipe, which says how rows are scaled.
        device: The device of the result.
        given: A scaling of features to use in place of that of the training rows.
        own: True if the features in `roles` may be overwritten, which is twice as fast as copying
            them.
    """
    _, features, target = roles[0]
    fitted = scaling.fit(lambda: [features], features.shape[1], target, recipe, given)
    dtype = dtype_of(recipe)

    def part(row: np.ndarray, features: np.ndarray, target: np.ndarray) -> Part:
        x = torch.from_numpy(fitted.features(features, features if own else None))
        y = torch.from_numpy(fitted.target(target))
        return Part(row, target, x.to(device, dtype), y.to(device, dtype))

    train, val, test = (part(*rows) for rows in roles)
    return Dataset(train, val, test, fitted)


def streams(
    place: str, n_rows: int, n_features: int, device: torch.device, dtype: torch.dtype
) -> bool:
    """Return True if features are to be streamed, i.e. stay in the pack and are read when needed.

    With `auto`, features are streamed if they would fill more than SHARE of the free memory.
    """
    if check_choice("data", place, PLACES) != "auto":
        return place == "stream"
    on_host, on_device = 4 * n_rows * n_features, dtype.itemsize * n_rows * n_features
    # A second copy, in the type of the data, besides the float32 that were read.
    if device.type == "cpu" and dtype.itemsize != 4:
        on_host += on_device

    def is_short() -> bool:
        if device.type == "cuda" and on_device > SHARE * torch.cuda.mem_get_info(device)[0]:
            return True
        return on_host > SHARE * memory.free_bytes()

    kept = kept_rows()
    # Rows that are kept for later trainings must not make this one stream.
    return is_short() and not (kept and kept.drop() and not is_short())


def place_of(data: Dataset, comm: Comm) -> str:
    """Describe where the ranks keep the features. Ranks may differ, since their free memory may."""
    n_streaming = sum(comm.gather(data.train.streams))
    if n_streaming == comm.size:
        return "streamed"
    return f"streamed by {n_streaming} of {comm.size} ranks" if n_streaming else "resident"


def _streaming(
    pack: Pack,
    roles: Sequence[Targets],
    recipe: Recipe | Grid,
    device: torch.device,
    given: Scaling | None,
) -> Dataset:
    """Scale rows as `arrange` does, but leave their features in the pack.

    The features of the training rows are read once here, for the scaling, and again in every epoch.
    """
    row, target = roles[0]
    fitted = scaling.fit(
        lambda: (x for _, x in stream.slabs(pack, row)), pack.n_features, target, recipe, given
    )
    source = open_pack(pack.path)  # stays open as long as these rows are in use
    dtype = dtype_of(recipe)

    def part(row: np.ndarray, target: np.ndarray) -> Part:
        y = torch.from_numpy(fitted.target(target)).to(device, dtype)
        return Part(row, target, Stream(source, row, fitted, device, dtype), y)

    train, val, test = (part(*role) for role in roles)
    return Dataset(train, val, test, fitted)


def _reported(pack: Pack, names: tuple[str, ...], rows: slice) -> tuple[np.ndarray, np.ndarray]:
    target = np.stack([pack.y(name, rows) for name in names], 1)
    reported = np.flatnonzero((~np.isnan(target)).any(1))
    return reported + rows.start, target[reported] if len(names) > 1 else target[reported, 0]


def _features(pack: Pack, row: np.ndarray) -> np.ndarray:
    """Read the features of rows, (n_rows, n_features) float32; `row` must be ascending."""
    out = np.empty((len(row), pack.n_features), np.float32)
    for places, x in stream.slabs(pack, row):
        out[places] = x
    return out


def epoch_order(row: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Compute the order in which an epoch visits the training rows.

    Args:
        row: The numbers of the rows in the pack (n_rows,), ascending. They decide which rows are in
            the same chunk of the pack.
        seed: The seed of the run.
        epoch: The number of the epoch, from 0 on.

    Returns:
        Positions in `row` (n_rows,), in the order of the visits. They depend only on `row`, seed
        and epoch.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    bounds = np.flatnonzero(np.diff(row // SHUFFLED_ROWS)) + 1
    chunks = np.split(np.arange(len(row)), bounds)
    chunks = [chunks[i] for i in random.permutation(len(chunks))]
    windows = [
        np.concatenate(chunks[i : i + WINDOW_PIECES]) for i in range(0, len(chunks), WINDOW_PIECES)
    ]
    for window in windows:
        random.shuffle(window)
    return np.concatenate(windows)
