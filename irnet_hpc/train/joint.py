"""Weigh several properties in one network: in the loss, and in the relative error that selects.

Targets are (n_rows, n_properties), NaN where a row does not report a property. A value that is not
reported has no gradient and counts in no mean.
"""

import numpy as np


def loss_weights(target: np.ndarray) -> np.ndarray:
    """Compute the weight of a reported value of each property in the loss.

    It is n_rows / n_reported / n_properties: over an epoch every property has the same weight,
    whatever the number of rows that report it. The loss of a batch is the sum of
    weight * loss(error) over its reported values, divided by the batch size.

    Args:
        target: Targets of the training rows (n_rows, n_properties).

    Returns:
        (n_properties,)
    """
    return equal_shares(target)


def equal_shares(target: np.ndarray) -> np.ndarray:
    """Compute the weights with which a mean over rows is the mean over properties of their MAEs.

    Args:
        target: (n_rows, n_properties).

    Returns:
        (n_properties,)
    """
    n_rows, n_properties = target.shape
    return n_rows / np.maximum(1, (~np.isnan(target)).sum(0)) / n_properties


def spreads(target: np.ndarray) -> np.ndarray:
    """Compute the standard deviation of the reported values of each property.

    Relative errors are measured in that of the training rows, whatever the recipe's scaling.

    Args:
        target: (n_rows, n_properties).

    Returns:
        (n_properties,), in the unit of each; 1 where values do not vary.
    """
    columns = (target[~np.isnan(target[:, p]), p] for p in range(target.shape[1]))
    return np.array([float(column.std()) or 1.0 for column in columns])


def relative_errors(prediction: np.ndarray, target: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Compute each row's share in the relative error: MAE / spread, averaged over properties.

    Args:
        prediction: (n_rows, n_properties).
        target: The same shape.
        spread: (n_properties,), see `spreads`.

    Returns:
        (n_rows,), whose mean is the relative error.
    """
    errors = np.abs(prediction - target) * (equal_shares(target) / spread)
    # A prediction that is not finite gives an error that is not finite.
    return np.where(np.isnan(target), 0, errors).sum(1)
