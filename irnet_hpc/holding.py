"""What this process holds: the runs that it trains. It takes their leases, touches them, and writes only while they are its own.

Kept here by folder rather than handed on, for a process may train several runs at once, and what writes one of their files
lies far below what took them up.
"""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from irnet_hpc import files, lease
from irnet_hpc.lease import Lease, Seen
from irnet_hpc.process import is_alive

N_BEATS = 12  # while a lease lasts: one may come late (a library that keeps Python's threads waiting, a file server restarted)

_held: dict[Path, tuple[Lease, int]] = {}  # run folder -> its lease, and a descriptor of its file
_of_rank_0: dict[Path, str] = {}  # on the other ranks of a training: run folder -> the token that rank 0 holds it by
_journals: set[int] = set()  # descriptors of other files that say by their mtime that this process lives
_touching = threading.Lock()  # held while descriptors are touched or closed: their numbers are used again


def take(folder: Path | str) -> bool:
    """Become the one that trains this run; False where we are already. Raises Elsewhere where another process does.

    Whether a process of another machine lives is known from its next beat alone, so that is waited for, by a clock that does
    not jump. That of the file server may (a machine that was asleep): who is silent there and lives here has two more beats.
    """
    folder = Path(folder).resolve()
    if token_of(folder):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    first, since, beat_s = None, time.monotonic(), lease.expiry_s() / N_BEATS
    while True:
        ours = lease.new()
        with lease.temporary(folder, ours) as (temporary, now):
            if (descriptor := lease.create(folder / lease.NAME, temporary)) is not None:
                break
            if (there := lease.look(folder)) is None:  # released meanwhile
                continue
            watched_s = time.monotonic() - since if there == first else 0.0
            is_here = bool(ours.machine) and there.lease.machine == ours.machine
            if lease.is_over(there, now, ours):
                may_wake = is_here and is_alive(there.lease.process) and watched_s < 2 * beat_s
            else:
                may_wake = watched_s < lease.expiry_s()
                if may_wake and (is_here or (first and there != first)):
                    raise _refused(folder, there, now)
            if not may_wake and (descriptor := lease.succeed(folder, there.lease, temporary)) is not None:
                break
        if there != first:
            first, since = there, time.monotonic()
        time.sleep(min(0.5, beat_s / 4))
    with _touching:
        _held[folder] = (ours, descriptor)
    _start_beating()
    return True


def _refused(folder: Path, there: Seen, now: float) -> lease.Elsewhere:
    return lease.Elsewhere(
        f"{lease.refusal(folder)}{there.lease}, heard of {max(0, now - there.touched):.0f} s ago; wait for it, or stop it "
        f"there: what is not heard of for {lease.expiry_s():g} s has lost its run"
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
        lease.temporary(folder, ours) as (temporary, _),
        lease.ending(folder, ours, temporary) as may,
    ):
        if may:
            (folder / lease.NAME).unlink()


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
                    with contextlib.suppress(OSError):  # of a file server that is away, and may come back
                        os.utime(descriptor)
            time.sleep(lease.expiry_s() / N_BEATS)

    threading.Thread(target=beat, daemon=True).start()


def check(path: Path | str) -> None:
    """Raise Elsewhere where `path` lies in a run folder whose lease this process has held and lost.

    Where it has never held one there is nothing to lose.
    """
    path = Path(path).resolve()
    folder = next((one for one in (path, *path.parents) if token_of(one)), None)
    if folder is None:
        return
    there = lease.look(folder)
    if there is None or there.lease.token != token_of(folder):
        if not folder.exists():
            why = f"{folder} is no longer there: somebody has removed or renamed it"
        elif there is None:
            why = f"the lease of {folder} is gone: somebody has removed it, or had taken the run over and is done"
        else:
            why = (
                f"{there.lease} has taken over {folder}, since this process was not heard of for {lease.expiry_s():g} s"
            )
        raise lease.Elsewhere(f"{why}; the training stops and writes nothing more")


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
