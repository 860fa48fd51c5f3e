"""Classify the exception that ended a training, for error.json and for retries by a sweep."""

import re

from irnet_hpc.errors import PeerLost
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.state_names import Cause

# Libraries, such as torch, report a lack of memory by exceptions of general types.
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|unable to allocate", re.IGNORECASE)


def cause_of(error: BaseException | None) -> Cause:
    """Return the cause of an exception that ended a training.

    The text of an exception is searched only if another library raised it. An error of this package
    has the cause of the exception that it was raised from.
    """
    if error is None:
        return Cause.OTHER
    if isinstance(error, RunIsHeld):
        return Cause.HELD
    if isinstance(error, PeerLost):
        return Cause.PEER_LOST
    is_ours = type(error).__module__.startswith("irnet_hpc.")
    if isinstance(error, MemoryError) or (not is_ours and NO_MEMORY.search(str(error))):
        return Cause.MEMORY
    return cause_of(error.__cause__)
