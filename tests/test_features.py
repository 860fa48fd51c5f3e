"""Feature sets against matminer's own featurizers, and against numbers worked out by hand."""

import itertools

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
from pymatgen.core import Composition

from irnet_hpc import features, pack
from irnet_hpc.errors import UserError
from irnet_hpc.features import ELEMENTS, FEATURE_SETS
from irnet_hpc.materials import Materials, parse
from irnet_hpc.store import open_pack

WRITTEN = """
    Fe2O3 O3Fe2 Fe3O4 Ag(AuS)2 NaN NaCl U H2O Ac2AgIr K2NaNb2Fe7Si8H4O31 Gd2Ti2O7 [Co(NH3)6]Cl3 Ag0.5Ge1Pb1.75S4
    LaCePrNdSmEuGdTbO12 AlCoCrFeNi PuO2 XeF6 C60 CsHg Ba0.33K0.67 Hg2Mn65N5Rb26Tm2 YBa2Cu3O6.93
"""
FORMULAS = WRITTEN.split()


def materials(formulas: list[str], columns: dict[str, list[float]] | None = None) -> Materials:
    ids = [str(row) for row in range(len(formulas))]
    columns = {name: np.array(values, float) for name, values in (columns or {}).items()}
    found, rejected = parse(np.arange(len(formulas)), ids, formulas, None, columns, {})
    assert not rejected
    return found


def test_magpie_is_matminers_145_columns():
    ward = MultipleFeaturizer(
        [Stoichiometry(), ElementProperty.from_preset("magpie"), ValenceOrbital(props=["avg"]), IonProperty(fast=True)]
    )
    expected = np.array([ward.featurize(Composition(formula)) for formula in FORMULAS], float)
    found = features.matrix(["magpie"], materials(FORMULAS))
    assert found.shape == (len(FORMULAS), 145)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert features.labels(["magpie"], materials(FORMULAS)) == ward.feature_labels()


def test_elements_are_matminers_fractions_of_86_elements():
    formulas = [formula for formula in FORMULAS if "Xe" not in formula] + ["XeF6"]
    expected = np.array([ElementFraction().featurize(Composition(formula)) for formula in formulas])
    found = features.matrix(["elements"], materials(formulas))
    assert found.shape == (len(formulas), 86)
    places = [number - 1 for number in ELEMENTS.values()]
    np.testing.assert_allclose(found, expected[:, places], atol=1e-7)
    labels = ElementFraction().feature_labels()
    assert features.labels(["elements"], materials(formulas)) == [labels[place] for place in places]


def test_worked_out_by_hand():
    x = features.matrix(["elements"], materials(["Fe2O3"]))[0]
    labels = list(ELEMENTS)
    assert x[labels.index("Fe")] == pytest.approx(0.4)
    assert x[labels.index("O")] == pytest.approx(0.6)
    assert x.sum() == pytest.approx(1)
    found = dict(
        zip(
            features.labels(["magpie"], materials(["Fe2O3"])),
            features.matrix(["magpie"], materials(["Fe2O3"]))[0],
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
    assert set(range(1, 95)) - set(ELEMENTS.values()) == {2, 10, 18, 84, 85, 86, 87, 88}  # He Ne Ar Po At Rn Fr Ra
    assert features.unknown_elements(["magpie", "elements"], materials(["FeO", "HeNe2O", "AmO2"])) == {
        1: "He, Ne",
        2: "Am",
    }
    assert features.unknown_elements(["magpie"], materials(["HeNe2O"])) == {}


def test_a_sum_stands_side_by_side():
    found = materials(["FeO", "MgO"], {"temperature": [300, 350], "pressure": [1, 2]})
    x = features.matrix(features.parse("elements+columns"), found)
    assert x.shape == (2, 88)
    assert x[:, 86:].tolist() == [[300, 1], [350, 2]]
    assert features.labels(["elements", "columns"], found)[86:] == ["temperature", "pressure"]
    with pytest.raises(UserError, match="feature labels must differ, however: Fe stands twice"):
        features.labels(["elements", "columns"], materials(["FeO"], {"Fe": [1]}))


def test_wrong_sums_are_one_sentence():
    with pytest.raises(
        UserError, match=r"unknown feature set 'magpi' \(did you mean 'magpie'\?\); known: columns, elements, magpie"
    ):
        features.parse("magpi")
    with pytest.raises(UserError, match="may stand once in a sum, however: 'magpie\\+magpie'"):
        features.parse("magpie+magpie")
    with pytest.raises(UserError, match="unknown feature set ''"):
        features.parse("magpie+")
    with pytest.raises(UserError, match="feature set 'columns' is the table's own numeric columns, but it has none"):
        features.labels(["columns"], materials(["FeO"]))


def test_blocks_come_in_order_and_are_the_same_for_any_number_of_workers(monkeypatch):
    monkeypatch.setattr(features, "BLOCK_ROWS", 7)
    found = materials([f"{a}{i}{b}" for a, b in itertools.pairwise(ELEMENTS) for i in (1, 2)])
    one = list(features.blocks(["elements"], found, workers=1))
    two = list(features.blocks(["elements"], found, workers=2))
    assert [len(block) for block in one] == [7] * 24 + [2]
    np.testing.assert_array_equal(np.concatenate(one), features.matrix(["elements"], found))
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(two))


def test_the_version_of_a_feature_set_enters_a_packs_identity(alloys_pack, monkeypatch):
    with open_pack(alloys_pack) as found:
        assert found.identity["feature_versions"] == {"elements": FEATURE_SETS["elements"].version}
    options = f"--source alloys --rows 600 --features elements --name alloys-small --pack-dir {alloys_pack.parent}"
    arguments = pack.parser().parse_args(options.split())
    before = alloys_pack.read_bytes()
    pack.pack(arguments)  # it is there, and nothing is done
    monkeypatch.setitem(FEATURE_SETS, "elements", FEATURE_SETS["elements"]._replace(version=99))
    with pytest.raises(UserError, match=r"is another pack \(its feature_versions differ\)"):
        pack.pack(arguments)
    assert alloys_pack.read_bytes() == before
