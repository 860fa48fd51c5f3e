"""Tables of matminer's datasets."""

import gzip
import json

import pytest
from pymatgen.core import Composition, Lattice, Species, Structure

from irnet_hpc.data.download.obtain import ensure, fetch
from irnet_hpc.data.formulas import formula_text
from irnet_hpc.data.raw_table import read_about
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.pack.pipeline import PackOptions, pack_source
from irnet_hpc.pack.store import open_pack
from tests.builders import load_table
from tests.data.download.services import GAPS, read


def cscl(a: float, species=("Cs", "Cl")) -> Structure:
    return Structure(Lattice.cubic(a), list(species), [[0, 0, 0], [0.5, 0.5, 0.5]])


MP = {
    "mpid": ["mp-1", "mp-2", "mp-3"],
    "formula": ["CsCl", "CsBr", "FeCo"],
    "e_form": [-2.0, -1.8, 0.1],
    "e_hull": [0.0, 0.02, float("nan")],
    "gap pbe": [5.25, 4.0, 0.0],
    "mu_b": [0.0, 0.0, 4.5],
    "bulk modulus": [18.0, float("nan"), 160.0],
    "shear modulus": [10.0, float("nan"), 80.0],
    "elastic anisotropy": [0.1, float("nan"), 1.5],
    "structure": [
        cscl(4.0, (Species("Cs", 1), Species("Cl", -1))),
        cscl(4.5, ("Cs", "Br")),
        cscl(3.0, ({"Fe": 0.5, "Co": 0.5}, "Co")),
    ],
    "initial structure": [cscl(4.1), cscl(4.6), cscl(3.1)],
}
STEELS = {"composition": ["Fe0.9C0.1", "Fe0.8Ni0.2"], "yield strength": [1500.25, 900.0]}


def test_mp_has_structures_canonical_names_and_what_follows_from_the_structure(datasets, tmp_path):
    table = fetch(resolve_source("mp", tmp_path), datasets("mp_all_20181018", MP))
    assert table.name == "mp.jsonl.gz"
    with gzip.open(table, "rt") as file:
        lines = [json.loads(line) for line in file]
    assert [line["material_id"] for line in lines] == ["mp-1", "mp-2", "mp-3"]
    first = lines[0]
    assert first["lattice"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert first["species"] == ["Cs", "Cl"]  # without oxidation states
    assert first["frac_coords"] == [[0, 0, 0], [0.5, 0.5, 0.5]]
    # 64 Å³ hold one CsCl of 132.905 + 35.453 g/mol: 168.358 / (64e-24 × 6.02214e23) = 4.3682 g/cm³.
    assert first["targets"]["density"] == pytest.approx(4.3682, abs=1e-3)
    del first["targets"]["density"]
    assert first["targets"] == {
        "formation_energy": -2,
        "energy_above_hull": 0,
        "band_gap": 5.25,
        "total_magnetization": 0,
        "bulk_modulus": 18,
        "shear_modulus": 10,
        "elastic_anisotropy": 0.1,
        "volume": 64,
        "volume_per_atom": 32,
    }
    assert "bulk_modulus" not in lines[1]["targets"]
    assert lines[2]["species"] == [{"Fe": 0.5, "Co": 0.5}, "Co"]
    about = read_about(table)
    assert (about["dataset"], about["n_rows"], about["licence"]) == (
        "mp_all_20181018",
        3,
        "CC BY 4.0",
    )
    assert about["columns"]["total_magnetization"] == "mu_b"
    assert about["bibtex"][0].startswith("@article{Jain2013")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "made",
        "mp.about.json",
        "mp.jsonl.gz",
    ]


def test_mp_packs_and_is_downloaded_where_only_formulas_are_there(datasets, tmp_path, monkeypatch):
    url = datasets("mp_all_20181018", MP)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mp.csv").write_text("formula,band_gap\nSi,1.1\nGe,0.7\nCsCl,5\n")
    assert ensure(resolve_source("mp", tmp_path / "data"), url) is None
    assert (
        ensure(resolve_source("mp", tmp_path / "data"), url, structures=True).name == "mp.jsonl.gz"
    )
    assert load_table("mp", tmp_path / "data").units == {
        "band_gap": "eV"
    }  # what mp.about.json says is of the other table
    assert load_table("mp", tmp_path / "data", structures=True).units["volume"] == "Å³/cell"
    (tmp_path / "data/mp.csv").unlink()
    folders = {"data_dir": tmp_path / "data", "pack_dir": tmp_path / "packs"}
    pack_source(PackOptions("mp", "elements", workers=1, **folders))
    with open_pack(tmp_path / "packs/mp-elements.h5") as found:
        assert found.n_rows == 3
        assert found.units["volume"] == "Å³/cell"
        assert found.units["total_magnetization"] == "µB/cell"
        everything = slice(0, 3)
        volumes = dict(
            zip(found.material_ids(everything), found.y("volume_per_atom", everything), strict=True)
        )
        assert volumes == {"mp-1": 32, "mp-2": pytest.approx(4.5**3 / 2), "mp-3": 13.5}
    pack_source(PackOptions("mp", "structure", workers=1, **folders))
    with open_pack(tmp_path / "packs/mp-structure.h5") as found:
        assert sorted(found.material_ids(slice(0, found.n_rows))) == [
            "mp-1",
            "mp-2",
        ]  # the third has a disordered site
        assert sum(found.attrs["rejected"].values()) == 1


def test_jarvis_has_both_gaps_and_texts_for_numbers_are_read(datasets, tmp_path):
    columns = {
        "jid": ["JVASP-1", "JVASP-2"],
        "mpid": ["mp-1", None],
        "composition": [Composition("CsCl"), Composition("CsBr")],
        "e_form": [-2.0, -1.8],
        "gap opt": [5.0, 4.0],
        "gap tbmbj": ["8.25", "na"],
        "bulk modulus": [18.0, None],
        "shear modulus": ["", "9.5"],
        "epsilon_x opt": [2.5, 2.6],
        "structure": [cscl(4.0), cscl(4.5, ("Cs", "Br"))],
        "structure initial": [cscl(4.0), cscl(4.5)],
    }
    table = fetch(resolve_source("jarvis", tmp_path), datasets("jarvis_dft_3d", columns))
    loaded = load_table("jarvis", tmp_path, structures=True)
    assert table.name == "jarvis.jsonl.gz"
    assert loaded.table.material_id == ["JVASP-1", "JVASP-2"]
    assert loaded.table.formula == ["CsCl", "CsBr"]
    gaps = loaded.table.targets["band_gap_mbj"]
    assert (gaps[0], loaded.units["band_gap_mbj"]) == (8.25, "eV")
    assert gaps[1] != gaps[1]  # not reported
    assert loaded.table.targets["shear_modulus"][1] == 9.5
    assert loaded.table.targets["volume"][0] == 64
    assert "epsilon_x_opt" not in loaded.units  # whose unit is not stated


def test_a_dataset_of_formulas_becomes_a_csv_and_a_pack(datasets, tmp_path):
    url = datasets("expt_gap", GAPS)
    folders = {"data_dir": tmp_path, "pack_dir": tmp_path}
    pack_source(PackOptions("matminer:expt_gap", "elements", workers=1, url=url, **folders))
    assert read(tmp_path / "matminer-expt_gap.csv.xz") == [
        {"formula": "Fe2O3", "material_id": "expt_gap-1", "band_gap": "2.1"},
        {"formula": "NaN", "material_id": "expt_gap-2", "band_gap": ""},
        {"formula": "GaAs", "material_id": "expt_gap-4", "band_gap": "1.424"},
    ]
    about = read_about(tmp_path / "matminer-expt_gap.csv.xz")
    assert "1 rows left out: no formula" in about["notes"]
    assert about["citation"] == "https://pubs.acs.org/doi/suppl/10.1021/acs.jpclett.8b00124"
    assert "Zhuo" in about["bibtex"][0]
    with open_pack(tmp_path / "matminer-expt_gap-elements.h5") as found:
        assert found.n_rows == 2
        assert found.identity["source"] == "matminer:expt_gap"
        assert found.attrs["citation"] == about["citation"]


def test_units_that_the_metadata_state_need_no_unit_and_others_do(datasets, tmp_path):
    url = datasets("matbench_steels", STEELS)
    table = fetch(resolve_source("matminer:matbench_steels", tmp_path), url)
    assert read_about(table)["units"] == {"yield_strength": "MPa"}
    loaded = load_table("matminer:matbench_steels", tmp_path)
    assert loaded.units == {"yield_strength": "MPa"}
    assert list(loaded.table.targets["yield_strength"]) == [1500.25, 900]
    assert loaded.table.formula == ["Fe0.9C0.1", "Fe0.8Ni0.2"]
    with pytest.raises(
        UserError, match="yield_strength is in MPa according to its table, but --unit says 'GPa'"
    ):
        load_table("matminer:matbench_steels", tmp_path, units={"yield_strength": "GPa"})
    glass = {"composition": ["ZrTi", "ZrTi2"], "gfa": [1, 0]}
    fetch(resolve_source("matminer:matbench_glass", tmp_path), datasets("matbench_glass", glass))
    with pytest.raises(UserError, match="has no column named like a property"):
        load_table("matminer:matbench_glass", tmp_path)
    assert load_table(
        "matminer:matbench_glass", tmp_path, properties=["gfa"], units={"gfa": "1"}
    ).units == {"gfa": "1"}


def test_a_file_that_matminer_has_already_is_not_fetched(datasets, tmp_path, monkeypatch):
    datasets("expt_gap", GAPS)
    monkeypatch.setenv("MATMINER_DATA", str(tmp_path / "made"))
    monkeypatch.setenv("IRNET_OFFLINE", "1")
    assert len(read(ensure(resolve_source("matminer:expt_gap", tmp_path)))) == 3
    assert datasets.server.requests == []
    assert (tmp_path / "made/expt_gap.json.gz").exists()


def test_a_dataset_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"did you mean 'expt_gap'"):
        ensure(resolve_source("matminer:expt_gab", tmp_path))
    with pytest.raises(
        UserError, match="double_perovskites_gap_lumo has no column of formula, composition"
    ):
        ensure(resolve_source("matminer:double_perovskites_gap_lumo", tmp_path))


def test_formulas_of_compositions_keep_amounts():
    assert formula_text(Composition("Fe2O3")) == "Fe2O3"
    assert formula_text(Composition({"Fe": 0.123456789, "C": 1})) == "Fe0.123456789C"
    assert formula_text(Composition({"Fe2+": 0.25, "Fe3+": 0.75, "O2-": 1.5})) == "FeO1.5"
    assert formula_text(Composition("D2O")) == "D2O"
    assert formula_text("  ") == ""
    assert formula_text(5) == ""
