"""Sum gradients and a few other numbers over the ranks, in the only allreduce of a step.

The recipe's `allreduce` states how the gradients travel. `full` sends them as they are. `bf16`
halves the bytes, which pays where the network is slower than memory. No engine below Horovod sums
bf16 for torch (0.28.1: "Tensor type torch.BFloat16Tensor is not supported"), and fp16, which some
do, ends at 65,504 and is coarse below 6e-5, where gradients are. So the sum is ours: the ranks
exchange slices of bf16, each adds up its own in fp32, and all collect the sums. These are the two
halves of any allreduce of large messages (Thakur et al. 2005, section 4.5: reduce-scatter, then
allgather), so no more bytes travel than in a native one. Every number is rounded twice, instead of
once per rank that it passes, and all engines give the same bits.
"""

import torch
from torch import Tensor

from irnet_hpc.distributed.engines import Comm


def sum_step(comm: Comm, reduced: Tensor, n_exact: int, wire: str) -> Tensor:
    """Sum a vector over the ranks, in place.

    Args:
        comm: The ranks. A single rank sends nothing, so nothing is rounded.
        reduced: The numbers (n,), fp32 if `wire` is `bf16`.
        n_exact: How many of the last numbers are summed exactly, however the rest is sent.
        wire: `full` or `bf16`.

    Returns:
        `reduced`.
    """
    if wire == "full" or comm.size == 1:
        return comm.sum_(reduced)
    assert reduced.dtype == torch.float32
    n, size = reduced.numel() - n_exact, comm.size
    # Length of each rank's slice in pairs of bf16, which travel as int32: not all engines move
    # bf16.
    width = -(-n // (2 * size))
    sent = reduced.new_zeros(2 * size * width, dtype=torch.bfloat16)
    sent[:n] = reduced[:n]
    received = comm.exchange(sent.view(torch.int32).view(size, width))
    own = received.view(torch.bfloat16).float().sum(0).bfloat16()
    # Numbers that must be exact travel in the second message as fp32 bits, one copy from each rank.
    # Every rank adds up the copies in the same way.
    message = torch.cat([own.view(torch.int32), reduced[n:].view(torch.int32)])
    sums, exact = comm.collect(message).split([width, n_exact], 1)
    reduced[:n] = sums.contiguous().view(torch.bfloat16).view(-1)[:n]
    reduced[n:] = exact.contiguous().view(torch.float32).sum(0)
    return reduced
