"""Atom-specific persistent homology of a crystal (experimental): the balls around its atoms, and the holes between them.

The method of Jiang, Chen, Chen, Li, Wei and Pan, npj Comput. Mater. 7, 28 (2021), with element groups in the place of
elements, so that the length is fixed; docs/homology.md says what follows the published method and what is our choice.
Distances of Vietoris-Rips complexes grow from each atom's surroundings: components of linked atoms (Betti 0) merge, rings
(Betti 1) and cages (Betti 2) are born and filled. The only gudhi import.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from irnet_hpc.data.crystals import MIN_DISTANCE, Crystal, Unsuitable, reduced_cell
from irnet_hpc.data.elements import FAMILIES, NUMBER, SYMBOLS

CUTOFF = 8.0  # Å, around each atom; the published value
SLACK = 1e-4  # Å; atoms at the cut-off, of cells with neat lattice constants, are within for all roundings
LEAST_BAR = (
    0.01  # Å; equal distances differ by rounding, and bars shorter than this come and go with it
)
MOST_POINTS = 500  # in one ball; diamond has 381
MOST_PAIRS = 20_000_000  # over the balls of one crystal; each took less than 1 µs on one core
MOST_IMAGES = 200_000  # sites of the neighbouring cells that are looked at

P_METALS = "B Al Si Ga Ge As In Sn Sb Tl Pb Bi Nh Fl Mc Lv"  # and metalloids
# Groups of elements -> atomic numbers. Each element is in one group; d-metals are what is left.
GROUPS = {
    name: frozenset(NUMBER[symbol] for symbol in symbols)
    for name, symbols in {
        "s-metals": FAMILIES["alkali"] + FAMILIES["alkaline_earth"],
        "f-metals": FAMILIES["lanthanides"] + FAMILIES["actinides"],
        "p-metals": P_METALS.split(" "),
        "chalcogens": FAMILIES["chalcogens"],
        "halogens": (*FAMILIES["halogens"], "Ts"),
        "other-nonmetals": ("H", "C", "N", "P", *FAMILIES["noble_gases"], "Og"),
    }.items()
}
GROUPS["d-metals"] = frozenset(range(1, len(SYMBOLS) + 1)).difference(*GROUPS.values())

# what is taken of the bars, Å; every bar of Betti 0 is born at 0
QUANTITIES = (
    "Betti-0 death",
    *(f"Betti-{k} {end}" for k in (1, 2) for end in ("length", "birth", "death")),
)
STATISTICS = ("mean", "std", "max", "min", "sum")
LABELS = [
    f"asph {group} {what} {how}"
    for group in ("all", *GROUPS)
    for what in QUANTITIES
    for how in STATISTICS
] + [f"asph {group} share" for group in GROUPS]


def vector(crystal: Crystal) -> np.ndarray:
    """(n_features,) float64: statistics of bars (Å) over all atoms and by group of elements, then each group's share of atoms.

    A group's bars are those of the balls around its atoms; a sum is per atom of the centre's element. Statistics of no bar
    are 0, as is the share of a group without atoms. Raises Unsuitable.
    """
    centres, clouds = zip(*balls(crystal), strict=True)
    found = _barcodes_of_congruent(clouds)
    centre = [np.repeat(centres, [len(of_ball[k]) for of_ball in found]) for k in range(3)]
    bars = [
        np.concatenate([of_ball[k] for of_ball in found]) for k in range(3)
    ]  # of each dimension: (n_bars, 2)
    values = [(centre[0], bars[0][:, 1])]  # in the order of QUANTITIES
    for k in (1, 2):
        birth, death = bars[k].T
        values += [(centre[k], death - birth), (centre[k], birth), (centre[k], death)]
    weight = np.zeros(len(SYMBOLS) + 1)
    element, count = np.unique(crystal.number, return_counts=True)
    weight[element] = 1 / count
    features = [_statistics(of_bars, weight[around]) for around, of_bars in values]
    for numbers in GROUPS.values():
        for around, of_bars in values:
            inside = np.isin(around, list(numbers))
            features.append(_statistics(of_bars[inside], weight[around[inside]]))
    features.append([np.isin(crystal.number, list(numbers)).mean() for numbers in GROUPS.values()])
    return np.concatenate(features)


def _statistics(values: np.ndarray, weight: np.ndarray) -> list[float]:
    """What STATISTICS names."""
    if not len(values):
        return [0.0] * len(STATISTICS)
    return [values.mean(), values.std(), values.max(), values.min(), values @ weight]


def _barcodes_of_congruent(clouds: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """The same as `barcodes`, computed once for clouds of the same distances: balls around equivalent atoms, half of them all.

    Clouds are told apart by the sorted distances of each point, as in the pointwise distance distributions of Widdowson and
    Kurlin (NeurIPS 2022), which differ for all but contrived clouds that are not congruent.
    """
    from scipy.spatial.distance import pdist, squareform

    places: dict[bytes, int] = {}
    place, distinct = [], []
    for cloud in clouds:
        rows = np.sort(squareform(pdist(cloud)).round(6), axis=1)
        key = b"".join(part.tobytes() for part in np.unique(rows, axis=0, return_counts=True))
        if key not in places:
            places[key] = len(distinct)
            distinct.append(cloud)
        place.append(places[key])
    found = barcodes(distinct)
    return [found[of_cloud] for of_cloud in place]


def barcodes(clouds: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Of each cloud of points its bars of Betti 0, 1 and 2: (n_bars, 2) birth and death, Å, of the Vietoris-Rips complexes.

    Without the component that never ends, and without bars of rings and cages that are too short to mean anything. A point
    of each ball, its centre, is within the cut-off of all others, so that all rings and cages are filled by then.
    """
    from gudhi.sklearn import RipsPersistence

    rips = RipsPersistence([0, 1, 2], threshold=CUTOFF + 2 * SLACK, homology_coeff_field=2)
    found = []
    for of_cloud in rips.fit_transform(clouds):
        components, *holes = (np.asarray(bars, float).reshape(-1, 2) for bars in of_cloud)
        kept = [bars[bars[:, 1] - bars[:, 0] > LEAST_BAR] for bars in holes]
        found.append([components[np.isfinite(components[:, 1])], *kept])
    return found


def balls(crystal: Crystal) -> Iterator[tuple[int, np.ndarray]]:
    """For each atom of the cell and each element: the centre's atomic number, and (n_points, 3) positions, Å, around it.

    The points are the atoms within the cut-off that are of this element or of the centre's own, the centre the first.
    Raises Unsuitable where the cell is no crystal, or has too much in it.
    """
    sites, lattice, images = _around(crystal)
    points = (sites + (images @ lattice)[:, None]).reshape(-1, 3)
    number = np.tile(crystal.number, len(images))
    elements = np.unique(crystal.number)
    n_pairs = 0
    for own, site in zip(crystal.number, sites, strict=True):
        offset = points - site
        distance = np.linalg.norm(offset, axis=1)
        near = np.flatnonzero(distance <= CUTOFF + SLACK)
        near = near[np.argsort(distance[near], kind="stable")]
        if len(near) > 1 and distance[near[1]] < MIN_DISTANCE:
            raise Unsuitable("sites on one another", f"{distance[near[1]]:.3g} Å apart")
        if len(near) > MOST_POINTS:
            raise Unsuitable(
                "too dense",
                f"{len(near)} atoms within {CUTOFF:g} Å of one, more than {MOST_POINTS}",
            )
        for element in elements:
            ball = near[(number[near] == own) | (number[near] == element)]
            n_pairs += len(ball) ** 2
            if n_pairs > MOST_PAIRS:
                raise Unsuitable(
                    "crystal too large",
                    f"{len(sites)} sites, more than {MOST_PAIRS:,} pairs of neighbours",
                )
            yield int(own), offset[ball]


def _around(crystal: Crystal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (n_sites, 3) in Å within a cell of short vectors, the cell, and the cells (n_images, 3) that balls reach."""
    short, fraction = reduced_cell(crystal)
    n_expected = len(fraction) * 4 / 3 * np.pi * CUTOFF**3 / abs(np.linalg.det(short))
    if n_expected > 2 * MOST_POINTS:
        raise Unsuitable(
            "too dense",
            f"{n_expected:.3g} atoms in a ball of {CUTOFF:g} Å, more than {MOST_POINTS}",
        )
    spacing = 1 / np.linalg.norm(np.linalg.inv(short), axis=0)  # of the planes between cells
    reach = np.floor((CUTOFF + SLACK) / spacing) + 1  # fractions of two sites differ by less than 1
    if (n_sites := len(fraction) * np.prod(2 * reach + 1)) > MOST_IMAGES:
        raise Unsuitable(
            "crystal too large",
            f"{n_sites:.3g} images of sites to look at, of at most {MOST_IMAGES:,}",
        )
    images = np.stack(
        np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1
    ).reshape(-1, 3)
    return fraction @ short, short, images
