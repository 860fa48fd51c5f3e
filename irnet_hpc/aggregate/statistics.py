"""Compute intervals and tests from arrays of errors alone, with numpy and scipy.

How far can a difference of two MAEs be trusted? Two things were drawn at random: the runs (the
split of the rows, the seed of a training) and the test rows, among which those of one formula are
nearly copies. The bootstrap draws all of them again.

- Runs and rows are crossed: all seeds of a split share its test rows. Drawing both independently is
  Owen's pigeonhole bootstrap (Annals of Applied Statistics 1, 386, 2007), mildly conservative.
- Rows are drawn by formula, all of a formula or none: the cluster bootstrap (Davison and Hinkley,
  Bootstrap Methods and their Application, 1997, section 3.8). More than MAX_GROUPS formulas are
  first dealt at random into MAX_GROUPS groups, which leaves the variance as it is (random groups;
  Wolter, Introduction to Variance Estimation, 2007, chapter 2).
- Splits are drawn first, then seeds and rows within each. This counts the rows' part of the
  variance twice, since it is already in how splits differ. The training rows of splits overlap,
  which makes them less different than new data would be (Nadeau and Bengio, Machine Learning 52,
  239, 2003). The two errors have opposite signs, and neither is corrected.
- With few runs the bootstrap knows too little: the percentiles of three runs are their lowest and
  highest, which hold the mean in 75 % of cases. The part of the runs is therefore stretched by
  sqrt(n / (n - 1)) t / z, like Hesterberg's expanded percentiles (The American Statistician 69,
  371, 2015), with t at n - 1 degrees of freedom. With many runs nothing changes.

Where many pairs are tested at once, percentiles of a bootstrap are too coarse in their tails.
There, runs and rows are two crossed random effects: the mean difference is divided by its standard
error from the mean squares of a two-way analysis of variance, with the degrees of freedom of Hillis
(Statistics in Medicine 26, 596, 2007), who gives them for readers and cases: `paired_p`. Without
noise in the rows this is the paired t-test over runs, and with one run the t-test over rows. With
several draws of test rows (splits) it is the t-test over the draws' means. Holm's correction
(Scandinavian Journal of Statistics 6, 65, 1979) makes a row of such tests one claim.

Models are compared over tasks by ranks (Demsar, Journal of Machine Learning Research 7, 1, 2006):
Friedman's test, then Nemenyi's critical difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MAX_GROUPS = 500  # groups of formulas; so many give the interval's length to 3 %


class BootstrapInterval(NamedTuple):
    """A mean and an interval for it."""

    mean: float
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
) -> BootstrapInterval:
    """Bootstrap the difference of two MAEs on the same rows; the same `seed` gives the same result.

    The mean is over splits of the mean over seeds of the mean over rows. Where there is one split
    of one seed, which has no spread of its own, only rows are drawn.

    Args:
        errors_a: for each split, absolute errors (n_seeds_a, n_rows) of a.
        errors_b: the same for b, which may have other numbers of seeds.
        group: for each split, which rows belong together (n_rows,), e.g. formulas.
        n_draws: number of draws.
        seed: the seed of the draws.
        level: probability that the interval holds.

    Returns:
        The mean of a's errors less b's, and its interval.
    """
    random = np.random.default_rng(seed)
    splits = [_summed(*arrays, random) for arrays in zip(errors_a, errors_b, group, strict=True)]
    differences = [
        _mean(split.a, split.size).mean() - _mean(split.b, split.size).mean() for split in splits
    ]
    mean = float(np.mean(differences))
    picked = random.integers(len(splits), size=(n_draws, len(splits)))
    by_runs, by_rows = np.zeros(n_draws), np.zeros(n_draws)
    for number, split in enumerate(splits):
        draw, _ = np.nonzero(picked == number)  # each as often as it contains the split
        runs, rows = _draw(split, len(draw), level, len(splits) == 1, random)
        by_runs += np.bincount(draw, runs, n_draws)
        by_rows += np.bincount(draw, rows, n_draws)
    deviation = stretch(len(splits), level) * (by_runs / len(splits) - mean) + by_rows / len(splits)
    low, high = np.quantile(deviation, [(1 - level) / 2, (1 + level) / 2])
    return BootstrapInterval(mean, mean + float(low), mean + float(high))


def _summed(a: np.ndarray, b: np.ndarray, group: np.ndarray, random: np.random.Generator) -> _Split:
    _, number = np.unique(group, return_inverse=True)
    n_groups = int(number.max()) + 1
    if n_groups > MAX_GROUPS:
        number = (random.permutation(n_groups) % MAX_GROUPS)[number]
    a, b = (
        np.array([np.bincount(number, weights=errors) for errors in np.atleast_2d(side)])
        for side in (a, b)
    )  # (n_seeds, n_groups)
    return _Split(a, b, np.bincount(number))


def _mean(sums: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the means over all rows (n_seeds,)."""
    return sums.sum(axis=1) / size.sum()


def _draw(
    split: _Split, n_draws: int, level: float, alone: bool, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw seeds and rows again.

    Returns:
        Differences with seeds drawn again (n_draws,), and what drawing rows again adds (n_draws,).
        Where the split is alone, its seeds are all runs there are, and are stretched; else the
        splits are.
    """
    rows = _counts(len(split.size), n_draws, random)  # (n_draws, n_groups)
    by_runs, by_both, stretched = np.zeros(n_draws), np.zeros(n_draws), np.zeros(n_draws)
    for sign, sums in ((1, split.a), (-1, split.b)):
        n_seeds, means = len(sums), _mean(sums, split.size)
        seeds = _counts(n_seeds, n_draws, random) / n_seeds  # (n_draws, n_seeds)
        by_runs += sign * (seeds @ means)
        by_both += sign * ((rows @ sums.T) * seeds).sum(axis=1) / (rows @ split.size)
        factor = stretch(n_seeds, level) if alone else 1
        stretched += sign * (means.mean() + factor * (seeds @ means - means.mean()))
    return stretched, by_both - by_runs


def _counts(n: int, n_draws: int, random: np.random.Generator) -> np.ndarray:
    """Count how often each of n items comes up in n draws with replacement: (n_draws, n)."""
    number = random.integers(n, size=(n_draws, n)) + n * np.arange(n_draws)[:, None]
    return np.bincount(number.ravel(), minlength=n * n_draws).reshape(n_draws, n).astype(float)


def stretch(n: int, level: float = 0.95) -> float:
    """Return sqrt(n / (n - 1)) t / z, by which deviations of a resampled mean are too small.

    1 for a single run, which has no deviations.
    """
    if n < 2:
        return 1.0
    from scipy.special import ndtri, stdtrit

    upper = (1 + level) / 2
    return float(np.sqrt(n / (n - 1)) * stdtrit(n - 1, upper) / ndtri(upper))


def mean_interval(
    errors: Sequence[np.ndarray], group: Sequence[np.ndarray], n_draws: int = 1000
) -> BootstrapInterval:
    """Bootstrap a MAE at 95 %, drawing splits, seeds and test rows again.

    Args:
        errors: for each split, absolute errors (n_seeds, n_rows).
        group: for each split, which rows belong together (n_rows,).
        n_draws: number of draws.
    """
    nothing = [np.zeros((1, split.shape[1])) for split in errors]
    return paired_interval(errors, nothing, group, n_draws)


def paired_p(differences: Sequence[np.ndarray], group: Sequence[np.ndarray]) -> float:
    """Return the two-sided probability of so large a mean difference by chance alone.

    Args:
        differences: for each draw of test rows, differences of absolute errors (n_runs, n_rows).
        group: for each draw, which rows belong together (n_rows,).

    Returns:
        The probability; 1 where nothing differs.
    """
    from scipy.special import stdtr

    if len(differences) > 1:
        means = np.array([draw.mean() for draw in differences])
        mean, error = float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))
        freedom = float(len(means) - 1)
    else:
        mean, error, freedom = _crossed(np.atleast_2d(differences[0]), group[0])
    if error <= 1e-12 * abs(mean):  # the same everywhere: certain, or nothing
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(mean) / error))


def _crossed(differences: np.ndarray, group: np.ndarray) -> tuple[float, float, float]:
    """Analyse differences (n_runs, n_rows) over runs and groups of rows.

    Returns:
        Mean, standard error and degrees of freedom.
    """
    _, number = np.unique(group, return_inverse=True)
    size = np.bincount(number)  # (n_groups,) rows
    n_groups, n_runs = len(size), len(differences)
    sums = np.array([np.bincount(number, weights=run) for run in differences])  # (n_runs, n_groups)
    means = differences.mean(axis=1)
    # A group's part in the mean over rows, linearised, since groups have unlike numbers of rows
    # (Cochran, Sampling Techniques, 1977, section 6.3). Its mean over groups is the mean over rows.
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
    # Where only rows vary, the runs' mean square is as small as the rest's, and the degrees of
    # freedom are those of the rows.
    freedom = variance**2 / (of_runs**2 / (n_runs - 1)) if of_runs else np.inf
    error = float(np.sqrt(variance / (n_runs * n_groups)))
    return mean, error, float(min(freedom, (n_runs - 1) + (n_groups - 1)))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Adjust probabilities by Holm, in the order given.

    If those below a level are claimed, the chance of any false claim is at most the level.
    """
    order = sorted(range(len(probabilities)), key=lambda place: probabilities[place])
    adjusted, largest = [0.0] * len(probabilities), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * probabilities[place]))
        adjusted[place] = largest
    return adjusted


class RankTest(NamedTuple):
    """A test of whether models differ in their ranks over tasks."""

    chi2: float  # Friedman's, corrected for ties
    p: float  # by Iman and Davenport's F
    critical_difference: float  # Nemenyi's: mean ranks closer than this cannot be told apart


def mean_ranks(errors: np.ndarray) -> np.ndarray:
    """Rank errors (n_tasks, n_models) in each task, 1 the lowest; return the means (n_models,).

    Equal errors share the mean of their ranks. The same as scipy.stats.rankdata, without the time
    that importing scipy.stats takes.
    """
    below = (errors[:, :, None] > errors[:, None, :]).sum(axis=2)
    equal = (errors[:, :, None] == errors[:, None, :]).sum(axis=2)
    return (below + (equal + 1) / 2).mean(axis=0)


def compare_ranks(errors: np.ndarray, level: float = 0.05) -> RankTest:
    """Compare models by the ranks of their errors.

    Args:
        errors: (n_tasks, n_models) without gaps, at least two of each.
        level: the level of the critical difference.
    """
    from scipy.stats import f, friedmanchisquare, studentized_range

    n_tasks, n_models = errors.shape
    if n_models == 2:  # scipy's test begins at three: the same statistic, from wins and losses
        wins = np.sign(errors[:, 0] - errors[:, 1])
        chi2 = float(wins.sum() ** 2 / max(np.abs(wins).sum(), 1))
    else:
        with np.errstate(invalid="ignore"):  # 0 / 0 where all errors are equal
            chi2 = float(np.nan_to_num(friedmanchisquare(*errors.T).statistic))
    rest = n_tasks * (n_models - 1) - chi2
    statistic = (n_tasks - 1) * chi2 / rest if rest > 1e-9 else np.inf
    p = float(f.sf(statistic, n_models - 1, (n_models - 1) * (n_tasks - 1)))
    q = float(studentized_range.ppf(1 - level, n_models, np.inf)) / np.sqrt(2)
    return RankTest(chi2, p, q * float(np.sqrt(n_models * (n_models + 1) / (6 * n_tasks))))
