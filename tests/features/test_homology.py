"""Persistent homology against numbers by hand, a spanning tree, and the textbook's reduction."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from scipy.spatial.transform import Rotation

from irnet_hpc.data.crystals import Crystal, Unsuitable, stack_crystals
from irnet_hpc.data.elements import NUMBER, SYMBOLS
from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.features import homology
from irnet_hpc.features import sets as features
from irnet_hpc.features.homology import GROUPS, LABELS, balls, barcodes, vector

pytest.importorskip("gudhi", reason="needs the extra [homology]")
D_ROWS = (("Sc", "Zn"), ("Y", "Cd"), ("Hf", "Hg"), ("Rf", "Cn"))
FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def crystal(lattice: float | list, species: str, positions: list) -> Crystal:
    """`lattice` is (3, 3), or the edge of a cube, in Å."""
    number = np.array([NUMBER[symbol] for symbol in species.split()], np.int16)
    lattice = np.eye(3) * lattice if np.isscalar(lattice) else np.array(lattice, float)
    return Crystal(lattice, number, np.array(positions, float).reshape(-1, 3))


def named(of: Crystal) -> dict[str, float]:
    """Return label -> feature, of those that are not 0 but for rounding."""
    found = zip(LABELS, vector(of), strict=True)
    return {label.removeprefix("asph "): x for label, x in found if abs(x) > 1e-12}


def five(group: str, what: str, bars: list[float], total: float) -> dict[str, float]:
    values = [np.mean(bars), np.std(bars), max(bars), min(bars), total]
    found = zip(homology.STATISTICS, values, strict=True)
    return {f"{group} {what} {how}": x for how, x in found if abs(x) > 1e-12}


LOW = crystal(  # triclinic, nothing in it is equivalent
    [[5.1, 0.2, -0.3], [0.9, 6.2, 0.4], [-1.1, 0.7, 7.3]],
    "Ba Ti O O Cl Fe",
    [
        [0.05, 0.1, 0.9],
        [0.5, 0.55, 0.45],
        [0.2, 0.6, 0.15],
        [0.8, 0.35, 0.2],
        [0.6, 0.95, 0.75],
        [0.1, 0.45, 0.6],
    ],
)
HIGH = crystal(  # perovskite, full of equal distances
    3.9, "Sr Ti O O O", [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
)


def test_square_is_one_ring_from_side_to_diagonal():
    ((components, rings, cages),) = barcodes(
        [np.array([[0, 0, 0], [3, 0, 0], [3, 3, 0], [0, 3, 0]], float)]
    )
    np.testing.assert_allclose(components, [[0, 3]] * 3)
    np.testing.assert_allclose(rings, [[3, 3 * math.sqrt(2)]])
    assert cages.shape == (0, 2)


def test_octahedron_is_one_cage_from_edge_to_axis():
    # all edges, 2 √2, and with them all faces, come at once: a sphere, until the axes, 4, fill it
    ((components, rings, cages),) = barcodes([2 * np.vstack([np.eye(3), -np.eye(3)])])
    np.testing.assert_allclose(components, [[0, 2 * math.sqrt(2)]] * 5)
    assert rings.shape == (0, 2)
    np.testing.assert_allclose(cages, [[2 * math.sqrt(2), 4]])


@pytest.mark.parametrize("n_points", [1, 2, 3])
def test_few_points_have_neither_rings_nor_cages(n_points):
    ((components, rings, cages),) = barcodes([np.eye(3)[:n_points] * 3])
    assert components == pytest.approx(
        np.array([[0, 3 * math.sqrt(2)]] * (n_points - 1)).reshape(-1, 2)
    )
    assert rings.shape == cages.shape == (0, 2)


def test_isolated_pair():
    pair = crystal(30, "Na Cl", [[0, 0, 0], [2.5 / 30, 0, 0]])
    # around Na: Na alone, no bar; Na and Cl, which merge at 2.5 Å; around Cl the same
    assert named(pair) == pytest.approx(
        five("all", "Betti-0 death", [2.5, 2.5], 5.0)
        | five("s-metals", "Betti-0 death", [2.5], 2.5)
        | five("halogens", "Betti-0 death", [2.5], 2.5)
        | {"s-metals share": 0.5, "halogens share": 0.5}
    )


def test_lone_atom_has_its_share_and_no_bars():
    assert named(crystal(30, "Fe", [[0, 0, 0]])) == {"d-metals share": 1}


def test_simple_cubic():
    # a = 5: within 8 Å are 6 atoms at a and 12 at √2 a. At a, 6 + 24 edges join 19 atoms: 30 - 19 +
    # 1 = 12 rings, the squares at the centre. At √2 a the centre is linked to every atom, so
    # nothing is left, and there never was a cage.
    a, diagonal = 5.0, 5 * math.sqrt(2)
    expected = {"d-metals share": 1.0}
    for group in ("all", "d-metals"):
        expected |= five(group, "Betti-0 death", [a] * 18, 18 * a)
        expected |= five(group, "Betti-1 birth", [a] * 12, 12 * a)
        expected |= five(group, "Betti-1 death", [diagonal] * 12, 12 * diagonal)
        expected |= five(group, "Betti-1 length", [diagonal - a] * 12, 12 * (diagonal - a))
    assert named(crystal(5, "Fe", [[0, 0, 0]])) == pytest.approx(expected, rel=1e-9)


def test_caesium_chloride_has_a_ball_of_each_pair_of_elements():
    # a = 7, the bond b = √3/2 a = 6.06. Cs and Cs: 6 atoms at a, a star, 6 bars. Cs and Cl: 8 Cl at
    # b besides; at b, 8 + 24 edges join 15 atoms: 14 bars, 32 - 15 + 1 = 18 rings; at a the centre
    # is linked to all. Around Cl the same.
    a, b = 7.0, 7 * math.sqrt(3) / 2
    deaths = [a] * 6 + [b] * 14
    expected = {"s-metals share": 0.5, "halogens share": 0.5}
    for group, n_centres in {"all": 2, "s-metals": 1, "halogens": 1}.items():
        expected |= five(group, "Betti-0 death", deaths * n_centres, sum(deaths) * n_centres)
        expected |= five(group, "Betti-1 birth", [b] * 18, 18 * b * n_centres)
        expected |= five(group, "Betti-1 death", [a] * 18, 18 * a * n_centres)
        expected |= five(group, "Betti-1 length", [a - b] * 18, 18 * (a - b) * n_centres)
    assert named(crystal(7, "Cs Cl", [[0, 0, 0], [0.5, 0.5, 0.5]])) == pytest.approx(
        expected, rel=1e-9
    )


def test_components_merge_along_the_minimum_spanning_tree():
    clouds = [points for _, points in balls(LOW)]
    assert len(clouds) == 6 * 5
    for points, (components, _, _) in zip(clouds, barcodes(clouds), strict=True):
        tree = minimum_spanning_tree(squareform(pdist(points))).data
        np.testing.assert_allclose(np.sort(components[:, 1]), np.sort(tree))


def reduced(points: np.ndarray) -> list[np.ndarray]:
    """Compute sorted bars of Betti 0, 1 and 2 by reducing the boundary matrix over Z/2."""
    distance = squareform(pdist(points))
    simplices = [
        ends for size in (1, 2, 3, 4) for ends in itertools.combinations(range(len(points)), size)
    ]
    born = {
        ends: max((distance[pair] for pair in itertools.combinations(ends, 2)), default=0.0)
        for ends in simplices
    }
    simplices.sort(key=lambda ends: (born[ends], len(ends)))
    place = {ends: i for i, ends in enumerate(simplices)}
    by_lowest: dict[int, set[int]] = {}
    bars: list[list[tuple[float, float]]] = [[], [], []]
    for ends in simplices:
        faces = itertools.combinations(ends, len(ends) - 1) if len(ends) > 1 else ()
        column = {place[face] for face in faces}
        while column and max(column) in by_lowest:
            column ^= by_lowest[max(column)]
        if column:
            by_lowest[max(column)] = column
            birth = born[simplices[max(column)]]
            if len(ends) == 2 or born[ends] - birth > homology.MIN_BAR:
                bars[len(ends) - 2].append((birth, born[ends]))
    return [np.array(sorted(found)).reshape(-1, 2) for found in bars]


@pytest.mark.parametrize("seed", range(3))
def test_bars_are_those_of_the_textbook_reduction(seed):
    sphere = np.random.default_rng(seed).normal(
        size=(14, 3)
    )  # no centre, so that cages come and go
    sphere *= 3.5 / np.linalg.norm(sphere, axis=1, keepdims=True)
    found = [bars[np.lexsort(bars.T[::-1])] for bars in barcodes([sphere])[0]]
    expected = reduced(sphere)
    assert all(len(bars) for bars in expected)
    for ours, textbook in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, textbook)


def turned(of: Crystal) -> Crystal:
    return of._replace(lattice=of.lattice @ Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix())


def mirrored(of: Crystal) -> Crystal:
    return of._replace(lattice=of.lattice * [1, 1, -1])


def moved(of: Crystal) -> Crystal:
    return of._replace(position=of.position + np.array([0.37, -4.21, 11.08]))


def shuffled(of: Crystal) -> Crystal:
    order = np.random.default_rng(0).permutation(len(of.number))
    return of._replace(number=of.number[order], position=of.position[order])


def another_cell(of: Crystal) -> Crystal:
    cell = np.array([[1, 0, 0], [3, 1, 0], [-2, 5, 1]])
    return of._replace(lattice=cell @ of.lattice, position=of.position @ np.linalg.inv(cell))


def supercell(of: Crystal) -> Crystal:
    times = np.array([2, 1, 3])
    cells = np.array(list(itertools.product(*map(range, times))))
    position = ((of.position[:, None] + cells) / times).reshape(-1, 3)
    return Crystal(of.lattice * times[:, None], np.repeat(of.number, len(cells)), position)


@pytest.mark.parametrize("change", [turned, mirrored, moved, shuffled, another_cell, supercell])
@pytest.mark.parametrize("of", [LOW, HIGH], ids=["low", "high"])
def test_features_do_not_depend_on_how_a_crystal_is_written(of, change):
    np.testing.assert_allclose(vector(change(of)), vector(of), rtol=1e-9, atol=1e-6)


def test_atoms_at_the_cutoff_are_within_for_either_rounding():
    # a = 4: 32 atoms within 8 Å, six of them at 8.0
    for a in (4 * (1 - 1e-9), 4.0, 4 * (1 + 1e-9)):
        (found,) = balls(crystal(a, "Fe", [[0, 0, 0]]))
        assert found[0] == NUMBER["Fe"]
        assert found[1].shape == (33, 3)


def test_rounded_coordinates_change_the_features_no_more_than_themselves():
    rounded = HIGH._replace(
        position=HIGH.position + np.random.default_rng(1).uniform(-5e-6, 5e-6, (5, 3))
    )
    sums = np.array([label.endswith("sum") for label in LABELS])
    before, after = vector(HIGH), vector(rounded)
    np.testing.assert_allclose(after[~sums], before[~sums], atol=1e-4)
    np.testing.assert_allclose(after[sums], before[sums], rtol=1e-4)


def test_a_cell_far_from_the_shortest_comes_to_an_end():
    skewed = np.array([[1, 0, 0], [1_000, 1, 0], [-77_777, 313, 1]])
    of = LOW._replace(lattice=skewed @ LOW.lattice, position=LOW.position @ np.linalg.inv(skewed))
    np.testing.assert_allclose(vector(of), vector(LOW), rtol=1e-6, atol=1e-6)


def test_every_element_is_in_one_group():
    assert sorted(itertools.chain(*GROUPS.values())) == list(range(1, len(SYMBOLS) + 1))
    rows = [range(NUMBER[first], NUMBER[last] + 1) for first, last in D_ROWS]
    assert GROUPS["d-metals"] == frozenset(itertools.chain(*rows))


def test_labels_name_each_feature_once():
    assert len(set(LABELS)) == len(LABELS) == 8 * 7 * 5 + 7 == len(vector(LOW))


def test_an_absent_group_is_told_apart_by_its_share():
    found = named(LOW)
    shares = {label: x for label, x in found.items() if label.endswith("share")}
    assert shares == pytest.approx(
        {
            "s-metals share": 1 / 6,
            "d-metals share": 2 / 6,
            "chalcogens share": 2 / 6,
            "halogens share": 1 / 6,
        }
    )
    absent = set(GROUPS) - {label.split()[0] for label in shares}
    assert absent == {"f-metals", "p-metals", "other-nonmetals"}
    assert not [label for label in found if label.split()[0] in absent]


@pytest.mark.parametrize(
    ("reason", "of"),
    {
        "sites on one another": crystal(4, "Na Cl", [[0, 0, 0], [0.999, 0, 1]]),
        "structure not readable": crystal(4, "Na", [[0, math.nan, 0]]),
        "lattice of no volume": crystal([[4, 0, 0], [0, 4, 0], [4, 4, 0]], "Na", [[0, 0, 0]]),
        "too dense": crystal(1.5, "H", [[0, 0, 0]]),
        "crystal too large": crystal(
            np.diag([0.6, 6e4, 6e4]).tolist(), "H " * 1000, np.zeros((1000, 3))
        ),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_answer_is_rejected_by_name(reason, of):
    with pytest.raises(Unsuitable) as error:
        vector(of)
    assert error.value.args[0] == reason
    assert len(error.value.args) == 2


def random_cell(n_sites: int, species: str, edge: float) -> Crystal:
    """Sites on a grid, each a little off, so that none is equivalent to another."""
    side = math.ceil(n_sites ** (1 / 3))
    grid = np.array(list(itertools.product(range(side), repeat=3)))[:n_sites]
    position = (grid + np.random.default_rng(0).uniform(-0.1, 0.1, grid.shape)) / side
    chosen = itertools.islice(itertools.cycle(species.split()), n_sites)
    return crystal(edge, " ".join(chosen), position)


def test_the_work_for_one_crystal_is_bounded():
    found = list(balls(random_cell(200, "Ba Ti O O O", 14.5)))
    assert len(found) == 200 * 3
    assert max(len(points) for _, points in found) <= homology.MAX_POINTS
    assert sum(len(points) ** 2 for _, points in found) <= homology.MAX_PAIRS
    n_pairs = 0
    with pytest.raises(Unsuitable, match="more than 20,000,000 pairs of neighbours"):
        for _, points in balls(random_cell(1000, "Fe", 23)):
            n_pairs += len(points) ** 2
    assert 0 < n_pairs <= homology.MAX_PAIRS


def test_equivalent_atoms_are_looked_at_once(monkeypatch):
    n_clouds = []
    monkeypatch.setattr(
        homology, "barcodes", lambda clouds: n_clouds.append(len(clouds)) or barcodes(clouds)
    )
    cells = np.array(list(itertools.product(range(5), range(5), range(2))))
    position = ((np.array(FCC)[:, None] + cells) / [5, 5, 2]).reshape(-1, 3)
    many = crystal(np.diag([17.6, 17.6, 7.04]).tolist(), "Ni " * 200, position)
    np.testing.assert_allclose(
        vector(many), vector(crystal(3.52, "Ni " * 4, FCC)), rtol=1e-9, atol=1e-6
    )
    assert n_clouds == [1, 1]


def test_rows_without_a_crystal_or_with_an_unsuitable_one_say_why():
    formulas = ["SrTiO3", "NaCl", "Fe", "BaTiO2ClFe"]
    bad = crystal(4, "Na Cl", [[0, 0, 0], [0.01, 0, 0]])
    crystals = stack_crystals([HIGH, bad, Unsuitable("disordered site", '{"Fe": 0.5}'), LOW])
    materials, rejected = parse_materials(formula_table(formulas, crystals=crystals))
    assert not rejected
    found = features.describe(["asph"], materials)
    assert found.unsuited == {
        1: ("sites on one another", "0.04 Å apart"),
        2: ("disordered site", '{"Fe": 0.5}'),
    }
    assert found.x.dtype == np.float32
    np.testing.assert_allclose(found.x[[0, 3]], np.array([vector(HIGH), vector(LOW)]), rtol=1e-6)


def test_pack_says_that_the_set_is_experimental(pack_command, tmp_path):
    assert "asph (experimental)" in " ".join(pack_command("--help").stdout.split())
    lattice = (4.2 * np.eye(3)).tolist()
    entry = {"lattice": lattice, "species": ["Cs", "Cl"], "frac_coords": [[0, 0, 0], [0.5] * 3]}
    entry["targets"] = {"formation_energy": -2.2}
    (tmp_path / "mine.jsonl").write_text(json.dumps(entry) + "\n")
    done = pack_command("--source", "mine.jsonl", "--features", "asph")
    assert done.stdout.startswith("feature set asph is experimental: ")
    assert done.returncode == 0, done.stderr
    assert "1 packed" in done.stdout
