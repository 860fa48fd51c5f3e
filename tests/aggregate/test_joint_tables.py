"""Tables of networks of several properties, with numbers worked out by hand."""

import csv
import io
from pathlib import Path

import pytest

from irnet_hpc.aggregate.document import document
from irnet_hpc.aggregate.mae_table import grid, markdown, tidy_csv
from irnet_hpc.aggregate.scores import Model
from tests.aggregate.results import PAIR, tables_of, write_joint, write_run


def write_pair_by_hand(results: Path) -> None:
    """Write energies 0.08, 0.10 together and 0.10, 0.14 alone: a quarter less.

    Gaps are 0.4 together and 0.32 alone, at the one common seed.
    """
    for seed, (energy, gap) in enumerate(((0.08, 0.4), (0.10, 0.6))):
        write_joint(results, energy, gap, seed=seed)
        write_run(results, 0.10 + 0.04 * seed, seed=seed)
    write_run(results, 0.32, property="band_gap", unit="eV", n_train=48, n_val=6, n_test=6)
    write_joint(results, 0.2, 0.7, "plain-17")


def test_a_joint_run_has_a_row_for_each_property_in_a_table_of_its_own(tmp_path):
    write_pair_by_hand(tmp_path)
    single, joint = tables_of(tmp_path)
    assert (single.joint, joint.joint) == (None, PAIR)
    assert single.title == "oqmd-magpie, recipe onecycle, protocol honest"
    assert joint.title == f"{single.title}, one network for formation_energy, band_gap"
    assert joint.name == "oqmd-magpie_onecycle_honest_joint-formation_energy-band_gap"
    energy, gap = joint.rows
    assert [(row.property, row.unit, row.n_test) for row in joint.rows] == [
        ("formation_energy", "eV/atom", 10), ("band_gap", "eV", 6),
    ]  # fmt: skip
    together = joint.score(energy, Model("irnet", 17))
    assert (together.mae, together.seeds) == (pytest.approx(0.09), (0, 1))
    assert together.improvement_over_single == pytest.approx(25)  # 0.09 of 0.12
    assert joint.score(gap, Model("irnet", 17)).improvement_over_single == pytest.approx(
        -25
    )  # 0.4 of 0.32, seed 0 alone
    assert joint.score(energy, Model("plain", 17)).improvement_over_single is None
    assert all(cell.improvement_over_single is None for row in single.rows for cell in row.scores)
    assert [cell.device_hours for cell in (together, joint.score(gap, Model("irnet", 17)))] == [
        1.0,
        1.0,
    ]  # of 2 runs of 1 h


def test_the_comparison_is_a_column_a_model_and_one_of_the_csv(tmp_path):
    write_pair_by_hand(tmp_path)
    tables = tables_of(tmp_path)
    header, *rows = ([cell.text for cell in line] for line in grid(tables[1]))
    assert header[-1] == "irnet-17 vs one each" and "plain-17 vs one each" not in header
    assert [row[-1] for row in rows] == ["+25.0 %", "-25.0 %"]
    assert "vs one each" not in markdown(tables[0])
    assert "vs one each: by how many" in document(tables, [], [])
    assert "vs one each" not in document(tables[:1], [], [])
    lines = list(csv.DictReader(io.StringIO(tidy_csv(tables))))
    found = {
        (line["joint"], line["property"], line["model"]): line["improvement_over_single"]
        for line in lines
    }
    assert float(found[PAIR, "band_gap", "irnet-17"]) == pytest.approx(-25)
    assert found["", "band_gap", "irnet-17"] == found[PAIR, "band_gap", "plain-17"] == ""
    assert "joint" not in tidy_csv(tables[:1])


def test_only_the_same_training_is_compared(tmp_path):
    write_joint(tmp_path, 0.1, 0.4)
    write_run(tmp_path, 0.2, train_rows=50)
    write_run(tmp_path, 0.2, pack="mp-magpie")
    write_run(tmp_path, 0.2, "irnet-48")
    write_run(tmp_path, 0.2, seed=1)
    (joint,) = (table for table in tables_of(tmp_path) if table.joint)
    assert joint.compared_with_single == ()


def test_first_rows_that_do_not_all_report_a_property_are_not_compared(
    tmp_path,
):
    """Of the first 80 training rows all report the energy, and 48 the gap."""
    write_joint(tmp_path, 0.09, 0.4, train_rows=80)
    for name, n_test, unit in (("formation_energy", 10, "eV/atom"), ("band_gap", 6, "eV")):
        same = {
            "property": name,
            "unit": unit,
            "n_train": 80,
            "n_val": n_test,
            "n_test": n_test,
            "train_rows": 80,
        }
        write_run(tmp_path, 0.12, **same)
        write_run(tmp_path, 0.1, "ridge", **same)
    joint = next(table for table in tables_of(tmp_path) if table.joint)
    energy, gap = joint.rows
    assert joint.score(energy, Model("irnet", 17)).improvement_over_single == pytest.approx(25)
    assert joint.score(gap, Model("irnet", 17)).improvement_over_single is None
    assert (energy.best_classical.model, gap.best_classical) == ("ridge", None)


def test_a_copied_joint_run_counts_once_and_is_not_stale(tmp_path):
    write_joint(tmp_path, 0.1, 0.4)
    write_joint(tmp_path, 0.1, 0.4, folder=tmp_path / "copy")
    (table,) = tables_of(tmp_path)
    assert [row.scores[0].seeds for row in table.rows] == [(0,), (0,)]
    assert not table.stale
