"""Compute blocks in worker processes, and return the results in the order of the blocks.

A function that computes a block row by row announces each row by `at(row)`. If a row then takes too
long or crashes the library, only that row has no result: its process is killed, and the block is
computed again without the row. The process must be killed from outside, because a library may never
return to Python.

Existing pools time whole tasks from their start, and cannot do two things that we need. Time during
which the whole job is suspended must not count against a row. And a row at which a process dies
once must be tried again, since the process may have been killed for another reason.
"""

import contextlib
import ctypes
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from irnet_hpc.distributed.processes import Shared
from irnet_hpc.errors import UserError

In = TypeVar("In")
Out = TypeVar("Out")
# Row of a block that must not be computed -> reason and detail.
LeftOut = Mapping[int, tuple[str, str]]
# Blocks in flight per worker: enough that none waits, few enough that memory stays flat.
AHEAD = 2
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
TICK_S = 0.1  # seconds between two looks at workers, if rows have a limit
OUT_OF_MEMORY = 77  # exit status of a worker that Python had no memory for

# In a worker, shared with the parent: the high half counts the calls of at(), the low half is the
# row + 1.
_place: Any = None


def available_cores() -> int:
    """Return the number of cores that this process may run on.

    Under SLURM or in a container, it may be smaller than the number of cores of the machine.
    """
    return len(os.sched_getaffinity(0))


def at(row: int | None) -> None:
    """Announce the row that this worker is about to compute, which restarts the row's clock.

    Slow imports should be done before the first row is announced. Outside a worker this does
    nothing.

    Args:
        row: The number of the row, counted without the rows that are left out. None: the work that
            follows belongs to no row and has no time limit.
    """
    if _place is not None:
        n_calls = ((_place.value >> 32) + 1) % 2**31
        # A single store, so that the parent never sees half of it.
        _place.value = n_calls << 32 | (0 if row is None else row + 1)


@dataclasses.dataclass
class _Task:
    """A block to compute, and the rows at which earlier tries failed."""

    number: int
    block: Any
    left_out: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    suspects: set[int] = dataclasses.field(default_factory=set)  # rows at which a process died once


@dataclasses.dataclass
class _Worker:
    """A worker process and the task that it is computing."""

    process: multiprocessing.process.BaseProcess
    pipe: multiprocessing.connection.Connection
    place: Any
    task: _Task | None = None
    seen: int = 0  # the place at the last look
    spent_s: float = 0.0  # at that place


def in_order(
    function: Callable[[In, LeftOut], Out],
    blocks: Iterable[In],
    workers: int,
    limit_s: float | None = None,
) -> Iterator[Out]:
    """Compute every block, and yield the results in the order of the blocks.

    Processes are started afresh (spawned), not forked: in a forked process, a lock that another
    thread held would stay locked.

    Args:
        function: Called as `function(block, left_out)`. It must be pure, and must not compute the
            rows in `left_out`, which maps rows to (reason, detail).
        blocks: The blocks. They are read from the iterable only when they are needed.
        workers: The number of processes. If it is at most 1 and there is no `limit_s`, this process
            computes the blocks itself.
        limit_s: The time that a row may take, in seconds. A row that takes longer is left out, and
            so is a row at which a process has died twice: the function is called again for the
            block, with this row in `left_out`.

    Raises:
        UserError: If a process dies that has not announced a row.
    """
    if workers <= 1 and limit_s is None:
        yield from (function(block, {}) for block in blocks)
        return
    crew: list[_Worker] = []
    new = (_Task(number, block) for number, block in enumerate(blocks))
    again: deque[_Task] = deque()
    results: dict[int, Out] = {}
    n_taken = n_yielded = 0
    try:
        while True:
            while again or n_taken < n_yielded + AHEAD * workers:
                worker = next((worker for worker in crew if worker.task is None), None)
                if worker is None and len(crew) == workers:
                    break
                task = again.popleft() if again else next(new, None)
                if task is None:
                    break
                n_taken = max(n_taken, task.number + 1)
                if worker is None:
                    crew.append(worker := _start(function))
                _give(worker, task)
            if n_yielded in results:
                yield results.pop(n_yielded)
                n_yielded += 1
            elif busy := [worker for worker in crew if worker.task]:
                for worker in _stopped_or_finished(busy, limit_s):
                    assert worker.task is not None
                    task, worker.task = worker.task, None
                    try:
                        results[task.number], error = worker.pipe.recv()
                    except (EOFError, OSError):
                        crew.remove(worker)
                        _blame(worker, task, limit_s)
                        again.append(task)
                        continue
                    if error is not None:
                        raise error
            else:
                return
    finally:
        for worker in crew:  # the function is pure: nothing is lost
            worker.process.kill()
            worker.process.join()


@contextlib.contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Let processes that start have one thread each, since the processes are the parallelism."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_one_thread_each = Shared(_environment_of_workers)


def _start(function: Callable) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    place = context.RawValue(ctypes.c_int64, 0)
    process = context.Process(target=_work, args=(function, theirs, place), daemon=True)
    with _one_thread_each.block():
        process.start()
    theirs.close()  # so that the pipe ends with the process
    return _Worker(process, ours, place)


def _give(worker: _Worker, task: _Task) -> None:
    worker.task, worker.seen, worker.spent_s = task, worker.place.value, 0.0
    with contextlib.suppress(OSError):  # it died while it had nothing to do, and will be found dead
        worker.pipe.send((task.block, task.left_out))


def _stopped_or_finished(busy: list[_Worker], limit_s: float | None) -> list[_Worker]:
    """Wait for workers that have a result or have died, and kill those whose row is out of time.

    If the whole job is suspended, this process stops too, and the time does not count against a
    row.
    """
    by_pipe: dict[Any, _Worker] = {worker.pipe: worker for worker in busy}
    began = time.monotonic()
    found = multiprocessing.connection.wait(by_pipe, None if limit_s is None else TICK_S)
    waited_s = min(time.monotonic() - began, 2 * TICK_S)
    for worker in busy if limit_s is not None else []:
        if worker.place.value != worker.seen:
            worker.seen, worker.spent_s = worker.place.value, 0.0
        elif worker.pipe not in found and _row(worker) is not None:
            worker.spent_s += waited_s
            if limit_s is not None and worker.spent_s > limit_s:
                worker.process.kill()
    return [by_pipe[pipe] for pipe in found]


def _row(worker: _Worker) -> int | None:
    row = (worker.place.value & 0xFFFFFFFF) - 1
    return None if row < 0 else row


def _blame(worker: _Worker, task: _Task, limit_s: float | None) -> None:
    """Find the row at which a process died, and leave it out if it took too long or died twice.

    The row is added to `task.suspects` or `task.left_out`.

    Raises:
        UserError: If the process had not announced a row.
    """
    worker.process.join()
    row = _row(worker)
    if row is None:
        raise UserError(
            "a worker process died, perhaps because memory ran out; try fewer --workers"
        )
    for other in sorted(task.left_out):  # rows that were left out did not count
        row += other <= row
    late = limit_s is not None and worker.spent_s > limit_s
    if late and worker.place.value == worker.seen:
        task.left_out[row] = f"time limit of {limit_s:g} s", ""
    elif late:
        pass  # it was done with the row just before it was killed
    elif row not in task.suspects:
        task.suspects.add(row)
    elif worker.process.exitcode == -signal.SIGKILL or worker.process.exitcode == OUT_OF_MEMORY:
        task.left_out[row] = "process killed, perhaps because memory ran out", ""
    else:
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        task.left_out[row] = "crash of the process that computed it", how


def _work(function: Callable, pipe: multiprocessing.connection.Connection, place: Any) -> None:
    """Run the main loop of a worker: compute the blocks that the parent sends, until it is gone."""
    global _place
    _die_with_parent()
    _place = place
    while True:
        try:
            block, left_out = pipe.recv()
        except EOFError:
            return
        outcome: tuple[Any, Exception | None]
        try:
            outcome = function(block, left_out), None
        except MemoryError:
            os._exit(OUT_OF_MEMORY)  # as if the kernel had found out first
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            outcome = None, error
        at(None)
        pipe.send(outcome)


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends.

    Otherwise a process whose library never returns to Python would outlive its parent. Ctrl-C is
    sent to all processes of a terminal; the parent handles it, and the workers ignore it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    PR_SET_PDEATHSIG = 1  # prctl(2)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None or os.getppid() != parent.pid:  # it was killed before
        os._exit(1)
