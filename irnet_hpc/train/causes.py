"""Classify the exception that ended a training, for error.json and for retries by a sweep."""

import re

from irnet_hpc.errors import PeerLost
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.state_names import Cause

# Libraries, such as torch, report a lack of memory by exceptions of general types.
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|unable to allocate", re.IGNORECASE)
# The errors of CUDA (enum cudaError of the runtime API of CUDA 12 and 13) after which a process can
# use its GPU no more: no GPU, a busy one, memory or a link that failed, and kernels that were cut
# short. A fault of the program can cause the last kind, too. torch 2.13 raises them as
# torch.AcceleratorError with the number as `error_code`; torch 2.5 as RuntimeError with the text.
LOST_GPU_CODES = {
    *(46, 100, 101, 214, 220, 802, 999),
    *(700, 702, 710, 714, 715, 716, 717, 718, 719),
}
LOST_GPU = re.compile(
    r"CUDA error: (.*busy or unavailable|no CUDA-capable device|invalid device ordinal"
    r"|uncorrectable|system not yet initialized|unknown error|an illegal memory access"
    r"|the launch timed out|device-side assert|hardware stack error|an illegal instruction"
    r"|misaligned address|operation not supported on global|invalid program counter"
    r"|unspecified launch failure)"
)


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
    if getattr(error, "error_code", None) in LOST_GPU_CODES or (
        not is_ours and LOST_GPU.match(str(error))
    ):
        return Cause.DEVICE
    return cause_of(error.__cause__)
