"""Train networks on a CPU with as many threads as pay."""

import contextlib
import os
from collections.abc import Iterator

import torch

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.distributed.launch import stated_threads
from irnet_hpc.models.threads import threads_that_pay
from irnet_hpc.train.stack import Replica

# The seconds for which the cores are watched before a training with several threads.
WATCHED_S = 0.3
# A core that was busy for more than this share of that time, in %, is not free.
BUSY = 50.0


def threads_of(replica: Replica, comm: Comm, device: torch.device) -> int:
    """Return the number of threads that each rank trains a network with.

    It is the user's number if there is one (OMP_NUM_THREADS). Else it is that of an earlier attempt
    at the run; in the first one, no more than there are free cores: threads that share a core wait
    for each other at every layer. It does not depend on the number of replicas in a stack, which
    changes while the stack trains.
    """
    n_threads = torch.get_num_threads()
    if device.type != "cpu" or stated_threads() is not None:
        return n_threads
    n_threads = threads_that_pay(replica.layers, replica.recipe.batch // comm.size, n_threads)
    if n_threads == 1 or comm.size > 1:  # to each rank, the others would look busy
        return n_threads
    for attempt in reversed(replica.run.folder.earlier_attempts(replica.run.key)):
        before = attempt.get("threads")
        if isinstance(before, int) and before >= 1:
            return min(n_threads, before)
    return min(n_threads, n_free_cores())


def n_free_cores() -> int:
    """Count those cores of this process that have nothing else to do now; at least 1.

    The load average would not do: it is of the last minute, and of all cores of the machine.
    """
    import psutil

    busy = psutil.cpu_percent(WATCHED_S, percpu=True)
    # psutil lists the cores in the order of their numbers, from 0 on.
    own = [busy[core] for core in os.sched_getaffinity(0) if core < len(busy)]
    return max(1, sum(percent <= BUSY for percent in own))


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
