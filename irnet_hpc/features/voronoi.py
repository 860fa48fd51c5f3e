"""Compute the Voronoi cells of a periodic crystal: their faces, areas and volumes.

The cell of a site is bounded by the planes half way to its neighbours. If d is the vector to a
neighbour, this plane is v·d = |d|²/2, and it corresponds to the point 2d/|d|² of the dual space.
The convex hull of these points gives the cell: each corner of the hull is a face of the cell, and
each facet of the hull is a vertex of the cell (Brown, Inform. Process. Lett. 9, 223 (1979)). So
Qhull computes one small hull per site.

Only neighbours within some radius are used. The size of the resulting cell proves whether the
radius was large enough, so the cells are exact, without a cut-off. If the cells do not fill the
lattice, the crystal is refused, so a tessellation that is returned is right.
"""

from typing import NamedTuple

import numpy as np

from irnet_hpc.data.crystals import MIN_DISTANCE, Crystal, Unsuitable, reduced_cell

# Images of sites that are searched at most: enough for some 30,000 sites, fewer in a vacuum.
MAX_POINTS = 1_000_000
# Neighbours that are tried, of all sites together: some ten seconds' work.
MAX_CANDIDATES = 30_000_000
N_NEAREST = 50  # neighbours within the first radius, on average
# Fraction of the site's largest face; a smaller face is a vertex that rounding opened.
MIN_AREA = 1e-9
MAX_VOLUME_ERROR = 1e-6  # allowed error of the sum of the cells' volumes, relative to the lattice's


class Tessellation(NamedTuple):
    """The Voronoi cells of a crystal and their faces.

    Faces are sorted by site. The face between two sites is listed twice, once for each of them.
    """

    lattice: np.ndarray  # (3, 3) float64, Å: short vectors that span the crystal's own lattice
    # (n_sites, 3) float64, Å: the sites, or images of them, within the cell of this lattice
    place: np.ndarray
    volume: np.ndarray  # (n_sites,) float64, Å³, of the Voronoi cells
    site: np.ndarray  # (n_faces,) int64, of the cell
    neighbour: np.ndarray  # (n_faces,) int64, the site on the other side
    # (n_faces, 3) int64: the neighbour lies at place[neighbour] + image @ lattice
    image: np.ndarray
    area: np.ndarray  # (n_faces,) float64, Å²
    distance: np.ndarray  # (n_faces,) float64, Å, between site and neighbour; the face is half way


def tessellate(crystal: Crystal) -> Tessellation:
    """Compute the Voronoi tessellation of a crystal.

    Raises:
        Unsuitable: if numbers are not finite, the lattice has no volume, sites coincide, or the
            work would be too much.
    """
    lattice, fraction = reduced_cell(crystal)
    volume = abs(np.linalg.det(lattice))

    hulls = _dual_hulls(fraction, lattice)
    area = _areas(hulls)
    distance = np.linalg.norm(hulls.difference, axis=1)
    cells = np.bincount(hulls.site, area * distance / 6, minlength=len(fraction))
    if not abs(cells.sum() / volume - 1) < MAX_VOLUME_ERROR:
        raise Unsuitable(
            "no tessellation", f"cells of {cells.sum():.6g} Å³ in a lattice of {volume:.6g} Å³"
        )

    largest = np.zeros(len(fraction))
    np.maximum.at(largest, hulls.site, area)
    is_face = area > MIN_AREA * largest[hulls.site]
    faces = (hulls.site, hulls.neighbour, hulls.image.astype(np.int64), area, distance)
    return Tessellation(lattice, fraction @ lattice, cells, *(values[is_face] for values in faces))


class _Hulls(NamedTuple):
    """The dual hulls of all sites.

    A corner of a hull is a face of the cell, a facet is a vertex.
    """

    site: np.ndarray  # (n_faces,)
    neighbour: np.ndarray  # (n_faces,)
    image: np.ndarray  # (n_faces, 3)
    difference: np.ndarray  # (n_faces, 3) Å, from site to neighbour
    meeting: np.ndarray  # (n_vertices, 3), the faces that meet in a vertex
    vertex: np.ndarray  # (n_vertices, 3) Å, from the site


def _dual_hulls(fraction: np.ndarray, lattice: np.ndarray) -> _Hulls:
    """Compute the dual hull of each site, within a radius that is increased until it is enough.

    If all vertices of a cell are within half the radius, no neighbour beyond the radius can cut the
    cell. The radius has a limit: take a box whose edges are as long as the lattice vectors; no
    vertex is farther from its site than half the diagonal of this box.

    Args:
        fraction: (n_sites, 3) positions in lattice vectors.
        lattice: (3, 3) lattice vectors in Å.

    Raises:
        Unsuitable: if sites coincide, a cell is open, or there are too many neighbours to try.
    """
    place = fraction @ lattice
    enough = 1.001 * np.linalg.norm(lattice)
    first = (N_NEAREST * 3 / (4 * np.pi) * abs(np.linalg.det(lattice)) / len(place)) ** (1 / 3)
    radius = np.full(len(place), min(first, enough))
    done: dict[int, tuple] = {}
    n_candidates = 0
    while to_do := [site for site in range(len(place)) if site not in done]:
        neighbour, image, tree = _points(fraction[to_do], radius[to_do].max(), fraction, lattice)
        for site in to_do:
            near = np.array(tree.query_ball_point(place[site], radius[site]))
            if (n_candidates := n_candidates + len(near)) > MAX_CANDIDATES:
                raise Unsuitable(
                    "crystal too large", f"more than {MAX_CANDIDATES:,} neighbours to try"
                )
            difference = tree.data[near] - place[site]
            square = np.einsum("ij,ij->i", difference, difference)
            if (square < MIN_DISTANCE**2).sum() > 1:
                raise Unsuitable(
                    "sites on one another", f"{np.sqrt(np.partition(square, 1)[1]):.3g} Å apart"
                )
            other = square > 0
            near, difference, square = near[other], difference[other], square[other]
            faces, meeting, vertex, reach = _dual_hull(difference * (2 / square)[:, None])
            if 2 * reach <= radius[site]:
                face = near[faces]
                done[site] = (
                    np.full(len(face), site),
                    neighbour[face],
                    image[face],
                    difference[faces],
                    meeting,
                    vertex,
                )
            elif radius[site] >= enough:
                raise Unsuitable("no tessellation", f"the cell of site {site + 1} is open")
            else:
                radius[site] = min(2 * reach * (1 + 1e-9), 2 * radius[site], enough)
    parts = [list(part) for part in zip(*(done[site] for site in range(len(place))), strict=True)]
    offset = np.cumsum([0, *map(len, parts[0][:-1])])
    parts[4] = [meeting + before for meeting, before in zip(parts[4], offset, strict=True)]
    return _Hulls(*map(np.concatenate, parts))


def _points(centres: np.ndarray, radius: float, fraction: np.ndarray, lattice: np.ndarray) -> tuple:
    """Find all images of sites that may be within a radius of some positions.

    Args:
        centres: (n, 3) the positions, in lattice vectors.
        radius: the radius in Å.
        fraction: (n_sites, 3) positions of the sites, in lattice vectors.
        lattice: (3, 3) lattice vectors in Å.

    Returns:
        The site of each point (n_points,), its image (n_points, 3), and a k-d tree of the points in
        Å.
    """
    from scipy.spatial import cKDTree

    reach = radius * np.linalg.norm(np.linalg.inv(lattice), axis=0)  # (3,) in lattice vectors
    low, high = centres.min(0) - reach, centres.max(0) + reach
    first, last = np.floor(low), np.floor(high)
    n_points = len(fraction) * np.prod(last - first + 1)
    if n_points > MAX_POINTS:
        raise Unsuitable(
            "crystal too large",
            f"{n_points:.3g} images of sites to search, more than {MAX_POINTS:,}",
        )
    steps = [np.arange(start, stop + 1) for start, stop in zip(first, last, strict=True)]
    shift = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    spread = (fraction + shift[:, None]).reshape(-1, 3)
    near = np.flatnonzero(((spread >= low) & (spread <= high)).all(1))
    neighbour, image = near % len(fraction), shift[near // len(fraction)]
    return neighbour, image, cKDTree((fraction @ lattice)[neighbour] + image @ lattice)


def _dual_hull(dual: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Compute the hull of dual points (n, 3) in 1/Å.

    Returns:
        The points that are faces of the cell (n_faces,); the three faces that meet in each vertex
        (n_vertices, 3); the vertices (n_vertices, 3) in Å; and the distance in Å of the farthest
        vertex, infinite if the cell is open.
    """
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(dual)
    except (QhullError, ValueError):
        # too few points, or all in a plane
        return np.zeros(0, int), np.zeros((0, 3), int), np.zeros((0, 3)), np.inf
    normal, offset = hull.equations[:, :3], hull.equations[:, 3]
    meeting = np.searchsorted(hull.vertices, hull.simplices)
    if offset.max() >= 0:
        return hull.vertices, meeting, normal, np.inf
    vertex = normal / -offset[:, None]
    return hull.vertices, meeting, vertex, np.sqrt(np.einsum("ij,ij->i", vertex, vertex).max())


def _areas(hulls: _Hulls) -> np.ndarray:
    """Compute the areas of all faces (n_faces,) in Å².

    The vertices of a face are sorted by their angle around its middle.
    """
    face = hulls.meeting.ravel()
    vertex = np.repeat(hulls.vertex, 3, axis=0)
    count = np.bincount(face)
    sums = np.stack([np.bincount(face, vertex[:, axis]) for axis in range(3)], axis=1)
    middle = sums / count[:, None]
    normal = hulls.difference / np.linalg.norm(hulls.difference, axis=1)[:, None]
    across = np.cross(normal, np.eye(3)[np.abs(normal).argmin(1)])
    across /= np.linalg.norm(across, axis=1)[:, None]
    arm = vertex - middle[face]
    x = np.einsum("ij,ij->i", arm, across[face])
    y = np.einsum("ij,ij->i", arm, np.cross(normal, across)[face])
    order = np.lexsort((np.arctan2(y, x), face))
    x, y = x[order], y[order]
    last = np.cumsum(count) - 1
    first = last - count + 1
    after = np.arange(1, len(x) + 1)
    after[last] = first
    return np.add.reduceat(x * y[after] - x[after] * y, first) / 2
