"""Classify the exception that ended a training, for error.json and for a sweep's next try."""

import re

from irnet_hpc.errors import PeerLost
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.state_names import Cause

# Libraries, torch included, report a lack of memory by errors of unspecific types.
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|unable to allocate", re.IGNORECASE)


def cause_of(error: BaseException | None) -> Cause:
    """Return the cause of an exception that ended a training.

    Only texts of other libraries are searched; an error of ours has the cause of the error that it
    was raised from.
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
