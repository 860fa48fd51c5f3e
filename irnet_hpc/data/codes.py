"""Find numbers that look like codes for "not reported", such as -9999."""

import re

import numpy as np

# Numbers that tables give for "not reported". -32768 is the lowest integer of 16 bits.
CODES = re.compile(r"-?(9{3,}|9{2,}\.9+|1e\+[0-9]+|32768)")


def are_codes(values: np.ndarray) -> np.ndarray:
    """Find numbers that look like codes for "not reported".

    They are numbers such as -9999 that are far from all other values: farther than the range of the
    others.

    Args:
        values: (n_rows,) float64, NaN where not reported.

    Returns:
        (n_rows,) bool.
    """
    distinct = np.unique(values[np.abs(values) >= 99])
    is_code = np.isin(values, [value for value in distinct if CODES.fullmatch(f"{value:.7g}")])
    others = values[~is_code & ~np.isnan(values)]
    if not is_code.any() or not len(others):
        return np.zeros(len(values), bool)
    width = others.max() - others.min()
    return is_code & ((values > others.max() + width) | (values < others.min() - width))
