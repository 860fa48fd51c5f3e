"""Hold what run_sweep returns."""

import pytest

import irnet_hpc
from irnet_hpc.errors import UserError
from irnet_hpc.sweep.table import run_sweep

COLUMNS = [
    *("pack", "property", "model", "recipe", "protocol", "seed"),
    *("state", "test_mae", "unit", "folder", "detail"),
]
MATRIX = {
    "packs": ["alloys-magpie"],
    "properties": ["mixing_enthalpy"],
    "models": ["plain-10", "irnet-10"],
}


def test_run_sweep_returns_a_row_for_each_cell(place, stand_in):
    stand_in["irnet-10"] = "echo words; exit 3"
    frame = run_sweep(str(place.path), results=str(place.results), pack_dir=place.packs)
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 6
    by_model = frame.set_index("model")
    assert list(by_model.state) == ["done", "done", "done", "failed", "done", "done"]
    assert by_model.test_mae["plain-10"] == 0.125 and by_model.unit["plain-10"] == "eV/atom"
    assert by_model.test_mae.isna()["irnet-10"] and "words" in by_model.detail["irnet-10"]


def test_a_matrix_may_be_a_mapping(place, stand_in):
    frame = irnet_hpc.run_sweep(MATRIX, results=place.results, pack_dir=place.packs)
    assert list(frame.state) == ["done", "done"]
    again = irnet_hpc.run_sweep(MATRIX, results=place.results, pack_dir=place.packs)
    assert again.equals(frame)


def test_a_mapping_that_is_no_matrix_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="seeds"):
        run_sweep(MATRIX | {"sedes": [0]}, results=tmp_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [("workers", 0), ("workers", "many"), ("workers", True), ("n_ranks", 0), ("bundle", None)],
)
def test_a_number_that_no_command_line_takes_is_refused(tmp_path, option, value):
    with pytest.raises(UserError, match=f"^{option} must be a whole number from 1") as error:
        run_sweep(MATRIX, results=tmp_path / "results", **{option: value})
    assert repr(value) in str(error.value) and not (tmp_path / "results").exists()
