"""Find the processes that train cells of a matrix now, and estimate when all cells are done."""

import dataclasses
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs import lease
from irnet_hpc.runs.folder import seconds_since_1970
from irnet_hpc.runs.lease import Lease
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep.board import board_path, living_workers, read_standing
from irnet_hpc.sweep.board_records import Record, Standing
from irnet_hpc.sweep.cell_states import CellStatus, Ledger
from irnet_hpc.sweep.context import SweepContext
from irnet_hpc.sweep.estimates import FINISHED, Estimate
from irnet_hpc.sweep.progress import epoch_text


@dataclasses.dataclass(frozen=True)
class AtWork:
    """A process that trains cells of the matrix, or a worker that holds none at the moment."""

    host: str
    # The number of the process on its host.
    process: str
    # The job of SLURM that it belongs to.
    job: str | None
    # What it trains on, as far as a worker's board says so.
    device: str
    # The cells that it trains together; empty for a worker that looks for one.
    cells: tuple[str, ...]
    # When it took up these cells, in s since 1970; None: no cells.
    since: float | None
    # The epoch of the first cell, for people.
    epoch: str = ""
    # The training rows a second, over all cells, in the last epoch; None: unknown.
    rows_per_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """The processes at work on a matrix, and the time until all of its cells are done."""

    at_work: tuple[AtWork, ...]
    # None: unknown, or nobody is at work.
    minutes_left: float | None
    # Why cells or hosts are left alone, a line each.
    left_alone: tuple[str, ...] = ()


def progress_of(context: SweepContext, ledger: Ledger, estimated: Sequence[Estimate]) -> Progress:
    """Find out who trains the cells of a matrix, and how long it will take.

    Args:
        context: The sweep.
        ledger: The state of its cells, which was just read.
        estimated: The estimate of each cell, in the ledger's order.
    """
    path = board_path(context.results, context.matrix.name)
    standing = read_standing(path)
    now = lease.file_server_time(path.parent) if standing.workers else None
    workers = living_workers(standing, path.parent, now)
    at_work = _processes_at_work(ledger, standing, workers)
    n_busy = sum(1 for process in at_work if process.cells)
    left = [standing.why_left_alone(name) for name in standing.failures]
    left += [standing.why_host_is_left_alone(host) for host in standing.hosts]
    return Progress(
        tuple(at_work),
        minutes_left(ledger, estimated, n_busy, time.time() if now is None else now),
        tuple(line for line in left if line) if workers else (),
    )


def _processes_at_work(
    ledger: Ledger, standing: Standing, workers: dict[str, Record]
) -> list[AtWork]:
    """List those that hold leases of running cells, then the workers without a running cell."""
    together: dict[tuple[str, str], list[CellStatus]] = defaultdict(list)
    for status in ledger.cells:
        if status.state == CellState.RUNNING and status.lease:
            together[status.lease.host, status.lease.process].append(status)
    found, busy = [], set()
    for statuses in together.values():
        first = statuses[0]
        assert first.lease is not None
        taken = standing.taken.get(first.name)
        record = workers.get(taken.token) if taken else None
        device = (taken.device if taken else "") or (record.device if record else "")
        busy |= {taken.token} if taken else set()
        names = tuple(status.name for status in statuses)
        began = seconds_since_1970(first.lease.started)
        found.append(
            _at_work(first.lease, device, names, began, epoch_text(first), rows_per_s(first))
        )
    for token, record in workers.items():
        if token not in busy and record.identity:
            # It starts the training of these, or has none.
            names = tuple(sorted(standing.held_by(token)))
            since = min((standing.taken[name].at for name in names), default=None)
            device = next((standing.taken[name].device for name in names), "") or record.device
            found.append(_at_work(record.identity, device, names, since))
    return sorted(found, key=lambda process: (not process.cells, process.host, process.process))


def _at_work(
    owner: Lease,
    device: str,
    names: tuple[str, ...],
    since: float | None,
    epoch: str = "",
    rows: float | None = None,
) -> AtWork:
    process = owner.process.partition("@")[0]
    return AtWork(owner.host, process, owner.job, device, names, since, epoch, rows)


def rows_per_s(status: CellStatus) -> float | None:
    """Return how many training rows a second a network sees, from the last line of its history.

    In a bundle, the seconds of each cell are its share, so this is the rate of the whole bundle.
    """
    if not isinstance(status.cell.recipe, Recipe):
        return None
    batch = _batch(status, status.cell.recipe)
    try:
        lines = (status.folder / "history.csv").read_text().splitlines()[1:]
        rows = [line.split(",") for line in lines[-2:]]
        steps, seconds = ([float(row[i]) for row in rows] for i in (1, -1))
        if len(rows) == 2:
            return batch * (steps[1] - steps[0]) / (seconds[1] - seconds[0])
        return batch * steps[0] / seconds[0]
    except (OSError, ValueError, IndexError, ZeroDivisionError):
        return None  # no epoch yet, or a line that is being written


def _batch(status: CellStatus, recipe: Recipe) -> int:
    """Return the batch of a cell's training, which a recipe may have fitted to few rows."""
    try:
        fitted = read_json(status.folder / "run.json")["attempts"][-1]["fitted_recipe"]
        return int(fitted["batch"])
    except (OSError, UserError, LookupError, TypeError, ValueError):
        return recipe.batch  # it was not fitted


def minutes_left(
    ledger: Ledger, estimated: Sequence[Estimate], n_at_work: int, now: float
) -> float | None:
    """Estimate how long the cells without a result take the processes that are at work now.

    The estimates are those that done cells correct. A cell without an estimate, such as a
    classical model, counts as the median of the done cells of its model, else of all. Failed cells
    do not count, since they wait for another command.

    Args:
        ledger: The state of the cells.
        estimated: The estimate of each cell, in the ledger's order.
        n_at_work: The number of processes that train.
        now: The time in s since 1970, to subtract the time that running cells have had.

    Returns:
        The minutes: the sum over the processes, but no less than the longest cell; None if nobody
        is at work, or if nothing is known about some cell.
    """
    measured: dict[str, list[float]] = defaultdict(list)
    for status in ledger.cells:
        if status.state in FINISHED and status.result and status.result.device_hours > 0:
            measured[status.cell.spec.model].append(60 * status.result.device_hours)
    usual = {model: statistics.median(minutes) for model, minutes in measured.items()}
    of_all = statistics.median(m for values in measured.values() for m in values) if usual else None
    minutes: list[float] = []
    for status, estimate in zip(ledger.cells, estimated, strict=True):
        if status.state in (*FINISHED, CellState.FAILED):
            continue
        value = estimate.minutes
        if value is None:
            value = usual.get(status.cell.spec.model, of_all)
        if value is None:
            return None
        if status.lease:
            value = max(0.0, value - (now - seconds_since_1970(status.lease.started)) / 60)
        minutes.append(value)
    if not n_at_work or not minutes:
        return None
    return max(max(minutes), sum(minutes) / n_at_work)
