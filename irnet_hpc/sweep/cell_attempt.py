"""Train one bundle of cells in the place of a worker, and say why a cell got no result."""

import logging
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.console import ExitStatus
from irnet_hpc.runs import lease
from irnet_hpc.runs.folder import RunFolder, seconds_since_1970
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.bundles import Bundle
from irnet_hpc.sweep.cell_process import status_of_first_rank, train_command
from irnet_hpc.sweep.cell_states import CellStatus, result_of
from irnet_hpc.sweep.context import SweepContext
from irnet_hpc.sweep.endings import KILLED, last_words
from irnet_hpc.sweep.places import Place, threads_of
from irnet_hpc.sweep.trainer_process import WorkerProcess

log = logging.getLogger(__name__)


class Problem(NamedTuple):
    """The reason why a cell was not trained."""

    text: str
    # Another process holds the cell's lease and trains it.
    held: bool = False
    # The training was ended by signal 9, which Linux sends to processes that take too much memory.
    killed: bool = False
    # The training was told to stop and has saved its progress.
    stopped: bool = False
    # The GPU was lost or is broken, which is no failure of the cell.
    lost_device: bool = False

    @property
    def may_pass(self) -> bool:
        """True if the cell may succeed later: with free memory, another GPU, or once it is free."""
        return self.held or self.killed or self.lost_device


Problems = dict[str, Problem]


class Attempt:
    """One attempt at the cells of a bundle.

    Args:
        context: The sweep.
        path: The journal of this process.
        bundle: The cells.
        label: How the lines about these cells begin.
        is_stopping: Returns True once this process has been told to stop.
    """

    def __init__(
        self,
        context: SweepContext,
        path: Path,
        bundle: Bundle,
        label: str,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.context, self.journal, self.bundle, self.label = context, path, bundle, label
        self.is_stopping = is_stopping
        # The most memory (GiB) that one of the cells has held; 0: none is done.
        self.peak_gb = 0.0

    def train(self, worker: WorkerProcess, places: Sequence[Place] = ()) -> Problems:
        """Train the cells that no other process holds.

        Args:
            worker: The worker that starts the training.
            places: The places of the training; empty: that of the worker.

        Returns:
            Name -> problem, for the cells that were not trained.
        """
        problems = {}
        for status in self.bundle:
            if holder := holder_of(status.folder):
                log.info("%s %s is being trained elsewhere, by %s", self.label, status.name, holder)
                problems[status.name] = Problem(
                    f"is being trained elsewhere, by {holder}", held=True
                )
        if free := tuple(status for status in self.bundle if status.name not in problems):
            problems |= self._train(free, worker, places)
        return problems

    def _train(self, bundle: Bundle, worker: WorkerProcess, places: Sequence[Place]) -> Problems:
        """Train the cells of a bundle, and log for each a line before and after the training."""
        first, *others = bundle
        n_ranks = n_ranks_of(first, self.context)
        began, path = time.monotonic(), first.folder / "train.log"
        for status in bundle:
            beside = "" if status is first else ", together with the one before"
            ranks = f"{n_ranks} rank{'s' if n_ranks > 1 else ''}"
            log.info("%s %s on %s%s; log %s", self.label, status.name, ranks, beside, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # a training that is killed while it starts writes nothing
        # The bytes that earlier attempts have written to the log.
        n_bytes = path.stat().st_size
        started = datetime.now(UTC).isoformat(timespec="seconds")
        exit_status = self._wait(bundle, n_ranks, path, worker, places)
        output, problems = path.read_bytes()[n_bytes:].decode(errors="replace"), {}
        for status in bundle:
            # Some cells of a bundle may be done although others are not.
            if exit_status and not (others and _has_new_result(status)):
                problem = _problem(status, started, exit_status, output)
                failed = "" if problem.held or problem.stopped else "failed: "
                log.info("%s %s%s", self.label, failed, problem.text)
                if not problem.held:
                    problem = problem._replace(text=f"{problem.text}; log {path}")
                problems[status.name] = problem
                continue
            result = read_result(status.folder / "result.json")
            self.peak_gb = max(self.peak_gb, result.peak_memory_gb or 0.0)
            mae, seconds = f"{result.test_mae:.4g} {result.unit}", time.monotonic() - began
            log.info("%s MAE %s in %.0f s", self.label, mae, seconds)
        return problems

    def _wait(
        self,
        bundle: Bundle,
        n_ranks: int,
        path: Path,
        worker: WorkerProcess,
        places: Sequence[Place],
    ) -> int:
        """Start the training of a bundle, note it in the journal, and return its exit status."""
        first, *others = bundle
        results, pack_dir = self.context.results, self.context.pack_dir
        command = train_command(first, n_ranks, results, pack_dir, *others)
        end: dict[str, object] = {"ended": "interrupted"}
        process = worker.start(command, path, threads_of(first), places)
        try:
            if self.is_stopping():
                worker.tell(signal.SIGTERM)
            start: dict[str, object] = {"process": process, "ended": None, "status": None}
            start |= {"log": str(path), "bundle": len(bundle)}
            journal.note(self.journal, [{"cell": s.name} | start for s in bundle])
            exit_status = worker.wait()
            if not self.is_stopping():
                end = {"ended": f"ended with status {exit_status}", "status": exit_status}
        finally:
            journal.note(self.journal, [{"cell": status.name} | end for status in bundle])
        return exit_status


def n_ranks_of(status: CellStatus, context: SweepContext) -> int:
    """Return the number of ranks of a cell on this machine.

    One rank fits a classical model; --ranks applies to networks only.
    """
    if status.cell.spec.is_classical:
        return 1
    return context.options.n_ranks or status.cell.resources.n_ranks


def holder_of(folder: Path) -> str | None:
    """Describe the process that is training a run; None if no process is."""
    seen = lease.read_lease(folder)
    return (
        str(seen.lease)
        if seen and not lease.is_expired(seen, lease.file_server_time(folder))
        else None
    )


def _has_new_result(status: CellStatus) -> bool:
    """Return True if the cell has a result other than its stale one."""
    result, _ = result_of(RunFolder(status.folder))
    return result is not None and result != status.result


def _problem(status: CellStatus, started: str, exit_status: int, output: str) -> Problem:
    """Explain why a training did not give its cell a result.

    Args:
        status: The cell.
        started: When the training was started (ISO time); older reasons are ignored.
        exit_status: The exit status of the process, negative for a signal.
        output: The output of the training, from its log.
    """
    if holder := holder_of(status.folder):
        # The other process took the cell up a moment before us, or took it over from us.
        return Problem(f"is being trained elsewhere, by {holder}", held=True)
    stopped = exit_status == ExitStatus.PREEMPTED
    error = RunFolder(status.folder).error(seconds_since_1970(started))
    if error:
        return Problem(
            error.message,
            killed=exit_status in KILLED,
            stopped=stopped,
            lost_device=error.cause == Cause.DEVICE,
        )
    if ExitStatus.HELD in (exit_status, status_of_first_rank(output)):
        return Problem("was being trained elsewhere, and has no result", held=True)
    if stopped:
        return Problem("was stopped; the same command continues it", stopped=True)
    words = last_words(output) or "no output"
    return Problem(f"status {exit_status}: {words}", killed=exit_status in KILLED)
