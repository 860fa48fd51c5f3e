"""Benchmarks from wheels: rows, values and parts as published, and the folds of Matbench."""

import csv
import io
import zipfile

import numpy as np
import pytest

from irnet_hpc.data.benchmarks import CRABNET_TABLES, MATBENCH_TASKS
from irnet_hpc.data.download import wheels
from irnet_hpc.data.download.obtain import fetch
from irnet_hpc.data.formulas import parse_formula, reduced_formula
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from tests.builders import load_table
from tests.data.download.wheel_index import crabnet_wheel, matbench_wheel

# b trains the gap and tests the energy; c tests the gap and is val of the energy.
PARTS = {
    "OQMD_Formation_Enthalpy": {
        "train": {"Al1": "-1.5", "Cr1": "900"},
        "val": {"Cu1": "-3"},
        "test": {"Be1": "0.125"},
    },
    "OQMD_Bandgap": {
        "train": {"Al1": "0.50", "Be1": "4.5"},
        "val": {"Cr1": "-7"},
        "test": {"Cu1": "5.25"},
    },
}
STEELS = [
    ("Fe0.6C0.4", "2411.5"),
    ("Fe0.7C0.3", "1"),
    ("Fe0.6C0.4", "2"),
    ("Fe1", "3"),
    ("C1", "4"),
]
IDS = [f"mb-steels-{n:03d}" for n in range(1, 6)]


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Return a function that makes wheels, expects them, and returns their files."""

    def make(tables=None, tasks=None, task="steels", folds=None):
        crabnet = crabnet_wheel(tables or PARTS, tasks or {"steels_yield": STEELS})
        matbench = matbench_wheel(task, folds or [[own] for own in reversed(IDS)])
        monkeypatch.setattr(wheels, "CRABNET", crabnet.wheel)
        monkeypatch.setattr(wheels, "MATBENCH", matbench.wheel)
        files = []
        for made in (crabnet, matbench):
            files.append(tmp_path / made.wheel.file_name)
            files[-1].write_bytes(made.body)
        return files

    return make


def rows_of(table) -> list[tuple]:
    (values,) = table.targets.values()
    return list(zip(table.formula, table.role, values.tolist(), strict=True))


def test_a_table_of_crabnet_has_its_published_rows_parts_and_values(given, tmp_path):
    crabnet, _ = given()
    source = resolve_source("crabnet:OQMD_Formation_Enthalpy", tmp_path)
    fetch(source, wheels=[crabnet])
    loaded = load_table(source)
    assert rows_of(loaded.table) == [
        ("Al1", "train", -1.5),
        ("Cr1", "train", 900.0),
        ("Cu1", "val", -3.0),
        ("Be1", "test", 0.125),
    ]
    assert loaded.units == {"formation_energy": "eV/atom"}


def test_in_joined_tables_no_formula_trains_that_tests_any_property(given, tmp_path):
    crabnet, _ = given()
    source = resolve_source("crabnet:OQMD_Formation_Enthalpy+OQMD_Bandgap", tmp_path)
    fetch(source, wheels=[crabnet])
    loaded = load_table(source)
    table, nan = loaded.table, np.nan
    energy, gap = table.targets["formation_energy"], table.targets["band_gap"]
    rows = list(zip(table.formula, table.role, strict=True))
    assert rows == [("Al1", "train"), ("Cr1", "train"), ("Cu1", "test"), ("Be1", "test")]
    # A test row reports what it tests, and nothing else.
    np.testing.assert_array_equal(energy, [-1.5, 900, nan, 0.125])
    np.testing.assert_array_equal(gap, [0.5, -7, 5.25, nan])
    assert "2 of the 2 training rows of OQMD_Formation_Enthalpy" in loaded.notes[0]
    assert "1 of the 2 training rows of OQMD_Bandgap" in loaded.notes[1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("crabnet:OQMD_Bandgab", "did you mean 'OQMD_Bandgap'"),
        ("crabnet:mp_mu_b+mp_e_hull", "only different tables of OQMD can be joined"),
        ("crabnet:OQMD_Bandgap+OQMD_Bandgap", "only different tables of OQMD can be joined"),
        ("matbench:steel", "did you mean 'steels'"),
        ("matbench:glass", "predicts a class"),
    ],
)
def test_an_unknown_benchmark_is_one_sentence(source, message):
    with pytest.raises(UserError, match=message):
        resolve_source(source)


def test_a_task_of_matbench_has_its_rows_ids_and_folds(given, tmp_path):
    files = given()
    source = resolve_source("matbench:matbench_steels", tmp_path)
    fetch(source, wheels=files)
    table = load_table(source).table
    assert list(table.formula) == [formula for formula, _ in STEELS]
    assert list(table.material_id) == IDS
    assert table.fold.tolist() == [4, 3, 2, 1, 0]
    assert table.targets["yield_strength"].tolist() == [2411.5, 1, 2, 3, 4]


@pytest.mark.parametrize("folds", [[IDS, IDS[:1], [], [], []], [IDS[:4], [], [], [], []]])
def test_folds_that_do_not_divide_the_rows_are_one_sentence(given, tmp_path, folds):
    files = given(folds=folds)
    with pytest.raises(UserError, match="each of the 5 rows of steels must be tested in one fold"):
        fetch(resolve_source("matbench:steels", tmp_path), wheels=files)


def test_the_wheel_that_is_expected_has_what_it_is_said_to_have(tmp_path, monkeypatch):
    monkeypatch.setenv("IRNET_OFFLINE", "")
    try:
        files = wheels.obtain_wheels([wheels.CRABNET, wheels.MATBENCH])
    except UserError as error:
        pytest.skip(f"needs the wheels from a package index: {error}")
    crabnet = files[wheels.CRABNET]
    tables = "+".join(name for name in CRABNET_TABLES if name.startswith("OQMD"))
    table = fetch(resolve_source(f"crabnet:{tables}", tmp_path), wheels=[crabnet])
    about = read_json(table.with_name(f"crabnet-{tables}.about.json"))
    assert about["n_rows"] == 341_700
    assert about["notes"][0].startswith("198,094 of the 239,190 training rows of OQMD_Formation")
    # Sodium nitride's formula is NaN, which pandas' readers take for a missing value.
    fetch(resolve_source("crabnet:mp_e_hull", tmp_path), wheels=[crabnet])
    raw = load_table("crabnet:mp_e_hull", tmp_path).table
    energies = raw.targets["energy_above_hull"][[text == "NaN" for text in raw.formula]]
    assert len(raw) == 56_662 and energies.tolist() == [0.17353742624999846]
    # CrabNet's own folds, without duplicates, lie in those that the official ids give.
    for task in ("steels", "expt_gap", "jdft2d", "phonons"):  # the others take a minute
        known = MATBENCH_TASKS[task]
        fetch(resolve_source(f"matbench:{task}", tmp_path), wheels=list(files.values()))
        raw = load_table(f"matbench:{task}", tmp_path).table
        for fold in range(5):
            mine = {reduced(raw.formula[row]) for row in np.flatnonzero(raw.fold == fold)}
            member = f"crabnet/data/matbench_cv/{known.file or task}/test{fold}.csv"
            with zipfile.ZipFile(crabnet) as archive:
                text = archive.read(member).decode()
            _, *rows = csv.reader(io.StringIO(text))
            assert {reduced(formula) for formula, _ in rows} <= mine


def reduced(formula: str) -> str:
    return reduced_formula(parse_formula(formula))
