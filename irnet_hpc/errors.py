"""Report a user's mistake in one sentence that states the rule, the value and the choices.

Every command ends with `sys.exit(exit_status(main))` of `console.py`, which prints that sentence.
"""

import contextlib
import contextvars
import difflib
import numbers
import re
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """A mistake that the user can correct. Its text is the one sentence that the user sees."""

    exit_status: int = 2  # the exit status of a command that it ends, see console.ExitStatus


class PeerLost(Exception):
    """Signal that a collective operation failed because another rank no longer exists."""


def check_choice(kind: str, value: str, known: Iterable[str]) -> str:
    """Return `value` if it is one of `known`.

    Args:
        kind: The kind of thing that `value` names, e.g. `source`, for the message.
        value: The name to check.
        known: The names that are allowed.

    Returns:
        `value`, unchanged.

    Raises:
        UserError: If `value` is unknown. The message lists the known names and suggests the nearest
            one.

    >>> check_choice("source", "oqmd", ["aflow", "oqmd"])
    'oqmd'
    """
    known = sorted(known)
    if value in known:
        return value
    near = nearest(str(value), known)
    hint = f" (did you mean {near!r}?)" if near else ""
    raise UserError(f"unknown {kind} {value!r}{hint}; known: {', '.join(known) or 'none'}")


# Words that people type for names that are spelt otherwise.
SYNONYMS = {
    "gpu": "cuda",
    "rf": "random_forest",
    "gbdt": "boosted_trees",
    "gradient_boosting": "boosted_trees",
    "svm": "svr",
    "lasso": "elastic_net",
    "linear_regression": "linear",
    "ols": "linear",
}


def nearest(value: str, known: Iterable[str]) -> str:
    """Return the name among `known` that is probably meant; empty if none is similar."""
    known = list(known)
    if SYNONYMS.get(value.lower()) in known:
        return SYNONYMS[value.lower()]
    plain = {name.replace("_", "").replace("-", "").lower(): name for name in reversed(known)}
    near = difflib.get_close_matches(value, known, n=1)
    if near:
        return near[0]
    near = difflib.get_close_matches(value.replace("_", "").replace("-", "").lower(), plain, n=1)
    return plain[near[0]] if near else ""


OPTION = re.compile(r"(?<![\w`-])--([a-z]+(?:-[a-z]+)*)")
# Options that say in one word what an argument of Python says with a value.
VALUES = {"no-filters": "filters=False", "strict": "strict=True", "force": "force=True"}
_is_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("_is_inside", default=False)


@contextlib.contextmanager
def python_names(**names: str) -> Iterator[None]:
    """Name arguments of Python instead of options of a command in the errors that a block raises.

    It also decorates functions. Of nested blocks the outermost decides.

    Args:
        **names: Option -> the argument that does its work, where the names differ.

    >>> with python_names(unit="units"):
    ...     raise UserError("choose with --formula-column, or state --unit x=UNIT")
    Traceback (most recent call last):
    irnet_hpc.errors.UserError: choose with formula_column, or state units x=UNIT
    """
    if _is_inside.get():
        yield
        return
    token = _is_inside.set(True)
    try:
        yield
    except UserError as error:
        known = {name.replace("_", "-"): argument for name, argument in names.items()} | VALUES
        sentence, command, rest = str(error).partition("python -m ")
        plain = OPTION.sub(lambda match: known.get(match[1], match[1].replace("-", "_")), sentence)
        error.args = (plain + command + rest, *error.args[1:])
        raise
    finally:
        _is_inside.reset(token)


def check_whole(name: str, value: object) -> int:
    """Return a whole number as a Python int, even if it is one of numpy's integers.

    JSON cannot store numpy's integers. 17.0 and True are refused: they equal whole numbers, but
    JSON, hashes and names would differ.

    Args:
        name: The name of the value, for the message.
        value: The value to check.

    Raises:
        UserError: If the value is not a whole number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise UserError(f"{name} must be a whole number, got {value!r}")
    return int(value)


def os_error_message(error: OSError) -> str:
    """Format an OSError as `path: reason`."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def one_line(error: Exception) -> str:
    """Format an error as one line.

    The errors of this package and of the operating system keep their text. For any other error, the
    line has the type and the first line of the text.
    """
    if isinstance(error, OSError) or type(error).__module__.startswith("irnet_hpc."):
        return str(error)
    text = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
