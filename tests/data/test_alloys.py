"""Computed alloys against matminer's own featurizers."""

import numpy as np
import pytest
from matminer.featurizers.composition.alloy import WenAlloys
from pymatgen.core import Composition

from irnet_hpc.data import alloys


def test_alloys_agree_with_matminers_featurizer():
    table = alloys.compute_alloys(120)
    featurizer = WenAlloys()
    place = {label: column for column, label in enumerate(featurizer.feature_labels())}
    kj_per_mol = table.targets["mixing_enthalpy"] * 96.48533212
    for row, formula in enumerate(table.formula):
        features = featurizer.featurize(Composition(formula))
        # matminer gives the absolute value, and at least 1e-6.
        assert abs(kj_per_mol[row]) == pytest.approx(
            features[place["Mixing enthalpy"]], rel=1e-9, abs=1e-6
        )
        assert table.targets["size_mismatch"][row] == pytest.approx(
            100 * features[place["Yang delta"]], rel=1e-9
        )


def test_equimolar_CoCrNi_mixes_at_minus_4_89_kJ_per_mol():
    # Co-Cr -4, Co-Ni 0, Cr-Ni -7 kJ/mol: 4 × -11 / 9 (Takeuchi and Inoue 2005). Radii 125, 130, 126
    # pm, mean 127.
    elements, enthalpy, radius = alloys.element_data()
    fractions = np.array([[1 / 3 if symbol in ("Co", "Cr", "Ni") else 0 for symbol in elements]])
    assert alloys.mixing_enthalpy(fractions, enthalpy) == pytest.approx(-44 / 9 / 96.48533212)
    assert alloys.size_mismatch(fractions, radius) == pytest.approx(
        100 * np.sqrt((4 + 9 + 1) / 3) / 127
    )


def test_alloys_are_different_have_3_to_5_elements_and_fewer_are_the_first_of_more():
    table = alloys.compute_alloys(2000)
    amounts = [Composition(formula).as_dict() for formula in table.formula]
    assert all(sum(parts.values()) == 100 and min(parts.values()) >= 1 for parts in amounts)
    assert {len(parts) for parts in amounts} == {3, 4, 5}
    assert len({tuple(sorted(parts.items())) for parts in amounts}) == 2000
    assert alloys.compute_alloys(20).formula == table.formula[:20]
    assert table.formula[0] == "Hg2Mn65N5Rb26Tm2"  # the same on every machine
