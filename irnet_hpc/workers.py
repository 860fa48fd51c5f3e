"""Worker processes: a pure function over blocks, results in the order of the blocks, whatever the number of workers."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from irnet_hpc.errors import UserError

In, Out = TypeVar("In"), TypeVar("Out")
AHEAD = 2  # blocks a worker in flight: enough that none waits, few enough that memory stays flat
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def available_cores() -> int:
    """The cores this process may run on; under SLURM or in a container fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def in_order(function: Callable[[In], Out], blocks: Iterable[In], workers: int) -> Iterator[Out]:
    """`map(function, blocks)` by that many processes. Raises UserError where one dies.

    Processes are spawned, not forked: a fork would copy the locks of threads that it does not have.
    """
    if workers <= 1:
        yield from map(function, blocks)
        return
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # the processes are the parallelism
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _die_with_parent)
    pending = deque()
    try:
        for block in blocks:
            pending.append(pool.submit(function, block))
            if len(pending) >= AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise UserError("a worker process died, perhaps for want of memory; try fewer --workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for ever: it holds both ends of the pipe it waits at.

    Ctrl-C reaches all processes of a terminal; the parent answers it, and the workers need not complain as well.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
