"""The ledger: how every cell of a matrix stands. Reads the disk and asks the scheduler once.

done       result.json is there and its key is the cell's
running    a process holds the run's lease (a sweep's, or one started by hand), or has been started for it and is about to
queued     the scheduler has it, or a process that goes through a sweep
stale      result.json is there, but of another recipe, pack or version, or damaged: shown, and re-run only when asked
preempted  a checkpoint is there, and a signal or its time limit ended the training: it goes on from there
failed     error.json is there, or it was handed over and has gone without a result
missing    none of these

A cell that starts from another is stale where it started from other content than that one now has, and is not taken up
before that one can be.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from irnet_hpc.distributed.slurm import how_ended, squeue
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs import lease
from irnet_hpc.runs.lease import Lease
from irnet_hpc.runs.pack_identity import differing_fields
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.spec import defaults, run_folder, run_key
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.journal import Attempt
from irnet_hpc.sweep.matrix.matrix import Cell, Matrix
from irnet_hpc.sweep.queue import Queue, life, queue_of

# What a training that ran out of something has said, or SLURM of it; more of it may help. Linux kills with signal 9 (137 in a
# shell's words) what takes the memory of others.
CAUSES = {
    "memory": r"OUT_OF_ME|out of memory|can't allocate memory|MemoryError|[Uu]nable to allocate|status (-9|137)\b",
    "time": r"TIMEOUT|DEADLINE|out of time",
}

LOST = "a rank is gone"  # how comm.PeerLost begins: what the other ranks can tell, and no reason


def cause_of(text: str) -> str:
    """memory or time, where that is what a failure, in one line, was about; else nothing."""
    return next((name for name, pattern in CAUSES.items() if re.search(pattern, text)), "")


def listing(folder: Path) -> frozenset[str]:
    """The names in a run folder, from one look at it; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def result_of(path: Path) -> tuple[RunResult | None, str]:
    """A result, or why it cannot be read; neither where there is none."""
    try:
        result = read_result(path)
    except FileNotFoundError:
        return None, ""
    except UserError as error:
        return None, str(error)
    if result.test_mae is None or result.device_hours is None:
        return None, f"{path}: test_mae and device_hours must be numbers"
    return result, ""


def why_stale(cell: Cell, result: RunResult, identity: dict, origin_key: str | None) -> str:
    ours = dataclasses.asdict(cell.recipe)
    theirs = defaults(cell.recipe) | result.recipe
    if theirs != ours:
        changed = [name for name in ours if theirs[name] != ours[name]]
        return f"of another recipe: {', '.join(changed) or 'other fields'}"
    if changed := differing_fields(identity, result.pack_identity):
        return f"of another pack: {', '.join(changed)}"
    if cell.origin and origin_key and (result.origin or {}).get("key") != origin_key:
        return "its origin was of another recipe, pack or version"
    return "of another version of the training, or of this specification"


def error_of(folder: Path, since: str | None = None) -> dict:
    """What error.json holds; nothing where there is none, or one older than `since` (ISO)."""
    try:
        error = read_json(folder / "error.json")
    except FileNotFoundError:
        return {}
    except UserError as unreadable:
        return {"error": str(unreadable)}
    return {} if since and _time(error.get("time")) < _time(since) else error


def has_checkpoint(folder: Path, key: str | None) -> bool:
    """Whether a training of this key (None: of any) can go on from where an earlier one was."""
    if not any(name.endswith(".json") for name in listing(folder / "checkpoint")):
        return False
    try:
        return key is None or read_json(folder / "run.json").get("key") == key
    except (UserError, FileNotFoundError):
        return False


def last_words(said: str) -> str:
    """The last line that a training said, and not horovodrun; nothing where it said nothing."""
    lines = [line for line in said.splitlines() if line.strip()]
    of_ranks = [
        line.partition(">:")[2] for line in lines if re.match(r"\[\d+\]<std(out|err)>:.*\S", line)
    ]
    return ([""] + (of_ranks or lines))[-1].strip()[:300]


def last_words_in(log: str | None, since: str) -> str:
    """The same from the end of a log, where that is not older than `since` (ISO)."""
    try:
        with Path(log or "").open("rb") as file:
            if os.fstat(file.fileno()).st_mtime < _time(since):
                return ""
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return last_words(file.read().decode(errors="replace"))
    except (OSError, ValueError):  # what the journal calls a log may be no name of a file
        return ""


def _time(text: str | None) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return float("inf")


STATES = ("done", "running", "queued", "stale", "preempted", "failed", "missing")
TO_DO = ("preempted", "failed", "missing")  # what `run` and `submit` take up unasked


@dataclasses.dataclass(frozen=True)
class Entry:
    """A cell and what is known of it."""

    cell: Cell
    folder: Path
    state: str  # one of STATES
    detail: str = ""  # one line: the error, the job, why it is stale
    log: str | None = None
    result: RunResult | None = None  # of done cells, and of stale ones whose result can be read
    lease: Lease | None = None  # of running cells, once they hold it
    cause: str = ""  # what it lacked, memory or time, where that is why it is failed or preempted
    resumable: bool = False  # a checkpoint is there to go on from

    @functools.cached_property
    def name(self) -> str:
        return cell_name(self.cell)

    @functools.cached_property
    def origin(self) -> str | None:
        """The name of the cell that it starts from."""
        return self.cell.origin and cell_name(self.cell.origin)


@dataclasses.dataclass(frozen=True)
class Ledger:
    entries: tuple[Entry, ...]
    pack_jobs: dict[str, str]  # pack -> the job in the queue that builds it
    cell_jobs: dict[str, str]  # cell that is queued or running -> its job
    notes: tuple[str, ...]
    chosen: frozenset[str] | None = None  # the only cells to take up; None: all that are to do

    def counts(self) -> dict[str, int]:
        states = [entry.state for entry in self.entries]
        return {state: states.count(state) for state in STATES}

    def to_do(self, stale: bool = False) -> list[Entry]:
        """The cells to take up; not those whose origin is stale and stays so, or is under way where it cannot be waited for."""
        taken = [
            entry
            for entry in self.entries
            if entry.state in TO_DO or (stale and entry.state == "stale")
        ]
        under_way = {
            e.name for e in self.entries if e.state in ("queued", "running")
        } - self.cell_jobs.keys()
        held = under_way | (
            {entry.name for entry in self.entries if entry.state == "stale"} if not stale else set()
        )
        taken = (
            taken
            if self.chosen is None
            else [entry for entry in taken if entry.name in self.chosen]
        )
        return [entry for entry in taken if entry.origin not in held]

    def asked_hours(self) -> float:
        """Device-hours that the cells without a result may use at most."""
        return sum(
            e.cell.resources.device_hours for e in self.entries if e.state not in ("done", "stale")
        )


def read_ledger(
    matrix: Matrix,
    results: Path | str,
    ends: dict[str, str] | None = None,
    but_of: str | None = None,
) -> Ledger:
    """The state of every cell of a matrix, but for what the submission with the token `but_of` has taken up.

    `ends` remembers between two calls how finished jobs ended.
    """
    results, attempts = Path(results), journal.attempts(Path(results), but_of)
    # The scheduler is asked before the disk is read: a job that has left the queue has then left its result.
    found = squeue() if any(attempt.cluster == "slurm" for attempt in attempts.values()) else {}
    queue = None if found is None else queue_of(found, attempts)
    now = functools.cache(lambda: lease.file_server_time(results))
    pack_attempts = {
        pack.name: attempts[kind_and_name]
        for pack in matrix.packs
        if (kind_and_name := ("pack", pack.name)) in attempts and not pack.exists
    }
    pack_jobs = {
        name: attempt.job for name, attempt in pack_attempts.items() if life(attempt, queue, now)
    }
    identities = {pack.name: pack.identity for pack in matrix.packs}
    entries, tried = [], [attempts.get(("cell", cell_name(cell))) for cell in matrix.cells]
    for cell, attempt in zip(matrix.cells, tried, strict=True):
        origin_key = cell.origin and _origin_key(
            cell.origin, results, identities[cell.origin.spec.pack]
        )
        identity = identities[cell.spec.pack]
        entries.append(
            _entry(cell, run_folder(results, cell.spec), attempt, queue, identity, origin_key, now)
        )
    lost_packs = {name: attempt for name, attempt in pack_attempts.items() if name not in pack_jobs}
    entries = _explain(entries, tried, lost_packs, {} if ends is None else ends)

    pairs = zip(entries, tried, strict=True)
    # A lease may be that of a training by hand, and the job one that has long ended.
    under_way = [(e, a) for e, a in pairs if a and a.job and e.state in ("queued", "running")]
    jobs = {e.name: a.job for e, a in under_way if not e.lease or life(a, queue, now)}
    notes = []
    if queue is None and jobs:
        journals = sorted(
            {attempt.journal for attempt in attempts.values() if attempt.cluster == "slurm"}
        )
        notes.append(
            "SLURM does not answer here, so what was submitted counts as queued; "
            f"if those jobs are gone for good, remove {' '.join(journals)}"
        )
    return Ledger(tuple(entries), pack_jobs, jobs, tuple(notes))


def _explain(
    entries: list[Entry],
    tried: list[Attempt | None],
    lost_packs: dict[str, Attempt],
    ends: dict[str, str],
) -> list[Entry]:
    """Say of cells whose job left nothing behind how it ended, or that their pack's did: one question for all of them; and
    of those whose origin is not done, that it is not."""
    gone = [entry.state == "failed" and not entry.detail for entry in entries]
    jobs = {attempt.job for attempt, is_gone in zip(tried, gone, strict=True) if is_gone}
    if jobs:
        ends |= how_ended((jobs | {attempt.job for attempt in lost_packs.values()}) - ends.keys())
    explained, by_name = [], {}
    for entry, attempt, is_gone in zip(entries, tried, gone, strict=True):
        pack = entry.cell.spec.pack
        if is_gone and pack in lost_packs:
            attempt = lost_packs[pack]
            detail = f"its pack {pack} was not built: job {attempt.job} {ends[attempt.job]}"
            entry = dataclasses.replace(entry, detail=detail, log=attempt.log)
        elif is_gone:
            entry = _ended(entry, f"job {attempt.job} {ends[attempt.job]}", attempt)
        origin = by_name.get(entry.origin)  # origins come before what starts from them
        if (
            origin
            and origin.state != "done"
            and (entry.state == "missing" or (is_gone and origin.state in TO_DO))
        ):
            why = f"failed: {origin.detail}" if origin.state == "failed" else f"is {origin.state}"
            entry = dataclasses.replace(entry, detail=f"its origin {origin.name} {why}")
        by_name[entry.name] = entry
        explained.append(entry)
    return explained


def cell_name(cell: Cell) -> str:
    """What a cell is called on the screen and in the journal: its folder below the results."""
    return str(run_folder(".", cell.spec))


def _origin_key(origin: Cell, results: Path, identity: dict | None) -> str | None:
    """The key that an origin should have; where its pack is not at hand, that which it has."""
    if identity:
        return run_key(origin.spec, origin.recipe, identity)
    result, _ = result_of(run_folder(results, origin.spec) / "result.json")
    return result and result.key


def _entry(
    cell: Cell,
    folder: Path,
    attempt: Attempt | None,
    queue: Queue | None,
    identity: dict | None,
    origin_key: str | None,
    now: Callable[[], float | None],
) -> Entry:
    """What is known of a cell but for how its job of SLURM's ended. `now`: the file server's clock, asked where needed."""
    names = listing(folder)
    held = lease.read_lease(folder) if lease.LEASE_FILE in names else None
    if (
        lease.LEASE_FILE in names and held is None
    ):  # given back between two looks: then the result is there, or the reason
        names = listing(folder)
    # The log of a bundle lies in its first cell's folder.
    is_own = "train.log" in names and not (attempt and attempt.bundle > 1)
    log = str(folder / "train.log") if is_own else attempt.log if attempt else None
    result, why = result_of(folder / "result.json") if "result.json" in names else (None, "")
    key = identity and run_key(cell.spec, cell.recipe, identity, cell.origin and origin_key)
    if result:
        # Where the pack is not at hand, the result's own word for what it was trained on has to do.
        pack_identity = identity or result.pack_identity
        begun = (result.origin or {}).get("key")
        if not key or (cell.origin and not origin_key):
            key = run_key(
                cell.spec, cell.recipe, pack_identity, cell.origin and (origin_key or begun)
            )
        if result.key == key:
            return Entry(
                cell, folder, "done", f"MAE {result.test_mae:.4g} {result.unit}", log, result
            )
        why = why_stale(cell, result, pack_identity, origin_key)
    if held and not lease.is_expired(held, now()):
        heard_s = max(0.0, (now() or held.touched) - held.touched)
        return Entry(
            cell,
            folder,
            "running",
            f"{held.lease}, heard of {heard_s:.0f} s ago",
            log,
            lease=held.lease,
        )
    alive, tried = (
        life(attempt, queue, now),
        attempt if attempt and (attempt.job or attempt.process) else None,
    )
    error = error_of(folder, tried and tried.time) if "error.json" in names else {}
    # Of a bundle one cell may have failed while the others go on.
    if alive and not (alive[0] == "running" and tried and tried.bundle > 1 and error):
        return Entry(cell, folder, *alive, log)
    if why and not alive:
        return Entry(cell, folder, "stale", why, log, result)
    resumable = "checkpoint" in names and has_checkpoint(folder, key)
    if error and tried and tried.job and str(error.get("error")).startswith(LOST):
        error = {}  # a node or the memory was lost: SLURM knows which
    if error:
        text = str(error.get("error"))
        state = "preempted" if resumable and cause_of(text) == "time" else "failed"
        log = str(error.get("log") or log or "") or None
        return Entry(cell, folder, state, text, log, cause=cause_of(text), resumable=resumable)
    gone = Entry(cell, folder, "failed", log=log, resumable=resumable)
    if tried:
        # How a job of SLURM's ended is asked for all of them at once.
        return gone if tried.job else _ended(gone, tried.ended or "killed", tried)
    if resumable:
        return dataclasses.replace(
            gone, state="preempted", detail="stopped, with a checkpoint to go on from"
        )
    return Entry(cell, folder, "missing")


def _ended(entry: Entry, how: str, attempt: Attempt) -> Entry:
    """A cell whose training has ended in a way that is known, and neither left a result nor said why."""
    cause, log = cause_of(how), entry.log or attempt.log
    if entry.resumable and cause != "memory":  # else train would have said why: it was a signal
        detail = f"{how}, with a checkpoint to go on from"
        return dataclasses.replace(entry, state="preempted", detail=detail, log=log, cause=cause)
    words = (
        last_words_in(log, attempt.time) if how.endswith("FAILED") or "with status" in how else ""
    )
    detail = f"{how}: {words}" if words else f"{how}, without a result"
    return dataclasses.replace(entry, detail=detail, log=log, cause=cause or cause_of(words))
