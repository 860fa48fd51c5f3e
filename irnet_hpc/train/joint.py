"""Weight the properties of a network with several outputs, in its loss and in its relative error.

The relative error selects the epoch. Targets are (n_rows, n_properties), with NaN for values that
are not reported. Such values are left out of the gradient and of every mean.
"""

import numpy as np


def loss_weights(target: np.ndarray) -> np.ndarray:
    """Compute for each property the weight of its reported values in the loss.

    The weight is n_rows / n_reported / n_properties. So over an epoch every property has the same
    total weight, even if fewer rows report it. The loss of a batch is the sum of weight *
    loss(error) over its reported values, divided by the batch size.

    Args:
        target: Targets of the training rows (n_rows, n_properties).

    Returns:
        The weights, (n_properties,).
    """
    return equal_shares(target)


def equal_shares(target: np.ndarray) -> np.ndarray:
    """Compute a weight for each property, so that a mean over rows becomes the mean of the MAEs.

    Args:
        target: Targets, (n_rows, n_properties).

    Returns:
        The weights, (n_properties,). If each row's sum of weighted |errors| is averaged over all
        rows, the result is the mean of the properties' MAEs.
    """
    n_rows, n_properties = target.shape
    return n_rows / np.maximum(1, (~np.isnan(target)).sum(0)) / n_properties


def spreads(target: np.ndarray) -> np.ndarray:
    """Compute the standard deviation of the reported values of each property.

    A relative error is an error divided by this standard deviation over the training rows. The
    recipe's scaling has no effect on it.

    Args:
        target: Targets, (n_rows, n_properties).

    Returns:
        The standard deviations, (n_properties,), each in the unit of its property; 1 if the values
        of a property do not vary.
    """
    columns = (target[~np.isnan(target[:, p]), p] for p in range(target.shape[1]))
    # Of equal numbers the standard deviation may be a rounding error.
    return np.array([float(column.std()) if np.ptp(column) > 0 else 1.0 for column in columns])


def relative_errors(prediction: np.ndarray, target: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Compute each row's contribution to the relative error.

    The relative error is MAE / spread, averaged over the properties.

    Args:
        prediction: Predictions, (n_rows, n_properties).
        target: Targets of the same shape.
        spread: The standard deviations, (n_properties,), see `spreads`.

    Returns:
        The contributions, (n_rows,); their mean is the relative error.
    """
    errors = np.abs(prediction - target) * (equal_shares(target) / spread)
    # A prediction that is not finite gives an error that is not finite.
    return np.where(np.isnan(target), 0, errors).sum(1)
