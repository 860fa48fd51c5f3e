"""What is read of a CIF is what it states: nothing is guessed without a reason."""

import numpy as np
import pytest

from irnet_hpc.data.crystals import Unsuitable
from irnet_hpc.data.structures.cif import (
    DISAGREE,
    NO_ATOMS,
    OPEN_SETTING,
    SYMMETRY,
    cif_entries,
)
from irnet_hpc.data.structures.entries import NO_ELEMENT, NOT_READABLE
from tests.data.structures.files import CELL, HEADER, IDENTITY, cif

HM = "_symmetry_space_group_name_H-M '{}'\n"
FOUR = "_chemical_formula_sum 'Na1 Cl1'\n_cell_formula_units_Z 4\n"
EIGHT = "_chemical_formula_sum 'Si'\n_cell_formula_units_Z 8\n"
LABELS = HEADER.replace("_atom_site_type_symbol\n", "").replace("_atom_site_occupancy\n", "")


def only(text: str) -> dict | Unsuitable:
    """Return the only structure of a CIF, or the reason why there is none."""
    ((_, entry),) = cif_entries(text)
    return entry


def species(text: str) -> list:
    entry = only(text)
    assert isinstance(entry, dict), entry
    return sorted(entry["species"], key=str)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (cif(), ["Cl", "Na"]),
        (cif(symmetry=HM.format("F m -3 m")), ["Cl"] * 4 + ["Na"] * 4),
        (cif(symmetry="_symmetry_Int_Tables_number 225\n"), ["Cl"] * 4 + ["Na"] * 4),
        (cif(symmetry="_symmetry_Int_Tables_number 225\n", more=FOUR), ["Cl"] * 4 + ["Na"] * 4),
        (cif("Si1 Si 0 0 0 1", symmetry=HM.format("F d -3 m"), more=EIGHT), ["Si"] * 8),
        (cif(symmetry=""), ["Cl", "Na"]),
        (cif("Na1 Na1+ 0 0 0 1", "Cl1 Cl1- 0.5 0.5 0.5 1"), ["Cl", "Na"]),
        (cif("O1 O 0 0 0 1", "D1 D 0.5 0.5 0.5 1"), ["H", "O"]),
        (cif(name=""), ["Cl", "Na"]),
        (cif(name="powder_pattern"), ["Cl", "Na"]),
        (cif(more="_note\n;\ndata_inside a text\n;\n"), ["Cl", "Na"]),
        (f"data_x\n{CELL}{IDENTITY}{LABELS}Na1 0 0 0\nOW1 .5 .5 .5\n", ["Na", "O"]),
        (cif("K1 K 0.2 0.9999 0 1", "Cl1 Cl -0.25 1.5 0.5 1"), ["Cl", "K"]),
    ],
)
def test_the_sites_of_a_cif_and_of_its_symmetry_are_read(text, expected):
    assert species(text) == expected


def test_positions_are_brought_into_the_cell():
    entry = only(cif("K1 K 0.2 0 0 1", "Cl1 Cl -0.25 1.5 0.5 1"))
    by_symbol = dict(zip(entry["species"], entry["frac_coords"], strict=True))
    np.testing.assert_allclose(by_symbol["Cl"], [0.75, 0.5, 0.5])
    np.testing.assert_allclose(np.array(entry["lattice"]), np.eye(3) * 5.64, atol=1e-9)


def test_partial_occupancies_are_kept_and_small_excesses_are_scaled():
    half = cif("Na1 Na 0 0 0 0.5", "K1 K 0 0 0 0.5", "Cl1 Cl 0.5 0.5 0.5 1")
    assert {"Na": 0.5, "K": 0.5} in only(half)["species"]
    above = cif("Na1 Na 0 0 0 0.51", "K1 K 0 0 0 0.5", "Cl1 Cl 0.5 0.5 0.5 1")
    mixed = next(site for site in only(above)["species"] if isinstance(site, dict))
    assert sum(mixed.values()) == pytest.approx(1)
    assert mixed["Na"] == pytest.approx(0.51 / 1.01)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", NO_ATOMS),
        (f"data_x\n{CELL}", NO_ATOMS),
        (cif(symmetry=HM.format("Q 9 9 9")), SYMMETRY),
        (cif(symmetry=HM.format("F m -3 m").upper()), SYMMETRY),
        (cif(symmetry="", more=FOUR), SYMMETRY),
        (cif("Si1 Si 0 0 0 1", symmetry=HM.format("F d -3 m")), OPEN_SETTING),
        (cif("Si1 Si .125 .125 .125 1", symmetry=HM.format("F d -3 m"), more=EIGHT), OPEN_SETTING),
        (cif("K1 K .1 .2 .3 1", symmetry="_symmetry_Int_Tables_number 62\n"), OPEN_SETTING),
        (cif("Na1 Na 0 0 0 1", "O1 OH 0.5 0.5 0.5 1"), NO_ELEMENT),
        (cif("Na1 Na 0 0 0 1", "V1 Va 0.5 0.5 0.5 1"), NO_ELEMENT),
        (cif("Na1 Na 0 0 0 1", "D1 Dum 0.5 0.5 0.5 1"), NO_ELEMENT),
        (f"data_x\n{CELL}{IDENTITY}{LABELS}Vac1 0 0 0\n", NO_ELEMENT),
        (cif("Na1 Na 0 0 0 .", "Cl1 Cl 0.5 0.5 0.5 1"), NOT_READABLE),
        (cif("Na1 Na ? 0 0 1", "Cl1 Cl 0.5 0.5 0.5 1"), NOT_READABLE),
        (cif("Na1 Na 0 0 0 0.7", "K1 K 0 0 0 0.5"), NOT_READABLE),
        (cif("Na1 Na 0 0"), NOT_READABLE),
        (cif().replace("_cell_length_b 5.64\n", ""), NOT_READABLE),
        (cif(more="_chemical_formula_sum 'H1 Na1 Cl1'\n"), DISAGREE),
        (cif("Na1 Na 0 0 0 1", "Cl1 Cl 0.01 0 0 1"), "sites on one another"),
        (cif(*[f"C{n} C {n / 20000} 0 0 1" for n in range(10_001)]), "crystal too large"),
    ],
)
def test_a_cif_that_would_be_guessed_has_a_reason_instead(text, reason):
    entry = only(text)
    assert isinstance(entry, Unsuitable), entry
    assert entry.args[0] == reason


def test_hydrogen_without_sites_is_a_reason_even_without_a_formula():
    columns = HEADER + "_atom_site_attached_hydrogens\n"
    text = f"data_x\n{CELL}{IDENTITY}{columns}N1 N 0 0 0 1 3\nCl1 Cl .5 .5 .5 1 0\n"
    assert only(text).args[0] == DISAGREE
    with_sites = text + "H1 H .2 .1 .1 1 0\n"
    assert "H" in only(with_sites)["species"]


def test_every_block_with_atoms_is_read_even_two_of_one_name():
    text = "data_global\n_journal_name 'x'\n" + cif(name="a")
    text += cif("Mg1 Mg 0 0 0 1", "O1 O 0.5 0.5 0.5 1", name="a")
    text += cif("Mg1 Va 0 0 0 1", name="c")
    found = cif_entries(text)
    assert [name for name, _ in found] == ["a", "a", "c"]
    assert sorted(found[1][1]["species"]) == ["Mg", "O"]
    assert isinstance(found[2][1], Unsuitable)
