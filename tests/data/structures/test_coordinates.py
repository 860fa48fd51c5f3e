"""POSCAR and extended XYZ files are read as pymatgen and ASE do, except where these guess."""

import numpy as np
import pytest

from irnet_hpc.data.crystals import Unsuitable
from irnet_hpc.data.structures.coordinates import poscar_entries, xyz_entries
from irnet_hpc.data.structures.entries import NO_CELL, NO_ELEMENT, NOT_READABLE
from tests.data.structures.files import POSCAR, XYZ

CARTESIAN = POSCAR.replace("Direct", "Cartesian").replace("0.5 0.5 0.5", "1.7 1.7 1.7")
VASP_4 = POSCAR.replace("Na Cl\n", "")


@pytest.mark.parametrize(
    "text",
    [
        POSCAR,
        CARTESIAN,
        POSCAR.replace("Na Cl\n", "Na_pv/f474ac0d Cl/79d9987a\n"),
        VASP_4.replace("0 0 0\n0.5 0.5 0.5", "0 0 0 Na\n0.5 0.5 0.5 Cl"),
        POSCAR.replace("1.0\n", "-39.304\n"),
    ],
)
def test_a_poscar_of_any_version_is_rock_salt(text):
    ((name, entry),) = poscar_entries(text)
    assert name == "" and entry["species"] == ["Na", "Cl"]
    np.testing.assert_allclose(entry["frac_coords"], [[0, 0, 0], [0.5] * 3], atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(entry["lattice"]), 3.4**3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (VASP_4, NO_ELEMENT),
        (POSCAR.replace("Na Cl\n", "Na Xx\n"), NO_ELEMENT),
        (POSCAR.replace("1 1\n", "1 999999999999\n"), NOT_READABLE),
        (POSCAR.replace("0.5 0.5 0.5\n", ""), NOT_READABLE),
        ("", NOT_READABLE),
    ],
)
def test_a_poscar_whose_atoms_are_not_stated_has_a_reason(text, reason):
    ((_, entry),) = poscar_entries(text)
    assert isinstance(entry, Unsuitable) and entry.args[0] == reason


def test_the_frames_of_an_xyz_file_are_read_and_a_molecule_is_refused_by_name():
    ((name, entry),) = xyz_entries(XYZ)
    assert name == "" and entry["species"] == ["Na", "Cl"]
    np.testing.assert_allclose(entry["frac_coords"][1], [0.5] * 3, atol=1e-12)
    molecule = "2\nhydrogen\nH 0 0 0\nH 0 0 0.74\n"
    frames = xyz_entries(XYZ + molecule + XYZ)
    assert [name for name, _ in frames] == ["1", "2", "3"]
    assert frames[1][1].args[0] == NO_CELL and frames[2][1]["species"] == ["Na", "Cl"]
    flat = XYZ.replace('pbc="T T T"', 'pbc="F F F"')
    assert xyz_entries(flat)[0][1].args[0] == NO_CELL


@pytest.mark.parametrize("text", ["", "x\n", "3\n" + XYZ[2:], "99999999\nLattice=\n", XYZ + "2\n"])
def test_an_xyz_file_that_is_cut_or_empty_has_a_reason(text):
    assert isinstance(xyz_entries(text)[-1][1], Unsuitable)
