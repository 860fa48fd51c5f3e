"""Our results among the published ones of a benchmark, and why they may not compare."""

import pytest

from irnet_hpc.aggregate.leaderboards import FOLDS, SIZES, leaderboards_of, read_entries
from irnet_hpc.aggregate.report import make_tables
from irnet_hpc.aggregate.screen import screen
from irnet_hpc.data.benchmarks import CRABNET, MATBENCH, benchmark_source
from tests.aggregate.results import write_run

ENERGY = "crabnet:OQMD_Formation_Enthalpy"
ROWS = {"n_train": 239_190, "n_val": 51_255, "n_test": 51_255}
GAP = {"property": "band_gap", "unit": "eV"}


def identity(source, split, **changes):
    return {"source": source, "split": split, "filters": []} | changes


def boards(folder):
    return leaderboards_of(make_tables(folder).findings.tasks)


def write_folds(folder, maes, **changes):
    for fold, mae in enumerate(maes):
        write_run(
            folder / f"fold{fold}",
            mae,
            "irnet-17",
            **GAP,
            pack=f"matbench-expt_gap-magpie-fold{fold}",
            identity=identity("matbench:expt_gap", {"by": "fold", "seed": fold}),
            **{"n_train": 3_300, "n_val": 384 - (fold < 4), "n_test": 921 - (fold == 4)} | changes,
        )


def test_every_published_number_is_of_a_table_that_can_be_packed():
    for entry in read_entries():
        assert entry.benchmark.startswith((CRABNET, MATBENCH)) and entry.mae > 0 and entry.source
        assert benchmark_source(entry.benchmark).properties == (entry.target,)
    assert {entry.benchmark for entry in read_entries()} == SIZES.keys()


def test_our_run_on_all_published_rows_has_a_place(tmp_path):
    write_run(
        tmp_path,
        0.0312,
        "irnet-17",
        pack="crabnet-OQMD_Formation_Enthalpy-magpie",
        identity=identity(ENERGY, {"by": "column"}),
        **ROWS,
    )
    (board,) = boards(tmp_path)
    assert (board.benchmark, board.differences, board.place) == (ENERGY, (), 2)
    assert [entry.algorithm for entry in board.entries][:2] == ["CrabNet", "Roost"]
    text = make_tables(tmp_path).markdown()
    crabnet, ours, roost = (text.index(f"| {name}") for name in ("CrabNet", "**ours", "Roost"))
    assert crabnet < ours < roost


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"n_test": 51_254}, "51,254 of 51,255 test rows"),
        ({"n_train": 100}, "100 training rows"),
        ({"identity": identity(ENERGY, {"by": "column"}, filters=["x < 5"])}, "filtered"),
    ],
)
def test_a_run_on_other_rows_has_no_place(tmp_path, changes, why):
    settings = {
        "pack": "crabnet-OQMD_Formation_Enthalpy-magpie",
        "identity": identity(ENERGY, {"by": "column"}),
    }
    write_run(tmp_path, 0.02, "irnet-17", **settings | ROWS | changes)
    (board,) = boards(tmp_path)
    assert board.place is None and any(why in reason for reason in board.differences)


def test_matbench_is_the_mean_over_the_five_folds(tmp_path):
    write_folds(tmp_path, [0.30, 0.31, 0.32, 0.33, 0.34])
    (board,) = boards(tmp_path)
    assert board.chosen.score.mae == pytest.approx(0.32)
    assert sorted(board.chosen.splits) == list(FOLDS)
    assert (board.differences, board.place) == ((), 2)  # behind Darwin


def test_without_a_fold_matbench_has_no_place(tmp_path):
    write_folds(tmp_path, [0.10, 0.11, 0.12, 0.13])
    (board,) = boards(tmp_path)
    assert board.place is None and "no run on fold 4" in board.differences


def test_joined_tables_are_compared_property_by_property(tmp_path):
    source = "crabnet:OQMD_Formation_Enthalpy+OQMD_Bandgap"
    write_run(
        tmp_path,
        0.05,
        "irnet-17",
        **GAP,
        pack="joint",
        identity=identity(source, {"by": "column"}),
        n_train=198_094,
        n_val=40_000,
        n_test=51_242,
    )
    (board,) = boards(tmp_path)
    assert (board.benchmark, board.place) == ("crabnet:OQMD_Bandgap", 3)


def test_other_packs_of_oqmd_have_no_leaderboard(tmp_path):
    write_run(tmp_path, 0.02, "irnet-17", pack="oqmd-magpie", identity={"source": "oqmd"})
    assert boards(tmp_path) == []


def test_the_screen_has_our_result_between_its_neighbours_and_the_best(tmp_path):
    write_folds(tmp_path, [0.35, 0.36, 0.36, 0.36, 0.37])
    report = make_tables(tmp_path)
    (board,) = leaderboards_of(report.findings.tasks)
    text = " ".join(screen(report, 100).split())
    line = text[text.index("matbench:expt_gap") :]
    names = [entry.algorithm for entry in board.entries]
    assert board.place == 7 and f"place 7 of {len(names) + 1}" in line
    shown = [*names[:3], "...", names[5], "OURS", names[6]]
    places = [line.index(f" {name}") for name in shown]
    assert places == sorted(places)
    assert names[4] not in line and names[8] not in line


def test_the_screen_says_why_our_result_does_not_compare(tmp_path):
    write_folds(tmp_path, [0.10, 0.11, 0.12, 0.13])
    text = " ".join(screen(make_tables(tmp_path), 100).split())
    assert "does not compare: no run on fold 4" in text and "place" not in text
