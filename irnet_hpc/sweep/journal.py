"""Record which cells were given to SLURM or to a local process, and how the attempts ended.

    results/.sweep/<time>-<token>.jsonl   first line: the submission; then one line for each event
    results/.sweep/lock                   held from reading the ledger until the journal is written

Each journal has one writer and only grows by whole lines, so a kill leaves it readable. The journal
is evidence, but the state of a cell follows from other sources: a cell is done if it has a
result.json, running if a process holds its lease, and queued only as long as the scheduler or the
process confirms it.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.files import exclusive, write_text

log = logging.getLogger(__name__)

TIME_FORMAT = "%Y%m%dT%H%M%S.%f"  # UTC
# A folder in the results folder. Its name starts with a dot, so that it is not taken for results.
FOLDER = ".sweep"
# The cluster in the journal of a worker.
WORKER = "worker"


class Attempt(NamedTuple):
    """The last known attempt at one cell or pack."""

    # The token of the submission.
    token: str
    # The cluster: slurm, local (`sweep run`) or worker (`sweep work`).
    cluster: str
    # The time of the submission (ISO).
    time: str
    # The host from which it was submitted; a local attempt runs there.
    host: str
    # The process that submits the cells or trains them in turn, as named by process_name().
    driver: str | None = None
    # slurm: the job id, e.g. 17 or 17_3
    job: str | None = None
    # local: the process of the training, once it has started
    process: str | None = None
    # local: how the process ended, in words
    ended: str | None = None
    # local: the exit status of the process; negative if a signal ended it
    status: int | None = None
    log: str | None = None
    # The cells that share the job or the process.
    bundle: int = 1
    # slurm: whether this is the second try of a cell that lacked memory or time
    again: bool = False
    # slurm: the jobs whose workers share the cells, numbered `job`_0 and so on; 0: `job` trains
    # only this cell and its bundle
    n_shared: int = 0
    # The shared jobs that the cell still belongs to, if one of their workers has tried it since.
    behind: "Attempt | None" = None
    # The journal that records this attempt.
    journal: str = ""


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Hold the lock that keeps other sweeps from starting the same cells.

    It is held from reading the ledger until the journal contains the cells that this sweep starts.
    """

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
        cluster: slurm, local, or worker for `sweep work`.
        driver: The name of the process that submits the cells, or has them trained.
        token: The token of the submission, which is also in its jobs' comments; None: a new token.
        events: The first events. The file is created with these events in it, so any process that
            sees the file also sees which cells it claims.

    If the driver is this process, it touches the journal regularly (Leases.keep_touching), since
    sweeps on other machines cannot see whether this process runs.

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
    """Return a time for a new journal's name, which sorts last even if a clock was set back."""
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


# How long a new journal may take to become visible on another host of a shared file system.
VISIBILITY_S = 60.0


def cells_of(results: Path, token: str) -> frozenset[str] | None:
    """Return the cells that a submission's journal names; None if no journal of it is seen here."""
    deadline = time.monotonic() + VISIBILITY_S
    while not (paths := [*(Path(results) / FOLDER).glob(f"[0-9]*-{token}.jsonl")]):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.5)
    names = set()
    for path in paths:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                names.add(str(json.loads(line)["cell"]))
    return frozenset(names)


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


def attempts(results: Path, except_tokens: Collection[str] = ()) -> dict[tuple[str, str], Attempt]:
    """Read the last attempt at each cell and pack from all journals.

    Args:
        results: The folder of results.
        except_tokens: The tokens of submissions to leave out: the caller's own, since their cells
            are not queued for the caller.

    Returns:
        (kind, name) -> attempt, where kind is cell (named by its folder below results) or pack.
    """
    last: dict[tuple[str, str], Attempt] = {}
    for path in sorted((Path(results) / FOLDER).glob("[0-9]*.jsonl")):
        head = None
        if token_of(path) in except_tokens:
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            # Skip a line that a kill has cut short, and a line that no sweep has written.
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                event = checked(json.loads(line))
                if head is None:
                    fields = {name: event[name] for name in Attempt._fields[:5]}
                    head = Attempt(**fields, journal=str(path))
                    continue
                kind = "cell" if "cell" in event else "pack"
                name = (kind, event.pop(kind))
                before = last.get(name, head)
                if before.token != head.token:
                    behind = before if before.n_shared else before.behind
                    is_of_worker = head.cluster == WORKER
                    before = head._replace(behind=behind if is_of_worker else None)
                last[name] = before._replace(**event)
    return last


def checked(event: object) -> dict:
    """Return the event. Raises TypeError if it is not an object or a field has a wrong type."""
    if not isinstance(event, dict):
        raise TypeError("an event must be an object")
    for name, kind in Attempt.__annotations__.items():
        if name in event and not isinstance(event[name], kind):
            raise TypeError(f"{name} must be of its field's type")
    return event
