"""Split seeds as repetitions: what packs become one table, and numbers over splits and seeds worked out by hand."""

import dataclasses

import pandas as pd
import pytest

from irnet_hpc.aggregate.cli import collect_runs, document, legend
from irnet_hpc.aggregate.render import grid, markdown, tidy_csv
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.errors import UserError
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.spec import run_id
from tests.aggregate.test_aggregate import tables_of, write_run


def write_split(results, mae, split=0, model="irnet-17", pack="oqmd-magpie", **changes):
    """A run of one split of a pack: `<pack>` or `<pack>-split<k>`, with as many test rows as the split gives."""
    name = pack + (f"-split{split}" if split else "")
    identity = {
        "split": {"by": "reduced formula", "seed": split},
        "content_sha256": f"{split}" * 64,
    }
    identity |= changes.pop("identity", {})
    changes = {"n_train": 80 + split, "baseline_mae": 0.5 + 0.1 * split} | changes
    return write_run(results, mae, model, pack=name, identity=identity, **changes)


def test_a_cell_is_the_mean_over_splits_and_seeds(tmp_path):
    """0.10 and 0.12 of split 0, 0.14 and 0.16 of split 1: mean 0.13, sd over the four runs 0.0258199."""
    for split in range(2):
        for seed in range(2):
            write_split(tmp_path, 0.10 + 0.04 * split + 0.02 * seed, split, seed=seed)
    (table,) = tables_of(tmp_path)
    (row,) = table.rows
    (cell,) = row.cells
    assert table.title == "oqmd-magpie, 2 splits, recipe onecycle, protocol honest"
    assert (cell.n, cell.seeds, cell.splits) == (4, (0, 1), (0, 1))
    assert (cell.mae, cell.sd) == (pytest.approx(0.13), pytest.approx(0.0258199, rel=1e-5))
    assert row.baseline == pytest.approx(0.55)
    assert (row.n_train, row.n_test) == (80, 10)  # 80.5 of an even number of splits
    assert "**0.130 ± 0.026 (n=4)**" in markdown(table)
    assert "splits: packs that differ" in document([table], [])
    (tmp_path / "tidy.csv").write_text(tidy_csv([table]))
    line = pd.read_csv(tmp_path / "tidy.csv").loc[0]
    assert (line["pack"], line["n_runs"], line["n_seeds"], line["splits"]) == (
        "oqmd-magpie",
        4,
        2,
        "0 1",
    )


def test_one_split_alone_keeps_its_name_and_no_table_speaks_of_splits(tmp_path):
    write_split(tmp_path, 0.1, 3)
    (table,) = tables_of(tmp_path)
    assert (table.pack, table.rows[0].n_train) == ("oqmd-magpie-split3", 83)
    assert "splits" not in document([table], [])


@pytest.mark.parametrize(
    "identity",
    [
        {"source_sha256": "c" * 64},
        {"features": "elements"},
        {"split": {"by": "element", "elements": ["O"], "seed": 1}},
        {"split": {"by": "reduced formula", "seed": 0}},
        {"split": {"by": "column"}},
    ],
)
def test_packs_that_differ_in_more_than_the_seed_of_the_split_are_not_merged(tmp_path, identity):
    write_split(tmp_path, 0.1, 0)
    write_split(tmp_path, 0.2, 1, identity=identity)
    runs, _ = collect_runs(tmp_path)
    tables = tabulate(runs)
    assert [table.pack for table in tables] == ["oqmd-magpie", "oqmd-magpie-split1"]
    named_so = identity.get("split", {}).get("seed", 1) == 1 and "column" not in str(identity)
    notes = [note for note in legend(runs, tables) if "not merged" in note.heading]
    assert [note.lines for note in notes] == (
        [(f"oqmd-magpie, oqmd-magpie-split1: {next(iter(identity))}",)] if named_so else []
    )


def test_splits_by_chemistry_are_merged_over_seeds_of_their_kind_only(tmp_path):
    write_split(tmp_path, 0.1, 0)
    for split in (0, 1):
        oxygen = {"split": {"by": "element", "elements": ["O"], "seed": split}}
        write_split(
            tmp_path, 0.2 + 0.1 * split, split, pack="oqmd-magpie-element_O", identity=oxygen
        )
    assert {
        table.pack: (table.rows[0].cells[0].mae, table.splits) for table in tables_of(tmp_path)
    } == {
        "oqmd-magpie": (0.1, (0,)),
        "oqmd-magpie-element_O": (0.25, (0, 1)),
    }


def test_rows_are_checked_within_a_split_and_may_differ_between_splits(tmp_path):
    write_split(tmp_path, 0.1, 0, n_test=10)
    write_split(tmp_path, 0.1, 1, n_test=14)
    assert tables_of(tmp_path)[0].rows[0].n_test == 12
    write_split(tmp_path, 0.1, 1, "plain-17", n_test=15)
    with pytest.raises(UserError, match="their n_test differs"):
        tables_of(tmp_path)


def test_improvement_over_plain_is_over_the_splits_and_seeds_that_both_have(tmp_path):
    """Common to both: split 0 seed 1 and split 1 seed 0: plain 0.10 and 0.30, irnet 0.08 and 0.24: a fifth less."""
    for split, seed, mae in ((0, 0, 0.90), (0, 1, 0.10), (1, 0, 0.30)):
        write_split(tmp_path, mae, split, "plain-17", seed=seed)
    for split, seed, mae in ((0, 1, 0.08), (1, 0, 0.24), (1, 1, 0.01)):
        write_split(tmp_path, mae, split, "irnet-17", seed=seed)
    (table,) = tables_of(tmp_path)
    assert table.rows[0].cells[1].improvement == pytest.approx(20.0)


def test_best_classical_is_chosen_by_val_over_all_splits_and_compared_over_those_in_common(
    tmp_path,
):
    """By val of split 0 alone ridge is better; over both the forest is. SVR has the least, but of one split only."""
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
    assert row.cells[0].improvement_over_classical == pytest.approx(10.0)


def test_what_was_trained_on_some_of_the_splits_is_not_the_best_of_its_row(tmp_path):
    write_split(tmp_path, 0.05, 0, "irnet-48")
    for split in range(2):
        write_split(tmp_path, 0.10 + 0.1 * split, split, "irnet-17")
    (table,) = tables_of(tmp_path)
    assert [(cell.mae, cell.best) for cell in table.rows[0].cells] == [
        (pytest.approx(0.15), True),
        (0.05, False),
    ]
    assert "0.05000" not in markdown(
        table
    )  # all numbers of a row have the places that its sd gives
    assert [text for text, bold in grid(table)[1] if bold] == ["0.150 ± 0.071 (n=2)"]


def test_a_start_from_another_split_of_the_same_pack_is_one_start(tmp_path):
    for split in range(2):
        write_split(tmp_path, 0.05, split)
        of_split = [
            run
            for run in collect_runs(tmp_path)[0]
            if run.spec.pack.endswith(f"split{split}") or not split
        ]
        start_from = run_id(of_split[0].spec, RECIPES["onecycle"])
        write_split(tmp_path, 0.03, split, pack="jarvis-magpie", start_from=start_from)
    titles = [table.title for table in tables_of(tmp_path)]
    assert titles == [
        "jarvis-magpie, 2 splits, recipe onecycle, protocol honest, started from oqmd-magpie",
        "oqmd-magpie, 2 splits, recipe onecycle, protocol honest",
    ]


def test_a_run_says_itself_what_it_started_from_where_the_origin_is_not_among_the_results(tmp_path):
    for split in range(2):
        write_split(tmp_path, 0.03, split, pack="jarvis-magpie", start_from="0123456789abcdef")
    runs, _ = collect_runs(tmp_path)
    assert "started from run 01234567" in tabulate(runs)[0].title
    for i, run in enumerate(runs):
        pack = "oqmd-magpie" + (f"-split{run.split}" if run.split else "")
        origin = {
            "key": "f" * 64,
            "pack": pack,
            "property": "formation_energy",
            "model": "irnet-17",
            "train_rows": 500,
        }
        runs[i] = run._replace(result=dataclasses.replace(run.result, origin=origin))
    (table,) = tabulate(runs)
    assert table.start_from == "oqmd-magpie n500"
