"""The network that ships with the package: known compounds, its promises, and a damaged file."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc import load_model
from irnet_hpc.console import exit_status
from irnet_hpc.data.formulas import parse_formula, reduced_formula
from irnet_hpc.data.splits import role_of
from irnet_hpc.errors import UserError
from irnet_hpc.predict import cli as predict
from irnet_hpc.runs import portable
from irnet_hpc.runs.portable import SHIPPED, SHIPPED_IN, shipped_folder

TEN = Path(__file__).parents[2] / "env/ten_compounds.csv"


@pytest.fixture(scope="module")
def oqmd():
    return load_model("pretrained:oqmd", pack_dir="/nowhere")


@pytest.fixture
def ask(capfd):
    """Return a function that runs the command: status, rows on stdout, and stderr."""

    def run(*arguments):
        capfd.readouterr()
        status = exit_status(lambda: predict.main(list(map(str, arguments))))
        out, err = capfd.readouterr()
        return status, list(csv.DictReader(io.StringIO(out))), err

    return run


@pytest.mark.parametrize("name", SHIPPED)
def test_each_file_has_at_most_15_mb_and_the_card_states_the_licence(name):
    folder = shipped_folder(name)
    assert all(path.stat().st_size <= 15e6 for path in folder.iterdir())
    card = (folder / "card.md").read_text()
    assert "CC BY 4.0" in card and "Saal" in card and str(Path.home()) not in card


def test_ten_known_compounds_are_predicted_as_oqmd_has_them(ask):
    status, rows, said = ask("--pretrained", "oqmd", TEN)
    assert status == 0 and len(rows) == 10
    energy = [
        abs(float(r["predicted_formation_energy"]) - float(r["oqmd_formation_energy"]))
        for r in rows
    ]
    inside = [
        float(r["low_formation_energy"])
        <= float(r["oqmd_formation_energy"])
        <= float(r["high_formation_energy"])
        for r in rows
    ]
    assert np.mean(energy) < 0.3 and sum(inside) >= 5
    assert [r["seen_as"] for r in rows] == [
        "train" if r["row_of_oqmd"] == "train" else "" for r in rows
    ]
    assert "CC BY 4.0" in said and "Saal" in said


def test_no_formula_of_the_test_split_has_trained_it(oqmd):
    elements = ["Na", "K", "Mg", "Ca", "Al", "Ti", "Fe", "Zn", "Zr", "Cu"]
    anions = ["O", "S", "Se", "N", "Cl", "F", "Te", "P"]
    formulas = [
        f"{a}{n}{b}{m}" for a in elements for b in anions for n in (1, 2) for m in (1, 2, 3)
    ]
    roles = [role_of(reduced_formula(parse_formula(formula))) for formula in formulas]
    seen = oqmd.predict(formulas)["seen_as"]
    pairs = set(zip(roles, seen, strict=True))
    assert pairs == {("train", ""), ("train", "train"), ("val", ""), ("val", "val"), ("test", "")}


def test_its_intervals_hold_what_they_promise_on_test_rows(oqmd):
    for level in (0.8, 0.9):
        for report in oqmd.report(level):
            assert report.coverage == pytest.approx(level, abs=0.02) or report.above_floor
            assert report.coverage > level - 0.02 and report.n_test > 30_000
    gap = next(report for report in oqmd.report(0.9) if report.property == "band_gap")
    assert gap.coverage_above_floor > 0.7 and gap.above_floor < 0.1


def test_a_wide_gap_gets_a_wider_interval_than_a_metal(oqmd):
    rows = oqmd.predict(["NaCl", "Cu3Au"])
    width = rows["high_band_gap"] - rows["low_band_gap"]
    assert width[0] > 3 * width[1]


def test_an_unknown_name_lists_the_known_ones(ask):
    status, rows, said = ask("--pretrained", "oqdm", TEN)
    assert status == 2 and rows == [] and "oqmd" in said


def test_it_is_given_without_other_models(ask, tmp_path):
    assert ask("--pretrained", "oqmd", tmp_path, TEN)[0] == 2
    assert ask("--pretrained", "oqmd", "--best", "band_gap", TEN)[0] == 2


def test_a_file_that_is_not_the_shipped_one_is_refused(tmp_path, monkeypatch):
    shutil.copytree(SHIPPED_IN, tmp_path / "pretrained")
    monkeypatch.setattr(portable, "SHIPPED_IN", tmp_path / "pretrained")
    find = shipped_folder.__wrapped__
    assert find("oqmd") == tmp_path / "pretrained" / "oqmd"
    path = tmp_path / "pretrained" / "oqmd" / "evidence.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError):
        find("oqmd")
    path.unlink()
    with pytest.raises(UserError):
        find("oqmd")
