"""What a command says to a program: with `--json` one object on stdout, and all that is for people on stderr."""

import contextlib
import sys
from collections.abc import Callable, Iterator

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
