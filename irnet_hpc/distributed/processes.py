"""Name processes so that a reused number is not mistaken, note signals, and keep freed memory."""

import contextlib
import ctypes
import math
import re
import signal
import time
from pathlib import Path


def machine() -> str:
    """Name the machine or container in which process numbers mean the same as here; empty: unknown.

    The name combines the boot of this kernel with the set of processes visible to us. The host's
    name would not be enough: containers often share it, but number their processes separately.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def process_name(pid: int) -> str | None:
    """Name a process in a way that survives the reuse of its number: `<pid>@<start>`.

    None if there is no such process.
    """
    status = _state_and_start(pid)
    return status and f"{pid}@{status[1]}"


def is_alive(process: str | None) -> bool:
    """Return True if a process of this machine, named by `process_name`, still runs."""
    name = re.fullmatch(r"([0-9]{1,18})@([0-9]+)", process or "")
    status = _state_and_start(int(name[1])) if name else None
    if name is None or status is None:
        return False
    state, start = status
    return start == name[2] and state not in "ZX"  # zombie, dead


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """Return a process's state and its start time, in ticks since the machine booted."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


class StopSignals:
    """Note that SIGTERM, SIGUSR1 or SIGUSR2, or the clock, asks this process to stop.

    The handler only notes the signal; the training loop looks at `asked`.

    Args:
        until: When to stop without a signal, in s since 1970, see `slurm.stop_by`.
    """

    def __init__(self, until: float = math.inf) -> None:
        self.until, self.is_told = until, False
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            # Only if the signal has no handler yet: submitit's own requeues the job.
            if signal.getsignal(number) == signal.SIG_DFL:
                with contextlib.suppress(ValueError):  # not in the main thread
                    signal.signal(number, self._note)

    @property
    def asked(self) -> bool:
        """True once the process should stop."""
        return self.is_told or self.is_late

    @property
    def is_late(self) -> bool:
        """True once `until` has passed."""
        return time.time() >= self.until

    def _note(self, *_: object) -> None:
        self.is_told = True


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the kernel.

    A layer's activations are just large enough to be given back and faulted in again every step:
    2,500 page faults, a sixth of its time.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def ignore_termination_signals() -> None:
    """Ignore SIGTERM and SIGUSR1/2 until exit, so that our own status is reported.

    Once one rank has exited, a launcher ends the others (srun's --kill-on-bad-exit), and Python
    restores the default handlers before it has finished. Call this only in a process that has
    nothing left to do, because blocked signals are lost.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
