"""Intervals and tests over results, from arrays of errors alone. Pure numpy and scipy; nothing of ours.

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

Where many pairs are tested at once, percentiles of a bootstrap are too coarse in their tails. Then runs and rows are two
crossed random effects, and the mean difference is divided by its standard error from the mean squares of a two-way analysis
of variance, with the degrees of freedom of Hillis (Statistics in Medicine 26, 596, 2007), who gives them for readers x cases:
`paired_p`. With no noise in the rows it is the paired t-test over runs, with one run that over rows. Of several draws of
test rows (splits) it is the t-test over the draws' means. Holm's correction (Scandinavian Journal of Statistics 6, 65, 1979)
makes a row of such tests one claim. Models over tasks are compared by ranks as Demsar says (Journal of Machine Learning
Research 7, 1, 2006): Friedman's test, then Nemenyi's critical difference.
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
    mean = float(
        np.mean(
            [
                _mean(split.a, split.size).mean() - _mean(split.b, split.size).mean()
                for split in splits
            ]
        )
    )
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
        np.array([np.bincount(number, weights=errors) for errors in np.atleast_2d(side)])
        for side in (a, b)
    )  # (n_seeds, n_groups)
    return _Split(a, b, np.bincount(number))


def _mean(sums: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(n_seeds,) means over all rows."""
    return sums.sum(axis=1) / size.sum()


def _draw(
    split: _Split, n_draws: int, level: float, alone: bool, random: np.random.Generator
) -> tuple:
    """(n_draws,) differences with seeds drawn again, and what drawing rows again adds to each. Where the split is alone, its
    seeds are all the runs that there are, and are stretched; else splits are."""
    rows = _counts(len(split.size), n_draws, random)  # (n_draws, n_groups)
    of_runs, of_both, stretched = 0.0, 0.0, 0.0
    for sign, sums in ((1, split.a), (-1, split.b)):
        n_seeds, means = len(sums), _mean(sums, split.size)
        seeds = _counts(n_seeds, n_draws, random) / n_seeds  # (n_draws, n_seeds)
        of_runs += sign * (seeds @ means)
        of_both += sign * ((rows @ sums.T) * seeds).sum(axis=1) / (rows @ split.size)
        stretched += sign * (
            means.mean()
            + (stretch(n_seeds, level) if alone else 1) * (seeds @ means - means.mean())
        )
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


def mean_interval(
    errors: Sequence[np.ndarray], group: Sequence[np.ndarray], n_draws: int = 1000
) -> Interval:
    """The mean of absolute errors, and an interval of 95 % for it that draws splits, seeds and test rows again; one entry a
    split, as `paired_interval` takes them."""
    return paired_interval(errors, [np.zeros((1, one.shape[1])) for one in errors], group, n_draws)


def paired_p(differences: Sequence[np.ndarray], group: Sequence[np.ndarray]) -> float:
    """Two-sided probability of a mean difference at least as large where there is none.

    One entry a draw of test rows: differences of absolute errors (n_runs, n_rows), and what rows belong together (n_rows,).
    1 where nothing differs.
    """
    from scipy.stats import t

    if len(differences) > 1:
        means = np.array([one.mean() for one in differences])
        mean, error, freedom = means.mean(), means.std(ddof=1) / np.sqrt(len(means)), len(means) - 1
    else:
        mean, error, freedom = _crossed(np.atleast_2d(differences[0]), group[0])
    if error <= 1e-12 * abs(mean):  # the same everywhere: certain, or nothing
        return 1.0 if mean == 0 else 0.0
    return float(2 * t.sf(abs(mean) / error, freedom))


def _crossed(differences: np.ndarray, group: np.ndarray) -> tuple[float, float, float]:
    """Mean, standard error and degrees of freedom of differences (n_runs, n_rows) over runs and groups of rows."""
    _, number = np.unique(group, return_inverse=True)
    size = np.bincount(number)  # (n_groups,) rows
    n_groups, n_runs = len(size), len(differences)
    sums = np.array([np.bincount(number, weights=one) for one in differences])  # (n_runs, n_groups)
    means = differences.mean(axis=1)
    # A group's part in the mean over rows, linearised: groups have unlike numbers of rows (Cochran, Sampling Techniques,
    # 1977, section 6.3). Its mean over groups is the mean over rows.
    part = means[:, None] + (sums - means[:, None] * size) * n_groups / size.sum()
    mean = float(means.mean())
    if n_groups == 1 and n_runs == 1:
        return mean, 0.0, 1.0
    of_runs = n_groups * means.var(ddof=1) if n_runs > 1 else 0.0
    of_groups = n_runs * part.mean(axis=0).var(ddof=1) if n_groups > 1 else 0.0
    if n_runs == 1:
        return mean, float(np.sqrt(of_groups / n_groups)), n_groups - 1
    if n_groups == 1:
        return mean, float(np.sqrt(of_runs / n_runs)), n_runs - 1
    rest = part - part.mean(axis=0) - means[:, None] + mean
    of_rest = float((rest**2).sum()) / ((n_runs - 1) * (n_groups - 1))
    variance = of_runs + max(of_groups - of_rest, 0.0)  # times n_runs n_groups
    # Where only rows vary the runs' mean square is as small as the rest's, and the degrees of freedom are those of the rows.
    freedom = variance**2 / (of_runs**2 / (n_runs - 1)) if of_runs else np.inf
    error = float(np.sqrt(variance / (n_runs * n_groups)))
    return mean, error, float(min(freedom, (n_runs - 1) + (n_groups - 1)))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Holm's adjusted probabilities, in the order given: below `level`, the chance of one false claim among all is at most it."""
    order = sorted(range(len(probabilities)), key=lambda place: probabilities[place])
    adjusted, largest = [0.0] * len(probabilities), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * probabilities[place]))
        adjusted[place] = largest
    return adjusted


class Ranked(NamedTuple):
    """Models compared over tasks by the ranks of their errors."""

    ranks: tuple[float, ...]  # mean over the tasks, 1 is the best; equal errors share theirs
    chi2: float  # Friedman's, corrected for ties
    p: float  # by Iman and Davenport's F
    critical_difference: float  # Nemenyi's: mean ranks that differ by less are not distinguishable


def friedman(errors: np.ndarray, level: float = 0.05) -> Ranked:
    """Errors (n_tasks, n_models) without gaps, at least two of each."""
    from scipy.stats import f, rankdata, studentized_range

    n_tasks, n_models = errors.shape
    ranks = rankdata(errors, axis=1)
    means = ranks.mean(axis=0)
    spread = float((ranks**2).sum() - n_tasks * n_models * (n_models + 1) ** 2 / 4)
    chi2 = (
        n_tasks**2 * (n_models - 1) * float(((means - (n_models + 1) / 2) ** 2).sum()) / spread
        if spread
        else 0.0
    )
    rest = n_tasks * (n_models - 1) - chi2
    statistic = (n_tasks - 1) * chi2 / rest if rest > 1e-9 else np.inf
    p = float(f.sf(statistic, n_models - 1, (n_models - 1) * (n_tasks - 1)))
    q = float(studentized_range.ppf(1 - level, n_models, np.inf)) / np.sqrt(2)
    return Ranked(
        tuple(means.tolist()),
        chi2,
        p,
        q * float(np.sqrt(n_models * (n_models + 1) / (6 * n_tasks))),
    )
