"""What a sweep starts: command lines, the environment they start in, and the jobs that submitit carries to the nodes."""

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

from irnet_hpc.console import exit_status
from irnet_hpc.distributed.launch import LAUNCHERS
from irnet_hpc.distributed.slurm import end_of_job
from irnet_hpc.runs.spec import run_folder
from irnet_hpc.sweep.ledger import Entry
from irnet_hpc.sweep.matrix.matrix import Cell, Matrix
from irnet_hpc.sweep.matrix.packs import MatrixPack
from irnet_hpc.sweep.matrix.resources import Resources

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


HANDED_OVER = (
    signal.SIGUSR2,
    signal.SIGTERM,
)  # notice of preemption or of the end, and what comes before being killed


def train_options(entry: Entry, results: Path, pack_dir: Path | None, *others: Entry) -> list[str]:
    """The options of `python -m irnet_hpc.train` for a cell, and for others that are trained together with it."""
    cell, spec = entry.cell, entry.cell.spec
    model = ["--layers", spec.layers] if spec.layers else ["--architecture", spec.architecture]
    model += ["--depth", spec.depth] if not spec.layers and spec.depth is not None else []
    options = [
        "--pack",
        spec.pack,
        "--property",
        spec.property,
        *model,
        "--recipe",
        cell.recipe_option,
    ]
    options += ["--protocol", spec.protocol, "--seed", spec.seed, "--results", results]
    options += ["--train-rows", spec.train_rows] if spec.train_rows is not None else []
    options += ["--init", run_folder(results, cell.origin.spec)] if cell.origin else []
    options += ["--pack-dir", pack_dir] if pack_dir else []
    options += (
        ["--bundle", json.dumps([_differing(one.cell) for one in (entry, *others)])]
        if others
        else []
    )
    options += ["--stage-dir", cell.resources.stage_dir] if cell.resources.stage_dir else []
    return [str(option) for option in options] + (["--force"] if entry.state == "stale" else [])


def _differing(cell: Cell) -> dict:
    """What a cell of a bundle has for itself."""
    option = cell.recipe_option
    recipe = json.loads(option) if option.startswith("{") else option
    return {"property": cell.spec.property, "recipe": recipe, "seed": cell.spec.seed}


def pack_command(pack: MatrixPack, n_workers: int | None = None) -> list[str]:
    """The command that builds a pack, on all cores that it may use unless it is told how many."""
    assert pack.options is not None
    place = ["--name", pack.name, "--pack-dir", str(pack.path.parent)]
    workers = ["--workers", str(n_workers)] if n_workers else []
    return [sys.executable, "-m", "irnet_hpc.pack", *pack.options, *place, *workers]


def aggregate_command(matrix: Matrix, results: Path) -> list[str]:
    packs = f"IRNET_PACKS={matrix.packs[0].path.parent.resolve()}"  # where this matrix's are, for its states
    return [
        *("env", packs, sys.executable, "-m", "irnet_hpc.aggregate"),
        *(str(results), "--matrix", str(matrix.path.resolve())),
    ]


@contextlib.contextmanager
def outside_any_job() -> Iterator[None]:
    """An environment in which nothing tells a child that it is part of this job, or a rank of this launch."""
    from submitit.helpers import clean_env

    names = {name for launcher in LAUNCHERS for name in launcher[1:7] if name}
    names |= {name for name in os.environ if name.startswith(("OMPI_COMM_", "PMIX_", "PMI_"))}
    if "SLURM_JOB_ID" in os.environ:
        names.add("CUDA_VISIBLE_DEVICES")  # this job's
    configuration = os.environ.get(
        "SLURM_CONF"
    )  # where the cluster is, which has nothing to do with this job
    with clean_env(extra_names=tuple(names)):
        if configuration:
            os.environ["SLURM_CONF"] = configuration
        yield


def notice_s(resources: Resources) -> int:
    """Seconds before its time is up at which a training is told to save."""
    return min(120, resources.minutes * 60 // 4)


class Training:
    """A cell, or a bundle, as submitit runs it: once in every rank, so that `train` finds itself under srun."""

    def __init__(
        self, options: Sequence[str], log: Path, resources: Resources, folders: Sequence[Path]
    ) -> None:
        self.options, self.log, self.resources, self.folders = options, log, resources, folders

    def __call__(self) -> None:
        from submitit import JobEnvironment

        began, rank = time.time(), JobEnvironment().global_rank
        if rank == 0:
            _send_output_to(self.log)
        from irnet_hpc.train import cli as train  # with torch, which planning does without
        from irnet_hpc.train import run_writer as folder

        seen = _hand_signals_to_train()
        status = exit_status(lambda: train.main(self.options))
        if status == train.PREEMPTED and signal.SIGUSR2 in seen():
            least_s = notice_s(self.resources) + 90  # notice of the end comes up to a minute early
            # Rank 0 decides: the others are ended with the job, or by srun when it gives up.
            if (
                rank
                or (end_of_job() or began + 60 * self.resources.minutes) - time.time() > least_s
            ):
                _requeue(rank)
            else:  # another go would cost more than the matrix says
                sentence = f"out of time after {self.resources.minutes} min; submitted again it goes on from its checkpoint"
                for path in self.folders:
                    if not any((path / name).exists() for name in ("result.json", "error.json")):
                        folder.failed(path, sentence)
        if status:  # SLURM must know, and the other ranks must end
            raise RuntimeError(f"the training ended with status {status}; see {self.log}")

    def checkpoint(self) -> "DelayedSubmission":
        """For a signal that comes before `train` listens: the same again; it resumes from the last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Commands:
    """Commands in turn, each whatever became of the one before, their output in one log. Packs, the aggregator, `run`."""

    def __init__(
        self, commands: Sequence[Sequence[str]], log: Path, gpus: str | None = None
    ) -> None:
        # gpus: CUDA_VISIBLE_DEVICES, which submitit empties for a local job that asks for no GPU; None: unset
        self.commands, self.log, self.gpus = commands, log, gpus

    def __call__(self) -> None:
        failed = []
        with outside_any_job(), self.log.open("a") as log:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.gpus is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus
            for command in self.commands:
                process = subprocess.Popen(
                    command, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
                signal.signal(signal.SIGTERM, lambda *_, child=process: child.terminate())
                if process.wait():
                    failed.append(
                        f"{' '.join(command[1:3])} ended with status {process.returncode}"
                    )
        if failed:
            raise RuntimeError(f"{'; '.join(failed)}; see {self.log}")


def _send_output_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    print(
        f"--- job {os.environ.get('SLURM_JOB_ID')} on {os.environ.get('SLURM_JOB_NODELIST')}, {time.ctime()}",
        flush=True,
    )


def _hand_signals_to_train() -> Callable[[], bytes]:
    """Take the signals of HANDED_OVER from submitit, which would requeue at once, for `train`, which saves first.

    `train` handles what nobody else does, but only once it has loaded its data; until then they are held back, not lost.
    Returns a function that tells which have come: Python writes their numbers to the wake-up descriptor.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_OVER)  # of this thread and those it starts
    for number in HANDED_OVER:
        signal.signal(number, signal.SIG_DFL)

    def receive() -> (
        None
    ):  # a signal goes to any thread that does not hold it back: this one, as soon as `train` listens
        while any(signal.getsignal(number) == signal.SIG_DFL for number in HANDED_OVER):
            time.sleep(0.2)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_OVER)
        threading.Event().wait()

    threading.Thread(target=receive, daemon=True).start()

    def seen() -> bytes:
        # One rank's signal stops all; this one's own may still be held back, for the thread above looks now and then.
        select.select([reader], [], [], 5.0)
        with contextlib.suppress(BlockingIOError):
            return os.read(reader, 4096)
        return b""

    return seen


def _requeue(rank: int) -> None:
    """Put this job back into the queue, and wait to be killed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if rank == 0:
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True, timeout=60)
    time.sleep(120)
