"""Find out from SLURM and from running processes which cells and packs are queued or running."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.distributed.processes import is_alive
from irnet_hpc.distributed.slurm_commands import Job
from irnet_hpc.runs.lease import expiry_s
from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep.journal import Attempt

# SLURM's names for the states of a job (man squeue).
QUEUED = {
    *("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"),
    *("SPECIAL_EXIT", "RESV_DEL_HOLD"),
}
RUNNING = {
    *("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"),
}
# Name prefixes of a sweep's jobs that train no cell.
NOT_TRAININGS = ("irnet:pack:", "irnet:tables:", "irnet:reconcile:")


class Queue(NamedTuple):
    """SLURM's queue, and which submissions have jobs in it that no journal mentions."""

    # job id -> job
    jobs: dict[str, Job]
    # The words in the comments of jobs that no journal mentions; each comment contains the token
    # of its submission.
    unclaimed: frozenset[str]


def queue_of(jobs: dict[str, Job], attempts: dict[tuple[str, str], Attempt]) -> Queue:
    """Describe SLURM's queue, and find the jobs in it that no journal mentions."""
    claimed = {attempt.job for attempt in attempts.values()}
    shared = {
        one.job
        for attempt in attempts.values()
        for one in (attempt, attempt.behind)
        if one and one.n_shared
    }
    words = {
        word
        for number, job in jobs.items()
        if number not in claimed
        and number.partition("_")[0] not in shared
        and not job.name.startswith(NOT_TRAININGS)
        and job.state in QUEUED | RUNNING
        for word in job.comment.split()
    }
    return Queue(jobs, frozenset(words))


def life_of(
    attempt: Attempt | None, queue: Queue | None, now: Callable[[], float | None]
) -> tuple[CellState, str] | None:
    """Return whether an attempt is queued or running, and a description; None if it is over.

    Args:
        attempt: The last attempt at a cell or a pack; None if there was no attempt.
        queue: SLURM's queue; None if SLURM does not answer.
        now: Returns the file server's time in seconds since the epoch, or None if that time is
            unknown.
    """
    if attempt is None:
        return None
    if attempt.cluster == "slurm":
        return _life_of_job(attempt, queue)
    if attempt.ended:
        return None
    pid = (attempt.driver or "?").partition("@")[0]
    if attempt.host != socket.gethostname():
        # The cell is not being trained yet: a training would hold the cell's lease.
        detail = f"process {pid} on {attempt.host}"
        return (CellState.QUEUED, detail) if _is_touched(attempt.journal, now()) else None
    if is_alive(attempt.process):
        return CellState.RUNNING, f"process {(attempt.process or '').partition('@')[0]}"
    if not attempt.process and is_alive(attempt.driver):
        return CellState.QUEUED, f"process {pid}"
    return None


def _life_of_job(attempt: Attempt, queue: Queue | None) -> tuple[CellState, str] | None:
    if attempt.job is None and queue is not None:
        # Either the attempt is about to be submitted, or it was submitted but its submitter was
        # killed, or lost SLURM's answer, before it could note the job.
        is_here = attempt.host == socket.gethostname()
        submitting = not attempt.ended and is_here and is_alive(attempt.driver)
        if submitting or attempt.token in queue.unclaimed:
            return CellState.QUEUED, f"by submission {attempt.token}"
        return None
    if attempt.ended:
        return None
    if queue is None:
        return CellState.QUEUED, f"job {attempt.job or attempt.token}, if it still exists"
    if attempt.n_shared:
        return _life_of_workers(attempt, queue)
    job = queue.jobs.get(attempt.job or "", Job("", "", "", ""))
    # Job numbers start again when a cluster is reinstalled; the token shows that the job is ours.
    if attempt.token not in job.comment or job.state not in QUEUED | RUNNING:
        return None
    if job.state in RUNNING:
        return CellState.RUNNING, f"job {attempt.job}"
    reason = f" ({job.reason})" if job.reason != "None" else ""
    return CellState.QUEUED, f"job {attempt.job}{reason}"


def _life_of_workers(attempt: Attempt, queue: Queue) -> tuple[CellState, str] | None:
    """Return the state of a cell that any of several jobs may take: queued while one of them lives.

    A worker that trains the cell holds its lease, which tells that it is running.
    """
    names = [f"{attempt.job}_{i}" for i in range(attempt.n_shared)]
    jobs = [queue.jobs[name] for name in (attempt.job or "", *names) if name in queue.jobs]
    alive = [job for job in jobs if attempt.token in job.comment and job.state in QUEUED | RUNNING]
    if not alive:
        return None
    n_at_work = sum(job.state in RUNNING for job in alive)
    if n_at_work:
        return CellState.QUEUED, f"for the workers of job {attempt.job}, {n_at_work} at work"
    reason = f" ({alive[0].reason})" if alive[0].reason != "None" else ""
    return CellState.QUEUED, f"for the workers of job {attempt.job}{reason}"


def _is_touched(path: str, now: float | None) -> bool:
    """Return True if a journal was touched recently, by the file server's clock."""
    try:
        # NFS asks the server for a file's age when it is opened.
        with Path(path).open("rb"):
            return now is None or now - Path(path).stat().st_mtime <= expiry_s()
    except FileNotFoundError:
        return False
