"""Magpie's features against matminer's own featurizers."""

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
from matminer.featurizers.base import MultipleFeaturizer
from matminer.featurizers.composition import (
    ElementProperty,
    IonProperty,
    Stoichiometry,
    ValenceOrbital,
)
from pymatgen.core import Composition

from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.features import magpie
from irnet_hpc.features import sets as features

WRITTEN = """
    Fe2O3 O3Fe2 Fe3O4 Ag(AuS)2 NaN NaCl U H2O Ac2AgIr K2NaNb2Fe7Si8H4O31 Gd2Ti2O7
    [Co(NH3)6]Cl3 Ag0.5Ge1Pb1.75S4
    LaCePrNdSmEuGdTbO12 AlCoCrFeNi PuO2 XeF6 C60 CsHg Ba0.33K0.67 Hg2Mn65N5Rb26Tm2 YBa2Cu3O6.93
"""
FORMULAS = WRITTEN.split()


def materials(formulas: list[str], columns: dict[str, list[float]] | None = None) -> Materials:
    columns = {name: np.array(values, float) for name, values in (columns or {}).items()}
    found, rejected = parse_materials(formula_table(formulas, columns))
    assert not rejected
    return found


def test_magpie_is_matminers_145_columns():
    ward = MultipleFeaturizer(
        [
            Stoichiometry(),
            ElementProperty.from_preset("magpie"),
            ValenceOrbital(props=["avg"]),
            IonProperty(fast=True),
        ]
    )
    expected = np.array([ward.featurize(Composition(formula)) for formula in FORMULAS], float)
    found = features.describe(["magpie"], materials(FORMULAS)).x
    assert found.shape == (len(FORMULAS), 145)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert features.feature_labels(["magpie"], materials(FORMULAS)) == ward.feature_labels()


OF_INTEREST = """
    He Ne Ar Kr Xe Rn
    Sc Y La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu
    Li Na K Mg Ca Sr Ba Al Fe Cu Sn Mn Ti C N P O S Se F Cl I H
"""
NOBLE, RARE, IONS = (symbols.split() for symbols in OF_INTEREST.strip().splitlines())


def generated(n_each: int) -> list[str]:
    """Formulas of every kind that a table may hold, and of some that none does."""
    draw = random.Random(0)

    def made_of(symbols: list[str], least: int, most: int, amount: Callable[[], float]) -> str:
        return "".join(
            f"{symbol}{amount()}" for symbol in draw.sample(symbols, draw.randint(least, most))
        )

    kinds = {
        "whole": lambda: made_of(SYMBOLS, 1, 7, lambda: draw.randint(1, 12)),
        "many": lambda: made_of(SYMBOLS, 8, 14, lambda: draw.randint(1, 5)),
        "twentieths": lambda: made_of(SYMBOLS, 1, 7, lambda: draw.randint(1, 40) / 20),
        "ragged": lambda: made_of(SYMBOLS, 1, 7, lambda: round(draw.uniform(0.001, 3), 4)),
        "tied": lambda: made_of(SYMBOLS, 2, 5, lambda: draw.choice([2, 2, 3])),
        "nearly tied": lambda: made_of(SYMBOLS, 2, 5, lambda: draw.choice([1, 1.000001, 1.00002])),
        "ionic": lambda: made_of(IONS, 2, 6, lambda: draw.randint(1, 6)),
        "ionic halves": lambda: made_of(IONS, 2, 5, lambda: draw.randint(1, 12) / 2),
        "rare earths": lambda: (
            made_of(RARE, 1, 4, lambda: draw.randint(1, 4)) + f"O{draw.randint(1, 12)}"
        ),
        "noble gases": lambda: (
            made_of(NOBLE, 1, 2, lambda: draw.randint(1, 3)) + made_of(RARE + IONS, 0, 3, lambda: 1)
        ),
        "brackets": lambda: (
            made_of(RARE, 1, 2, lambda: draw.choice(["", 2]))
            + f"({made_of(IONS, 1, 3, lambda: draw.choice(['', 3, 0.5]))})"
            + f"{draw.choice(['', 2, 1.5])}"
        ),
        "dilute": lambda: (
            made_of(RARE, 1, 2, lambda: 1)
            + made_of(IONS, 1, 2, lambda: draw.choice([1e-3, 0.00005, 4000]))
        ),
    }
    made = [make() for make in kinds.values() for _ in range(n_each)]
    # A last "(B)" without an amount may name a phase, as in TiO2(B), and is refused.
    return SYMBOLS + [re.sub(r"\(([A-Z][a-z]?)\)$", r"(\1)2", formula) for formula in made]


def agree(formulas: list[str]) -> np.ndarray:
    """Whether every column of `magpie` is matminer's; returns that of `compound possible`."""
    found = magpie.matrix(one := materials(formulas))
    expected = magpie.row_by_row(one)
    wrong = ~np.isclose(found, expected, rtol=1e-5, atol=1e-6)
    assert [(formulas[row], magpie.LABELS[column]) for row, column in np.argwhere(wrong)[:5]] == []
    return found[:, magpie.LABELS.index("compound possible")]


def test_magpie_agrees_with_matminer_on_generated_formulas():
    formulas = generated(180)
    assert len(formulas) == 118 + 12 * 180
    assert 0.1 < agree(formulas).mean() < 0.9


@pytest.mark.slow
def test_magpie_agrees_with_matminer_on_real_formulas(real_formulas):
    agree(random.Random(0).sample(real_formulas, 1500))


def test_magpie_leaves_to_matminer_what_rounding_or_size_makes_unsure(monkeypatch):
    asked = []
    one_by_one = magpie.row_by_row
    monkeypatch.setattr(
        magpie, "row_by_row", lambda some: asked.extend(some.formula) or one_by_one(some)
    )
    formulas = [
        "Fe2O3",
        "NaCl",
        "Na12345678.1Cl12345678.1",
        "Na12345678.1Cl3.7",
        "Fe20000000O30000000",
        "CSi3N2S",
        "CCl4",
    ]
    found = magpie.matrix(materials(formulas))
    assert asked == ["Na12345678.1Cl12345678.1", "Fe20000000O30000000"]
    np.testing.assert_array_equal(found, one_by_one(materials(formulas)))
    asked.clear()
    monkeypatch.setattr(magpie, "MAX_WAYS", 100)  # of which CSi3N2S has 9 × 2 × 3 × 4, CCl4 9 × 5
    np.testing.assert_array_equal(magpie.matrix(materials(formulas[5:])), found[5:])
    assert asked == ["CSi3N2S"]


def test_a_few_magpie_features_worked_out_by_hand():
    def feature(formula: str, label: str) -> float:
        return magpie.matrix(materials([formula]))[0, magpie.LABELS.index(label)]

    assert feature("NaCl", "MagpieData mode Number") == 11  # of elements that tie, the smaller
    assert feature("Na1Cl1.000001", "MagpieData mode Number") == 11
    assert feature("Na1Cl1.1", "MagpieData mode Number") == 17
    assert feature("NaCl", "MagpieData avg_dev Number") == 3
    assert feature("Al2O3", "compound possible") == 1
    assert feature("Fe3O4", "compound possible") == 0  # one state an element: no mixed valence
    assert feature("NaAr", "compound possible") == 0  # argon has no oxidation state
    assert feature("Ar", "compound possible") == 1  # matminer calls every element possible
    assert feature("NaCl", "max ionic char") == pytest.approx(1 - np.exp(-((3.16 - 0.93) ** 2) / 4))
    assert feature("NaCl", "avg ionic char") == pytest.approx(
        (1 - np.exp(-((3.16 - 0.93) ** 2) / 4)) / 4
    )


def test_noble_gases_and_the_heaviest_elements_have_pymatgens_oxidation_states():
    tables = magpie.tables()
    n_states = {symbol: int(tables.n_states[SYMBOLS.index(symbol) + 1]) for symbol in SYMBOLS}
    without = [symbol for symbol, n in n_states.items() if n == 0]
    assert without[:4] == ["He", "Ne", "Ar", "Rn"]
    assert without[4:] == list(SYMBOLS[SYMBOLS.index("Db") :])  # to Og, the last
    xenon = SYMBOLS.index("Xe") + 1
    assert tables.states[xenon, : n_states["Xe"]].tolist() == [2, 4, 6]
    assert (n_states["Kr"], n_states["Rf"]) == (1, 1)
