"""Train one cell after the other in one process, as a sweep asks.

    python -u -m irnet_hpc.train.trainer

A sweep starts this process, writes one line of JSON for each training to its standard input, and
reads one line from its standard output when the training has ended:

    {"options": [...], "log": "train.log", "threads": 1}     ->     {"status": 0}

`options` are those of `python -m irnet_hpc.train`, `log` is the file to which the training's output
is appended, and `status` is the exit status that the command would have. The libraries, the
device's context and the rows of the last pack stay loaded from one training to the next; all else
is as in a new process, and so are all numbers. If the sweep ends, this process ends, too: the
training that is under way saves a checkpoint first.
"""

import contextlib
import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import IO

from irnet_hpc.console import ExitStatus, exit_status
from irnet_hpc.distributed.processes import wait_quietly

# The seconds that a training gets to save when its sweep is gone.
SAVE_S = 20.0
# The number of libraries that the garbage collector passes over.
_n_modules = 0


def main() -> int:
    """Train what the lines on standard input ask for, until there are no more."""
    wait_quietly()
    asked, answers = _own_streams()
    orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    trains = threading.Event()

    def read() -> None:
        for line in asked:
            orders.put(line)
        orders.put(None)
        if trains.is_set():  # the sweep is gone
            os.kill(os.getpid(), signal.SIGTERM)
            # A library may not return to Python for long, and the cell must become free.
            time.sleep(SAVE_S)
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=read, daemon=True).start()
    while (line := orders.get()) is not None:
        order = json.loads(line)
        trains.set()
        with _output_to(Path(order["log"])):
            status = train(order["options"], order["threads"])
        trains.clear()
        with contextlib.suppress(BrokenPipeError):
            answers.write(f"{json.dumps({'status': status})}\n")
            answers.flush()
        tidy_up()
    return ExitStatus.OK


def train(options: list[str], n_threads: int) -> int:
    """Run `train` with these options in this process, and return its exit status.

    Args:
        options: The options of the command.
        n_threads: The number of threads of torch and of the classical models.
    """
    # This number counts where the command decides on its threads (launch.n_threads).
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    try:
        with warnings.catch_warnings():  # a warning is shown once in each training
            # Imported here, so that the first log says it if the libraries cannot be loaded.
            from irnet_hpc.train import cli, kept_rows

            kept_rows.keep_rows()
            _forget_peaks()
            return exit_status(lambda: cli.main(options))
    except SystemExit as ended:  # argparse
        return ended.code if isinstance(ended.code, int) else ExitStatus.FAILED
    except BaseException:
        traceback.print_exc()
        return ExitStatus.FAILED


def tidy_up() -> None:
    """Return the memory of the last training; only the rows of its pack are kept.

    torch's optimisers contain references to themselves, so only the garbage collector frees them.
    It need not look at the libraries again and again: that took longer than the start of a small
    cell.
    """
    global _n_modules
    gc.collect()
    if len(sys.modules) > _n_modules:
        _n_modules = len(sys.modules)
        gc.freeze()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # the device is lost; the next training says so
            torch.cuda.empty_cache()


def _forget_peaks() -> None:
    """Let the peaks of memory that a result states be those of the next training alone.

    Linux sets a process's peak (VmHWM) to its present size if 5 is written to clear_refs (proc(5)).
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):
            torch.cuda.reset_peak_memory_stats()


def _own_streams() -> tuple[IO[str], IO[str]]:
    """Move the pipes of the sweep away from the standard streams, which trainings may use."""
    asked = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return asked, answers


@contextlib.contextmanager
def _output_to(log: Path):
    """Append all output of this process to a log, also that of libraries in C."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), before, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(exit_status(main))
