"""Features of crystals against numbers by hand, matminer's featurizers, and themselves."""

import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matminer.featurizers.base import MultipleFeaturizer
from matminer.featurizers.structure import (
    ChemicalOrdering,
    MaximumPackingEfficiency,
    SiteStatsFingerprint,
    StructuralHeterogeneity,
)
from pymatgen.core import Structure

from irnet_hpc.data.crystals import Crystal, Unsuitable, stack_crystals
from irnet_hpc.data.elements import NUMBER
from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.features import sets as features
from irnet_hpc.features import structure as ward2017
from irnet_hpc.features import voronoi
from tests.builders import load_table

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
BCC = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2
SKEW = np.array(
    [[1, 0, 0], [37, 1, 0], [-52, 41, 1]]
)  # of determinant 1: another cell of the same lattice
SQUARE = 2 / (
    3 * np.sqrt(3)
)  # a truncated octahedron's square face over its hexagon: e² over e² 3√3/2


def crystal(lattice: np.ndarray | list, sites: str, position: list) -> Crystal:
    return Crystal(
        np.array(lattice, float),
        np.array([NUMBER[symbol] for symbol in sites.split()], np.int16),
        np.array(position, float).reshape(-1, 3),
    )


def hexagonal(a: float, c: float) -> list:
    return [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]]


# Lattice parameters in Å, of Wyckoff's Crystal Structures
CRYSTALS = {
    "NaCl": crystal(5.640 * FCC, "Na Cl", [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "Si": crystal(5.431 * FCC, "Si Si", [[0, 0, 0], [0.25, 0.25, 0.25]]),
    "Mg": crystal(hexagonal(3.209, 5.211), "Mg Mg", [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]),
    "ZnO": crystal(
        hexagonal(3.250, 5.207),
        "Zn Zn O O",
        [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.3825], [2 / 3, 1 / 3, 0.8825]],
    ),
    "SrTiO3": crystal(
        3.905 * np.eye(3),
        "Sr Ti O O O",
        [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    ),
    "a gap in the tables": crystal(4 * np.eye(3), "Og Te", [[0, 0, 0], [0.5] * 3]),
    "triclinic": crystal(
        [[4.1, 0.2, -0.3], [1.1, 5.2, 0.4], [-0.9, 1.3, 6.1]],
        "Cu Cu S Fe O",
        [
            [0.02, 0.11, 0.23],
            [0.48, 0.57, 0.71],
            [0.26, 0.83, 0.44],
            [0.77, 0.31, 0.05],
            [0.61, 0.09, 0.52],
        ],
    ),
}


def named(found: Crystal) -> dict[str, float]:
    return dict(zip(ward2017.LABELS, ward2017.vector(found), strict=True))


@pytest.fixture(scope="module")
def matminers():
    """Compute a crystal's 126 columns by matminer's featurizers, less the two ranges."""
    featurizer = MultipleFeaturizer(
        [
            SiteStatsFingerprint.from_preset("CoordinationNumber_ward-prb-2017"),
            StructuralHeterogeneity(),
            ChemicalOrdering(),
            MaximumPackingEfficiency(),
            SiteStatsFingerprint.from_preset("LocalPropertyDifference_ward-prb-2017"),
        ]
    )
    left_out = ("range CN_VoronoiNN", "range neighbor distance variation")
    kept = [
        place for place, label in enumerate(featurizer.feature_labels()) if label not in left_out
    ]
    assert len(featurizer.feature_labels()) == 128
    assert [featurizer.feature_labels()[place] for place in kept] == ward2017.LABELS

    def of(found: Crystal) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Coordinates outside of [0, 1) pymatgen's VoronoiNN takes wrongly: docs/structures.md.
            return np.array(
                featurizer.featurize(Structure(found.lattice, found.number, found.position % 1))
            )[kept]

    return of


@pytest.mark.parametrize("name", CRYSTALS)
def test_every_column_is_matminers(name, matminers):
    found, expected = ward2017.vector(CRYSTALS[name]), matminers(CRYSTALS[name])
    assert found.shape == (126,)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
def test_every_column_is_matminers_on_real_structures(matminers):
    path = Path(os.environ.get("IRNET_DATA", "")) / "mp_structures.jsonl.xz"
    if not (os.environ.get("IRNET_DATA") and path.exists()):
        pytest.skip("needs mp_structures.jsonl.xz in $IRNET_DATA")
    crystals = load_table(str(path), structures=True).table.crystals
    rows = random.Random(126).sample(
        [int(row) for row in np.flatnonzero(crystals.n_sites <= 24)], 24
    )
    for row in rows:
        np.testing.assert_allclose(
            ward2017.vector(crystals[row]), matminers(crystals[row]), rtol=1e-4, atol=1e-5
        )


def test_simple_cubic_is_six_squares():
    cells = voronoi.tessellate(crystal(3 * np.eye(3), "Po", [0.4, 0.1, 0.9]))
    np.testing.assert_allclose(cells.volume, 27)
    np.testing.assert_allclose(
        cells.area, 6 * [9]
    )  # and no faces of the twelve that only share an edge
    np.testing.assert_allclose(cells.distance, 6 * [3])
    assert {tuple(np.rint(image @ cells.lattice)) for image in cells.image} == {
        tuple(sign * 3 * axis) for axis in np.eye(3) for sign in (1, -1)
    }
    found = named(crystal(3 * np.eye(3), "Po", [0.4, 0.1, 0.9]))
    assert found["mean CN_VoronoiNN"] == pytest.approx(6)
    assert found["max packing efficiency"] == pytest.approx(np.pi / 6)
    assert found["maximum neighbor distance variation"] == pytest.approx(0, abs=1e-12)


def test_fcc_has_twelve_neighbours_and_bcc_eight_and_six():
    found = named(crystal(4 * FCC, "Cu", [0, 0, 0]))
    assert found["mean CN_VoronoiNN"] == pytest.approx(12)
    assert found["max packing efficiency"] == pytest.approx(np.pi * np.sqrt(2) / 6)
    found = named(crystal(3 * BCC, "Fe", [0, 0, 0]))
    assert found["mean CN_VoronoiNN"] == pytest.approx((8 + 6 * SQUARE) ** 2 / (8 + 6 * SQUARE**2))
    assert found["max packing efficiency"] == pytest.approx(np.pi * np.sqrt(3) / 8)
    bond = (8 * np.sqrt(3) / 2 + 6 * SQUARE) / (8 + 6 * SQUARE)  # in lattice parameters
    deviation = (8 * (bond - np.sqrt(3) / 2) + 6 * SQUARE * (1 - bond)) / (8 + 6 * SQUARE)
    assert found["mean neighbor distance variation"] == pytest.approx(deviation / bond)


def test_boxes_of_three_heights():
    """Sites 2, 3 and 5 Å apart in a square lattice of 4 Å: boxes 3.5, 2.5 and 4 Å high."""
    found = named(crystal(np.diag([4, 4, 10]), "C C C", [[0, 0, 0], [0, 0, 0.2], [0, 0, 0.5]]))
    height, up, down = np.array([3.5, 2.5, 4]), np.array([2, 3, 5]), np.array([5, 2, 3])
    sides = 4 * 4 * height
    total = sides + 2 * 16
    coordination = total**2 / (4 * (4 * height) ** 2 + 2 * 16**2)
    bond = (4 * sides + 16 * up + 16 * down) / total
    variation = (sides * abs(4 - bond) + 16 * abs(up - bond) + 16 * abs(down - bond)) / total / bond
    assert found["minimum CN_VoronoiNN"] == pytest.approx(coordination.min())
    assert found["avg_dev CN_VoronoiNN"] == pytest.approx(
        np.abs(coordination - coordination.mean()).mean()
    )
    assert found["max relative bond length"] == pytest.approx(bond.max() / bond.mean())
    assert found["min relative bond length"] == pytest.approx(bond.min() / bond.mean())
    assert found["mean neighbor distance variation"] == pytest.approx(variation.mean())
    assert found["mean absolute deviation in relative cell size"] == pytest.approx(
        np.abs(height - 10 / 3).mean() / (10 / 3)
    )
    assert found["max packing efficiency"] == pytest.approx(4 / 3 * np.pi * (1 + 1 + 1.5**3) / 160)


def test_order_of_rock_salt_is_whole():
    found = named(CRYSTALS["NaCl"])
    assert [
        found[f"mean ordering parameter shell {shell}"] for shell in (1, 2, 3)
    ] == pytest.approx([1, 1, 1])
    assert [
        named(CRYSTALS["Si"])[f"mean ordering parameter shell {shell}"] for shell in (1, 2, 3)
    ] == [0, 0, 0]


def test_order_of_caesium_chloride_counts_every_path():
    """Eight steps of weight 1 to the other element, six of SQUARE to the same, no place twice."""
    found = named(crystal(4.123 * np.eye(3), "Cs Cl", [[0, 0, 0], [0.5] * 3]))
    corners = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    axes = [
        tuple(2 * sign * int(at == axis) for at in range(3))
        for axis in range(3)
        for sign in (-1, 1)
    ]
    steps = dict.fromkeys(corners, 1.0) | dict.fromkeys(axes, SQUARE)
    paths = {((0, 0, 0),): 1.0}
    for shell in (1, 2, 3):
        longer = {}
        for path, weight in paths.items():
            for step, factor in steps.items():
                place = tuple(int(at + by) for at, by in zip(path[-1], step, strict=True))
                if place not in path:
                    longer[(*path, place)] = weight * factor
        paths = longer
        same = sum(weight for path, weight in paths.items() if path[-1][0] % 2 == 0)
        other = sum(paths.values()) - same
        expected = abs(same - other) / (
            same + other
        )  # |1 - 2 x| for either element, both being half of the sites
        assert found[f"mean ordering parameter shell {shell}"] == pytest.approx(expected)
    assert found["mean local difference in Number"] == pytest.approx(
        8 / (8 + 6 * SQUARE) * (55 - 17)
    )


def test_a_layer_in_a_vacuum_is_a_layer_of_columns():
    found = named(
        crystal(np.diag([3, 3, 60]), "C", [0, 0, 0.5])
    )  # four sides of 3 × 60, two ends of 3 × 3
    assert found["mean CN_VoronoiNN"] == pytest.approx(
        (4 * 180 + 2 * 9) ** 2 / (4 * 180**2 + 2 * 9**2)
    )
    found = voronoi.tessellate(
        crystal(np.diag([20, 30, 40]), "H H", [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5 + 0.74 / 40]])
    )
    np.testing.assert_allclose(found.volume, 2 * [20 * 30 * 40 / 2])


@pytest.mark.parametrize("name", ["ZnO", "SrTiO3", "triclinic"])
def test_the_choice_of_cell_origin_order_and_axes_does_not_matter(name):
    lattice, number, position = CRYSTALS[name]
    draw = np.random.default_rng(0)
    turn, _ = np.linalg.qr(
        draw.normal(size=(3, 3))
    )  # of either handedness: a mirror image has the same features
    order = draw.permutation(len(number))
    repeats = np.array([[i, 0, k] for i in range(2) for k in range(3)])
    same = {
        "shifted": Crystal(lattice, number, position + np.array([0.3, -7.9, 0.123])),
        "permuted": Crystal(lattice, number[order], position[order]),
        "turned": Crystal(lattice @ turn, number, position),
        "skewed": Crystal(SKEW @ lattice, number, position @ np.linalg.inv(SKEW)),
        "images": Crystal(lattice, number, position + draw.integers(-3, 4, position.shape)),
        "2 × 1 × 3": Crystal(
            lattice * [[2], [1], [3]],
            np.tile(number, 6),
            ((position + repeats[:, None]) / [2, 1, 3]).reshape(-1, 3),
        ),
    }
    expected = ward2017.vector(CRYSTALS[name])
    for kind, other in same.items():
        np.testing.assert_allclose(
            ward2017.vector(other), expected, rtol=1e-8, atol=1e-8, err_msg=kind
        )


def test_a_face_has_two_sides_and_the_cells_fill_the_lattice():
    lattice, number, _ = CRYSTALS["triclinic"]
    cells = voronoi.tessellate(CRYSTALS["triclinic"])
    assert cells.volume.sum() == pytest.approx(abs(np.linalg.det(lattice)), rel=1e-12)
    found = (cells.site, cells.neighbour, cells.image, cells.area)
    sides = {(s, n, *image): area for s, n, image, area in zip(*found, strict=True)}
    assert len(sides) == len(cells.site)
    for (site, neighbour, *image), area in sides.items():
        assert sides[(neighbour, site, *(-step for step in image))] == pytest.approx(area)
    apart = cells.place[cells.neighbour] + cells.image @ cells.lattice - cells.place[cells.site]
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), cells.distance)
    # A closed surface: the faces' areas along their normals cancel.
    outward = apart / cells.distance[:, None] * cells.area[:, None]
    for site in range(len(number)):
        np.testing.assert_allclose(outward[cells.site == site].sum(0), 0, atol=1e-10)


CUBE = 4 * np.eye(3)
FAR_SKEW = np.array([[1, 0, 0], [3e4, 1, 0], [6e4, -3e4, 1]])
UNFIT = {
    "two sites in one place": (CUBE, [[0, 0, 0], [1, 0, 0]], "sites on one another", "0 Å apart"),
    "two sites that overlap": (
        CUBE,
        [[0, 0, 0], [0.99, 0, 0]],
        "sites on one another",
        "0.04 Å apart",
    ),
    "a lattice shorter than an atom": (
        np.diag([0.1, 4, 4]),
        [0, 0, 0],
        "sites on one another",
        "0.1 Å apart",
    ),
    "a flat lattice": (
        [[1, 0, 0], [0, 1, 0], [1, 1, 0]],
        [0, 0, 0],
        "lattice of no volume",
        "0 Å³",
    ),
    "a lattice of NaN": (
        np.nan * CUBE,
        [0, 0, 0],
        "structure not readable",
        "must be finite and below 1e\\+06",
    ),
    "a position of NaN": (
        CUBE,
        [0, np.nan, 0],
        "structure not readable",
        "must be finite and below 1e\\+06",
    ),
    "a position far out": (CUBE, [0, 1e300, 0], "structure not readable", "below 1e\\+06"),
    "a tower": (
        np.diag([3, 3, 9e5]),
        [0, 0, 0],
        "crystal too large",
        "images of sites to search, more than 1,000,000",
    ),
    "parallel vectors": (
        [[615122.522146, 0, 0], [615122.522146, 1.339945, 0], [454925.130545, 580608.77433, 1e-6]],
        [0, 0, 0],
        "lattice too skewed",
        "parallel to within rounding",
    ),
    "skewed beyond digits": (
        FAR_SKEW @ CUBE / 3,
        [0, 0, 0],
        "lattice too skewed",
        "to within 5e-07 Å",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_has_no_answer_is_named(kind):
    lattice, position, reason, detail = UNFIT[kind]
    sites = " ".join(["Fe"] * (np.size(position) // 3))
    with pytest.raises(Unsuitable) as caught:
        ward2017.vector(crystal(lattice, sites, position))
    assert caught.value.args[0] == reason
    assert caught.match(detail)


def test_work_is_bounded(monkeypatch):
    monkeypatch.setattr(ward2017, "MAX_PATHS", 100)
    with pytest.raises(Unsuitable, match="paths from neighbour to neighbour, more than 100"):
        ward2017.vector(CRYSTALS["ZnO"])
    monkeypatch.setattr(voronoi, "MAX_CANDIDATES", 100)
    with pytest.raises(Unsuitable, match="more than 100 neighbours to try"):
        voronoi.tessellate(CRYSTALS["ZnO"])


def test_a_row_without_a_crystal_is_unsuited_and_the_others_are_not():
    ones = [
        CRYSTALS["NaCl"],
        Unsuitable("disordered site", "Fe 0.5"),
        crystal(CUBE, "Fe Fe", [[0] * 3, [0] * 3]),
    ]
    formulas = ["NaCl", "Fe", "Fe"]
    materials, _ = parse_materials(formula_table(formulas, crystals=stack_crystals(ones)))
    found = features.describe(["magpie", "structure"], materials)
    assert found.x.shape == (3, 145 + 126)
    assert (
        len(features.feature_labels(["magpie", "structure"], materials)) == 271
    )  # no label stands twice
    np.testing.assert_array_equal(
        found.x[0, 145:], ward2017.vector(CRYSTALS["NaCl"]).astype(np.float32)
    )
    assert found.unsuited == {
        1: ("disordered site", "Fe 0.5"),
        2: ("sites on one another", "0 Å apart"),
    }
    bare, _ = parse_materials(formula_table(formulas))
    assert features.describe(["structure"], bare).unsuited == dict.fromkeys(
        range(3), ("no structure", "")
    )


@pytest.mark.parametrize(
    ("name", "library"),
    [("structure", "matminer"), ("structure", "scipy.spatial"), ("asph", "gudhi")],
)
def test_imports_are_not_the_time_of_a_row(name, library):
    pytest.importorskip(library)
    code = f"""
import sys
import numpy as np
from irnet_hpc.features import sets as features
from irnet_hpc.data.crystals import Crystal, stack_crystals
from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.raw_table import formula_table

po = Crystal(3.4 * np.eye(3), np.array([84], np.int16), np.zeros((1, 3)))
materials, _ = parse_materials(formula_table(["Po"], crystals=stack_crystals([po])))
features.at = lambda row: print(row, {library!r} in sys.modules)
features.describe(["{name}"], materials)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["None False", "0 True"]
