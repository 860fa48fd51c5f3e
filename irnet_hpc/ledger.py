"""The ledger: which cells are done, running, queued, stale, failed or missing. Reads the disk and asks the scheduler once.

done     result.json is there and its key is the cell's
running, queued   the scheduler, or the process of this machine that was given the cell, says so
stale    result.json is there, but of another recipe, pack or version, or damaged: shown, and re-run only when asked
failed   error.json is there, or it was handed over and has gone without a result
missing  none of these

A cell that starts from another is stale where it started from other content than that one now has, and is not taken up
before that one can be.
"""

import dataclasses
import re
import shutil
import socket
import subprocess
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from irnet_hpc import journal
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.journal import Attempt
from irnet_hpc.matrix import Cell, Matrix
from irnet_hpc.process import is_alive
from irnet_hpc.runs import RunResult, defaults, read_result, run_folder, run_key

STATES = ("done", "running", "queued", "stale", "failed", "missing")
TO_DO = ("failed", "missing")  # what `run` and `submit` take up unasked

QUEUED = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}


class Job(NamedTuple):
    """A job as squeue shows it."""

    state: str
    reason: str
    name: str
    comment: str  # holds the token of the submission


class Queue(NamedTuple):
    jobs: dict[str, Job]  # by job id
    unclaimed: tuple[str, ...]  # comments of the trainings in it that the journal gives to no cell


@dataclasses.dataclass(frozen=True)
class Entry:
    """A cell and what is known of it."""

    cell: Cell
    folder: Path
    state: str  # one of STATES
    detail: str = ""  # one line: the error, the job, why it is stale
    log: str | None = None
    result: RunResult | None = None  # of done cells, and of stale ones whose result can be read

    @property
    def name(self) -> str:
        return cell_name(self.cell)

    @property
    def origin(self) -> str | None:
        """The name of the cell that it starts from."""
        return self.cell.origin and cell_name(self.cell.origin)


@dataclasses.dataclass(frozen=True)
class Ledger:
    entries: tuple[Entry, ...]
    pack_jobs: dict[str, str]  # pack -> the job in the queue that builds it
    cell_jobs: dict[str, str]  # cell that is queued or running -> its job
    notes: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        states = [entry.state for entry in self.entries]
        return {state: states.count(state) for state in STATES}

    def to_do(self, stale: bool = False) -> list[Entry]:
        """The cells to take up; not those whose origin is stale and stays so, or is under way where it cannot be waited for."""
        taken = [entry for entry in self.entries if entry.state in TO_DO or (stale and entry.state == "stale")]
        under_way = {e.name for e in self.entries if e.state in ("queued", "running")} - self.cell_jobs.keys()
        held = under_way | ({entry.name for entry in self.entries if entry.state == "stale"} if not stale else set())
        return [entry for entry in taken if entry.origin not in held]

    def asked_hours(self) -> float:
        """Device-hours that the cells without a result may use at most."""
        return sum(e.cell.resources.device_hours for e in self.entries if e.state not in ("done", "stale"))


def read_ledger(
    matrix: Matrix, results: Path | str, ends: dict[str, str] | None = None, but_of: str | None = None
) -> Ledger:
    """The state of every cell of a matrix, but for what the submission with the token `but_of` has taken up.

    `ends` remembers between two calls how finished jobs ended.
    """
    results, attempts = Path(results), journal.attempts(Path(results), but_of)
    # The scheduler is asked before the disk is read: a job that has left the queue has then left its result.
    found = squeue() if any(attempt.cluster == "slurm" for attempt in attempts.values()) else {}
    queue = None if found is None else _queue(found, attempts)
    pack_attempts = {
        pack.name: attempts[kind_and_name]
        for pack in matrix.packs
        if (kind_and_name := ("pack", pack.name)) in attempts and not pack.exists
    }
    pack_jobs = {name: attempt.job for name, attempt in pack_attempts.items() if _life(attempt, queue)}
    identities = {pack.name: pack.identity for pack in matrix.packs}
    entries, tried = [], [attempts.get(("cell", cell_name(cell))) for cell in matrix.cells]
    for cell, attempt in zip(matrix.cells, tried, strict=True):
        origin_key = cell.origin and _origin_key(cell.origin, results, identities[cell.origin.spec.pack])
        identity = identities[cell.spec.pack]
        entries.append(_entry(cell, run_folder(results, cell.spec), attempt, queue, identity, origin_key))
    lost_packs = {name: attempt for name, attempt in pack_attempts.items() if name not in pack_jobs}
    entries = _explain(entries, tried, lost_packs, {} if ends is None else ends)

    pairs = zip(entries, tried, strict=True)
    jobs = {e.name: a.job for e, a in pairs if a and a.job and e.state in ("queued", "running")}
    notes = []
    if queue is None and jobs:
        journals = sorted({attempt.journal for attempt in attempts.values() if attempt.cluster == "slurm"})
        notes.append(
            "SLURM does not answer here, so what was submitted counts as queued; "
            f"if those jobs are gone for good, remove {' '.join(journals)}"
        )
    return Ledger(tuple(entries), pack_jobs, jobs, tuple(notes))


def _queue(jobs: dict[str, Job], attempts: dict[tuple[str, str], Attempt]) -> Queue:
    claimed = {attempt.job for attempt in attempts.values()}
    others = ("irnet:pack:", "irnet:tables:")
    unclaimed = [job for number, job in jobs.items() if number not in claimed and not job.name.startswith(others)]
    return Queue(jobs, tuple(job.comment for job in unclaimed if job.state in QUEUED | RUNNING))


def _explain(
    entries: list[Entry], tried: list[Attempt | None], lost_packs: dict[str, Attempt], ends: dict[str, str]
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
            detail = f"job {attempt.job} {ends[attempt.job]}, without a result"
            entry = dataclasses.replace(entry, detail=detail, log=entry.log or attempt.log)
        origin = by_name.get(entry.origin)  # origins come before what starts from them
        if origin and origin.state != "done" and (entry.state == "missing" or (is_gone and origin.state == "failed")):
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
    result, _ = _result(run_folder(results, origin.spec) / "result.json")
    return result and result.key


def _entry(
    cell: Cell,
    folder: Path,
    attempt: Attempt | None,
    queue: Queue | None,
    identity: dict | None,
    origin_key: str | None,
) -> Entry:
    log = folder / "train.log"
    log = str(log) if log.exists() else attempt.log if attempt else None
    result, why = _result(folder / "result.json")
    if result:
        # Where the pack is not at hand, the result's own word for what it was trained on has to do.
        pack_identity = identity or result.pack_identity
        begun = (result.origin or {}).get("key")
        if result.key == run_key(cell.spec, cell.recipe, pack_identity, cell.origin and (origin_key or begun)):
            return Entry(cell, folder, "done", f"MAE {result.test_mae:.4g} {result.unit}", log, result)
        why = _why_stale(cell, result, pack_identity, origin_key)
    if life := _life(attempt, queue):
        return Entry(cell, folder, *life, log)
    if why:
        return Entry(cell, folder, "stale", why, log, result)
    tried = attempt and (attempt.job or attempt.process)
    if error := error_of(folder, attempt.time if tried else None):
        return Entry(cell, folder, "failed", str(error.get("error")), str(error.get("log") or log or "") or None)
    if tried:
        # How a job of SLURM's ended is asked for all of them at once.
        detail = "" if attempt.job else f"{attempt.ended or 'killed'}, without a result"
        return Entry(cell, folder, "failed", detail, log)
    return Entry(cell, folder, "missing")


def _result(path: Path) -> tuple[RunResult | None, str]:
    """A result, or why it cannot be read; neither where there is none."""
    try:
        result = read_result(path)
    except FileNotFoundError:
        return None, ""
    except UserError as error:
        return None, str(error)
    if not (isinstance(result.recipe, dict) and isinstance(result.pack_identity, dict)):
        return None, f"{path}: recipe and pack_identity must be of type dict"
    if not isinstance(result.origin, dict | None):
        return None, f"{path}: origin must be of type dict"
    return result, ""


def _why_stale(cell: Cell, result: RunResult, identity: dict, origin_key: str | None) -> str:
    ours = dataclasses.asdict(cell.recipe)
    theirs = defaults(cell.recipe) | result.recipe
    if theirs != ours:
        changed = [name for name in ours if theirs[name] != ours[name]]
        return f"of another recipe: {', '.join(changed) or 'other fields'}"
    changed = [
        name for name in identity if name != "content_sha256" and result.pack_identity.get(name) != identity[name]
    ]
    if changed:
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


def _time(text: str | None) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return float("inf")


def _life(attempt: Attempt | None, queue: Queue | None) -> tuple[str, str] | None:
    """(queued or running, detail) of an attempt; None if it is over."""
    if attempt is None:
        return None
    if attempt.cluster == "slurm" and attempt.job is None and queue is not None:
        # About to be submitted; or it was, but the one who did was killed or lost SLURM's answer before noting it.
        submitting = not attempt.ended and attempt.host == socket.gethostname() and is_alive(attempt.driver)
        known = submitting or any(attempt.token in comment for comment in queue.unclaimed)
        return ("queued", f"by submission {attempt.token}") if known else None
    if attempt.ended:
        return None
    if attempt.cluster == "slurm":
        if queue is None:
            return "queued", f"job {attempt.job or attempt.token}, if it still exists"
        job = queue.jobs.get(attempt.job, Job("", "", "", ""))
        # The token tells our job from one of the same number on a cluster that has been set up anew.
        if attempt.token not in job.comment or job.state not in QUEUED | RUNNING:
            return None
        reason = f" ({job.reason})" if job.state in QUEUED and job.reason != "None" else ""
        return "queued" if job.state in QUEUED else "running", f"job {attempt.job}{reason}"
    if attempt.host != socket.gethostname():
        return "queued", f"on {attempt.host}, which cannot be asked from here; if it is gone, remove {attempt.journal}"
    if is_alive(attempt.process):
        return "running", f"process {attempt.process.partition('@')[0]}"
    if not attempt.process and is_alive(attempt.driver):
        return "queued", f"process {attempt.driver.partition('@')[0]}"
    return None


def squeue() -> dict[str, Job] | None:
    """Job id -> this user's job in the queue; None where SLURM does not answer."""
    answer = _ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r|%j|%k")
    if answer is None:
        return None
    lines = [line.split("|", 4) for line in answer.splitlines()]
    return {line[0]: Job(*line[1:]) for line in lines if len(line) == 5}


def how_ended(jobs: set[str]) -> dict[str, str]:
    """Job id -> the state that accounting has for it, e.g. `CANCELLED by 0`; `is gone` where it knows nothing."""
    if not jobs:
        return {}
    main = sorted({job.partition("_")[0] for job in jobs})
    answer = _ask(
        "sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", "--jobs", ",".join(main)
    )
    states = dict(line.split("|", 1) for line in (answer or "").splitlines() if "|" in line)
    # Elements that never started stand together in one line, e.g. 17_[3-5].
    pending = {re.sub(r"_\[.*", "", job): state for job, state in states.items() if "[" in job}
    return {job: states.get(job) or pending.get(job.partition("_")[0], "is gone") for job in jobs}


def _ask(*command: str) -> str | None:
    """What a SLURM command prints; None where there is no such command or it fails."""
    if not shutil.which(command[0]):
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (subprocess.SubprocessError, OSError):
        return None
