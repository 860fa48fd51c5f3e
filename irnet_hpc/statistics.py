"""Intervals over results, from arrays of errors alone. Pure numpy and scipy; nothing of ours.

How far can a difference of two MAEs be trusted? Two things were drawn at random: the runs (the split of the rows, the seed
of a training) and the test rows, among which those of one formula are nearly copies. The bootstrap draws all of them again.

- Runs and rows are crossed: all seeds of a split share its test rows. Drawing both independently is Owen's pigeonhole
  bootstrap (Annals of Applied Statistics 1, 386, 2007), which is mildly conservative.
- Rows are drawn by formula, all of a formula or none: the cluster bootstrap (Davison and Hinkley, Bootstrap Methods and
  their Application, 1997, section 3.8). More than MOST_GROUPS formulas are first dealt at random into so many groups, which
  leaves the variance as it is (random groups; Wolter, Introduction to Variance Estimation, 2007, chapter 2).
- Splits are drawn first, then seeds and rows within each. This counts the rows' part of the variance twice, since it is
  already in how splits differ; the training rows of splits overlap, which makes them less different than new data would be
  (Nadeau and Bengio, Machine Learning 52, 239, 2003), and the two errors have opposite signs. Neither is corrected.
- Of few runs the bootstrap knows too little: the percentiles of three are their least and largest, which hold the mean in
  75 % of cases. What the runs contribute is therefore stretched by sqrt(n / (n - 1)) t / z, as Hesterberg's expanded
  percentiles do (The American Statistician 69, 371, 2015): t with n - 1 degrees of freedom. Of many runs nothing changes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MOST_GROUPS = 500  # of formulas that are drawn together; the interval's length is then known to 3 %


class Interval(NamedTuple):
    mean: float  # a less b
    low: float
    high: float


class _Split(NamedTuple):
    """Errors of one split, summed over the rows of each group of formulas."""

    a: np.ndarray  # (n_seeds_a, n_groups)
    b: np.ndarray  # (n_seeds_b, n_groups)
    size: np.ndarray  # (n_groups,) rows


def paired_interval(
    errors_a: Sequence[np.ndarray],
    errors_b: Sequence[np.ndarray],
    group: Sequence[np.ndarray],
    n_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean of a's absolute errors less b's on the same rows, and an interval for it; the same for the same `seed`.

    One entry a split: absolute errors (n_seeds, n_rows) of a and of b, which may have different numbers of seeds, and what
    rows belong together, (n_rows,), e.g. formulas. The mean is over splits of the mean over seeds of the mean over rows. One
    seed of one split has no spread of its own: then only rows are drawn.
    """
    random = np.random.default_rng(seed)
    splits = [_summed(*arrays, random) for arrays in zip(errors_a, errors_b, group, strict=True)]
    mean = float(np.mean([_mean(split.a, split.size).mean() - _mean(split.b, split.size).mean() for split in splits]))
    picked = random.integers(len(splits), size=(n_draws, len(splits)))
    by_runs, by_rows = np.zeros(n_draws), np.zeros(n_draws)
    for number, split in enumerate(splits):
        draw, _ = np.nonzero(picked == number)  # a draw is there as often as it has this split
        of_runs, of_rows = _draw(split, len(draw), level, len(splits) == 1, random)
        by_runs += np.bincount(draw, of_runs, n_draws)
        by_rows += np.bincount(draw, of_rows, n_draws)
    deviation = stretch(len(splits), level) * (by_runs / len(splits) - mean) + by_rows / len(splits)
    low, high = np.quantile(deviation, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, mean + float(low), mean + float(high))


def _summed(a: np.ndarray, b: np.ndarray, group: np.ndarray, random: np.random.Generator) -> _Split:
    _, number = np.unique(group, return_inverse=True)
    n_groups = int(number.max()) + 1
    if n_groups > MOST_GROUPS:
        number = (random.permutation(n_groups) % MOST_GROUPS)[number]
    a, b = (
        np.array([np.bincount(number, weights=errors) for errors in np.atleast_2d(side)]) for side in (a, b)
    )  # (n_seeds, n_groups)
    return _Split(a, b, np.bincount(number))


def _mean(sums: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(n_seeds,) means over all rows."""
    return sums.sum(axis=1) / size.sum()


def _draw(split: _Split, n_draws: int, level: float, alone: bool, random: np.random.Generator) -> tuple:
    """(n_draws,) differences with seeds drawn again, and what drawing rows again adds to each. Where the split is alone, its
    seeds are all the runs that there are, and are stretched; else splits are."""
    rows = _counts(len(split.size), n_draws, random)  # (n_draws, n_groups)
    of_runs, of_both, stretched = 0.0, 0.0, 0.0
    for sign, sums in ((1, split.a), (-1, split.b)):
        n_seeds, means = len(sums), _mean(sums, split.size)
        seeds = _counts(n_seeds, n_draws, random) / n_seeds  # (n_draws, n_seeds)
        of_runs += sign * (seeds @ means)
        of_both += sign * ((rows @ sums.T) * seeds).sum(axis=1) / (rows @ split.size)
        stretched += sign * (means.mean() + (stretch(n_seeds, level) if alone else 1) * (seeds @ means - means.mean()))
    return stretched, of_both - of_runs


def _counts(n: int, n_draws: int, random: np.random.Generator) -> np.ndarray:
    """(n_draws, n): how often each of n is drawn when n are, with replacement."""
    number = random.integers(n, size=(n_draws, n)) + n * np.arange(n_draws)[:, None]
    return np.bincount(number.ravel(), minlength=n * n_draws).reshape(n_draws, n).astype(float)


def stretch(n: int, level: float = 0.95) -> float:
    """By what the deviations of a resampled mean of n are too small: sqrt(n / (n - 1)) t / z. 1 for one, which has none."""
    from scipy.stats import norm, t  # here, since scipy is slow to come

    if n < 2:
        return 1.0
    upper = (1 + level) / 2
    return float(np.sqrt(n / (n - 1)) * t.ppf(upper, n - 1) / norm.ppf(upper))
