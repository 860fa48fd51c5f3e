"""Weigh the members of a committee by their errors on rows that none of them was trained on.

The weights are not negative and sum to one. They minimise the squared error of the weighted mean on
the val rows that all members share, or out of fold if the members are models on the folds of a
table (Wolpert, Neural Networks 5, 241 (1992); Breiman, Machine
Learning 24, 49 (1996), who found that weights must not be negative). The test rows decide nothing.
"""

import logging

import numpy as np

from irnet_hpc.errors import UserError
from irnet_hpc.predict.held_out import Evidence, HeldOut
from irnet_hpc.predict.screening import Ensemble, spread_of

# Fewer rows for each member would let chance decide the weights.
ROWS_PER_MEMBER = 10
# The val rows are divided into so many parts. Each part is judged by the weights of the others, so
# that the interval is calibrated on errors of rows that have not decided the weights.
N_PARTS = 5

logger = logging.getLogger(__name__)


def weigh(
    ensemble: Ensemble, evidence: dict[str, Evidence]
) -> tuple[Ensemble, dict[str, Evidence]]:
    """Give each member of an ensemble its weight for each property.

    Args:
        ensemble: The models.
        evidence: Property -> held-out rows, as load_ensemble returns them.

    Returns:
        The ensemble with its weights, and the evidence with the errors of the weighted means.

    Raises:
        UserError: If there are too few val rows, or none, to weigh the members of a property.
    """
    weights, weighed = {}, {}
    for name, (val, test) in evidence.items():
        n_members = ensemble.n_members(name)
        if isinstance(val, UserError):
            raise UserError(
                f"{name}: a committee is weighed on val rows, and there are none: {val}"
            )
        n_rows, n_needed = val.of_members.shape[1], ROWS_PER_MEMBER * n_members
        if n_members > 1 and n_rows < n_needed:
            raise UserError(
                f"{name}: a committee of {n_members} runs needs at least {n_needed} val rows to be "
                f"weighed, got {n_rows}; without --committee all have the same weight"
            )
        weights[name] = fit_weights(val.of_members)
        judged = cross_fitted(val.of_members, val.fold)
        if val is test:  # out of fold: rows that decide weights cannot judge them
            test = judged
        elif isinstance(test, HeldOut):
            test = held_out(test.of_members, weights[name])
        weighed[name] = Evidence(judged, test)
    return ensemble._replace(weights=weights), weighed


def fit_weights(errors: np.ndarray) -> np.ndarray:
    """Return the weights whose weighted mean has the least squared error.

    Args:
        errors: (n_members, n_rows) errors of each member, in the property's unit.

    Returns:
        The weights (n_members,), not negative, with the sum 1.
    """
    from scipy.optimize import nnls

    n_members = len(errors)
    scale = np.sqrt((errors**2).mean()) or 1.0
    # Nonnegative weights w of any sum s that minimise |E w|^2 + (s - 1)^2. For a given direction
    # u = w / s the best value is |E u|^2 / (1 + |E u|^2), which grows with |E u|^2; so the
    # direction is that of the weights with the sum 1.
    system = np.vstack([errors.T / (scale * np.sqrt(errors.shape[1])), np.ones(n_members)])
    weights, _ = nnls(system, np.append(np.zeros(errors.shape[1]), 1.0))
    return weights / weights.sum()


def cross_fitted(errors: np.ndarray, fold: np.ndarray | None = None) -> HeldOut:
    """Return the errors of a committee on rows that have not decided its weights.

    Args:
        errors: (n_members, n_rows) errors of each member, in the property's unit.
        fold: (n_rows,) the part of each row; None: N_PARTS parts are made.
    """
    if len(errors) == 1:
        return held_out(errors)._replace(fold=fold)
    # The rows of a pack are in random order.
    part = np.arange(errors.shape[1]) % N_PARTS if fold is None else fold
    error, sd = np.empty(errors.shape[1]), np.empty(errors.shape[1])
    for number in np.unique(part):
        own = part == number
        judged = held_out(errors[:, own], fit_weights(errors[:, ~own]))
        error[own], sd[own] = judged.error, judged.sd
    return HeldOut(error, sd, errors, fold)


def held_out(errors: np.ndarray, weights: np.ndarray | None = None) -> HeldOut:
    """Return the errors of the members' mean.

    Args:
        errors: (n_members, n_rows) errors of each member, in the property's unit.
        weights: (n_members,); None: all members count the same.
    """
    # Subtracting the value of a row from all predictions changes their mean, but not their spread.
    return HeldOut(*spread_of(errors, weights), errors)
