"""What a run has left in its folder: the result and why it is stale, the error, a checkpoint to go on from, last words."""

import dataclasses
import os
import re
from datetime import datetime
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.matrix import Cell
from irnet_hpc.runs import RunResult, defaults, read_result

# What a training that ran out of something has said, or SLURM of it; more of it may help. Linux kills with signal 9 (137 in a
# shell's words) what takes the memory of others.
CAUSES = {
    "memory": r"OUT_OF_ME|out of memory|can't allocate memory|MemoryError|[Uu]nable to allocate|status (-9|137)\b",
    "time": r"TIMEOUT|DEADLINE|out of time",
}

LOST = "a rank is gone"  # how comm.PeerLost begins: what the other ranks can tell, and no reason


def cause_of(text: str) -> str:
    """memory or time, where that is what a failure, in one line, was about; else nothing."""
    return next((name for name, pattern in CAUSES.items() if re.search(pattern, text)), "")


def listing(folder: Path) -> frozenset[str]:
    """The names in a run folder, from one look at it; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def result_of(path: Path) -> tuple[RunResult | None, str]:
    """A result, or why it cannot be read; neither where there is none."""
    try:
        result = read_result(path)
    except FileNotFoundError:
        return None, ""
    except UserError as error:
        return None, str(error)
    if result.test_mae is None or result.device_hours is None:
        return None, f"{path}: test_mae and device_hours must be numbers"
    return result, ""


def why_stale(cell: Cell, result: RunResult, identity: dict, origin_key: str | None) -> str:
    ours = dataclasses.asdict(cell.recipe)
    theirs = defaults(cell.recipe) | result.recipe
    if theirs != ours:
        changed = [name for name in ours if theirs[name] != ours[name]]
        return f"of another recipe: {', '.join(changed) or 'other fields'}"
    changed = [
        name for name in identity if name != "content_sha256" and result.pack_identity.get(name) != identity[name]
    ]
    if changed:
        return f"of another pack: {', '.join(changed)}"
    if cell.origin and origin_key and (result.origin or {}).get("key") != origin_key:
        return "its origin was of another recipe, pack or version"
    return "of another version of the training, or of this specification"


def error_of(folder: Path, since: str | None = None) -> dict:
    """What error.json holds; nothing where there is none, or one older than `since` (ISO)."""
    try:
        error = read_json(folder / "error.json")
    except FileNotFoundError:
        return {}
    except UserError as unreadable:
        return {"error": str(unreadable)}
    return {} if since and _time(error.get("time")) < _time(since) else error


def has_checkpoint(folder: Path, key: str | None) -> bool:
    """Whether a training of this key (None: of any) can go on from where an earlier one was."""
    if not any(name.endswith(".json") for name in listing(folder / "checkpoint")):
        return False
    try:
        return key is None or read_json(folder / "run.json").get("key") == key
    except (UserError, FileNotFoundError):
        return False


def last_words(said: str) -> str:
    """The last line that a training said, and not horovodrun; nothing where it said nothing."""
    lines = [line for line in said.splitlines() if line.strip()]
    of_ranks = [line.partition(">:")[2] for line in lines if re.match(r"\[\d+\]<std(out|err)>:.*\S", line)]
    return ([""] + (of_ranks or lines))[-1].strip()[:300]


def last_words_in(log: str | None, since: str) -> str:
    """The same from the end of a log, where that is not older than `since` (ISO)."""
    try:
        with Path(log or "").open("rb") as file:
            if os.fstat(file.fileno()).st_mtime < _time(since):
                return ""
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return last_words(file.read().decode(errors="replace"))
    except (OSError, ValueError):  # what the journal calls a log may be no name of a file
        return ""


def _time(text: str | None) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return float("inf")
