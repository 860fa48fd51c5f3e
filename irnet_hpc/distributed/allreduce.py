"""Sum gradients and a few other numbers over the ranks: the only allreduce of a training step.

The recipe's `allreduce` states the format in which gradients are sent. `full` sends them as they
are. `bf16` sends half as many bytes, which is faster if the network is slower than memory. None of
the libraries below Horovod sums bf16 for torch (0.28.1: "Tensor type torch.BFloat16Tensor is not
supported"). Some sum fp16, but its largest number is 65,504, and it is coarse below 6e-5, where
gradients are.

So this module computes the sum itself: the ranks exchange slices of bf16, each rank adds up its
slice in fp32, and all ranks collect the sums. Any allreduce of large messages consists of these two
steps (reduce-scatter, then allgather: Thakur et al. 2005, section 4.5), so no more bytes are sent
than in a native one. Every number is rounded twice, instead of at every rank it passes, and all
engines give the same bits.
"""

import torch
from torch import Tensor

from irnet_hpc.distributed.engines import Comm


def sum_step(comm: Comm, reduced: Tensor, n_exact: int, wire: str) -> Tensor:
    """Sum a vector over the ranks, in place.

    Args:
        comm: The ranks. A single rank sends nothing, so nothing is rounded.
        reduced: The numbers (n,), fp32 if `wire` is `bf16`.
        n_exact: The number of values at the end of `reduced` that are summed exactly, even if
            `wire` is `bf16`.
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
