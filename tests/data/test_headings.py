"""What the columns of a table are called, by its header and by the user."""

import pytest

from irnet_hpc.data.headings import name_columns
from irnet_hpc.data.reading import Reading
from irnet_hpc.errors import UserError


def names(*given: str, wanted=(), features: bool = False, **reading) -> tuple[str, ...]:
    return name_columns("t.csv", given, Reading(**reading), wanted, features).names


@pytest.mark.parametrize(
    "header",
    ["Formula", "composition", "Compound", "chemical_formula", "Pretty Formula", "formula_pretty"],
)
def test_common_names_of_the_formulas_are_recognised(header):
    assert names("Remarks", header) == ("Remarks", "formula")


def test_a_column_named_formula_is_the_one_whatever_else_there_is():
    assert names("Composition", "formula") == ("Composition", "formula")
    assert names("Composition", "formula", formula_column="Composition") == ("formula", "")


def test_two_columns_that_may_hold_the_formulas_need_a_word_of_the_user():
    with pytest.raises(UserError, match=r"'Composition', 'Compound'; choose one with --formula-c"):
        names("Composition", "Compound")
    assert names("Composition", "Compound", drop=("Compound",)) == ("formula", "")


@pytest.mark.parametrize(
    ("header", "name", "unit"),
    [
        ("Eg (eV)", "band_gap", "eV"),
        ("Band gap [meV]", "band_gap", "meV"),
        ("K_VRH [GPa]", "bulk_modulus", "GPa"),
        ("Ef (meV/atom)", "formation_energy", "meV/atom"),
        ("Ef (eV)", "Ef", "eV"),  # a Fermi energy, perhaps
        ("Yield strength (MPa)", "Yield_strength", "MPa"),
    ],
)
def test_a_unit_in_a_header_makes_a_property(header, name, unit):
    found = name_columns("t.csv", ("formula", header), Reading())
    assert found.names == ("formula", name) and found.units == {name: unit}
    assert found.name_of(header) == name


def test_a_known_property_without_a_unit_is_not_guessed():
    assert names("formula", "Band gap", "gap (HSE)") == ("formula", "Band gap", "gap (HSE)")


def test_further_columns_with_units_stay_features():
    header = ("formula", "Eg (eV)", "T (K)")
    assert names(*header, features=True) == ("formula", "band_gap", "T (K)")
    assert names(*header, features=True, wanted=("T (K)",)) == ("formula", "band_gap", "T")


def test_a_unit_that_does_not_fit_is_refused_by_name():
    with pytest.raises(
        UserError, match=r"'E \(GPa\)' .* is in GPa, .* converted to eV, .*band_gap"
    ):
        names("formula", "E (GPa)", rename={"E (GPa)": "band_gap"})
    for text in ("mRy", "furlong", "10^-3 eV", "ev"):
        with pytest.raises(UserError, match="not known"):
            names("formula", f"E ({text})", rename={f"E ({text})": "band_gap"})
    for text in ("PBE", "GW", "exp.", "300 K"):
        named = names("formula", f"E ({text})", rename={f"E ({text})": "band_gap"})
        assert "band_gap" in str(named)
    with pytest.raises(UserError, match=r"'formation_energy \(eV\)' .* is in eV"):
        names("formula", "formation_energy (eV)")


def test_two_columns_of_one_property_need_a_word_of_the_user():
    header = ("formula", "Eg (eV)", "gap (meV)")
    with pytest.raises(UserError, match=r"may be band_gap, 'Eg \(eV\)', 'gap \(meV\)'"):
        names(*header)
    assert names(*header, drop=("gap (meV)",)) == ("formula", "band_gap", "")
    # A column of that very name is the one; before, the others were left out as well.
    assert names(*header, "band_gap") == ("formula", "", "", "band_gap")
    assert names(*header, wanted=("hardness",)) == ("formula", "", "")


def test_one_column_of_ids_names_the_rows():
    found = name_columns("t.csv", ("Sample ID", "formula"), Reading())
    assert found.names == ("material_id", "formula") and found.own_id
    assert names("Sample ID", "icsd", "formula") == ("Sample ID", "icsd", "formula")
    assert names("material_id", "icsd", "formula") == ("material_id", "icsd", "formula")
    assert names("doi", "formula") == ("doi", "formula")
    assert names("icsd", "formula", wanted=("icsd",)) == ("icsd", "formula")


@pytest.mark.parametrize(
    ("reading", "sentence"),
    [
        ({"drop": ("gap",)}, "unknown column of t.csv .of --drop. 'gap'"),
        ({"rename": {"E": "a b"}}, "must be letters, digits"),
        ({"rename": {"E": "x"}}, "several columns named 'x'; --drop the others"),
        ({"rename": {"E": "y"}, "drop": ("E",)}, "renamed or dropped, got both"),
        ({"formula_column": "nowhere"}, "unknown column of t.csv .of --formula-column."),
        ({"formula_column": "E", "drop": ("E",)}, "renamed or dropped"),
    ],
)
def test_names_that_contradict_each_other_are_one_sentence(reading, sentence):
    with pytest.raises(UserError, match=sentence):
        names("formula", "E", "x", **reading)
