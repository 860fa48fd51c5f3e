"""Calibrate prediction intervals on rows that no model was trained on.

This is split conformal prediction (Vovk et al. 2005; Lei et al., J. Am. Stat. Assoc. 113, 1094,
2018), with errors normalised by the members' disagreement (Papadopoulos et al., ECML 2002; Lei et
al., section 5.2). Half the width is factor * (sd + softening), where sd is the standard deviation
over the members and the factor is the quantile of |error| / (sd + softening) over the val rows.
Without the softening, a row on which the members happen to agree would get an interval of no width,
or would alone decide the factor. A single member has no sd, so all its intervals have the same
width.

The guarantee, P(value in interval) >= level, holds if val rows and candidates come from one
population. It may fail for two reasons: the val rows have selected the epoch or the point of a
grid, so their errors are a little too low; and candidates of a different chemistry come from a
different population. Therefore the coverage is measured on test rows.
"""

import math
from typing import NamedTuple

import numpy as np

from irnet_hpc.errors import UserError

# Tolerance for a product that would be a whole number without rounding errors.
ROUNDING = 1e-9
# Rows of a step of a SteppedInterval.
STEP_ROWS = 200


class ConformalInterval(NamedTuple):
    """The half width of prediction intervals, as a function of the members' standard deviation."""

    level: float  # share of values that the intervals should hold
    factor: float  # in the property's unit for a single member, otherwise dimensionless
    softening: float  # in the property's unit
    n_rows: int  # number of rows that calibrated it

    def half_width(self, sd: np.ndarray) -> np.ndarray:
        """Compute half widths (n_rows,) from the members' standard deviations (n_rows,).

        Both are in the property's unit.
        """
        return self.factor * (sd + self.softening)


class SteppedInterval(NamedTuple):
    """The half width of prediction intervals, as a step function of the prediction.

    Each step is calibrated on its own rows, so that the level holds in each (Mondrian conformal
    prediction, Vovk et al. 2005, section 4.5). Most band gaps are 0 and predicted so: one width for
    all, which holds 90 % of them, would be far too narrow for the others.
    """

    level: float  # share of values that the intervals should hold, in each step
    edge: np.ndarray  # (n_steps - 1,) predictions at which the next step begins, ascending
    width: np.ndarray  # (n_steps,) half widths in the property's unit
    n_rows: int  # number of rows that calibrated it

    def half_width_at(self, prediction: np.ndarray) -> np.ndarray:
        """Return the half widths (n_rows,) at predictions (n_rows,), in the property's unit."""
        return self.width[_step_of(self.edge, prediction)]


def half_width(
    interval: "ConformalInterval | SteppedInterval", sd: np.ndarray, prediction: np.ndarray
) -> np.ndarray:
    """Return half widths (n_rows,), all in the property's unit.

    Args:
        interval: The interval.
        sd: (n_rows,) standard deviations over the members.
        prediction: (n_rows,) predictions.
    """
    if isinstance(interval, SteppedInterval):
        return interval.half_width_at(prediction)
    return interval.half_width(sd)


def calibrate_steps(error: np.ndarray, prediction: np.ndarray, level: float) -> SteppedInterval:
    """Calibrate intervals whose width depends on the prediction.

    Args:
        error: (n_rows,) errors on rows that no member was trained on, in the property's unit.
        prediction: (n_rows,) predictions of these rows.
        level: The fraction of values that intervals should contain, between 0 and 1.

    Raises:
        UserError: If there are too few rows in a step for the level.
    """
    order = np.argsort(prediction, kind="stable")
    ordered = prediction[order]
    # Rows of equal prediction, such as those at a floor, stay in one step.
    begins = np.unique(np.searchsorted(ordered, ordered[::STEP_ROWS], side="left"))
    edge = ordered[begins[(begins > 0) & (begins <= len(ordered) - STEP_ROWS)]]
    step, no_sd = _step_of(edge, prediction), np.zeros(len(error))
    own = [calibrate(error[step == n], no_sd[step == n], level) for n in range(len(edge) + 1)]
    width = np.array([one.half_width(np.zeros(1))[0] for one in own])
    return SteppedInterval(level, edge, width, len(error))


def _step_of(edge: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return the step (n_rows,) of each prediction; an edge belongs to the step it begins."""
    return np.searchsorted(edge, prediction, side="right")


def calibrate(error: np.ndarray, sd: np.ndarray, level: float) -> ConformalInterval:
    """Calibrate intervals on rows that no member was trained on.

    Args:
        error: (n_rows,) errors of the members' mean, in the property's unit.
        sd: (n_rows,) standard deviations over the members, in the same unit.
        level: The fraction of values that intervals should contain, between 0 and 1.

    Raises:
        UserError: If there are too few rows for the level; a level of 90 % needs nine.
    """
    n_rows = len(error)
    # The finite-sample quantile of split conformal prediction.
    rank = math.ceil((n_rows + 1) * level - ROUNDING)
    if rank > n_rows:
        min_rows = math.ceil(level / (1 - level) - ROUNDING)
        raise UserError(f"a {level:.0%} interval needs at least {min_rows} val rows, got {n_rows}")
    softening = float(np.median(sd)) or 1.0
    scores = np.abs(error) / (sd + softening)
    factor = float(np.partition(scores, rank - 1)[rank - 1])
    return ConformalInterval(level, factor, softening, n_rows)


def coverage(
    interval: ConformalInterval | SteppedInterval,
    error: np.ndarray,
    sd: np.ndarray,
    prediction: np.ndarray | None = None,
) -> float:
    """Return the fraction of rows whose value is within the interval.

    Args:
        interval: The calibrated interval.
        error: (n_rows,) errors of the members' mean, in the property's unit.
        sd: (n_rows,) standard deviations over the members, in the same unit.
        prediction: (n_rows,) predictions, which a SteppedInterval needs.
    """
    at = np.zeros_like(error) if prediction is None else prediction
    return float((np.abs(error) <= half_width(interval, sd, at)).mean())
