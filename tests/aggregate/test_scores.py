"""Scores of a model: means, spreads and improvements worked out by hand."""

import itertools

import pytest

from irnet_hpc.aggregate.mae_table import grid, markdown, score_text
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.results import (
    tables_of,
    write_by_hand,
    write_classical,
    write_run,
    write_split,
)


def test_mean_sd_and_improvement_are_those_worked_out_by_hand(tmp_path):
    write_by_hand(tmp_path)
    (table,) = tables_of(tmp_path)
    (row,) = table.rows
    assert table.models == (("plain", 17), ("plain", 48), ("irnet", 17), ("irnet", 48))
    plain, plain_48, irnet, irnet_48 = row.scores
    assert (plain.mae, plain.sd, plain.seeds) == (
        pytest.approx(0.12),
        pytest.approx(0.02),
        (0, 1, 2),
    )
    assert (irnet.mae, irnet.sd, irnet.improvement_over_plain) == tuple(
        map(pytest.approx, (0.09, 0.01, 25.0))
    )
    assert (plain_48.sd, irnet_48.sd, irnet_48.improvement_over_plain) == (
        None,
        None,
        pytest.approx(-25.0),
    )
    assert [cell.best for cell in row.scores] == [False, False, True, False]
    assert (row.baseline, row.unit, irnet.device_hours) == (0.5, "eV/atom", 3.0)


def test_improvement_is_over_the_seeds_that_both_have(tmp_path):
    for seed, mae in ((0, 0.30), (1, 0.10), (2, 0.20)):  # over seeds 1 and 2: 0.15
        write_run(tmp_path, mae, "plain-17", seed=seed)
    for seed, mae in ((1, 0.08), (2, 0.16), (3, 0.90)):  # over seeds 1 and 2: 0.12, a fifth less
        write_run(tmp_path, mae, "irnet-17", seed=seed)
    write_run(tmp_path, 0.1, "plain-48", seed=0)
    write_run(tmp_path, 0.1, "irnet-48", seed=1)
    (table,) = tables_of(tmp_path)
    plain, _, irnet, irnet_48 = table.rows[0].scores
    assert (plain.mae, irnet.mae) == (
        pytest.approx(0.2),
        pytest.approx(0.38),
    )  # each over all of its own
    assert (
        plain.improvement_over_plain,
        irnet.improvement_over_plain,
        irnet_48.improvement_over_plain,
    ) == (
        None,
        pytest.approx(20.0),
        None,
    )
    assert [cell.text for cell in grid(table)[1][-2:]] == ["+20.0 %", "no common seed"]


def test_best_classical_is_chosen_by_val_and_never_by_test(tmp_path):
    write_by_hand(tmp_path)
    write_classical(tmp_path)
    ours, theirs = sorted(tables_of(tmp_path), key=lambda table: table.recipe == "grid")
    (row,) = ours.rows
    best = row.best_classical
    assert (best.model, best.mae, best.seeds, best.best) == (
        "random_forest",
        pytest.approx(0.12),
        (0, 1),
        False,
    )
    assert best.sd == pytest.approx(0.02 / 2**0.5)
    assert [cell.improvement_over_classical for cell in row.scores] == pytest.approx(
        [0.0, 0.0, 25.0, -25.0]
    )
    header, line = ([cell.text for cell in one] for one in grid(ours))
    named = dict(zip(header, line, strict=True))
    assert header[:3] == ["property", "baseline", "best classical"]
    assert named["best classical"] == "random_forest 0.120 ± 0.014 (n=2)"
    assert (named["irnet vs classical, 17"], named["irnet vs classical, 48"]) == (
        "+25.0 %",
        "-25.0 %",
    )
    # their own table: a column a model, in the order of GRIDS, and no column of the best
    assert theirs.title == "oqmd-magpie, recipe grid, protocol honest"
    assert [cell.text for cell in grid(theirs)[0]] == [
        "property",
        "baseline",
        "linear",
        "ridge",
        "random_forest",
    ]
    assert theirs.rows[0].best_classical is None
    assert [cell.best for cell in theirs.rows[0].scores] == [False, True, False]


def test_best_classical_is_of_the_same_pack_property_rows_and_protocol(tmp_path):
    write_run(tmp_path, 0.1)
    write_run(tmp_path, 0.2, property="band_gap", unit="eV", baseline_mae=0.4)
    write_run(tmp_path, 0.1, train_rows=50, n_train=50)
    write_run(tmp_path, 0.1, pack="mp-magpie")
    write_run(tmp_path, 0.05, "ridge")
    tables = {
        table.title.partition(", ")[0] + str(table.train_rows): table
        for table in tables_of(tmp_path)
        if table.recipe != "grid"
    }
    energy, gap = tables["oqmd-magpieNone"].rows
    assert (energy.best_classical.model, gap.best_classical) == ("ridge", None)
    assert not tables["oqmd-magpie50"].has_classical and not tables["mp-magpieNone"].has_classical


def test_under_protocol_paper_the_best_classical_model_is_still_chosen_by_val(tmp_path):
    """The forest is chosen by val of its honest run, and shown under the table's protocol."""
    paper = {"protocol": "paper", "n_train": 90, "n_val": 0}
    write_run(tmp_path, 0.08, recipe=RECIPES["paper"], **paper)
    for model, mae in (("ridge", 0.05), ("random_forest", 0.07)):
        write_run(tmp_path, mae, model, **paper)
    table = next(table for table in tables_of(tmp_path) if table.recipe == "paper")
    assert not table.has_classical  # by test alone, nothing is chosen
    write_classical(tmp_path)
    table = next(table for table in tables_of(tmp_path) if table.recipe == "paper")
    assert (table.rows[0].best_classical.model, table.rows[0].best_classical.mae) == (
        "random_forest",
        0.07,
    )


def test_improvement_over_plain_is_over_the_splits_and_seeds_that_both_have(tmp_path):
    """Both have split 0 seed 1 and split 1 seed 0: 0.10 and 0.30, 0.08 and 0.24: a fifth less."""
    for split, seed, mae in ((0, 0, 0.90), (0, 1, 0.10), (1, 0, 0.30)):
        write_split(tmp_path, mae, split, "plain-17", seed=seed)
    for split, seed, mae in ((0, 1, 0.08), (1, 0, 0.24), (1, 1, 0.01)):
        write_split(tmp_path, mae, split, "irnet-17", seed=seed)
    (table,) = tables_of(tmp_path)
    assert table.rows[0].scores[1].improvement_over_plain == pytest.approx(20.0)


def test_best_classical_is_chosen_over_all_splits_and_compared_over_common_ones(
    tmp_path,
):
    """By val of split 0 alone ridge is better, over both the forest; SVR has one split only."""
    for split, ridge, forest in ((0, 0.10, 0.12), (1, 0.30, 0.20)):
        write_split(tmp_path, 0.05, split, "ridge", val_mae=ridge)
        write_split(tmp_path, 0.10 + 0.20 * split, split, "random_forest", val_mae=forest)
    write_split(tmp_path, 0.01, 0, "svr", val_mae=0.01)
    for seed in range(3):
        write_split(
            tmp_path, 0.27, 1, "irnet-17", seed=seed
        )  # of split 1, where the forest has 0.30: 10 % less
    table = next(table for table in tables_of(tmp_path) if table.recipe != "grid")
    (row,) = table.rows
    assert (row.best_classical.model, row.best_classical.mae) == (
        "random_forest",
        pytest.approx(0.2),
    )
    assert (row.best_classical.n, row.best_classical.splits) == (2, (0, 1))
    assert row.scores[0].improvement_over_classical == pytest.approx(10.0)


def test_a_model_without_a_seed_counts_once_a_split_and_says_so(tmp_path):
    """Splits 0 and 1 with MAEs 0.10 and 0.14, seed by seed the same: 0.12 ± 0.0283 of two."""
    for split, seed in itertools.product((0, 1), (0, 1, 2)):
        write_split(tmp_path, 0.10 + 0.04 * split, split, "ridge", seed=seed)
    (row,) = tables_of(tmp_path)[0].rows
    (ridge,) = row.scores
    assert (ridge.n, ridge.seeds, ridge.splits, ridge.uses_seed) == (2, (0,), (0, 1), False)
    assert (ridge.mae, ridge.sd) == (pytest.approx(0.12), pytest.approx(0.04 / 2**0.5))
    assert score_text(ridge, ".3f") == "0.120 ± 0.028 (n=2; no seed)"
    assert row.scores[0].device_hours == 2.0


@pytest.mark.parametrize(
    ("model", "changes", "n"),
    [
        ("ridge", {}, 1),
        ("svr", {"n_train": 300_000, "fitted_rows": 20_000}, 1),
        ("boosted_trees", {"n_train": 200_000}, 1),
        ("boosted_trees", {"n_train": 200_001}, 3),
        ("random_forest", {}, 3),
        ("irnet-17", {}, 3),
    ],
)
def test_equal_numbers_of_three_seeds_are_three_runs_only_if_the_seed_is_used(
    model, changes, n, tmp_path
):
    for seed in (4, 5, 6):
        write_run(tmp_path, 0.1, model, seed=seed, **changes)
    (score,) = tables_of(tmp_path)[0].rows[0].scores
    assert (score.n, score.uses_seed, score.seeds) == (n, n > 1, (4, 5, 6)[:n])
    assert (score.sd is None) == (n == 1)


def test_seeds_with_different_numbers_stay_whatever_the_model(tmp_path):
    """Two runs at 0.1 are one; one at 0.2 shows that something else has differed."""
    for seed, mae in enumerate((0.1, 0.1, 0.2)):
        write_run(tmp_path, mae, "ridge", seed=seed)
    (score,) = tables_of(tmp_path)[0].rows[0].scores
    assert (score.seeds, score.mae, score.uses_seed) == ((0, 2), pytest.approx(0.15), True)
    assert score.remarks == ()


def test_the_best_classical_model_counts_once_too(tmp_path):
    for seed in range(3):
        write_run(tmp_path, 0.1 + 0.01 * seed, "irnet-17", seed=seed)
        write_run(tmp_path, 0.12, "ridge", seed=seed)
    networks = next(table for table in tables_of(tmp_path) if table.recipe == "onecycle")
    best = networks.rows[0].best_classical
    assert (best.model, best.n, best.sd, best.remarks) == ("ridge", 1, None, ("no seed",))
    assert "ridge 0.120 (n=1; no seed)" in markdown(networks)
