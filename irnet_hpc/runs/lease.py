"""Leases: which process trains a run. Never two at once, and one that wakes up late overwrites nothing.

    <run folder>/lease.json     token, host, process, job; its mtime is when its owner was last heard of

The lease appears by link(2), which fails where there is one, on NFS too. Its owner touches it every 10 seconds, and asks
before every rename into the run folder whether the token in it is still its own. A lease is over when it has not been
touched for EXPIRY_S by the file server's clock, or at once where its owner is known to be dead: a process of this
machine, or an earlier start of the same SLURM job. docs/reliability.md says what that leaves open.
"""

import contextlib
import errno
import functools
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from irnet_hpc import files
from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.processes import is_alive, machine, process_name
from irnet_hpc.errors import UserError

NAME = "lease.json"
EXPIRY_S = 120.0
NO_LINKS = {
    errno.EPERM,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EMLINK,
}  # what file systems without hard links say


class RunIsHeld(UserError):
    """Another process trains the run."""

    exit_status = ExitStatus.HELD


class LeaseLost(RunIsHeld):
    """This process held the run and no longer does: another took it over, or its files are gone."""

    exit_status = ExitStatus.USER_ERROR


class Lease(NamedTuple):
    """Who trains a run, as lease.json has it."""

    token: str
    host: str
    machine: str  # as process.machine() has it
    process: str  # as process_name() has it
    job: str | None  # SLURM's number
    restart: int  # how often SLURM has started the job again
    started: str  # ISO

    def __str__(self) -> str:
        return f"process {self.process.partition('@')[0]} on {self.host}" + (
            f" (job {self.job})" if self.job else ""
        )


class Seen(NamedTuple):
    """A lease as it was found; `touched` is its mtime, by the file server's clock, in s."""

    lease: Lease
    touched: float


def expiry_s() -> float:
    """After so many seconds without a beat a lease is over. $IRNET_LEASE_S is for tests: all that share results must agree."""
    text = os.environ.get("IRNET_LEASE_S") or str(EXPIRY_S)
    try:
        if 0.1 <= float(text) <= 86_400:
            return float(text)
    except ValueError:
        pass
    raise UserError(f"IRNET_LEASE_S must be seconds from 0.1 to 86,400, however: {text!r}")


def look(folder: Path | str) -> Seen | None:
    """The lease of a run folder, over or not; None where there is none."""
    return _read(Path(folder) / NAME)


def is_over(seen: Seen, now: float | None, ours: Lease | None = None) -> bool:
    """Whether nobody trains under a lease any more. `now`: the file server's clock; None: unknown, and no lease is old.

    `ours`: of a process that would succeed it: a job of SLURM's that has been started again is not running elsewhere.
    """
    lease = seen.lease
    again = ours and ours.job and ours.job == lease.job and ours.restart > lease.restart
    dead = lease.machine and lease.machine == machine() and not is_alive(lease.process)
    return bool(again or dead or (now is not None and now - seen.touched > expiry_s()))


def clock(folder: Path) -> float | None:
    """What the file server's clock says, in s: the mtime of a file just made. None where we may not make one."""
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


def new() -> Lease:
    name = process_name(os.getpid()) or str(os.getpid())
    job, restart = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):  # as the queue shows it
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Lease(secrets.token_hex(8), socket.gethostname(), machine(), name, job, restart, now)


@contextlib.contextmanager
def lease_file(folder: Path, lease: Lease) -> Iterator[tuple[Path, float]]:
    """A file that holds the lease whole, to be linked to its name; and the file server's clock, which has just dated it."""
    path = folder / f".lease.{secrets.token_hex(4)}.tmp.json"
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(lease._asdict(), file)
            file.flush()
            os.fsync(file.fileno())
            now = os.fstat(file.fileno()).st_mtime
        yield path, now
    finally:
        path.unlink(missing_ok=True)


def create(path: Path, temporary: Path) -> int | None:
    """Give what is in `temporary` the name `path`, and return a descriptor of it; None where there is such a file.

    Only one of several processes can. The descriptor is touched as it beats, so that a late beat is never another's.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        if (
            temporary.stat().st_nlink < 2
        ):  # else it was done, and the file server's answer was lost (open(2), O_EXCL)
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


def succeed(folder: Path, theirs: Lease, temporary: Path) -> int | None:
    """Put the lease in `temporary` in the place of one that is over; None where another process is about to, or has."""
    with ending(folder, theirs, temporary) as may:
        if not may:
            return None
        descriptor = os.open(temporary, os.O_RDONLY)
        temporary.replace(folder / NAME)
        return descriptor


@contextlib.contextmanager
def ending(folder: Path, theirs: Lease, temporary: Path) -> Iterator[bool]:
    """Whether we alone may now end a lease, and it is still there.

    Renaming it away would not do: who found it over, and comes second, would rename the first one's away. So whoever ends
    a lease, its owner too, first makes a file that is named after its token, as the lease itself is made.
    """
    claim = folder / f".lease-{theirs.token}.claim"
    descriptor = create(claim, temporary)
    if descriptor is None:
        other = _read(claim)
        if other and is_over(other, clock(folder)):  # killed between two lines of this function
            claim.unlink(missing_ok=True)
        yield False
        return
    os.close(descriptor)
    try:
        there = look(folder)
        yield there is not None and there.lease.token == theirs.token
    finally:
        claim.unlink(missing_ok=True)


def _read(path: Path) -> Seen | None:
    """A lease, or one without a name where the file is not whole (yet); None where there is none.

    The file is opened before it is asked its age: then NFS asks the server, rather than what it remembers.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text, touched = file.read(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except PermissionError:  # another user's, who wants it so
        text, touched = "", path.stat().st_mtime
    try:
        lease = _checked(Lease(**json.loads(text)))
    except (ValueError, TypeError, RecursionError):
        lease = Lease("", "an unknown host", "", "?", None, 0, "")
    return Seen(lease, touched)


def _checked(lease: Lease) -> Lease:
    """Raises TypeError where a field is not of its type, or the token, which names a file, names a path."""
    if not all(
        isinstance(value, kind)
        for value, kind in zip(lease, Lease.__annotations__.values(), strict=True)
    ):
        raise TypeError("a field is not of its type")
    if not re.fullmatch(r"[^/\0]{1,80}", lease.token):
        raise TypeError("the token cannot be part of a file's name")
    return lease


N_BEATS = 12  # while a lease lasts: one may come late (a library that keeps Python's threads waiting, a file server restarted)

_held: dict[Path, tuple[Lease, int]] = {}  # run folder -> its lease, and a descriptor of its file
_of_rank_0: dict[
    Path, str
] = {}  # on the other ranks of a training: run folder -> the token that rank 0 holds it by
_journals: set[int] = (
    set()
)  # descriptors of other files that say by their mtime that this process lives
_touching = (
    threading.Lock()
)  # held while descriptors are touched or closed: their numbers are used again


def take(folder: Path | str) -> bool:
    """Become the one that trains this run; False where we are already. Raises RunIsHeld where another process does.

    Whether a process of another machine lives is known from its next beat alone, so that is waited for, by a clock that does
    not jump. That of the file server may (a machine that was asleep): who is silent there and lives here has two more beats.
    """
    folder = Path(folder).resolve()
    if token_of(folder):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    first, since, beat_s = None, time.monotonic(), expiry_s() / N_BEATS
    while True:
        ours = new()
        with lease_file(folder, ours) as (temporary, now):
            if (descriptor := create(folder / NAME, temporary)) is not None:
                break
            if (there := look(folder)) is None:  # released meanwhile
                continue
            watched_s = time.monotonic() - since if there == first else 0.0
            is_here = bool(ours.machine) and there.lease.machine == ours.machine
            if is_over(there, now, ours):
                may_wake = is_here and is_alive(there.lease.process) and watched_s < 2 * beat_s
            else:
                may_wake = watched_s < expiry_s()
                if may_wake and (is_here or (first and there != first)):
                    raise _refused(folder, there, now)
            if not may_wake and (descriptor := succeed(folder, there.lease, temporary)) is not None:
                break
        if there != first:
            first, since = there, time.monotonic()
        time.sleep(min(0.5, beat_s / 4))
    with _touching:
        _held[folder] = (ours, descriptor)
    _start_beating()
    return True


def _refused(folder: Path, there: Seen, now: float) -> RunIsHeld:
    return RunIsHeld(
        f"{folder} is being trained by {there.lease}, heard of {max(0, now - there.touched):.0f} s ago; wait for it, or stop it "
        f"there: what is not heard of for {expiry_s():g} s has lost its run"
    )


def token_of(folder: Path | str) -> str | None:
    """The token by which this process, or its rank 0, holds a run."""
    folder = Path(folder).resolve()
    return _held[folder][0].token if folder in _held else _of_rank_0.get(folder)


def share(folder: Path | str, token: str) -> None:
    """On another rank than the one that has taken the lease: write into the run folder while that one holds it."""
    _of_rank_0[Path(folder).resolve()] = token


def release(folder: Path | str) -> None:
    """Give the lease back. Where another process has taken it over, it is left alone."""
    folder = Path(folder).resolve()
    _of_rank_0.pop(folder, None)
    if folder not in _held:
        return
    with _touching:
        ours, descriptor = _held.pop(folder)
        os.close(descriptor)
    with (
        contextlib.suppress(OSError),
        lease_file(folder, ours) as (temporary, _),
        ending(folder, ours, temporary) as may,
    ):
        if may:
            (folder / NAME).unlink()


@contextlib.contextmanager
def released_after() -> Iterator[None]:
    """Release all that this process holds, however it goes."""
    try:
        yield
    finally:
        for folder in [*_held, *_of_rank_0]:
            release(folder)


def keep_touching(path: Path) -> None:
    """Say by a file's mtime, as a lease does, that this process lives."""
    with _touching:
        _journals.add(os.open(path, os.O_RDONLY))
    _start_beating()


@functools.cache
def _start_beating() -> None:
    """Have a thread touch all that this process holds from now on."""

    def beat() -> None:
        while True:
            with _touching:
                for descriptor in (*_journals, *(descriptor for _, descriptor in _held.values())):
                    with contextlib.suppress(
                        OSError
                    ):  # of a file server that is away, and may come back
                        os.utime(descriptor)
            time.sleep(expiry_s() / N_BEATS)

    threading.Thread(target=beat, daemon=True).start()


def check(path: Path | str) -> None:
    """Raise LeaseLost where `path` lies in a run folder whose lease this process has held and lost.

    Where it has never held one there is nothing to lose.
    """
    path = Path(path).resolve()
    folder = next((one for one in (path, *path.parents) if token_of(one)), None)
    if folder is None:
        return
    there = look(folder)
    if there is None or there.lease.token != token_of(folder):
        if not folder.exists():
            why = f"{folder} is no longer there: somebody has removed or renamed it"
        elif there is None:
            why = f"the lease of {folder} is gone: somebody has removed it, or had taken the run over and is done"
        else:
            why = f"{there.lease} has taken over {folder}, since this process was not heard of for {expiry_s():g} s"
        raise LeaseLost(f"{why}; the training stops and writes nothing more")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """files.replacing for what lies in a run folder: renamed only if the run is still this process's."""
    check(path)  # before there is anything to write, too
    with files.replacing(path, allowed=functools.partial(check, path)) as temporary:
        yield temporary


def write_json(path: Path, value: object) -> None:
    """files.write_json for what lies in a run folder."""
    with replacing(path) as temporary:
        temporary.write_text(files.json_text(value), encoding="utf-8")
