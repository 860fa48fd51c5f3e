"""What of a row cannot be told from its best: cases made by hand."""

import json

import pandas as pd
import pytest
from scipy import stats

from irnet_hpc.aggregate.render import markdown
from irnet_hpc.aggregate.sections.intervals import significance_section, with_significance
from irnet_hpc.runs.predictions import FILE
from tests.aggregate.test_aggregate import aggregate, tables_of, write_run
from tests.aggregate.test_differences import write_predictions
from tests.aggregate.test_splits_in_tables import write_split

LESS = (0.005, -0.004, 0.002)  # by which SRNet is worse than IRNet in three seeds: 0.001 on average


def write_three(results, n_seeds=3):
    """IRNet 0.10, 0.11, 0.12; SRNet worse by LESS; plain worse by 0.2, always. Every row of a run has the same error."""
    for seed in range(n_seeds):
        mae = 0.1 + 0.01 * seed
        write_predictions(write_run, results, [mae] * 4, "irnet-17", seed=seed)
        write_predictions(write_run, results, [mae + LESS[seed]] * 4, "srnet-17", seed=seed)
        write_predictions(write_run, results, [mae + 0.2] * 4, "plain-17", seed=seed)


def judged(results):
    problems = {}
    return with_significance(tables_of(results), problems), problems


def test_what_three_seeds_cannot_tell_from_the_best_is_bold_with_it(tmp_path):
    """Between SRNet and IRNet scipy's paired t-test; Holm leaves the larger of two p as it is."""
    write_three(tmp_path)
    (table,), problems = judged(tmp_path)
    plain, srnet, irnet = table.rows[0].cells
    assert problems == {}
    assert [cell.best for cell in (plain, srnet, irnet)] == [False, True, True]
    assert (plain.p_against_best, irnet.p_against_best) == (0.0, None)
    assert srnet.p_against_best == pytest.approx(stats.ttest_1samp(LESS, 0).pvalue)
    assert markdown(table).count("**") == 4


def test_below_three_seeds_only_the_least_is_bold_and_nothing_is_tested(tmp_path):
    write_three(tmp_path, n_seeds=2)
    (table,), _ = judged(tmp_path)
    assert [cell.best for cell in table.rows[0].cells] == [False, False, True]
    assert all(
        cell.interval is None and cell.p_against_best is None for cell in table.rows[0].cells
    )
    assert significance_section([table]).blocks == ()


def test_a_model_of_two_seeds_beside_three_is_not_judged(tmp_path):
    write_three(tmp_path)
    for seed in range(2):
        write_predictions(write_run, tmp_path, [0.13] * 4, "irnet-48", seed=seed)
    (table,), _ = judged(tmp_path)
    few = table.rows[0].cells[-1]
    assert (few.best, few.interval, few.p_against_best) == (False, None, None)
    (block,) = significance_section([table]).blocks
    assert [text for text, _ in block.lines[-1]][1:] == [
        "irnet-48",
        "0.130 ± 0.000 (n=2)",
        "n < 3",
        "n < 3",
    ]


def test_only_common_seeds_are_compared(tmp_path):
    """IRNet's seeds 0 to 2, SRNet's 2 to 4: one in common."""
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.1] * 4, "irnet-17", seed=seed)
        write_predictions(write_run, tmp_path, [0.2] * 4, "srnet-17", seed=seed + 2)
    (table,), _ = judged(tmp_path)
    srnet, irnet = table.rows[0].cells
    assert (srnet.p_against_best, srnet.best, irnet.best) == (None, False, True)


def test_a_classical_model_of_one_seed_is_compared_with_every_run_of_a_network(tmp_path):
    """The forest's errors are 0.1 in every row, IRNet's differ from them by LESS: the t-test of these."""
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.1 + LESS[seed]] * 4, "irnet-17", seed=seed)
    write_predictions(write_run, tmp_path, [0.1] * 4, "random_forest")
    networks, _ = sorted(judged(tmp_path)[0], key=lambda table: table.recipe == "grid")
    (row,) = networks.rows
    assert (row.best_classical.best, row.cells[0].best) == (True, True)
    assert row.cells[0].p_against_best == pytest.approx(stats.ttest_1samp(LESS, 0).pvalue)


def test_a_network_of_one_seed_is_not_judged_by_a_classical_model_of_three(tmp_path):
    write_predictions(write_run, tmp_path, [0.12] * 4, "irnet-17")
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.1 + LESS[seed]] * 4, "random_forest", seed=seed)
    networks, _ = sorted(judged(tmp_path)[0], key=lambda table: table.recipe == "grid")
    assert networks.rows[0].cells[0].p_against_best is None


def test_where_the_baseline_is_the_best_nothing_is_as_good(tmp_path):
    for seed in range(3):
        write_predictions(write_run, tmp_path, [0.6 + LESS[seed]] * 4, "irnet-17", seed=seed)
    (table,), _ = judged(tmp_path)
    (cell,) = table.rows[0].cells
    assert (table.rows[0].baseline_best, cell.best, cell.p_against_best) == (True, False, None)
    assert cell.interval[0] < cell.mae < cell.interval[1]


def test_three_splits_are_compared_split_by_split(tmp_path):
    for split, less in enumerate(LESS):
        for model, more in (("irnet-17", 0), ("plain-17", less)):
            write_predictions(
                write_split, tmp_path, [0.1 + 0.05 * split + more] * 4, split, model, rows=split
            )
    (table,), _ = judged(tmp_path)
    plain, irnet = table.rows[0].cells
    assert plain.p_against_best == pytest.approx(stats.ttest_1samp(LESS, 0).pvalue)
    assert irnet.best and plain.best


def test_predictions_that_are_missing_cost_the_interval_and_are_named(tmp_path):
    write_three(tmp_path)
    gone = next(tmp_path.rglob(f"irnet-17/*/*/seed1/{FILE}"))
    gone.unlink()
    (table,), problems = judged(tmp_path)
    irnet = table.rows[0].cells[-1]
    assert (irnet.interval, list(problems)) == (None, [gone.parent])
    assert table.rows[0].cells[0].p_against_best is None  # two seeds are left in common
    (block,) = significance_section([table]).blocks
    assert [text for text, _ in block.lines[3]][3:] == ["no predictions", "is the best"]


def test_the_command_writes_intervals_in_all_forms(tmp_path):
    write_three(tmp_path / "results")
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    frame = pd.read_csv(folder / "mae.csv").set_index("model")
    irnet = frame.loc["irnet-17"]
    assert irnet["test_mae_low"] < 0.11 < irnet["test_mae_high"]
    assert frame.loc["srnet-17", "p_against_best"] == pytest.approx(
        stats.ttest_1samp(LESS, 0).pvalue
    )
    cells = json.loads((folder / "mae.json").read_text())["tables"][0]["rows"][0]["cells"]
    assert [cell["best"] for cell in cells] == [False, True, True]
    assert cells[2]["interval"] == pytest.approx([irnet["test_mae_low"], irnet["test_mae_high"]])
    for name in ("mae.md", "mae.tex"):
        assert "what cannot be told from the best" in (folder / name).read_text()
