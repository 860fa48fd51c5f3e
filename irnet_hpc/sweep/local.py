"""Run a matrix on this machine: missing packs, then cell after cell, each in its own processes."""

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.processes import process_name
from irnet_hpc.runs import lease
from irnet_hpc.runs.folder import RunFolder, seconds_since_1970
from irnet_hpc.runs.lease import Leases
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.bundles import Bundle, bundles_of, gpu_gb_here
from irnet_hpc.sweep.cell_process import started, status_of_first_rank, train_command
from irnet_hpc.sweep.cell_states import CellStatus, Ledger, read_ledger, result_of
from irnet_hpc.sweep.context import SweepContext, take_up
from irnet_hpc.sweep.endings import KILLED, last_words
from irnet_hpc.sweep.estimates import estimates
from irnet_hpc.sweep.jobs import pack_command
from irnet_hpc.sweep.matrix.packs import MatrixPack
from irnet_hpc.sweep.progress import CellsBar, cells_bar, wait_for

log = logging.getLogger(__name__)


class Problem(NamedTuple):
    """The reason why a cell was not trained."""

    text: str
    # Another process holds the cell's lease and trains it.
    held: bool = False
    # The training was ended by signal 9, which Linux sends to processes that take too much memory.
    killed: bool = False

    @property
    def may_pass(self) -> bool:
        """True if the cell may succeed later, when memory is free or another process has ended."""
        return self.held or self.killed


@dataclasses.dataclass(frozen=True)
class RunReport:
    """The outcome of a run on this machine."""

    # The states of the cells at the beginning of the run; they show why nothing was done.
    ledger: Ledger
    n_done: int = 0
    # One line for each pack or cell that failed, and for each cell that another process trains.
    failures: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    seconds: float = 0.0
    # False if there was nothing to run.
    started: bool = True


def run(context: SweepContext) -> RunReport:
    """Build the missing packs and train the cells that are missing or failed, on this machine.

    A failed cell does not stop the others. A cell that another process trains, or whose training
    was killed for its memory, is tried once more at the end.

    Args:
        context: The sweep. If a `submit` started this process, `options.token` is its token.

    Returns:
        A report. The results are in the run folders below `context.results`.

    Raises:
        UserError: The cells may cost more than the budget of the matrix.
        KeyboardInterrupt: The run was stopped; the same call continues it.
    """
    began = time.monotonic()
    with _interrupted_by_signals(), Leases() as leases:
        ledger, path = _claim(context)
        if path is None:
            return RunReport(ledger, started=False)
        leases.keep_touching(path)
        wanted = {status.cell.spec.pack for status in ledger.to_do(context.options.stale)}
        missing = [pack for pack in context.matrix.packs if not pack.exists]
        broken = _build(missing, wanted)
        if missing:
            context = context.with_current_packs()
            ledger = _claim_with_packs(context, path)
        statuses = [
            status
            for status in ledger.to_do(context.options.stale)
            if status.cell.spec.pack not in broken
        ]
        local_run = _LocalRun(context, path)
        problems = local_run.train_all(statuses, ledger)
    failures = [
        f"failed pack {name}: status {status}; its cells were left out"
        for name, status in broken.items()
    ]
    failures += [f"failed {name}: {p.text}" for name, p in problems.items() if not p.held]
    held = [f"{name}: {p.text}" for name, p in problems.items() if p.held]
    seconds = time.monotonic() - began
    return RunReport(ledger, len(local_run.done), tuple(failures), tuple(held), seconds)


def _claim(context: SweepContext) -> tuple[Ledger, Path | None]:
    """Write the cells to train into a new journal, so that no other sweep starts them.

    Returns:
        The ledger and the path of the journal; the path is None if there is nothing to do.
    """
    options = context.options
    with contextlib.ExitStack() as lock:
        if not options.token:
            # With a token, the `submit` that started this process already holds the lock.
            lock.enter_context(journal.alone(context.results))
        ledger = take_up(context)
        claims = [{"cell": status.name} for status in ledger.to_do(options.stale)]
        packs = context.matrix.packs
        if not claims and not any("all" in p.properties and not p.exists for p in packs):
            return ledger, None
        driver, name = process_name(os.getpid()), context.matrix.name
        return ledger, journal.begin(context.results, name, "local", driver, options.token, claims)


def _claim_with_packs(context: SweepContext, path: Path) -> Ledger:
    """Read the ledger again after packs are built, and claim the cells that are known only now."""
    with journal.alone(context.results):
        token = journal.token_of(path)
        current = read_ledger(context.matrix, context.results, except_token=token)
        ledger = dataclasses.replace(current, chosen=context.options.only)
        statuses = ledger.to_do(context.options.stale)
        journal.note(path, [{"cell": status.name} for status in statuses])
    return ledger


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Stop a run on SIGTERM or SIGHUP as on Ctrl-C.

    A signal that is ignored (nohup) stays ignored.
    """
    before = {}
    # Python can set handlers only in the main thread.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _build(packs: Iterable[MatrixPack], wanted: set[str]) -> dict[str, int]:
    """Build the packs in `wanted`, and those with `properties: all`, whose cells are not known yet.

    Returns:
        Pack -> exit status, for the packs that could not be built.
    """
    broken = {}
    for pack in packs:
        if pack.name in wanted or "all" in pack.properties:
            log.info("pack %s: %s", pack.name, " ".join(pack_command(pack)[1:]))
            with started(pack_command(pack)) as process:
                if status := process.wait():
                    broken[pack.name] = status
    return broken


class _LocalRun:
    """The trainings of one run: the settings that they share, and the cells that are done."""

    def __init__(self, context: SweepContext, path: Path) -> None:
        self.context, self.journal = context, path
        self.results, self.pack_dir = context.results, context.pack_dir
        self.done: set[str] = set()

    def train_all(self, statuses: list[CellStatus], ledger: Ledger) -> dict[str, Problem]:
        """Train the cells, and try those again that may succeed later. Returns name -> problem."""
        matrix, bundle, gpu_gb = self.context.matrix, self.context.options.bundle, gpu_gb_here()
        pairs = zip(ledger.cells, estimates(matrix, ledger), strict=True)
        minutes = {status.name: estimate.minutes for status, estimate in pairs}
        try:
            with cells_bar([status.name for status in statuses], minutes) as bar:
                problems = self._train_bundles(bundles_of(matrix, statuses, bundle, gpu_gb), bar)
                # By now another process may have finished a cell or ended, and memory may be free.
                later = [_for_retry(s, problems) for s in statuses if _worth_retrying(s, problems)]
                if later:
                    log.info("cells to try again: %d", len(later))
                    bar.add([status.name for status in later])
                    for status in later:
                        del problems[status.name]
                    problems |= self._train_bundles(bundles_of(matrix, later, bundle, gpu_gb), bar)
        except KeyboardInterrupt:
            n_done, n_cells = len(self.done), len(statuses)
            log.info("stopped after %d of %d cells; the same command continues", n_done, n_cells)
            raise
        return problems

    def _train_bundles(self, bundles: list[Bundle], bar: CellsBar) -> dict[str, Problem]:
        """Train one bundle after the other, and add the trained cells to `done`.

        Returns:
            Name -> problem, for the cells that were not trained.
        """
        problems: dict[str, Problem] = {}
        tried: set[str] = set()
        for i, bundle in enumerate(bundles):
            label, names = f"[{i + 1}/{len(bundles)}]", [status.name for status in bundle]
            began, first = time.monotonic(), bundle[0]
            if reason := self._missing_origin(first, tried):
                log.info("%s %s left out: %s", label, first.name, reason)
                journal.note(self.journal, [{"cell": first.name, "ended": "left out"}])
                new = {first.name: Problem(reason)}
            else:
                new = self._train_free(bundle, label, bar)
            bar.advance(names, time.monotonic() - began)
            self.done |= set(names) - new.keys()
            tried |= set(names)
            problems |= new
        return problems

    def _missing_origin(self, status: CellStatus, tried: set[str]) -> str | None:
        """Return the reason if a cell cannot start because its origin has no result, else None."""
        if not status.origin:
            return None
        failed = status.origin in tried - self.done
        if failed or not (self.results / status.origin / "result.json").exists():
            return f"its origin {status.origin} is not done"
        return None

    def _train_free(self, bundle: Bundle, label: str, bar: CellsBar) -> dict[str, Problem]:
        """Train the cells of a bundle that no other process holds."""
        problems = {}
        for status in bundle:
            if holder := _holder(status.folder):
                log.info("%s %s is being trained elsewhere, by %s", label, status.name, holder)
                problems[status.name] = Problem(
                    f"is being trained elsewhere, by {holder}", held=True
                )
        if free := tuple(status for status in bundle if status.name not in problems):
            problems |= self._train(free, label, bar)
        return problems

    def _train(self, bundle: Bundle, label: str, bar: CellsBar) -> dict[str, Problem]:
        """Train the cells of a bundle, and log for each a line before and after the training."""
        first, *others = bundle
        # One rank fits a classical model; --ranks applies to networks only.
        is_classical = first.cell.spec.is_classical
        n_ranks = 1 if is_classical else self._n_ranks(first)
        began, path = time.monotonic(), first.folder / "train.log"
        for status in bundle:
            beside = "" if status is first else ", together with the one before"
            ranks = f"{n_ranks} rank{'s' if n_ranks > 1 else ''}"
            log.info("%s %s on %s%s; log %s", label, status.name, ranks, beside, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The bytes that earlier attempts have written to the log.
        n_bytes = path.stat().st_size if path.exists() else 0
        started = datetime.now(UTC).isoformat(timespec="seconds")
        exit_status = self._wait(bundle, n_ranks, path, bar)
        output, problems = path.read_bytes()[n_bytes:].decode(errors="replace"), {}
        for status in bundle:
            # Some cells of a bundle may be done although others are not.
            if exit_status and not (others and _has_new_result(status)):
                problem = _problem(status, started, exit_status, output)
                log.info("%s %s%s", label, "" if problem.held else "failed: ", problem.text)
                if not problem.held:
                    problem = problem._replace(text=f"{problem.text}; log {path}")
                problems[status.name] = problem
                continue
            result = read_result(status.folder / "result.json")
            mae, seconds = f"{result.test_mae:.4g} {result.unit}", time.monotonic() - began
            log.info("%s MAE %s in %.0f s", label, mae, seconds)
        return problems

    def _n_ranks(self, status: CellStatus) -> int:
        return self.context.options.n_ranks or status.cell.resources.n_ranks

    def _wait(self, bundle: Bundle, n_ranks: int, path: Path, bar: CellsBar) -> int:
        """Start the training of a bundle, note it in the journal, and return its exit status."""
        first, *others = bundle
        command = train_command(first, n_ranks, self.results, self.pack_dir, *others)
        end: dict[str, object] = {"ended": "interrupted"}
        try:
            with started(command, path, first.cell.resources.cpus_per_rank) as process:
                start: dict[str, object] = {
                    "process": process_name(process.pid),
                    "ended": None,
                    "status": None,
                }
                start |= {"log": str(path), "bundle": len(bundle)}
                journal.note(self.journal, [{"cell": s.name} | start for s in bundle])
                exit_status = wait_for(process, first, bar)
            end = {"ended": f"ended with status {exit_status}", "status": exit_status}
        finally:
            journal.note(self.journal, [{"cell": status.name} | end for status in bundle])
        return exit_status


def _worth_retrying(status: CellStatus, problems: dict[str, Problem]) -> bool:
    """Return True if the cell or its origin may succeed after the other cells have finished."""
    problem = problems.get(status.name)
    origin = problems.get(status.origin) if status.origin else None
    return problem is not None and (problem.may_pass or (origin is not None and origin.may_pass))


def _for_retry(status: CellStatus, problems: dict[str, Problem]) -> CellStatus:
    """Prepare a cell for its second try.

    A cell that was killed for its memory is then trained alone.
    """
    killed = problems[status.name].killed
    return dataclasses.replace(status, cause=Cause.MEMORY) if killed else status


def _holder(folder: Path) -> str | None:
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
    return result is not None and not (status.result and status.result.key == result.key)


def _problem(status: CellStatus, started: str, exit_status: int, output: str) -> Problem:
    """Explain why a training did not give its cell a result.

    Args:
        status: The cell.
        started: When the training was started (ISO time); older reasons are ignored.
        exit_status: The exit status of the process, negative for a signal.
        output: The output of the training, from its log.
    """
    if holder := _holder(status.folder):
        # The other process took the cell up a moment before us, or took it over from us.
        return Problem(f"is being trained elsewhere, by {holder}", held=True)
    error = RunFolder(status.folder).error(seconds_since_1970(started))
    if error:
        return Problem(error.message, killed=exit_status in KILLED)
    if ExitStatus.HELD in (exit_status, status_of_first_rank(output)):
        return Problem("was being trained elsewhere, and has no result", held=True)
    words = last_words(output) or "no output"
    return Problem(f"status {exit_status}: {words}", killed=exit_status in KILLED)


def finished_states(ledger: Ledger) -> str:
    """Count the cells of each state, as in "6 done, 1 stale"."""
    return ", ".join(f"{n} {state}" for state, n in ledger.counts().items() if n)
