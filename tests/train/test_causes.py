"""The cause that error.json states."""

import pytest
import torch

from irnet_hpc.errors import PeerLost, UserError
from irnet_hpc.runs.lease import LeaseLost, RunIsHeld
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.train.causes import cause_of


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), Cause.MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), Cause.MEMORY),
        (RuntimeError("CUDA error: out of memory"), Cause.MEMORY),
        (RuntimeError("CUDA error: unspecified launch failure\nSearch for"), Cause.DEVICE),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Cause.DEVICE),
        (
            RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
            Cause.DEVICE,
        ),
        (RuntimeError("CUDA error: invalid argument"), Cause.OTHER),
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


@pytest.mark.parametrize(("code", "cause"), ((719, Cause.DEVICE), (1, Cause.OTHER)))
def test_the_number_of_a_cuda_error_tells_whether_the_gpu_is_lost(code, cause):
    error = torch.AcceleratorError("CUDA error: in the words of another version")
    error.error_code = code
    wrapped = UserError("the training failed")
    wrapped.__cause__ = error
    assert cause_of(error) == cause_of(wrapped) == cause
