"""Tell which candidates are outside the data that a model was trained on.

A composition is outside for one of three reasons: it contains an element that no training row has;
a feature that is the same in all training rows differs here, so that its effect is unknown; or it
is far from every training row. The distance is measured to the nearest training row, in the space
of the first principal components of the standardised features (Janet et al., Chem. Sci. 10, 7913
(2019) on distances as a measure of trust). The unit of distance is chosen so that 95 % of the val
rows are closer than 1; only one in twenty random rows is farther away. Two alternatives, the ranges
of the features and the Mahalanobis distance to their mean, recognised held-out chemistry far worse
(docs/prediction.md).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from irnet_hpc.data.formulas import elements_in
from irnet_hpc.pack.store import SLAB_ROWS, Pack, reported_rows
from irnet_hpc.runs.spec import RunSpec

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

N_COMPONENTS = 12
# Number of training rows that means and components are computed from. The first ones are a random
# sample, since the rows of a pack are in random order.
FITTED_ROWS = 20_000
# Number of training rows among which the nearest is searched.
NEIGHBOUR_ROWS = 100_000
# Number of val rows that set the limit, and the share of them that lies within it.
LIMIT_ROWS = 10_000
LIMIT = 0.95
# The neighbour that is found may be up to (1 + this) times as far away as the nearest one. The
# search is then several times as fast, and the distances rank candidates as well.
TREE_TOLERANCE = 1.0
# A feature has another value if it differs by more than this share, which rounding cannot explain.
RELATIVE_ROUNDING = 1e-6
# Largest absolute value of a standardised feature, in standard deviations.
CLIP = 6.0


class Projection(NamedTuple):
    """The standardisation of features, and the principal axes of standardised features."""

    mean: np.ndarray  # (n_features,) float32
    scale: np.ndarray  # (n_features,) float32, infinite where a feature does not vary
    axes: np.ndarray  # (n_features, n_components) float32

    def project(self, x: np.ndarray) -> np.ndarray:
        """Compute the components (n_rows, n_components) of features (n_rows, n_features)."""
        return np.clip((x - self.mean) / self.scale, -CLIP, CLIP) @ self.axes


class Constants(NamedTuple):
    """The features that have a single value in all training rows of a domain."""

    place: np.ndarray  # (n_constants,) int64, among the features as packed
    value: np.ndarray  # (n_constants,) float32

    def differ(self, x: np.ndarray) -> np.ndarray:
        """Tell which constants have a different value in each row, (n_rows, n_constants) bool.

        Args:
            x: (n_rows, n_features), features as packed.
        """
        return np.abs(x[:, self.place] - self.value) > RELATIVE_ROUNDING * np.abs(self.value)


class Domain(NamedTuple):
    """The training rows of a model, from which the distances of candidates are measured."""

    elements: frozenset[str]  # symbols in the training rows
    constants: Constants
    projection: Projection
    tree: "cKDTree"  # a tree of the training rows' components
    limit: float  # the distance that counts as 1

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Compute the distances (n_rows,) to the nearest training rows; rows beyond 1 are outside.

        Args:
            x: (n_rows, n_features), features as packed.
        """
        nearest, _ = self.tree.query(self.projection.project(x), eps=TREE_TOLERANCE)
        return nearest / self.limit


def domain_of(pack: Pack, spec: RunSpec) -> Domain:
    """Compute the domain of a run, from the pack that it was trained on."""
    from scipy.spatial import cKDTree

    train = reported_rows(pack, spec.property, pack.rows("train"))[: spec.train_rows]
    projection = _fit_projection(_features(pack, train[:FITTED_ROWS]))

    def project(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([*_projected(projection, pack, rows)])

    tree = cKDTree(project(train[:NEIGHBOUR_ROWS]))
    val = reported_rows(pack, spec.property, pack.rows("val"))
    if len(val):
        nearest = tree.query(project(val[:LIMIT_ROWS]), eps=TREE_TOLERANCE)[0]
    else:
        # Without val rows, take the distance of each training row to the nearest other one.
        nearest = tree.query(tree.data[:LIMIT_ROWS], k=2)[0][:, -1]
    limit = max(float(np.quantile(nearest, LIMIT)), float(np.finfo(np.float32).tiny))
    # Protocol paper trains on the val rows too. They cannot set a limit to a tree that has them.
    seen = train if spec.protocol == "honest" else np.concatenate([train, val])[: spec.train_rows]
    return Domain(_elements(pack, seen), constants_of(pack, seen), projection, tree, limit)


def _fit_projection(x: np.ndarray) -> Projection:
    mean, scale = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    # A feature that does not vary is scaled to 0.
    scale[scale <= 1e-7 * np.abs(mean)] = np.inf
    standard = np.clip((x - mean) / scale, -CLIP, CLIP)
    _, axes = np.linalg.eigh(np.atleast_2d(np.cov(standard, rowvar=False)))
    mean, scale, axes = (a.astype(np.float32) for a in (mean, scale, axes[:, -N_COMPONENTS:]))
    return Projection(mean, scale, axes)


def constants_of(pack: Pack, rows: np.ndarray) -> Constants:
    """Find the features that have a single value in all these rows. The row numbers must ascend."""
    value = _features(pack, rows[:1])[0]
    place = np.arange(len(value))
    for x in _slabs(pack, rows):
        place = place[~Constants(place, value[place]).differ(x).any(0)]
        if not len(place):
            break
    return Constants(place, value[place])


def _projected(projection: Projection, pack: Pack, rows: np.ndarray) -> Iterator[np.ndarray]:
    return map(projection.project, _slabs(pack, rows))


def _slabs(pack: Pack, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the features of rows in slabs, so that a wide pack is never in memory as a whole."""
    for begin in range(0, len(rows), SLAB_ROWS // 8):
        yield _features(pack, rows[begin : begin + SLAB_ROWS // 8])


def _features(pack: Pack, rows: np.ndarray) -> np.ndarray:
    """Read the features of rows, (n_rows, n_features) float32.

    The row numbers must ascend. They should be close together, since all rows between the first and
    the last are read.
    """
    return pack.x(slice(int(rows[0]), int(rows[-1]) + 1))[rows - rows[0]]


def _elements(pack: Pack, rows: np.ndarray) -> frozenset[str]:
    formulas = pack.formulas(slice(int(rows[0]), int(rows[-1]) + 1))
    return elements_in(formulas[row - rows[0]] for row in rows)
