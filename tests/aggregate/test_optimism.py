"""The table of optimism, with numbers worked out by hand."""

import pandas as pd
import pytest

from irnet_hpc.aggregate.cli import document, sections_of
from irnet_hpc.aggregate.formats import aligned, csv_text, section_latex
from irnet_hpc.aggregate.sections.optimism import optimism_section, optimism_tables
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.test_aggregate import aggregate, tables_of, write_run
from tests.aggregate.test_splits_in_tables import write_split

PAPER = {"protocol": "paper", "recipe": RECIPES["paper"], "n_train": 90, "n_val": 0}
HONEST = {"recipe": RECIPES["paper"]}


def write_both(results):
    """Selected on test: 0.08 and 0.12, optimism 0.002 and 0.004: 0.003 ± 0.0014142, 3 % of 0.10. Honest: 0.11."""
    for seed in range(2):
        write_run(results, 0.08 + 0.04 * seed, seed=seed, optimism=0.002 + 0.002 * seed, **PAPER)
    write_run(results, 0.11, **HONEST)
    write_run(results, 0.2, "plain-17", optimism=None, **PAPER)


def test_optimism_is_the_mean_over_runs_and_stands_beside_the_honest_mae(tmp_path):
    write_both(tmp_path)
    (table,) = optimism_tables(tables_of(tmp_path))
    ((row, (plain, irnet)),) = table.rows
    assert plain is None  # its halves had no rows, or nobody measured it
    assert (irnet.mean, irnet.sd, irnet.n) == (
        pytest.approx(0.003),
        pytest.approx(0.0014142, rel=1e-4),
        2,
    )
    assert (irnet.percent, irnet.selected.mae, irnet.honest.mae) == tuple(
        map(pytest.approx, (3.0, 0.10, 0.11))
    )
    assert (row.n_train, irnet.n_train_honest) == (90, 80)
    (block,) = optimism_section(tables_of(tmp_path)).blocks
    assert "(selected on test)" in block.title
    assert [[text for text, _ in line] for line in block.lines] == [
        ["property", "plain-17", "irnet-17"],
        ["formation_energy (eV/atom): optimism", "not measured", "+0.0030 ± 0.0014 (n=2)"],
        ["of the test MAE", "not measured", "+3.0 %"],
        ["MAE selected on test, 90 training rows", "not measured", "0.100 ± 0.028 (n=2)"],
        ["MAE honest, 80 training rows", "not measured", "0.110 (n=1)"],
    ]


def test_the_text_says_that_the_two_protocols_train_on_different_rows(tmp_path):
    write_both(tmp_path)
    tables = tables_of(tmp_path)
    text = document(tables, [], sections=sections_of(tables, (), {}))
    assert "## Optimism of selecting on test" in text
    assert "trained without the rows of val" in text


@pytest.mark.parametrize(
    "change", [{"recipe": RECIPES["onecycle"]}, {"train_rows": 50, "n_train": 50}, {"pack": "mp"}]
)
def test_an_honest_cell_of_another_recipe_pack_or_size_is_not_put_beside(tmp_path, change):
    write_run(tmp_path, 0.1, **PAPER)
    write_run(tmp_path, 0.11, **HONEST | change)
    (table,) = optimism_tables(tables_of(tmp_path))
    assert table.rows[0][1][0].honest is None
    assert "MAE honest" not in aligned(optimism_section(tables_of(tmp_path)).blocks[0].lines, None)


def test_of_several_splits_both_protocols_are_compared_over_those_that_both_have(tmp_path):
    """Selected on test in split 0 alone, at 0.10; honest is 0.11 there and 0.31 in split 1, which does not count."""
    for split in range(2):
        write_split(tmp_path, 0.11 + 0.2 * split, split, **HONEST)
    write_split(tmp_path, 0.10, 0, **PAPER)
    (table,) = optimism_tables(tables_of(tmp_path))
    (one,) = table.rows[0][1]
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
    assert table.of.start_from == "band_gap onecycle"
    assert table.rows[0][1][0].honest.mae == 0.11


def test_without_protocol_paper_there_is_no_such_section(tmp_path):
    write_run(tmp_path, 0.1)
    assert sections_of(tables_of(tmp_path), (), {}) == ()


def test_the_csv_is_in_full_precision_and_inert_and_the_latex_is_escaped(tmp_path):
    write_run(tmp_path, 0.1, property="mine", unit="=50%_x", optimism=1 / 3, **PAPER)
    section = optimism_section(tables_of(tmp_path))
    (tmp_path / "o.csv").write_text(csv_text(section.records))
    line = pd.read_csv(tmp_path / "o.csv", float_precision="round_trip").loc[0]
    assert (line["optimism_mean"], line["unit"], line["n_runs"]) == (1 / 3, "'=50%_x", 1)
    assert pd.isna(line["honest_mae_mean"])
    (text,) = section_latex(section)
    assert (
        r"mine (=50\%\_x): optimism" in text
        and r"\label{tab:optimism-oqmd-magpie_paper_paper}" in text
    )


def test_the_command_writes_optimism_csv_and_shows_the_section_in_all_forms(tmp_path):
    write_both(tmp_path / "results")
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tables"
    assert {path.name for path in folder.iterdir()} == {
        "mae.md",
        "mae.csv",
        "mae.json",
        "mae.tex",
        "optimism.csv",
    }
    assert "+0.0030 ± 0.0014 (n=2)" in (folder / "mae.md").read_text()
    assert "tab:optimism-" in (folder / "mae.tex").read_text()
