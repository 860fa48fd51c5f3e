"""Start the processes of a training on this machine, and read which of its ranks failed."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.sweep.cell_states import CellStatus
from irnet_hpc.sweep.jobs import outside_any_job, train_options

# The seconds that a training gets to write its checkpoint after it was told to stop.
STOP_S = 30
# How horovodrun reports the exit status of the first rank that failed (horovod/runner/gloo_run.py).
HOROVODRUN_STATUS = re.compile(r"^Exit code: (-?\d+)$", re.MULTILINE)


def train_command(
    status: CellStatus,
    n_ranks: int,
    results: Path,
    pack_dir: Path | None,
    *others: CellStatus,
) -> list[str]:
    """Return the command that trains a cell on this machine, together with `others`.

    One rank is one process. horovodrun starts several ranks over Gloo, which needs neither MPI nor
    ssh.
    """
    options = train_options(status, results, pack_dir, *others)
    command = [sys.executable, "-u", "-m", "irnet_hpc.train", *options]
    return command if n_ranks == 1 else [*horovodrun(n_ranks), *command]


def horovodrun(n_ranks: int) -> list[str]:
    """Return the prefix that starts a command on several ranks of this machine.

    Raises:
        UserError: horovodrun is not installed.
    """
    # Prefer the horovodrun of this Python environment, even if the environment is not activated.
    beside = Path(sys.executable).with_name("horovodrun")
    launcher = str(beside) if beside.exists() else shutil.which("horovodrun")
    if not launcher:
        raise UserError(
            f"{n_ranks} ranks need horovodrun, which is not installed; run env/setup.sh, "
            "or use --ranks 1"
        )
    return [launcher, "--gloo", "-np", str(n_ranks)]


@contextlib.contextmanager
def started(
    command: Sequence[str], path: Path | None = None, n_threads: int | None = None
) -> Iterator[subprocess.Popen]:
    """Start a command in its own session, and append its output to `path`.

    Because of the session, Ctrl-C reaches only this process, which then asks the command to save
    and waits up to STOP_S.
    """
    threads = {}
    if n_threads and "OMP_NUM_THREADS" not in os.environ:
        threads = {"OMP_NUM_THREADS": str(n_threads)}
    with outside_any_job(), path.open("ab") if path else contextlib.nullcontext() as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output and subprocess.STDOUT,
            env=os.environ | threads,
            start_new_session=True,
        )
    try:
        yield process
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired, ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(STOP_S)
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def status_of_first_rank(output: str) -> int | None:
    """Return the exit status of the rank that failed first; that of horovodrun is always 1."""
    statuses = HOROVODRUN_STATUS.findall(output)
    return int(statuses[-1]) if statuses else None
