"""Intervals against scipy's, against Student's, and against what can be worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from irnet_hpc.statistics import MOST_GROUPS, paired_interval, stretch


def alone(errors, other=None, group=None, **options):
    """One split: errors (n_seeds, n_rows) against none."""
    errors = np.atleast_2d(errors)
    other = np.zeros((1, errors.shape[1])) if other is None else other
    return paired_interval([errors], [other], [np.arange(errors.shape[1]) if group is None else group], **options)


def test_a_difference_that_is_the_same_everywhere_has_an_interval_of_no_length():
    b = np.arange(12.0).reshape(3, 4)
    interval = paired_interval([b[:1] - 0.5, b[1:2] + 0.25], [b[:1], b[1:2]], [np.arange(4)] * 2)
    assert interval.mean == pytest.approx(-0.125)  # -0.5 of one split, 0.25 of the other
    assert alone(b[:1] - 0.5, b[:1]) == pytest.approx((-0.5, -0.5, -0.5))


def test_the_mean_is_over_splits_of_seeds_of_rows_whatever_their_numbers():
    """Split 0: (1 + 3) / 2 of two seeds of one row, less 0. Split 1: (2 + 4 + 6) / 3 of one seed, less 1."""
    a = [np.array([[1.0], [3.0]]), np.array([[2.0, 4.0, 6.0]])]
    b = [np.zeros((1, 1)), np.ones((2, 3))]
    assert paired_interval(a, b, [np.array(["Fe"]), np.array(["Fe", "O", "H"])]).mean == pytest.approx(2.5)


def test_of_one_run_it_is_the_percentile_bootstrap_of_scipy():
    random = np.random.default_rng(3)
    a, b = random.gamma(2, size=(2, 300))
    ours = alone(a, b[None], n_draws=8000)
    theirs = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=8000, random_state=1)
    low, high = theirs.confidence_interval
    assert ours.mean == pytest.approx(np.mean(a - b))
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.04 * (high - low))


@pytest.mark.parametrize("n_runs", [10, 40])
def test_of_runs_without_noise_in_the_rows_it_is_about_students(n_runs):
    means = np.random.default_rng(n_runs).normal(size=n_runs)
    low, high = stats.t.interval(0.95, n_runs - 1, means.mean(), stats.sem(means))
    seeds = alone(np.repeat(means[:, None], 5, axis=1), n_draws=8000)
    splits = paired_interval(list(means[:, None, None]), [np.zeros((1, 1))] * n_runs, [np.zeros(1)] * n_runs, 8000)
    for ours in (seeds, splits):
        assert ours.high - ours.low == pytest.approx(high - low, rel=0.08)
        assert ours.low == pytest.approx(low, abs=0.1 * (high - low))


@pytest.mark.parametrize("n_runs", [3, 5])
@pytest.mark.parametrize("row_sd", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("by", ["seeds", "splits"])
def test_it_holds_the_truth_in_about_95_of_100_cases(n_runs, row_sd, by):
    """Of three runs the plain percentiles hold it in 75. Bounds: 300 simulations know 95 % to 1.3 % (one sd)."""
    n_rows, held, random = 60, 0, np.random.default_rng(1)
    for _ in range(300):
        run = random.normal(size=(n_runs, 1))
        if by == "seeds":  # all share their rows
            errors = run + row_sd * (random.normal(size=n_rows) + random.normal(size=(n_runs, n_rows)))
            interval = alone(errors, n_draws=300)
        else:  # each has its own
            errors = run + row_sd * random.normal(size=(n_runs, n_rows))
            none = [np.zeros((1, n_rows))] * n_runs
            interval = paired_interval(list(errors[:, None]), none, [np.arange(n_rows)] * n_runs, n_draws=300)
        held += interval.low <= 0 <= interval.high
    assert 0.91 <= held / 300 <= 1.0


def test_rows_of_one_formula_are_drawn_together():
    """Each row four times is no more evidence than once; taken for rows of their own they would halve the interval."""
    errors = np.random.default_rng(5).normal(size=100)
    once = alone(errors, n_draws=8000)
    four = np.repeat(errors, 4)
    together = alone(four, group=np.repeat(np.arange(100), 4), n_draws=8000)
    apart = alone(four, n_draws=8000)
    assert together.high - together.low == pytest.approx(once.high - once.low, rel=0.05)
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / 2, rel=0.05)


def test_many_formulas_dealt_into_groups_leave_the_interval_as_long():
    errors = np.random.default_rng(7).gamma(2, size=20 * MOST_GROUPS)
    ours = alone(errors, n_draws=4000)
    low, high = stats.norm.interval(0.95, errors.mean(), stats.sem(errors))
    assert ours.high - ours.low == pytest.approx(high - low, rel=0.1)


def test_the_stretch_is_the_one_worked_out_by_hand():
    assert stretch(3) == pytest.approx((3 / 2) ** 0.5 * 4.302653 / 1.959964, rel=1e-6)
    assert (stretch(1), stretch(10**6)) == (1.0, pytest.approx(1.0, abs=1e-4))


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    errors = np.random.default_rng(0).normal(size=(3, 50))
    assert alone(errors) == alone(errors) != alone(errors, seed=1)
    assert alone(errors).mean == alone(errors, seed=1).mean
