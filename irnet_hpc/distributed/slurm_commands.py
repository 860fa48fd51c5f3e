"""Run SLURM's commands (squeue, sacct, scontrol) for trainings and sweeps.

`stop_by` computes when a training should stop by itself, shortly before its job ends. A signal is
not enough: a site may not send one, and a signal that comes while Python starts kills it, or is
lost if Python is started with the signal ignored, as slurm/train.sh does. SLURM_JOB_END_TIME states
when the job ends; older versions, such as 22.05, do not set it. Then one rank asks squeue, once. If
squeue does not answer either, only the signal is left.
"""

import contextlib
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from irnet_hpc.distributed.processes import own_start
from irnet_hpc.errors import UserError

# How a message begins when the end of the job stops a training.
OUT_OF_TIME = "out of time: its job is about to end"
# How long before the end of its job a training stops. SLURM signals the trainings of a sweep this
# many seconds before the end, or a quarter of the job's time if that is less; slurm/train.sh asks
# for the same with --signal.
SIGNAL_LEAD_S = 120
# SLURM looks at its jobs every 30 s and may signal up to a minute before it was asked to. A signal
# that comes earlier than this on top of the lead is a preemption.
SIGNAL_SLACK_S = 90
# Without a signal a training stops by its own clock this long before the end; a quarter of what is
# left where that is less.
CLOCK_MARGIN_S = 60.0
TIMEOUT_S = 60
# States of SLURM's in which more memory or more time may help, and that of a failed process.
STATES_OUT_OF_MEMORY = ("OUT_OF_MEMORY",)
STATES_OUT_OF_TIME = ("TIMEOUT", "DEADLINE")
STATE_FAILED = "FAILED"
# Linux kills a process that takes too much memory with SIGKILL. SLURM warns of a job's end with
# SIGUSR1 or SIGUSR2, which kill a training whose Python is only starting.
SIGNALS_OF_NO_MEMORY = (signal.SIGKILL,)
SIGNALS_OF_NO_TIME = (signal.SIGUSR1, signal.SIGUSR2)
SIGNALS_OF_KILLS = (*SIGNALS_OF_NO_MEMORY, *SIGNALS_OF_NO_TIME)
# What SLURM prints on a machine that has it installed but belongs to no cluster.
NO_CLUSTER = "configuration source"


class SlurmError(Exception):
    """A SLURM command failed, did not answer in time, or is not installed."""

    def __init__(self, message: str, is_installed: bool = True, has_cluster: bool = True) -> None:
        super().__init__(message)
        self.is_installed = is_installed
        self.has_cluster = has_cluster


class Job(NamedTuple):
    """A job as squeue shows it."""

    state: str
    reason: str
    name: str
    comment: str  # holds the token of the submission


class JobEnd(NamedTuple):
    """The end of a job in SLURM's accounting."""

    state: str  # one word, e.g. CANCELLED; empty if the accounting does not know the job
    text: str  # the same for people, e.g. `CANCELLED by 0` or `is gone`
    # The signal that killed the training, or the shell of its job; 0 if none did.
    killed_by: int = 0


def _run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the output of a SLURM command. Raises SlurmError if the command fails."""
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise SlurmError(f"{command[0]} is not installed", is_installed=False) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer within {TIMEOUT_S} s") from None
    except (OSError, ValueError) as error:  # ValueError: a job's number that cannot be one
        raise SlurmError(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        # Looked for in all of the text: newer versions of SLURM first print three lines of it.
        text = " ".join(done.stderr.split())
        raise SlurmError(text[:200], has_cluster=NO_CLUSTER not in text)
    return done.stdout


def own_job(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the id that means only this process's job to SLURM's commands; None outside a job.

    The last task of an array has the array's number as its SLURM_JOB_ID (SLURM 22.05), so that
    `scontrol requeue $SLURM_JOB_ID` would put back all tasks, even those that have ended. All other
    jobs have a number of their own. It counts, since a job that an array's task submits inherits
    the SLURM_ARRAY_* of that task.
    """
    job, task = environment.get("SLURM_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    if job and task and job == environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{job}_{task}"
    return job or None


def restart_count(environment: Mapping[str, str] = os.environ) -> int:
    """Return how often SLURM has requeued the job of this process."""
    text = environment.get("SLURM_RESTART_COUNT", "")
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0


def end_of_slurm_job(
    environment: Mapping[str, str] = os.environ, began: float | None = None
) -> float | None:
    """Return when SLURM will end the job of this process, in s since 1970.

    Returns None outside a job, if the job has no end, or if SLURM does not answer. An end before
    this process began belongs to an earlier job, whose variables a longer-lived shell has kept.

    Args:
        environment: The environment variables of the process.
        began: When the process began, in s since 1970; None: ask the operating system.
    """
    if not (job := own_job(environment)) and "SLURM_JOB_END_TIME" not in environment:
        return None
    began = own_start() if began is None else began
    with contextlib.suppress(ValueError):
        stated = float(environment.get("SLURM_JOB_END_TIME", ""))
        if began < stated < math.inf:  # false for nan
            return stated
    if not job:
        return None
    in_utc = {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"}
    command = ("squeue", "--noheader", f"--jobs={job}", "--format=%e")
    ends = []
    with contextlib.suppress(SlurmError):
        # A line for each component of a heterogeneous job.
        for line in _run(*command, environment=dict(environment) | in_utc).split():
            with contextlib.suppress(ValueError):  # N/A, the job has no end
                ends.append(datetime.fromisoformat(f"{line}+00:00").timestamp())
    return min((end for end in ends if end > began), default=None)


def stop_by(end: float | None, now: float | None = None) -> float:
    """Return the time at which a training should stop because its job ends.

    Args:
        end: The end of the job in s since 1970; None if it has none.
        now: The present time in s since 1970; None means the clock of this machine.

    Returns:
        The time in s since 1970; infinite if the job has no end.
    """
    now = time.time() if now is None else now
    return math.inf if end is None else end - max(0.0, min(CLOCK_MARGIN_S, (end - now) / 4))


def squeue() -> dict[str, Job] | None:
    """Return this user's jobs in the queue as job id -> job; None if SLURM does not answer."""
    try:
        shown = _run("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r|%j|%k")
    except SlurmError:
        return None
    lines = [line.split("|", 4) for line in shown.splitlines()]
    return {line[0]: Job(*line[1:]) for line in lines if len(line) == 5}


def how_ended(jobs: set[str]) -> dict[str, JobEnd]:
    """Ask SLURM's accounting how jobs ended, in a single call.

    Args:
        jobs: The ids of the jobs, e.g. `17` or `17_3`.

    Returns:
        Job id -> how the job ended.
    """
    if not jobs:
        return {}
    ids = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    shown = ""
    with contextlib.suppress(SlurmError):
        shown = _run(
            *("sacct", "--allocations", "--noheader", "--parsable2"),
            *("--format=JobID,ExitCode,State", "--jobs", ids),
        )
    lines = [line.split("|", 2) for line in shown.splitlines() if line.count("|") >= 2]
    states = {job: state for job, _, state in lines}
    signals = {job: _signal_of(code) for job, code, _ in lines}
    # Elements that never started stand together in one line, e.g. 17_[3-5].
    pending = {re.sub(r"_\[.*", "", job): state for job, state in states.items() if "[" in job}
    texts = {job: states.get(job) or pending.get(job.partition("_")[0], "") for job in jobs}
    ends = {}
    for job, text in texts.items():
        state, number = text.partition(" ")[0], signals.get(job, 0)
        killed_by = number if state == STATE_FAILED else 0
        said = f"{text}, killed by signal {killed_by}" if killed_by else text
        ends[job] = JobEnd(state, said or "is gone", killed_by)
    return ends


def _signal_of(exit_code: str) -> int:
    """Return the signal in SLURM's `status:signal`; 0 if there is none.

    If srun reports that signal 9 killed a task, the batch script ends with 137, which SLURM 22.05
    shows as 9:0. If signal 9 kills the batch shell itself, SLURM shows 0:9. The statuses with which
    a training itself ends are 0, 1, 2, 75 and 76. Linux has 64 signals: 255 is no signal, but how
    ssh, mpirun and `exit -1` report that they failed.
    """
    match = re.fullmatch(r"([0-9]+):([0-9]+)", exit_code)
    status, number = (int(match[1]), int(match[2])) if match else (0, 0)
    by_shell = status - 128 if 128 < status <= 128 + 64 else 0
    return number or by_shell or (status if status in SIGNALS_OF_KILLS else 0)


def max_array_size() -> int | None:
    """Return SLURM's MaxArraySize; None if SLURM is not installed, or installed without a cluster.

    Raises:
        UserError: If there is a cluster that does not answer. The caller must not fall back to
            local processes then, since that would start the whole matrix on a login node.
    """
    try:
        shown, reason = _run("scontrol", "show", "config"), ""
    except SlurmError as error:
        if not error.is_installed or not error.has_cluster:
            return None
        shown, reason = "", f" ({error})"
    if match := re.search(r"^MaxArraySize\s*=\s*(\d+)", shown, re.MULTILINE):
        return max(1, int(match[1]))
    raise UserError(f"SLURM does not answer{reason}; try again, or use --cluster local")


def smallest_node(partition: str | None = None) -> tuple[int, float, int] | None:
    """Return the size of a partition's smallest node; None if SLURM does not state it.

    Args:
        partition: The partition; None: the one that jobs get by default.

    Returns:
        Cores (SLURM's CPUs), memory in GiB, and GPUs. Each is the least of the partition's nodes.
    """
    where = (f"--partition={partition}",) if partition else ()
    try:
        shown = _run("sinfo", "--noheader", "--exact", *where, "--format=%c|%m|%P|%G")
    except SlurmError:
        return None
    lines = [line.split("|", 3) for line in shown.splitlines() if line.count("|") >= 3]
    # sinfo marks the default partition with a star.
    default = [line for line in lines if line[2].endswith("*")]
    nodes = [
        (int(cores), int(memory_mb) / 1024, _n_gpus(gres))
        for cores, memory_mb, _, gres in (lines if partition else default or lines)
        if cores.isdecimal() and memory_mb.isdecimal()
    ]
    if not nodes:
        return None
    cores, memory_gb, gpus = (min(values) for values in zip(*nodes, strict=True))
    return int(cores), memory_gb, int(gpus)


def _n_gpus(gres: str) -> int:
    """Count the GPUs in sinfo's list of generic resources, e.g. `gpu:a100:4(S:0-1),shard:8`."""
    counts = re.findall(r"(?:^|,)gpu(?::[^,:()]+)?:([0-9]+)", gres)
    return sum(map(int, counts))


def host_names(node_list: str) -> list[str]:
    """Expand SLURM's list of nodes, e.g. n[1-2]. Raises SlurmError if SLURM cannot."""
    return _run("scontrol", "show", "hostnames", node_list).split()


def requeue(job: str) -> None:
    """Put a running job back into the queue. Raises SlurmError if SLURM refuses."""
    _run("scontrol", "requeue", job)


def set_dependency(job: str, dependency: str) -> None:
    """Replace the dependency of a waiting job. Raises SlurmError if SLURM refuses."""
    _run("scontrol", "update", f"JobId={job}", f"Dependency={dependency}")
