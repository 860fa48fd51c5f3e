"""Name the states of cells and runs, and the causes of failures; no text is matched for them."""

from enum import StrEnum


class CellState(StrEnum):
    """The states of a cell of a matrix. The values are those of `sweep status --json`."""

    DONE = "done"  # result.json is there and its key is the cell's
    RUNNING = "running"  # a process holds the run's lease, or has been started for it
    QUEUED = "queued"  # the scheduler has it, or a local sweep will come to it
    STALE = "stale"  # its result is of another recipe, pack or version, or damaged
    PREEMPTED = "preempted"  # it stopped with a checkpoint and can go on
    FAILED = "failed"  # it wrote error.json, or its job ended without a result
    MISSING = "missing"  # no evidence of any of these


class GapState(StrEnum):
    """Why a run or a cell has no result to show. The values stand in the notes of the tables."""

    FAILED = "failed"
    PREEMPTED = "preempted"
    UNREADABLE = "unreadable, and left out"  # result.json is not one of this version, or damaged
    STALE = "stale"
    RUNNING = "running"
    UNFINISHED = "running, or interrupted"  # there is a run.json, and no ledger to tell
    QUEUED = "queued"
    NOT_RUN = "not run"


class Cause(StrEnum):
    """The causes of a failure, as `error.json` states them under `cause`."""

    OTHER = ""  # not one of the causes below
    MEMORY = "memory"  # more memory may help
    TIME = "time"  # the job's end came first; more time may help
    PEER_LOST = "peer_lost"  # another rank is gone, which says nothing about why
    HELD = "held"  # another process trains the run
