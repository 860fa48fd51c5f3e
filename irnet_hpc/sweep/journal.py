"""The journal: what was handed to SLURM or to a process of this machine, and how it went. One file a submission.

    results/.sweep/<time>-<token>.jsonl      first line: the submission; then a line for whatever happens to a cell or a pack
    results/.sweep/lock                      held while a sweep reads the ledger and until its journal is there

Each file has one writer and only grows, a whole line at a time, so a kill leaves it readable. The journal is evidence and
never a state: a cell is done by its result.json alone, running by its lease, and queued only while the scheduler, or the
process, says so.
"""

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.files import lock, write_text
from irnet_hpc.runs.lease import Leases

NAMED = "%Y%m%dT%H%M%S.%f"  # UTC
FOLDER = ".sweep"  # in the results folder; starts with a dot, so that nothing takes it for results


class Attempt(NamedTuple):
    """The last known attempt at one cell or pack."""

    token: str  # of the submission
    cluster: str  # slurm | local
    time: str  # ISO, of the submission
    host: str  # that it was submitted from; where a local one runs
    driver: str | None = (
        None  # the process that submits, or goes through the cells, as process_name() gives it
    )
    job: str | None = None  # slurm: job id, e.g. 17 or 17_3
    process: str | None = None  # local: the training itself, once started
    ended: str | None = None  # local: how the process ended
    log: str | None = None
    bundle: int = 1  # cells that share the job or the process
    again: bool = False  # slurm: by the job that tries once more what lacked memory or time
    journal: str = ""  # the file that says so


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Wait until no other sweep is between reading what these results hold and saying in its journal what it takes up."""
    folder = Path(results) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        if not lock(file):
            print(f"another sweep is about to start on {results}; waiting for it", flush=True)
            lock(file, wait=True)
        yield


def begin(
    results: Path,
    matrix: str,
    cluster: str,
    driver: str | None = None,
    token: str | None = None,
    events: Iterable[dict] = (),
) -> Path:
    """Open the journal of a new submission; its stem's last part is the token that the scheduler's jobs carry, too.

    It appears with the first `events` in it: who sees it, sees what has been taken up.
    """
    now, token = datetime.now(UTC), token or secrets.token_hex(4)
    folder = Path(results) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_after_all_in(folder, now)}-{token}.jsonl"
    head = {
        "token": token,
        "matrix": matrix,
        "cluster": cluster,
        "time": now.isoformat(timespec="seconds"),
    }
    write_text(path, _lines([head | {"host": socket.gethostname(), "driver": driver}, *events]))
    if driver == process_name(
        os.getpid()
    ):  # for sweeps on other machines, which cannot look at our processes
        Leases().keep_touching(path)
    return path


def _after_all_in(folder: Path, now: datetime) -> str:
    """The time by which a new journal is named. Their order is that of their names, also where a clock has been set back."""
    last = max((path.name.partition("-")[0] for path in folder.glob("[0-9]*-*.jsonl")), default="")
    with contextlib.suppress(ValueError):
        now = max(
            now, datetime.strptime(last, NAMED).replace(tzinfo=UTC) + timedelta(microseconds=1)
        )
    return now.strftime(NAMED)


def tables_of(results: Path, token: str) -> str | None:
    """The job that makes the tables of a submission."""
    for path in (Path(results) / FOLDER).glob(f"[0-9]*-{token}.jsonl"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return json.loads(line)["tables"]
    return None


def token_of(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def note(path: Path, events: Iterable[dict]) -> None:
    """Append events: `{"cell" or "pack": name, ...}` with any of Attempt's fields."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(events))
        file.flush()
        os.fsync(file.fileno())


def _lines(events: Iterable[dict]) -> str:
    return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events)


def attempts(results: Path, but_of: str | None = None) -> dict[tuple[str, str], Attempt]:
    """(kind, name) -> the last attempt at it; kind is cell (named by its folder below results) or pack.

    The submission with the token `but_of` is left out: a process that goes through cells has taken them up itself.
    """
    last: dict[tuple[str, str], Attempt] = {}
    for path in sorted((Path(results) / FOLDER).glob("[0-9]*.jsonl")):
        head = None
        if token_of(path) == but_of:
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            # A line cut short by a kill says nothing, nor does one that is not ours.
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                event = checked(json.loads(line))
                if head is None:
                    head = Attempt(
                        event["token"],
                        event["cluster"],
                        event["time"],
                        event["host"],
                        event["driver"],
                    )
                    head = head._replace(journal=str(path))
                    continue
                kind = "cell" if "cell" in event else "pack"
                name = (kind, event.pop(kind))
                before = last.get(name, head)
                last[name] = (before if before.token == head.token else head)._replace(**event)
    return last


def checked(event: object) -> dict:
    """Raises TypeError where it is not an object, or a field is not of Attempt's type."""
    if not isinstance(event, dict):
        raise TypeError("an event is an object")
    for name, kind in Attempt.__annotations__.items():
        if name in event and not isinstance(event[name], kind):
            raise TypeError(f"{name} is not of its type")
    return event
