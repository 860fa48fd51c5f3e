"""Intervals, ensembles, and models that cannot be told from the best of a row."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from irnet_hpc.aggregate.mae_table import markdown, tidy_csv
from irnet_hpc.aggregate.notes import problem_notes
from irnet_hpc.aggregate.sections import ensembles, mae_intervals
from irnet_hpc.aggregate.significance import judge
from irnet_hpc.runs.predictions import FILE, Predictions
from tests.aggregate.results import (
    FORMULAS,
    LESS,
    findings_of,
    tables_of,
    texts,
    write_predictions,
    write_run,
    write_split,
    write_three,
)


def judged(results):
    predictions = Predictions()
    return judge(tables_of(results), predictions), predictions.problems


def test_what_three_seeds_cannot_tell_from_the_best_is_bold_with_it(tmp_path):
    """Between SRNet and IRNet scipy's paired t-test; Holm leaves the larger of two p as it is."""
    write_three(tmp_path)
    (table,), problems = judged(tmp_path)
    plain, srnet, irnet = table.rows[0].scores
    assert problems == {}
    assert [cell.best for cell in (plain, srnet, irnet)] == [False, True, True]
    assert (plain.p_against_best, irnet.p_against_best) == (0.0, None)
    assert srnet.p_against_best == pytest.approx(stats.ttest_1samp(LESS, 0).pvalue)
    assert markdown(table).count("**") == 4


def test_below_three_seeds_only_the_lowest_is_bold_and_nothing_is_tested(tmp_path):
    write_three(tmp_path, n_seeds=2)
    (table,), _ = judged(tmp_path)
    assert [cell.best for cell in table.rows[0].scores] == [False, False, True]
    assert all(
        cell.interval is None and cell.p_against_best is None for cell in table.rows[0].scores
    )
    assert not mae_intervals.section(findings_of(tmp_path)).blocks


def test_a_model_of_two_seeds_beside_three_is_not_judged(tmp_path):
    write_three(tmp_path)
    for seed in range(2):
        write_predictions(write_run, tmp_path, [0.13] * 4, "irnet-48", seed=seed)
    (table,), _ = judged(tmp_path)
    few = table.rows[0].scores[-1]
    assert (few.best, few.interval, few.p_against_best) == (False, None, None)
    (block,) = mae_intervals.section(findings_of(tmp_path)).blocks
    assert [cell.text for cell in block.lines[-1]][1:] == [
        "irnet-48",
        "0.130 ± 0.000 (n=2)",
        "n < 3",
        "n < 3",
        "2 of 4 rows",
    ]


def test_only_common_seeds_are_compared(tmp_path):
    """IRNet's seeds 0 to 2, SRNet's 2 to 4: one in common."""
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.1] * 4, "irnet-17", seed=seed)
        write_predictions(write_run, tmp_path, [0.2] * 4, "srnet-17", seed=seed + 2)
    (table,), _ = judged(tmp_path)
    srnet, irnet = table.rows[0].scores
    assert (srnet.p_against_best, srnet.best, irnet.best) == (None, False, True)


def test_a_classical_model_of_one_seed_is_compared_with_every_run_of_a_network(tmp_path):
    """The forest's errors are 0.1 in every row, IRNet's differ by LESS: the t-test of LESS."""
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.1 + LESS[seed]] * 4, "irnet-17", seed=seed)
    write_predictions(write_run, tmp_path, [0.1] * 4, "random_forest")
    networks, _ = sorted(judged(tmp_path)[0], key=lambda table: table.recipe == "grid")
    (row,) = networks.rows
    assert (row.best_classical.best, row.scores[0].best) == (True, True)
    assert row.scores[0].p_against_best == pytest.approx(stats.ttest_1samp(LESS, 0).pvalue)


def test_a_network_of_one_seed_is_not_judged_by_a_classical_model_of_three(tmp_path):
    write_predictions(write_run, tmp_path, [0.12] * 4, "irnet-17")
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.1 + LESS[seed]] * 4, "random_forest", seed=seed)
    networks, _ = sorted(judged(tmp_path)[0], key=lambda table: table.recipe == "grid")
    assert networks.rows[0].scores[0].p_against_best is None


def test_where_the_baseline_is_the_best_nothing_is_as_good(tmp_path):
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.6 + LESS[seed]] * 4, "irnet-17", seed=seed)
    (table,), _ = judged(tmp_path)
    (cell,) = table.rows[0].scores
    assert (table.rows[0].baseline_best, cell.best, cell.p_against_best) == (True, False, None)
    assert cell.interval[0] < cell.mae < cell.interval[1]


def test_three_splits_are_compared_split_by_split(tmp_path):
    for split, less in enumerate(LESS):
        for model, more in (("irnet-17", 0), ("plain-17", less)):
            write_predictions(
                write_split, tmp_path, [0.1 + 0.05 * split + more] * 4, split, model, rows=split
            )
    (table,), _ = judged(tmp_path)
    plain, irnet = table.rows[0].scores
    assert plain.p_against_best == pytest.approx(stats.ttest_1samp(LESS, 0).pvalue)
    assert irnet.best and plain.best


def test_predictions_that_are_missing_cost_the_interval_and_are_named(tmp_path):
    write_three(tmp_path)
    gone = next(tmp_path.rglob(f"irnet-17/*/*/seed1/{FILE}"))
    gone.unlink()
    (table,), problems = judged(tmp_path)
    irnet = table.rows[0].scores[-1]
    assert (irnet.interval, list(problems)) == (None, [gone.parent])
    assert table.rows[0].scores[0].p_against_best is None  # two seeds are left in common
    (block,) = mae_intervals.section(findings_of(tmp_path)).blocks
    assert [cell.text for cell in block.lines[3]][3:] == [
        "no predictions",
        "is the lowest of this table",
        "not counted",
    ]


def test_the_mean_of_the_seeds_predictions_has_the_mae_worked_out_by_hand(tmp_path):
    """Errors +0.3, +0.1 and -0.1, +0.1: MAEs 0.2 and 0.1, their mean 0.15.

    The errors of the mean prediction are +0.1 and +0.1: its MAE 0.1 is a third below 0.15.
    """
    write_predictions(write_run, tmp_path, [0.3, 0.1], seed=0)
    write_predictions(write_run, tmp_path, [-0.1, 0.1], seed=1)
    write_predictions(write_run, tmp_path, [0.1, 0.1], "plain-17")  # one seed is no ensemble
    tables, problems = judged(tmp_path)
    plain, irnet = tables[0].rows[0].scores
    assert (irnet.ensemble_mae, irnet.mae, plain.ensemble_mae, problems) == (
        *map(pytest.approx, (0.1, 0.15)),
        None,
        {},
    )
    (block,) = ensembles.section(findings_of(tmp_path)).blocks
    assert texts(block)[1] == [
        "formation_energy (eV/atom)",
        "one seed per split",
        "0.100 (of 2, +33.3 %)",
    ]
    (tmp_path / "tidy.csv").write_text(tidy_csv(tables))
    frame = pd.read_csv(tmp_path / "tidy.csv").set_index("model")
    assert frame.loc["irnet-17", "ensemble_mae"] == pytest.approx(0.1)
    assert frame.loc["irnet-17", "test_mae_mean"] == pytest.approx(0.15)
    assert pd.isna(frame.loc["plain-17", "ensemble_mae"])


def test_an_ensemble_is_the_mean_over_splits_of_two_seeds_or_more(tmp_path):
    for split in range(2):
        for seed in range(2):
            write_predictions(
                write_split,
                tmp_path,
                [(0.1 + 0.1 * split) * (3 if seed else -1)] * 2,
                split,
                seed=seed,
            )
    (table,), _ = judged(tmp_path)
    assert table.rows[0].scores[0].ensemble_mae == pytest.approx(0.15)  # 0.1 and 0.2
    assert (
        texts(ensembles.section(findings_of(tmp_path)).blocks[0])[1][1]
        == "0.15 (of 2, 2 splits, +50.0 %)"
    )
    write_predictions(write_split, tmp_path, [0.1, 0.1], 2)
    (table,), _ = judged(tmp_path)
    assert table.rows[0].scores[0].ensemble_mae is None


def test_an_ensemble_of_equal_seeds_gains_nothing_however_many_a_split_has(tmp_path):
    """Splits of 3 and 2 seeds: 0.1 and 0.2 are 0.15 over splits, but 0.14 over the five runs."""
    for split, n_seeds in enumerate((3, 2)):
        for seed in range(n_seeds):
            errors = [0.1 + 0.1 * split] * 2
            write_predictions(write_split, tmp_path, errors, split, seed=seed)
    (block,) = ensembles.section(findings_of(tmp_path)).blocks
    number, gain = texts(block)[1][1].split(" (of 5 in 2 splits, ")
    assert (float(number), float(gain.removesuffix(" %)"))) == (0.15, 0.0)


def test_an_ensemble_of_which_a_run_cannot_be_read_is_none_and_a_note(tmp_path):
    write_predictions(write_run, tmp_path, [0.3, 0.1], seed=0)
    folder = write_predictions(write_run, tmp_path, [-0.1, 0.1], seed=1)
    with np.load(folder / FILE) as file:
        np.savez(folder / FILE, **dict(file) | {"formula": FORMULAS[2:4]})
    tables, problems = judged(tmp_path)
    assert tables[0].rows[0].scores[0].ensemble_mae is None
    assert not ensembles.section(findings_of(tmp_path)).blocks
    (note,) = problem_notes(problems)
    assert "has test rows that differ" in note.lines[0]


def test_three_equal_runs_of_a_model_without_a_seed_weigh_as_one(tmp_path):
    """Ridge's errors are 0.1 in every row and seed, IRNet's differ by LESS: the t-test of LESS."""
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.1 + LESS[seed]] * 4, "irnet-17", seed=seed)
        write_predictions(write_run, tmp_path, [0.1] * 4, "ridge", seed=seed)
    networks, classical = sorted(judged(tmp_path)[0], key=lambda table: table.recipe == "grid")
    (row,) = networks.rows
    assert row.scores[0].p_against_best == pytest.approx(stats.ttest_1samp(LESS, 0).pvalue)
    assert (row.best_classical.n, classical.rows[0].scores[0].n) == (1, 1)
    assert row.best_classical.interval == pytest.approx((0.1, 0.1))


def test_two_models_without_a_seed_are_compared_by_the_test_rows_alone(tmp_path):
    """Differences of the absolute errors: 0.1, 0.3, -0.1 and 0.2; scipy's t-test over the rows."""
    formulas = np.array(["Fe2O3", "NaCl", "MgO", "CaO"])
    for model, errors in (("ridge", [0.3, 0.5, 0.2, -0.4]), ("linear", [0.2, 0.2, -0.3, 0.2])):
        write_predictions(write_run, tmp_path, errors, model, formulas=formulas)
    (table,), _ = judged(tmp_path)
    linear, ridge = table.rows[0].scores
    p = stats.ttest_1samp([0.1, 0.3, -0.1, 0.2], 0).pvalue
    assert ridge.p_against_best == pytest.approx(p)
    assert (linear.best, ridge.best) == (True, p >= 0.05)
    assert ridge.interval[0] < ridge.mae < ridge.interval[1]


def test_a_forest_of_one_run_is_not_judged_by_a_model_without_a_seed(tmp_path):
    write_predictions(write_run, tmp_path, [0.1] * 4, "ridge")
    write_predictions(write_run, tmp_path, [0.2] * 4, "random_forest")
    (table,), _ = judged(tmp_path)
    forest, ridge = sorted(table.rows[0].scores, key=lambda score: score.uses_seed, reverse=True)
    assert (forest.interval, forest.p_against_best, forest.best) == (None, None, False)
    assert ridge.best
