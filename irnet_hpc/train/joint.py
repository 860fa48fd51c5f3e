"""Several properties in one network: what each weighs in the loss, and the one relative error that a joint run goes by.

Targets are (n_rows, n_properties), NaN where a row does not report a property. What is not reported is no error: it has no
gradient and counts in no mean.
"""

import numpy as np


def loss_weights(target: np.ndarray) -> np.ndarray:
    """What a reported value of each property weighs in the loss (n_properties,), from the training rows' targets.

    Rows / reported / properties: over an epoch every property pulls equally, however few rows report it. The one place
    where this is decided; the loss of a batch is the sum over its reported values of weight * loss(error), by the batch.
    """
    return equal_shares(target)


def equal_shares(target: np.ndarray) -> np.ndarray:
    """(n_properties,): with these, the mean over rows of a row's shared errors is the mean over properties of their MAEs."""
    n_rows, n_properties = target.shape
    return n_rows / np.maximum(1, (~np.isnan(target)).sum(0)) / n_properties


def spreads(target: np.ndarray) -> np.ndarray:
    """Standard deviation of the reported values of each property (n_properties,), in its unit; 1 where they do not vary.

    Taken of the training rows, it is what the relative error of a property is measured in, whatever the recipe's scaling.
    """
    columns = (target[~np.isnan(target[:, p]), p] for p in range(target.shape[1]))
    return np.array([float(column.std()) or 1.0 for column in columns])


def relative_errors(prediction: np.ndarray, target: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Each row's share (n_rows,) of the relative error, which is their mean: that over properties of MAE / spread.

    A row that reports two properties has a share in both.
    """
    errors = np.abs(prediction - target) * (equal_shares(target) / spread)
    return np.where(np.isnan(target), 0, errors).sum(1)  # a prediction that is not finite stays one
