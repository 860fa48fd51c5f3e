"""irnet_hpc/console.py"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from irnet_hpc.errors import UserError, said
from irnet_hpc.files import json_text


@contextlib.contextmanager
def answering(wanted: bool) -> Iterator[Callable[[object], None]]:
    """Yields the function that prints the object. While it is wanted, `print` writes to stderr, so that no line gets into it."""
    if not wanted:
        yield lambda value: None
        return
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        yield lambda value: print(json_text(value), end="", file=stdout, flush=True)


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
