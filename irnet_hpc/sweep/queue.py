"""What SLURM, and the processes of sweeps, say of what was handed over: queued, running, or how it ended.

`squeue` is asked once a command, and `sacct` once for all jobs that are gone.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.distributed.processes import is_alive
from irnet_hpc.distributed.slurm import Job
from irnet_hpc.runs.lease import expiry_s
from irnet_hpc.sweep.journal import Attempt

QUEUED = {
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
}
RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
NOT_TRAININGS = ("irnet:pack:", "irnet:tables:", "irnet:reconcile:")  # names of jobs


class Queue(NamedTuple):
    jobs: dict[str, Job]  # by job id
    unclaimed: frozenset[
        str
    ]  # words, a token among them, of the comments of trainings that the journal gives to no cell


def queue_of(jobs: dict[str, Job], attempts: dict[tuple[str, str], Attempt]) -> Queue:
    claimed = {attempt.job for attempt in attempts.values()}
    unclaimed = [
        job
        for number, job in jobs.items()
        if number not in claimed and not job.name.startswith(NOT_TRAININGS)
    ]
    words = {
        word for job in unclaimed if job.state in QUEUED | RUNNING for word in job.comment.split()
    }
    return Queue(jobs, frozenset(words))


def life(
    attempt: Attempt | None, queue: Queue | None, now: Callable[[], float | None]
) -> tuple[str, str] | None:
    """(queued or running, detail) of an attempt; None if it is over. `queue` None: SLURM does not answer."""
    if attempt is None:
        return None
    if attempt.cluster == "slurm":
        return _life_of_job(attempt, queue)
    if attempt.ended:
        return None
    pid = (attempt.driver or "?").partition("@")[0]
    if attempt.host != socket.gethostname():  # a lease would have said that it trains
        return (
            ("queued", f"process {pid} on {attempt.host}")
            if _is_touched(attempt.journal, now())
            else None
        )
    if is_alive(attempt.process):
        return "running", f"process {attempt.process.partition('@')[0]}"
    if not attempt.process and is_alive(attempt.driver):
        return "queued", f"process {pid}"
    return None


def _life_of_job(attempt: Attempt, queue: Queue | None) -> tuple[str, str] | None:
    if attempt.job is None and queue is not None:
        # About to be submitted; or it was, but the one who did was killed or lost SLURM's answer before noting it.
        submitting = (
            not attempt.ended and attempt.host == socket.gethostname() and is_alive(attempt.driver)
        )
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
