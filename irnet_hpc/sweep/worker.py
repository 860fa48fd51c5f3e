"""Be a worker of a matrix: train cells that nobody else trains, until none is left.

Any number of workers may share a matrix, on any hosts that see its results. Each takes its next
cell from the board (board.py); the lease in the run folder keeps a cell from being trained twice
whatever happens to the board. A worker does not wait for the cells of others, except for one that
its own cells start from.
"""

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from irnet_hpc.distributed import launch
from irnet_hpc.distributed.job_end import end_of_job
from irnet_hpc.distributed.processes import STOP_SIGNALS, process_name
from irnet_hpc.distributed.slurm_commands import stop_by
from irnet_hpc.errors import UserError
from irnet_hpc.runs.lease import Leases
from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.agenda import Agenda
from irnet_hpc.sweep.board import Board
from irnet_hpc.sweep.cell_states import TO_DO, CellStatus, Ledger, read_ledger
from irnet_hpc.sweep.context import SweepContext, check_budget
from irnet_hpc.sweep.crew import Crew
from irnet_hpc.sweep.estimates import minutes_of_cells
from irnet_hpc.sweep.first_checks import check_possible
from irnet_hpc.sweep.local import build_packs
from irnet_hpc.sweep.one_folder import check_one_folder, warn_of_clock
from irnet_hpc.sweep.places import Place, one_place, places_here
from irnet_hpc.sweep.progress import cells_bar

log = logging.getLogger(__name__)

# The training of a worker that was killed saves itself and gives its run free within so many
# seconds (train/trainer.py); that is waited for at the end.
ORPHAN_S = 30.0


@dataclasses.dataclass(frozen=True)
class WorkReport:
    """Report what a worker has done."""

    n_done: int
    # One line for each pack or cell that failed here.
    failures: tuple[str, ...]
    # True if it was told to stop, or its job was about to end.
    stopped: bool
    # Why this host trains no more cells; None: none was left.
    why_left: str | None = None
    seconds: float = 0.0


def work(context: SweepContext) -> WorkReport:
    """Train cells of a matrix beside other workers, until none is left that this one could train.

    Args:
        context: The sweep. `options.workers` is the number of workers that this machine is divided
            among; None: this process is one.

    Returns:
        A report. The results are in the run folders below `context.results`.

    Raises:
        UserError: The cells may cost more than the budget of the matrix, or there are more workers
            than GPUs or cores.
    """
    began = time.monotonic()
    worker = _Worker(context)
    stopped = False
    with _told_to_stop(), contextlib.suppress(KeyboardInterrupt):
        stopped = True
        worker.work()
        stopped = worker.is_late
    if stopped:
        log.info("stopped after %d cells; the same command continues", len(worker.done))
    return WorkReport(
        len(worker.done),
        tuple(worker.failures.values()),
        stopped,
        worker.why_left,
        time.monotonic() - began,
    )


class _Worker:
    """The cells that this process has trained, and how they ended."""

    def __init__(self, context: SweepContext) -> None:
        self.context = context
        self.done: set[str] = set()
        # cell or pack -> a line that says why it failed
        self.failures: dict[str, str] = {}
        self.is_late = False
        self.why_left: str | None = None
        # The names of the cells to train; None: all that are not done.
        self.chosen = context.options.only

    def work(self) -> None:
        """Build missing packs, then train until nothing is left."""
        context, token = self.context, self.context.options.token
        where = None
        with contextlib.suppress(UserError):  # of a launcher whose variables are incomplete
            where = launch.detect()
        check_one_folder(context.results, where)
        warn_of_clock(context.results)
        if token:
            self.chosen = journal.cells_of(context.results, token)
            if self.chosen is None:
                raise UserError(
                    f"{context.results} must have the journal of the submission {token}, got none "
                    f"on {socket.gethostname()}; all hosts must see the same folder of results"
                )
        missing = [pack for pack in context.matrix.packs if not pack.exists]
        if missing:
            # Building them may take hours.
            self._check(self._read(token))
        wanted = {cell.spec.pack for cell in context.matrix.cells}
        for name, status in build_packs(missing, wanted).items():
            self.failures[name] = f"failed pack {name}: status {status}; its cells were left out"
        if missing:
            self.context = context = context.with_current_packs()
        matrix, results = context.matrix, context.results
        driver = process_name(os.getpid())
        with Leases() as leases:
            path = journal.begin(results, matrix.name, "worker", driver)
            leases.keep_touching(path)
            # The board is entered before the ledger is read: what is done later is on the board.
            with Board(results, matrix.name, path) as board:
                self._train(path, board)

    def _read(self, *tokens: str | None) -> Ledger:
        """Read the ledger; to this worker, cells of its own journals are not queued but to do."""
        context = self.context
        own = filter(None, (*tokens, context.options.token))
        ledger = read_ledger(context.matrix, context.results, except_tokens=tuple(own))
        return dataclasses.replace(ledger, chosen=self.chosen)

    def _check(self, ledger: Ledger) -> None:
        """Raise UserError if the cells may cost too much, or if this machine cannot train them."""
        check_budget(self.context, ledger)
        check_possible(self.context, self._candidates(ledger, None, with_missing_packs=True))

    def _train(self, path: Path, board: Board) -> None:
        context, options = self.context, self.context.options
        token = journal.token_of(path)
        ledger = self._read(token)
        self._check(ledger)
        statuses = self._candidates(ledger, None)
        if not statuses:
            return
        places = one_place() if options.workers is None else places_here(options.workers, statuses)
        end = end_of_job()
        with Crew(context, path, board, places, stop_by(end), end) as crew:
            self.done = crew.done
            while statuses and not (crew.is_late or board.why_leave()):
                self._train_once(crew, statuses, minutes_of_cells(context.matrix, ledger))
                ledger, statuses = self._next_reading(token, crew)
            self.is_late = crew.is_late and bool(statuses)
            self.why_left = board.why_leave() or crew.why_left

    def _train_once(
        self, crew: Crew, statuses: list[CellStatus], minutes: dict[str, float | None]
    ) -> None:
        """Train those of the cells that nobody else takes."""
        here = f"{socket.gethostname()}:{os.getpid()}"
        n_workers = len(crew.places.all)

        def label(number: int, places: tuple[Place, ...]) -> str:
            worker = f" worker {places[0].number}" if n_workers > 1 else ""
            return f"{here}{worker} [{number}]"

        with cells_bar([status.name for status in statuses], minutes, n_workers) as bar:
            agenda = Agenda(crew.bundles(statuses), minutes)
            problems = crew.train(agenda, bar, label, shared=True)
        for status in statuses:
            self.failures.pop(status.name, None)
        self.failures |= {
            name: f"failed {name}: {problem.text}"
            for name, problem in problems.items()
            if not problem.held
        }

    def _next_reading(self, token: str, crew: Crew) -> tuple[Ledger, list[CellStatus]]:
        """Read the ledger again, since others may have died or finished an origin meanwhile."""
        until = time.monotonic() + ORPHAN_S
        while True:
            ledger = self._read(token)
            crew.board.refresh()
            statuses = self._candidates(ledger, crew)
            taken = crew.board.standing.taken
            orphans = [
                status
                for status in ledger.cells
                if status.state == CellState.RUNNING
                and status.name not in taken
                and status.name not in crew.board.standing.done
            ]
            if statuses or crew.is_late or not orphans or time.monotonic() > until:
                return ledger, statuses
            time.sleep(1.0)

    def _candidates(
        self, ledger: Ledger, crew: Crew | None, with_missing_packs: bool = False
    ) -> list[CellStatus]:
        """List the cells that this worker may train.

        A cell that another sweep has queued is taken all the same, after all others: that sweep
        finds it trained elsewhere, or done.
        """
        options = self.context.options
        # A submission's journal names the stale cells that it is to replace.
        with_stale = options.stale or bool(options.token)
        wanted = {*TO_DO, CellState.QUEUED, *((CellState.STALE,) if with_stale else ())}
        packs = self.context.matrix.packs
        missing = {pack.name for pack in packs if not (pack.exists or with_missing_packs)}
        statuses = [
            status
            for status in ledger.cells
            if status.state in wanted
            and (ledger.chosen is None or status.name in ledger.chosen)
            and status.cell.spec.pack not in missing
        ]
        if crew is not None:
            host, standing = crew.board.host, crew.board.standing
            statuses = [
                status
                for status in statuses
                if crew.may_try(status.name) and standing.is_free(status.name, host)
            ]
        return sorted(statuses, key=lambda status: status.state == CellState.QUEUED)


@contextlib.contextmanager
def _told_to_stop() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal that asks to stop.

    Launchers may send several, so later ones change nothing, except that a second Ctrl-C does not
    wait for the trainings to save.
    """
    before = {}
    told = False

    def stop(number: int, *_: object) -> None:
        nonlocal told
        if not told or number == signal.SIGINT:
            told = True
            raise KeyboardInterrupt

    # Python can set handlers only in the main thread.
    if threading.current_thread() is threading.main_thread():
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
