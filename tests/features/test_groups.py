"""Groups of features."""

import numpy as np

from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.features.groups import group_of
from irnet_hpc.features.magpie import PROPERTIES
from irnet_hpc.features.sets import FEATURE_SETS

MATERIALS = parse_materials(formula_table(["FeO"]))[0]


def groups(name):
    labels = FEATURE_SETS[name].labels(MATERIALS)
    names, counts = np.unique([group_of(label) for label in labels], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def test_every_feature_of_ours_is_in_a_group_with_others():
    """A new label that no pattern fits would stand alone."""
    for name in FEATURE_SETS.keys() - {"columns"}:
        assert min(groups(name).values()) > 1, (name, groups(name))


def test_statistics_of_a_property_and_its_places_are_one_group():
    magpie = groups("magpie")
    assert {name: magpie.pop(name) for name in PROPERTIES} == dict.fromkeys(PROPERTIES, 6)
    assert magpie == {
        "norms of the fractions": 6,
        "shares of valence electrons": 4,
        "ionic character": 3,
    }
    assert groups("elements") == {"fractions of the elements": 86}
    assert groups("ordered") == dict.fromkeys(PROPERTIES, 4) | {
        "fractions of the elements in order": 4
    }
    assert group_of("sintering temperature") == "sintering temperature"
