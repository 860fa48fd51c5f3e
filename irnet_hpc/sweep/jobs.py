"""Build the command lines that a sweep starts, their environment, and the jobs for submitit."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.console import ExitStatus, exit_status
from irnet_hpc.distributed.job_end import end_of_job
from irnet_hpc.distributed.launch import LAUNCHERS, stated_threads
from irnet_hpc.distributed.processes import wait_quietly
from irnet_hpc.distributed.slurm_commands import (
    SIGNAL_LEAD_S,
    SIGNAL_SLACK_S,
    own_job,
    requeue,
)
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.lease import Leases
from irnet_hpc.runs.spec import run_folder
from irnet_hpc.runs.state_names import Cause, CellState
from irnet_hpc.sweep.cell_states import CellStatus
from irnet_hpc.sweep.endings import LOG_HEADING
from irnet_hpc.sweep.matrix.matrix import Cell, Matrix
from irnet_hpc.sweep.matrix.packs import MatrixPack
from irnet_hpc.sweep.matrix.resources import Resources, gpus_per_rank

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

# The signals that announce preemption, the end of the job, or a kill.
TRAINING_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


def train_options(
    status: CellStatus,
    results: Path,
    pack_dir: Path | None,
    *others: CellStatus,
    site_gpus: int = 0,
) -> list[str]:
    """List the options of `python -m irnet_hpc.train` for a cell.

    A cell that asks for GPUs fails where there is none, and never trains on the processor instead.

    Args:
        status: The cell.
        results: The folder of results.
        pack_dir: The folder of packs; None: the default folder.
        others: The other cells of the bundle, which are trained together with this cell.
        site_gpus: The GPUs that the site gives each rank of a job that does not ask for any.

    Returns:
        The options, one text each.
    """
    cell, spec = status.cell, status.cell.spec
    options: list[object] = ["--pack", spec.pack, "--property", spec.property]
    if spec.layers:
        options += ["--layers", spec.layers]
    else:
        options += ["--architecture", spec.architecture]
        options += [] if spec.depth is None else ["--depth", spec.depth]
    options += ["--recipe", cell.recipe_option, "--protocol", spec.protocol]
    options += ["--seed", spec.seed, "--results", results]
    options += [] if spec.train_rows is None else ["--train-rows", spec.train_rows]
    options += ["--init", run_folder(results, cell.origin.spec)] if cell.origin else []
    options += ["--init", cell.shipped.name] if cell.shipped else []
    options += ["--pack-dir", pack_dir] if pack_dir else []
    if others:
        options += ["--bundle", json.dumps([_bundle_member(s.cell) for s in (status, *others)])]
    options += ["--stage-dir", cell.resources.stage_dir] if cell.resources.stage_dir else []
    options += ["--device", "cuda"] if gpus_per_rank(cell.resources, site_gpus) else []
    options += ["--force"] if status.state == CellState.STALE else []
    return [str(option) for option in options]


def _bundle_member(cell: Cell) -> dict:
    """Return the fields in which a cell may differ from the others of its bundle."""
    option = cell.recipe_option
    recipe = json.loads(option) if option.startswith("{") else option
    return {"property": cell.spec.property, "recipe": recipe, "seed": cell.spec.seed}


def pack_command(pack: MatrixPack, n_workers: int | None = None) -> list[str]:
    """Return the command that builds a pack, on all available cores unless `n_workers` is set."""
    assert pack.options is not None
    place = ["--name", pack.name, "--pack-dir", str(pack.path.parent)]
    workers = ["--workers", str(n_workers)] if n_workers else []
    return [sys.executable, "-m", "irnet_hpc.pack", *pack.options, *place, *workers]


def aggregate_command(matrix: Matrix, results: Path) -> list[str]:
    """Return the command that makes the tables of a matrix."""
    # The aggregator needs the packs of this matrix to determine the states of its cells.
    packs = f"IRNET_PACKS={matrix.packs[0].path.parent.resolve()}"
    aggregate = ["env", packs, sys.executable, "-m", "irnet_hpc.aggregate"]
    return [*aggregate, str(results), "--all", "--matrix", str(matrix.path.resolve())]


@contextlib.contextmanager
def outside_any_job() -> Iterator[None]:
    """Remove the environment variables that tell a child process that it belongs to this job."""
    from submitit.helpers import clean_env

    names = {name for launcher in LAUNCHERS for name in launcher[1:7] if name}
    names |= {name for name in os.environ if name.startswith(("OMPI_COMM_", "PMIX_", "PMI_"))}
    if "SLURM_JOB_ID" in os.environ:
        # These variables name the GPUs of this job.
        names.add("CUDA_VISIBLE_DEVICES")
    # Variables that locate the cluster do not belong to this job, so they stay.
    configuration = os.environ.get("SLURM_CONF")
    with clean_env(extra_names=tuple(names)):
        if configuration:
            os.environ["SLURM_CONF"] = configuration
        yield


def signal_lead_s(resources: Resources) -> int:
    """Return how many seconds before the end of a job SLURM must signal the training."""
    return min(SIGNAL_LEAD_S, resources.minutes * 60 // 4)


class TrainingJob:
    """A cell or a bundle of cells; submitit runs it once in every rank of a SLURM job.

    Args:
        options: The options of `train`.
        log: The file to which the training's output is appended.
        resources: What the job asks for.
        folders: The run folders of the cells.
        n_threads: The threads of each rank, where the job's environment states no other number.
    """

    # A job that was submitted by an older version states its threads in its environment.
    n_threads: int | None = None

    def __init__(
        self,
        options: Sequence[str],
        log: Path,
        resources: Resources,
        folders: Sequence[Path],
        n_threads: int,
    ) -> None:
        self.options, self.log, self.resources, self.folders = options, log, resources, folders
        self.n_threads = n_threads

    def __call__(self) -> None:
        """Train.

        If the job is preempted and enough of its time is left, put it back into the queue.
        """
        from submitit import JobEnvironment

        began, rank = time.time(), JobEnvironment().global_rank
        if rank == 0:
            _redirect_output_to(self.log)
        with_threads(self.n_threads)
        wait_quietly()
        # Imported here, since it imports torch, which planning does not need.
        from irnet_hpc.train import cli as train

        signals_seen = _hand_signals_to_train()
        status = exit_status(lambda: train.main(list(self.options)))
        if status == ExitStatus.PREEMPTED and signal.SIGUSR2 in signals_seen():
            # Rank 0 decides. The other ranks end with the job, or srun ends them if rank 0 fails.
            if rank or self._seconds_left(began) > signal_lead_s(self.resources) + SIGNAL_SLACK_S:
                _requeue(rank)
            else:
                # Running once more would take more time than the matrix allows.
                self._leave_out_of_time()
        if status:
            # This tells SLURM that the job failed, and ends the other ranks.
            raise RuntimeError(f"the training ended with status {status}; see {self.log}")

    def _seconds_left(self, began: float) -> float:
        return (end_of_job() or began + 60 * self.resources.minutes) - time.time()

    def _leave_out_of_time(self) -> None:
        """Write error.json into the run folders that have neither a result nor an error."""
        sentence = (
            f"out of time after {self.resources.minutes} min; "
            "if submitted again, it continues from its checkpoint"
        )
        with Leases() as leases:
            for path in self.folders:
                folder = RunFolder(path, leases)
                if not {"result.json", "error.json"} & folder.names():
                    folder.write_error(sentence, Cause.TIME)

    def checkpoint(self) -> "DelayedSubmission":
        """Submit the job again.

        submitit calls this if a signal comes before `train` has set its own handlers.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Commands:
    """Commands that submitit runs one after the other, even if one of them fails.

    The class is used for packs, the aggregator, and `sweep run` in the background.

    Args:
        commands: The commands.
        log: The file to which their output is appended.
        gpus: The value of CUDA_VISIBLE_DEVICES (None: unset). It is kept here, since submitit
            empties the variable for a local job that requests no GPU.
        n_threads: The threads of each command, where the job's environment states no other number;
            None: as many as the command chooses.
    """

    n_threads: int | None = None  # of a job that was submitted by an older version

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        log: Path,
        gpus: str | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.commands, self.log, self.gpus = commands, log, gpus
        self.n_threads = n_threads

    def __call__(self) -> None:
        """Run the commands and write their output to one log. Raises RuntimeError if one failed."""
        failed = []
        with outside_any_job(), self.log.open("a") as log:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.gpus is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus
            with_threads(self.n_threads)
            for command in self.commands:
                process = subprocess.Popen(
                    command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
                signal.signal(signal.SIGTERM, lambda *_, child=process: child.terminate())
                if process.wait():
                    name = " ".join(command[1:3])
                    failed.append(f"{name} ended with status {process.returncode}")
        if failed:
            raise RuntimeError(f"{'; '.join(failed)}; see {self.log}")


def with_threads(n_threads: int | None) -> None:
    """Give this process and its children so many threads, unless the environment states a number.

    The jobs of a sweep do not export OMP_NUM_THREADS: it would count as the user's own number, also
    for the jobs that a job submits.
    """
    if n_threads is not None and stated_threads() is None:
        os.environ["OMP_NUM_THREADS"] = str(n_threads)


def _redirect_output_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    os.write(1, f"{LOG_HEADING}{own_job()} on {nodes}, {time.ctime()}\n".encode())


def _hand_signals_to_train() -> Callable[[], bytes]:
    """Deliver TRAINING_SIGNALS to `train`, which saves a checkpoint, instead of to submitit.

    submitit would put the job back into the queue at once. `train` sets its own handlers, but only
    after it has loaded its data. Until then this thread and the threads that it starts block the
    signals, so that none is lost. As soon as the handlers are set, a new thread unblocks the
    signals, and blocked ones are delivered to it.

    Returns:
        A function that returns the numbers of the signals that have come. Python writes these
        numbers to the wake-up descriptor.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, TRAINING_SIGNALS)
    for number in TRAINING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)

    def receive() -> None:
        while any(signal.getsignal(number) == signal.SIG_DFL for number in TRAINING_SIGNALS):
            time.sleep(0.2)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TRAINING_SIGNALS)
        threading.Event().wait()

    threading.Thread(target=receive, daemon=True).start()

    def signals_seen() -> bytes:
        # A signal to one rank stops all ranks. The signal to this rank may still be blocked, since
        # the thread above checks only five times a second.
        select.select([reader], [], [], 5.0)
        with contextlib.suppress(BlockingIOError):
            return os.read(reader, 4096)
        return b""

    return signals_seen


def _requeue(rank: int) -> None:
    """Put this job back into the queue, and wait until SLURM kills this process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if rank == 0:
        requeue(own_job() or "")
    time.sleep(120)
