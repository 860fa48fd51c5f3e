"""Compute the atom-specific persistent homology of a crystal (experimental).

The method is that of Jiang, Chen, Chen, Li, Wei and Pan, npj Comput. Mater. 7, 28 (2021), with
groups of elements instead of single elements, so that every crystal has the same number of
features. docs/homology.md says which steps are published and which are our choices.

Around each atom, points within a growing distance of each other are linked. Components of linked
atoms (Betti 0) merge; rings (Betti 1) and cages (Betti 2) appear and are filled again. A bar is the
range of distances over which one component, ring or cage exists.

No other file imports gudhi, which the extra [homology] installs.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from irnet_hpc.data.crystals import MIN_DISTANCE, Crystal, Unsuitable, reduced_cell
from irnet_hpc.data.elements import FAMILIES, NUMBER, SYMBOLS

CUTOFF = 8.0  # Å, around each atom; the published value
# Å of tolerance, so that atoms exactly at the cut-off are within, however their distance is
# rounded.
SLACK = 1e-4
# Å; equal distances differ by rounding, and shorter bars come and go with it.
MIN_BAR = 0.01
MAX_POINTS = 500  # most atoms in one ball; diamond has 381
MAX_PAIRS = 20_000_000  # over the balls of one crystal; each took less than 1 µs on one core
MAX_IMAGES = 200_000  # sites of the neighbouring cells that are searched

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

# Quantities of the bars, in Å; every bar of Betti 0 is born at 0.
QUANTITIES = (
    "Betti-0 death",
    *(f"Betti-{k} {end}" for k in (1, 2) for end in ("length", "birth", "death")),
)
STATISTICS = ("mean", "std", "max", "min", "sum")
LABELS = [
    f"asph {group} {quantity} {statistic}"
    for group in ("all", *GROUPS)
    for quantity in QUANTITIES
    for statistic in STATISTICS
] + [f"asph {group} share" for group in GROUPS]


def vector(crystal: Crystal) -> np.ndarray:
    """Compute the features of a crystal.

    They are STATISTICS of the QUANTITIES of bars (Å), first over the balls around all atoms, then
    for each group of elements over the balls around its atoms. The last features are each group's
    share of the atoms. A `sum` is divided by the number of atoms of the element at the centre of
    the ball. If there are no bars, the statistics are 0.

    Returns:
        (n_features,) float64, in the order of LABELS.

    Raises:
        Unsuitable: if these features cannot be computed for the crystal, or would take too much
            work.
    """
    centres, clouds = zip(*balls(crystal), strict=True)
    of_balls = _barcodes_of_congruent(clouds)
    centre = [np.repeat(centres, [len(of_ball[k]) for of_ball in of_balls]) for k in range(3)]
    # one per dimension, (n_bars, 2)
    bars = [np.concatenate([of_ball[k] for of_ball in of_balls]) for k in range(3)]
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
    """Compute the STATISTICS of values; `sum` adds the values times their weights."""
    if not len(values):
        return [0.0] * len(STATISTICS)
    return [values.mean(), values.std(), values.max(), values.min(), values @ weight]


def _barcodes_of_congruent(clouds: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Compute `barcodes`, but only once for clouds of the same shape.

    Balls around equivalent atoms have the same shape; they are about half of all balls. Two clouds
    count as the same if the sorted distances from each point to the others agree. These are the
    pointwise distance distributions of Widdowson and Kurlin (NeurIPS 2022), which agree for
    congruent clouds and otherwise only for a few contrived ones.
    """
    from scipy.spatial.distance import pdist, squareform

    places: dict[bytes, int] = {}
    place: list[int] = []
    distinct: list[np.ndarray] = []
    for cloud in clouds:
        rows = np.sort(squareform(pdist(cloud)).round(6), axis=1)
        key = b"".join(part.tobytes() for part in np.unique(rows, axis=0, return_counts=True))
        if key not in places:
            places[key] = len(distinct)
            distinct.append(cloud)
        place.append(places[key])
    of_distinct = barcodes(distinct)
    return [of_distinct[number] for number in place]


def barcodes(clouds: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Compute the bars of the Vietoris-Rips complexes of clouds of points.

    Two kinds of bars are left out: the component that never ends, and rings and cages whose bars
    are shorter than MIN_BAR. The first point of a cloud, the centre of its ball, is closer to all
    other points than the cut-off, so all rings and cages are filled before the cut-off is reached.

    Args:
        clouds: for each cloud, positions (n_points, 3) in Å.

    Returns:
        For each cloud, three arrays (n_bars, 2) for Betti 0, 1 and 2: the distances in Å at which a
        bar begins and ends.
    """
    from gudhi.sklearn import RipsPersistence

    rips = RipsPersistence([0, 1, 2], threshold=CUTOFF + 2 * SLACK, homology_coeff_field=2)
    of_clouds = []
    for diagrams in rips.fit_transform(clouds):
        components, *holes = (np.asarray(bars, float).reshape(-1, 2) for bars in diagrams)
        kept = [bars[bars[:, 1] - bars[:, 0] > MIN_BAR] for bars in holes]
        of_clouds.append([components[np.isfinite(components[:, 1])], *kept])
    return of_clouds


def balls(crystal: Crystal) -> Iterator[tuple[int, np.ndarray]]:
    """Yield balls of points: one for each atom of the cell and each element of the crystal.

    A ball contains the atoms within the cut-off that are of this element or of the element of the
    central atom. The central atom comes first.

    Yields:
        The atomic number of the central atom, and the positions (n_points, 3) in Å relative to it.

    Raises:
        Unsuitable: if the cell has no volume, sites coincide, or there are too many atoms.
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
        if len(near) > MAX_POINTS:
            raise Unsuitable(
                "too dense",
                f"{len(near)} atoms within {CUTOFF:g} Å of an atom, more than {MAX_POINTS}",
            )
        for element in elements:
            ball = near[(number[near] == own) | (number[near] == element)]
            n_pairs += len(ball) ** 2
            if n_pairs > MAX_PAIRS:
                raise Unsuitable(
                    "crystal too large",
                    f"{len(sites)} sites with more than {MAX_PAIRS:,} pairs of neighbours",
                )
            yield int(own), offset[ball]


def _around(crystal: Crystal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the copies of the cell that the balls around its atoms can reach.

    Returns:
        The positions of the sites (n_sites, 3) in Å, in a cell with short lattice vectors; these
        vectors (3, 3) in Å; and the copies of the cell (n_images, 3), in lattice vectors.
    """
    short, fraction = reduced_cell(crystal)
    n_expected = len(fraction) * 4 / 3 * np.pi * CUTOFF**3 / abs(np.linalg.det(short))
    if n_expected > 2 * MAX_POINTS:
        raise Unsuitable(
            "too dense",
            f"{n_expected:.3g} atoms in a ball of {CUTOFF:g} Å, more than {MAX_POINTS}",
        )
    spacing = 1 / np.linalg.norm(np.linalg.inv(short), axis=0)  # between lattice planes
    reach = np.floor((CUTOFF + SLACK) / spacing) + 1  # fractions of two sites differ by less than 1
    if (n_sites := len(fraction) * np.prod(2 * reach + 1)) > MAX_IMAGES:
        raise Unsuitable(
            "crystal too large",
            f"{n_sites:.3g} images of sites to search, more than {MAX_IMAGES:,}",
        )
    images = np.stack(
        np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1
    ).reshape(-1, 3)
    return fraction @ short, short, images
