"""What SLURM, and the processes of sweeps, say of what was handed over: queued, running, or how it ended.

`squeue` is asked once a command, and `sacct` once for all jobs that are gone.
"""

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.journal import Attempt
from irnet_hpc.lease import expiry_s
from irnet_hpc.process import is_alive

QUEUED = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
NOT_TRAININGS = ("irnet:pack:", "irnet:tables:", "irnet:reconcile:")  # names of jobs


class Job(NamedTuple):
    """A job as squeue shows it."""

    state: str
    reason: str
    name: str
    comment: str  # holds the token of the submission


class Queue(NamedTuple):
    jobs: dict[str, Job]  # by job id
    unclaimed: frozenset[
        str
    ]  # words, a token among them, of the comments of trainings that the journal gives to no cell


def squeue() -> dict[str, Job] | None:
    """Job id -> this user's job in the queue; None where SLURM does not answer."""
    answer = _ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r|%j|%k")
    if answer is None:
        return None
    lines = [line.split("|", 4) for line in answer.splitlines()]
    return {line[0]: Job(*line[1:]) for line in lines if len(line) == 5}


def queue_of(jobs: dict[str, Job], attempts: dict[tuple[str, str], Attempt]) -> Queue:
    claimed = {attempt.job for attempt in attempts.values()}
    unclaimed = [
        job for number, job in jobs.items() if number not in claimed and not job.name.startswith(NOT_TRAININGS)
    ]
    words = {word for job in unclaimed if job.state in QUEUED | RUNNING for word in job.comment.split()}
    return Queue(jobs, frozenset(words))


def life(attempt: Attempt | None, queue: Queue | None, now: Callable[[], float | None]) -> tuple[str, str] | None:
    """(queued or running, detail) of an attempt; None if it is over. `queue` None: SLURM does not answer."""
    if attempt is None:
        return None
    if attempt.cluster == "slurm":
        return _life_of_job(attempt, queue)
    if attempt.ended:
        return None
    pid = (attempt.driver or "?").partition("@")[0]
    if attempt.host != socket.gethostname():  # a lease would have said that it trains
        return ("queued", f"process {pid} on {attempt.host}") if _is_touched(attempt.journal, now()) else None
    if is_alive(attempt.process):
        return "running", f"process {attempt.process.partition('@')[0]}"
    if not attempt.process and is_alive(attempt.driver):
        return "queued", f"process {pid}"
    return None


def _life_of_job(attempt: Attempt, queue: Queue | None) -> tuple[str, str] | None:
    if attempt.job is None and queue is not None:
        # About to be submitted; or it was, but the one who did was killed or lost SLURM's answer before noting it.
        submitting = not attempt.ended and attempt.host == socket.gethostname() and is_alive(attempt.driver)
        known = submitting or attempt.token in queue.unclaimed
        return ("queued", f"by submission {attempt.token}") if known else None
    if attempt.ended:
        return None
    if queue is None:
        return "queued", f"job {attempt.job or attempt.token}, if it still exists"
    job = queue.jobs.get(attempt.job, Job("", "", "", ""))
    # The token tells our job from one of the same number on a cluster that has been set up anew.
    if attempt.token not in job.comment or job.state not in QUEUED | RUNNING:
        return None
    reason = f" ({job.reason})" if job.state in QUEUED and job.reason != "None" else ""
    return "queued" if job.state in QUEUED else "running", f"job {attempt.job}{reason}"


def _is_touched(path: str, now: float | None) -> bool:
    """Whether the one who writes a journal was heard of lately, by the file server's clock."""
    try:
        with Path(path).open("rb"):  # NFS asks the server how old a file is when it is opened
            return now is None or now - Path(path).stat().st_mtime <= expiry_s()
    except FileNotFoundError:
        return False


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
    except (subprocess.SubprocessError, OSError, ValueError):  # ValueError: a number of a job that cannot be one
        return None
