"""Connect a command to its terminal: exit status, the object of --json, and lines for people."""

import argparse
import contextlib
import difflib
import enum
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from irnet_hpc.errors import UserError, nearest, os_error_message
from irnet_hpc.files import at_home, json_text


class ExitStatus(enum.IntEnum):
    """The exit statuses of all commands."""

    OK = 0
    FAILED = 1  # a bug, a lost rank, or a check that did not pass
    USER_ERROR = 2  # the sentence on stderr says what to correct
    PREEMPTED = 75  # EX_TEMPFAIL: stopped with a checkpoint, to be started again
    HELD = 76  # another process trains the run
    INTERRUPTED = 130  # Ctrl-C
    CLOSED_PIPE = 141  # as in `... | head`


class CommandParser(argparse.ArgumentParser):
    """The parser of a command. It prints the description unchanged, and lists its arguments.

    Attributes:
        arguments: The arguments that were added, including those of mutually exclusive groups.
        verbs: Name -> parser of each verb, such as `run` in `sweep run`; empty if the command has
            none.
        hints: Name of an option that does not exist -> what to give instead.
    """

    def __init__(self, **options: Any) -> None:
        self.hints: dict[str, str] = {}
        self.arguments: list[argparse.Action] = []
        self.verbs: dict[str, CommandParser] = {}
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:  # type: ignore[override]
        """Add an argument, and append it to `arguments`."""
        action = super().add_argument(*names, **options)
        self.arguments.append(action)
        return action

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        """Parse arguments, and expand ~/ at the beginning of a path to the user's home.

        bash 5.2 replaces ~ only at the beginning of a word, so `--results=~/runs` and `'~/my runs'`
        would otherwise make a folder called ~ in the current folder.
        """
        namespace, rest = super().parse_known_args(args, namespace)
        for name, value in vars(namespace).items():
            if isinstance(value, str):
                setattr(namespace, name, at_home(value))
            elif isinstance(value, list):
                setattr(namespace, name, [at_home(v) if isinstance(v, str) else v for v in value])
        return namespace, rest

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """Parse arguments; an unknown option ends the program with status 2 and one sentence."""
        namespace, rest = self.parse_known_args(args, namespace)
        if rest:
            unknown = rest[0].partition("=")[0]
            options = {name for parser in (self, *self.verbs.values()) for name in parser.options}
            near = difflib.get_close_matches(unknown, sorted(options), n=1)
            hint = self.hints.get(unknown.lstrip("-").replace("-", "_"), "")
            # A hint may have dots in place of the value that was typed.
            value = rest[0].partition("=")[2] or "".join(rest[1:2])
            if value and not value.startswith("-"):
                hint = hint.replace("...", value)
            if near and not hint:
                hint = f"did you mean {near[0]}?"
            help_is = f"{self.prog} --help lists what there is"
            self.exit(2, f"error: unrecognized arguments: {' '.join(rest)} ({hint or help_is})\n")
        return namespace

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not one of the choices, and name the nearest one.

        argparse of Python 3.11 to 3.13 calls this for each value of an argument with choices.
        """
        if action.choices is None or value in action.choices:
            return
        is_verb = action.choices is self.verbs
        # The metavar of the verbs lists those that users type.
        known = str(action.metavar).split("|") if is_verb else [str(c) for c in action.choices]
        near = nearest(str(value), known)
        hint = f" (did you mean {near!r}?)" if near else ""
        kind = "command" if is_verb else "value"
        message = f"unknown {kind} {value!r}{hint}; known: {', '.join(known)}"
        raise argparse.ArgumentError(None if is_verb else action, message)

    def error(self, message: str) -> NoReturn:
        """End the program with status 2 and one sentence, without the usage."""
        self.exit(2, f"error: {message}; {self.prog} --help lists the options\n")

    @property
    def options(self) -> list[str]:
        """The options of this parser, such as `--pack`."""
        return [name for action in self.arguments for name in action.option_strings]

    def add_mutually_exclusive_group(self, **options: Any):
        """Add a group of arguments that exclude each other, and append them to `arguments`."""
        group = super().add_mutually_exclusive_group(**options)
        add = group.add_argument

        def add_and_list(*names: str, **options: Any) -> argparse.Action:
            self.arguments.append(add(*names, **options))
            return self.arguments[-1]

        setattr(group, "add_argument", add_and_list)  # noqa: B010 (mypy: a method)
        return group

    def add_subparsers(self, **options: Any):  # type: ignore[override]
        """Add verbs, each of which has its own parser."""
        subparsers = super().add_subparsers(**options)
        self.verbs = subparsers.choices  # which grows with each verb
        return subparsers


def command_parser(command: str, description: str | None) -> CommandParser:
    """Make the parser of a command. Its description is the docstring of the command's module."""
    return CommandParser(prog=f"python -m irnet_hpc.{command}", description=description)


@contextlib.contextmanager
def json_answer(wanted: bool) -> Iterator[Callable[[object], None]]:
    """Yield a function that prints the answer of a command as JSON.

    Args:
        wanted: True if --json was given. Then all other lines go to stderr until the block ends. If
            it is False, the function does nothing.

    Yields:
        A function with one argument, the object to print, which must not contain NaN or infinity.
    """
    stdout = sys.stdout
    with log_to_stdout(), contextlib.redirect_stdout(sys.stderr if wanted else stdout):
        if not wanted:
            yield lambda value: None
            return
        yield lambda value: print(json_text(value), end="", file=stdout, flush=True)


class _LinesForPeople(logging.Handler):
    """Write log records as plain lines: warnings to stderr, all others to the present stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        # tqdm, once it is loaded, writes above its bars.
        write = sys.modules["tqdm"].tqdm.write if "tqdm" in sys.modules else print
        write(self.format(record), file=stream)
        stream.flush()


@contextlib.contextmanager
def log_to_stdout() -> Iterator[None]:
    """Print the log records of this package from level INFO on, until the block ends.

    At the end, the logging of the calling program is set up as it was before.
    """
    logger = logging.getLogger("irnet_hpc")
    if any(isinstance(handler, _LinesForPeople) for handler in logger.handlers):
        yield
        return
    handler, level = _LinesForPeople(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def exit_status(main: Callable[[], int | None]) -> int:
    """Run a command and return its exit status.

    A UserError or an error of the operating system becomes one sentence on stderr, a closed pipe
    (`... | head`) ends quietly, and any other exception is a bug in this package and keeps its
    traceback.
    """
    _open_closed_streams()
    try:
        with log_to_stdout():
            status = main() or ExitStatus.OK
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.CLOSED_PIPE
    except UserError as error:
        sentence, status = str(error), error.exit_status
    except KeyboardInterrupt:
        sentence, status = "interrupted", ExitStatus.INTERRUPTED
    except OSError as error:
        if error.strerror is None:
            raise
        sentence, status = os_error_message(error), ExitStatus.USER_ERROR
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    return status


def _open_closed_streams() -> None:
    """Open /dev/null for each standard stream that was closed when the process started (`... >&-`).

    Otherwise the next file that is opened gets the stream's number, and text that a library writes
    to standard error ends up in a pack.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    # A terminal or a log of another encoding (LC_ALL=de_DE.iso88591, PYTHONIOENCODING=ascii) gets
    # \xb1 for a letter that it lacks, such as ±, and no traceback.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
