"""What a training does to its own process: signals that ask it to stop are noted, and freed memory is kept."""

import contextlib
import ctypes
import signal


class StopSignals:
    """Whether SIGTERM, SIGUSR1 or SIGUSR2 has asked this process to stop. The handler only notes it; the loop looks."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            # Only where nobody else handles it: submitit's own handler requeues the job.
            if signal.getsignal(number) == signal.SIG_DFL:
                with contextlib.suppress(ValueError):  # not in the main thread
                    signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.asked = True


def keep_freed_memory() -> None:
    """Have glibc keep what is freed instead of giving it back to the kernel, only to fault it in again every step.

    A layer's activations are just large enough for that: 2,500 page faults a step, a sixth of its time.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)
