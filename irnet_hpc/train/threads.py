"""Train networks on a CPU with as many threads as pay."""

import contextlib
from collections.abc import Iterator

import torch

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.distributed.launch import stated_threads
from irnet_hpc.models.threads import threads_that_pay
from irnet_hpc.train.stack import Replica


def threads_of(replica: Replica, comm: Comm, device: torch.device) -> int:
    """Return the number of threads that each rank trains a network with.

    It is the user's number if there is one (OMP_NUM_THREADS). It does not depend on the number of
    replicas in a stack, which changes while the stack trains.
    """
    n_threads = torch.get_num_threads()
    if device.type != "cpu" or stated_threads() is not None:
        return n_threads
    return threads_that_pay(replica.layers, replica.recipe.batch // comm.size, n_threads)


@contextlib.contextmanager
def with_threads(n_threads: int) -> Iterator[None]:
    """Let torch compute with so many threads until the block ends."""
    before = torch.get_num_threads()
    if n_threads == before:
        yield
        return
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
