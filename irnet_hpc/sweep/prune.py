"""List and remove the files in a folder of results that nothing needs any more.

Links are neither followed nor removed. Outside the results, only submitit's folders in $IRNET_STATE
are removed; the journals of these results contain their names.
"""

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.distributed.processes import is_alive
from irnet_hpc.distributed.slurm_commands import squeue
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs import lease
from irnet_hpc.runs.lease import Leases, RunIsHeld
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.spec import read_spec, run_folder
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.board import living_workers, read_standing, remove_board
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.sbatch import state_folder

# The names that files.replacing and lease give to unfinished files.
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp(\.\w+)?|\.lease-[0-9a-f]+\.claim")
# A temporary file to which nothing was written for so many seconds has lost its writer.
MAX_AGE_S = 3600.0


class WasteKind(StrEnum):
    """The kinds of things that may be removed; the values are for people."""

    RUN = "run that belongs to no cell"
    CHECKPOINT = "checkpoint of a finished run"
    TEMPORARY = "temporary file"
    BOARD = "board of a sweep that has ended"
    SUBMITIT = "submitit's files"


class Waste(NamedTuple):
    """A file or folder that nothing needs any more."""

    kind: WasteKind
    path: Path
    # The bytes of the file, or of all files in the folder.
    size: int


def prune(results: Path, matrices: Iterable[Matrix]) -> list[Waste]:
    """List the files and folders of results that may be removed, for `remove`.

    Args:
        results: The folder of results.
        matrices: The matrices whose cells are to be kept.

    Returns:
        Run folders that belong to no cell of the matrices, checkpoints of runs that have their
        result, temporary files whose writers were killed, boards without workers, and submitit's
        files of submissions whose jobs have ended. Runs that are being trained are left out.

    Raises:
        UserError: `results` is not a folder.
    """
    if not results.is_dir():
        raise UserError(
            f"{results} is not a folder; give the one that train and sweep write their runs to"
        )
    wanted = {run_folder(results, cell.spec) for matrix in matrices for cell in matrix.cells}
    now = lease.file_server_time(results)
    waste = []
    # os.walk follows no links.
    for folder, below, names in os.walk(results):
        path = Path(folder)
        if path == results / journal.FOLDER:
            below.clear()
        held = lease.read_lease(path) if lease.LEASE_FILE in names else None
        if held and not lease.is_expired(held, now):
            below.clear()
            continue
        if path not in wanted and _is_run(results, path, names):
            below.clear()
            waste.append(Waste(WasteKind.RUN, path, _size(path)))
            continue
        if "checkpoint" in below and _is_finished(path, names):
            below.remove("checkpoint")
            checkpoint = path / "checkpoint"
            waste.append(Waste(WasteKind.CHECKPOINT, checkpoint, _size(checkpoint)))
        waste += [
            Waste(WasteKind.TEMPORARY, path / name, (path / name).lstat().st_size)
            for name in names
            if TEMPORARY.fullmatch(name) and _is_old(path / name, now)
        ]
    boards = sorted((results / journal.FOLDER).glob("board-*.jsonl"))
    waste += [
        Waste(WasteKind.BOARD, path, path.stat().st_size)
        for path in boards
        if not living_workers(read_standing(path), path.parent, now)
    ]
    submissions = _finished_submissions(results)
    return waste + [Waste(WasteKind.SUBMITIT, path, _size(path)) for path in submissions]


def remove(waste: Waste, results: Path) -> str | None:
    """Remove a file or folder if it is still unused.

    Returns None, or the reason why it was kept.
    """
    path = waste.path
    outside = state_folder() if waste.kind == WasteKind.SUBMITIT else results
    assert path.resolve().is_relative_to(outside.resolve()) and not path.is_symlink()
    try:
        if waste.kind == WasteKind.RUN:
            _remove_run(path)
            path.rmdir()
            _remove_empty(path.parent, results)
        elif waste.kind == WasteKind.BOARD:
            if not remove_board(path):
                return f"{path} stays: a worker has joined it"
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except (RunIsHeld, OSError) as error:
        return f"{path} stays: {error}"
    return None


def _remove_run(folder: Path) -> None:
    """Remove the files in a run folder. Its lease is held, so that no process starts the run."""
    with Leases() as leases:
        leases.acquire(folder)
        for path in folder.iterdir():
            # The lease is removed last.
            if path.name == lease.LEASE_FILE:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_run(results: Path, path: Path, names: Sequence[str]) -> bool:
    """Return True if run.json or result.json in a folder specifies the run of this folder."""
    for name in ("result.json", "run.json"):
        if name in names:
            with contextlib.suppress(UserError, OSError, KeyError, TypeError):
                return run_folder(results, read_spec(read_json(path / name)["spec"])) == path
    return False


def _is_finished(path: Path, names: Sequence[str]) -> bool:
    """Return True if a run has its result, and its checkpoint is not a link."""
    if "result.json" in names and not (path / "checkpoint").is_symlink():
        with contextlib.suppress(UserError, OSError):
            read_result(path / "result.json")
            return True
    return False


def _is_old(path: Path, now: float | None) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return now is not None and now - path.lstat().st_mtime > MAX_AGE_S
    return False


def _size(path: Path) -> int:
    """Add up the bytes of all files below a folder."""
    paths = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    total = 0
    for file in paths:
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total


def _finished_submissions(results: Path) -> Iterator[Path]:
    """Yield submitit's folders of finished submissions: all their jobs have ended.

    Only submissions that the journals of these results name are considered.
    """
    jobs = squeue()
    for path in sorted((results / journal.FOLDER).glob("[0-9]*.jsonl")):
        head = _head(path)
        # If SLURM does not answer, the states of its jobs are unknown.
        if not head or (head["cluster"] == "slurm" and jobs is None):
            continue
        token = journal.token_of(path)
        is_here = head.get("host") == socket.gethostname()
        lives = is_alive(head.get("driver")) if is_here else head["cluster"] != "slurm"
        if lives or any(token in job.comment.split() for job in (jobs or {}).values()):
            continue
        yield from state_folder().glob(f"*-{token}")


def _head(path: Path) -> dict | None:
    """Read the first line of a journal."""
    not_ours = (OSError, ValueError, TypeError, RecursionError)
    with contextlib.suppress(*not_ours), path.open(encoding="utf-8", errors="replace") as file:
        value = journal.checked(json.loads(file.readline()))
        return value if "cluster" in value else None
    return None


def _remove_empty(folder: Path, results: Path) -> None:
    """Remove the empty folders between a run's folder and the folder of results."""
    with contextlib.suppress(OSError):
        while folder != results:
            folder.rmdir()
            folder = folder.parent
