"""A user's mistake is one sentence (the rule, the value, the choices) and exit status 2.

Every command ends with `sys.exit(exit_status(main))`.
"""

import difflib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path


class UserError(Exception):
    """Something the user can mend; its text is the one sentence they read."""


def choose(kind: str, value: str, known: Iterable[str]) -> str:
    """Return `value` if it is one of `known`, else raise a UserError that lists them.

    >>> choose("source", "oqmd", ["aflow", "oqmd"])
    'oqmd'
    """
    known = sorted(known)
    if value in known:
        return value
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UserError(f"unknown {kind} {value!r}{hint}; known: {', '.join(known) or 'none'}")


def said(error: OSError) -> str:
    """What the system says of a file, as a sentence."""
    strerror = error.strerror or str(error)
    return f"{error.filename}: {strerror}" if error.filename else strerror


def in_one_line(error: Exception) -> str:
    """What an error says, for a table: our own sentence or the system's, else its kind and its first line."""
    if isinstance(error, OSError) or type(error).__module__.startswith("irnet_hpc."):
        return str(error)
    text = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def exit_status(main: Callable[[], int | None]) -> int:
    """Run a command; turn what a user can mend into one sentence on stderr and status 2.

    A closed pipe (`... | head`) ends quietly; Ctrl-C is 130; anything else is our bug and keeps its traceback.
    """
    _open_what_is_closed()
    try:
        status = main() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        sentence = str(error)
    except KeyboardInterrupt:
        sentence = "interrupted"
    except OSError as error:
        if error.strerror is None:
            raise
        sentence = said(error)
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    return 130 if sentence == "interrupted" else 2


def _open_what_is_closed() -> None:
    """Give a process that was started without a standard stream (`... >&-`, some daemons) an empty one: else the next file that is
    opened has its number, and what a library writes to its standard error goes into a pack."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (while the process lives)
