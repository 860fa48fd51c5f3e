"""Define checks and verdicts, and run each check so that a hang or crash stops no other check."""

import os
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from irnet_hpc.errors import UserError, os_error_message

if TYPE_CHECKING:
    from irnet_hpc.sweep.matrix.sites import Site

T = TypeVar("T")
GROUP_NAMES = ("machine", "engine", "results", "slurm")  # in the order in which they run


class Level(StrEnum):
    """The severity of a verdict, the mildest first."""

    OK = "ok"
    NOTE = "note"  # an optional part is missing
    WARNING = "warning"  # a matrix runs, but more slowly or less conveniently
    FAILURE = "failure"  # no matrix would run


class Verdict(NamedTuple):
    """The result of a check: what was found, and what to do about it.

    Warnings and failures always have a `todo`: a sentence that names a command.
    """

    level: Level
    found: str
    todo: str = ""
    facts: Mapping[str, object] = {}


class Settings(NamedTuple):
    """The options of one call of the doctor, which every check gets."""

    results: Path  # absolute
    token: str  # unique to this call, and part of the name of everything that the call creates
    site: "Site | None" = None  # None if the module that reads sites cannot be imported
    site_name: str | None = None
    wait_s: float = 300.0  # longest wait for the job of two nodes

    @property
    def existing_folder(self) -> Path:
        """Return the results folder, or the nearest of its parents that exists."""
        return next(path for path in (self.results, *self.results.parents) if os.path.lexists(path))

    @property
    def trial_folder(self) -> Path:
        """Return the folder for temporary files of checks, on the file system of the results."""
        return self.existing_folder / f".doctor-{self.token}"


class Check(NamedTuple):
    """A check with its name and time limit, and a command that does the same by hand."""

    name: str
    run: Callable[[Settings], Verdict | None]  # returns None if it does not apply here
    limit_s: float
    manual_command: str  # may contain {results}


class TimeLimitExceeded(Exception):
    """Signal that a function did not return within its time limit."""


def ok(found: str, **facts: object) -> Verdict:
    """Make a verdict that everything is as it should be."""
    return Verdict(Level.OK, found, facts=facts)


def note(found: str, todo: str = "", **facts: object) -> Verdict:
    """Make a verdict that an optional part is missing."""
    return Verdict(Level.NOTE, found, todo, facts)


def warning(found: str, todo: str, **facts: object) -> Verdict:
    """Make a verdict that something costs time or convenience, although a matrix would run."""
    return Verdict(Level.WARNING, found, todo, facts)


def failure(found: str, todo: str, **facts: object) -> Verdict:
    """Make a verdict that a matrix would not run."""
    return Verdict(Level.FAILURE, found, todo, facts)


def examine(check: Check, settings: Settings) -> Verdict | None:
    """Run a check and turn a hang or an exception into a failure.

    Args:
        check: The check to run, for at most its `limit_s`.
        settings: The options of this call.

    Returns:
        The verdict, or None if the check does not apply to this machine.
    """
    todo = f"see what this prints: {check.manual_command.format(results=settings.results)}"
    try:
        return call_within(check.limit_s, lambda: check.run(settings))
    except TimeLimitExceeded:
        return failure(f"no answer within {check.limit_s:.0f} s", todo)
    except UserError as error:
        return failure(str(error), todo)
    except OSError as error:
        return failure(os_error_message(error), todo)
    except Exception as error:  # a bug in one check must not stop the others
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return failure(f"{type(error).__name__}: {error} ({place})", todo)


def call_within(limit_s: float, function: Callable[[], T]) -> T:
    """Call a function in a thread and wait for it for at most `limit_s` seconds.

    A thread that waits for a dead file server cannot be stopped. It is a daemon thread, so it ends
    with the process.

    Args:
        limit_s: The time limit in seconds.
        function: The function to call.

    Returns:
        The return value of the function.

    Raises:
        TimeLimitExceeded: If the function did not return in time.
    """
    outcome: Future[T] = Future()

    def call() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    try:
        return outcome.result(limit_s)
    except TimeoutError:
        if outcome.done():  # the function itself raised it, e.g. because of a file server
            raise
        raise TimeLimitExceeded from None
