"""The periodic Voronoi tessellation of a crystal: its cells' faces, neighbours, areas and volumes, in double precision.

The cell of a site is bounded by planes half way to its neighbours. The plane v·d = |d|²/2 is the point 2d/|d|² of the dual
space, the planes that bound the cell are the corners of the convex hull of these points, and the hull's facets are the
cell's vertices (Brown, Inform. Process. Lett. 9, 223 (1979)). So Qhull finds one small hull a site, of the neighbours
within a radius that the cell itself proves to be enough: the cell is exact, and there is no cut-off. Cells that do not
fill the lattice are refused, so that an answer is right or there is none.
"""

import itertools
from typing import NamedTuple

import numpy as np

from irnet_hpc.crystals import Crystal, Unsuitable

LEAST_VOLUME = 0.01  # Å³; no atom has less
LEAST_DISTANCE = 0.5  # Å, as pymatgen's Structure.DISTANCE_TOLERANCE; the shortest of all bonds, that of H2, has 0.74
MOST_POINTS = 200_000  # images of sites that are looked at: those of some 5,000 sites that fill space, far fewer in a vacuum
N_NEAREST = 50  # neighbours within the first radius, on average
LEAST_AREA = 1e-9  # of the site's largest face; what is smaller is a vertex that rounding opened
VOLUME_ERROR = 1e-6  # by which the cells may miss the volume of the lattice
REDUCTION_STEPS = 1000


class Tessellation(NamedTuple):
    """The Voronoi cells of a crystal's sites, in its order, and their faces, sorted by site; a face stands on both its sides."""

    lattice: np.ndarray  # (3, 3) float64, Å: short vectors that span the crystal's own lattice
    place: np.ndarray  # (n_sites, 3) float64, Å: the sites, or images of them, within this lattice's cell
    volume: np.ndarray  # (n_sites,) float64, Å³, of the Voronoi cells
    site: np.ndarray  # (n_faces,) int64, whose face it is
    neighbour: np.ndarray  # (n_faces,) int64, the site on the other side
    image: np.ndarray  # (n_faces, 3) int64: the neighbour lies at place[neighbour] + image @ lattice
    area: np.ndarray  # (n_faces,) float64, Å²
    distance: np.ndarray  # (n_faces,) float64, Å, between site and neighbour; to the face it is half of that


def tessellate(crystal: Crystal) -> Tessellation:
    """Raises Unsuitable for numbers that are not finite, no volume, sites on one another, and work beyond bounds."""
    volume = _volume(crystal)
    change = _reduction(crystal.lattice)
    lattice = change @ crystal.lattice
    if (shortest := np.linalg.norm(lattice, axis=1).min()) < LEAST_DISTANCE:
        raise Unsuitable("sites on one another", f"a site and its image, {shortest:.3g} Å apart")
    fraction = crystal.position @ np.linalg.inv(change) % 1
    place = fraction @ lattice

    hulls = _hulls(fraction, lattice)
    face, area = _areas(hulls)
    site, neighbour, difference = hulls.site[face], hulls.neighbour[face], hulls.difference[face]
    distance = np.linalg.norm(difference, axis=1)
    cells = np.bincount(site, area * distance / 6, minlength=len(fraction))
    if not abs(cells.sum() / volume - 1) < VOLUME_ERROR:
        raise Unsuitable("no tessellation", f"cells of {cells.sum():.6g} Å³ in a lattice of {volume:.6g} Å³")

    largest = np.zeros(len(fraction))
    np.maximum.at(largest, site, area)
    real = area > LEAST_AREA * largest[site]
    image = hulls.image[face].astype(np.int64)
    return Tessellation(lattice, place, cells, *(of_face[real] for of_face in (site, neighbour, image, area, distance)))


def _volume(crystal: Crystal) -> float:
    """Å³ of the lattice."""
    if not (np.isfinite(crystal.lattice).all() and np.isfinite(crystal.position).all()):
        raise Unsuitable("structure not finite", "a lattice vector or a coordinate is no finite number")
    volume = abs(np.linalg.det(crystal.lattice))
    if not LEAST_VOLUME < volume < np.inf:
        raise Unsuitable("lattice without volume", f"{volume:.3g} Å³")
    return volume


def _reduction(lattice: np.ndarray) -> np.ndarray:
    """(3, 3) float64 of whole numbers, of determinant ±1, that turn a lattice into short vectors: it spans the same points.

    Semaev's greedy reduction in three dimensions: the longest vector less its nearest one of the plane of the others.
    """
    change = np.eye(3)
    for _ in range(REDUCTION_STEPS):
        vectors = change @ lattice
        order = np.argsort(np.einsum("ij,ij->i", vectors, vectors), kind="stable")
        change, (a, b, c) = change[order], vectors[order]
        if step := np.rint(a @ b / (a @ a)):
            change[1] -= step * change[0]
            continue
        near = np.floor(np.linalg.solve([[a @ a, a @ b], [a @ b, b @ b]], [a @ c, b @ c]))
        steps = [near + corner for corner in itertools.product((0, 1), repeat=2)]
        lengths = [np.linalg.norm(c - i * a - j * b) for i, j in steps]
        if not min(lengths) < np.linalg.norm(c) * (1 - 1e-12):
            break
        i, j = steps[int(np.argmin(lengths))]
        change[2] -= i * change[0] + j * change[1]
    return change


class _Hulls(NamedTuple):
    """The dual hulls of all sites, one after another."""

    site: np.ndarray  # (n_candidates,) whose neighbour it may be
    neighbour: np.ndarray  # (n_candidates,) the site it is an image of
    image: np.ndarray  # (n_candidates, 3) by how many lattice vectors
    difference: np.ndarray  # (n_candidates, 3) Å, from site to candidate
    corners: np.ndarray  # (n_vertices, 3) of the candidates: the faces that meet in a vertex of the cell
    vertex: np.ndarray  # (n_vertices, 3) Å, from the site


def _hulls(fraction: np.ndarray, lattice: np.ndarray) -> _Hulls:
    """A cell whose vertices lie within half of a radius can have no neighbours beyond it; where they do not, the radius grows.

    No vertex is farther from its site than half the diagonal of a box of the lattice vectors' lengths.
    """
    n_sites = len(fraction)
    places = fraction @ lattice
    enough = 1.001 * np.linalg.norm(lattice)
    first = (N_NEAREST * 3 / (4 * np.pi) * abs(np.linalg.det(lattice)) / n_sites) ** (1 / 3)
    radius = np.full(n_sites, min(first, enough))
    done: list[tuple | None] = [None] * n_sites
    while to_do := [site for site in range(n_sites) if done[site] is None]:
        neighbour, image, points, near = _points(fraction, lattice, to_do, radius)
        for site, candidates in zip(to_do, near, strict=True):
            difference = points[candidates] - places[site]
            square = np.einsum("ij,ij->i", difference, difference)
            other = square > 0
            if (~other).sum() > 1 or square[other].min(initial=np.inf) < LEAST_DISTANCE**2:
                closest = np.sqrt(np.partition(square, 1)[1])
                raise Unsuitable("sites on one another", f"{closest:.3g} Å apart")
            corners, vertex, reach = _hull(difference[other] * (2 / square[other])[:, None])
            if 2 * reach <= radius[site]:
                at = np.array(candidates)[other]
                done[site] = (np.full(len(at), site), neighbour[at], image[at], difference[other], corners, vertex)
            elif radius[site] >= enough:
                raise Unsuitable("no tessellation", f"the cell of site {site + 1} is open")
            else:
                radius[site] = min(2 * reach * (1 + 1e-9), 2 * radius[site], enough)
    parts = list(zip(*done, strict=True))
    offsets = np.cumsum([0, *map(len, parts[0][:-1])])
    corners = [corners + offset for corners, offset in zip(parts[4], offsets, strict=True)]
    return _Hulls(*(np.concatenate(part) for part in (*parts[:4], corners, parts[5])))


def _points(
    fraction: np.ndarray, lattice: np.ndarray, to_do: list[int], radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[int]]]:
    """(neighbour, image, points in Å) around the cell, and for each site to do which of them are within its radius."""
    from scipy.spatial import cKDTree

    places = fraction @ lattice
    reach = radius[to_do].max() * np.linalg.norm(np.linalg.inv(lattice), axis=0)  # (3,) in lattice vectors
    low, high = fraction[to_do].min(0) - reach, fraction[to_do].max(0) + reach
    first, last = np.floor(low), np.floor(high)
    n_points = len(places) * np.prod(last - first + 1)
    if n_points > MOST_POINTS:
        raise Unsuitable("crystal too large", f"{n_points:.3g} images of sites to look at, of at most {MOST_POINTS:,}")
    steps = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
    shifts = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    spread = (fraction + shifts[:, None]).reshape(-1, 3)
    kept = np.flatnonzero(((spread >= low) & (spread <= high)).all(1))
    neighbour, image = kept % len(places), shifts[kept // len(places)]
    points = places[neighbour] + image @ lattice
    return neighbour, image, points, cKDTree(points).query_ball_point(places[to_do], radius[to_do])


def _hull(dual: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Corners (n_vertices, 3) and vertices (n_vertices, 3) in Å of the cell of dual points, and how far it reaches; inf: open."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(dual)
    except (QhullError, ValueError):  # too few, or all in a plane
        return np.zeros((0, 3), int), np.zeros((0, 3)), np.inf
    normal, offset = hull.equations[:, :3], hull.equations[:, 3]
    if offset.max() >= 0:
        return hull.simplices, normal, np.inf
    vertex = normal / -offset[:, None]
    return hull.simplices, vertex, np.sqrt(np.einsum("ij,ij->i", vertex, vertex).max())


def _areas(hulls: _Hulls) -> tuple[np.ndarray, np.ndarray]:
    """Which candidates have a face (n_faces,), and its area (n_faces,) in Å²: its vertices, sorted by angle, make a polygon."""
    face, of = np.unique(hulls.corners.ravel(), return_inverse=True)
    vertex = np.repeat(hulls.vertex, 3, axis=0)
    count = np.bincount(of)
    centre = np.stack([np.bincount(of, vertex[:, axis]) for axis in range(3)], axis=1) / count[:, None]
    normal = hulls.difference[face] / np.linalg.norm(hulls.difference[face], axis=1)[:, None]
    across = np.cross(normal, np.eye(3)[np.abs(normal).argmin(1)])
    across /= np.linalg.norm(across, axis=1)[:, None]
    arm = vertex - centre[of]
    x = np.einsum("ij,ij->i", arm, across[of])
    y = np.einsum("ij,ij->i", arm, np.cross(normal, across)[of])
    order = np.lexsort((np.arctan2(y, x), of))
    x, y = x[order], y[order]
    last = np.cumsum(count) - 1
    after = np.arange(1, len(x) + 1)
    after[last] = last - count + 1
    area = np.add.reduceat(x * y[after] - x[after] * y, last - count + 1) / 2
    return face, area
