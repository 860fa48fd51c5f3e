"""Processes: names that outlive their numbers, and what a training does to its own (signals noted, freed memory kept)."""

import contextlib
import ctypes
import math
import re
import signal
import time
from pathlib import Path


def machine() -> str:
    """Where numbers of processes mean the same as here: this boot of this kernel, and the processes that we can see.

    Not the host's name: containers often share one, and then see other processes under the same numbers.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def process_name(pid: int) -> str | None:
    """A process in a way that survives the reuse of its number: `<pid>@<start>`; None if there is no such process."""
    found = _state_and_start(pid)
    return found and f"{pid}@{found[1]}"


def is_alive(process: str | None) -> bool:
    """Whether a process of this machine, as named by process_name(), still runs; not where that is no such name."""
    named = re.fullmatch(r"([0-9]{1,18})@([0-9]+)", process or "")
    found = named and _state_and_start(int(named[1]))
    return bool(found) and found[1] == named[2] and found[0] not in "ZX"  # zombie, dead


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """A process's state and when it started, in ticks since the machine did."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


class StopSignals:
    """Whether SIGTERM, SIGUSR1 or SIGUSR2 has asked this process to stop, or the clock has. A handler only notes it; the loop looks.

    `until`: when to stop unasked, in s since the epoch (deadline.py).
    """

    def __init__(self, until: float = math.inf) -> None:
        self.until, self.is_told = until, False
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            # Only where nobody else handles it: submitit's own handler requeues the job.
            if signal.getsignal(number) == signal.SIG_DFL:
                with contextlib.suppress(ValueError):  # not in the main thread
                    signal.signal(number, self._note)

    @property
    def asked(self) -> bool:
        return self.is_told or self.is_late

    @property
    def is_late(self) -> bool:
        return time.time() >= self.until

    def _note(self, *_: object) -> None:
        self.is_told = True


def keep_freed_memory() -> None:
    """Have glibc keep what is freed instead of giving it back to the kernel, only to fault it in again every step.

    A layer's activations are just large enough for that: 2,500 page faults a step, a sixth of its time.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def heed_no_signals() -> None:
    """Leave with one's own status: a launcher ends all ranks when the first has left with one (srun's --kill-on-bad-exit), and
    Python, which gives up its handlers before it has ended, would die of that and give another. For a process that has nothing
    more to do: signals that are held back are forgotten."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
