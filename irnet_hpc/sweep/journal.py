"""Record what was given to SLURM or to a local process, and how it ended.

    results/.sweep/<time>-<token>.jsonl   first line: the submission; then a line an event
    results/.sweep/lock                   held from reading the ledger until the journal is there

Each file has one writer and only grows, a whole line at a time, so a kill leaves it readable. The
journal is evidence and never a state: a cell is done by its result.json alone, running by its
lease, and queued only while the scheduler, or the process, says so.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.files import exclusive, write_text

log = logging.getLogger(__name__)

TIME_FORMAT = "%Y%m%dT%H%M%S.%f"  # UTC
# In the results folder; it starts with a dot, so that nothing takes it for results.
FOLDER = ".sweep"


class Attempt(NamedTuple):
    """The last known attempt at one cell or pack."""

    # The token of the submission.
    token: str
    # slurm | local
    cluster: str
    # The time of the submission, ISO.
    time: str
    # The host it was submitted from; a local one runs there.
    host: str
    # The process that submits, or goes through the cells, as process_name() gives it.
    driver: str | None = None
    # slurm: job id, e.g. 17 or 17_3
    job: str | None = None
    # local: the training itself, once started
    process: str | None = None
    # local: how the process ended, for people
    ended: str | None = None
    # local: its exit status, where it ended by itself or by a signal (negative)
    status: int | None = None
    log: str | None = None
    # Cells that share the job or the process.
    bundle: int = 1
    # slurm: submitted by the job that tries once more what lacked memory or time
    again: bool = False
    # The journal that states this.
    journal: str = ""


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Keep other sweeps from reading the ledger until our journal says which cells we take."""

    def say_waiting(_: str) -> None:
        log.info("another sweep is about to start on %s; waiting for it", results)

    with exclusive(Path(results) / FOLDER / "lock", say_waiting):
        yield


def begin(
    results: Path,
    matrix: str,
    cluster: str,
    driver: str | None = None,
    token: str | None = None,
    events: Iterable[dict] = (),
) -> Path:
    """Open the journal of a new submission.

    Args:
        results: The folder of results.
        matrix: The name of the matrix.
        cluster: slurm or local.
        driver: The process that submits, or goes through the cells.
        token: The token of the submission, which the scheduler's jobs carry, too; None: a new one.
        events: The first events. The file appears with them: who sees it sees what is taken up.

    A driver that is this process keeps the journal's mtime fresh (Leases.keep_touching): sweeps on
    other machines cannot look at our processes.

    Returns:
        The path of the journal, whose stem ends with the token.
    """
    now, token = datetime.now(UTC), token or secrets.token_hex(4)
    folder = Path(results) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_later_than_all_in(folder, now)}-{token}.jsonl"
    head = {
        "token": token,
        "matrix": matrix,
        "cluster": cluster,
        "time": now.isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "driver": driver,
    }
    write_text(path, _lines([head, *events]))
    return path


def _later_than_all_in(folder: Path, now: datetime) -> str:
    """Name a new journal by its time, so that it sorts last even if a clock was set back."""
    last = max((path.name.partition("-")[0] for path in folder.glob("[0-9]*-*.jsonl")), default="")
    with contextlib.suppress(ValueError):
        last_time = datetime.strptime(last, TIME_FORMAT).replace(tzinfo=UTC)
        now = max(now, last_time + timedelta(microseconds=1))
    return now.strftime(TIME_FORMAT)


def tables_of(results: Path, token: str) -> str | None:
    """Return the id of the job that makes the tables of a submission."""
    for path in (Path(results) / FOLDER).glob(f"[0-9]*-{token}.jsonl"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return json.loads(line)["tables"]
    return None


def token_of(path: Path) -> str:
    """Return the token of a journal's submission."""
    return path.stem.rpartition("-")[2]


def note(path: Path, events: Iterable[dict]) -> None:
    """Append events: `{"cell" or "pack": name, ...}` with any of Attempt's fields."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(events))
        file.flush()
        os.fsync(file.fileno())


def _lines(events: Iterable[dict]) -> str:
    return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events)


def attempts(results: Path, except_token: str | None = None) -> dict[tuple[str, str], Attempt]:
    """Read the last attempt at each cell and pack from all journals.

    Args:
        results: The folder of results.
        except_token: The token of a submission to leave out: a process that goes through cells
            has taken them up itself.

    Returns:
        (kind, name) -> attempt, where kind is cell (named by its folder below results) or pack.
    """
    last: dict[tuple[str, str], Attempt] = {}
    for path in sorted((Path(results) / FOLDER).glob("[0-9]*.jsonl")):
        head = None
        if token_of(path) == except_token:
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            # A line cut short by a kill is skipped, and so is one that is not ours.
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                event = checked(json.loads(line))
                if head is None:
                    fields = {name: event[name] for name in Attempt._fields[:5]}
                    head = Attempt(**fields, journal=str(path))
                    continue
                kind = "cell" if "cell" in event else "pack"
                name = (kind, event.pop(kind))
                before = last.get(name, head)
                last[name] = (before if before.token == head.token else head)._replace(**event)
    return last


def checked(event: object) -> dict:
    """Return an event. Raises TypeError if it is no object or a field has another type."""
    if not isinstance(event, dict):
        raise TypeError("an event must be an object")
    for name, kind in Attempt.__annotations__.items():
        if name in event and not isinstance(event[name], kind):
            raise TypeError(f"{name} must be of its field's type")
    return event
