"""Run a matrix on this machine: missing packs, then the cells, one in each place of a worker."""

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.job_end import end_of_job
from irnet_hpc.distributed.processes import process_name
from irnet_hpc.distributed.slurm_commands import stop_by
from irnet_hpc.files import lock
from irnet_hpc.runs.lease import Leases
from irnet_hpc.runs.state_names import Cause, CellState
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.agenda import Agenda
from irnet_hpc.sweep.allocation import other_nodes, train_on
from irnet_hpc.sweep.board import Board
from irnet_hpc.sweep.bundles import AUTO
from irnet_hpc.sweep.cell_attempt import Problem
from irnet_hpc.sweep.cell_process import started
from irnet_hpc.sweep.cell_states import CellStatus, Ledger, read_ledger
from irnet_hpc.sweep.context import SweepContext, take_up
from irnet_hpc.sweep.crew import Crew
from irnet_hpc.sweep.estimates import minutes_of_cells
from irnet_hpc.sweep.first_checks import check_possible
from irnet_hpc.sweep.jobs import pack_command
from irnet_hpc.sweep.matrix.packs import MatrixPack
from irnet_hpc.sweep.places import Place, places_here
from irnet_hpc.sweep.progress import CellsBar, cells_bar

log = logging.getLogger(__name__)

# The states of cells that have been trained before.
ASKED_FOR_AGAIN = (CellState.FAILED, CellState.STALE)


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
    # True if the workers of an allocation were stopped before all cells were done.
    stopped: bool = False


def run(context: SweepContext) -> RunReport:
    """Build the missing packs and train the cells that are missing or failed, on this machine.

    Inside a SLURM allocation that has other nodes, all its nodes train (allocation.py).

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
        broken = build_packs(missing, wanted)
        if missing:
            context = context.with_current_packs()
            ledger = _claim_with_packs(context, path)
        statuses = [
            status
            for status in ledger.to_do(context.options.stale)
            if status.cell.spec.pack not in broken
        ]
        is_stopped = False
        # One worker is a cell after the other, in processes of this machine alone.
        if statuses and context.options.workers != 1 and (parts := other_nodes()):
            token = journal.token_of(path)
            done, problems, is_stopped = train_on(parts, context, statuses, token)
        else:
            local_run = _LocalRun(context, path)
            problems = local_run.train_all(statuses, ledger)
            done = local_run.done
    failures = [
        f"failed pack {name}: status {status}; its cells were left out"
        for name, status in broken.items()
    ]
    failures += [f"failed {name}: {p.text}" for name, p in problems.items() if not p.held]
    held = [f"{name}: {p.text}" for name, p in problems.items() if p.held]
    seconds = time.monotonic() - began
    report = RunReport(ledger, len(done), tuple(failures), tuple(held), seconds)
    return dataclasses.replace(report, stopped=is_stopped)


def _claim(context: SweepContext) -> tuple[Ledger, Path | None]:
    """Write the cells to train into a new journal, so that no other sweep starts them.

    Returns:
        The ledger and the path of the journal; the path is None if there is nothing to do.
    """
    options = context.options
    with contextlib.ExitStack() as held:
        if not options.token:
            # With a token, the `submit` that started this process already holds the lock.
            held.enter_context(journal.alone(context.results))
        ledger = take_up(context)
        statuses = ledger.to_do(options.stale)
        check_possible(context, statuses)
        claims = [{"cell": status.name} for status in statuses]
        packs = context.matrix.packs
        if not claims and not any("all" in p.properties and not p.exists for p in packs):
            return ledger, None
        driver, name = process_name(os.getpid()), context.matrix.name
        return ledger, journal.begin(context.results, name, "local", driver, options.token, claims)


def _claim_with_packs(context: SweepContext, path: Path) -> Ledger:
    """Read the ledger again after packs are built, and claim the cells that are known only now."""
    with journal.alone(context.results):
        token = journal.token_of(path)
        current = read_ledger(context.matrix, context.results, except_tokens=(token,))
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


def build_packs(packs: Iterable[MatrixPack], wanted: set[str]) -> dict[str, int]:
    """Build the packs in `wanted`, and those with `properties: all`, whose cells are not known yet.

    Returns:
        Pack -> exit status, for the packs that could not be built.
    """
    broken = {}
    for pack in packs:
        if pack.name in wanted or "all" in pack.properties:
            log.info("pack %s: %s", pack.name, " ".join(pack_command(pack)[1:]))
            with started(pack_command(pack)) as process:
                status = process.wait()
            # Another worker, or a command that outlived its sweep, may have been making the pack.
            if status == ExitStatus.USER_ERROR and _waited_for_builder(pack.path):
                with started(pack_command(pack)) as process:
                    status = process.wait()
            if status:
                broken[pack.name] = status
    return broken


def _waited_for_builder(path: Path) -> bool:
    """Wait until no other process makes a pack; False if none does, and the pack is not there."""
    try:
        # The lock of pack/blocks.py, which its holder removes.
        with path.with_name(f".{path.stem}.lock").open("r+") as file:
            if lock(file):
                return path.exists()
            log.info("another process is making %s; waiting for it", path)
            lock(file, wait=True)
            return True
    except FileNotFoundError:
        return path.exists()


class _LocalRun:
    """The trainings of one run: the settings that they share, and the cells that are done."""

    def __init__(self, context: SweepContext, path: Path) -> None:
        self.context, self.journal = context, path
        self.done: set[str] = set()

    def train_all(self, statuses: list[CellStatus], ledger: Ledger) -> dict[str, Problem]:
        """Train the cells, and try those again that may succeed later. Returns name -> problem."""
        if not statuses:
            return {}
        options, minutes = self.context.options, minutes_of_cells(self.context.matrix, ledger)
        places = places_here(options.workers or AUTO, statuses)
        names, n_workers = [status.name for status in statuses], len(places.all)
        end = end_of_job()
        try:
            with (
                Board(self.context.results, self.context.matrix.name, self.journal) as board,
                cells_bar(names, minutes, n_workers) as bar,
                Crew(self.context, self.journal, board, places, stop_by(end), end) as crew,
            ):
                self.done = crew.done
                if n_workers > 1:
                    log.info("%d workers, one cell each%s", n_workers, memory_note(crew, statuses))
                # Workers that are at work may have left these alone.
                board.reopen(s.name for s in statuses if s.state in ASKED_FOR_AGAIN)
                problems = self._train(crew, statuses, minutes, bar)
                # By now another process may have finished a cell or ended, and memory may be free.
                later = [_for_retry(s, problems) for s in statuses if _worth_retrying(s, problems)]
                if later:
                    log.info("cells to try again: %d", len(later))
                    bar.add([status.name for status in later])
                    for status in later:
                        del problems[status.name]
                    problems |= self._train(crew, later, minutes, bar)
        except KeyboardInterrupt:
            n_done, n_cells = len(self.done), len(statuses)
            log.info("stopped after %d of %d cells; the same command continues", n_done, n_cells)
            raise
        return problems

    def _train(
        self,
        crew: Crew,
        statuses: list[CellStatus],
        minutes: dict[str, float | None],
        bar: CellsBar,
    ) -> dict[str, Problem]:
        """Train cells, in bundles where that pays. Returns name -> problem."""
        n_workers = len(crew.places.all)
        bundles = crew.bundles(statuses)
        crew.n_started = 0

        def label(number: int, places: tuple[Place, ...]) -> str:
            worker = f" worker {places[0].number}:" if n_workers > 1 else ""
            return f"[{number}/{len(bundles)}]{worker}"

        agenda = Agenda(bundles, minutes, in_order=n_workers == 1)
        return crew.train(agenda, bar, label)


def memory_note(crew: Crew, statuses: Sequence[CellStatus]) -> str:
    """Say that memory limits the cells at work; "" if it does not."""
    least_gb = min(crew.needs.gb((status,)) for status in statuses)
    free_gb = crew.places.memory_gb
    n_that_fit = max(1, int(free_gb / least_gb))
    if n_that_fit >= len(crew.places.all):
        return ""
    return (
        f"; {free_gb:.1f} GiB are free and a cell may take {least_gb:.2g}, so at first "
        f"{n_that_fit} at once"
    )


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


def finished_states(ledger: Ledger) -> str:
    """Count the cells of each state, as in "6 done, 1 stale"."""
    return ", ".join(f"{n} {state}" for state, n in ledger.counts().items() if n)
