"""Estimate the memory that the process of a cell holds on a CPU, where the matrix states none.

    a network         = libraries + rows * features * type + weights, moments and activations
    a classical model = libraries + rows * features * (8 + copies) + fitted rows * what a row costs

The numbers are upper bounds of measured peaks (`peak_memory_gb` of results), so that cells that are
trained side by side do not exceed the memory that there is. docs/performance.md has the comparison.
On a GPU, nothing was measured.
"""

from collections.abc import Hashable
from typing import NamedTuple

from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.sweep.bundles import Bundle, replica_gb
from irnet_hpc.sweep.cell_attempt import n_ranks_of
from irnet_hpc.sweep.context import SweepContext
from irnet_hpc.sweep.matrix.matrix import Cell
from irnet_hpc.sweep.matrix.packs import MatrixPack
from irnet_hpc.train.kept_rows import MAX_KEPT

GB = 2**30
# A process with nothing loaded: 0.4 GiB with torch alone; 0.54 in a worker's process that has also
# fitted a classical model and kept it (scikit-learn 1.9.1, skops 0.16.0).
LIBRARIES_GB = 0.65
# What a network takes over the estimate of a replica (bundles.py): buffers of the products, and
# memory that is freed but kept.
NETWORK = 1.2
# Precision -> bytes of a value of the rows: while they are held, and at most while they are loaded.
ROW_BYTES = {"fp32": (4, 4), "bf16": (4, 4), "fp64": (8, 12)}


class Classical(NamedTuple):
    """Estimate the memory that a classical model takes besides its rows."""

    # Bytes of a value of the rows: float64, the float32 that it was read as, and copies of a fit.
    value: float
    # Bytes of a row that the model is fitted on: the trees of two points of the grid, the second of
    # which is fitted while the first is kept.
    row: float = 0.0
    # GiB of a fit, whatever its rows: a cache, a network.
    fit_gb: float = 0.0


# A node of a scikit-learn tree has 72 bytes: a row costs 91 bytes of each tree where rows are drawn
# and 144 where all are used (1.9). Of two points of a grid 100 trees each are alive.
CLASSICAL = {
    "linear": Classical(30),
    "ridge": Classical(22),
    "elastic_net": Classical(24),
    "sgd": Classical(16),
    "svr": Classical(24, fit_gb=1.0),
    "decision_tree": Classical(24, 800),
    "adaboost": Classical(24, 10_000),
    "bagging": Classical(24, 26_000),
    "extra_trees": Classical(24, 36_000),
    "random_forest": Classical(24, 24_000),
    "boosted_trees": Classical(24, 200, fit_gb=0.2),
    "tabm": Classical(24, fit_gb=1.0),
}
# The memory that is kept free for a cell, over the most that a cell of its kind has held.
MARGIN = 1.5


class MemoryNeeds:
    """The memory that the cells of a sweep may take on this machine.

    Args:
        context: The sweep, whose packs are built.
        has_gpu: True if cells are trained on a GPU, except those that ask for none.
    """

    def __init__(self, context: SweepContext, has_gpu: bool) -> None:
        self.context, self.has_gpu = context, has_gpu
        # Kind of bundle -> the most memory (GiB) that a rank of one has held here.
        self._peak_gb: dict[Hashable, float] = {}
        self._estimates: dict[Hashable, float | None] = {}
        self._packs = {pack.name: pack for pack in context.matrix.packs}
        # Pack -> what a worker may keep of it between cells -> GiB (train/kept_rows.py).
        self._kept: dict[str, dict[Hashable, float]] = {}
        for cell in context.matrix.cells:
            pack = self._packs.get(cell.spec.pack)
            if pack and pack.exists:
                kept = self._kept.setdefault(pack.name, {})
                key = _dataset_of(cell)
                if key not in kept:
                    kept[key] = _rows_gb(cell, pack, held=True)

    def gb(self, bundle: Bundle) -> float:
        """Return the memory (GiB) that a bundle may take, over all its ranks.

        It is what the matrix states, else the estimate. Once a bundle of the kind has been trained
        here, its peak counts if that is less than stated, or other than estimated.
        """
        first = bundle[0]
        expected_gb = None if first.cell.states_memory else self.estimated_gb(bundle)
        asked_gb = first.cell.resources.memory_gb if expected_gb is None else expected_gb
        peak_gb = self._peak_gb.get(_kind(bundle))
        if peak_gb is None:
            return asked_gb
        n_ranks = n_ranks_of(first, self.context)
        measured_gb = n_ranks * (MARGIN * peak_gb + self._kept_gb(first.cell))
        if expected_gb is not None and n_ranks * peak_gb > expected_gb:
            return measured_gb
        return min(asked_gb, measured_gb)

    def estimated_gb(self, bundle: Bundle) -> float | None:
        """Estimate the memory (GiB) of a bundle, over all its ranks.

        Rows of other cells that a worker keeps are included. Returns None on a GPU, and if the pack
        is not built.
        """
        n_ranks = n_ranks_of(bundle[0], self.context)
        # Thousands of cells may wait, of which many are alike.
        alike = _kind(bundle), n_ranks, self._is_on_gpu(bundle[0].cell)
        if alike not in self._estimates:
            self._estimates[alike] = self._estimate(bundle, n_ranks)
        return self._estimates[alike]

    def _estimate(self, bundle: Bundle, n_ranks: int) -> float | None:
        cell = bundle[0].cell
        pack = self._packs.get(cell.spec.pack)
        if self._is_on_gpu(cell) or pack is None or not pack.exists:
            return None
        own_gb = _model_gb(cell, pack, n_ranks) * len(bundle) + _rows_gb(cell, pack)
        return n_ranks * (LIBRARIES_GB + own_gb + self._kept_gb(cell))

    def note_peak(self, bundle: Bundle, peak_gb: float) -> None:
        """Note the most memory (GiB) that a rank of a bundle has held; 0: unknown."""
        # On a GPU, the peak is that of the GPU's memory.
        if peak_gb and not self._is_on_gpu(bundle[0].cell):
            kind = _kind(bundle)
            self._peak_gb[kind] = max(self._peak_gb.get(kind, 0.0), peak_gb)

    def _is_on_gpu(self, cell: Cell) -> bool:
        return bool(cell.resources.gpus_per_rank) or (self.has_gpu and not cell.resources.cpu_only)

    def _kept_gb(self, cell: Cell) -> float:
        """Estimate the memory (GiB) of rows that a worker keeps from other cells of the pack."""
        own, kept = _dataset_of(cell), self._kept.get(cell.spec.pack, {})
        others = sorted((gb for key, gb in kept.items() if key != own), reverse=True)
        return sum(others[: MAX_KEPT - 1])


def _kind(bundle: Bundle) -> Hashable:
    """Return what decides the memory of a bundle: all but the seed and the number of threads."""
    spec = bundle[0].cell.spec
    return (
        *(spec.pack, spec.properties, spec.model, spec.recipe, spec.protocol, spec.train_rows),
        len(bundle),
    )


def _dataset_of(cell: Cell) -> Hashable:
    """Return what decides the rows that a cell loads from its pack, as dataset.load does."""
    spec, recipe = cell.spec, cell.recipe
    kind = recipe.precision if isinstance(recipe, Recipe) else ""
    scaling = (recipe.features, recipe.clip, recipe.target)
    return (spec.properties, spec.protocol, spec.train_rows, scaling, kind == "fp64" or not kind)


def _rows_gb(cell: Cell, pack: MatrixPack, held: bool = False) -> float:
    """Estimate the memory (GiB) of the rows of a cell.

    Args:
        cell: The cell.
        pack: Its pack.
        held: True to leave out the copies that loading and a fit make.
    """
    spec, recipe = cell.spec, cell.recipe
    n_rows = _n_train(cell, pack) + _n_reporting(cell, pack, "test")
    n_rows += 0 if spec.protocol == "paper" else _n_reporting(cell, pack, "val")
    if isinstance(recipe, Recipe):
        n_bytes = float(ROW_BYTES[recipe.precision][not held])
    else:
        n_bytes = 8.0 if held else CLASSICAL[spec.architecture].value
    return n_rows * pack.n_features * n_bytes / GB


def _n_train(cell: Cell, pack: MatrixPack) -> int:
    """Count the training rows of a cell, at most."""
    spec = cell.spec
    n_rows = _n_reporting(cell, pack, "train")
    n_rows += _n_reporting(cell, pack, "val") if spec.protocol == "paper" else 0
    return min(n_rows, spec.train_rows or n_rows)


def _n_reporting(cell: Cell, pack: MatrixPack, role: str) -> int:
    """Count the rows of a role that report a property of the cell, at most."""
    reporting = (pack.reported.get(name, pack.n_rows)[role] for name in cell.spec.properties)
    return min(pack.n_rows[role], sum(reporting))


def _model_gb(cell: Cell, pack: MatrixPack, n_ranks: int) -> float:
    """Estimate the memory (GiB) of a cell's model and its training on each rank."""
    spec, recipe = cell.spec, cell.recipe
    if isinstance(recipe, Recipe):
        return NETWORK * replica_gb(spec, recipe, pack.n_features, n_ranks)
    n_fitted = recipe.fitted_rows(_n_train(cell, pack))
    costs = CLASSICAL[spec.architecture]
    return n_fitted * costs.row / GB + costs.fit_gb
