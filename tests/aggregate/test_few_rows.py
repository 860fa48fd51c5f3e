"""How many test rows make half of an MAE."""

import dataclasses

import numpy as np
import pytest

from irnet_hpc.aggregate.few_rows import half_of_difference, half_rows
from irnet_hpc.aggregate.mae_table import markdown, tidy_records
from irnet_hpc.aggregate.report import make_tables
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.predictions import FILE, Predictions
from irnet_hpc.runs.result import read_result
from tests.aggregate.results import (
    findings_of,
    write_predictions,
    write_run,
    write_split,
)

FORMULAS = ["Zn2AgAu", "ZnPd", "NaCl"]


def half_of(results, **changes):
    runs = [
        run._replace(result=dataclasses.replace(run.result, **changes))
        for run in collect_runs(results)[0]
    ]
    return half_rows(runs, Predictions())


def write(results, errors, **changes):
    """Write a run whose RMSE is that of its errors."""
    rmse = float(np.sqrt(np.mean(np.square(errors))))
    return write_predictions(write_run, results, errors, test_rmse=rmse, **changes)


@pytest.mark.parametrize(
    ("errors", "n", "share", "without", "few"),
    [
        ([50] + [1] * 49, 1, 50 / 99, 1.0, True),  # one of fifty
        ([60, 40] + [1] * 98, 2, 100 / 198, 1.0, True),  # two of a hundred
        ([30, 20] + [1] * 48, 2, 50 / 98, 1.0, False),  # two of fifty are not a few
        ([9] + [1] * 9, 1, 9 / 18, 1.0, True),  # exactly half
        ([8] + [1] * 8, 1, 8 / 16, 1.0, False),  # nine rows in all: each is one of a few
        ([2] * 20, 10, 0.5, 2.0, False),
        ([3] + [0] * 19, 1, 1.0, 0.0, True),
        ([-50] + [1] * 49, 1, 50 / 99, 1.0, True),  # the sign does not matter
    ],
)
def test_the_fewest_rows_that_make_half_of_an_mae(tmp_path, errors, n, share, without, few):
    for seed in range(2):
        write(tmp_path, errors, seed=seed)
    half = half_of(tmp_path)
    assert (half.n, half.n_rows, half.are_few) == (n, len(errors), few)
    assert (half.share, half.mae_without) == (pytest.approx(share), pytest.approx(without))


def test_an_outlier_of_one_seed_counts_by_its_mean_over_the_seeds(tmp_path):
    """Row 0 has 90 and 0, the 19 others 1: mean 45 of 64, which is more than half."""
    write(tmp_path, [90] + [1] * 19, seed=0, formulas=FORMULAS)
    write(tmp_path, [0] + [1] * 19, seed=1, formulas=FORMULAS)
    half = half_of(tmp_path)
    assert (half.n, half.share, half.mae_without) == (1, pytest.approx(45 / 64), pytest.approx(1))
    assert half.formulas == ("Zn2AgAu",)


def test_rows_of_several_splits_count_by_their_part_of_the_mean(tmp_path):
    """The mean is (2 + 2) / 2; the first row makes 11 / 10 / 2 of it, the others 0.05 each."""
    for split, errors in enumerate(([11] + [1] * 9, [2] * 20)):
        write_predictions(write_split, tmp_path, errors, split=split, rows=split)
    half = half_of(tmp_path)
    assert (half.n_rows, half.n) == (30, 1 + 9)  # 0.55 + 9 * 0.05 is 1
    assert half.mae_without == pytest.approx(2)  # the other split


def test_an_mae_of_zero_and_missing_predictions_have_no_rows(tmp_path):
    write(tmp_path / "exact", [0.0] * 20)
    assert half_of(tmp_path / "exact") is None
    folder = write(tmp_path / "lost", [50] + [1] * 49)
    (folder / FILE).unlink()
    assert half_of(tmp_path / "lost") is None


@pytest.mark.parametrize("seed", range(30))
def test_the_rmse_never_hides_that_a_few_rows_decide(tmp_path, seed):
    """Predictions of a single run are read only if its RMSE allows that a few rows decide."""
    random = np.random.default_rng(seed)
    errors = random.lognormal(0, random.uniform(0.5, 4), int(random.integers(10, 300)))
    write(tmp_path, errors)
    half, read_anyhow = half_of(tmp_path), half_of(tmp_path, test_rmse=1e9)
    assert read_anyhow.are_few == bool(half and half.are_few)


def test_a_few_rows_are_named_in_tables_notes_and_files(tmp_path):
    """26 predicted as 453 and 55 as 207 among 133 rows whose errors are 1."""
    errors = [427, 152] + [1] * 131
    for seed in range(3):
        write(tmp_path, errors, seed=seed, formulas=FORMULAS)
        write(tmp_path, [1.0] * 133, model="plain-17", seed=seed, formulas=FORMULAS)
    report = make_tables(tmp_path)
    (table,) = report.tables
    plain, irnet = table.rows[0].scores
    assert (plain.remarks, irnet.half.n) == ((), 1)  # 427 of 710
    assert "1 row makes 60 %" in markdown(table) and "Zn2AgAu" in report.markdown()
    records = {line["model"]: line for line in tidy_records(report.tables)}
    assert records["irnet-17"]["n_rows_of_half"] == 1
    assert records["irnet-17"]["test_mae_without_them"] == pytest.approx((152 + 131) / 132)
    assert records["plain-17"]["n_rows_of_half"] == 67


@pytest.mark.parametrize(
    ("val_mae", "test_mae", "baseline", "far"),
    [
        (0.4, 0.4, 0.5, 0),
        (1.5, 0.4, 0.5, 0),  # three times
        (1.6, 0.4, 0.5, 1),  # val alone
        (0.4, 1.6, 0.5, 1),  # test alone: a rare column that val never has
        (None, 3e15, 0.5, 1),  # protocol paper has no val
        (0.1, 0.0, 0.0, 1),
        (1e-8, 1e-8, 0.0, 0),  # rounding of equal targets
        (0.0, 0.0, 0.0, 0),
    ],
)
def test_a_run_far_above_the_baseline_says_so_everywhere(
    tmp_path, val_mae, test_mae, baseline, far
):
    write_run(tmp_path, test_mae, val_mae=val_mae, baseline_mae=baseline)
    report = make_tables(tmp_path)
    (line,) = report.frame().to_dict("records")
    assert line["n_far_above_baseline"] == far
    assert ("far above" in markdown(report.tables[0])) == bool(far)
    assert any("far above" in note.heading for note in report.notes) == bool(far)


@pytest.mark.parametrize(("val_baseline", "times"), [(None, 7.5), (0.3, 0.5), (0.03, 5.0)])
def test_val_rows_are_judged_by_the_baseline_of_val_rows(tmp_path, val_baseline, times):
    """A split by chemistry: the median is off by 0.02 on test, and by more on val."""
    folder = write_run(tmp_path, 0.01, val_mae=0.15, baseline_mae=0.02)
    result = read_result(folder / "result.json")
    judged = dataclasses.replace(result, val_baseline_mae=val_baseline)
    assert judged.times_baseline == pytest.approx(times)


def test_one_diverged_seed_of_three_is_counted(tmp_path):
    for seed, mae in enumerate((0.1, 0.12, 1e5)):
        write_run(tmp_path, mae, seed=seed)
    (table,) = findings_of(tmp_path).tables
    assert table.rows[0].scores[0].remarks == ("1 of them far above the baseline",)


@pytest.mark.parametrize(
    ("draws", "n", "share", "without"),
    [
        ([[-30, -20] + [-0.1] * 98], 1, 30 / 59.8, -29.8 / 99),
        ([[30, 20] + [-0.1] * 98], 1, 30 / 40.2, 10.2 / 99),  # those against it come last
        ([[-20, -20] + [-0.1] * 98], 2, 40 / 49.8, -0.1),
        ([[-30] + [0.25] * 99], 1, 30 / 5.25, 0.25),  # without the row the sign is another
        ([[4.0] * 10, [1.0] * 20], 7, 1.4 / 2.5, (4 + 1) / 2),  # 0.2 of 2.5 a row: 6.25 rows
    ],
)
def test_the_rows_that_make_half_of_a_difference(draws, n, share, without):
    arrays = [np.array(draw, float) for draw in draws]
    half = half_of_difference(arrays, [np.array(["X"] * len(draw)) for draw in draws])
    assert (half.n, half.share) == (n, pytest.approx(share))
    assert half.mae_without == pytest.approx(without)


def test_equal_errors_have_no_rows_that_decide():
    assert half_of_difference([np.zeros(20)], [np.array(["X"] * 20)]) is None
