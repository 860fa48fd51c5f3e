"""Predictions of a folder of structures are those of its formulas."""

import shutil

import numpy as np
import pandas as pd
import pytest

from tests.data.structures.files import cif, folder
from tests.predict.builders import numbers, table

ALLOYS = {"a": ("Al", "Ni"), "b": ("Fe", "Co"), "c": ("Ti", "Cu")}


@pytest.fixture
def crystals(tmp_path):
    """Return a folder of three alloys of CsCl's structure and of a file without atoms."""
    files = {
        f"{name}.cif": cif(f"{first}1 {first} 0 0 0 1", f"{second}1 {second} .5 .5 .5 1")
        for name, (first, second) in ALLOYS.items()
    }
    return folder(tmp_path / "crystals", files | {"d.cif": "data_x\n"})


def test_a_folder_is_predicted_like_its_formulas(ask, runs, crystals, tmp_path):
    status, rows, _ = ask(*runs, crystals)
    assert status == 0
    assert [row["material_id"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["file"] for row in rows] == ["a.cif", "b.cif", "c.cif", "d.cif"]
    assert [bool(row["problem"]) for row in rows] == [False, False, False, True]
    archive = shutil.make_archive(str(tmp_path / "crystals"), "gztar", crystals)
    packed = ask(*runs, archive)[1]
    assert sorted(packed, key=lambda row: row["file"]) == rows
    formulas = table(tmp_path / "f.csv", ["".join(pair) for pair in ALLOYS.values()])
    status, same, _ = ask(*runs, formulas)
    assert status == 0
    name = "predicted_mixing_enthalpy"
    np.testing.assert_array_equal(numbers(rows, name)[:3], numbers(same, name))


def test_a_run_or_an_empty_folder_is_no_candidate(ask, runs, tmp_path):
    (tmp_path / "empty").mkdir()
    for last in (runs[1], tmp_path / "empty"):
        status, rows, said = ask(runs[0], last)
        assert (status, rows) == (2, []) and "Traceback" not in said
    status, rows, _ = ask(runs[0], tmp_path / "absent.zip")
    assert (status, rows) == (2, [])


def test_a_column_of_structures_is_predicted_from_python(alloys_pack, runs):
    from pymatgen.core import Lattice, Structure

    from irnet_hpc.predict.model import load_model

    model = load_model(runs[0], pack_dir=alloys_pack.parent)
    crystals = [
        Structure(Lattice.cubic(3), list(pair), [[0] * 3, [0.5] * 3]) for pair in ALLOYS.values()
    ]
    frame = pd.DataFrame({"structure": [*crystals, None]})
    formulas = pd.DataFrame({"formula": ["".join(pair) for pair in ALLOYS.values()]})
    ours, theirs = model.predict(frame), model.predict(formulas)
    name = "predicted_mixing_enthalpy"
    np.testing.assert_array_equal(ours[name].to_numpy()[:3], theirs[name].to_numpy())
    assert np.isnan(ours[name].to_numpy()[3])
