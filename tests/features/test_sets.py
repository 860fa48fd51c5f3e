"""Feature sets against matminer's own featurizers, and against numbers worked out by hand."""

import itertools
import json
import random
from collections.abc import Callable

import numpy as np
import pytest
from matminer.featurizers.base import MultipleFeaturizer
from matminer.featurizers.composition import (
    ElementFraction,
    ElementProperty,
    IonProperty,
    Stoichiometry,
    ValenceOrbital,
)
from matminer.utils.data import MagpieData
from pymatgen.core import Composition, Element

from irnet_hpc.console import ExitStatus
from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.errors import UserError
from irnet_hpc.features import magpie
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import ELEMENTS, FEATURE_SETS
from irnet_hpc.pack.pipeline import PackOptions, pack_source
from irnet_hpc.pack.store import open_pack
from tests.test_layout import run_without

WRITTEN = """
    Fe2O3 O3Fe2 Fe3O4 Ag(AuS)2 NaN NaCl U H2O Ac2AgIr K2NaNb2Fe7Si8H4O31 Gd2Ti2O7 [Co(NH3)6]Cl3 Ag0.5Ge1Pb1.75S4
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


def test_ordered_is_each_element_by_amount_then_electronegativity_with_its_magpie_properties():
    """By hand: in SrTiO3 oxygen comes first; strontium (0.95) is less electronegative than titanium (1.54)."""
    x = features.describe(
        ["ordered"], materials(["SrTiO3", "O3TiSr", "NaCl", "Ti0.5Sr0.5O1.5", "LaCePrNdO8"])
    ).x
    labels = features.feature_labels(["ordered"], materials(["NaCl"]))
    assert x.shape == (5, 92) and len(labels) == 92

    def column(name: str, place: int) -> np.ndarray:
        return x[:, labels.index(f"{name} of element {place}")]

    assert list(column("Number", 1)) == [8, 8, 11, 8, 8]
    assert list(column("Number", 2)[:4]) == [38, 38, 17, 38] and list(column("Number", 3)[:2]) == [
        22,
        22,
    ]
    np.testing.assert_allclose(column("fraction", 1), [0.6, 0.6, 0.5, 0.6, 8 / 12], rtol=1e-6)
    assert (x[0] == x[1]).all() and np.allclose(x[0], x[3])
    assert list(column("fraction", 4)) == [
        0,
        0,
        0,
        0,
        np.float32(1 / 12),
    ]  # the fifth element of the last is left out
    magpie_data = MagpieData()
    for name in ("AtomicWeight", "GSvolume_pa", "NdUnfilled"):
        assert column(name, 3)[0] == np.float32(
            magpie_data.get_elemental_property(Element("Ti"), name)
        )
        mean = np.mean(
            [magpie_data.get_elemental_property(Element(symbol), name) for symbol in ELEMENTS]
        )
        assert column(name, 3)[2] == pytest.approx(mean, rel=1e-6)  # sodium chloride has no third


def test_classes_say_which_element_has_about_which_fraction():
    """By hand: SrTiO3 is 3/5 oxygen, which is in 0.55 to 0.7, and 1/5 of each of the others, in 0.17 to 0.22."""
    found = materials(["SrTiO3", "O3TiSr", "NaCl", "H17Cl3"])  # 0.85 and 0.15
    x, labels = features.describe(["classes"], found).x, features.feature_labels(["classes"], found)
    assert x.shape == (4, 8 * 90) and set(np.unique(x)) == {0, 1}
    said = [{labels[column] for column in np.flatnonzero(row)} for row in x]
    strontium_titanate = {"O in 0.55 to 0.7", "Sr in 0.17 to 0.22", "Ti in 0.17 to 0.22"}
    strontium_titanate |= {
        "element 1 in 0.55 to 0.7",
        "element 2 in 0.17 to 0.22",
        "element 3 in 0.17 to 0.22",
    }
    assert said[0] == said[1] == strontium_titanate
    pairs = {f"{thing} in 0.45 to 0.55" for thing in ("Na", "Cl", "element 1", "element 2")}
    assert said[2] == pairs
    assert said[3] == {
        "H in 0.7 to 1",
        "Cl in 0 to 0.17",
        "element 1 in 0.7 to 1",
        "element 2 in 0 to 0.17",
    }


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
            + f"({made_of(IONS, 1, 3, lambda: draw.choice(['', 3, 0.5]))}){draw.choice(['', 2, 1.5])}"
        ),
        "dilute": lambda: (
            made_of(RARE, 1, 2, lambda: 1)
            + made_of(IONS, 1, 2, lambda: draw.choice([1e-3, 0.00005, 4000]))
        ),
    }
    return SYMBOLS + [make() for make in kinds.values() for _ in range(n_each)]


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


def test_elements_are_matminers_fractions_of_86_elements():
    formulas = [formula for formula in FORMULAS if "Xe" not in formula] + ["XeF6"]
    expected = np.array([ElementFraction().featurize(Composition(formula)) for formula in formulas])
    found = features.describe(["elements"], materials(formulas)).x
    assert found.shape == (len(formulas), 86)
    places = [number - 1 for number in ELEMENTS.values()]
    np.testing.assert_allclose(found, expected[:, places], atol=1e-7)
    labels = ElementFraction().feature_labels()
    assert features.feature_labels(["elements"], materials(formulas)) == [
        labels[place] for place in places
    ]


def test_worked_out_by_hand():
    x = features.describe(["elements"], materials(["Fe2O3"])).x[0]
    labels = list(ELEMENTS)
    assert x[labels.index("Fe")] == pytest.approx(0.4)
    assert x[labels.index("O")] == pytest.approx(0.6)
    assert x.sum() == pytest.approx(1)
    found = dict(
        zip(
            features.feature_labels(["magpie"], materials(["Fe2O3"])),
            features.describe(["magpie"], materials(["Fe2O3"])).x[0],
            strict=True,
        )
    )
    assert found["0-norm"] == 2
    assert found["2-norm"] == pytest.approx(np.hypot(0.4, 0.6))
    assert found["MagpieData mean Number"] == pytest.approx(0.4 * 26 + 0.6 * 8)
    assert found["MagpieData range Number"] == 18
    assert found["compound possible"] == 1


def test_the_86_elements_leave_out_eight():
    assert len(ELEMENTS) == 86
    assert set(range(1, 95)) - set(ELEMENTS.values()) == {
        2,
        10,
        18,
        84,
        85,
        86,
        87,
        88,
    }  # He Ne Ar Po At Rn Fr Ra
    assert features.unknown_elements(
        ["magpie", "elements"], materials(["FeO", "HeNe2O", "AmO2"])
    ) == {
        1: "He, Ne",
        2: "Am",
    }
    assert features.unknown_elements(["magpie"], materials(["HeNe2O"])) == {}


def test_a_sum_stands_side_by_side():
    found = materials(["FeO", "MgO"], {"temperature": [300, 350], "pressure": [1, 2]})
    x = features.describe(features.parse_feature_sets("elements+columns"), found).x
    assert x.shape == (2, 88)
    assert x[:, 86:].tolist() == [[300, 1], [350, 2]]
    assert features.feature_labels(["elements", "columns"], found)[86:] == [
        "temperature",
        "pressure",
    ]
    with pytest.raises(UserError, match="feature labels must differ, got Fe twice"):
        features.feature_labels(["elements", "columns"], materials(["FeO"], {"Fe": [1]}))


def test_wrong_sums_are_one_sentence():
    with pytest.raises(
        UserError,
        match=r"unknown feature set 'magpi' \(did you mean 'magpie'\?\); known: asph, classes, columns, elements, magpie",
    ):
        features.parse_feature_sets("magpi")
    with pytest.raises(UserError, match="may stand once in a sum, got 'magpie\\+magpie'"):
        features.parse_feature_sets("magpie+magpie")
    with pytest.raises(UserError, match="unknown feature set ''"):
        features.parse_feature_sets("magpie+")
    with pytest.raises(
        UserError, match="feature set 'columns' is the table's own numeric columns, but it has none"
    ):
        features.feature_labels(["columns"], materials(["FeO"]))


def test_blocks_come_in_order_and_are_the_same_for_any_number_of_workers():
    found = materials([f"{a}{i}{b}" for a, b in itertools.pairwise(ELEMENTS) for i in (1, 2)])
    batches = [found.take(np.arange(start, min(start + 7, 170))) for start in range(0, 170, 7)]
    one = [block.x for block in features.describe_batches(["elements"], batches, workers=1)]
    two = [block.x for block in features.describe_batches(["elements"], batches, workers=2)]
    assert [len(block) for block in one] == [7] * 24 + [2]
    np.testing.assert_array_equal(np.concatenate(one), features.describe(["elements"], found).x)
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(two))


def test_the_version_of_a_feature_set_enters_a_packs_identity(alloys_pack, monkeypatch):
    with open_pack(alloys_pack) as found:
        assert found.identity["feature_versions"] == {"elements": FEATURE_SETS["elements"].version}
    options = PackOptions(
        "alloys", "elements", name="alloys-small", rows=600, pack_dir=alloys_pack.parent
    )
    before = alloys_pack.read_bytes()
    assert pack_source(options) == alloys_pack  # it is there, and nothing is done
    monkeypatch.setitem(FEATURE_SETS, "elements", FEATURE_SETS["elements"]._replace(version=99))
    with pytest.raises(UserError, match=r"is another pack \(its feature_versions differ\)"):
        pack_source(options)
    assert alloys_pack.read_bytes() == before


def test_a_block_is_about_three_seconds_of_work_and_never_more_than_1024_rows(monkeypatch):
    monkeypatch.setitem(FEATURE_SETS, "slow", FEATURE_SETS["elements"]._replace(row_s=0.03))
    monkeypatch.setitem(FEATURE_SETS, "slowest", FEATURE_SETS["elements"]._replace(row_s=20))
    rows = {name: features.block_rows([name]) for name in ("slow", "slowest", "magpie", "columns")}
    assert rows == {"slow": 100, "slowest": 1, "magpie": 1024, "columns": 1024}


def test_rows_that_are_left_out_keep_their_place():
    found = materials(["FeO", "MgO", "CaO", "ZnO"])
    all_rows, three = (
        features.describe(["elements"], found),
        features.describe(["elements"], found, {1: ("why", "how")}),
    )
    assert (three.unsuited, three.x.dtype) == ({1: ("why", "how")}, np.float32)
    np.testing.assert_array_equal(three.x[[0, 2, 3]], all_rows.x[[0, 2, 3]])
    assert np.isnan(three.x[1]).all()


def test_processes_are_started_only_for_work_that_is_longer_than_their_start():
    assert features.worthwhile_workers(["magpie"], 300_000, 8) == 1
    assert features.worthwhile_workers(["magpie", "elements"], 10**8, 8) == 8
    assert features.worthwhile_workers(["columns"], 10**9, 8) == 1


def test_an_optional_set_without_its_library_says_how_to_install_it(tmp_path):
    entry = {"formula": "Po", "targets": {"band_gap": 1.0}}
    (tmp_path / "t.jsonl").write_text(json.dumps(entry) + "\n")
    options = ("--source", "t.jsonl", "--features", "asph")
    done = run_without({"gudhi"}, "pack", *options, cwd=tmp_path)
    assert done.returncode == ExitStatus.USER_ERROR
    assert "irnet_hpc[homology]" in done.stderr and done.stderr.count("\n") == 1
    assert run_without({"gudhi"}, "pack", "--list", cwd=tmp_path).returncode == ExitStatus.OK
