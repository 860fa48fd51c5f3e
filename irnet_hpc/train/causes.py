"""Tell from an exception what may mend a failed training, for error.json and a sweep's next try."""

import re

from irnet_hpc.errors import PeerLost
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.states import Cause

# Libraries report a lack of memory in errors whose types do not say so, torch's own among them.
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|unable to allocate", re.IGNORECASE)


def cause_of(error: BaseException | None) -> Cause:
    """Return the cause of an exception that ended a training.

    Texts are looked at only where another library has written them; an error of ours has the cause
    of the one that it was raised from.
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
