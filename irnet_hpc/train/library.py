"""Train models from Python, in one process; the runs are the same as those of the command."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.distributed.launch import n_threads
from irnet_hpc.distributed.processes import Shared
from irnet_hpc.errors import UserError, python_names
from irnet_hpc.models.modes import own_modes
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.lease import Leases
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.train.request import TrainRequest, request_cell
from irnet_hpc.train.run import TrainOptions
from irnet_hpc.train.session import open_runs, train_runs


class Keywords(TypedDict, total=False):
    """The arguments of `train_model`, except the two that may be lists: `property` and `seed`."""

    architecture: str | None
    depth: int | None
    layers: str | None
    recipe: str | dict[str, Any] | None
    protocol: str
    train_rows: int | None
    init: str | Path | None
    results: str | Path
    pack_dir: str | Path | None
    device: str
    force: bool
    data: str
    stage_dir: str | Path | None
    micro_batch: int | None
    progress_bar: bool
    keep_model: str


@overload
def train_model(
    pack: str | Path | Pack, property: str, *, seed: int = 0, **options: Unpack[Keywords]
) -> RunResult: ...
@overload
def train_model(
    pack: str | Path | Pack,
    property: list[str],
    *,
    seed: int | list[int] = 0,
    **options: Unpack[Keywords],
) -> list[RunResult]: ...
@overload
def train_model(
    pack: str | Path | Pack, property: str, *, seed: list[int], **options: Unpack[Keywords]
) -> list[RunResult]: ...
@python_names()
def train_model(
    pack: str | Path | Pack,
    property: str | list[str],
    *,
    architecture: str | None = None,
    depth: int | None = None,
    layers: str | None = None,
    recipe: str | dict[str, Any] | None = None,
    protocol: str = "honest",
    seed: int | list[int] = 0,
    train_rows: int | None = None,
    init: str | Path | None = None,
    results: str | Path = "results",
    pack_dir: str | Path | None = None,
    device: str = "auto",
    force: bool = False,
    data: str = "auto",
    stage_dir: str | Path | None = None,
    micro_batch: int | None = None,
    progress_bar: bool = False,
    keep_model: str = "auto",
) -> RunResult | list[RunResult]:
    """Train a model on a pack, unless its result exists, and return the result.

    The run folder, its key and all numbers are those of `python -m irnet_hpc.train` in one process.
    No signal handlers are set, no number is drawn from the random generators of the program, and
    the number of threads is afterwards as before. Progress is logged at level INFO by
    `logging.getLogger("irnet_hpc")`.

    Args:
        pack: A pack, its name, or a path to it.
        property: A property of the pack, or several joined by commas for one network with several
            outputs. A list trains a model for each item.
        architecture: `irnet` (the default), another network, or a classical model such as
            `random_forest`.
        depth: The number of layers of the network; 17 if neither `architecture` nor `layers` is
            given.
        layers: A layer string in place of architecture and depth, e.g. `256BARx4-64BARx2-1`.
        recipe: The name of a recipe, or a dict of its fields such as `{"name": "mine",
            "base": "onecycle", "epochs": 100}`; by default `onecycle`, or `grid` for a classical
            model.
        protocol: `honest` selects the epoch on val; `paper` trains on val too and selects on test.
        seed: The seed of the initial weights and of the order of rows. A list trains a model for
            each item.
        train_rows: The number of training rows to use, from the first on; None for all.
        init: The folder of a finished run of the same model; training starts from its weights.
        results: The folder of all runs.
        pack_dir: The folder of packs that are given by name; None for $IRNET_PACKS, else `packs`.
        device: `auto`, `cpu` or `cuda`.
        force: Whether to replace a result of another recipe, pack or version.
        data: `auto`, `resident` or `stream`: where features are kept while a network trains.
        stage_dir: A folder on a local disk; the pack is copied to it and read from there.
        micro_batch: The number of rows in the network at once. Fewer rows need less memory and give
            the same numbers.
        progress_bar: Whether to show a bar on a terminal.
        keep_model: Whether to keep a fitted classical model in the run folder, to predict with it:
            `always`, `never`, or `auto`, which keeps one that takes at most 2 GiB of memory.

    Returns:
        The result, with errors in its `unit`. If `property` or `seed` is a list, a list of results,
        sorted by property, then by seed.

    Raises:
        UserError: If an argument is not allowed, a result is stale, or the training diverges.
        RunIsHeld: If another process trains the run.
    """
    if architecture is None and layers is None:
        architecture, depth = "irnet", 17 if depth is None else depth
    properties = property if isinstance(property, list) else [property]
    for name in properties:
        if not isinstance(name, str):
            raise UserError(f"property must be the name of a property, got {name!r:.80}")
    seeds = seed if isinstance(seed, list) else [seed]
    request = TrainRequest(
        pack=str(pack.path if isinstance(pack, Pack) else pack),
        cells=tuple(
            request_cell(name, recipe, k, architecture) for name in properties for k in seeds
        ),
        architecture=architecture,
        depth=depth,
        layers=layers,
        protocol=protocol,
        train_rows=train_rows,
        init=None if init is None else str(init),
        results=str(results),
    )
    options = TrainOptions(
        device=device,
        data=data,
        stage_dir=None if stage_dir is None else str(stage_dir),
        micro_batch=micro_batch,
        pack_dir=None if pack_dir is None else str(pack_dir),
        force=force,
        progress_bar=progress_bar,
        keep_model=keep_model,
    )
    found = train_request(request, options)
    return found if isinstance(property, list) or isinstance(seed, list) else found[0]


def train_request(request: TrainRequest, options: TrainOptions) -> list[RunResult]:
    """Train the requested runs in this process.

    Returns all results, including those of runs that were done before.
    """
    comm = Alone()
    with (
        Leases() as leases,
        own_modes(),
        _threads.block(),
        open_runs(request, options, comm, leases) as (pack, runs),
    ):
        train_runs(runs, pack, options, comm)
        return [read_result(run.folder.result_json) for run in runs]


@contextlib.contextmanager
def _threads_of_command() -> Iterator[None]:
    """Set the number of torch's threads as the command does, and restore it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads(None))
    try:
        yield
    finally:
        torch.set_num_threads(before)


_threads = Shared(_threads_of_command)
