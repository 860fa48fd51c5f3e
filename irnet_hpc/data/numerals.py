"""Read numbers as people write them in tables.

Python's float() also takes `2_1` for 21, `infinity`, and the digits of other scripts. In a table
2_1 is a screw axis and 3_805 a slip of the keyboard, and neither is a number.
"""

import contextlib
import math
import re
from collections.abc import Sequence

import numpy as np

NUMERAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# With these characters alone, float() takes nothing that is not a numeral.
OTHER = re.compile(r"[^0-9.eE+\- \n]")
# A whole number that begins with 0 is a code, such as 00123 for an entry of a database.
CODE = re.compile(r"^ *[+-]?0[0-9]+ *$", re.MULTILINE)


def parse_number(text: str) -> float:
    """Parse a number: digits, at most one point, and an exponent. Raises ValueError for other text.

    >>> parse_number(" -1.5e3 ")
    -1500.0
    """
    if not NUMERAL.fullmatch(text.strip()):
        raise ValueError(f"not a number: {text!r}")
    return float(text)


def parse_reported(text: str) -> float:
    """Parse a number, or NaN if the text is empty or `nan`, as pandas and numpy write it.

    Raises ValueError for other text and for numbers that are too large for a float.
    """
    text = text.strip()
    if not text or text.lower() == "nan":
        return math.nan
    number = parse_number(text)
    if math.isinf(number):
        raise ValueError(f"too large: {text!r}")
    return number


def parse_column(texts: Sequence[str]) -> np.ndarray | None:
    """Parse the numbers of a column, (n_rows,) float64; None if one of them is not finite.

    An empty text is NaN.
    """
    with contextlib.suppress(ValueError):
        if OTHER.search("\n".join(texts)):
            return np.array([parse_reported(text) for text in texts])
        column = np.array([float(text) if text.strip() else math.nan for text in texts])
        if not np.isinf(column).any():
            return column
    return None


def has_codes(texts: Sequence[str]) -> bool:
    """Return True if a column contains codes such as 00123, which are not quantities."""
    return CODE.search("\n".join(texts)) is not None
