"""Scale features and targets by statistics of the training rows, as the recipe says.

Rows come in slabs, so that a table may be larger than memory; the statistics equal, to the last
bit, those that numpy computes over a whole array.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from irnet_hpc.runs.classical_grids import Grid
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.train.joint import spreads

# Numbers that are scaled at once: in float64 they fit in a core's cache; whole arrays take three
# times as long.
BLOCK = 2**15

# Yields rows (n, n_features) float32, each slab valid until the next; each call is a pass.
Slabs = Callable[[], Iterable[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A scaling of features and targets. Its statistics are those of the training rows."""

    feature_mean: np.ndarray  # (n_features,) float64
    feature_scale: np.ndarray  # (n_features,) float64, 1 where a feature does not vary
    clip: float  # standard deviations; 0: no limit
    # In the unit of the property; for several properties (n_properties,).
    target_mean: float | np.ndarray
    target_scale: float | np.ndarray
    # For several properties (n_properties,): the deviations that relative errors are divided by.
    spread: np.ndarray | None = None
    # Predictions are cut at it, in the unit; -inf: they are not.
    floor: float | np.ndarray = -np.inf

    def features(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Scale features.

        Args:
            x: (n_rows, n_features), as packed.
            out: Where to write them, which may be `x`; None for new memory.

        Returns:
            (n_rows, n_features) float32.
        """
        out = np.empty(x.shape, np.float32) if out is None else out
        n_rows, n_features = x.shape
        step = _rows_of_a_block(n_features)
        exact = np.empty((min(step, n_rows), n_features))  # rounded to float32 once, at the end
        for start in range(0, n_rows, step):
            rows = slice(start, start + step)
            block = exact[: len(x[rows])]
            np.subtract(x[rows], self.feature_mean, out=block)
            np.divide(block, self.feature_scale, out=block)
            if self.clip:
                np.clip(block, -self.clip, self.clip, out=block)
            out[rows] = block
        return out

    def target(self, target: np.ndarray) -> np.ndarray:
        """Scale targets (n_rows,) or (n_rows, n_properties) in their unit; float64."""
        return (target - self.target_mean) / self.target_scale


def fit(
    slabs: Slabs, n_features: int, target: np.ndarray, recipe: Recipe | Grid, given: Scaling | None
) -> Scaling:
    """Compute the scaling of a recipe from the training rows.

    Args:
        slabs: The features of the training rows, in slabs.
        n_features: The number of columns.
        target: Their targets (n_rows,) or (n_rows, n_properties).
        recipe: What to scale.
        given: A scaling whose features are to be used instead.
    """
    mean, scale, clip = np.zeros(n_features), np.ones(n_features), recipe.clip
    if given:
        mean, scale, clip = given.feature_mean, given.feature_scale, given.clip
    elif recipe.features == "standard":
        mean, scale = moments(slabs)
        # The rounding of a constant is no variation.
        scale[scale <= 1e-7 * np.abs(mean)] = 0
        scale[scale == 0] = 1
    if target.ndim == 2:
        spread, n = spreads(target), target.shape[1]
        if recipe.target == "standard":
            return Scaling(mean, scale, clip, np.nanmean(target, 0), spread, spread=spread)
        return Scaling(mean, scale, clip, np.zeros(n), np.ones(n), spread=spread)
    if recipe.target == "standard":
        return Scaling(mean, scale, clip, float(target.mean()), float(target.std()) or 1.0)
    return Scaling(mean, scale, clip, 0.0, 1.0)


def moments(slabs: Slabs) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation of at least one row, as numpy does of a whole array.

    numpy adds rows one after the other, so that a sum can be interrupted and continued. It adds in
    pairs along the memory in two cases: a single feature, which is kept whole (it takes no more
    room than the target), and an array that lies by columns, which can only be the caller's own, in
    one slab.

    Returns:
        Two arrays (n_features,) float64.
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
    """Add the terms of all rows (n_features,), one row after the other, and count them."""
    n_rows, terms = 0, np.empty((0, 0))
    for slab in slabs:
        step = _rows_of_a_block(slab.shape[1])
        if not n_rows:
            # The sum so far, and the rows that are added to it.
            terms = np.empty((step + 1, slab.shape[1]))
        for start in range(0, len(slab), step):
            block = slab[start : start + step]
            term(block, terms[1 : len(block) + 1])
            # Not from a sum of 0, which would turn -0 into 0.
            begin = 0 if n_rows else 1
            terms[0] = np.add.reduce(terms[begin : len(block) + 1], axis=0)
            n_rows += len(block)
    return terms[0].copy(), n_rows


def _rows_of_a_block(n_features: int) -> int:
    return max(1, BLOCK // n_features)
