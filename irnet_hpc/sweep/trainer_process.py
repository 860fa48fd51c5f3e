"""Start the processes of a worker: a warm one for cells of one rank, a new one for each other cell.

The warm process is `irnet_hpc.train.trainer`. A worker's processes are bound to its cores, see its
GPUs only, and do not see the launcher that started the worker: 32 workers under srun are 32
workers, and not the ranks of one training.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.job_end import SCHEDULERS
from irnet_hpc.distributed.processes import process_name
from irnet_hpc.sweep.jobs import outside_any_job
from irnet_hpc.sweep.places import Place

# What tells a training its job, its end and its memory, and nothing of the ranks of a step.
KEPT = (
    *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"),
    *("SLURM_JOB_END_TIME", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"),
)
# They would ask PBS or LSF again for the end that this process knows, and horovodrun would take the
# job for its own.
NOT_FOR_TRAININGS = (*SCHEDULERS, "LSB_JOBINDEX")
# Processes inherit the environment and the cores, which belong to the whole process or thread.
_starting = threading.Lock()


def is_of_trainer(command: Sequence[str]) -> bool:
    """Return True if a command is a training of one rank, which a warm process can carry out."""
    return list(command[:4]) == [sys.executable, "-u", "-m", "irnet_hpc.train"]


class WorkerProcess:
    """The processes of one worker, at most one of which trains at a time.

    Args:
        place: The place of the worker.
        n_workers: The number of workers on this machine, which share its memory.
        end: When the job of this process ends, in s since 1970; None if it has no end.
    """

    def __init__(self, place: Place, n_workers: int, end: float | None = None) -> None:
        self.place, self.n_workers, self.end = place, n_workers, end
        self._warm: subprocess.Popen | None = None
        # The process that trains now.
        self._busy: subprocess.Popen | None = None
        # What the warm process has loaded: the pack of its last cell.
        self.pack: str | None = None

    def start(
        self, command: Sequence[str], log: Path, n_threads: int, places: Sequence[Place] = ()
    ) -> str | None:
        """Start a training, and return the name of its process.

        Args:
            command: The command that trains.
            log: The file to which the output is appended.
            n_threads: The number of threads of each rank.
            places: The places of a training of several ranks; empty: that of this worker.
        """
        if not is_of_trainer(command):
            with log.open("ab") as output:
                self._busy = self._new(command, n_threads, places, subprocess.DEVNULL, output)
            return process_name(self._busy.pid)
        if self._warm is None:
            trainer = [sys.executable, "-u", "-m", "irnet_hpc.train.trainer"]
            pipe = subprocess.PIPE
            self._warm = self._new(trainer, n_threads, (self.place,), pipe, pipe)
        self._busy = self._warm
        # The variables of a launcher may be incomplete here, and so without meaning.
        options = [*command[4:], "--engine", "none"]
        order = {"options": options, "log": str(log), "threads": n_threads}
        assert self._warm.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `wait` says how it ended
            self._warm.stdin.write(f"{json.dumps(order)}\n".encode())
            self._warm.stdin.flush()
        return process_name(self._warm.pid)

    def wait(self) -> int:
        """Wait for the training, and return its exit status, negative for a signal."""
        process = self._busy
        assert process is not None
        if process is not self._warm:
            try:
                return process.wait()
            finally:
                self._busy = None
        assert process.stdout is not None
        line = process.stdout.readline()
        self._busy = None
        try:
            status = int(json.loads(line)["status"])
        except (ValueError, KeyError, TypeError):
            # It has died, or is dying.
            self._drop_warm()
            return process.wait()
        if status == ExitStatus.FAILED:
            # An error that nobody foresaw may have left anything behind.
            self.close()
        return status

    def held_gb(self) -> float:
        """Return the memory (GiB) that the warm process holds; 0 if there is none."""
        if self._warm is None:
            return 0.0
        import psutil

        with contextlib.suppress(psutil.Error):
            return psutil.Process(self._warm.pid).memory_info().rss / 2**30
        return 0.0

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the process that trains and to all that it has started."""
        for process in {self._busy, self._warm}:
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

    def let_go(self) -> None:
        """Ask the warm process to end when it has nothing to train."""
        if self._warm is not None and self._warm.stdin is not None:
            with contextlib.suppress(OSError):
                self._warm.stdin.close()

    def close(self) -> None:
        """End the warm process, which is not training."""
        if self._warm is None:
            return
        process = self._warm
        self._drop_warm()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _drop_warm(self) -> None:
        process, self._warm, self.pack = self._warm, None, None
        for stream in (process.stdin, process.stdout) if process else ():
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def _new(
        self,
        command: Sequence[str],
        n_threads: int,
        places: Sequence[Place],
        stdin: int,
        stdout: int | IO[bytes],
    ) -> subprocess.Popen:
        """Start a process in a session of its own, so that Ctrl-C does not reach it."""
        is_warm, places = stdin == subprocess.PIPE, places or (self.place,)
        names = (*KEPT, "CUDA_VISIBLE_DEVICES") if is_warm else ("CUDA_VISIBLE_DEVICES",)
        kept = {name: os.environ[name] for name in names if name in os.environ}
        if self.end is not None:
            kept["SLURM_JOB_END_TIME"] = f"{self.end:.0f}"
        gpus = [place.gpus for place in places if place.gpus is not None]
        if len(gpus) == len(places):
            kept["CUDA_VISIBLE_DEVICES"] = ",".join(filter(None, gpus))
        if self.n_workers > 1:
            kept["IRNET_WORKERS"] = str(self.n_workers)
        with _starting, _on_cores(places), outside_any_job():
            inherited = {k: v for k, v in os.environ.items() if k not in NOT_FOR_TRAININGS}
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=None if is_warm else subprocess.STDOUT,
                env={"OMP_NUM_THREADS": str(n_threads)} | inherited | kept,
                start_new_session=True,
            )


@contextlib.contextmanager
def _on_cores(places: Sequence[Place]) -> Iterator[None]:
    """Bind this thread, and the processes that it starts meanwhile, to the cores of places."""
    if any(place.cores is None for place in places):
        yield
        return
    cores = [core for place in places for core in place.cores or ()]
    # Linux binds only the calling thread if the number of the process is 0 (sched_setaffinity(2)).
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
