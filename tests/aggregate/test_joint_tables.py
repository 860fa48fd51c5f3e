"""Several properties in one network: what tables and matrices make of such runs, with numbers worked out by hand."""

import csv
import io
import json
import textwrap
from pathlib import Path

import pytest

from irnet_hpc.aggregate.cli import collect_runs, document
from irnet_hpc.aggregate.render import grid, markdown, tidy_csv
from irnet_hpc.errors import UserError
from irnet_hpc.sweep.jobs import train_options
from irnet_hpc.sweep.ledger import read_ledger
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.train import cli as train
from tests.aggregate.test_aggregate import tables_of, write_run
from tests.builders import write_pack, write_result

PAIR = "formation_energy,band_gap"


def of_one(mae: float, unit: str, n_test: int) -> dict:
    counts = {"n_train": 8 * n_test, "n_val": n_test, "n_test": n_test}
    return {
        "unit": unit,
        "test_mae": mae,
        "test_rmse": 2 * mae,
        "test_r2": None,
        "val_mae": mae,
        "baseline_mae": 0.5,
    } | counts


def write_joint(
    results: Path, energy: float, gap: float, model: str = "irnet-17", **changes
) -> Path:
    per_property = {
        "formation_energy": of_one(energy, "eV/atom", 10),
        "band_gap": of_one(gap, "eV", 6),
    }
    changes = {"unit": "relative", "per_property": per_property} | changes
    return write_run(results, (energy + gap) / 2, model, property=PAIR, **changes)


def write_by_hand(results: Path) -> None:
    """Energies 0.08, 0.10 together and 0.10, 0.14 alone: a quarter less; gap 0.4 together, 0.32 alone at the one common seed."""
    for seed, (energy, gap) in enumerate(((0.08, 0.4), (0.10, 0.6))):
        write_joint(results, energy, gap, seed=seed)
        write_run(results, 0.10 + 0.04 * seed, seed=seed)
    write_run(results, 0.32, property="band_gap", unit="eV", n_train=48, n_val=6, n_test=6)
    write_joint(results, 0.2, 0.7, "plain-17")


def test_a_joint_run_is_a_row_a_property_in_a_table_of_its_own_beside_one_network_each(tmp_path):
    write_by_hand(tmp_path)
    single, joint = tables_of(tmp_path)
    assert (single.joint, joint.joint) == (None, PAIR)
    assert single.title == "oqmd-magpie, recipe onecycle, protocol honest"
    assert joint.title == f"{single.title}, one network for formation_energy, band_gap"
    assert joint.name == "oqmd-magpie_onecycle_honest_joint-formation_energy-band_gap"
    energy, gap = joint.rows
    assert [(row.property, row.unit, row.n_test) for row in joint.rows] == [
        ("formation_energy", "eV/atom", 10), ("band_gap", "eV", 6),
    ]  # fmt: skip
    together = joint.cell(energy, "irnet", 17)
    assert (together.mae, together.seeds) == (pytest.approx(0.09), (0, 1))
    assert together.improvement_over_single == pytest.approx(25)  # 0.09 of 0.12
    assert joint.cell(gap, "irnet", 17).improvement_over_single == pytest.approx(
        -25
    )  # 0.4 of 0.32, seed 0 alone
    assert joint.cell(energy, "plain", 17).improvement_over_single is None
    assert all(cell.improvement_over_single is None for row in single.rows for cell in row.cells)
    assert [cell.device_hours for cell in (together, joint.cell(gap, "irnet", 17))] == [
        1.0,
        1.0,
    ]  # of 2 runs of 1 h


def test_the_comparison_is_a_column_a_model_and_one_of_the_csv(tmp_path):
    write_by_hand(tmp_path)
    tables = tables_of(tmp_path)
    header, *rows = ([text for text, _ in line] for line in grid(tables[1]))
    assert header[-1] == "irnet-17 vs one each" and "plain-17 vs one each" not in header
    assert [row[-1] for row in rows] == ["+25.0 %", "-25.0 %"]
    assert "vs one each" not in markdown(tables[0])
    assert "vs one each: by how many" in document(tables, []) and "vs one each" not in document(
        tables[:1], []
    )
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


def test_first_rows_that_do_not_all_report_a_property_are_not_compared_with_as_many_that_do(
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
    assert joint.cell(energy, "irnet", 17).improvement_over_single == pytest.approx(25)
    assert joint.cell(gap, "irnet", 17).improvement_over_single is None
    assert (energy.best_classical.model, gap.best_classical) == ("ridge", None)


def test_a_copied_joint_run_counts_once_and_is_not_stale(tmp_path):
    write_joint(tmp_path, 0.1, 0.4)
    write_joint(tmp_path, 0.1, 0.4, folder=tmp_path / "copy")
    (table,) = tables_of(tmp_path)
    assert [row.cells[0].seeds for row in table.rows] == [(0,), (0,)]
    assert "stale" not in table.recipe


@pytest.mark.parametrize(
    "wrong", [None, {}, {"formation_energy": {}}, {"formation_energy": 1, "band_gap": 2}, "nan"]
)
def test_a_joint_result_without_numbers_for_each_property_is_left_out_with_the_reason(
    tmp_path, wrong
):
    folder = write_joint(tmp_path, 0.1, 0.4)
    value = json.loads((folder / "result.json").read_text())
    if wrong == "nan":
        value["per_property"]["band_gap"]["test_mae"] = None
    else:
        value["per_property"] = wrong
    (folder / "result.json").write_text(json.dumps(value))
    runs, gaps = collect_runs(tmp_path)
    assert not runs and (
        "per_property" in gaps[folder].why or "test_mae of band_gap" in gaps[folder].why
    )


@pytest.fixture
def matrix_of(tmp_path):
    write_pack(
        tmp_path / "packs",
        "alloys-magpie",
        {"mixing_enthalpy": "eV/atom", "size_mismatch": "%", "glow": "lm"},
    )

    def read(properties: str, models: str = "[irnet-17]"):
        path = tmp_path / "mine.yaml"
        path.write_text(
            textwrap.dedent(f"""
            packs: [alloys-magpie]
            properties: {properties}
            models: {models}
            seeds: [0, 1]
        """)
        )
        return read_matrix(path, tmp_path / "packs")

    return read


def test_names_joined_by_commas_are_one_cell_of_a_matrix_and_what_train_is_given(
    matrix_of, tmp_path
):
    matrix = matrix_of('[glow, "size_mismatch,glow"]')
    assert [(cell.spec.property, cell.spec.seed) for cell in matrix.cells] == [
        *(("glow", 0), ("size_mismatch,glow", 0), ("glow", 1), ("size_mismatch,glow", 1)),
    ]
    entry = read_ledger(matrix, tmp_path / "results").cells[1]
    options = train_options(entry, tmp_path / "results", tmp_path / "packs")
    (asked,) = train.specify(train.parser().parse_args(options))
    assert asked.spec == matrix.cells[1].spec
    write_result(matrix, matrix.cells[1], tmp_path / "results")
    found = [entry.state for entry in read_ledger(matrix, tmp_path / "results").cells]
    assert found == ["missing", "done", "missing", "missing"]


def test_all_and_a_joint_cell_stand_side_by_side(matrix_of):
    cells = matrix_of('[all, "glow,size_mismatch"]').cells
    assert len({cell.spec.property for cell in cells}) == 4


def test_what_cannot_be_trained_together_is_dropped_with_the_reason(matrix_of):
    matrix = matrix_of(
        '["glow,band_gap", "glow,size_mismatch", glow]', "[irnet-17, ridge, random_forest]"
    )
    assert [(d.product, d.n_cells) for d in matrix.dropped] == [
        ("alloys-magpie × glow,band_gap", 2),
        ("alloys-magpie × glow,size_mismatch × grid", 4),
    ]
    assert matrix.dropped[0].reason == "the pack has glow, mixing_enthalpy, size_mismatch"
    assert matrix.dropped[1].reason == "classical models predict one property each"
    assert [(c.spec.property, c.spec.model) for c in matrix.cells if c.spec.seed == 0] == [
        *(
            ("glow,size_mismatch", "irnet-17"),
            ("glow", "irnet-17"),
            ("glow", "ridge"),
            ("glow", "random_forest"),
        ),
    ]


@pytest.mark.parametrize(
    ("properties", "sentence"),
    [
        (
            '["glow,sise_mismatch"]',
            r"unknown property 'sise_mismatch' \(did you mean 'size_mismatch'\?\)",
        ),
        ('["glow,glow"]', "must name each property once, however: glow twice"),
        ('["glow,"]', "names joined by commas, however: 'glow,'"),
        ('["glow,all"]', "unknown property 'all'"),
    ],
)
def test_a_list_that_is_none_is_refused_with_the_file(matrix_of, properties, sentence):
    with pytest.raises(UserError, match=rf"mine\.yaml: .*{sentence}"):
        matrix_of(properties)
