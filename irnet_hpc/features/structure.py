"""Compute Ward's 126 features of a crystal, all from one Voronoi tessellation.

Ward et al., Phys. Rev. B 96, 024104 (2017), as matminer's featurizers compute them: effective
coordination numbers, the variation of bond lengths and of cell sizes, Warren-Cowley-like ordering
in three shells, the maximum packing efficiency, and differences of 22 elemental properties between
a site and its neighbours. The weight of a neighbour is the area of the face that it shares with the
site. matminer gives 128 columns, because it adds the ranges of the coordination number and of the
neighbour distance variation, which the paper does not have.
"""

import numpy as np

from irnet_hpc.data.crystals import Crystal, Unsuitable
from irnet_hpc.features import magpie, voronoi

SHELLS = (1, 2, 3)
STATISTICS = ("minimum", "maximum", "range", "mean", "avg_dev")
NOT_RANGE = [0, 1, 3, 4]
# Most paths of two steps from neighbour to neighbour; a dense crystal of 1,000 sites has some
# 200,000.
MAX_PATHS = 5_000_000
LABELS = [
    *(f"{STATISTICS[place]} CN_VoronoiNN" for place in NOT_RANGE),
    *(
        "mean absolute deviation in relative bond length",
        "max relative bond length",
        "min relative bond length",
    ),
    *(f"{STATISTICS[place]} neighbor distance variation" for place in NOT_RANGE),
    "mean absolute deviation in relative cell size",
    *(f"mean ordering parameter shell {shell}" for shell in SHELLS),
    "max packing efficiency",
    *(
        f"{statistic} local difference in {name}"
        for name in magpie.PROPERTIES
        for statistic in STATISTICS
    ),
]


def vector(crystal: Crystal) -> np.ndarray:
    """Compute the features of a crystal.

    Returns:
        (126,) float64, in the order of LABELS.

    Raises:
        Unsuitable: if these features cannot be computed for the crystal, or would take too much
            work.
    """
    cells = voronoi.tessellate(crystal)
    n_sites = len(cells.volume)
    largest = np.zeros(n_sites)
    np.maximum.at(largest, cells.site, cells.area)
    # (n_faces,) as in pymatgen's VoronoiNN(weight="area")
    weight = cells.area / largest[cells.site]
    total = np.bincount(cells.site, weight)
    # (n_sites,) effective: 6 where there are 6 equal faces
    coordination = total**2 / np.bincount(cells.site, weight**2)

    bond = np.bincount(cells.site, weight * cells.distance) / total  # (n_sites,) Å, the mean
    variation = (
        np.bincount(cells.site, weight * np.abs(cells.distance - bond[cells.site])) / total / bond
    )
    relative = bond / bond.mean()
    # (n_sites,) Å; half of it is the radius of the largest sphere in the cell
    nearest = np.full(n_sites, np.inf)
    np.minimum.at(nearest, cells.site, cells.distance)

    elements, kind = np.unique(crystal.number, return_inverse=True)
    around = np.zeros((n_sites, len(elements)))  # the weight of neighbours of each element
    np.add.at(around, (cells.site, kind[cells.neighbour]), weight)
    properties = magpie.tables().properties[elements]  # (n_elements, 22)
    difference = np.abs(properties - properties[:, None])[kind]  # (n_sites, n_elements, 22)
    local = np.einsum("se,sep->ps", around, difference) / total  # (22, n_sites)

    of_coordination, of_variation, *of_local = _statistics(
        np.stack([coordination, variation, *local])
    )
    (bond_deviation,), (size_deviation,) = (
        _deviation(relative[None]),
        _deviation(cells.volume[None]),
    )
    return np.concatenate(
        [
            of_coordination[NOT_RANGE],
            [bond_deviation, relative.max(), relative.min()],
            of_variation[NOT_RANGE],
            [size_deviation / cells.volume.mean()],
            _ordering(cells, weight, around, kind),
            [np.pi / 6 * (nearest**3).sum() / cells.volume.sum()],
            *of_local,
        ]
    )


def _statistics(values: np.ndarray) -> np.ndarray:
    """Compute the five STATISTICS (n, 5) of each row of `values` (n, n_sites)."""
    low, high = values.min(1), values.max(1)
    return np.stack([low, high, high - low, values.mean(1), _deviation(values)], axis=1)


def _deviation(values: np.ndarray) -> np.ndarray:
    """Compute the mean absolute deviation (n,) of each row of `values` (n, n_sites)."""
    return np.abs(values - values.mean(1, keepdims=True)).mean(1)


def _ordering(
    cells: voronoi.Tessellation, weight: np.ndarray, around: np.ndarray, kind: np.ndarray
) -> np.ndarray:
    """Compute three ordering parameters: for paths of one, two and three steps between neighbours.

    A parameter is the mean of |1 - w / (x W)| over all sites and elements. Here W is the weight of
    all paths from a site, w the weight of those that end at an atom of the element, and x the
    element's fraction in the crystal. The weight of a path is the product of the weights of its
    steps. In a crystal of one element, the parameters are 0.

    A path never visits a site twice. So the paths of two steps are all walks of two steps, except
    those that return to the start. The paths of three steps start with a step to a neighbour and
    continue with two steps from there, except those that step back to the start or end there
    (triangles).

    Args:
        cells: the Voronoi cells.
        weight: (n_faces,) weight of a step through each face.
        around: (n_sites, n_elements) total weight of the neighbours of each element.
        kind: (n_sites,) each site's element, as a column of `around`.
    """
    n_sites, n_elements = around.shape
    if n_elements == 1:
        return np.zeros(len(SHELLS))
    site, neighbour = cells.site, cells.neighbour
    start = np.searchsorted(site, np.arange(n_sites + 1))
    own = np.eye(n_elements)[kind]  # (n_sites, n_elements)
    step = weight[:, None]
    back = _weight_of(cells, weight, neighbour, site, -cells.image)[:, None]

    def over_faces(values: np.ndarray) -> np.ndarray:
        """Sum values (n_faces, n_elements) over each site's faces; return (n_sites, n_elements)."""
        return np.add.reduceat(values, start[:-1])

    second = over_faces(step * (around[neighbour] - back * own[site]))
    by_start = back * (around[site] - step * own[neighbour])
    third = over_faces(step * (second[neighbour] - by_start))
    third -= _triangles(cells, weight, start)[:, None] * own

    fraction = np.bincount(kind) / n_sites
    return np.array(
        [
            np.abs(1 - shell / shell.sum(1, keepdims=True) / fraction).mean()
            for shell in (around, second, third)
        ]
    )


def _triangles(cells: voronoi.Tessellation, weight: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Compute for each site the total weight (n_sites,) of paths of three steps that return to it.

    `start` has the first face of each site, and then the number of faces.
    """
    count = np.diff(start)[cells.neighbour]
    if (n_paths := count.sum()) > MAX_PATHS:
        raise Unsuitable(
            "crystal too large",
            f"{n_paths:,} paths from neighbour to neighbour, more than {MAX_PATHS:,}",
        )
    one = np.repeat(np.arange(len(count)), count)
    two = np.arange(n_paths) + np.repeat(start[cells.neighbour] - np.cumsum(count) + count, count)
    site = cells.site[one]
    three = _weight_of(
        cells, weight, cells.neighbour[two], site, -(cells.image[one] + cells.image[two])
    )
    return np.bincount(site, weight[one] * weight[two] * three, minlength=len(start) - 1)


def _weight_of(
    cells: voronoi.Tessellation,
    weight: np.ndarray,
    site: np.ndarray,
    neighbour: np.ndarray,
    image: np.ndarray,
) -> np.ndarray:
    """Look up the weights (n,) of n steps between sites; 0 if the two sites share no face.

    A step is given by its site (n,), its neighbour (n,) and the neighbour's image (n, 3).
    """
    reach = 2 * np.abs(cells.image).max()
    base = 2 * reach + 1

    def code(site: np.ndarray, neighbour: np.ndarray, image: np.ndarray) -> np.ndarray:
        x, y, z = (image + reach).T
        return (((site * len(cells.volume) + neighbour) * base + x) * base + y) * base + z

    known, wanted = code(cells.site, cells.neighbour, cells.image), code(site, neighbour, image)
    order = np.argsort(known)
    at = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    return np.where(known[at] == wanted, weight[at], 0)
