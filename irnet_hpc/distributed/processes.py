"""Name processes uniquely, note signals, keep freed memory and the state that a caller shares."""

import contextlib
import ctypes
import functools
import math
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# How often a waiting thread looks before it sleeps; some tens of microseconds.
SPINS = "20000"


def machine() -> str:
    """Return a name for the machine or container whose process numbers this process sees.

    If two processes see the same name, a process number means the same process for both. The name
    consists of
    the id of the kernel's boot and that of the process namespace. A host name would not do:
    containers often share one, but each numbers its own processes. Returns "" if the name is
    unknown.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def process_name(pid: int) -> str | None:
    """Return `<pid>@<start>`, which stays unique when the system reuses the process number.

    Returns None if there is no such process.
    """
    status = _state_and_start(pid)
    return status and f"{pid}@{status[1]}"


def own_start() -> float:
    """Return when this process began, in s since 1970."""
    import psutil

    return psutil.Process().create_time()


def is_alive(process: str | None) -> bool:
    """Return True if the process that `process_name` named still runs on this machine."""
    name = re.fullmatch(r"([0-9]{1,18})@([0-9]+)", process or "")
    status = _state_and_start(int(name[1])) if name else None
    if name is None or status is None:
        return False
    state, start = status
    return start == name[2] and state not in "ZX"  # zombie, dead


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """Return a process's state and its start time in ticks since the machine booted, or None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


# The signals that ask a training to stop, and the actions of each that its handler may replace:
# submitit has a handler that requeues the job, and a program may have its own. SIGINT is Ctrl-C.
# slurm/train.sh lets Python start with SIGUSR1 ignored.
STOP_SIGNALS = {
    signal.SIGTERM: (signal.SIG_DFL,),
    signal.SIGUSR1: (signal.SIG_DFL, signal.SIG_IGN),
    signal.SIGUSR2: (signal.SIG_DFL, signal.SIG_IGN),
    signal.SIGINT: (signal.default_int_handler,),
}


class StopSignals:
    """Record that this process should stop: because of SIGTERM, SIGUSR1, SIGUSR2 or the time.

    The signal handler only sets a flag; the training loop reads `asked`.

    Args:
        until: The time at which to stop without a signal, in s since 1970; see
            `slurm_commands.stop_by`.
    """

    def __init__(self, until: float = math.inf) -> None:
        self.until, self.is_told = until, False
        for number, replaceable in STOP_SIGNALS.items():
            # Only if the signal has no handler yet: submitit's own requeues the job.
            if signal.getsignal(number) in replaceable:
                with contextlib.suppress(ValueError):  # not in the main thread
                    signal.signal(number, self._note)

    @property
    def asked(self) -> bool:
        """True once a signal has come or `until` has passed."""
        return self.is_told or self.is_late

    @property
    def is_late(self) -> bool:
        """True once `until` has passed."""
        return time.time() >= self.until

    def _note(self, number: int, *_: object) -> None:
        self.is_told = True
        if number == signal.SIGINT:  # who presses Ctrl-C twice does not want to wait
            signal.signal(number, signal.default_int_handler)


def handlers_restored(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Make a command restore the signal handlers of a program that calls it with arguments.

    The process of the command itself keeps them until it exits.
    """

    @functools.wraps(main)
    def called(argv: Sequence[str] | None = None) -> int | None:
        if argv is None:
            return main()
        before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        try:
            return main(argv)
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is not handler:
                    with contextlib.suppress(ValueError):  # not in the main thread
                        signal.signal(number, handler)

    return called


class Shared:
    """A context for state of the process, which overlapping blocks of several threads share.

    The first block enters the context, and the last to end leaves it. If each block entered its
    own, the last to end would restore what the first had changed.

    Args:
        make: Makes the context.
    """

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager]) -> None:
        self._make, self._n_blocks = make, 0
        self._lock, self._entered = threading.Lock(), contextlib.ExitStack()

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """Be in the context until the block ends."""
        with self._lock:
            if not self._n_blocks:
                self._entered.enter_context(self._make())
            self._n_blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_blocks -= 1
                if not self._n_blocks:
                    self._entered.close()


@contextlib.contextmanager
def _ignored_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


no_warnings = Shared(_ignored_warnings).block  # of libraries


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the kernel.

    By default, glibc returns the memory of a layer's activations after each use, and the kernel
    maps it again in the next step: 2,500 page faults, a sixth of the time of a step.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def wait_quietly() -> None:
    """Let the threads of OpenMP soon sleep when they wait, unless the user has chosen otherwise.

    By default they spin for some ms. Beside other busy processes, a thread that spins takes a core
    from the thread that it waits for: a step of three small layers with two threads then took 315
    ms on average, with threads that sleep at once 7 ms, and with one thread 5 ms (2 cores of an AMD
    EPYC, 18 busy processes). Sleeping at once costs large networks more: IRNet-17 with two threads
    trains 4,100 rows/s so, and 6,200 if threads spin for SPINS rounds or always (batch 256, the
    same machine, idle). Call this before torch is loaded: libgomp (GCC 12 and later) reads the
    variable when it is loaded.
    """
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys()
    if not chosen:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def ignore_termination_signals() -> None:
    """Ignore SIGTERM and SIGUSR1/2 until exit, so that the launcher sees this process's own status.

    Once one rank has exited, a launcher signals the others to end (srun's --kill-on-bad-exit).
    Python restores the default handlers before it has exited, and would then die of the signal.
    Call this only in a process that has nothing left to do, because ignored signals are lost.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def leave_at_once(status: int) -> None:
    """Exit without running destructors, which could wait forever for ranks that no longer exist."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
