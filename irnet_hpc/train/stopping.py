"""Stop a training from outside: by signals, or before the end of a SLURM job.

Who asks. SLURM sends SIGUSR1 or SIGUSR2 some minutes before a job's time is up, and SIGTERM when it
is preempted; a user sends SIGTERM. The clock asks too: some SLURMs send nothing, so one rank knows
when its job ends and stops a minute before. How long before is SIGNAL_LEAD_S and CLOCK_MARGIN_S in
distributed/slurm_commands.py, and `--signal` in slurm/train.sh.

What a handler does. It never saves anything itself, since it may run between any two bytecodes,
while a file is half written or a collective is under way. For networks it sets a flag
(StopSignals), which the loop reads once a step. The flag travels with the gradients, so all ranks
learn of it in the same step, save one checkpoint and return. For classical models there is no loop
of ours to read a flag, since a fit is one call of a library. There the handler raises Stopped,
which ends the fit as soon as the library is back in Python. Stopped is a BaseException, so that no
library catches it as an error of its own. While it may be raised, files of ours are written by
rename only.

Whose handlers. Only signals with the default action are handled: submitit has a handler that
requeues the job, and a program that calls this package has its own. Handlers are set once the data
is loaded, because sweep/jobs.py holds signals back until it sees them. A library call
(`train_model`, IRNetRegressor) sets none at all: TrainOptions.stop_on_signals is False.

Threads. Python runs handlers in the main thread only, and lets only that thread set them. In any
other thread a training is therefore stopped by the clock alone.
"""

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from typing import Protocol

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.distributed.processes import StopSignals
from irnet_hpc.distributed.slurm_commands import end_of_job, stop_by
from irnet_hpc.train.run import TrainOptions

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest(Protocol):
    """A request to stop, which the loop looks at once per step."""

    @property
    def asked(self) -> bool:
        """True if the training is to save and stop now."""

    @property
    def is_late(self) -> bool:
        """True if the end of the job is the reason."""


class NeverStop:
    """The stop request of a library call, which never asks to stop."""

    asked = False
    is_late = False


class Stopped(BaseException):
    """A signal or the clock ends a fit. It is no Exception, lest a library catch it."""


def stop_request(options: TrainOptions, comm: Comm) -> StopRequest:
    """Start to listen for signals and the clock, if the options say so; rank 0's clock decides."""
    if not options.stop_on_signals:
        return NeverStop()
    return StopSignals(job_end() if comm.rank == 0 else math.inf)


def job_end() -> float:
    """Return when to stop for the end of this SLURM job, in s since the epoch; else infinity."""
    return stop_by(end_of_job())


@contextlib.contextmanager
def stopped_by_exception(options: TrainOptions) -> Iterator[float]:
    """Raise Stopped inside the block at a signal or shortly before the end of the job.

    Yields:
        The time at which the clock will raise it, in s since the epoch; infinity without an end.
    """
    if not options.stop_on_signals:
        yield math.inf
        return

    def stop(*_: object) -> None:
        raise Stopped

    until, before = job_end(), {}
    for number in (*SIGNALS, signal.SIGALRM):
        if signal.getsignal(number) == signal.SIG_DFL:
            with contextlib.suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, stop)
    is_timed = signal.SIGALRM in before and until < math.inf
    if is_timed:
        signal.setitimer(signal.ITIMER_REAL, max(0.001, until - time.time()))
    try:
        yield until
    finally:
        if is_timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
