"""Intervals against scipy's, against Student's, and against what can be worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from irnet_hpc.aggregate.statistics import (
    MAX_GROUPS,
    compare_ranks,
    holm,
    mean_interval,
    mean_ranks,
    paired_interval,
    paired_p,
    stretch,
)


def alone(errors, other=None, group=None, **options):
    """One split: errors (n_seeds, n_rows) against none."""
    errors = np.atleast_2d(errors)
    other = np.zeros((1, errors.shape[1])) if other is None else other
    return paired_interval(
        [errors], [other], [np.arange(errors.shape[1]) if group is None else group], **options
    )


def test_a_difference_that_is_the_same_everywhere_has_an_interval_of_no_length():
    b = np.arange(12.0).reshape(3, 4)
    interval = paired_interval([b[:1] - 0.5, b[1:2] + 0.25], [b[:1], b[1:2]], [np.arange(4)] * 2)
    assert interval.mean == pytest.approx(-0.125)  # -0.5 of one split, 0.25 of the other
    assert alone(b[:1] - 0.5, b[:1]) == pytest.approx((-0.5, -0.5, -0.5))


def test_the_mean_is_over_splits_of_seeds_of_rows_whatever_their_numbers():
    """Split 0: (1 + 3) / 2 of two seeds of one row, less 0. Split 1: (2 + 4 + 6) / 3, less 1."""
    a = [np.array([[1.0], [3.0]]), np.array([[2.0, 4.0, 6.0]])]
    b = [np.zeros((1, 1)), np.ones((2, 3))]
    assert paired_interval(
        a, b, [np.array(["Fe"]), np.array(["Fe", "O", "H"])]
    ).mean == pytest.approx(2.5)


def test_of_one_run_it_is_the_percentile_bootstrap_of_scipy():
    random = np.random.default_rng(3)
    a, b = random.gamma(2, size=(2, 300))
    ours = alone(a, b[None], n_draws=8000)
    theirs = stats.bootstrap(
        (a - b,), np.mean, method="percentile", n_resamples=8000, random_state=1
    )
    low, high = theirs.confidence_interval
    assert ours.mean == pytest.approx(np.mean(a - b))
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.04 * (high - low))


@pytest.mark.parametrize("n_runs", [10, 40])
def test_of_runs_without_noise_in_the_rows_it_is_about_students(n_runs):
    means = np.random.default_rng(n_runs).normal(size=n_runs)
    low, high = stats.t.interval(0.95, n_runs - 1, means.mean(), stats.sem(means))
    seeds = alone(np.repeat(means[:, None], 5, axis=1), n_draws=8000)
    splits = paired_interval(
        list(means[:, None, None]), [np.zeros((1, 1))] * n_runs, [np.zeros(1)] * n_runs, 8000
    )
    for ours in (seeds, splits):
        assert ours.high - ours.low == pytest.approx(high - low, rel=0.08)
        assert ours.low == pytest.approx(low, abs=0.1 * (high - low))


@pytest.mark.parametrize("n_runs", [3, 5])
@pytest.mark.parametrize("row_sd", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("by", ["seeds", "splits"])
def test_it_holds_the_truth_in_about_95_of_100_cases(n_runs, row_sd, by):
    """Percentiles of three runs hold it in 75. 300 simulations know 95 % to 1.3 % (one sd)."""
    n_rows, held, random = 60, 0, np.random.default_rng(1)
    for _ in range(300):
        run = random.normal(size=(n_runs, 1))
        if by == "seeds":  # all share their rows
            errors = run + row_sd * (
                random.normal(size=n_rows) + random.normal(size=(n_runs, n_rows))
            )
            interval = alone(errors, n_draws=300)
        else:  # each has its own
            errors = run + row_sd * random.normal(size=(n_runs, n_rows))
            none = [np.zeros((1, n_rows))] * n_runs
            interval = paired_interval(
                list(errors[:, None]), none, [np.arange(n_rows)] * n_runs, n_draws=300
            )
        held += interval.low <= 0 <= interval.high
    assert 0.91 <= held / 300 <= 1.0


def test_rows_of_one_formula_are_drawn_together():
    """Each row four times is no more evidence than once; as separate rows they halve it."""
    errors = np.random.default_rng(5).normal(size=100)
    once = alone(errors, n_draws=8000)
    four = np.repeat(errors, 4)
    together = alone(four, group=np.repeat(np.arange(100), 4), n_draws=8000)
    apart = alone(four, n_draws=8000)
    assert together.high - together.low == pytest.approx(once.high - once.low, rel=0.05)
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / 2, rel=0.05)


def test_many_formulas_dealt_into_groups_leave_the_interval_as_long():
    errors = np.random.default_rng(7).gamma(2, size=20 * MAX_GROUPS)
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


def test_the_interval_of_a_mae_draws_seeds_and_rows_together():
    """Runs and rows that vary independently: variances, so squares of lengths, add up."""
    random = np.random.default_rng(11)
    run, row = random.normal(5, 1, size=(40, 1)), random.normal(0, 6, size=150)
    both, runs, rows = (
        mean_interval([errors], [np.arange(150)], n_draws=6000)
        for errors in (run + row, run + np.zeros(150), 5 + row[None])
    )
    assert both.mean == pytest.approx((run + row).mean())
    length = [interval.high - interval.low for interval in (both, runs, rows)]
    assert length[0] ** 2 == pytest.approx(length[1] ** 2 + length[2] ** 2, rel=0.08)
    assert rows.high - rows.low == pytest.approx(2 * 1.96 * row.std() / 150**0.5, rel=0.08)


def test_of_runs_without_noise_in_the_rows_the_p_is_that_of_the_paired_t_test():
    a, b = np.random.default_rng(2).normal([[0.3], [0.0]], 0.4, size=(2, 5))
    ours = paired_p([np.repeat((a - b)[:, None], 7, axis=1)], [np.arange(7)])
    assert ours == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_with_one_run_p_is_that_of_the_t_test_over_rows_and_with_splits_over_splits():
    a, b = np.random.default_rng(4).gamma(2, size=(2, 80))
    assert paired_p([(a - b)[None]], [np.arange(80)]) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    splits = [np.full((2, 3), 0.1), np.full((1, 3), 0.3), np.full((3, 4), 0.25)]
    expected = stats.ttest_1samp([0.1, 0.3, 0.25], 0).pvalue
    assert paired_p(splits, [np.arange(3), np.arange(3), np.arange(4)]) == pytest.approx(expected)


def test_rows_of_one_formula_are_one_piece_of_evidence_in_the_p():
    """Each row four times gives the same p as once; as separate rows they would count for more."""
    one = np.random.default_rng(6).normal(0.1, 1, size=(1, 60))
    four = np.repeat(one, 4, axis=1)
    once = paired_p([one], [np.arange(60)])
    assert paired_p([four], [np.repeat(np.arange(60), 4)]) == pytest.approx(once)
    assert paired_p([four], [np.arange(240)]) < once


@pytest.mark.parametrize(("row_sd", "rest_sd"), [(0.0, 1.0), (1.0, 1.0), (8.0, 0.0)])
def test_where_nothing_differs_about_5_of_100_tests_say_so(row_sd, rest_sd):
    """600 simulations know 5 % to 0.9 % (one sd); with three runs up to 8 % is as it should be."""
    random, wrong = np.random.default_rng(8), 0
    for _ in range(600):
        shared = random.normal(size=(3, 1)) + row_sd * random.normal(size=60)
        wrong += paired_p([shared + rest_sd * random.normal(size=(3, 60))], [np.arange(60)]) < 0.05
    assert 0.02 < wrong / 600 < 0.095


def test_a_difference_of_zero_or_the_same_everywhere_is_certain():
    assert paired_p([np.zeros((3, 4))], [np.arange(4)]) == 1.0
    assert paired_p([np.full((3, 4), 0.2)], [np.arange(4)]) == 0.0


def test_holm_by_hand():
    """0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1, which may not be less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# Demsar 2006, table 6: ranks of four decision trees on 14 data sets
DEMSAR = """4 3 2 1, 1 2 3 4, 4 1 2 3, 4 1 3 2, 4 2 3 1, 1 2.5 4 2.5, 3 2 4 1, 2.5 2.5 4 1, 4 3 2 1,
2.5 2.5 2.5 2.5, 4 2.5 1 2.5,
3 2 4 1, 4 1 2 3, 3 1 4 2"""


def test_ranks_and_the_critical_difference_are_those_of_demsars_example():
    ranks = np.array([list(map(float, line.split())) for line in DEMSAR.split(",")])
    found = compare_ranks(ranks)
    assert mean_ranks(ranks) == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert found.chi2 == pytest.approx(stats.friedmanchisquare(*ranks.T).statistic)
    assert found.p < 0.05


@pytest.mark.parametrize(("n_models", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_values_are_those_of_demsars_table_5(n_models, q):
    errors = np.random.default_rng(0).normal(size=(6, n_models))
    found = compare_ranks(errors).critical_difference
    assert found == pytest.approx(q * (n_models * (n_models + 1) / 36) ** 0.5, abs=2e-3)


def test_models_that_are_always_in_one_order_are_told_apart_and_equal_ones_are_not():
    assert compare_ranks(np.tile([1.0, 2.0, 3.0], (9, 1))).p == 0.0
    assert compare_ranks(np.ones((9, 3))).p == 1.0
