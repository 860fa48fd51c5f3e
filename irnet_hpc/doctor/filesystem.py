"""Check the file system of the results: space, atomic renames, HDF5, locks and the clock."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irnet_hpc import files
from irnet_hpc.doctor.checks import Check, Settings, Verdict, failure, note, ok, warning
from irnet_hpc.doctor.engine import CHECK_S, run_probe
from irnet_hpc.files import file_system_type

# A run folder takes 25 to 250 MB, including its checkpoints, and about ten files.
MIN_GB, GOOD_GB = 0.5, 10.0
MIN_INODES, GOOD_INODES = 1_000, 100_000
MAX_CLOCK_SKEW_S = 1.0  # above this, the order of events on two hosts is uncertain
CLOCK_TICK_S = 0.02  # the kernel stamps files with the time of its last tick, up to 10 ms ago
N_RENAMES = 100
N_RIVALS = 8
NETWORK_FILE_SYSTEMS = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph"),
    *("fuse.glusterfs", "panfs", "cifs", "9p"),
}
IN_MEMORY = {"tmpfs", "ramfs"}
TRY_ANOTHER = "python -m irnet_hpc.doctor --results DIR tries another folder"


@contextmanager
def trial_folder(settings: Settings) -> Iterator[Path]:
    """Make a folder on the file system of the results, and remove it after the block."""
    settings.trial_folder.mkdir(exist_ok=True)
    try:
        yield settings.trial_folder
    finally:
        shutil.rmtree(settings.trial_folder, ignore_errors=True)


def check_results(settings: Settings) -> Verdict:
    """Check that files in the results folder can be written and read back."""
    file_system, content = file_system_type(settings.existing_folder.resolve()), b"\0" * 4096
    try:
        with trial_folder(settings) as folder:
            (folder / "written").write_bytes(content)
            is_same = (folder / "written").read_bytes() == content
    except OSError as error:
        reason = error.strerror or str(error)
        return failure(
            f"{settings.results} cannot be written: {reason} ({file_system})",
            f"ls -ld {settings.results}; {TRY_ANOTHER}",
        )
    if not is_same:
        found = f"{settings.results} does not return what was written ({file_system})"
        return failure(found, TRY_ANOTHER)
    if file_system in IN_MEMORY:
        return warning(
            f"{settings.results} is in memory ({file_system}): results would be lost at a restart, "
            "and other nodes would not see them",
            TRY_ANOTHER,
        )
    remark = "" if settings.results.exists() else ", will be created"
    return ok(f"{settings.results} ({file_system}){remark}", file_system=file_system)


def check_space(settings: Settings) -> Verdict:
    """Check the free space and the free inodes. A quota shows only when it is reached."""
    status = os.statvfs(settings.existing_folder)
    gb = status.f_bavail * status.f_frsize / 1e9
    inodes = status.f_favail if status.f_files else None  # btrfs does not count them
    found = f"{gb:,.1f} GB free" + ("" if inodes is None else f", room for {inodes:,} files")
    todo = f"df -h {settings.results}; df -i {settings.results}; {TRY_ANOTHER}"
    facts = {"gb": gb, "inodes": inodes}
    if gb < MIN_GB or (inodes is not None and inodes < MIN_INODES):
        return failure(f"{found}: not enough for a single run", todo, **facts)
    if gb < GOOD_GB or (inodes is not None and inodes < GOOD_INODES):
        enough = "enough for a few runs (25 to 250 MB and ten files each)"
        return warning(f"{found}: {enough}", todo, **facts)
    return ok(f"{found}; a quota would show only when it is reached", **facts)


def check_names(settings: Settings) -> Verdict:
    """Check that a replaced file is always complete, and that only one thread can create a name."""
    with trial_folder(settings) as folder:
        problems = _read_while_renaming(folder / "replaced")
        n_winners = _race_for_name(folder / "taken")
    todo = f"results could be lost here; {TRY_ANOTHER}"
    if problems:
        return failure(
            f"a file could not be read whole while it was replaced, {len(problems)} times: "
            f"{problems[0]}",
            todo,
        )
    if n_winners != 1:
        return failure(
            f"{n_winners} of {N_RIVALS} threads created the same file at once; exactly one must "
            "succeed",
            todo,
        )
    return ok(
        f"a file stayed whole through {N_RENAMES} renames, and one of {N_RIVALS} threads created a "
        "name"
    )


def _read_while_renaming(path: Path) -> list[str]:
    """Replace a file N_RENAMES times while a thread reads it. Returns the errors of the reader."""
    ended, problems, size = threading.Event(), [], 1 << 16
    path.write_bytes(b"0" * size)

    def read() -> None:
        while not ended.is_set():
            try:
                content = path.read_bytes()
            except OSError as error:
                problems.append(error.strerror or str(error))
                continue
            # bytes.count is in C. A check in Python would slow the writer down to 16 s.
            if len(content) != size or content.count(content[:1]) != size:
                problems.append(f"{len(content)} bytes of {size}")

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        for number in range(N_RENAMES):
            with files.replacing(path, sync=False) as temporary:
                temporary.write_bytes(bytes([48 + number % 10]) * size)
    finally:
        ended.set()
        reader.join(5)
    return problems


def _race_for_name(path: Path) -> int:
    """Create one file from N_RIVALS threads at once, and count the threads that succeed."""
    start, winners = threading.Barrier(N_RIVALS), []

    def create() -> None:
        start.wait(5)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        winners.append(1)

    rivals = [threading.Thread(target=create, daemon=True) for _ in range(N_RIVALS)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(5)
    return len(winners)


def check_hdf5(settings: Settings) -> Verdict:
    """Check that packs can be written and read, and which kinds of file lock work."""
    with trial_folder(settings) as folder:
        facts, trouble = run_probe(["pack", folder])
        file_system = file_system_type(folder.resolve())
    if trouble:
        return failure(trouble, f"df -h {settings.results}; {TRY_ANOTHER}", **facts)
    if not facts["same"]:
        return failure("a pack does not return what was written", TRY_ANOTHER, **facts)
    other_programs = (
        "other programs that read packs need HDF5_USE_FILE_LOCKING=FALSE, exported in the site's "
        "setup; irnet_hpc does not need it"
    )
    if not facts["locks"]:
        return warning(
            f"packs can be written and read, but files cannot be locked ({file_system})",
            "never start two sweeps on one results folder at the same moment; see what runs: "
            f"python -m irnet_hpc.sweep status; {other_programs}",
            **facts,
        )
    if not facts["hdf5_locks"]:
        return note(
            f"packs can be written and read, but HDF5's own locks do not work ({file_system})",
            other_programs,
            **facts,
        )
    found = "a pack was written, read twice at once and verified; locks work"
    if file_system in NETWORK_FILE_SYSTEMS:
        found += f"; {file_system} may refuse HDF5's locks from another node: {other_programs}"
    return ok(found, **facts)


def check_clock(settings: Settings) -> Verdict:
    """Check that the file system's clock agrees with this machine's clock."""
    with trial_folder(settings) as folder:
        before = time.time()
        (folder / "now").write_bytes(b"")
        after, written = time.time(), (folder / "now").stat().st_mtime
    skew_s = written - after if written > after else min(0.0, written - before + CLOCK_TICK_S)
    if abs(skew_s) > MAX_CLOCK_SKEW_S:
        return warning(
            f"the file system's clock differs by {skew_s:+.1f} s from this machine's: the order of "
            "events on two hosts is uncertain",
            "synchronise both clocks with one time server: timedatectl timesync-status",
            skew_s=skew_s,
        )
    precision_s = max(abs(skew_s), 0.01)
    found = f"the file system's clock agrees with this machine's within {precision_s:.2f} s"
    return ok(found, skew_s=skew_s)


CHECKS = (
    Check("results", check_results, 20, "ls -ld {results}"),
    Check("space", check_space, 20, "df -h {results}"),
    Check("names", check_names, 60, "ls -l {results}"),
    Check("HDF5", check_hdf5, CHECK_S, "ls -l {results}"),
    Check("clock", check_clock, 20, "date; stat {results}"),
)
