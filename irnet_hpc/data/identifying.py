"""Find columns that identify a row and do not describe it; they cannot be features.

A network that learns the row's number has learnt the order of the table, which is often the order
of the property itself.
"""

import re
from collections.abc import Collection

import numpy as np

# What pandas writes for an index without a name, and what people call an index or an id. These
# are whole names: a refractive index or an atomic number describes.
INDEX = re.compile(
    r"unnamed: ?[0-9]+(?:\.[0-9]+)*(?:_level_[0-9]+)?|level_[0-9]+|__index_level_[0-9]+__"
    r"|index|idx|#|n[or]\."
    r"|row[ _.-]?(?:no|number)\.?|(?:s|sl|sr|serial)(?:[ _]|\. ?)(?:no|number)\.?",
    re.I,
)
ID = re.compile(
    r"(?:.*[ _.-])?(?:id|ids|uid|uuid|guid|identifier)|(?-i:.*[a-z]Id)|id[ _.-].*"
    r"|icsd|mpid|jid|auid|doi"
    r"|(?:material|row|record)id|coll(?:ection)?[ _.-]?code"
    r"|(?:icsd|cod|csd|pdf|cas|mp|oqmd|aflow|sample|entry)[ _.-]?(?:id|no|nr|number|code|#)\.?",
    re.I,
)
MIN_ROWS = 10  # fewer whole numbers may be 1, 2, 3, ... and still describe


def identifying_name(name: str) -> str:
    """Return the reason why a column of this name identifies its rows; empty if it is a feature.

    >>> identifying_name("icsd_id"), identifying_name("refractive_index")
    ('an id', '')
    """
    if not name:
        return "without a name"
    if INDEX.fullmatch(name):
        return "an index"
    return "an id" if ID.fullmatch(name) else ""


def leave_out_row_numbers(
    columns: dict[str, np.ndarray], kept: Collection[str] = ()
) -> dict[str, str]:
    """Remove the columns that number the rows: 0, 1, 2, ... or 1, 2, 3, ..., in any order.

    Args:
        columns: name -> (n_rows,) float64; changed in place.
        kept: columns that stay, since the user named them as properties.

    Returns:
        Name -> why the column is left out.
    """
    left_out = dict.fromkeys(
        (name for name, n in columns.items() if name not in kept and _are_row_numbers(n)),
        "row numbers",
    )
    for name in left_out:
        del columns[name]
    return left_out


def _are_row_numbers(values: np.ndarray) -> bool:
    if len(values) < MIN_ROWS or not np.isfinite(values).all():
        return False
    ordered = np.sort(values)
    return ordered[0] in (0, 1) and bool((np.diff(ordered) == 1).all())
