"""Formulas against pymatgen, and the one name of a composition."""

import random

import numpy as np
import pytest
from pymatgen.core import Composition, Element

from irnet_hpc.data.elements import NUMBER
from irnet_hpc.data.formulas import (
    InvalidFormula,
    parse_by_pymatgen,
    parse_formula,
    parse_simple,
    reduced_formula,
)
from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import RawTable


def materials(
    formulas: list[str], split: list[str] | None = None, **targets: list[float]
) -> Materials:
    line = np.arange(2, len(formulas) + 2)
    ids = [f"id-{number}" for number in line]
    found, rejected = parse_materials(
        RawTable(
            line,
            formulas,
            ids,
            role=split,
            targets={name: np.array(v, float) for name, v in targets.items()},
        )
    )
    assert not rejected
    return found


@pytest.mark.parametrize(
    "spellings",
    [
        ["Fe2O3", "Fe4O6", "O3Fe2", "Fe0.5O0.75", "(Fe2O3)3"],
        ["Ag(AuS)2", "Au2AgS2", "AgAuAuSS"],
        ["NaN", "N1Na1", "N2Na2"],
        ["O2", "O", "O8"],
        ["Ag0.5Ge1Pb1.75S4", "Ag2Ge4Pb7S16"],
        ["Fe0.333333O0.666667", "FeO2", "Fe0.3333O0.6667", "Fe0.333O0.667", "Fe0.33O0.67"],
        ["FeO2", "Fe33.33O66.67", "Fe33.3O66.7", "Fe0.67O1.33"],
    ],
)
def test_every_spelling_of_a_composition_has_one_reduced_formula_and_one_split(spellings):
    reduced = {reduced_formula(parse_formula(spelling)) for spelling in spellings}
    assert len(reduced) == 1
    expected = Composition(spellings[0]).fractional_composition
    found = Composition(reduced.pop()).fractional_composition
    assert found.almost_equals(expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("rounded", "simple"),
    [
        ("Rh0.67Se2", "RhSe3"),
        ("Ba1Ca0.3333O3Ru0.6667", "Ba3CaO9Ru2"),
        ("VC0.88", "C7V8"),
        ("Ti0.17Re0.83", "Re5Ti"),
        ("Cs2.67Te5.33O16", "CsO6Te2"),
        ("Sn0.143Pb0.857Te", "Pb6SnTe7"),
        ("Si0.3333O0.6667", "O2Si"),
        # These are not rounded fractions: tenths, per cents and whole amounts.
        ("Fe0.3O0.7", "Fe3O7"),
        ("Cd0.1Zn0.9S", "CdS10Zn9"),
        ("Ga0.99Zn0.01As", "As100Ga99Zn"),
        ("Cd0.12Te0.88", "Cd3Te22"),
        ("Cd0.08Zn0.92S", "Cd2S25Zn23"),
        ("Fe33O67", "Fe33O67"),
        ("CaMnO2.98", "Ca50Mn50O149"),
        ("Fe0.34O0.66", "Fe17O33"),
    ],
)
def test_decimals_are_the_simplest_fraction_that_their_digits_allow(rounded, simple):
    assert reduced_formula(parse_formula(rounded)) == simple
    assert reduced_formula(parse_formula(simple)) == simple


def test_different_compositions_stay_different():
    formulas = ["FeO", "Fe2O3", "Fe3O4", "Fe0.95O", "Fe0.949O", "CoO", "CO", "NaN", "NaN3"]
    assert len({reduced_formula(parse_formula(formula)) for formula in formulas}) == len(formulas)


@pytest.mark.parametrize("formula", ["Na+Cl-", "Ca2+SO42-", "(NH4)+Cl"])
def test_a_charge_is_refused_in_words_and_not_as_a_failed_conversion(formula):
    with pytest.raises(InvalidFormula) as refused:
        parse_by_pymatgen(formula)
    reason, detail = refused.value.args
    assert reason == "formula not readable"
    assert "charge" in detail and "float" not in detail


@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        ("", "formula is empty"),
        ("  ", "formula is empty"),
        ("Xx2O3", "formula not readable"),
        ("FE2O3", "formula not readable"),
        ("fe2o3", "formula not readable"),
        ("Fe2O3)", "formula not readable"),
        ("Fe1.5.2O", "formula not readable"),
        ("Fe3+2O3", "formula not readable"),
        ("Vac2O", "formula not readable"),
        ("42", "formula not readable"),
        ("Fe-2O3", "negative amount"),
        ("Fe0O2", "amount of zero"),
        ("Fe1e-12O2", "amount of zero"),
        ("D2O", "isotope, not an element"),
        ("LiT", "isotope, not an element"),
    ],
)
def test_what_is_no_composition_is_refused_with_its_reason(formula, reason):
    with pytest.raises(InvalidFormula) as refused:
        parse_formula(formula)
    assert refused.value.args[0] == reason


WRITTEN = """
    Fe O C Co N Na S Cs
    1 2 3 10 007 0.5 1.25 0.0000001
    Uu D Xx 0 .5 1. 1e-9 [ ] { } ( ) e E - + * @ · ² ٣ / . ~ (OH)2 ((O)2N)3 () O2- Fe3+
"""
ELEMENTS, AMOUNTS, ODDITIES = (pieces.split() for pieces in WRITTEN.strip().splitlines())


def same_as_pymatgen(formulas: list[str]) -> int:
    """Count the formulas parsed without pymatgen, and check that pymatgen parses them alike."""
    read = {formula: found for formula in formulas if (found := parse_simple(formula)) is not None}
    wrong = [
        formula
        for formula, found in read.items()
        if list(found.items()) != list(parse_by_pymatgen(formula).items())
    ]
    assert wrong == []
    return len(read)


def test_a_formula_read_without_pymatgen_is_read_as_pymatgen_reads_it():
    assert {element.symbol: element.Z for element in Element} == NUMBER
    draw = random.Random(0)

    def amount() -> str:
        return draw.choice(["", *AMOUNTS])

    def piece() -> str:
        return (
            draw.choice(ODDITIES) if draw.random() < 0.05 else f"{draw.choice(ELEMENTS)}{amount()}"
        )

    formulas = ["".join(piece() for _ in range(draw.randint(1, 6))) for _ in range(10_000)]
    formulas += [f"{piece()}({piece()}{piece()}){amount()}{piece()}" for _ in range(10_000)]
    formulas += [f"(({piece()}){amount()}{piece()}){amount()}" for _ in range(10_000)]
    assert 15_000 < same_as_pymatgen(formulas) < 25_000
    hard = [
        "Ag(AuS)2",
        "Ca((OH)2)0.5",
        "(AuSAu1.1)3Au",
        "Fe(O1e-3)2",
        "(Fe0O)2",
        "(Fe0.000001O)0.00001",
        f"Fe{10**15}(O2)9",
        f"Fe(O{10**15})99",
    ]
    assert (
        same_as_pymatgen(
            [*hard, "Fe" + "9" * 400, "Fe(O" + "9" * 300 + ")" + "9" * 300, "C1C10", "OO2CO"]
        )
        == 6
    )


@pytest.mark.slow
def test_formulas_of_real_tables_are_read_as_pymatgen_reads_them(real_formulas):
    formulas = random.Random(0).sample(real_formulas, min(20_000, len(real_formulas)))
    assert same_as_pymatgen(formulas) > 0.95 * len(formulas)


def test_sodium_nitride_dysprosium_and_thallium_are_compounds():
    assert parse_formula("NaN") == {"Na": 1, "N": 1}
    assert parse_formula("DyTl3") == {"Dy": 1, "Tl": 3}
