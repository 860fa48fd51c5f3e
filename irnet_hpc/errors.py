"""A user's mistake is one sentence (the rule, the value, the choices) and exit status 2.

Every command ends with `sys.exit(exit_status(main))`.
"""

import difflib
from collections.abc import Iterable


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
