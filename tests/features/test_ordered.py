"""Elements in order, and classes of fractions."""

import numpy as np
import pytest
from matminer.utils.data import MagpieData
from pymatgen.core import Element

from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import ELEMENTS


def materials(formulas: list[str], columns: dict[str, list[float]] | None = None) -> Materials:
    columns = {name: np.array(values, float) for name, values in (columns or {}).items()}
    found, rejected = parse_materials(formula_table(formulas, columns))
    assert not rejected
    return found


def test_ordered_is_each_element_by_amount_then_electronegativity():
    """In SrTiO3 oxygen is first; strontium (0.95) is less electronegative than titanium (1.54)."""
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
    """SrTiO3 is 3/5 oxygen, in 0.55 to 0.7, and 1/5 of each of the others, in 0.17 to 0.22."""
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
