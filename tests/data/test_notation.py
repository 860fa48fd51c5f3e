"""Formulas as people type and paste them: read as they are meant, or refused by name."""

import pytest
from pymatgen.core import Composition

from irnet_hpc.data.formulas import InvalidFormula, parse_formula, reduced_formula
from irnet_hpc.features import featurize

COPPER_SULFATE = {"Cu": 1, "S": 1, "O": 9, "H": 10}  # CuSO4 and 5 H2O
HEMATITE = {"Fe": 2, "O": 3}


@pytest.mark.parametrize(
    ("formula", "amounts"),
    [
        ("CuSO4.5H2O", COPPER_SULFATE),
        ("CuSO4·5H2O", COPPER_SULFATE),
        ("CuSO4*5H2O", COPPER_SULFATE),
        ("CuSO4 • 5 H2O", COPPER_SULFATE),
        ("CuSO4 . 5H2O", COPPER_SULFATE),
        ("CuSO4.5(H2O)", COPPER_SULFATE),
        ("CuSO₄·5H₂O", COPPER_SULFATE),
        ("Na2CO3.10H2O", {"Na": 2, "C": 1, "O": 13, "H": 20}),
        ("CaSO4.0.5H2O", {"Ca": 1, "S": 1, "O": 4.5, "H": 1}),
        ("CaSO4·½H2O", {"Ca": 1, "S": 1, "O": 4.5, "H": 1}),
        ("CaSO4·1/2H2O", {"Ca": 1, "S": 1, "O": 4.5, "H": 1}),
        ("Na2CO3.H2O", {"Na": 2, "C": 1, "O": 4, "H": 2}),
        ("NaCl.2H2O", {"Na": 1, "Cl": 1, "H": 4, "O": 2}),
        ("KAl(SO4)2.12H2O", {"K": 1, "Al": 1, "S": 2, "O": 20, "H": 24}),
        ("Ca(OH)2.8H2O", {"Ca": 1, "O": 10, "H": 18}),
        ("K4[Fe(CN)6].3H2O", {"K": 4, "Fe": 1, "C": 6, "N": 6, "H": 6, "O": 3}),
        ("NiCl2.6NH3", {"Ni": 1, "Cl": 2, "N": 6, "H": 18}),
        ("LiI.3CH3OH", {"Li": 1, "I": 1, "C": 3, "H": 12, "O": 3}),
        ("Na0.3CoO2·1.3H2O", {"Na": 0.3, "Co": 1, "O": 3.3, "H": 2.6}),
        ("Y3N@C80", {"Y": 3, "N": 1, "C": 80}),
        ("Ni(CO)4(H)2", {"Ni": 1, "C": 4, "O": 4, "H": 2}),
        ("(Ni)(O)", {"Ni": 1, "O": 1}),
        ("MgO.Al2O3", {"Mg": 1, "O": 4, "Al": 2}),
        ("3CaO.Al2O3", {"Ca": 3, "O": 6, "Al": 2}),
        ("K2O.Al2O3.6SiO2", {"K": 2, "O": 16, "Al": 2, "Si": 6}),
        ("0.5K2O.3SiO2", {"K": 1, "O": 6.5, "Si": 3}),
        ("Al2O3.2SiO2.2H2O", {"Al": 2, "O": 9, "Si": 2, "H": 4}),
        ("2PbCO3.Pb(OH)2", {"Pb": 3, "C": 2, "O": 8, "H": 2}),
    ],
)
def test_the_parts_of_a_solvate_or_mineral_add_up(formula, amounts):
    assert parse_formula(formula) == pytest.approx(amounts)


@pytest.mark.parametrize(
    "formula",
    [
        "Fe₂O₃",
        "Fe_2O_3",
        "Fe_{2}O_{3}",
        "Fe$_2$O$_3$",
        "Fe$_{2}$O$_{3}$",
        r"$\mathrm{Fe_2O_3}$",
        r"\ce{Fe_2O_3}",
        "Fe<sub>2</sub>O<sub>3</sub>",
        "Fe2O3\u200b",
        "\ufeffFe2O3",
    ],
)
def test_pasted_subscripts_are_amounts(formula):
    assert parse_formula(formula) == HEMATITE


def test_pasted_decimals_and_large_amounts_are_whole():
    assert parse_formula("LiNi_0.8Co_0.2O_2") == {"Li": 1, "Ni": 0.8, "Co": 0.2, "O": 2}
    assert parse_formula("Fe₀.₅O") == {"Fe": 0.5, "O": 1}
    assert parse_formula("C_60") == parse_formula("C₆₀") == {"C": 60}
    assert parse_formula(r"CuSO$_4\cdot 5$H$_2$O") == COPPER_SULFATE


@pytest.mark.parametrize(
    "formula",
    [
        "Na2CO3.1H2O",
        "LiCoO1.9H2O",
        "SrFeO2.98H2O",
        "Na0.3CoO2.1.3H2O",
        "Al2O3.2SiO2",
        "CaO.2Al2O3",
        "CaCO3.3MgCO3",
        "Cd0·5Zn0·5S",
        "Fe1·5O",
        "Sn2·5Sb",
    ],
)
def test_a_point_with_two_readings_is_refused_by_name(formula):
    with pytest.raises(InvalidFormula) as refused:
        parse_formula(formula)
    assert refused.value.args[0] == "a point with two readings"


@pytest.mark.parametrize(
    ("formula", "detail"),
    [
        ("Si02", "begins with 0"),
        ("Fe203.00Al05", "begins with 0"),
        ("Fe(II)O", "oxidation state"),
        ("Cu(I)O", "oxidation state"),
        ("Cu(I)2O", "oxidation state"),
        ("Hg(I)2Cl2", "oxidation state"),
        ("Ce(IV)O2", "oxidation state"),
        ("TiO2(B)", "name of a phase"),
        ("ZnS(W)", "name of a phase"),
        ("NaCl(S)", "name of a phase"),
        ("Fe3O4@SiO2", "core and shell"),
        ("SiO2@C", "core and shell"),
        ("Al 6061", "alloy"),
        ("Ti 64", "alloy"),
        ("SS 316", "alloy"),
        ("SiO2·nH2O", "not stated"),
        ("CuSO4·", "not stated"),
        ("Fe_2_3", ""),
        ("Fe³⁺O", ""),
        ("YBa2Cu3O6·9", ""),
    ],
)
def test_notation_that_is_no_composition_is_refused(formula, detail):
    with pytest.raises(InvalidFormula) as refused:
        parse_formula(formula)
    assert refused.value.args[0] == "formula not readable"
    assert detail in refused.value.args[1]


def test_heavy_water_of_crystallisation_is_an_isotope():
    with pytest.raises(InvalidFormula) as refused:
        parse_formula("CuSO4.5D2O")
    assert refused.value.args[0] == "isotope, not an element"


@pytest.mark.parametrize(
    "formula",
    [
        "Hg0.7Cd0.3Te",
        "LaMnO3.05",
        "Fe.5O",
        "(CaO).5(MgO).5",
        "CdS0.5CdTe0.5",
        "CdS.8Se.2",
        "TiO1.5VO2",
        "Fe0.5H2O",
        "Bi2Te2.7Se0.3",
        "Fe0.620C0.000953Mn0.000521Si0.00102Cr0.000110Ni0.192",
        "Fe(O1e-05)2",
        "Ag(IO3)",
        "Pb(I)2",
        "CsPb(I)3",
        "Fe2.O3",
    ],
)
def test_decimals_stay_decimals(formula):
    by_pymatgen = Composition(formula, strict=True)
    assert parse_formula(formula) == {e.symbol: n for e, n in by_pymatgen.items()}


def test_a_hydrate_has_the_features_and_the_name_of_its_atoms():
    assert reduced_formula(parse_formula("CuSO4.5H2O")) == "CuH10O9S"
    pasted, plain = featurize(["CuSO4.5H2O", "CuSO4(H2O)5"], "elements").to_numpy()
    assert (pasted == plain).all()


@pytest.mark.parametrize(
    "formula",
    [
        "CaCO3 II",
        "Fe II",
        "Sn IV O2",
        "SiC 4H",
        "C 2H",
        "Fe2O3 P1",
        "NaCl B1",
        "Mn3O4 (P6)",
        "Fe2O3 2",
        "Fe2 3",
        "Fe2O3_2",
        "Fe_2O_3_1",
        "UNKNOWN",
    ],
)
def test_names_of_phases_and_numbers_of_entries_are_no_elements_and_no_amounts(formula):
    with pytest.raises(InvalidFormula) as refused:
        parse_formula(formula)
    assert refused.value.args[0] == "formula not readable"


@pytest.mark.parametrize(
    ("formula", "amounts"),
    [
        ("Fe2 O3", HEMATITE),
        ("Fe 2 O 3", HEMATITE),
        (" Fe2O3 ", HEMATITE),
        ("Fe1 I2", {"Fe": 1, "I": 2}),
        ("Ti Al V", {"Ti": 1, "Al": 1, "V": 1}),
        ("CuSO4 (H2O)5", COPPER_SULFATE),
        ("[Co (N H3)6] Cl3", {"Co": 1, "N": 6, "H": 18, "Cl": 3}),
        ("TiO_2", {"Ti": 1, "O": 2}),
    ],
)
def test_blanks_between_elements_and_groups_do_not_matter(formula, amounts):
    assert parse_formula(formula) == amounts
