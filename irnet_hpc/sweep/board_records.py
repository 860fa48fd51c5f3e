"""Describe the records on the board of a matrix, and what follows from them in their order.

The records alone decide who holds which cell, so all processes that read the same file agree. A
record that does not apply, such as the taking of a cell that another worker holds, changes nothing.
"""

import dataclasses
from collections import Counter, defaultdict
from enum import StrEnum

import msgspec

from irnet_hpc.runs.lease import Lease

# The hosts on which a cell must fail before it is left alone, and the cells in a row that a host
# must fail before the host is.
N_FAILED_HOSTS = 3
N_FAILED_CELLS = 3
# After so many workers, processes or GPUs were lost with a cell, it is taken only when no other is
# free: it may be what killed them.
N_DEATHS = 2


class Event(StrEnum):
    """The kinds of records."""

    BOARD = "board"  # the first line; `by` is a random number that names the board
    WORKER = "worker"  # a worker joins, or joins again after it was taken for dead
    TAKE = "take"
    DONE = "done"
    FAILED = "failed"  # the cell itself failed, and `cause` says why
    BACK = "back"  # a worker gives the cell back untrained, and `cause` says why
    LOST = "lost"  # the same, and its GPU was lost or its process killed while it trained the cell
    REOPEN = "reopen"  # a user asks for the cell again, which failed or is done
    LOOK = "look"  # the worker `by` has looked for dead workers
    DEAD = "dead"  # the worker `by` is dead; its cells are free
    LEFT = "left"  # the worker `by` has ended; its cells are free


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the board."""

    event: Event
    # The token of the worker that this is about.
    by: str
    cell: str = ""
    cause: str = ""
    # WORKER: who it is, and the name of its journal's file.
    identity: Lease | None = None
    journal: str = ""
    # WORKER and TAKE: the device that the worker, or the cell, is trained on.
    device: str = ""
    # The time of the worker's own clock, in s since 1970.
    at: float = 0.0


class Taken(msgspec.Struct, frozen=True):
    """A cell in the hands of a worker."""

    token: str
    # The number of the record that took it: smaller numbers are earlier.
    number: int
    at: float
    device: str = ""


@dataclasses.dataclass
class HostRecord:
    """Count how the cells ended that the workers of one host have trained."""

    n_done: int = 0
    # The cells that failed since the last one that was done: name and number of its taking.
    streak: list[tuple[str, int]] = dataclasses.field(default_factory=list)


class Standing:
    """The state of all cells and workers, brought up to date by one record after the other."""

    def __init__(self) -> None:
        # The workers that are present: token -> their record.
        self.workers: dict[str, Record] = {}
        self.taken: dict[str, Taken] = {}
        self.done: set[str] = set()
        # Cells that nobody may take: those that are taken, done or left alone.
        self.closed: set[str] = set()
        # cell -> host -> why the cell failed there
        self.failures: dict[str, dict[str, str]] = {}
        # cell -> the number of workers, processes and GPUs that were lost with it
        self.deaths: Counter[str] = Counter()
        self.hosts: dict[str, HostRecord] = defaultdict(HostRecord)
        # It grows whenever a cell that was not free may be free again.
        self.n_freed = 0
        # How often any worker has looked for dead ones.
        self.n_looks = 0
        self._held: dict[str, set[str]] = defaultdict(set)
        self._n_records = 0

    def apply(self, record: Record) -> None:
        """Let a record take effect."""
        self._n_records += 1
        if record.event == Event.TAKE:
            self._take(record)
        elif record.event in (Event.DONE, Event.FAILED, Event.BACK, Event.LOST):
            self._give_up(record)
        elif record.event == Event.REOPEN:
            self._reopen(record.cell)
        elif record.event == Event.LOOK:
            self.n_looks += 1
        elif record.event == Event.WORKER and record.identity is not None:
            self.workers[record.by] = record
        elif record.event in (Event.DEAD, Event.LEFT):
            self.workers.pop(record.by, None)
            for name in self._held.pop(record.by, ()):
                self.deaths[name] += record.event == Event.DEAD
                self._free(name)

    def held_by(self, token: str) -> set[str]:
        """Return the names of the cells that a worker holds."""
        return set(self._held.get(token, ()))

    def is_free(self, name: str, host: str) -> bool:
        """Return True if a worker on `host` may take a cell."""
        return name not in self.closed and host not in self.failures.get(name, ())

    def why_left_alone(self, name: str) -> str | None:
        """Say why no worker takes a cell any more; None if it is not left alone."""
        failures = self.failures.get(name, {})
        if len(failures) < N_FAILED_HOSTS:
            return None
        *_, cause = failures.values()
        return f"{name} failed on {', '.join(sorted(failures))} and is left alone; at last: {cause}"

    def why_host_is_left_alone(self, host: str) -> str | None:
        """Say why a host is left alone; None if it is not.

        The last cells of the host have failed, no other host has failed any of them, and another
        host has done a cell, or still trains one that it took before the first of these.
        """
        last = self.hosts[host].streak[-N_FAILED_CELLS:] if host in self.hosts else []
        failures = [self.failures.get(name, {}) for name, _ in last]
        if len(last) < N_FAILED_CELLS or any(len(on_hosts) != 1 for on_hosts in failures):
            return None
        others = {record.identity.host for record in self.workers.values() if record.identity}
        first = min(number for _, number in last)
        works_elsewhere = any(h != host and seen.n_done for h, seen in self.hosts.items()) or any(
            taken.number < first and self._host_of(taken.token) in others - {host}
            for taken in self.taken.values()
        )
        if not works_elsewhere:
            return None
        cause = failures[-1][host]
        return (
            f"{host} failed {len(last)} cells in a row, while other hosts train; the last: {cause}"
        )

    def _host_of(self, token: str) -> str:
        record = self.workers.get(token)
        return record.identity.host if record and record.identity else ""

    def _take(self, record: Record) -> None:
        host = self._host_of(record.by)
        if host and self.is_free(record.cell, host):
            self.taken[record.cell] = Taken(record.by, self._n_records, record.at, record.device)
            self._held[record.by].add(record.cell)
            self.closed.add(record.cell)

    def _give_up(self, record: Record) -> None:
        name, taken = record.cell, self.taken.get(record.cell)
        is_holder = taken is not None and taken.token == record.by
        if record.event == Event.DONE:
            # True also if the worker was taken for dead meanwhile: only the owner of the lease
            # can have written the result.
            self.done.add(name)
            self.closed.add(name)
        if taken is None or not is_holder:
            return
        host = self._host_of(record.by)
        self._held[record.by].discard(name)
        if record.event == Event.DONE:
            del self.taken[name]
            self.hosts[host].n_done += 1
            self.hosts[host].streak.clear()
            return
        if record.event == Event.FAILED:
            self.failures.setdefault(name, {})[host] = record.cause
            self.hosts[host].streak.append((name, taken.number))
        self.deaths[name] += record.event == Event.LOST
        self._free(name)

    def _reopen(self, name: str) -> None:
        self.failures.pop(name, None)
        self.done.discard(name)
        if name not in self.taken:
            self.closed.discard(name)
            self.n_freed += 1

    def _free(self, name: str) -> None:
        del self.taken[name]
        if name not in self.done and len(self.failures.get(name, ())) < N_FAILED_HOSTS:
            self.closed.discard(name)
            self.n_freed += 1
