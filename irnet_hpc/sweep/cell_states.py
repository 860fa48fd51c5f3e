"""Determine the state of every cell of a matrix, from the files on disk and one call of squeue.

The states are those of `irnet_hpc.runs.state_names.CellState`. A cell may start from another cell,
its origin. Such a cell is trained only after its origin, and it is stale if the origin has changed
since.
"""

import dataclasses
import functools
from collections.abc import Collection
from pathlib import Path

from irnet_hpc.distributed.slurm_commands import (
    JobEnd,
    how_ended,
    squeue,
)
from irnet_hpc.errors import UserError
from irnet_hpc.runs import lease
from irnet_hpc.runs.folder import RunFolder, names_in, seconds_since_1970
from irnet_hpc.runs.lease import Lease
from irnet_hpc.runs.pack_identity import differing_fields
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import defaults, run_key, run_name
from irnet_hpc.runs.state_names import Cause, CellState
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.attempts import Queue, life_of, queue_of
from irnet_hpc.sweep.endings import (
    FOREIGN_WORDS_FOR_MEMORY,
    Ending,
    last_words_in,
    local_end,
    slurm_end,
)
from irnet_hpc.sweep.journal import WORKER, Attempt
from irnet_hpc.sweep.matrix.matrix import Cell, Matrix

# The states of the cells that `run` and `submit` take up by default.
TO_DO = (CellState.PREEMPTED, CellState.FAILED, CellState.MISSING)
UNDER_WAY = (CellState.QUEUED, CellState.RUNNING)


@dataclasses.dataclass(frozen=True)
class CellStatus:
    """A cell of a matrix, its state, and the evidence for it."""

    cell: Cell
    results: Path
    state: CellState
    # One line: the error, the job, or why the cell is stale.
    detail: str = ""
    log: str | None = None
    # For done cells, and for stale cells whose result can be read.
    result: RunResult | None = None
    # For running cells, once their process holds the lease.
    lease: Lease | None = None
    # Why the cell failed or was preempted, if that is known.
    cause: Cause = Cause.OTHER
    # Whether the folder has a checkpoint of this very run.
    resumable: bool = False

    @functools.cached_property
    def name(self) -> str:
        """The name of the cell on the screen and in the journal."""
        return cell_name(self.cell)

    @functools.cached_property
    def folder(self) -> Path:
        """The run folder.

        It is computed only when first used, since making thousands of paths is slow.
        """
        return self.results / self.name

    @functools.cached_property
    def origin(self) -> str | None:
        """The name of the cell that this cell starts from; None if it starts from none."""
        return cell_name(self.cell.origin) if self.cell.origin else None


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The states of all cells of a matrix, in the matrix's order, and the jobs in the queue."""

    cells: tuple[CellStatus, ...]
    # pack -> the job in the queue that builds it
    pack_jobs: dict[str, str]
    # name of a cell that is queued or running -> its job
    cell_jobs: dict[str, str]
    notes: tuple[str, ...]
    # The names of the cells to take up; None: all cells that are not done.
    chosen: frozenset[str] | None = None

    def counts(self) -> dict[CellState, int]:
        """Count the cells of each state."""
        states = [status.state for status in self.cells]
        return {state: states.count(state) for state in CellState}

    def to_do(self, stale: bool = False) -> list[CellStatus]:
        """List the cells to train; if `stale` is true, include those with an outdated result.

        A cell is left out if its origin is outdated and will not be trained again, or if a process
        outside SLURM trains its origin, since a job cannot wait for that process.
        """
        wanted = {*TO_DO, CellState.STALE} if stale else {*TO_DO}
        blocked = {
            status.name
            for status in self.cells
            if (status.state in UNDER_WAY and status.name not in self.cell_jobs)
            or (status.state == CellState.STALE and not stale)
        }
        return [
            status
            for status in self.cells
            if status.state in wanted
            and (self.chosen is None or status.name in self.chosen)
            and status.origin not in blocked
        ]

    def asked_hours(self) -> float:
        """Add up the device-hours that the cells without a result request from the scheduler."""
        finished = (CellState.DONE, CellState.STALE)
        return sum(s.cell.resources.device_hours for s in self.cells if s.state not in finished)


def cell_name(cell: Cell) -> str:
    """Name a cell by its folder below the results, on the screen and in the journal."""
    return run_name(cell.spec)


def read_ledger(
    matrix: Matrix,
    results: Path | str,
    ends: dict[str, JobEnd] | None = None,
    except_tokens: Collection[str] = (),
) -> Ledger:
    """Read the state of every cell of a matrix.

    Args:
        matrix: The matrix.
        results: The folder of results.
        ends: Job id -> how the job ended. The caller keeps this dict between calls, and
            `read_ledger` adds to it, so that SLURM's accounting is asked only once about each job.
        except_tokens: The tokens of the caller's own submissions, which are ignored.

    Returns:
        The ledger. Each cell's folder is listed once, and the scheduler is asked once for all
        cells.
    """
    results = Path(results)
    reader = _Reader(matrix, results, journal.attempts(results, except_tokens))
    attempts = [reader.attempts.get(("cell", cell_name(cell))) for cell in matrix.cells]
    cells = [reader.status(cell, a) for cell, a in zip(matrix.cells, attempts, strict=True)]
    cells = reader.explain(cells, attempts, {} if ends is None else ends)
    jobs = {}
    for status, attempt in zip(cells, attempts, strict=True):
        # The lease may belong to a training started by hand, and the job may have ended long ago.
        job = (attempt.job or (attempt.behind and attempt.behind.job)) if attempt else None
        if not job or status.state not in UNDER_WAY:
            continue
        if not status.lease or reader.life(attempt):
            jobs[status.name] = job
    return Ledger(tuple(cells), reader.pack_jobs, jobs, reader.notes(jobs))


class _Reader:
    """Read the cells of one matrix. The queue, the clock and the journals are read once."""

    def __init__(
        self, matrix: Matrix, results: Path, attempts: dict[tuple[str, str], Attempt]
    ) -> None:
        self.results, self.attempts = results, attempts
        # SLURM is asked before the disk is read: a job that is no longer in the queue has already
        # written its result.
        on_slurm = any(a.cluster == "slurm" or a.behind for a in attempts.values())
        jobs = squeue() if on_slurm else {}
        self.queue: Queue | None = None if jobs is None else queue_of(jobs, attempts)
        self.now = functools.cache(lambda: lease.file_server_time(results))
        self.identities = {pack.name: pack.identity for pack in matrix.packs}
        self.origin_key = functools.cache(self._origin_key)
        missing_packs = {pack.name for pack in matrix.packs if not pack.exists}
        pack_attempts = {
            name: attempt
            for (kind, name), attempt in attempts.items()
            if kind == "pack" and name in missing_packs
        }
        alive = {name for name, attempt in pack_attempts.items() if self.life(attempt)}
        self.pack_jobs = {name: pack_attempts[name].job or "" for name in alive}
        self.lost_packs = {n: a for n, a in pack_attempts.items() if n not in alive}

    def life(self, attempt: Attempt | None) -> tuple[CellState, str] | None:
        """Return the state of an attempt and a line that describes it; None if it is over."""
        life = life_of(attempt, self.queue, self.now)
        if life is None and attempt and attempt.behind:
            return life_of(attempt.behind, self.queue, self.now)
        return life

    def notes(self, jobs: dict[str, str]) -> tuple[str, ...]:
        """Return a note if SLURM does not answer, because the queue is unknown then."""
        if self.queue is not None or not jobs:
            return ()
        attempts = self.attempts.values()
        journals = sorted({attempt.journal for attempt in attempts if attempt.cluster == "slurm"})
        return (
            "SLURM does not answer here, so submitted cells count as queued; "
            f"if their jobs no longer exist, remove {' '.join(journals)}",
        )

    def _origin_key(self, origin: Cell) -> str | None:
        """Return the key that an origin should have.

        If its pack is missing, return its result's key.
        """
        identity = self.identities[origin.spec.pack]
        if identity:
            return run_key(origin.spec, origin.recipe, identity)
        result, _ = result_of(RunFolder(self.results / cell_name(origin)))
        return result.key if result else None

    def _start_key(self, cell: Cell) -> str | None:
        """Return the key of the run that a cell starts from; None: none, or it is not known."""
        if cell.shipped:
            return cell.shipped.key
        return self.origin_key(cell.origin) if cell.origin else None

    def status(self, cell: Cell, attempt: Attempt | None) -> CellStatus:
        """Determine the state of a cell. `explain` adds later how the cell's SLURM job ended."""
        results = self.results
        folder = f"{results}/{cell_name(cell)}"
        names = names_in(folder)
        held = lease.read_lease(folder) if lease.LEASE_FILE in names else None
        if lease.LEASE_FILE in names and held is None:
            # The lease was released between the two reads, so the result or the error is there.
            names = names_in(folder)
        log = _log_of(folder, names, attempt)
        result, why = result_of(RunFolder(folder)) if "result.json" in names else (None, "")
        key, identity = self._keys(cell, result)
        if result and result.key == key and not result.has_earlier_fit:
            detail = f"MAE {result.test_mae:.4g} {result.unit}"
            return CellStatus(cell, results, CellState.DONE, detail, log, result)
        if result and identity:
            origin_key = self._start_key(cell)
            why = why_stale(cell, result, identity, origin_key)
        if held and not lease.is_expired(held, self.now()):
            heard_s = max(0.0, (self.now() or held.touched) - held.touched)
            detail = f"{held.lease}, last sign of life {heard_s:.0f} s ago"
            return CellStatus(cell, results, CellState.RUNNING, detail, log, lease=held.lease)
        return self._without_result(
            CellStatus(cell, results, CellState.STALE, why, log, result), names, attempt, key
        )

    def _keys(self, cell: Cell, result: RunResult | None) -> tuple[str | None, dict | None]:
        """Return the key of a cell and the pack identity that is part of the key.

        If the pack is missing, its identity is taken from the result; if the origin's key is
        unknown, it is taken from the result, too.
        """
        identity = self.identities[cell.spec.pack]
        origin_key = self._start_key(cell)
        if result:
            identity = identity or result.pack_identity
            if cell.origin:
                origin_key = origin_key or (result.origin or {}).get("key")
        if not identity:
            return None, None
        return run_key(cell.spec, cell.recipe, identity, origin_key), identity

    def _without_result(
        self, if_stale: CellStatus, names: frozenset[str], attempt: Attempt | None, key: str | None
    ) -> CellStatus:
        """Determine the state of a cell that is neither done nor held by a live lease.

        `if_stale` is the status to return if the cell has an outdated result; the detail of
        `if_stale` says why the result is outdated.
        """
        cell, results, log = if_stale.cell, if_stale.results, if_stale.log
        alive = self.life(attempt)
        # The end of a job of workers says nothing about the cells that its workers did not take.
        shared = attempt and (attempt if attempt.n_shared else attempt.behind)
        own = attempt if attempt and not attempt.n_shared else None
        started = own if own and (own.job or own.process) else None
        begun = started or shared
        since = seconds_since_1970(begun.time) if begun else None
        error = RunFolder(if_stale.folder).error(since) if "error.json" in names else None
        in_bundle = started is not None and started.bundle > 1
        # One cell may have failed although others of its bundle, or of its job's workers, go on.
        is_over = error and (shared or (alive and alive[0] == CellState.RUNNING and in_bundle))
        if alive and not is_over:
            return CellStatus(cell, results, *alive, log)
        if if_stale.detail and not alive:
            return if_stale
        resumable = "checkpoint" in names and RunFolder(if_stale.folder).has_checkpoint(key)
        if error and started and started.job and error.cause == Cause.PEER_LOST:
            error = None  # the node failed or memory ran out; SLURM knows which
        failed = CellStatus(cell, results, CellState.FAILED, log=log, resumable=resumable)
        if error:
            state = CellState.FAILED
            if resumable and error.cause == Cause.TIME:
                state = CellState.PREEMPTED
            return dataclasses.replace(
                failed,
                state=state,
                detail=error.message,
                log=error.log or log,
                cause=error.cause,
            )
        if started and started.cluster == WORKER and started.status is None:
            # Its worker was stopped or killed, and the process that trained it has ended too.
            return _untrained(failed, started)
        if started:
            # explain() asks SLURM once how all these jobs ended.
            return failed if started.job else _ended(failed, local_end(started), started)
        if resumable:
            detail = "stopped; it can continue from its checkpoint"
            return dataclasses.replace(failed, state=CellState.PREEMPTED, detail=detail)
        detail = f"the workers of job {shared.job} ended before its turn" if shared else ""
        return CellStatus(cell, results, CellState.MISSING, detail)

    def explain(
        self,
        cells: list[CellStatus],
        attempts: list[Attempt | None],
        ends: dict[str, JobEnd],
    ) -> list[CellStatus]:
        """Add the reasons why cells are failed or untrained: how a job ended, or a missing origin.

        SLURM's accounting is asked once, for all jobs that are not in `ends` yet.
        """
        pairs = list(zip(cells, attempts, strict=True))
        gone = {
            status.name: attempt
            for status, attempt in pairs
            if attempt and status.state == CellState.FAILED and not status.detail
        } | {
            status.name: attempt
            for status, attempt in pairs
            if attempt and attempt.n_shared and status.state == CellState.MISSING
            if status.cell.spec.pack in self.lost_packs
        }
        if gone:
            jobs = {attempt.job for attempt in (*gone.values(), *self.lost_packs.values())}
            ends |= how_ended({job for job in jobs if job} - ends.keys())
        explained: dict[str, CellStatus] = {}
        for status in cells:
            name, pack = status.name, status.cell.spec.pack
            if name in gone and pack in self.lost_packs:
                attempt = self.lost_packs[pack]
                end = ends[attempt.job or ""].text
                detail = f"its pack {pack} was not built: job {attempt.job} {end}"
                log, state = attempt.log, CellState.FAILED
                status = dataclasses.replace(status, state=state, detail=detail, log=log)
            elif name in gone:
                attempt = gone[name]
                status = _ended(status, slurm_end(attempt, ends[attempt.job or ""]), attempt)
            # In the list, origins come before the cells that start from them.
            origin = explained.get(status.origin) if status.origin else None
            explained[name] = _without_origin(status, origin, is_gone=name in gone)
        return list(explained.values())


def _without_origin(status: CellStatus, origin: CellStatus | None, is_gone: bool) -> CellStatus:
    """Explain in the status of an untrained cell that its origin has no result either."""
    if origin is None or origin.state == CellState.DONE:
        return status
    if status.state != CellState.MISSING and not (is_gone and origin.state in TO_DO):
        return status
    why = f"is {origin.state}"
    if origin.state == CellState.FAILED:
        why = f"failed: {origin.detail}"
    return dataclasses.replace(status, detail=f"its origin {origin.name} {why}")


def _untrained(status: CellStatus, attempt: Attempt) -> CellStatus:
    """Return the status of a cell whose worker was stopped or killed: no failure of the cell."""
    process = (attempt.driver or "?").partition("@")[0]
    how = "stopped" if attempt.ended else "killed"
    detail = f"its worker, process {process} on {attempt.host}, was {how}"
    if status.resumable:
        detail = f"{detail}; it can continue from its checkpoint"
        return dataclasses.replace(status, state=CellState.PREEMPTED, detail=detail)
    return CellStatus(status.cell, status.results, CellState.MISSING, detail)


def _ended(status: CellStatus, ending: Ending, attempt: Attempt) -> CellStatus:
    """Complete the status of a cell whose attempt ended without leaving a result or an error."""
    log = status.log or attempt.log
    if status.resumable and ending.cause != Cause.MEMORY:
        # A training that fails writes the reason, so this one was ended by a signal.
        return dataclasses.replace(
            status,
            state=CellState.PREEMPTED,
            detail=f"{ending.text}; it can continue from its checkpoint",
            log=log,
            cause=ending.cause,
        )
    words = last_words_in(log, attempt.time) if ending.log_says_why else ""
    cause = ending.cause
    if not cause and FOREIGN_WORDS_FOR_MEMORY.search(words):
        cause = Cause.MEMORY
    detail = f"{ending.text}: {words}" if words else f"{ending.text}, without a result"
    return dataclasses.replace(status, detail=detail, log=log, cause=cause)


def why_stale(cell: Cell, result: RunResult, identity: dict, origin_key: str | None) -> str:
    """Explain why a result does not belong to the cell as it is specified now."""
    wanted = dataclasses.asdict(cell.recipe)
    has = defaults(cell.recipe) | result.recipe
    if has != wanted:
        changed = [name for name in wanted if has[name] != wanted[name]]
        return f"trained with another recipe: {', '.join(changed) or 'other fields'}"
    if changed := differing_fields(identity, result.pack_identity):
        return f"trained on another pack: {', '.join(changed)}"
    if result.has_earlier_fit:
        return "its recipe was fitted to few rows by an earlier rule"
    if origin_key and (result.origin or {}).get("key") != origin_key:
        return "its origin then had another recipe, pack or version"
    return "trained by another version of the program, or for another specification"


# ------------------------------------------------------------------------------ one run folder


def result_of(folder: RunFolder) -> tuple[RunResult | None, str]:
    """Read the result in a run folder.

    Returns:
        The result and ""; or None and the reason why it cannot be read ("" if there is no result).
    """
    try:
        return folder.result(), ""
    except UserError as error:
        return None, str(error)


def _log_of(folder: str, names: frozenset[str], attempt: Attempt | None) -> str | None:
    """Find the log of a cell.

    The cells of a bundle share the log in the folder of its first cell.
    """
    if "train.log" in names and not (attempt and attempt.bundle > 1):
        return f"{folder}/train.log"
    return attempt.log if attempt else None
