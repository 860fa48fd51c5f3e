"""Scale features and targets by statistics of the training rows, as the recipe states.

Rows are read in slabs (blocks of rows), so a table may be larger than memory. The statistics are
equal, to the last bit, to those that numpy computes from the whole array.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from irnet_hpc.runs.classical_grids import Grid
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.train.joint import spreads

# How many numbers are scaled at once. So many fit, as float64, in a core's cache; scaling whole
# arrays takes three times as long.
BLOCK = 2**15

# A function that reads all rows once, in slabs (n, n_features) float32. A slab is valid until the
# next one is read.
Slabs = Callable[[], Iterable[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A scaling of features and targets by the statistics of the training rows."""

    feature_mean: np.ndarray  # (n_features,) float64
    feature_scale: np.ndarray  # (n_features,) float64, infinite where constant
    clip: float  # limit of scaled features, in standard deviations; 0: no limit
    # In the unit of the property; for several properties (n_properties,).
    # The scale is 0 if the target has one value in all training rows; every prediction is then this
    # value.
    target_mean: float | np.ndarray
    target_scale: float | np.ndarray
    # For several properties: the standard deviations (n_properties,) that relative errors are
    # divided by.
    spread: np.ndarray | None = None
    # The lowest prediction, in the property's unit; lower ones are raised to it. -inf: no limit.
    floor: float | np.ndarray = -np.inf

    def features(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Scale features.

        Args:
            x: The features as packed, (n_rows, n_features).
            out: The array to write the scaled features into, which may be `x`; None for a new one.

        Returns:
            The scaled features, (n_rows, n_features) float32.
        """
        out = np.empty(x.shape, np.float32) if out is None else out
        n_rows, n_features = x.shape
        step = _rows_of_a_block(n_features)
        exact = np.empty(
            (min(step, n_rows), n_features)
        )  # float64, so that rounding to float32 happens only once
        for start in range(0, n_rows, step):
            rows = slice(start, start + step)
            block = exact[: len(x[rows])]
            np.subtract(x[rows], self.feature_mean, out=block)
            np.divide(block, self.feature_scale, out=block)
            if self.clip:
                np.clip(block, -self.clip, self.clip, out=block)
            out[rows] = block
        return out

    def feature_means(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each feature's mean as the sum of two float32 numbers, each (n_features,).

        Subtracted one after the other, they scale features in float32 as well as `features` does.
        A single float32 number would not: for a mean of 1.7e9, such as a time in seconds, it is off
        by up to 64, which may be a large part of a standard deviation.
        """
        high = self.feature_mean.astype(np.float32)
        return high, (self.feature_mean - high).astype(np.float32)

    def target(self, target: np.ndarray) -> np.ndarray:
        """Scale targets, which are in their unit, (n_rows,) or (n_rows, n_properties).

        Returns float64.
        """
        return (target - self.target_mean) / nonzero(self.target_scale)

    def in_unit(self, out: np.ndarray) -> np.ndarray:
        """Convert a model's outputs to the properties' units, and raise them to the floors.

        Args:
            out: Outputs, (n_rows,) or (n_rows, n_properties), in the scale of the scaled target.

        Returns:
            Predictions of the same shape, float64.
        """
        return np.maximum(out * self.target_scale + self.target_mean, self.floor)

    @property
    def scaled_floor(self) -> float | np.ndarray:
        """The floor in the scale of the target; -inf means that there is none."""
        return (self.floor - self.target_mean) / nonzero(self.target_scale)


def nonzero(scale: float | np.ndarray) -> np.ndarray:
    """Replace scales of 0, which constants have, with 1."""
    return np.where(np.equal(scale, 0), 1.0, scale)


def fit(
    slabs: Slabs, n_features: int, target: np.ndarray, recipe: Recipe | Grid, given: Scaling | None
) -> Scaling:
    """Compute the scaling of a recipe from the training rows.

    Args:
        slabs: The features of the training rows, in slabs.
        n_features: The number of features.
        target: The targets of the training rows, (n_rows,) or (n_rows, n_properties).
        recipe: The recipe, which says what to scale.
        given: A scaling whose feature statistics are used in place of those of the training rows.
    """
    mean, scale, clip = np.zeros(n_features), np.ones(n_features), recipe.clip
    if given:
        mean, scale, clip = given.feature_mean.copy(), given.feature_scale.copy(), given.clip
        if (unseen := np.isinf(scale)).any():  # constant where the given scaling comes from
            own_mean, own_scale = _of_features(slabs)
            mean[unseen], scale[unseen] = own_mean[unseen], own_scale[unseen]
    elif recipe.features == "standard":
        mean, scale = _of_features(slabs)
    target_mean, target_scale = _of_target(target, recipe)
    if target.ndim == 1:
        return Scaling(mean, scale, clip, float(target_mean), float(target_scale))
    return Scaling(mean, scale, clip, target_mean, target_scale, spread=spreads(target))


def _of_features(slabs: Slabs) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean and scale of features, each (n_features,)."""
    mean, scale = moments(slabs)
    # A feature that varies only by rounding counts as constant. Training cannot show its effect,
    # and its weights stay as they were drawn; so any other value in a further row is scaled to 0.
    scale[scale <= 1e-7 * np.abs(mean)] = np.inf
    return mean, scale


def _of_target(target: np.ndarray, recipe: Recipe | Grid) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean and scale of targets, each () or (n_properties,)."""
    low, high = np.nanmin(target, 0), np.nanmax(target, 0)
    if recipe.target == "standard":
        several = target.ndim == 2
        mean = np.nanmean(target, 0) if several else target.mean()
        scale = spreads(target) if several else target.std()
    else:
        mean, scale = np.zeros_like(low), np.ones_like(low)
    # Exactly the constant: a mean of equal numbers may differ from them by rounding.
    return np.where(low == high, low, mean), np.where(low == high, 0.0, scale)


def moments(slabs: Slabs) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean and standard deviation of each feature, just as numpy does.

    numpy usually adds rows one after the other, so a sum can continue with the next slab. In two
    cases numpy instead adds pairwise along the memory, so this function needs the whole array. The
    first case is a single feature, whose array is as small as the target. The second is an array in
    column-major order; only a caller's own array can have this order, and then it is the only slab.

    Args:
        slabs: The features of the training rows, in slabs. There must be at least one row.

    Returns:
        The means and the standard deviations, each (n_features,) float64.
    """
    first = next(iter(slabs()))
    if first.shape[1] == 1 or not first.flags.c_contiguous:
        x = np.concatenate([slab.copy() for slab in slabs()]) if first.shape[1] == 1 else first
        return x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    total, n_rows = _sum(slabs(), lambda x, out: np.copyto(out, x))
    mean = total / n_rows

    def square(x: np.ndarray, out: np.ndarray) -> None:
        np.subtract(x, mean, out=out)
        np.multiply(out, out, out=out)

    return mean, np.sqrt(_sum(slabs(), square)[0] / n_rows)


def _sum(
    slabs: Iterable[np.ndarray], term: Callable[[np.ndarray, np.ndarray], object]
) -> tuple[np.ndarray, int]:
    """Sum `term` over all rows, one row after the other; return the sum and the row count."""
    n_rows, terms = 0, np.empty((0, 0))
    for slab in slabs:
        step = _rows_of_a_block(slab.shape[1])
        if not n_rows:
            # Place 0 is the sum so far; the terms to be added follow.
            terms = np.empty((step + 1, slab.shape[1]))
        for start in range(0, len(slab), step):
            block = slab[start : start + step]
            term(block, terms[1 : len(block) + 1])
            # Do not start from a sum of 0, which would turn -0 into 0.
            begin = 0 if n_rows else 1
            terms[0] = np.add.reduce(terms[begin : len(block) + 1], axis=0)
            n_rows += len(block)
    return terms[0].copy(), n_rows


def _rows_of_a_block(n_features: int) -> int:
    return max(1, BLOCK // n_features)
