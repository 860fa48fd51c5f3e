"""Name the states of a cell and the causes of a failure. Files and code hold these values; no text is ever matched."""

from enum import StrEnum


class CellState(StrEnum):
    """List the states of a cell of a matrix. The values are those of `sweep status --json`."""

    DONE = "done"  # result.json is there and its key is the cell's
    RUNNING = "running"  # a process holds the run's lease, or has been started for it
    QUEUED = "queued"  # the scheduler has it, or a local sweep will come to it
    STALE = "stale"  # its result is of another recipe, pack or version, or damaged
    PREEMPTED = "preempted"  # it stopped with a checkpoint and can go on
    FAILED = "failed"  # it wrote error.json, or its job ended without a result
    MISSING = "missing"  # none of these


class Cause(StrEnum):
    """List the causes that `error.json` states as `cause`."""

    OTHER = ""  # nothing that more memory, more time or another process would mend
    MEMORY = "memory"  # more memory may help
    TIME = "time"  # the job's end came first; more time may help
    PEER_LOST = "peer_lost"  # another rank is gone, which says nothing about why
    HELD = "held"  # another process trains the run
