"""Lease runs to processes: a run is trained by one process, and only the lease holder may write.

    <run folder>/lease.json     token, host, process, job; its mtime is the last heartbeat

The lease file is created by link(2), which fails if the file exists, on NFS too. The owner touches
the file every 10 seconds. Before every rename into the run folder, the owner checks that the file
still holds its own token. A lease expires when it has not been touched for EXPIRY_S by the file
server's clock. It expires at once if its owner is known to be dead: a process of this machine that
has ended, or an earlier start of the same SLURM job. docs/reliability.md says which cases remain.
"""

import contextlib
import errno
import functools
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from irnet_hpc import files
from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.processes import is_alive, machine, process_name
from irnet_hpc.distributed.slurm_commands import own_job, restart_count
from irnet_hpc.errors import UserError

LEASE_FILE = "lease.json"
EXPIRY_S = 120.0
# Heartbeats (touches of the lease file) within EXPIRY_S. A beat may come late if a library blocks
# Python's threads or a file server restarts.
N_BEATS = 12
# The errors that link(2) gives on file systems without hard links.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class RunIsHeld(UserError):
    """Signal that another process trains the run."""

    exit_status = ExitStatus.HELD


class LeaseLost(RunIsHeld):
    """Signal that this process has lost its run: another took it over, or its files are gone."""

    exit_status = ExitStatus.USER_ERROR


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of lease.json: the process that trains a run."""

    # It becomes part of a file's name, so it must not contain a slash.
    token: Annotated[str, msgspec.Meta(pattern=r"\A[^/\0]{1,80}\Z")]
    host: str
    machine: str  # as processes.machine() names it
    process: str  # as processes.process_name() names it
    job: str | None  # the id that means only this job to SLURM's commands
    restart: int  # how often SLURM has restarted the job
    started: str  # ISO time

    def __str__(self) -> str:
        job = f" (job {self.job})" if self.job else ""
        return f"process {self.process.partition('@')[0]} on {self.host}{job}"


UNREADABLE = Lease("", "an unknown host", "", "?", None, 0, "")


class SeenLease(NamedTuple):
    """A lease, and when it was last touched."""

    lease: Lease
    touched: float  # its mtime in s, by the file server's clock


def expiry_s() -> float:
    """Return how many seconds without a heartbeat make a lease expire.

    $IRNET_LEASE_S changes it for tests; all processes that share results must use the same number.
    """
    text = os.environ.get("IRNET_LEASE_S") or str(EXPIRY_S)
    with contextlib.suppress(ValueError):
        if 0.1 <= float(text) <= 86_400:
            return float(text)
    raise UserError(f"IRNET_LEASE_S must be a number of seconds from 0.1 to 86,400, got {text!r}")


def read_lease(folder: Path | str) -> SeenLease | None:
    """Read the lease of a run folder, even an expired one; None if there is no lease."""
    return _read(Path(folder) / LEASE_FILE)


def is_expired(seen: SeenLease, now: float | None, successor: Lease | None = None) -> bool:
    """Return True if a lease has expired, because its process no longer trains.

    Args:
        seen: The lease.
        now: The file server's time in s. None means it is unknown; then no lease expires because of
            its age.
        successor: The lease of the process that wants the run. If both belong to the same SLURM job
            and the job has been restarted, the earlier process no longer runs.
    """
    lease = seen.lease
    is_restart = (
        successor is not None
        and bool(successor.job)
        and successor.job == lease.job
        and successor.restart > lease.restart
    )
    is_dead = bool(lease.machine) and lease.machine == machine() and not is_alive(lease.process)
    return is_restart or is_dead or (now is not None and now - seen.touched > expiry_s())


def file_server_time(folder: Path) -> float | None:
    """Return the file server's time in s: the mtime of a new file; None if none can be created."""
    path = folder / f".clock.{secrets.token_hex(4)}.tmp"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def new_lease() -> Lease:
    """Make a lease for this process, with a new token."""
    return Lease(
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        machine=machine(),
        process=process_name(os.getpid()) or str(os.getpid()),
        job=own_job(),
        restart=restart_count(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class Leases:
    """The runs that this process holds, and the thread that keeps their leases alive.

    A command, or a call of the library, makes one such object and passes it to all code that writes
    into run folders. Leaving its `with` block releases all runs.
    """

    def __init__(self) -> None:
        # run folder -> its lease, and an open descriptor of the lease file
        self._held: dict[Path, tuple[Lease, int]] = {}
        # On ranks other than 0: run folder -> the token of rank 0's lease on it.
        self._shared: dict[Path, str] = {}
        self._touched: set[int] = set()  # descriptors of other files to touch
        # Held while descriptors are touched or closed: the number of a closed one may be reused.
        self._touching = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> "Leases":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def acquire(self, folder: Path | str) -> bool:
        """Acquire the lease of a run.

        If the present owner is on another machine, only its next heartbeat shows that it is alive,
        so this method waits for one. It measures the wait by a monotonic clock, because the file
        server's clock may jump, for example after a machine was asleep. For the same reason, if a
        lease looks expired but its owner is alive on this machine, the method waits for two more
        heartbeats.

        Args:
            folder: The run folder, which is created if it is missing.

        Returns:
            False if this process held the run already.

        Raises:
            RunIsHeld: If another process holds the run.
        """
        folder = Path(folder).resolve()
        if self.token_of(folder):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        first, since, beat_s = None, time.monotonic(), expiry_s() / N_BEATS
        while True:
            lease = new_lease()
            with _lease_file(folder, lease) as (temporary, now):
                if (descriptor := _create(folder / LEASE_FILE, temporary)) is not None:
                    break
                if (seen := read_lease(folder)) is None:  # released meanwhile
                    continue
                watched_s = time.monotonic() - since if seen == first else 0.0
                is_here = bool(lease.machine) and seen.lease.machine == lease.machine
                if is_expired(seen, now, lease):
                    is_live = is_here and is_alive(seen.lease.process)
                    may_beat = is_live and watched_s < 2 * beat_s
                else:
                    may_beat = watched_s < expiry_s()
                    if may_beat and (is_here or (first and seen != first)):
                        raise _held_by(seen, folder, now)
                if not may_beat:
                    descriptor = _take_over(folder, seen.lease, temporary)
                    if descriptor is not None:
                        break
            if seen != first:
                first, since = seen, time.monotonic()
            time.sleep(min(0.5, beat_s / 4))
        with self._touching:
            self._held[folder] = (lease, descriptor)
        self._start_beating()
        return True

    def token_of(self, folder: Path | str) -> str | None:
        """Return the token of a run's lease; None if neither this process nor rank 0 holds it."""
        folder = Path(folder).resolve()
        return self._held[folder][0].token if folder in self._held else self._shared.get(folder)

    def share(self, folder: Path | str, token: str) -> None:
        """Allow this rank to write into a run that rank 0 holds with the lease `token`."""
        self._shared[Path(folder).resolve()] = token

    def release(self, folder: Path | str) -> None:
        """Release a run.

        If another process has taken the run over, the lease of that process stays.
        """
        folder = Path(folder).resolve()
        self._shared.pop(folder, None)
        if folder not in self._held:
            return
        with self._touching:
            lease, descriptor = self._held.pop(folder)
            os.close(descriptor)
        with (
            contextlib.suppress(OSError),
            _lease_file(folder, lease) as (temporary, _),
            _ending(folder, lease, temporary) as may_end,
        ):
            if may_end:
                (folder / LEASE_FILE).unlink()

    def close(self) -> None:
        """Release all runs and stop touching files."""
        for folder in [*self._held, *self._shared]:
            self.release(folder)
        with self._touching:
            for descriptor in self._touched:
                os.close(descriptor)
            self._touched.clear()
        self._stopped.set()

    def keep_touching(self, path: Path) -> None:
        """Touch one more file at every heartbeat, as a sign that this process is alive."""
        with self._touching:
            self._touched.add(os.open(path, os.O_RDONLY))
        self._start_beating()

    def check(self, path: Path | str) -> None:
        """Raise LeaseLost if `path` is in a run folder whose lease this process has lost.

        Nothing is raised for a folder that this process has never held.
        """
        path = Path(path).resolve()
        folder = next((parent for parent in (path, *path.parents) if self.token_of(parent)), None)
        if folder is None:
            return
        seen = read_lease(folder)
        if seen is not None and seen.lease.token == self.token_of(folder):
            return
        if not folder.exists():
            reason = f"{folder} no longer exists: somebody has removed or renamed it"
        elif seen is None:
            reason = (
                f"the lease of {folder} is gone: somebody has removed it, or another process "
                "took the run over and finished it"
            )
        else:
            reason = (
                f"{seen.lease} has taken over {folder}, since this process gave no heartbeat for "
                f"{expiry_s():g} s"
            )
        raise LeaseLost(f"{reason}; the training stops and writes nothing more")

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Replace a file as files.replacing does, but only if this process holds its run."""
        self.check(path)  # once here, before the content is made, and again before the rename
        allowed = functools.partial(self.check, path)
        with files.replacing(path, allowed=allowed) as temporary:
            yield temporary

    def write_json(self, path: Path, value: object) -> None:
        """Write a JSON file as files.write_json does, but only if this process holds its run."""
        with self.replacing(path) as temporary:
            temporary.write_text(files.json_text(value), encoding="utf-8")

    def _start_beating(self) -> None:
        """Start the thread that touches this process's files, unless it is running already."""
        if self._thread is None or self._stopped.is_set():
            self._stopped = threading.Event()
            self._thread = threading.Thread(target=self._beat, args=(self._stopped,), daemon=True)
            self._thread.start()

    def _beat(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            with self._touching:
                for descriptor in (*self._touched, *(fd for _, fd in self._held.values())):
                    # The file server may be away for a while; then try again at the next beat.
                    with contextlib.suppress(OSError):
                        os.utime(descriptor)
            stopped.wait(expiry_s() / N_BEATS)


def _held_by(seen: SeenLease, folder: Path, now: float) -> RunIsHeld:
    return RunIsHeld(
        f"{folder} is being trained by {seen.lease}, whose last heartbeat was "
        f"{max(0, now - seen.touched):.0f} s ago; wait for it, or stop it there: a process that "
        f"gives no heartbeat for {expiry_s():g} s loses its run"
    )


@contextlib.contextmanager
def _lease_file(folder: Path, lease: Lease) -> Iterator[tuple[Path, float]]:
    """Yield a temporary file that contains the lease, and the file server's time."""
    path = folder / f".lease.{secrets.token_hex(4)}.tmp.json"
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(msgspec.structs.asdict(lease), file)
            file.flush()
            os.fsync(file.fileno())
            now = os.fstat(file.fileno()).st_mtime
        yield path, now
    finally:
        path.unlink(missing_ok=True)


def _create(path: Path, temporary: Path) -> int | None:
    """Give the file `temporary` the additional name `path`, unless a file of this name exists.

    Of several processes only one succeeds.

    Returns:
        A descriptor of the file, or None if `path` exists. Heartbeats must touch this descriptor
            and not the name: a late heartbeat then cannot touch the lease of another process.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        # If there are two links, the call had succeeded but the server's answer was lost (see
        # open(2), O_EXCL).
        if temporary.stat().st_nlink < 2:
            return None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        os.write(descriptor, temporary.read_bytes())
        return descriptor
    return os.open(path, os.O_RDONLY)


def _take_over(folder: Path, expired: Lease, temporary: Path) -> int | None:
    """Replace an expired lease by that in `temporary`; None if another process did so first."""
    with _ending(folder, expired, temporary) as may_end:
        if not may_end:
            return None
        descriptor = os.open(temporary, os.O_RDONLY)
        temporary.replace(folder / LEASE_FILE)
        return descriptor


@contextlib.contextmanager
def _ending(folder: Path, lease: Lease, temporary: Path) -> Iterator[bool]:
    """Yield True if the lease still exists and no other process may remove or replace it now.

    Simply renaming an expired lease would not be safe: if two processes find it expired, the slower
    one would rename the new lease of the faster one. So a process that ends a lease, even its
    owner, first creates a claim file named after the lease's token. Only one process can create
    this file.
    """
    claim = folder / f".lease-{lease.token}.claim"
    descriptor = _create(claim, temporary)
    if descriptor is None:
        other = _read(claim)
        # The process that made the claim was killed before it could remove the file.
        if other and is_expired(other, file_server_time(folder)):
            claim.unlink(missing_ok=True)
        yield False
        return
    os.close(descriptor)
    try:
        seen = read_lease(folder)
        yield seen is not None and seen.lease.token == lease.token
    finally:
        claim.unlink(missing_ok=True)


def _read(path: Path) -> SeenLease | None:
    """Read a lease. Returns UNREADABLE if the file is incomplete, None if there is no file.

    The file is opened before its mtime is read, because NFS then asks the server instead of its
    cache.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text, touched = file.read(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except PermissionError:  # the file belongs to another user and is not readable
        text, touched = "", path.stat().st_mtime
    try:
        return SeenLease(msgspec.convert(json.loads(text), Lease), touched)
    except (ValueError, RecursionError):
        return SeenLease(UNREADABLE, touched)
