"""Where an element stands in the periodic table."""

from irnet_hpc.formulas import NUMBER

NOBLE = (2, 10, 18, 36, 54, 86, 118)  # the last element of each period
LANTHANUM, ACTINIUM = 57, 89
F_ROW = 8  # lanthanides and actinides stand below the table, in rows of their own: 8 and 9
N_COLUMNS, N_ROWS = 18, 9


def place(symbol: str) -> tuple[int, int]:
    """(row, column) from 1: period and group; of lanthanides and actinides, La and Ac included, F_ROW or the next and 4 to 18.

    >>> place("Fe"), place("He"), place("La"), place("Lr")
    ((4, 8), (1, 18), (8, 4), (9, 18))
    """
    number = NUMBER[symbol]
    for row, first in ((F_ROW, LANTHANUM), (F_ROW + 1, ACTINIUM)):
        if first <= number <= first + 14:
            return row, 4 + number - first
    period = next(period for period, last in enumerate(NOBLE, start=1) if number <= last)
    before = NOBLE[period - 2] if period > 1 else 0
    from_left, from_right = number - before, NOBLE[period - 1] - number
    n_left = 1 if period == 1 else 2
    return period, from_left if from_left <= n_left else N_COLUMNS - from_right
