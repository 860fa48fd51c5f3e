"""Tables: their rows and columns, the best of a row, and why a cell is empty."""

import dataclasses
import json

import pandas as pd
import pytest

from irnet_hpc.aggregate.document import document
from irnet_hpc.aggregate.figures import depth_figure
from irnet_hpc.aggregate.mae_table import grid, latex, markdown, tidy_csv
from irnet_hpc.aggregate.notes import legend
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json
from irnet_hpc.models.architectures import custom_name
from irnet_hpc.runs.classical_grids import GRIDS
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.spec import read_spec, run_id
from tests.aggregate.results import findings_of, tables_of, write_run, write_split


def test_columns_are_by_architecture_and_depth_and_rows_by_property(
    tmp_path,
):
    layers = "64BARx2-1"
    custom = custom_name(layers)
    for model in ("irnet-48", "irnet-10", "srnet-17", "plain-24"):
        write_run(tmp_path, 0.1, model)
    write_run(tmp_path, 0.1, architecture=custom, depth=3, layers=layers)
    write_run(tmp_path, 0.1, property="band_gap", unit="eV")
    runs, _ = collect_runs(tmp_path)
    (table,) = tabulate(runs)
    assert [f"{architecture}-{depth}" for architecture, depth in table.models] == [
        *("plain-24", "srnet-17", "irnet-10", "irnet-17", "irnet-48", f"{custom}-3")
    ]
    assert [row.property for row in table.rows] == ["formation_energy", "band_gap"]
    assert "not run" in markdown(table)  # band_gap has no plain-24
    assert table.compared_depths == ()
    (note,) = legend(findings_of(tmp_path))
    assert note.lines == (f"{custom}-3: 64BARx2-1",)


def test_a_baseline_that_no_model_beats_is_the_best_of_its_row(tmp_path):
    write_run(tmp_path, 0.2, property="band_gap", unit="eV", baseline_mae=0.148)
    (table,) = tables_of(tmp_path)
    assert "| **0.1480** |" in markdown(table)
    assert not table.rows[0].scores[0].best


def test_what_is_selected_on_test_has_its_own_table_and_says_so_everywhere(tmp_path):
    write_run(tmp_path, 0.10)
    write_run(tmp_path, 0.08, protocol="paper", recipe=RECIPES["paper"])
    honest, paper = tables_of(tmp_path)
    assert "selected on test" not in honest.title
    assert paper.title == "oqmd-magpie, recipe paper, protocol paper (selected on test)"
    assert paper.title in document([honest, paper], [], [])
    assert "(selected on test)" in latex(paper)
    assert [line.split(",")[7] for line in tidy_csv([honest, paper]).splitlines()] == [
        "selected_on",
        "val",
        "test",
    ]
    assert paper.title in [text.get_text() for text in depth_figure(paper).texts]


def test_fewer_training_rows_and_another_start_are_tables_of_their_own(tmp_path):
    pretrained = [write_run(tmp_path, 0.05, seed=seed) for seed in (0, 1)]
    specs = [
        read_spec(json.loads((folder / "result.json").read_text())["spec"]) for folder in pretrained
    ]
    for seed, spec in enumerate(specs):
        write_run(
            tmp_path,
            0.03,
            pack="jarvis-magpie",
            seed=seed,
            start_from=run_id(spec, RECIPES["onecycle"]),
        )
    write_run(tmp_path, 0.07, pack="jarvis-magpie")
    write_run(tmp_path, 0.09, pack="jarvis-magpie", train_rows=1000, n_train=1000)
    write_run(tmp_path, 0.06, pack="jarvis-magpie", start_from="0123456789abcdef")
    titles = [table.title for table in tables_of(tmp_path)]
    jarvis = "jarvis-magpie, recipe onecycle, protocol honest"
    assert titles == [
        jarvis,
        f"{jarvis}, started from oqmd-magpie",
        f"{jarvis}, started from run 01234567",
        f"{jarvis}, first 1,000 training rows",
        "oqmd-magpie, recipe onecycle, protocol honest",
    ]
    assert tables_of(tmp_path)[1].rows[0].scores[0].seeds == (0, 1)
    assert len({table.name for table in tables_of(tmp_path)}) == 5


@pytest.mark.parametrize("change", [{"n_test": 11}, {"unit": "meV/atom"}, {"baseline_mae": 0.6}])
def test_cells_of_one_row_are_measured_on_the_same_rows(tmp_path, change):
    write_run(tmp_path, 0.1, "irnet-17")
    write_run(tmp_path, 0.1, "irnet-48", **change)
    with pytest.raises(UserError, match=f"differ in {next(iter(change))}"):
        tables_of(tmp_path)


def test_a_network_that_loses_to_a_classical_model_is_not_the_best_of_its_row(tmp_path):
    write_run(tmp_path, 0.09)
    write_run(tmp_path, 0.08, "svr")
    table = next(table for table in tables_of(tmp_path) if table.recipe != "grid")
    assert (table.rows[0].scores[0].best, table.rows[0].best_classical.best) == (False, True)
    assert "| **svr 0.08000 (n=1; no seed)** |" in markdown(table)


def test_a_stale_classical_result_is_not_compared_with(tmp_path):
    write_run(tmp_path, 0.1)
    write_run(
        tmp_path, 0.05, "ridge", recipe=dataclasses.replace(GRIDS["ridge"], grid={"alpha": [3.0]})
    )
    tables = {(table.recipe, table.stale): table for table in tables_of(tmp_path)}
    assert set(tables) == {("onecycle", False), ("grid", True)}
    assert not tables["onecycle", False].has_classical


def test_a_cell_is_the_mean_over_splits_and_seeds(tmp_path):
    """0.10 and 0.12 in split 0, 0.14 and 0.16 in split 1: mean 0.13, sd over runs 0.0258199."""
    for split in range(2):
        for seed in range(2):
            write_split(tmp_path, 0.10 + 0.04 * split + 0.02 * seed, split, seed=seed)
    (table,) = tables_of(tmp_path)
    (row,) = table.rows
    (cell,) = row.scores
    assert table.title == "oqmd-magpie, 2 splits, recipe onecycle, protocol honest"
    assert (cell.n, cell.seeds, cell.splits) == (4, (0, 1), (0, 1))
    assert (cell.mae, cell.sd) == (pytest.approx(0.13), pytest.approx(0.0258199, rel=1e-5))
    assert row.baseline == pytest.approx(0.55)
    assert (row.n_train, row.n_test) == (80, 10)  # 80.5 of an even number of splits
    assert "**0.130 ± 0.026 (n=4)**" in markdown(table)
    assert "splits: packs that differ" in document([table], [], [])
    (tmp_path / "tidy.csv").write_text(tidy_csv([table]))
    line = pd.read_csv(tmp_path / "tidy.csv").loc[0]
    assert (line["pack"], line["n_runs"], line["n_seeds"], line["splits"]) == (
        "oqmd-magpie",
        4,
        2,
        "0 1",
    )


def test_rows_are_checked_within_a_split_and_may_differ_between_splits(tmp_path):
    write_split(tmp_path, 0.1, 0, n_test=10)
    write_split(tmp_path, 0.1, 1, n_test=14)
    assert tables_of(tmp_path)[0].rows[0].n_test == 12
    write_split(tmp_path, 0.1, 1, "plain-17", n_test=15)
    with pytest.raises(UserError, match="differ in n_test"):
        tables_of(tmp_path)


def test_what_was_trained_on_some_of_the_splits_is_not_the_best_of_its_row(tmp_path):
    write_split(tmp_path, 0.05, 0, "irnet-48")
    for split in range(2):
        write_split(tmp_path, 0.10 + 0.1 * split, split, "irnet-17")
    (table,) = tables_of(tmp_path)
    assert [(cell.mae, cell.best) for cell in table.rows[0].scores] == [
        (pytest.approx(0.15), True),
        (0.05, False),
    ]
    assert "0.05000" not in markdown(
        table
    )  # all numbers of a row have the places that its sd gives
    assert [cell.text for cell in grid(table)[1] if cell.bold] == ["0.150 ± 0.071 (n=2)"]


def test_an_empty_cell_says_why(tmp_path):
    """plain-17 and irnet-17 have formation energies, srnet-17 has a band gap.

    Of the other band gaps plain-17 is unfinished, and irnet-17 and irnet-48 have failed.
    """
    write_run(tmp_path, 0.1, "plain-17")
    write_run(tmp_path, 0.1, "irnet-17")
    gap = {"property": "band_gap", "unit": "eV"}
    write_run(tmp_path, 0.1, "srnet-17", **gap)
    under_way = write_run(tmp_path, 0.1, "plain-17", **gap)
    failed = [write_run(tmp_path, 0.1, model, **gap) for model in ("irnet-17", "irnet-48")]
    for folder in (under_way, *failed):
        (folder / "result.json").unlink()
    for folder in failed:
        write_json(folder / "error.json", {"error": "out of memory"})
    elsewhere = write_run(
        tmp_path, 0.1, "plain-48", **gap, train_rows=50, n_train=50
    )  # of another table
    (elsewhere / "result.json").unlink()
    runs, gaps = collect_runs(tmp_path)
    (table,) = tabulate(runs, gaps.values())
    lines = [
        dict(zip([cell.text for cell in grid(table)[0]], [cell.text for cell in line], strict=True))
        for line in grid(table)
    ]
    energy, band_gap = lines[1:]
    assert (energy["srnet-17"], energy["irnet-48"]) == ("not run", "not run")
    assert [band_gap[model] for model in ("plain-17", "irnet-17", "irnet-48")] == [
        "unfinished",
        "failed",
        "failed",
    ]
    assert band_gap["irnet vs plain, 17"] == "no irnet"
    assert "plain-48" not in energy
