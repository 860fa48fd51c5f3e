"""A folder and an archive of the same files are the same lines, joined with the same properties."""

import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from irnet_hpc.data.reading import Reading
from irnet_hpc.data.structures.finding import BESIDE
from irnet_hpc.data.structures.joining import NO_FILE, SEVERAL
from irnet_hpc.data.structures.listing import Listed, list_structures
from irnet_hpc.errors import UserError
from tests.data.structures.files import JARVIS, POSCAR, PYMATGEN, cif, folder

MGO = ("Mg1 Mg 0 0 0 1", "O1 O 0.5 0.5 0.5 1")
FILES = {
    "NaCl.cif": cif(),
    "two.cif": cif(name="a") + cif(*MGO, name="b"),
    "run-1/POSCAR": POSCAR,
    "run-1/CONTCAR": POSCAR,
    "dump.json": json.dumps([{"jid": "JVASP-1", "atoms": JARVIS, "ehull": 0.5}]),
    "bad.cif": "data_x\n",
    "notes.txt": "hello",
}


@pytest.fixture
def place(tmp_path) -> Path:
    return folder(tmp_path / "crystals", FILES)


def entries(listed: Listed) -> list[dict]:
    return [json.loads(line) for line in listed.text.lines()]


def by_id(listed: Listed) -> dict[str, dict]:
    found = {entry["material_id"]: entry for entry in entries(listed)}
    assert len(found) == len(entries(listed))
    return found


def table(path: Path, text: str, **reading) -> Reading:
    path.write_text(text, encoding="utf-8")
    return Reading(properties_table=str(path), **reading)


def test_each_structure_has_the_id_of_its_file_and_a_faulty_one_its_reason(place):
    found = by_id(list_structures(place, Reading()))
    assert sorted(found) == ["JVASP-1", "NaCl", "bad", "run-1", "run-1/POSCAR", "two:a", "two:b"]
    sources = {name: entry["read_from"] for name, entry in found.items()}
    assert (sources["two:b"]["file"], sources["two:b"]["block"]) == ("two.cif", "b")
    assert sorted(found["two:b"]["species"]) == ["Mg", "O"]
    assert sources["JVASP-1"]["cells"] == {"energy_above_hull": 0.5}
    faulty = {name: source["reason"] for name, source in sources.items() if "reason" in source}
    assert faulty["run-1/POSCAR"] == BESIDE and sorted(faulty) == ["bad", "run-1/POSCAR"]


def test_a_folder_and_every_archive_of_it_are_the_same_lines(place, tmp_path):
    expected = list(list_structures(place, Reading()).text.lines())
    archives = [tmp_path / f"crystals.{kind}" for kind in ("zip", "tar", "tar.gz", "tar.xz")]
    with zipfile.ZipFile(archives[0], "w") as archive:
        for name in FILES:
            archive.write(place / name, name)
    for path in archives[1:]:
        mode = "w" if path.suffix == ".tar" else f"w:{path.suffix[1:]}"
        with tarfile.open(path, mode) as archive:
            # The CONTCAR comes first, as it does in a sorted listing.
            for name in sorted(FILES):
                archive.add(place / name, name)
    for path in archives:
        assert list(list_structures(path, Reading()).text.lines()) == expected, path.name


@pytest.mark.parametrize("name", ["NaCl", "NaCl.cif", "./NaCl.cif", " NaCl "])
def test_rows_name_structures_with_or_without_the_ending(place, tmp_path, name):
    reading = table(tmp_path / "p.csv", f"remark,File,Eg (eV)\nno,{name},8.5\nno,two:b,7.8\n")
    found = by_id(list_structures(place, reading))
    assert found["NaCl"]["read_from"]["cells"] == {"remark": "no", "Eg (eV)": "8.5"}
    assert found["two:b"]["read_from"]["cells"]["Eg (eV)"] == "7.8"
    assert found["two:a"]["read_from"]["cells"] == {}
    assert found["JVASP-1"]["read_from"]["cells"] == {"energy_above_hull": 0.5}


def test_rows_without_a_structure_are_lines_with_a_reason(place, tmp_path):
    text = "id,gap\nNaCl,1\nJVASP-1,2\nlost,3\ntwo.cif,4\nNaCl,5\nrun-1\n"
    listed = list_structures(place, table(tmp_path / "p.csv", text))
    reasons = Counter(
        entry["read_from"]["reason"] for entry in entries(listed) if "reason" in entry["read_from"]
    )
    assert reasons[NO_FILE] == 1 and reasons[SEVERAL] == 1
    gaps = [
        entry["read_from"]["cells"]["gap"]
        for entry in entries(listed)
        if entry["material_id"] == "NaCl"
    ]
    assert gaps == ["1", "5"]
    dump = next(entry for entry in entries(listed) if entry["material_id"] == "JVASP-1")
    assert dump["read_from"]["cells"] == {"energy_above_hull": 0.5, "gap": "2"}
    short = [entry for entry in entries(listed) if entry["material_id"] == "run-1"]
    assert sorted("reason" in entry["read_from"] for entry in short) == [False, True]


def test_the_only_table_in_the_folder_is_taken_and_a_foreign_one_is_not(place):
    (place / "gaps.csv").write_text("file;gap\nNaCl.cif;8,5\n")
    assert by_id(list_structures(place, Reading()))["NaCl"]["read_from"]["cells"] == {"gap": "8,5"}
    (place / "gaps.csv").write_text("formula,gap\nFeO,1\n")
    assert by_id(list_structures(place, Reading()))["NaCl"]["read_from"]["cells"] == {}


def test_the_user_can_name_the_column_of_names(place, tmp_path):
    text = "File,label,gap\nNaCl,two:b,1\ntwo:b,NaCl,2\n"
    listed = list_structures(
        place, table(tmp_path / "p.csv", text, rename={"label": "material_id", "gap": "band_gap"})
    )
    assert by_id(listed)["NaCl"]["read_from"]["cells"] == {"File": "two:b", "gap": "2"}
    assert listed.reading.rename == {"gap": "band_gap"}


@pytest.mark.parametrize(
    "text", ["", "File,gap\n", "File,gap\nother,1\n", "NaCl.cif,1.0\ntwo:b,2.0\n"]
)
def test_a_table_that_names_no_structure_is_one_sentence(place, tmp_path, text):
    with pytest.raises(UserError) as raised:
        list_structures(place, table(tmp_path / "p.csv", text))
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError):
        list_structures(place, Reading(properties_table=str(tmp_path / "absent.csv")))


@pytest.mark.parametrize("files", [{}, {"a.txt": "x"}, {"a.cif": "data_x\n", "b.json": "{}"}])
def test_a_folder_without_a_readable_structure_is_one_sentence(tmp_path, files):
    (tmp_path / "f").mkdir()
    with pytest.raises(UserError) as raised:
        list_structures(folder(tmp_path / "f", files), Reading())
    assert "\n" not in str(raised.value)


def test_strict_stops_at_the_first_structure_that_cannot_be_read(place):
    with pytest.raises(UserError, match=r"bad\.cif"):
        list_structures(place, Reading(strict=True))
    (place / "bad.cif").unlink()
    assert by_id(list_structures(place, Reading(strict=True)))["NaCl"]


def test_files_of_one_name_have_ids_of_their_own(tmp_path):
    files = {"a/x.cif": cif(), "b/x.cif": cif(), "x.vasp": POSCAR}
    files["y.json"] = json.dumps([PYMATGEN, PYMATGEN])
    found = by_id(list_structures(folder(tmp_path / "f", files), Reading()))
    assert sorted(found) == ["a/x.cif", "b/x.cif", "x.vasp", "y:1", "y:2"]


def test_many_files_are_read_by_workers_in_the_same_order(tmp_path):
    few = folder(tmp_path / "few", {f"{n:03}.cif": cif(name=f"n{n}") for n in range(20)})
    many = folder(tmp_path / "many", {f"{n:03}.cif": cif(name=f"n{n}") for n in range(300)})
    first = list(list_structures(few, Reading()).text.lines())
    assert list(list_structures(many, Reading()).text.lines())[:20] == first
