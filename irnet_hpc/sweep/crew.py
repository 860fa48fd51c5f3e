"""Keep the workers of this machine busy: give each free place the next cell, until none is left."""

import contextlib
import logging
import math
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.runs.state_names import Cause
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.agenda import Agenda
from irnet_hpc.sweep.board import Board
from irnet_hpc.sweep.bundles import Bundle, bundles_of, gpu_gb_here
from irnet_hpc.sweep.cell_attempt import Attempt, Problem, Problems, holder_of, n_ranks_of
from irnet_hpc.sweep.cell_process import STOP_S
from irnet_hpc.sweep.cell_states import CellStatus
from irnet_hpc.sweep.context import SweepContext
from irnet_hpc.sweep.memory_needs import MemoryNeeds
from irnet_hpc.sweep.places import Place, Places, device_of, gpus_here, n_tasks_here, threads_of
from irnet_hpc.sweep.progress import LOOK_S, CellsBar, show
from irnet_hpc.sweep.trainer_process import WorkerProcess

log = logging.getLogger(__name__)

# A training that was killed, perhaps for its memory, is repeated until it was killed so often.
N_KILLS = 2
# A GPU that was lost so often in a row gets no more cells.
N_LOST = 2
# How often, in seconds, to look whether another worker has finished an origin.
ORIGIN_S = 5.0


class Ended(NamedTuple):
    """The end of the training of a bundle, or the exception that ended its thread."""

    bundle: Bundle
    problems: Problems
    seconds: float
    # The most memory (GiB) that one of the cells has held; 0: unknown.
    peak_gb: float
    error: BaseException | None


class Running(NamedTuple):
    """A training that is under way."""

    bundle: Bundle
    places: tuple[Place, ...]
    began: float
    memory_gb: float


class Crew:
    """The workers of this machine, which train the cells that this process gives them.

    Args:
        context: The sweep.
        path: The journal of this process.
        board: Where the workers of all machines note the cells that they take.
        places: The places of the workers.
        until: When this process's job ends, in s since 1970; after it no cell is started.
        end: The same without a margin, which is passed on to the trainings; None: no end.
    """

    def __init__(
        self,
        context: SweepContext,
        path: Path,
        board: Board,
        places: Places,
        until: float = math.inf,
        end: float | None = None,
    ) -> None:
        self.context, self.journal, self.board = context, path, board
        self.places, self.until = places, until
        # The workers that share the memory of this host, also those that a launcher has started.
        n_workers = len(places.all) * n_tasks_here()
        self.workers = {place: WorkerProcess(place, n_workers, end) for place in places.all}
        self.needs = MemoryNeeds(context, bool(gpus_here()))
        self.done: set[str] = set()
        # All cells that were started, except those that others held.
        self.tried: set[str] = set()
        self.n_started = 0
        # Cells whose training was killed here, or lost its GPU.
        self._killed: Counter[str] = Counter()
        # The places whose GPU is lost, how often in a row that happened, and a sentence about it.
        self._left: set[Place] = set()
        self._lost: Counter[Place] = Counter()
        self.why_left: str | None = None
        self._running: dict[int, Running] = {}
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._stopping = threading.Event()

    @property
    def is_late(self) -> bool:
        """True once this process's job is about to end."""
        return time.time() >= self.until

    def may_try(self, name: str) -> bool:
        """Return True if a cell was not tried here, or was killed and may be tried once more."""
        return name not in self.tried or 0 < self._killed[name] < N_KILLS

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes of the workers, after they have saved."""
        self._stop()
        for worker in self.workers.values():
            worker.let_go()
        for worker in self.workers.values():
            worker.close()

    def bundles(self, statuses: Sequence[CellStatus]) -> list[Bundle]:
        """Group cells into the bundles that this machine trains as one network each."""
        options, n_gpus = self.context.options, len(self.places.of_cells)
        return bundles_of(self.context.matrix, statuses, options.bundle, gpu_gb_here(), n_gpus)

    def train(
        self,
        agenda: Agenda,
        bar: CellsBar,
        label: Callable[[int, tuple[Place, ...]], str],
        shared: bool = False,
    ) -> Problems:
        """Train the cells of an agenda.

        Args:
            agenda: The bundles that wait. It is empty afterwards, except for cells of `shared` that
                others have taken.
            bar: The bar of all cells.
            label: Makes the beginning of a cell's lines from its number, counted from 1, and its
                places.
            shared: True if others may train cells of this agenda, which is then no problem.

        Returns:
            Name -> problem, for the cells that were not trained.
        """
        problems: Problems = {}
        while True:
            while self._may_start_any() and (found := self._next(agenda, problems, shared, bar)):
                self._start(*found, label)
            if not self._running:
                if not (shared and self._may_start_any() and self._waits_for_others(agenda)):
                    return problems if shared else problems | self._not_started(agenda, bar)
                time.sleep(ORIGIN_S)
                self.board.refresh()
                continue
            with contextlib.suppress(queue.Empty):
                problems |= self._finish(self._ended.get(timeout=LOOK_S), agenda, bar)
            show(bar, [(r.bundle[0], time.monotonic() - r.began) for r in self._running.values()])

    def _may_start_any(self) -> bool:
        return not self._stopping.is_set() and not self.is_late

    def _next(
        self, agenda: Agenda, problems: Problems, shared: bool, bar: CellsBar
    ) -> tuple[Bundle, tuple[Place, ...]] | None:
        """Take the next bundle that can start now; None if there is none."""
        if not shared:
            self._leave_out(agenda, problems, bar)
        free = self._free()
        packs = {self.workers[place].pack for place in free}
        ready = agenda.ready(lambda bundle: self._can_start(bundle, agenda), packs)
        bundles = {status.name: bundle for bundle in ready for status in bundle}

        def device(name: str) -> str:
            return device_of((self._places_for(bundles[name]) or free)[0])

        while ready:
            name = self.board.take(tuple(bundles), device)
            if name is None:
                if not shared:
                    for bundle in ready:
                        agenda.remove(bundle)
                        self._note_taken(bundle, problems, bar)
                return None
            bundle = bundles[name]
            agenda.remove(bundle)
            others = tuple(status.name for status in bundle if status.name != name)
            taken = {name}
            if others:
                taken |= {*self.board.take_several(others, len(others), device)}
            if not shared:
                self._note_taken(tuple(s for s in bundle if s.name not in taken), problems, bar)
            bundle = tuple(status for status in bundle if status.name in taken)
            return bundle, self._places_for(bundle) or ()
        return None

    def _note_taken(self, bundle: Bundle, problems: Problems, bar: CellsBar) -> None:
        """Note the cells that another worker has taken."""
        for status in bundle:
            why = self.board.standing.why_left_alone(status.name) or self.board.why_leave()
            text = why or "is taken by another worker"
            log.info("%s %s", status.name, text)
            problems[status.name] = Problem(text, held=not why)
        bar.advance([status.name for status in bundle], 0.0)

    def _leave_out(self, agenda: Agenda, problems: Problems, bar: CellsBar) -> None:
        """Remove the cells whose origin will have no result."""
        for bundle in list(agenda.waiting):
            first = bundle[0]
            if not first.origin or self._is_under_way(first.origin, agenda):
                continue
            if not self._has_origin(first):
                agenda.remove(bundle)
                reason = f"its origin {first.origin} is not done"
                log.info("%s left out: %s", first.name, reason)
                journal.note(self.journal, [{"cell": first.name, "ended": "left out"}])
                problems[first.name] = Problem(reason)
                self.tried.add(first.name)
                bar.advance([first.name], 0.0)

    def _not_started(self, agenda: Agenda, bar: CellsBar) -> Problems:
        """Say why the cells that are left cannot be started here."""
        problems: Problems = {}
        for bundle in list(agenda.waiting):
            agenda.remove(bundle)
            if self.is_late or not self._has_time(bundle, agenda):
                text = "was not started, since it cannot end before this job does"
            else:
                text = f"was not started: {self.why_left or 'there is no place for it'}"
            problems |= {status.name: Problem(text, stopped=True) for status in bundle}
            bar.advance([status.name for status in bundle], 0.0)
        return problems

    def _is_under_way(self, name: str, agenda: Agenda) -> bool:
        """Return True if a cell waits or is trained here."""
        running = {s.name for running in self._running.values() for s in running.bundle}
        return name in running or name in agenda.names

    def _has_origin(self, status: CellStatus) -> bool:
        """Return True if the cell that a cell starts from has a result, and did not fail here."""
        assert status.origin
        if status.origin in self.tried - self.done:
            return False
        return (self.context.results / status.origin / "result.json").exists()

    def _waits_for_others(self, agenda: Agenda) -> bool:
        """Return True if the origin of a waiting cell is trained elsewhere."""
        origins = {b[0].origin for b in agenda.waiting if b[0].origin} - self.tried
        taken = self.board.standing.taken
        return any(
            name in taken or holder_of(self.context.results / name) for name in origins if name
        )

    def _can_start(self, bundle: Bundle, agenda: Agenda) -> bool:
        first = bundle[0]
        if first.origin and (
            self._is_under_way(first.origin, agenda) or not self._has_origin(first)
        ):
            return False
        return self._has_time(bundle, agenda) and self._places_for(bundle) is not None

    def _has_time(self, bundle: Bundle, agenda: Agenda) -> bool:
        """Return False if a classical model would lose its fit at the end of this job.

        A network continues from its checkpoint.
        """
        minutes = agenda.minutes(bundle[0]) if bundle[0].cell.spec.is_classical else None
        return minutes is None or time.time() + 60 * minutes < self.until

    def _free(self) -> list[Place]:
        taken = {place for running in self._running.values() for place in running.places}
        return [place for place in self.places.all if place not in taken | self._left]

    def _places_for(self, bundle: Bundle) -> tuple[Place, ...] | None:
        """Return the places where a bundle can start now; None if it must wait.

        A cell that ran out of memory has no other beside it.
        """
        first = bundle[0]
        possible = [place for place in self.places.for_cell(first) if place not in self._left]
        if not possible:
            return None
        running = [running.bundle[0] for running in self._running.values()]
        if running and any(status.cause == Cause.MEMORY for status in (first, *running)):
            return None
        free = [place for place in self._free() if place in possible]
        n_ranks, cores = n_ranks_of(first, self.context), possible[0].cores
        n_places = n_ranks
        if cores:
            n_places = max(n_ranks, math.ceil(n_ranks * threads_of(first) / len(cores)))
        n_places = min(n_places, len(possible))
        in_use = sum(running.memory_gb for running in self._running.values())
        fits = in_use + self.needs.gb(bundle) <= self.places.memory_gb
        if n_places > len(free) or (self._running and not fits):
            return None
        pack = first.cell.spec.pack
        best = sorted(free, key=lambda place: self.workers[place].pack != pack)
        return tuple(best[:n_places])

    def _start(
        self,
        bundle: Bundle,
        places: tuple[Place, ...],
        label: Callable[[int, tuple[Place, ...]], str],
    ) -> None:
        """Start a thread that trains a bundle in its places; the first place's worker trains it."""
        self.n_started += 1
        attempt = Attempt(
            *(self.context, self.journal, bundle, label(self.n_started, places)),
            self._stopping.is_set,
        )
        worker, first = self.workers[places[0]], bundle[0]
        worker.pack = first.cell.spec.pack
        began, memory_gb = time.monotonic(), self.needs.gb(bundle)
        self._make_room(memory_gb, places[0])
        self._running[id(bundle)] = Running(bundle, places, began, memory_gb)

        def work() -> None:
            problems: Problems = {}
            error = None
            try:
                problems = attempt.train(worker, places)
            except BaseException as caught:
                error = caught
            seconds = time.monotonic() - began
            self._ended.put(Ended(bundle, problems, seconds, attempt.peak_gb, error))

        threading.Thread(target=work, daemon=True).start()

    def _make_room(self, memory_gb: float, place: Place) -> None:
        """End warm processes that have nothing to train, if a new cell needs the memory they hold.

        A warm process keeps its libraries, the rows of its pack and memory that it has freed.
        """
        busy = {running.places[0] for running in self._running.values()} | {place}
        idle = [worker for other, worker in self.workers.items() if other not in busy]
        held_gb = {id(worker): worker.held_gb() for worker in idle}
        in_use = sum(running.memory_gb for running in self._running.values()) + memory_gb
        for worker in sorted(idle, key=lambda worker: -held_gb[id(worker)]):
            if in_use + sum(held_gb.values()) <= self.places.memory_gb:
                return
            if held_gb.pop(id(worker)):
                worker.close()

    def _finish(self, ended: Ended, agenda: Agenda, bar: CellsBar) -> Problems:
        """Note the end of a training, and free its places."""
        running = self._running.pop(id(ended.bundle))
        self._note_device(running.places[0], ended.problems)
        for status in ended.bundle:
            problem = ended.problems.get(status.name)
            if ended.error or (self._stopping.is_set() and problem):
                self.board.give_back(status.name, "stopped")
            elif problem is None:
                self.board.done(status.name)
                self.done.add(status.name)
            elif problem.killed or problem.lost_device:
                self._killed[status.name] += 1
                if self._killed[status.name] < N_KILLS:
                    self.board.give_back(status.name, problem.text, is_lost=True)
                else:
                    self.board.failed(status.name, problem.text)
            elif problem.held or problem.stopped:
                self.board.give_back(status.name, problem.text)
            else:
                self.board.failed(status.name, problem.text)
        if ended.error:
            raise ended.error
        held = {name for name, problem in ended.problems.items() if problem.held}
        self.tried |= {s.name for s in ended.bundle} - held
        if not ended.problems:
            agenda.note(ended.bundle, ended.seconds)
        self.needs.note_peak(ended.bundle, ended.peak_gb)
        bar.advance([status.name for status in ended.bundle], ended.seconds)
        return ended.problems

    def _note_device(self, place: Place, problems: Problems) -> None:
        """Give up a place if its GPU was lost twice in a row; a new process did not help."""
        lost = [problem for problem in problems.values() if problem.lost_device]
        self._lost[place] = self._lost[place] + 1 if lost else 0
        if lost:
            self.workers[place].close()
        if self._lost[place] >= N_LOST:
            on = f"GPU {place.gpus}" if place.gpus else "the GPU"
            self.why_left = f"{on} is lost, and trains no more cells here: {lost[0].text}"
            log.warning("warning: %s", self.why_left)
            self._left.add(place)

    def _stop(self) -> None:
        """Let the trainings save and end; end those that take longer than STOP_S."""
        self._stopping.set()
        number, deadline = signal.SIGTERM, time.monotonic() + STOP_S
        while self._running:
            for running in self._running.values():
                self.workers[running.places[0]].tell(number)
            try:
                ended = self._ended.get(timeout=max(0.1, deadline - time.monotonic()))
                del self._running[id(ended.bundle)]
                for status in ended.bundle:
                    self.board.give_back(status.name, "stopped")
            except (queue.Empty, KeyboardInterrupt):
                # Whoever presses Ctrl-C twice does not want to wait.
                number, deadline = signal.SIGKILL, time.monotonic() + STOP_S
