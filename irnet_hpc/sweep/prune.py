"""What may go from a folder of results: listed with its size first, removed when that is agreed to.

Four kinds: run folders that no cell of the given matrices wants, checkpoints of runs that have their result, temporary files
whose writers were killed, and submitit's files of submissions that are over. Links are neither followed nor removed, and
but for the last kind, which $IRNET_STATE holds under names from these results' journals, nothing outside is touched.
"""

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.distributed.processes import is_alive
from irnet_hpc.distributed.slurm import squeue
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs import lease
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.spec import read_spec, run_folder
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.submit import state_folder

# as files.replacing and lease name what they have not finished
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp(\.\w+)?|\.lease-[0-9a-f]+\.claim")
OLD_S = 3600.0  # a temporary file that has not been written to for so long has lost its writer


class Waste(NamedTuple):
    kind: str
    path: Path
    size: int  # bytes, of all that is in it


def waste(results: Path, matrices: Iterable[Matrix]) -> list[Waste]:
    """All that may go, the largest kind of it in order of the folders. Raises UserError where there are no results."""
    if not results.is_dir():
        raise UserError(
            f"{results} is not a folder; give the one that train and sweep write their runs to"
        )
    wanted = {run_folder(results, cell.spec) for matrix in matrices for cell in matrix.cells}
    now = lease.file_server_time(results)
    found = []
    for folder, below, names in os.walk(results):  # follows no link
        path = Path(folder)
        if path == results / journal.FOLDER:
            below.clear()
        held = lease.read_lease(path) if lease.LEASE_FILE in names else None
        if held and not lease.is_expired(held, now):
            below.clear()
            continue
        if path not in wanted and _is_run(results, path, names):
            below.clear()
            found.append(Waste("run of no such cell", path, _size(path)))
            continue
        if (
            "checkpoint" in below
            and "result.json" in names
            and not (path / "checkpoint").is_symlink()
        ):
            with contextlib.suppress(UserError, OSError):
                read_result(path / "result.json")
                below.remove("checkpoint")
                found.append(
                    Waste(
                        "checkpoint of a finished run",
                        path / "checkpoint",
                        _size(path / "checkpoint"),
                    )
                )
        for name in names:
            if TEMPORARY.fullmatch(name) and _is_old(path / name, now):
                found.append(Waste("temporary file", path / name, (path / name).lstat().st_size))
    return found + [Waste("submitit's files", path, _size(path)) for path in _over(results)]


def remove(one: Waste, results: Path) -> str | None:
    """Remove it, if still nobody uses it. Returns what stood in the way."""
    outside = state_folder() if one.kind == "submitit's files" else results
    assert one.path.resolve().is_relative_to(outside.resolve()) and not one.path.is_symlink()
    try:
        if one.kind.startswith("run"):
            with lease.Leases() as leases:
                leases.acquire(one.path)  # whoever starts it now is told so
                for path in one.path.iterdir():
                    if path.name != lease.LEASE_FILE:  # which goes last
                        shutil.rmtree(
                            path
                        ) if path.is_dir() and not path.is_symlink() else path.unlink()
            one.path.rmdir()
            _remove_empty(one.path.parent, results)
        elif one.path.is_dir():
            shutil.rmtree(one.path)
        else:
            one.path.unlink(missing_ok=True)
    except (lease.RunIsHeld, OSError) as error:
        return f"{one.path} stays: {error}"
    return None


def _is_run(results: Path, path: Path, names: list[str]) -> bool:
    """Whether a folder is that of a run, and where that run belongs: what anybody else has put here is not ours to judge."""
    for name in ("result.json", "run.json"):
        if name in names:
            with contextlib.suppress(UserError, OSError, KeyError, TypeError):
                return run_folder(results, read_spec(read_json(path / name)["spec"])) == path
    return False


def _is_old(path: Path, now: float | None) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return now is not None and now - path.lstat().st_mtime > OLD_S
    return False


def _size(path: Path) -> int:
    """Bytes of all files below."""
    paths = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    total = 0
    for file in paths:
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total


def _over(results: Path) -> Iterator[Path]:
    """submitit's folders of submissions from these results of which nothing is queued or runs."""
    jobs = squeue()
    for path in sorted((results / journal.FOLDER).glob("[0-9]*.jsonl")):
        head = _head(path)
        if not head or (
            head["cluster"] == "slurm" and jobs is None
        ):  # SLURM does not answer: nobody knows
            continue
        token = journal.token_of(path)
        is_here = head.get("host") == socket.gethostname()
        lives = is_alive(head.get("driver")) if is_here else head["cluster"] != "slurm"
        if lives or any(token in job.comment.split() for job in (jobs or {}).values()):
            continue
        yield from state_folder().glob(f"*-{token}")


def _head(path: Path) -> dict | None:
    """The first line of a journal."""
    not_ours = (OSError, ValueError, TypeError, RecursionError)
    with contextlib.suppress(*not_ours), path.open(encoding="utf-8", errors="replace") as file:
        value = journal.checked(json.loads(file.readline()))
        return value if "cluster" in value else None
    return None


def _remove_empty(folder: Path, results: Path) -> None:
    """Remove the folders between a run's and the results that hold nothing any more."""
    with contextlib.suppress(OSError):
        while folder != results:
            folder.rmdir()
            folder = folder.parent
