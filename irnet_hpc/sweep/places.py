"""Divide this machine among workers: a GPU each, or cores each, within the memory that there is."""

import contextlib
import dataclasses
import os
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from irnet_hpc.distributed import launch, memory
from irnet_hpc.distributed.launch import stated_threads
from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.threads import threads_that_pay
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.sweep.bundles import AUTO
from irnet_hpc.sweep.cell_states import CellStatus

NUMA_NODES = Path("/sys/devices/system/node")


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of one worker on this machine."""

    number: int
    # The cores that its processes are bound to; None: they are not bound.
    cores: tuple[int, ...] | None = None
    # The value of CUDA_VISIBLE_DEVICES for its processes, "" for no GPU; None: that of this
    # process.
    gpus: str | None = None


@dataclasses.dataclass(frozen=True)
class Places:
    """The places of all workers of a sweep on this machine."""

    of_cells: tuple[Place, ...]
    # On a machine with GPUs, the places of cells that use none.
    without_gpu: tuple[Place, ...] = ()
    # The memory (GiB) that the cells at work may ask for together.
    memory_gb: float = float("inf")

    @property
    def all(self) -> tuple[Place, ...]:
        """All places, in the order of their numbers."""
        return self.of_cells + self.without_gpu

    def for_cell(self, status: CellStatus) -> tuple[Place, ...]:
        """Return the places in which a cell may be trained."""
        if status.cell.resources.cpu_only and self.without_gpu:
            return self.without_gpu
        return self.of_cells


def one_place() -> Places:
    """Return the one place of a worker that has all that its process may use."""
    return Places((Place(1),))


def places_here(
    workers: int | str,
    statuses: Sequence[CellStatus],
    environment: Mapping[str, str] = os.environ,
) -> Places:
    """Divide this machine among workers.

    Args:
        workers: The number of workers; AUTO for one a GPU or, without GPUs, as many as the cores
            allow with the threads that the cells ask for.
        statuses: The cells to train.
        environment: The environment variables of this process.

    Returns:
        The places; a single one has all that this process may use.

    Raises:
        UserError: If there are more workers than GPUs or cores.
    """
    cores, is_bound = cores_here(environment)
    gpus = gpus_here(environment)
    wants_gpu = any(not status.cell.resources.cpu_only for status in statuses)
    n_threads = min((threads_of(status, environment) for status in statuses), default=1)
    uses_gpus = bool(gpus) and wants_gpu
    most = len(gpus) if uses_gpus else len(cores)
    if workers != AUTO and int(workers) > most:
        kind = "GPUs" if uses_gpus else "cores"
        raise UserError(
            f"--workers must be at most the {most} {kind} that this process may use, got {workers}"
        )
    n_ranks = sum(status.cell.resources.n_ranks for status in statuses)
    if workers != AUTO:
        n_workers = int(workers)
    elif uses_gpus:
        n_workers = max(1, min(len(gpus), n_ranks))
    else:
        n_workers = max(1, min(len(cores) // n_threads, n_ranks))
    n_beside = 0
    if uses_gpus and workers == AUTO:
        n_without = sum(status.cell.resources.cpu_only for status in statuses)
        n_beside = min(max(0, len(cores) // n_threads - n_workers), n_without)
    memory_gb = memory.free_bytes(environment=environment) / 2**30
    if n_workers + n_beside == 1:
        return dataclasses.replace(one_place(), memory_gb=memory_gb)
    shares = share_out(sorted(cores), n_workers + n_beside, numa_nodes())
    bound = [share if is_bound else None for share in shares]
    numbered = enumerate(bound[:n_workers], 1)
    of_cells = tuple(Place(i, share, gpus[i - 1] if uses_gpus else None) for i, share in numbered)
    beside = enumerate(bound[n_workers:], n_workers + 1)
    return Places(of_cells, tuple(Place(i, share, "") for i, share in beside), memory_gb)


def threads_of(status: CellStatus, environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of threads of each rank of a cell.

    The user's own number (OMP_NUM_THREADS) counts more than that of the matrix, and a small network
    gets no more threads than pay.
    """
    stated = stated_threads(environment)
    if stated is not None:
        return stated
    cell, n_threads = status.cell, status.cell.resources.cpus_per_rank
    if n_threads == 1 or not isinstance(cell.recipe, Recipe):
        return n_threads
    n_rows = cell.recipe.batch // cell.resources.n_ranks
    return threads_that_pay(parse_layers(cell.spec.layer_string), n_rows, n_threads)


def cores_here(environment: Mapping[str, str] = os.environ) -> tuple[set[int], bool]:
    """Return the cores that this process may use.

    Returns:
        The cores; and False if processes must not be bound to them, because this process may run on
        more cores than it may use: a control group limits its time, or SLURM has given it some of
        the cores without binding it to them.
    """
    cores = os.sched_getaffinity(0)
    limits = [len(cores)]
    quota, _ = memory.cgroup_limits()
    if quota is not None:
        limits.append(max(1, int(quota)))
    if "SLURM_JOB_ID" in environment:
        in_step = "SLURM_STEP_ID" in environment
        names = ["SLURM_CPUS_PER_TASK"] * in_step + ["SLURM_CPUS_ON_NODE"]
        given = [environment[name] for name in names if environment.get(name, "").isdecimal()]
        limits += [max(1, int(given[0]))] if given else []
    n_cores = min(limits)
    return set(sorted(cores)[:n_cores]), n_cores == len(cores)


def gpus_here(environment: Mapping[str, str] = os.environ) -> list[str]:
    """List this process's GPUs, as CUDA_VISIBLE_DEVICES names them."""
    stated = environment.get("CUDA_VISIBLE_DEVICES")
    if stated is not None:
        return [name.strip() for name in stated.split(",") if name.strip() not in ("", "-1")]
    try:
        # As of driver 535: a line `GPU 0: NVIDIA H200 (UUID: ...)` for each; MIG devices follow
        # theirs, indented.
        shown = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU (\d+):", shown, re.MULTILINE)


def numa_nodes(folder: Path = NUMA_NODES) -> list[set[int]]:
    """List the cores of each NUMA domain of this machine; empty if Linux does not tell."""
    nodes = []
    for path in sorted(folder.glob("node[0-9]*/cpulist")):
        try:
            nodes.append(cores_in(path.read_text().strip()))
        except (OSError, ValueError):
            return []
    return nodes


def cores_in(text: str) -> set[int]:
    """Read a list of cores as Linux writes it, e.g. `0-3,8`."""
    cores: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores


def share_out(
    cores: Iterable[int], n_shares: int, nodes: Sequence[Collection[int]]
) -> list[tuple[int, ...]]:
    """Divide cores into equal shares, of one NUMA domain each where that is possible.

    Args:
        cores: The cores.
        n_shares: The number of shares, at most that of the cores.
        nodes: The cores of each domain.

    Returns:
        The shares. The cores that are left if the division has a remainder belong to nobody.
    """
    left = list(cores)
    size = max(1, len(left) // n_shares)
    shares = []
    for node in nodes:
        inside = [core for core in left if core in node]
        whole = [tuple(inside[i : i + size]) for i in range(0, len(inside) - size + 1, size)]
        shares += whole
        taken = {core for share in whole for core in share}
        left = [core for core in left if core not in taken]
    shares += [tuple(left[i : i + size]) for i in range(0, len(left) - size + 1, size)]
    return shares[:n_shares]


def device_of(place: Place) -> str:
    """Describe the device of a place, as `status` shows it."""
    if place.gpus:
        return f"GPU {place.gpus}"
    if place.cores:
        return f"core{'s'[: len(place.cores) > 1]} {','.join(map(str, place.cores))}"
    return ""


def n_tasks_here() -> int:
    """Return how many processes a launcher has started on this host, each with such a crew."""
    with contextlib.suppress(UserError):
        where = launch.detect()
        return where.local_size if where else 1
    return 1
