"""Feature sets: name -> version, labels, and a pure batched function from materials to a matrix of features.

`magpie` is the 145 features of Ward et al., npj Comput. Mater. 2, 16028 (2016), through matminer; `elements` the 86 atomic
fractions of ElemNet; `structure` the 126 features of crystals of Ward et al., Phys. Rev. B 96, 024104 (2017); `columns` the
user's own numeric columns; `asph`, experimental, the persistent homology of the crystal structure after Jiang et al.,
npj Comput. Mater. 7, 28 (2021). Sums such as `magpie+structure` stand side by side.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from irnet_hpc import homology, magpie, ward2017
from irnet_hpc.crystals import Crystal, Unsuitable
from irnet_hpc.errors import UserError, choose
from irnet_hpc.formulas import NUMBER, SYMBOLS
from irnet_hpc.materials import Materials
from irnet_hpc.workers import in_order

LEFT_OUT = {"He", "Ne", "Ar", "Po", "At", "Rn", "Fr", "Ra"}
# The 86 elements of the papers: symbol -> atomic number.
ELEMENTS = {symbol: NUMBER[symbol] for symbol in SYMBOLS[: NUMBER["Pu"]] if symbol not in LEFT_OUT}
BLOCK_ROWS = 1024  # featurised at a time; the content does not depend on it
WORKER_START_S = 4.0  # a process that imports what features need; one is worth starting only for more work than that


class Described(NamedTuple):
    """Features of a block of materials."""

    x: np.ndarray  # (n_rows, n_features)
    unsuited: dict[int, tuple[str, str]]  # row -> reason and detail, of the rows that have no features


class FeatureSet(NamedTuple):
    version: int  # raised when the numbers change; enters a pack's identity
    labels: Callable[[Materials], list[str]]
    describe: Callable[[Materials], Described]  # float64
    elements: frozenset[int] | None  # atomic numbers it knows; None: any
    of_formula: bool  # whether it is a function of the formula alone, so that a formula needs one row only
    of_structure: bool  # whether it needs a crystal
    row_s: float  # about how long a row takes on one core
    experimental: str = ""  # where not empty: what a user of the set should know


def labels(names: Sequence[str], materials: Materials) -> list[str]:
    """The labels of a sum of feature sets. Raises UserError where one stands twice, or a set has none."""
    found = [label for name in names for label in FEATURE_SETS[name].labels(materials)]
    twice = sorted(label for label, count in Counter(found).items() if count > 1)
    if twice:
        raise UserError(
            f"feature labels must differ, however: {', '.join(twice[:5])} stands twice in {'+'.join(names)}"
        )
    return found


def parse(text: str) -> tuple[str, ...]:
    """The names of a sum. Raises UserError for an unknown or repeated one.

    >>> parse("magpie+elements")
    ('magpie', 'elements')
    """
    names = tuple(choose("feature set", name, FEATURE_SETS) for name in text.split("+"))
    if len(set(names)) < len(names):
        raise UserError(f"each feature set may stand once in a sum, however: {text!r}")
    return names


def cautions(names: Sequence[str]) -> list[str]:
    """One line for each experimental set."""
    return [
        f"feature set {name} is experimental: {said}" for name in names if (said := FEATURE_SETS[name].experimental)
    ]


def unknown_elements(names: Sequence[str], materials: Materials) -> dict[int, str]:
    """Row -> the symbols of those of its elements that a set does not know."""
    known = [FEATURE_SETS[name].elements for name in names if FEATURE_SETS[name].elements is not None]
    if not known:
        return {}
    foreign = ~np.isin(materials.number, list(frozenset.intersection(*known)))
    rows = materials.row_of_amount
    found: dict[int, list[str]] = {}
    for place in np.flatnonzero(foreign):
        found.setdefault(int(rows[place]), []).append(SYMBOLS[materials.number[place] - 1])
    return {row: ", ".join(symbols) for row, symbols in found.items()}


def describe(names: Sequence[str], materials: Materials) -> Described:
    """The features of a sum of sets, side by side in float32; rows that have none, or whose are not finite, are unsuited."""
    parts = [FEATURE_SETS[name].describe(materials) for name in names]
    with np.errstate(over="ignore"):
        x = np.concatenate([part.x for part in parts], axis=1).astype(np.float32)
    unsuited = {int(row): ("features not finite", "") for row in np.flatnonzero(~np.isfinite(x).all(1))}
    for part in reversed(parts):  # the first set's reason counts
        unsuited |= part.unsuited
    return Described(x, unsuited)


def worthwhile_workers(names: Sequence[str], n_rows: int, most: int) -> int:
    """How many processes finish first: for features of formulas one, up to millions of rows."""
    work_s = n_rows * sum(FEATURE_SETS[name].row_s for name in names)
    return max(1, min(most, int(work_s / WORKER_START_S)))


def blocks(names: Sequence[str], materials: Materials, workers: int) -> Iterator[Described]:
    """The rows of `describe` in their order, block by block, computed by that many processes."""
    starts = range(0, len(materials), BLOCK_ROWS)
    batches = (materials.take(np.arange(start, min(start + BLOCK_ROWS, len(materials)))) for start in starts)
    yield from in_order(functools.partial(describe, names), batches, min(workers, len(starts)))


def _elements(materials: Materials) -> Described:
    """(n_rows, 86) float64: atomic fractions."""
    column = np.zeros(max(ELEMENTS.values()) + 1, np.int64)
    column[list(ELEMENTS.values())] = np.arange(len(ELEMENTS))
    x = np.zeros((len(materials), len(ELEMENTS)))
    row = materials.row_of_amount
    total = np.bincount(row, materials.amount, minlength=len(materials))
    x[row, column[materials.number]] = materials.amount / total[row]
    return Described(x, {})


def _column_labels(materials: Materials) -> list[str]:
    if not materials.column_labels:
        raise UserError(
            "feature set 'columns' is the table's own numeric columns, but it has none besides its properties"
        )
    return list(materials.column_labels)


def _each_crystal(vector: Callable[[Crystal], np.ndarray], labels: Sequence[str], materials: Materials) -> Described:
    """(n_rows, n_features) float64: `vector` of each row's crystal; rows without one, or where it raises, are unsuited."""
    x = np.full((len(materials), len(labels)), np.nan)
    unsuited: dict[int, tuple[str, str]] = {}
    if materials.crystals is None:
        return Described(x, dict.fromkeys(range(len(materials)), ("no structure", "")))
    for row in range(len(materials)):
        if not materials.crystals.n_sites[row]:
            unsuited[row] = materials.crystals.lacking[row]
            continue
        try:
            x[row] = vector(materials.crystals[row])
        except Unsuitable as error:
            unsuited[row] = error.args
    return Described(x, unsuited)


FEATURE_SETS = {
    "magpie": FeatureSet(
        1,
        lambda _: list(magpie.LABELS),
        lambda materials: Described(magpie.matrix(materials), {}),
        None,
        of_formula=True,
        of_structure=False,
        row_s=2e-6,
    ),
    "elements": FeatureSet(
        1,
        lambda _: list(ELEMENTS),
        _elements,
        frozenset(ELEMENTS.values()),
        of_formula=True,
        of_structure=False,
        row_s=1e-6,
    ),
    "structure": FeatureSet(
        1,
        lambda _: list(ward2017.LABELS),
        lambda materials: _each_crystal(ward2017.vector, ward2017.LABELS, materials),
        None,
        of_formula=False,
        of_structure=True,
        row_s=2.5e-3,
    ),
    "columns": FeatureSet(
        1,
        _column_labels,
        lambda materials: Described(materials.columns, {}),
        None,
        of_formula=False,
        of_structure=False,
        row_s=0,
    ),
    "asph": FeatureSet(
        1,
        lambda _: list(homology.LABELS),
        lambda materials: _each_crystal(homology.vector, homology.LABELS, materials),
        None,
        of_formula=False,
        of_structure=True,
        row_s=0.07,
        experimental="it follows its paper in part, and its numbers may change; docs/homology.md",
    ),
}
