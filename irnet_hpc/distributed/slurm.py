"""When the time of this process's job is up, so that a training stops before it by itself, whether or not a signal says so.

Not every SLURM tells a job its end (SLURM_JOB_END_TIME, which 22.05 lacks), a site may set no signal, and a signal that
comes while Python starts is lost. One rank asks, once; where SLURM does not answer, its signal has to do.
"""

import contextlib
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from irnet_hpc.errors import UserError

OUT_OF_TIME = "out of time, for its job is about to end"  # by its first words a sweep knows what was lacking (traces.py)
NOTICE_S = 60.0  # for the step that is under way and the checkpoint; a quarter of what is left where that is less


def end_of_job(environment: Mapping[str, str] = os.environ) -> float | None:
    """When SLURM will end the job that this process is in, in s since the epoch; None outside of one, and of one without end."""
    if stated := environment.get("SLURM_JOB_END_TIME"):
        with contextlib.suppress(ValueError):
            return float(stated)
    if not (job := environment.get("SLURM_JOB_ID")):
        return None
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%e"]
    in_utc = {"TZ": "UTC", "SLURM_TIME_FORMAT": "standard"}
    try:
        done = subprocess.run(
            command,
            env=dict(environment) | in_utc,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return datetime.fromisoformat(f"{done.stdout.strip()}+00:00").timestamp()
    except (OSError, subprocess.SubprocessError, ValueError):  # no answer, or N/A: no end
        return None


def stop_by(end: float | None, now: float | None = None) -> float:
    """The moment from which a training should stop for the end of its job; infinite where there is none. All in s since the epoch."""
    now = time.time() if now is None else now
    return math.inf if end is None else end - max(0.0, min(NOTICE_S, (end - now) / 4))


class Job(NamedTuple):
    """A job as squeue shows it."""

    state: str
    reason: str
    name: str
    comment: str  # holds the token of the submission


def squeue() -> dict[str, Job] | None:
    """Job id -> this user's job in the queue; None where SLURM does not answer."""
    answer = _ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r|%j|%k")
    if answer is None:
        return None
    lines = [line.split("|", 4) for line in answer.splitlines()]
    return {line[0]: Job(*line[1:]) for line in lines if len(line) == 5}


class JobEnd(NamedTuple):
    """How a job ended, by SLURM's accounting."""

    # The state alone, e.g. CANCELLED; "" where accounting knows nothing.
    state: str
    # The same for people, e.g. "CANCELLED by 0" or "is gone".
    text: str


# States of SLURM's in which more memory or more time may help, and that of a failed process.
STATES_OUT_OF_MEMORY = ("OUT_OF_MEMORY",)
STATES_OUT_OF_TIME = ("TIMEOUT", "DEADLINE")
STATE_FAILED = "FAILED"


def how_ended(jobs: set[str]) -> dict[str, JobEnd]:
    """Ask accounting once how jobs ended: job id -> end."""
    if not jobs:
        return {}
    main = sorted({job.partition("_")[0] for job in jobs})
    answer = _ask(
        "sacct",
        "--allocations",
        "--noheader",
        "--parsable2",
        "--format=JobID,State",
        "--jobs",
        ",".join(main),
    )
    states = dict(line.split("|", 1) for line in (answer or "").splitlines() if "|" in line)
    # Elements that never started stand together in one line, e.g. 17_[3-5].
    pending = {re.sub(r"_\[.*", "", job): state for job, state in states.items() if "[" in job}
    texts = {job: states.get(job) or pending.get(job.partition("_")[0], "") for job in jobs}
    return {
        job: JobEnd(text.partition(" ")[0], text or "is gone") for job, text in texts.items()
    }


def _ask(*command: str) -> str | None:
    """What a SLURM command prints; None where there is no such command or it fails."""
    if not shutil.which(command[0]):
        return None
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (
        subprocess.SubprocessError,
        OSError,
        ValueError,
    ):  # ValueError: a number of a job that cannot be one
        return None


def max_array_size() -> int | None:
    """SLURM's MaxArraySize; None where there is no SLURM. Raises UserError where there is one that does not answer."""
    try:
        shown = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        raise UserError("SLURM does not answer; try again, or use --cluster local") from None
    if match := re.search(r"^MaxArraySize\s*=\s*(\d+)", shown.stdout, re.MULTILINE):
        return max(1, int(match[1]))
    if "configuration source" in shown.stderr:  # installed, but no cluster's
        return None
    reason = " ".join(shown.stderr.split())[:200]
    # Falling back to local processes would start the whole matrix on a login node.
    raise UserError(f"SLURM does not answer ({reason}); try again, or use --cluster local")
