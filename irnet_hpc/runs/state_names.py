"""Define the states of cells and runs and the causes of failures as enums.

So code compares enums and never searches the text of a message.
"""

from enum import StrEnum


class CellState(StrEnum):
    """The states of a cell of a matrix. The values are those of `sweep status --json`."""

    DONE = "done"  # result.json exists, and its key is that of the cell
    RUNNING = "running"  # a process holds the run's lease, or was started to train it
    QUEUED = "queued"  # its job is in the scheduler's queue, or a local sweep will run it
    STALE = "stale"  # its result is damaged, or of another recipe, pack or version
    PREEMPTED = "preempted"  # it stopped with a checkpoint and can go on
    FAILED = "failed"  # it wrote error.json, or its job ended without a result
    MISSING = "missing"  # no evidence of any of these


class GapState(StrEnum):
    """The reasons why a run or a cell has no result to show.

    The notes of tables print these values.
    """

    FAILED = "failed"
    PREEMPTED = "preempted"
    UNREADABLE = "unreadable, and left out"  # result.json is damaged or of another version
    STALE = "stale"
    RUNNING = "running"
    UNFINISHED = "running, or interrupted"  # run.json exists; no ledger tells which
    QUEUED = "queued"
    NOT_RUN = "not run"


class Cause(StrEnum):
    """The causes of a failure, as `error.json` states them under `cause`."""

    OTHER = ""  # not one of the causes below
    MEMORY = "memory"  # more memory may help
    TIME = "time"  # the job ended before the run did; more time may help
    PEER_LOST = "peer_lost"  # another rank is gone; the cause is unknown
    DEVICE = "device"  # the GPU is lost or broken, and its process can use it no more
    HELD = "held"  # another process trains the run
