"""A folder of structures is packed like the JSON lines of the same structures."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irnet_hpc.console import exit_status
from irnet_hpc.data.structures.cif import NO_ATOMS
from irnet_hpc.errors import UserError
from irnet_hpc.pack import cli, pack_table
from tests.data.structures.files import PYMATGEN, cif, folder

METALS = ["Li", "Na", "K", "Rb", "Cs", "Ag", "Cu", "Mg", "Ca", "Sr", "Ba", "Zn"]
NAMES = [(metal, anion) for metal in METALS for anion in ("F", "Cl", "Br", "I")]


def rock_salt(metal: str, anion: str) -> str:
    return cif(f"{metal}1 {metal} 0 0 0 1", f"{anion}1 {anion} 0.5 0.5 0.5 1")


@pytest.fixture(scope="module")
def salts(tmp_path_factory) -> Path:
    """Return a folder of 48 halides with a table of their gaps, of which some fit no other."""
    files = {f"{metal}{anion}.cif": rock_salt(metal, anion) for metal, anion in NAMES}
    rows = [f"{name},{number / 10}" for number, name in enumerate(files)]
    rows[0], rows[1] = rows[0].split(",")[0] + ",~2", rows[1].split(",")[0] + ",n/a"
    files["bad.cif"] = "data_x\n"
    files["mixed.cif"] = cif("Na1 Na 0 0 0 0.5", "K1 K 0 0 0 0.5", "Cl1 Cl 0.5 0.5 0.5 1")
    rows += ["mixed,9", "absent.cif,1"]
    files["gaps.csv"] = "\n".join(["File,Eg (eV)", *rows]) + "\n"
    return folder(tmp_path_factory.mktemp("salts") / "salts", files)


def rejected(path: Path) -> dict[str, dict[str, str]]:
    with path.with_name(f"{path.stem}.rejected.csv").open() as stream:
        return {row["material_id"]: row for row in csv.DictReader(stream)}


def test_a_folder_gives_features_and_the_reason_for_each_file_left_out(salts, tmp_path):
    with pack_table(salts, features="magpie+structure", pack_dir=tmp_path) as pack:
        path = pack.path
        assert pack.n_rows == 46 and pack.units == {"band_gap": "eV"}
        assert pack.identity["source"] == "file:salts"
        assert np.isfinite(pack.x(pack.rows("train"))).all()
    rows = rejected(path)
    assert {name: row["file"] for name, row in rows.items()} == {
        "LiF": "LiF.cif",
        "LiCl": "LiCl.cif",
        "bad": "bad.cif",
        "mixed": "mixed.cif",
        "absent.cif": "",
    }
    assert rows["bad"]["reason"] == NO_ATOMS
    assert (rows["LiF"]["column"], rows["LiF"]["text"]) == ("Eg (eV)", "~2")
    assert rows["mixed"]["reason"] == "disordered site"


def test_formulas_alone_suffice_for_magpie(salts, tmp_path):
    with pack_table(salts, pack_dir=tmp_path) as pack:
        ids = pack.to_frame(features=False)["material_id"]
        assert pack.n_rows == 47 and "mixed" in set(ids)
    assert "mixed" not in rejected(pack.path)


def test_the_pack_of_a_folder_is_that_of_its_json_lines(salts, tmp_path):
    """The lines are written by hand here: another path to the same crystals."""
    lines = []
    with (salts / "gaps.csv").open() as stream:
        gaps = {row["File"]: row["Eg (eV)"] for row in csv.DictReader(stream)}
    cell = (np.eye(3) * 5.64).tolist()
    for metal, anion in NAMES[2:]:
        name = f"{metal}{anion}"
        lines.append(
            {
                "material_id": name,
                "lattice": cell,
                "species": [metal, anion],
                "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
                "targets": {"band_gap": float(gaps[f"{name}.cif"])},
            }
        )
    table = tmp_path / "salts.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with (
        pack_table(salts, features="structure", pack_dir=tmp_path / "a") as ours,
        pack_table(table, features="structure", pack_dir=tmp_path / "b") as theirs,
    ):
        mine, other = (
            pack.to_frame().set_index("material_id").sort_index() for pack in (ours, theirs)
        )
    pd.testing.assert_frame_equal(mine, other, rtol=0, atol=1e-5)


def test_an_archive_of_a_folder_is_the_same_pack(salts, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "salts"), "zip", salts)
    with (
        pack_table(salts, pack_dir=tmp_path / "a", properties_table=salts / "gaps.csv") as ours,
        pack_table(archive, pack_dir=tmp_path / "b", properties_table=salts / "gaps.csv") as theirs,
    ):
        assert ours.identity == theirs.identity


def test_a_column_of_structures_is_packed_from_python(tmp_path):
    from pymatgen.core import Lattice, Structure

    crystals = [
        Structure(Lattice.cubic(5.64), [metal, anion], [[0] * 3, [0.5] * 3])
        for metal, anion in NAMES
    ]
    frame = pd.DataFrame({"structure": crystals, "Eg (eV)": np.arange(48) / 10, "note": "x"})
    frame.loc[3, "structure"] = None
    with pack_table(frame, name="salts", features="structure", pack_dir=tmp_path) as pack:
        assert pack.n_rows == 47 and pack.units == {"band_gap": "eV"}
        labels = set(pack.to_frame(features=False)["formula"])
    assert labels == {f"{metal}{anion}" for n, (metal, anion) in enumerate(NAMES) if n != 3}


def test_checking_a_folder_names_its_files_and_writes_nothing(salts, tmp_path, capsys):
    status = exit_status(lambda: cli.main(["--check", str(salts), "--pack-dir", str(tmp_path)]))
    said = capsys.readouterr().out
    assert status == 0 and "bad.cif" in said and "absent.cif" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"strict": True},
        {"formula_column": "Eg (eV)"},
        {"properties_table": "absent.csv"},
        {"sheet": "one"},
    ],
)
def test_what_cannot_be_done_is_one_sentence(salts, tmp_path, options):
    with pytest.raises(UserError) as raised:
        pack_table(salts, pack_dir=tmp_path, **options)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("*.h5"))


def test_a_table_of_properties_is_for_structures_only(tmp_path):
    (tmp_path / "t.csv").write_text("formula,band_gap\nFeO,1\n")
    for source in (tmp_path / "t.csv", "alloys"):
        with pytest.raises(UserError):
            pack_table(source, pack_dir=tmp_path, properties_table=tmp_path / "t.csv")


def test_records_in_json_lines_and_own_ids_are_kept(tmp_path):
    record = {"structure": PYMATGEN, "band_gap": 1.0, "formation_energy_per_atom": -1.0}
    lines = [record | {"material_id": f"mp-{n}"} for n in range(1, 4)]
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pack_table(path, features="structure", pack_dir=tmp_path) as pack:
        assert set(pack.to_frame(features=False)["material_id"]) == {"mp-1", "mp-2", "mp-3"}
        assert set(pack.units) == {"band_gap", "formation_energy"}
