"""Stop a training from outside: by signals, or before the end of its job.

Who asks. SLURM sends SIGUSR1 or SIGUSR2 some minutes before a job's time is up, and SIGTERM when
the job is preempted; a user sends SIGTERM or Ctrl-C. Some SLURM installations send no signal, so
rank 0 also watches the clock and stops a minute before its job ends. SIGNAL_LEAD_S and
CLOCK_MARGIN_S in distributed/slurm_commands.py, and `--signal` in slurm/train.sh, state these
times.

What a handler does. A handler never saves anything itself, since it may run between any two
bytecodes, while a file is half written or a collective is under way. For networks it sets a flag
(StopSignals), which the loop reads once per step. The flag is sent with the gradients, so all ranks
learn of it in the same step, save one checkpoint and return. A fit of a classical model is one call
of a library, which cannot read a flag. So there the handler raises Stopped, which ends the fit as
soon as the library returns to Python. Stopped is a BaseException, so that no library catches it as
an ordinary error. Python ignores an exception that is raised while a finalizer runs, and so do
some functions of compiled libraries, so the handler runs again every second until Stopped has left
the block. While it may be raised, we write files only by renaming.

Whose handlers. We handle only signals that have the default action, since submitit has a handler
that requeues the job, and a program that calls this package may have its own. Handlers are set
after the data is loaded; sweep/jobs.py holds signals back until it sees these handlers. A library
call (`train_model`, IRNetRegressor) sets no handlers: TrainOptions.stop_on_signals is False.

Threads. Python runs handlers only in the main thread, and only that thread may set them. So in any
other thread only the clock can stop a training.
"""

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from typing import Protocol

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.distributed.job_end import end_of_job
from irnet_hpc.distributed.processes import STOP_SIGNALS, StopSignals
from irnet_hpc.distributed.slurm_commands import stop_by
from irnet_hpc.train.run import TrainOptions

RAISE_AGAIN_S = 1.0


class StopRequest(Protocol):
    """A request to stop the training, which the loop checks once per step."""

    @property
    def asked(self) -> bool:
        """True if the training must save and stop now."""

    @property
    def is_late(self) -> bool:
        """True if the end of the job is the reason."""


class NeverStop:
    """The stop request of a library call, which never asks to stop."""

    asked = False
    is_late = False


class Stopped(BaseException):
    """The exception by which a signal or the clock ends a fit; libraries do not catch it."""


def stop_request(options: TrainOptions, comm: Comm) -> StopRequest:
    """Watch for signals and, on rank 0, for the end of the job, if the options say so."""
    if not options.stop_on_signals:
        return NeverStop()
    return StopSignals(job_end() if comm.rank == 0 else math.inf)


def job_end() -> float:
    """Return when to stop because this job ends, in s since 1970; infinity means never."""
    return stop_by(end_of_job())


@contextlib.contextmanager
def stopped_by_exception(options: TrainOptions) -> Iterator[float]:
    """Raise Stopped inside the block at a signal or shortly before the end of the job.

    Yields:
        The time at which the clock raises Stopped, in s since 1970; infinity if it never does.
    """
    if not options.stop_on_signals:
        yield math.inf
        return

    until, before = job_end(), {}

    def stop(*_: object) -> None:
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN_S)
        raise Stopped

    for number, replaceable in {**STOP_SIGNALS, signal.SIGALRM: (signal.SIG_DFL,)}.items():
        if signal.getsignal(number) in replaceable:
            with contextlib.suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, stop)
    if signal.SIGALRM in before and until < math.inf:
        signal.setitimer(signal.ITIMER_REAL, max(0.001, until - time.time()))
    try:
        yield until
    finally:
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
