"""Compute intervals and tests from arrays of errors alone, with numpy and scipy.

A difference of two MAEs is uncertain for two reasons: the runs are a random sample (of splits and
of seeds), and so are the test rows. Moreover, rows with the same formula are nearly copies of each
other. The bootstrap resamples both runs and rows.

- Runs and rows are crossed: all seeds of a split share its test rows. Resampling both independently
  is Owen's pigeonhole bootstrap (Annals of Applied Statistics 1, 386, 2007). It is mildly
  conservative.
- Rows are drawn by formula, all rows of a formula or none. This is the cluster bootstrap (Davison
  and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). More than MAX_GROUPS
  formulas are first assigned at random to MAX_GROUPS groups, which does not change the variance
  (random groups; Wolter, Introduction to Variance Estimation, 2007, chapter 2).
- Splits are drawn first, then seeds and rows within each split. This counts the variance due to the
  rows twice, since the differences between splits already contain it. On the other hand, the
  training rows of splits overlap, so splits differ less than new data would (Nadeau and Bengio,
  Machine Learning 52, 239, 2003). The two errors have opposite signs, and neither is corrected.
- With few runs the bootstrap intervals are too short: the percentiles of three runs are the lowest
  and the highest run, which enclose the mean in 75 % of cases. The deviations due to the runs are
  therefore stretched by sqrt(n / (n - 1)) t / z, like Hesterberg's expanded percentiles (The
  American Statistician 69, 371, 2015), with t at n - 1 degrees of freedom. With many runs the
  factor is close to 1.

If many pairs are tested at once, the percentiles of a bootstrap are too coarse in the tails.
`paired_p` therefore treats runs and rows as two crossed random effects. It divides the mean
difference by its standard error, which follows from the mean squares of a two-way analysis of
variance. The degrees of freedom are those that Hillis (Statistics in Medicine 26, 596, 2007) gives
for readers and cases. Without noise in the rows this is the paired t-test over runs, and with one
run it is the t-test over rows. With several draws of test rows (splits) it is the t-test over the
draws' means. Holm's correction (Scandinavian Journal of Statistics 6, 65, 1979) bounds the chance
of any false claim in a row of such tests.

Models are compared over tasks by ranks (Demsar, Journal of Machine Learning Research 7, 1, 2006):
Friedman's test, then Nemenyi's critical difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MAX_GROUPS = 500  # groups of formulas; with 500, the interval's length is known to 3 %


class BootstrapInterval(NamedTuple):
    """A mean and its interval."""

    mean: float
    low: float
    high: float


class _Split(NamedTuple):
    """The errors of one split, summed over the rows of each group of formulas."""

    a: np.ndarray  # (n_seeds_a, n_groups)
    b: np.ndarray  # (n_seeds_b, n_groups)
    size: np.ndarray  # (n_groups,) number of rows


def paired_interval(
    errors_a: Sequence[np.ndarray],
    errors_b: Sequence[np.ndarray],
    group: Sequence[np.ndarray],
    n_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> BootstrapInterval:
    """Compute the bootstrap interval of the difference of two MAEs on the same rows.

    Errors are averaged over rows, then over seeds, then over splits. If there is only one split
    with one seed, the runs have no spread, and only rows are drawn.

    Args:
        errors_a: for each split, the absolute errors (n_seeds_a, n_rows) of model a.
        errors_b: the same for model b, which may have other numbers of seeds.
        group: for each split, labels (n_rows,) of the rows that belong together, e.g. formulas.
        n_draws: the number of draws.
        seed: the seed of the draws; the same seed gives the same result.
        level: the probability that the interval contains the difference.

    Returns:
        The mean error of a minus that of b, and its interval.
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
        draw, _ = np.nonzero(picked == number)  # a draw appears as often as it has the split
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
    """Return the mean error over all rows, for each seed (n_seeds,)."""
    return sums.sum(axis=1) / size.sum()


def _draw(
    split: _Split, n_draws: int, level: float, alone: bool, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Resample the seeds and rows of a split.

    Returns:
        The differences with resampled seeds (n_draws,), and the changes caused by resampling the
        rows, too (n_draws,). If there is only one split (`alone`), the deviations due to its seeds
        are stretched here; otherwise the caller stretches the deviations due to the splits.
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
    """Draw n of n items with replacement, n_draws times.

    Returns:
        How often each item was drawn, (n_draws, n).
    """
    number = random.integers(n, size=(n_draws, n)) + n * np.arange(n_draws)[:, None]
    return np.bincount(number.ravel(), minlength=n * n_draws).reshape(n_draws, n).astype(float)


def stretch(n: int, level: float = 0.95) -> float:
    """Return the factor by which deviations of a mean of n resampled items must be stretched.

    It is sqrt(n / (n - 1)) t / z: without it, the intervals would be too short for small n. For a
    single item, which has no deviations, the factor is 1.
    """
    if n < 2:
        return 1.0
    from scipy.special import ndtri, stdtrit

    upper = (1 + level) / 2
    return float(np.sqrt(n / (n - 1)) * stdtrit(n - 1, upper) / ndtri(upper))


def mean_interval(
    errors: Sequence[np.ndarray], group: Sequence[np.ndarray], n_draws: int = 1000
) -> BootstrapInterval:
    """Compute the 95 % bootstrap interval of a MAE, by resampling splits, seeds and test rows.

    Args:
        errors: for each split, the absolute errors (n_seeds, n_rows).
        group: for each split, labels (n_rows,) of the rows that belong together.
        n_draws: the number of draws.
    """
    nothing = [np.zeros((1, split.shape[1])) for split in errors]
    return paired_interval(errors, nothing, group, n_draws)


def paired_p(differences: Sequence[np.ndarray], group: Sequence[np.ndarray]) -> float:
    """Return the two-sided p-value of the mean difference of two models' errors.

    Args:
        differences: for each draw of test rows, differences of absolute errors (n_runs, n_rows).
        group: for each draw, labels (n_rows,) of the rows that belong together.

    Returns:
        The p-value; 1 if all differences are 0.
    """
    from scipy.special import stdtr

    if len(differences) > 1:
        means = np.array([draw.mean() for draw in differences])
        mean, error = float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))
        freedom = float(len(means) - 1)
    else:
        mean, error, freedom = _crossed(np.atleast_2d(differences[0]), group[0])
    if error <= 1e-12 * abs(mean):  # all differences are equal: p is 0 or 1
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(mean) / error))


def _crossed(differences: np.ndarray, group: np.ndarray) -> tuple[float, float, float]:
    """Analyse the variance of differences (n_runs, n_rows) over runs and over groups of rows.

    Returns:
        The mean, its standard error and the degrees of freedom.
    """
    _, number = np.unique(group, return_inverse=True)
    size = np.bincount(number)  # (n_groups,) number of rows
    n_groups, n_runs = len(size), len(differences)
    sums = np.array([np.bincount(number, weights=run) for run in differences])  # (n_runs, n_groups)
    means = differences.mean(axis=1)
    # Each group's contribution to the mean over rows, linearised, since groups have different
    # numbers of rows (Cochran, Sampling Techniques, 1977, section 6.3). The mean of the
    # contributions is the mean over rows.
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
    # If only rows vary, the mean square of the runs is as small as that of the rest, and the
    # degrees of freedom are those of the rows.
    freedom = variance**2 / (of_runs**2 / (n_runs - 1)) if of_runs else np.inf
    error = float(np.sqrt(variance / (n_runs * n_groups)))
    return mean, error, float(min(freedom, (n_runs - 1) + (n_groups - 1)))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's method. Returns them in the given order.

    If all differences whose adjusted p-value is below a level are claimed, the probability of any
    false claim is at most that level.
    """
    order = sorted(range(len(probabilities)), key=lambda place: probabilities[place])
    adjusted, largest = [0.0] * len(probabilities), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * probabilities[place]))
        adjusted[place] = largest
    return adjusted


class RankTest(NamedTuple):
    """The result of testing whether models differ in their ranks over tasks."""

    chi2: float  # Friedman's statistic, corrected for ties
    p: float  # the p-value of Iman and Davenport's F
    critical_difference: float  # Nemenyi's: mean ranks closer than this cannot be told apart


def mean_ranks(errors: np.ndarray) -> np.ndarray:
    """Rank errors (n_tasks, n_models) within each task. Returns the mean ranks (n_models,).

    The lowest error has rank 1, and equal errors share the mean of their ranks. The ranks are those
    of scipy.stats.rankdata, but importing scipy.stats would take too long.
    """
    below = (errors[:, :, None] > errors[:, None, :]).sum(axis=2)
    equal = (errors[:, :, None] == errors[:, None, :]).sum(axis=2)
    return (below + (equal + 1) / 2).mean(axis=0)


def compare_ranks(errors: np.ndarray, level: float = 0.05) -> RankTest:
    """Compare models by the ranks of their errors.

    Args:
        errors: errors (n_tasks, n_models) without gaps, of at least two tasks and two models.
        level: the level of the critical difference.
    """
    from scipy.stats import f, friedmanchisquare, studentized_range

    n_tasks, n_models = errors.shape
    if n_models == 2:  # scipy's test needs three; for two, wins and losses give the statistic
        wins = np.sign(errors[:, 0] - errors[:, 1])
        chi2 = float(wins.sum() ** 2 / max(np.abs(wins).sum(), 1))
    else:
        with np.errstate(invalid="ignore"):  # 0 / 0 if all errors are equal
            chi2 = float(np.nan_to_num(friedmanchisquare(*errors.T).statistic))
    rest = n_tasks * (n_models - 1) - chi2
    statistic = (n_tasks - 1) * chi2 / rest if rest > 1e-9 else np.inf
    p = float(f.sf(statistic, n_models - 1, (n_models - 1) * (n_tasks - 1)))
    q = float(studentized_range.ppf(1 - level, n_models, np.inf)) / np.sqrt(2)
    return RankTest(chi2, p, q * float(np.sqrt(n_models * (n_models + 1) / (6 * n_tasks))))
