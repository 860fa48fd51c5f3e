"""Checks of the file system that holds the results: it can be written and has room, names appear whole and once, locks and
HDF5 work, and its clock is ours."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irnet_hpc import files
from irnet_hpc.doctor.checks import Check, Settings, Verdict, failure, note, ok, warning
from irnet_hpc.doctor.engine import CHILD_S, child

LEAST_GB, GOOD_GB = 0.5, 10.0  # a run folder takes 25 to 250 MB with its checkpoints
LEAST_INODES, GOOD_INODES = 1_000, 100_000  # and about ten files
SKEW_S = 1.0  # what happened before what is told from times that two machines have written
N_RENAMED = 100
N_RIVALS = 8
# File systems that several machines see -> what is said of them.
SHARED = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.glusterfs",
    "panfs",
    "cifs",
    "9p",
)
IN_MEMORY = ("tmpfs", "ramfs")
ELSEWHERE = "python -m irnet_hpc.doctor --results DIR tries another folder"


@contextmanager
def _trial(settings: Settings) -> Iterator[Path]:
    """A folder of our own where the results are, or will be; nothing of it stays."""
    settings.trial.mkdir(exist_ok=True)
    try:
        yield settings.trial
    finally:
        shutil.rmtree(settings.trial, ignore_errors=True)


def _why(error: OSError) -> str:
    return error.strerror or str(error)


def file_system(path: Path, mountinfo: str | None = None) -> str:
    """The kind of file system that a path is on, by the mount whose name is the longest part of the path's."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    best, kind = "", "unknown"
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split()[4].encode().decode("unicode_escape")
        if path.is_relative_to(mount) and len(mount) >= len(
            best
        ):  # of two on one place the later covers the other
            best, kind = mount, after.split()[0]
    return kind


def results(settings: Settings) -> Verdict:
    kind = file_system(settings.ground.resolve())
    try:
        with _trial(settings) as folder:
            (folder / "written").write_bytes(b"\0" * 4096)
            is_there = (folder / "written").read_bytes() == b"\0" * 4096
    except OSError as error:
        return failure(
            f"{settings.results} cannot be written: {_why(error)} ({kind})",
            f"ls -ld {settings.results}; {ELSEWHERE}",
        )
    if not is_there:
        return failure(
            f"{settings.results} does not give back what was written ({kind})", ELSEWHERE
        )
    if kind in IN_MEMORY:
        return warning(
            f"{settings.results} is in memory ({kind}): gone when the machine is, and no node sees it",
            ELSEWHERE,
        )
    exists = "" if settings.results.exists() else ", will be made"
    return ok(f"{settings.results} ({kind}){exists}", file_system=kind)


def space(settings: Settings) -> Verdict:
    found = os.statvfs(settings.ground)
    gb, inodes = (
        found.f_bavail * found.f_frsize / 1e9,
        found.f_favail if found.f_files else None,
    )  # btrfs has no number
    words = f"{gb:,.1f} GB free" + ("" if inodes is None else f", {inodes:,} files")
    todo = f"df -h {settings.results}; df -i {settings.results}; {ELSEWHERE}"
    facts = {"gb": gb, "inodes": inodes}
    if gb < LEAST_GB or (inodes is not None and inodes < LEAST_INODES):
        return failure(f"{words}: not enough for a single run", todo, **facts)
    if gb < GOOD_GB or (inodes is not None and inodes < GOOD_INODES):
        return warning(
            f"{words}: enough for a few runs (25 to 250 MB and ten files each)", todo, **facts
        )
    return ok(f"{words}; a quota would show only when it is reached", **facts)


def names(settings: Settings) -> Verdict:
    """A file is replaced while another thread reads it, and several make one name at once."""
    with _trial(settings) as folder:
        path, ended, torn = folder / "replaced", threading.Event(), []
        size = 1 << 16
        path.write_bytes(b"0" * size)

        def read() -> None:
            while not ended.is_set():
                try:
                    content = path.read_bytes()
                except OSError as error:
                    torn.append(_why(error))
                    continue
                # Counted in C: a reader that computes in Python would keep the writer waiting, 16 s in all.
                if len(content) != size or content.count(content[:1]) != size:
                    torn.append(f"{len(content)} bytes of {size}")

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            for number in range(N_RENAMED):
                with files.replacing(path, sync=False) as temporary:
                    temporary.write_bytes(bytes([48 + number % 10]) * size)
        finally:
            ended.set()
            reader.join(5)
        winners = _race(folder / "taken")
    why = f"results could be lost here; {ELSEWHERE}"
    if torn:
        return failure(
            f"a file that is replaced is not whole at every moment: {torn[0]}, {len(torn)} times",
            why,
        )
    if winners != 1:
        return failure(
            f"one of {N_RIVALS} that make a name at once must succeed, however: {winners}", why
        )
    return ok(f"{N_RENAMED} renames seen whole, one of {N_RIVALS} rivals for a name has won")


def _race(path: Path) -> int:
    """How many of N_RIVALS threads have made the file, each meaning to be the only one."""
    start, winners = threading.Barrier(N_RIVALS), []

    def make() -> None:
        start.wait(5)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        winners.append(1)

    rivals = [threading.Thread(target=make, daemon=True) for _ in range(N_RIVALS)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(5)
    return len(winners)


def hdf5(settings: Settings) -> Verdict:
    """Packs as they are written and read, and the locks that others rely on."""
    with _trial(settings) as folder:
        facts, trouble = child(["pack", folder])
        kind = file_system(folder.resolve())
    if trouble:
        return failure(trouble, f"df -h {settings.results}; {ELSEWHERE}", **facts)
    if not facts["same"]:
        return failure("a pack does not give back what was written", ELSEWHERE, **facts)
    others = "export HDF5_USE_FILE_LOCKING=FALSE in the site's setup, for other programs that read packs; ours do without"
    if not facts["locks"]:
        return warning(
            f"packs can be written and read, but files cannot be locked ({kind})",
            f"never start two sweeps of one results folder at one moment: python -m irnet_hpc.sweep status; {others}",
            **facts,
        )
    if not facts["hdf5_locks"]:
        return note(
            f"packs can be written and read, but not under HDF5's own locks ({kind})",
            others,
            **facts,
        )
    advice = (
        f"; {kind} may refuse HDF5's locks from another node: {others}" if kind in SHARED else ""
    )
    return ok(f"a pack written, read twice at once and verified; a lock holds{advice}", **facts)


def clock(settings: Settings) -> Verdict:
    with _trial(settings) as folder:
        before = time.time()
        (folder / "now").write_bytes(b"")
        after, there = time.time(), (folder / "now").stat().st_mtime
    skew_s = (
        there - after if there > after else min(0.0, there - before + 0.02)
    )  # a kernel's tick is up to 10 ms late
    if abs(skew_s) > SKEW_S:
        return warning(
            f"the file system's clock is {skew_s:+.1f} s from this machine's: what happened first would be guessed",
            "have both clocks set by one server: timedatectl timesync-status",
            skew_s=skew_s,
        )
    return ok(
        f"the file system's clock is this machine's, within {max(abs(skew_s), 0.01):.2f} s",
        skew_s=skew_s,
    )


CHECKS = (
    Check("results", results, 20, "ls -ld {results}"),
    Check("space", space, 20, "df -h {results}"),
    Check("names", names, 60, "ls -l {results}"),
    Check("HDF5", hdf5, CHILD_S + 20, "ls -l {results}"),
    Check("clock", clock, 20, "date; stat {results}"),
)
