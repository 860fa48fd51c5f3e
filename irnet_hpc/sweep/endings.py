"""Find out how an attempt at a cell ended that left neither a result nor an error.

Its exit status, SLURM's accounting and the end of its log say it.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.distributed.slurm_commands import (
    SIGNALS_OF_NO_MEMORY,
    SIGNALS_OF_NO_TIME,
    STATE_FAILED,
    STATES_OUT_OF_MEMORY,
    STATES_OUT_OF_TIME,
    JobEnd,
)
from irnet_hpc.runs.folder import seconds_since_1970
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.sweep.journal import Attempt

# What torch, numpy, Python and Linux print when memory runs out. It is looked for in the last line
# of a log if the training could no longer write error.json.
FOREIGN_WORDS_FOR_MEMORY = re.compile(
    r"out of memory|can't allocate memory|MemoryError|[Uu]nable to allocate"
)
# Linux kills a process that takes too much memory with signal 9; shells and launchers report that
# as exit status 137.
KILLED = (-9, 137)
# How the line begins that a job of a sweep writes to its log before anything else.
LOG_HEADING = "--- job "


class Ending(NamedTuple):
    """The end of an attempt that left neither a result nor an error."""

    text: str
    cause: Cause
    # True if the process itself failed, so that the end of its log says why.
    log_says_why: bool


def local_end(attempt: Attempt) -> Ending:
    """Describe the end of a training that this machine started, from its exit status."""
    if attempt.status is None:
        return Ending(attempt.ended or "killed", Cause.OTHER, False)
    cause = Cause.MEMORY if attempt.status in KILLED else Cause.OTHER
    return Ending(attempt.ended or f"ended with status {attempt.status}", cause, True)


def slurm_end(attempt: Attempt, end: JobEnd) -> Ending:
    """Describe the end of a SLURM job, from its state in SLURM's accounting."""
    cause = Cause.OTHER
    if end.state in STATES_OUT_OF_MEMORY or end.killed_by in SIGNALS_OF_NO_MEMORY:
        cause = Cause.MEMORY
    elif end.state in STATES_OUT_OF_TIME or end.killed_by in SIGNALS_OF_NO_TIME:
        cause = Cause.TIME
    # A process that is killed leaves no last words: its log ends anywhere.
    log_says_why = end.state == STATE_FAILED and not end.killed_by
    return Ending(f"job {attempt.job} {end.text}", cause, log_says_why)


def last_words(output: str) -> str:
    """Return the last line that the training itself printed, without the lines of horovodrun."""
    lines = [line for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(LOG_HEADING)]
    rank_lines = [
        line.partition(">:")[2] for line in lines if re.match(r"\[\d+\]<std(out|err)>:.*\S", line)
    ]
    return ([""] + (rank_lines or lines))[-1].strip()[:300]


def last_words_in(log: str | None, since: str) -> str:
    """Return the last line of a log, or "" if the log is older than `since` (ISO time)."""
    try:
        with Path(log or "").open("rb") as file:
            if os.fstat(file.fileno()).st_mtime < seconds_since_1970(since):
                return ""
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return last_words(file.read().decode(errors="replace"))
    except (OSError, ValueError):
        # The name of a log in a journal may not be a valid file name.
        return ""
