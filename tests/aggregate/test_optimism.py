"""The optimism of selecting on test, with numbers worked out by hand."""

import pandas as pd
import pytest

from irnet_hpc.aggregate.formats import aligned, csv_text, section_latex
from irnet_hpc.aggregate.scores import Model
from irnet_hpc.aggregate.sections import optimism
from irnet_hpc.aggregate.sections.optimism import optimism_tables
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.results import (
    HONEST,
    PAPER,
    findings_of,
    tables_of,
    write_both,
    write_run,
    write_split,
)


def one_optimism(table):
    """Return the only optimism of a table."""
    ((_, known),) = table.rows
    (optimism,) = known.values()
    return optimism


def test_optimism_is_the_mean_over_runs_and_stands_beside_the_honest_mae(tmp_path):
    write_both(tmp_path)
    (table,) = optimism_tables(tables_of(tmp_path))
    ((row, known),) = table.rows
    # The halves of plain-17 had no rows, or nobody measured its optimism.
    assert list(known) == [Model("irnet", 17)]
    (irnet,) = known.values()
    assert (irnet.mean, irnet.sd, irnet.n) == (
        pytest.approx(0.003),
        pytest.approx(0.0014142, rel=1e-4),
        2,
    )
    assert (irnet.percent, irnet.selected.mae, irnet.honest.mae) == tuple(
        map(pytest.approx, (3.0, 0.10, 0.11))
    )
    assert (row.n_train, irnet.n_train_honest) == (90, 80)
    (block,) = optimism.section(findings_of(tmp_path)).blocks
    assert "(selected on test)" in block.title
    assert [[cell.text for cell in line] for line in block.lines] == [
        ["property", "plain-17", "irnet-17"],
        ["formation_energy (eV/atom): optimism", "not measured", "+0.0030 ± 0.0014 (n=2)"],
        ["of the test MAE", "not measured", "+3.0 %"],
        ["MAE selected on test, 90 training rows", "not measured", "0.100 ± 0.028 (n=2)"],
        ["MAE honest, 80 training rows", "not measured", "0.110 (n=1)"],
    ]


@pytest.mark.parametrize(
    "change", [{"recipe": RECIPES["onecycle"]}, {"train_rows": 50, "n_train": 50}, {"pack": "mp"}]
)
def test_an_honest_cell_of_another_recipe_pack_or_size_is_not_put_beside(tmp_path, change):
    write_run(tmp_path, 0.1, **PAPER)
    write_run(tmp_path, 0.11, **HONEST | change)
    (table,) = optimism_tables(tables_of(tmp_path))
    assert one_optimism(table).honest is None
    assert "MAE honest" not in aligned(
        optimism.section(findings_of(tmp_path)).blocks[0].lines, None
    )


def test_of_several_splits_both_protocols_are_compared_over_those_that_both_have(tmp_path):
    """Selected on test in split 0 only, at 0.10; honest is 0.11 there, and 0.31 in split 1."""
    for split in range(2):
        write_split(tmp_path, 0.11 + 0.2 * split, split, **HONEST)
    write_split(tmp_path, 0.10, 0, **PAPER)
    (table,) = optimism_tables(tables_of(tmp_path))
    one = one_optimism(table)
    assert (one.selected.mae, one.honest.mae, one.honest.n) == (0.10, 0.11, 1)


def test_what_started_from_one_run_is_compared_over_protocols(tmp_path):
    origin = {
        "pack": "oqmd-magpie",
        "property": "band_gap",
        "model": "irnet-17",
        "recipe": "onecycle",
        "key": "k",
    }
    start = {"start_from": "0" * 16, "origin": origin | {"protocol": "honest", "n_shared_test": 0}}
    write_run(tmp_path, 0.10, **PAPER, **start)
    write_run(tmp_path, 0.11, **HONEST, **start)
    (table,) = optimism_tables(tables_of(tmp_path))
    assert table.table.start_from == "band_gap onecycle"
    assert one_optimism(table).honest.mae == 0.11


def test_the_csv_is_in_full_precision_and_inert_and_the_latex_is_escaped(tmp_path):
    write_run(tmp_path, 0.1, property="mine", unit="=50%_x", optimism=1 / 3, **PAPER)
    section = optimism.section(findings_of(tmp_path))
    (tmp_path / "o.csv").write_text(csv_text(section.records))
    line = pd.read_csv(tmp_path / "o.csv", float_precision="round_trip").loc[0]
    assert (line["optimism_mean"], line["unit"], line["n_runs"]) == (1 / 3, "'=50%_x", 1)
    assert pd.isna(line["honest_mae_mean"])
    (text,) = section_latex(section)
    assert (
        r"mine (=50\%\_x): optimism" in text
        and r"\label{tab:optimism-oqmd-magpie_paper_paper}" in text
    )
