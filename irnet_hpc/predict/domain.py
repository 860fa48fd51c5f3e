"""Domain: what a model has seen, and which candidates lie outside of it.

Outside is a composition with an element that no training row has, which is exact, or one that is far from every training
row. The distance is that to the nearest training row among the first principal components of the standardised features
(Janet et al., Chem. Sci. 10, 7913 (2019) on distances as a measure of trust), in units of the distance below which 95 % of
the val rows lie: a candidate beyond 1 is as lonely as one in twenty of random rows. Ranges of features and the Mahalanobis
distance to their mean were tried and told held-out chemistry apart far worse (docs/prediction.md).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from irnet_hpc.data.formulas import elements_in
from irnet_hpc.pack.store import SLAB_ROWS, Pack, reporting
from irnet_hpc.runs.spec import RunSpec

if TYPE_CHECKING:
    from scipy.spatial import cKDTree


N_COMPONENTS = 12
FITTED_ROWS = 20_000  # training rows from which means and components are taken; rows of a pack are in random order
NEIGHBOUR_ROWS = 100_000  # training rows among which the nearest is looked for
LIMIT_ROWS = 10_000  # val rows that set the limit
LIMIT = 0.95  # of which this share is inside
NEARER = 1.0  # the neighbour found is at most twice as far as the nearest, which is several times as fast and ranks as well
CLIP = 6.0  # standard deviations


class Domain(NamedTuple):
    elements: frozenset[str]  # symbols
    mean: np.ndarray  # (n_features,) float32
    scale: np.ndarray  # (n_features,) float32, infinite where a feature does not vary
    axes: (
        np.ndarray
    )  # (n_features, n_components) float32, principal axes of the standardised features
    tree: "cKDTree"  # of the training rows' components
    limit: float  # distance that is called 1

    def distance(self, x: np.ndarray) -> np.ndarray:
        """(n_rows,) from features as packed (n_rows, n_features); 1 is the limit."""
        nearest, _ = self.tree.query(self.project(x), eps=NEARER)
        return nearest / self.limit

    def project(self, x: np.ndarray) -> np.ndarray:
        return np.clip((x - self.mean) / self.scale, -CLIP, CLIP) @ self.axes


def domain_of(pack: Pack, spec: RunSpec) -> Domain:
    """The domain of a run, from the pack that it was trained on."""
    from scipy.spatial import cKDTree

    train = reporting(pack, spec.property, pack.rows("train"))[: spec.train_rows]
    x = _features(pack, train[:FITTED_ROWS])
    mean, scale = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    scale[scale <= 1e-7 * np.abs(mean)] = np.inf  # what does not vary has no direction
    standard = np.clip((x - mean) / scale, -CLIP, CLIP)
    _, axes = np.linalg.eigh(np.atleast_2d(np.cov(standard, rowvar=False)))
    domain = Domain(
        _elements(pack, train), *map(np.float32, (mean, scale, axes[:, -N_COMPONENTS:])), None, 1.0
    )
    domain = domain._replace(
        tree=cKDTree(np.concatenate([*_projected(domain, pack, train[:NEIGHBOUR_ROWS])]))
    )
    val = reporting(pack, spec.property, pack.rows("val"))[:LIMIT_ROWS]
    # Without val rows the limit is that among the training rows themselves, each to its nearest but itself.
    lonely = (
        domain.tree.query(np.concatenate([*_projected(domain, pack, val)]), eps=NEARER)[0]
        if len(val)
        else domain.tree.query(domain.tree.data[:LIMIT_ROWS], k=2)[0][:, -1]
    )
    return domain._replace(limit=max(float(np.quantile(lonely, LIMIT)), np.finfo(np.float32).tiny))


def _projected(domain: Domain, pack: Pack, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Slab by slab, so that a wide pack is never held whole."""
    for begin in range(0, len(rows), SLAB_ROWS // 8):
        yield domain.project(_features(pack, rows[begin : begin + SLAB_ROWS // 8]))


def _features(pack: Pack, rows: np.ndarray) -> np.ndarray:
    """(n_rows, n_features) float32 of ascending row numbers that lie close together."""
    return pack.x(slice(int(rows[0]), int(rows[-1]) + 1))[rows - rows[0]]


def _elements(pack: Pack, rows: np.ndarray) -> frozenset[str]:
    formulas = pack.formulas(slice(int(rows[0]), int(rows[-1]) + 1))
    return elements_in(formulas[row - rows[0]] for row in rows)
