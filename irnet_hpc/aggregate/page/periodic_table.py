"""Lay out the errors by element as a periodic table."""

from collections.abc import Sequence
from typing import NamedTuple

from irnet_hpc.aggregate.diagnostics import Diagnosis, ElementError
from irnet_hpc.aggregate.formats import line_of
from irnet_hpc.aggregate.page.cells import PageTable, page_table
from irnet_hpc.data.elements import NUMBER

MIN_ROWS = 10  # with fewer test rows, the error of an element is not coloured
# (upper bound, in words) of the ratio of an element's MAE to the MAE of all rows, in the order of
# the colours in the style sheet.
SHADES = (
    (0.5, "at most half"),
    (0.8, "to 0.8"),
    (1.0, "to 1 ×"),
    (1.25, "to 1.25"),
    (2.0, "to 2 ×"),
    (float("inf"), "above 2 ×"),
)
LAST_OF_PERIOD = (2, 10, 18, 36, 54, 86, 118)  # the noble gases
LANTHANUM, ACTINIUM = 57, 89
F_ROW = 8  # lanthanides and actinides are below the table, in rows 8 and 9
N_COLUMNS = 18


class ElementTile(NamedTuple):
    """An element in the periodic table of errors."""

    symbol: str
    mae: str
    title: str  # shown when the pointer is on the tile
    classes: str  # classes of the style sheet
    row: int
    column: int


def place(symbol: str) -> tuple[int, int]:
    """Return the row (period) and column (group) of an element, counted from 1.

    Lanthanides and actinides, including La and Ac, are in rows 8 and 9, columns 4 to 18.

    >>> place("Fe"), place("He"), place("La"), place("Lr")
    ((4, 8), (1, 18), (8, 4), (9, 18))
    """
    number = NUMBER[symbol]
    for row, first in ((F_ROW, LANTHANUM), (F_ROW + 1, ACTINIUM)):
        if first <= number <= first + 14:
            return row, 4 + number - first
    period = next(row for row, last in enumerate(LAST_OF_PERIOD, start=1) if number <= last)
    before = LAST_OF_PERIOD[period - 2] if period > 1 else 0
    from_left, from_right = number - before, LAST_OF_PERIOD[period - 1] - number
    n_left = 1 if period == 1 else 2
    return period, from_left if from_left <= n_left else N_COLUMNS - from_right


def element_tile(element: ElementError, diagnosis: Diagnosis) -> ElementTile:
    """Prepare the tile of an element: its MAE, its colour and its place."""
    ratio = element.mae / diagnosis.mae if diagnosis.mae else 1.0
    shade = next(number for number, (bound, _) in enumerate(SHADES) if ratio <= bound)
    title = (
        f"{element.symbol}: MAE {element.mae:.3g} {diagnosis.task.unit} over {element.n:,} rows, "
        f"mean residual {element.bias:+.2g}"
    )
    classes = "few" if element.n < MIN_ROWS else f"e{shade}"
    return ElementTile(element.symbol, f"{element.mae:.2g}", title, classes, *place(element.symbol))


def element_table(elements: Sequence[ElementError], unit: str) -> PageTable:
    """List the errors of elements in a table."""
    header = ("element", "test rows", f"MAE ({unit})", "mean of prediction minus target")
    lines = [
        line_of(element.symbol, f"{element.n:,}", f"{element.mae:.3g}", f"{element.bias:+.2g}")
        for element in elements
    ]
    return page_table([line_of(*header), *lines])
