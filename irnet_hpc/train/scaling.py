"""The recipe's scaling of features and target: statistics of the training rows, and what they make of a row.

Rows come in slabs, so that a table larger than the memory has the statistics, to the last bit, that numpy takes of one
that is not.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from irnet_hpc.runs.grids import Grid
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.train.joint import spreads

BLOCK = (
    2**15
)  # numbers at once: in float64 they stay in a core's cache, where whole arrays take three times as long

Slabs = Callable[
    [], Iterable[np.ndarray]
]  # (n, n_features) float32 after one another, each good until the next; called again for another pass


@dataclasses.dataclass(frozen=True)
class Scaling:
    """The recipe's scaling of features and target, and how to undo it. Statistics are those of the training rows."""

    feature_mean: np.ndarray  # (n_features,) float64
    feature_scale: np.ndarray  # (n_features,) float64, 1 where a feature does not vary
    clip: float  # standard deviations; 0: no limit
    target_mean: float | np.ndarray  # in the property's unit; of several properties (n_properties,)
    target_scale: float | np.ndarray
    spread: np.ndarray | None = (
        None  # of several properties (n_properties,), what their errors are relative to
    )
    floor: (
        float | np.ndarray
    ) = -np.inf  # in the unit: what predictions are cut at; -inf: at nothing

    def features(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(n_rows, n_features) as packed -> scaled, float32; written to `out`, which may be `x`, where it is given."""
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
        """(n_rows,) or (n_rows, n_properties) in the unit -> scaled, float64."""
        return (target - self.target_mean) / self.target_scale


def fit(
    slabs: Slabs, n_features: int, target: np.ndarray, recipe: Recipe | Grid, given: Scaling | None
) -> Scaling:
    """The scaling by training rows, whose targets are (n_rows,) or (n_rows, n_properties); of features that of `given`, if it is."""
    mean, scale, clip, target_mean, target_scale = (
        np.zeros(n_features),
        np.ones(n_features),
        recipe.clip,
        0.0,
        1.0,
    )
    if given:
        mean, scale, clip = given.feature_mean, given.feature_scale, given.clip
    elif recipe.features == "standard":
        mean, scale = moments(slabs)
        scale[scale <= 1e-7 * np.abs(mean)] = 0  # rounding of a constant is not variation
        scale[scale == 0] = 1
    if target.ndim == 2:
        spread, n = spreads(target), target.shape[1]
        standard = recipe.target == "standard"
        target_mean, target_scale = (
            (np.nanmean(target, 0), spread) if standard else (np.zeros(n), np.ones(n))
        )
        return Scaling(mean, scale, clip, target_mean, target_scale, spread=spread)
    if recipe.target == "standard":
        target_mean, target_scale = float(target.mean()), float(target.std()) or 1.0
    return Scaling(mean, scale, clip, target_mean, target_scale)


def moments(slabs: Slabs) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n_features,) float64 of at least one row, as numpy has them of all rows in one array.

    numpy adds rows one after the other, so a sum can be broken off and go on. Not so where it adds along the memory, in
    pairs: of a single feature, which is kept whole (it takes no more room than the target), and of an array that lies by
    columns, which can only be the caller's own, in one slab.
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
    """Sum of the rows' terms (n_features,) float64, one row after the other, and how many rows there are."""
    n_rows, terms = 0, None
    for slab in slabs:
        step = _rows_of_a_block(slab.shape[1])
        if terms is None:
            terms = np.empty(
                (step + 1, slab.shape[1])
            )  # the sum so far, and the rows that come to it
        for start in range(0, len(slab), step):
            block = slab[start : start + step]
            term(block, terms[1 : len(block) + 1])
            begin = 0 if n_rows else 1  # not from 0, which would make 0 of a -0
            terms[0] = np.add.reduce(terms[begin : len(block) + 1], axis=0)
            n_rows += len(block)
    return terms[0].copy(), n_rows


def _rows_of_a_block(n_features: int) -> int:
    return max(1, BLOCK // n_features)
