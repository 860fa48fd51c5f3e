"""The cause that error.json states."""

import pytest

from irnet_hpc.errors import PeerLost, UserError
from irnet_hpc.runs.lease import LeaseLost, RunIsHeld
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.train.causes import cause_of


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), Cause.MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), Cause.MEMORY),
        # Our own sentences are never matched, whatever they say.
        (UserError("out of memory"), Cause.OTHER),
        (PeerLost("out of memory"), Cause.PEER_LOST),
        (RunIsHeld("x"), Cause.HELD),
        (LeaseLost("x"), Cause.HELD),
        (ValueError("x"), Cause.OTHER),
        (OSError("x"), Cause.OTHER),
    ],
)
def test_a_cause_follows_from_the_type_of_the_exception(error, cause):
    assert cause_of(error) == cause
