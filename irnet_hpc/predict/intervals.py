"""Calibration: how wide an interval must be to hold so many of the values that nobody trained on.

Split conformal prediction (Vovk et al. 2005; Lei et al., J. Am. Stat. Assoc. 113, 1094, 2018), with errors normalised by the
members' disagreement (Papadopoulos et al., ECML 2002; Lei et al., section 5.2): half the width is factor * (sd + softening),
where the factor is the quantile of |error| / (sd + softening) over the val rows. Without the softening a row on which the
members happen to agree would get no width, or decide the factor. Of one member there is no sd, and all widths are one.

The promise, P(value in interval) >= level, holds where val and what is predicted are draws of one population. Val chose the
epoch, which flatters its errors a little, and candidates of another chemistry are another population: so coverage is
measured on test.
"""

import math
from typing import NamedTuple

import numpy as np

from irnet_hpc.errors import UserError

ROUNDING = 1e-9  # of a product that is whole


class Interval(NamedTuple):
    """Half widths as a function of the members' standard deviation; factor in the unit where there is one member."""

    level: float
    factor: float
    softening: float
    n_rows: int  # that it was calibrated on

    def half_width(self, sd: np.ndarray) -> np.ndarray:
        """(n_rows,) in the property's unit, from the members' standard deviations (n_rows,) in it."""
        return self.factor * (sd + self.softening)


def calibrate(error: np.ndarray, sd: np.ndarray, level: float) -> Interval:
    """The interval from errors and standard deviations (n_rows,) of rows that were not trained on, in the unit.

    Raises UserError where there are too few of them for the level, e.g. nine are needed for 90 %.
    """
    n_rows = len(error)
    rank = math.ceil(
        (n_rows + 1) * level - ROUNDING
    )  # the finite-sample quantile of split conformal prediction
    if rank > n_rows:
        least = math.ceil(level / (1 - level) - ROUNDING)
        raise UserError(
            f"an interval of {level:.0%} needs at least {least} val rows, however: {n_rows}"
        )
    softening = float(np.median(sd)) or 1.0
    scores = np.abs(error) / (sd + softening)
    return Interval(level, float(np.partition(scores, rank - 1)[rank - 1]), softening, n_rows)


def coverage(interval: Interval, error: np.ndarray, sd: np.ndarray) -> float:
    """Which share of rows the interval holds."""
    return float((np.abs(error) <= interval.half_width(sd)).mean())
