"""When the time of this process's job is up, so that a training stops before it by itself, whether or not a signal says so.

Not every SLURM tells a job its end (SLURM_JOB_END_TIME, which 22.05 lacks), a site may set no signal, and a signal that
comes while Python starts is lost. One rank asks, once; where SLURM does not answer, its signal has to do.
"""

import contextlib
import math
import os
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime

OUT_OF_TIME = (
    "out of time, for its job is about to end"  # by its first words a sweep knows what was lacking (traces.py)
)
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
            command, env=dict(environment) | in_utc, capture_output=True, text=True, timeout=20, check=True
        )
        return datetime.fromisoformat(f"{done.stdout.strip()}+00:00").timestamp()
    except (OSError, subprocess.SubprocessError, ValueError):  # no answer, or N/A: no end
        return None


def stop_by(end: float | None, now: float | None = None) -> float:
    """The moment from which a training should stop for the end of its job; infinite where there is none. All in s since the epoch."""
    now = time.time() if now is None else now
    return math.inf if end is None else end - max(0.0, min(NOTICE_S, (end - now) / 4))
