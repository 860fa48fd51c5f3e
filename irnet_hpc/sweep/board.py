"""Let many workers take the cells of a matrix from one board, each cell by one worker.

    results/.sweep/board-<matrix>.jsonl      one line for each event (board_records.py)

The board only keeps workers from colliding; the lease in the run folder is what keeps a cell from
being trained twice. So taking a cell reads no run folder: a worker locks the board, reads the lines
that were added since it last looked, and appends a line of its own. It then reads that line back,
and holds the cell only if no earlier line took it: on a file system without locks, too, the first
of two lines wins.

The lines are not synced to disk one by one. After a power failure all workers are dead, and the
next one to join starts a new board.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from irnet_hpc import files
from irnet_hpc.distributed.processes import is_alive
from irnet_hpc.runs import lease
from irnet_hpc.runs.lease import N_BEATS, SeenLease, expiry_s
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.board_records import N_DEATHS, Event, Record, Standing

ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(Record)


class Board:
    """The seat of one worker at the board of a matrix.

    Make it before the ledger is read: then every cell that was done before is in the ledger, and
    every cell that is done later is on the board.

    Args:
        results: The folder of results.
        matrix: The name of the matrix.
        worker: The journal of the worker (cluster "worker"), which Leases.keep_touching touches.
            Other workers take a worker for dead if this file is not touched any more, if its
            process on this machine has ended, or if SLURM has restarted its job.
        device: A short description of what the worker trains on, for `status`.
    """

    def __init__(self, results: Path, matrix: str, worker: Path, device: str = "") -> None:
        self.path = board_path(results, matrix)
        self.token = journal.token_of(worker)
        identity = msgspec.structs.replace(lease.new_lease(), token=self.token)
        self.seat = Record(
            Event.WORKER, self.token, identity=identity, journal=worker.name, device=device
        )
        self.standing = Standing()
        self._head = b""  # the first line of the board that was read
        self._offset = 0  # the bytes of it that were read
        self._looked_s = float("-inf")  # when dead workers were last looked for
        # Lines that wait for the next time this worker locks the board.
        self._waiting: list[Record] = []
        # The last tuple of candidates, the place before which none is free, and n_freed then.
        self._place: tuple[tuple[str, ...], int, int] = ((), 0, 0)

    def __enter__(self) -> "Board":
        with self._alone() as file:
            self._free_dead(file)
            if not self.standing.workers:
                # Failures of an ended sweep do not bind a new one, which may try again.
                os.ftruncate(file.fileno(), 0)
            self._join(file)
        return self

    def __exit__(self, *_: object) -> None:
        with self._alone() as file:
            self._append(file, Record(Event.LEFT, self.token))

    @property
    def host(self) -> str:
        """The name of this worker's host."""
        assert self.seat.identity is not None
        return self.seat.identity.host

    def take(
        self, candidates: Sequence[str], device: Callable[[str], str] = lambda name: ""
    ) -> str | None:
        """Take the first candidate that nobody holds and that may be trained on this host.

        Args:
            candidates: The names of cells, in the caller's order. If it is a tuple and the next
                call gets the same one, the search goes on where it ended.
            device: Cell -> the device that trains it, if this worker has several.

        Returns:
            The name; None if no candidate is free, or if this host is left alone (`why_leave`).
        """
        return next(iter(self.take_several(candidates, 1, device)), None)

    def take_several(
        self, candidates: Sequence[str], n: int, device: Callable[[str], str] = lambda name: ""
    ) -> list[str]:
        """Take the first `n` candidates that are free, as the cells of a bundle, or fewer."""
        # Most of the search needs no lock, since a cell that was taken is rarely free again.
        self._choose(candidates, n)
        with self._alone() as file:
            self._join(file)
            if time.monotonic() - self._looked_s > expiry_s() / N_BEATS:
                self._free_dead(file)
            has_looked = False
            while not self.why_leave():
                names = self._choose(candidates, n)
                if not names and not has_looked:
                    has_looked = True
                    self._free_dead(file, only_here=True)
                    continue
                now = time.time()
                takes = [
                    Record(Event.TAKE, self.token, name, device=device(name), at=now)
                    for name in names
                ]
                self._append(file, *takes)
                # Without locks another worker's line may have come first.
                held = [name for name in names if self.holds(name)]
                if held or not names:
                    return held
        return []

    def holds(self, name: str) -> bool:
        """Return True if this worker holds a cell, as far as the board was read."""
        taken = self.standing.taken.get(name)
        return taken is not None and taken.token == self.token

    def done(self, name: str) -> None:
        """Record that a cell has its result.

        The line is written together with that of the next cell that this worker takes, which
        halves the waits for the lock. Until then the cell counts as taken, so nobody else takes it;
        if the worker dies before, the next one finds the result.
        """
        self._waiting.append(Record(Event.DONE, self.token, name, at=time.time()))

    def failed(self, name: str, cause: str) -> None:
        """Record that a cell itself failed here, by an error or for want of memory.

        No worker of this host takes it again. Other hosts may, until it has failed on three.

        Args:
            name: The cell.
            cause: A line that says why.
        """
        self._note(Record(Event.FAILED, self.token, name, cause, at=time.time()))

    def give_back(self, name: str, cause: str, is_lost: bool = False) -> None:
        """Give a cell back through no fault of its own; another worker may take it at once.

        Args:
            name: The cell.
            cause: A line that says why: the job ends, the GPU is lost, another process trains it.
            is_lost: True if the GPU was lost, or the process killed, while it trained the cell. As
                with a worker that dies, the cell is taken last once this has happened twice.
        """
        event = Event.LOST if is_lost else Event.BACK
        self._note(Record(event, self.token, name, cause, at=time.time()))

    def reopen(self, names: Iterable[str]) -> None:
        """Let cells be taken again that have failed or are done, since a user asks for them."""
        with self._alone() as file:
            self._append(file, *(Record(Event.REOPEN, self.token, name) for name in names))

    def refresh(self) -> None:
        """Read what others have done, write what waits, and free the cells of dead workers."""
        with self._alone() as file:
            self._free_dead(file)

    def why_leave(self) -> str | None:
        """Say why this worker should end: its host fails every cell; None if it should not."""
        return self.standing.why_host_is_left_alone(self.host)

    def _note(self, record: Record) -> None:
        with self._alone() as file:
            self._append(file, record)

    def _choose(self, candidates: Sequence[str], n: int) -> list[str]:
        """Return the first `n` free candidates; last those with which workers have died."""
        standing, host, start = self.standing, self.host, 0
        closed, failures, deaths = standing.closed, standing.failures, standing.deaths
        if self._place[0] is candidates and self._place[2] == standing.n_freed:
            start = self._place[1]
        chosen: list[str] = []
        last: list[str] = []
        first_free = len(candidates)
        for i in range(start, len(candidates)):
            name = candidates[i]
            if name in closed or (name in failures and host in failures[name]):
                continue
            first_free = min(first_free, i)
            (last if deaths[name] >= N_DEATHS else chosen).append(name)
            if len(chosen) == n:
                break
        if isinstance(candidates, tuple):
            self._place = (candidates, first_free, standing.n_freed)
        return [*chosen, *last][:n]

    def _join(self, file: IO[bytes]) -> None:
        """Append this worker's seat if the board lacks it, with the cells that it holds."""
        if self.token not in self.standing.workers:
            self._append(file, self.seat)

    def _free_dead(self, file: IO[bytes], only_here: bool = False) -> None:
        """Record which of the other workers are dead; their cells are free then.

        Each worker's heartbeat is a question to the file server, so one worker asks for all, once
        in a beat (LOOK). With `only_here`, the processes of this machine are looked at, without a
        question.
        """
        assert self.seat.identity is not None
        here, workers = self.seat.identity.machine, self.standing.workers
        if only_here:
            dead = {
                token
                for token, record in workers.items()
                if here and record.identity and record.identity.machine == here
                if not is_alive(record.identity.process)
            }
        else:
            now = lease.file_server_time(self.path.parent)
            dead = workers.keys() - living_workers(self.standing, self.path.parent, now, self.seat)
            self._append(file, Record(Event.LOOK, self.token))
        dead -= {self.token}
        self._append(file, *(Record(Event.DEAD, token) for token in sorted(dead)))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[IO[bytes]]:
        """Open the board, lock it, and read what is new.

        The lock is on the board itself: an NFS client writes a file back when it unlocks it, and
        asks the server for it anew when it locks it (nfs(5), "Using file locks").
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with self.path.open("a+b", buffering=0) as file:
                files.lock(file, wait=True)
                try:
                    is_current = os.path.samestat(os.fstat(file.fileno()), self.path.stat())
                except FileNotFoundError:
                    is_current = False  # `prune` has removed it
                if is_current:
                    self._read(file)
                    yield file
                    return

    def _append(self, file: IO[bytes], *records: Record) -> None:
        """Append records as one piece, and read them back with what others appended before."""
        records = (*self._waiting, *records)
        if not records:
            return
        self._waiting.clear()
        descriptor, size = file.fileno(), os.fstat(file.fileno()).st_size
        text = b"".join(ENCODER.encode(record) + b"\n" for record in records)
        if size == 0:
            text = ENCODER.encode(Record(Event.BOARD, secrets.token_hex(8))) + b"\n" + text
        elif os.pread(descriptor, 1, size - 1) != b"\n":
            # A writer was killed within its line; the line stays without effect.
            text = b"\n" + text
        while text:
            text = text[os.write(descriptor, text) :]
        self._read(file)

    def _read(self, file: IO[bytes]) -> None:
        """Apply the lines that were added since the last call; all, if this is another board."""
        descriptor = file.fileno()
        if self._offset and os.pread(descriptor, len(self._head), 0) != self._head:
            self._head, self._offset, self.standing = b"", 0, Standing()
        n_bytes = os.fstat(descriptor).st_size - self._offset
        text = os.pread(descriptor, max(0, n_bytes), self._offset)
        end = text.rfind(b"\n") + 1
        if not self._offset:
            self._head = text[: text.find(b"\n") + 1]
        self._offset += end
        n_looks = self.standing.n_looks
        apply_lines(self.standing, text[:end])
        if self.standing.n_looks > n_looks:
            self._looked_s = time.monotonic()


def board_path(results: Path, matrix: str) -> Path:
    """Return the path of the board of a matrix."""
    return Path(results) / journal.FOLDER / f"board-{matrix}.jsonl"


def read_standing(path: Path) -> Standing:
    """Read a board without taking part; an empty standing if there is none."""
    standing = Standing()
    with contextlib.suppress(FileNotFoundError):
        text = path.read_bytes()
        apply_lines(standing, text[: text.rfind(b"\n") + 1])
    return standing


def apply_lines(standing: Standing, lines: bytes) -> None:
    """Apply whole lines to a standing. A line that a kill cut short has no effect."""
    for line in lines.split(b"\n"):
        if line:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                standing.apply(DECODER.decode(line))


def living_workers(
    standing: Standing, folder: Path, now: float | None, asking: Record | None = None
) -> dict[str, Record]:
    """Return the workers that have not ended without a word, token -> record.

    Args:
        standing: The standing of a board.
        folder: The folder of the journals.
        now: The file server's time in s; None: unknown.
        asking: The worker that asks; None: it is not a worker.
    """
    return {
        token: record
        for token, record in standing.workers.items()
        if not _is_dead(record, folder, now, asking)
    }


def remove_board(path: Path) -> bool:
    """Remove a board. Returns False if it has living workers, and then leaves it."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        files.lock(file, wait=True)
        now = lease.file_server_time(path.parent)
        if living_workers(read_standing(path), path.parent, now):
            return False
        path.unlink()
    return True


def _is_dead(worker: Record, folder: Path, now: float | None, asking: Record | None) -> bool:
    """Return True if a worker has ended without a word."""
    assert worker.identity is not None
    try:
        # NFS asks the server for a file's age when the file is opened.
        with (folder / worker.journal).open("rb") as file:
            touched = os.fstat(file.fileno()).st_mtime
    except OSError:
        return True
    seen = SeenLease(worker.identity, touched)
    return lease.is_expired(seen, now, asking.identity if asking else None)
