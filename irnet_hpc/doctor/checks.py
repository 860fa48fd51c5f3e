"""A verdict is what a check found and what to do about it. Nothing here waits longer than it says: not for a command, not
for a file system."""

import contextlib
import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from irnet_hpc.errors import UserError

# From what is as it should be to what would stop a matrix. A note is an optional part that is not here.
LEVELS = ("ok", "note", "warning", "failure")
ANSWER_S = 15.0  # for a command that only asks
MOST_SAID = 1 << 20  # bytes of a command's output that are looked at

T = TypeVar("T")
_running: set[subprocess.Popen] = set()  # commands that have been started and not yet ended


class Verdict(NamedTuple):
    level: str  # of LEVELS
    found: str
    todo: str = ""  # a sentence that names a command; a warning or a failure always has one
    facts: Mapping[str, object] = {}


class Settings(NamedTuple):
    """What the command was told."""

    results: Path  # absolute
    token: str  # of this call, in the names of all that it makes
    site: object | None = None  # sites.Site; None where it cannot even be read
    site_name: str | None = None
    wait_s: float = 300.0  # for a job of two nodes to have run

    @property
    def ground(self) -> Path:
        """The results folder, or the nearest above it that is there."""
        return next(path for path in (self.results, *self.results.parents) if os.path.lexists(path))

    @property
    def trial(self) -> Path:
        """Where checks write: a folder of our own, where the results are or would be made."""
        return self.ground / f".doctor-{self.token}"


class Check(NamedTuple):
    name: str
    look: Callable[[Settings], Verdict | None]  # None: there is nothing to look at here
    limit_s: float
    by_hand: str  # the command that shows what is wrong where the check itself comes to nothing


def ok(found: str, **facts: object) -> Verdict:
    return Verdict("ok", found, facts=facts)


def note(found: str, todo: str = "", **facts: object) -> Verdict:
    return Verdict("note", found, todo, facts)


def warning(found: str, todo: str, **facts: object) -> Verdict:
    return Verdict("warning", found, todo, facts)


def failure(found: str, todo: str, **facts: object) -> Verdict:
    return Verdict("failure", found, todo, facts)


def examine(check: Check, settings: Settings) -> Verdict | None:
    """The verdict of one check, also where the check hangs or breaks."""
    by_hand = f"see what this says: {check.by_hand.format(results=settings.results)}"
    try:
        return within(check.limit_s, lambda: check.look(settings))
    except TooLong:
        return failure(f"no answer within {check.limit_s:.0f} s", by_hand)
    except UserError as error:
        return failure(str(error), by_hand)
    except OSError as error:
        return failure(
            f"{error.filename}: {error.strerror}" if error.filename else str(error), by_hand
        )
    except Exception as error:  # a check that breaks must not take the others with it
        where = traceback.extract_tb(error.__traceback__)[-1]
        return failure(
            f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})", by_hand
        )


def within(limit_s: float, function: Callable[[], T]) -> T:
    """What a function returns or raises; TooLong where it does neither in time. Then its thread is left behind, since
    one that waits for a dead file server cannot be ended; it ends with the process."""
    outcome: queue.SimpleQueue = queue.SimpleQueue()

    def call() -> None:
        try:
            outcome.put((function(), None))
        except BaseException as error:
            outcome.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        value, error = outcome.get(timeout=limit_s)
    except queue.Empty:
        raise TooLong from None
    if error is not None:
        raise error
    return value


class TooLong(Exception):
    """A function has not come back."""


class Answer(NamedTuple):
    """What a command said. `trouble` is empty where it ended well, else a part of a sentence."""

    out: str
    err: str
    trouble: str


def ask(
    command: Sequence[object],
    limit_s: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Run a command for at most `limit_s` (default ANSWER_S) and end it, with all that it started, where it takes longer.

    Its output goes to files: with pipes a grandchild that lives on would keep us waiting for it.
    """
    command, limit_s = [str(part) for part in command], limit_s or ANSWER_S
    name = Path(command[0]).name
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            return Answer("", "", f"there is no {name} on PATH")
        except OSError as error:
            return Answer("", "", f"{name} cannot be run: {error.strerror}")
        _running.add(process)
        trouble = ""
        try:
            if status := process.wait(limit_s):
                trouble = (
                    f"was ended by {signal.Signals(-status).name}"
                    if status < 0
                    else f"ended with status {status}"
                )
        except subprocess.TimeoutExpired:
            trouble = f"did not answer within {limit_s:.0f} s"
        finally:
            end(process)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read(MOST_SAID).decode(errors="replace"))
    if trouble and (why := reason(said[1]) or reason(said[0])):
        trouble += f": {why}"
    return Answer(*said, f"{name} {trouble}" if trouble else "")


def reason(said: str) -> str:
    """The line that tells most: one that speaks of an error, the last of a traceback; else the first line."""
    of_ranks = re.findall(r"^\[\d+\]<std(?:out|err)>:(.*)", said, re.MULTILINE)
    lines = [
        line for line in of_ranks or said.splitlines() if re.match(r"\S*\w", line)
    ]  # neither rulers nor code
    # What horovodrun and srun say comes of what a rank has said, where one has said anything.
    lines = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))] or lines
    telling = [line for line in lines if re.search("error|fatal|what\\(\\)", line, re.IGNORECASE)]
    line = telling[-1 if "Traceback" in said else 0] if telling else (lines or [""])[0]
    return " ".join(line.split())[:300]


def end(process: subprocess.Popen) -> None:
    """End a command and all that it started, politely and then not; return without it where even that does not help."""
    if process.poll() is None:
        family = []
        with contextlib.suppress(Exception):  # where psutil is missing, its group has to do
            import psutil

            family = psutil.Process(process.pid).children(
                recursive=True
            )  # horovodrun's have sessions of their own
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
        for relative in family:
            with contextlib.suppress(Exception):
                relative.kill()
        if family:
            psutil.wait_procs(family, 2)  # a signal is sent at once, and obeyed a moment later
    _running.discard(process)


def end_all() -> None:
    """End what checks have started that were given up."""
    for process in list(_running):
        end(process)
