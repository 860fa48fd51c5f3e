"""JSON of pymatgen, ASE, JARVIS and the Materials Project: numbers and texts, and no classes."""

import io
import json
import sys

import numpy as np
import pytest

from irnet_hpc.data.crystals import Unsuitable
from irnet_hpc.data.raw_table import file_text
from irnet_hpc.data.structures.documents import (
    document_records,
    holds_structures,
    lines_hold_records,
)
from irnet_hpc.data.structures.entries import NO_CELL, NO_ELEMENT, NOT_READABLE, entry_of_object
from irnet_hpc.errors import UserError
from tests.data.structures.files import JARVIS, PYMATGEN, ase_atoms, dumped

ROW = {"unique_id": "u1", "key_value_pairs": {"gap": 2.0}}
DUMP = [
    {
        "jid": "JVASP-1",
        "atoms": JARVIS,
        "ehull": 0.1,
        "optb88vdw_bandgap": "na",
        "spg": float("nan"),
    }
]
SUMMARY = {
    "material_id": "mp-1",
    "structure": PYMATGEN,
    "formation_energy_per_atom": -1.5,
    "bulk_modulus": {"vrh": 20.0, "voigt": 21.0},
}


def read(value: object) -> list:
    return list(document_records(io.BytesIO(dumped(value)), "x.json"))


@pytest.mark.parametrize(
    ("value", "ids", "cells"),
    [
        (PYMATGEN, [""], {}),
        ([PYMATGEN, PYMATGEN], ["", ""], {}),
        ({"a": PYMATGEN, "b": PYMATGEN}, ["a", "b"], {}),
        (ase_atoms(), [""], {}),
        ({"1": ase_atoms() | ROW, "ids": [1], "nextid": 2}, ["u1"], {"gap": 2.0}),
        (DUMP, ["JVASP-1"], {"energy_above_hull": 0.1, "band_gap": "na", "spg": "nan"}),
        ([SUMMARY], ["mp-1"], {"formation_energy": -1.5, "bulk_modulus": 20.0}),
    ],
)
def test_each_library_s_documents_give_rock_salt_with_its_properties(value, ids, cells):
    records = read(value)
    assert [record.id for record in records] == ids
    assert records[0].cells == cells
    entry = records[0].structure
    assert sorted(entry["species"]) == ["Cl", "Na"]
    np.testing.assert_allclose(np.sort(entry["frac_coords"], axis=0), [[0] * 3, [0.5] * 3])


def changed(**parts) -> dict:
    return PYMATGEN | parts


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        ({"sites": PYMATGEN["sites"]}, NO_CELL),
        (ase_atoms(periodic=False), NO_CELL),
        (changed(lattice={"matrix": [[1, 2], [3, 4]]}), NOT_READABLE),
        (changed(lattice={}), NOT_READABLE),
        (changed(sites=[]), "a structure without atoms"),
        (changed(sites=[{"species": [{"element": "Xx"}], "abc": [0, 0, 0]}]), NO_ELEMENT),
        (changed(sites=[{"species": [], "abc": [0, 0, 0]}]), NO_ELEMENT),
        (changed(sites=[{"species": [{"element": "Na"}], "abc": [0, "x", 0]}]), NOT_READABLE),
        (
            changed(sites=[{"species": [{"element": "Na", "occu": -1}], "abc": [0] * 3}]),
            NOT_READABLE,
        ),
        (JARVIS | {"elements": ["Na"]}, NOT_READABLE),
        ("text", NOT_READABLE),
    ],
)
def test_a_structure_that_is_none_has_a_reason(structure, reason):
    with pytest.raises(Unsuitable) as raised:
        entry_of_object(structure)
    assert raised.value.args[0] == reason


def test_no_class_that_a_file_names_is_loaded():
    payload = {"@module": "antigravity", "@class": "fly", "@callable": "fly"}
    site = {"species": [{"element": "Na", "occu": 1}], "abc": [0, 0, 0]}
    site |= {"properties": {"x": payload}, "label": payload}
    records = read(changed(sites=[site], lattice=PYMATGEN["lattice"] | payload, properties=payload))
    assert records[0].structure["species"] == ["Na"]
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("text", ["", "{", "[{]", '{"a": 1}', "[1]", '"x"', "[" * 10_000, "{}"])
def test_a_document_without_structures_is_one_sentence(text):
    with pytest.raises(UserError) as raised:
        list(document_records(io.BytesIO(text.encode()), "x.json"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (DUMP, True),
        (PYMATGEN, True),
        ([{"formula": "FeO", "sites": 3, "numbers": 1, "positions": 2}], False),
        ([], False),
        ({"a": 1}, False),
    ],
)
def test_a_table_of_cells_is_not_taken_for_structures(tmp_path, value, expected):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    assert holds_structures(path) is expected


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff{}", b"\xff\xfe{", b"[" * 10_000, b'{"structure": 1}', b"[1]", b'["\xff"]'],
)
def test_what_cannot_be_read_is_left_to_the_reader_of_tables(tmp_path, content):
    for name in ("x.json", "x.jsonl"):
        (tmp_path / name).write_bytes(content)
    assert not holds_structures(tmp_path / "x.json")
    assert not lines_hold_records(file_text(tmp_path / "x.jsonl"))
    (tmp_path / "x.jsonl.gz").write_bytes(content)
    assert not lines_hold_records(file_text(tmp_path / "x.jsonl.gz"))


def test_objects_of_pymatgen_and_dictionaries_give_the_same_structure():
    from pymatgen.core import Lattice, Structure

    crystal = Structure(Lattice.cubic(3.4), ["Na+", {"Cl-": 0.5, "Br-": 0.5}], [[0] * 3, [0.5] * 3])
    entry = entry_of_object(crystal)
    assert entry == entry_of_object(crystal.as_dict())
    assert entry["species"] == ["Na", {"Cl": 0.5, "Br": 0.5}]
    with pytest.raises(Unsuitable):
        entry_of_object(Structure(Lattice.cubic(3.4), ["X"], [[0] * 3]))
