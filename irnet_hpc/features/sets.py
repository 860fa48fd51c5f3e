"""FEATURE_SETS: name -> version, labels, and a pure function from materials to features.

magpie      the 145 features of Ward et al., npj Comput. Mater. 2, 16028 (2016), through matminer
elements    the 86 atomic fractions of ElemNet
ordered     the elements of a compound in order, each with its properties (ordered.py)
classes     the elements of a compound, each with the class of its fraction (ordered.py)
structure   the 126 features of crystals of Ward et al., Phys. Rev. B 96, 024104 (2017); the
            size of the cell does not change them
volume      volume per atom, density and two ratios, which the size of the cell changes
columns     the user's own numeric columns
asph        experimental: persistent homology of the crystal after Jiang et al., npj Comput. Mater.
            7, 28 (2021)

A sum such as `magpie+structure` has the columns of its sets side by side.
"""

import functools
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from irnet_hpc.data.crystals import Crystal, Unsuitable
from irnet_hpc.data.elements import NUMBER, SYMBOLS
from irnet_hpc.data.materials import Materials
from irnet_hpc.distributed.worker_pool import LeftOut, at, in_order
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.features import homology, magpie, ordered, volume
from irnet_hpc.features import structure as ward2017

LEFT_OUT = {"He", "Ne", "Ar", "Po", "At", "Rn", "Fr", "Ra"}
# The 86 elements of the papers: symbol -> atomic number.
ELEMENTS = {symbol: NUMBER[symbol] for symbol in SYMBOLS[: NUMBER["Pu"]] if symbol not in LEFT_OUT}
# Rows are computed in blocks of at most this much work on one core and this many rows. Finished
# blocks are kept if the process is killed. The features do not depend on the blocks.
BLOCK_S = 3.0
BLOCK_ROWS = 1024
LIMIT_S = 60.0  # time limit of one crystal
# A worker takes this long for its imports, so it is started only if the work takes longer.
WORKER_START_S = 4.0


class Described(NamedTuple):
    """The features of a block of materials."""

    x: np.ndarray  # (n_rows, n_features)
    unsuited: dict[int, tuple[str, str]]  # row without features -> reason and detail


class FeatureSet(NamedTuple):
    """A feature set: how to compute its columns, and their names."""

    version: int  # raised when the numbers change; enters a pack's identity
    labels: Callable[[Materials], list[str]]
    describe: Callable[[Materials], Described]  # float64
    row_s: float  # about how long a row takes on one core
    # True: the features depend only on the formula, so one row per formula is enough.
    of_formula: bool = False
    of_structure: bool = False  # True: needs a crystal
    elements: frozenset[int] | None = None  # atomic numbers that the set supports; None: any
    # Time limit of a row, beyond which it has no features. Such a set calls worker_pool.at(row).
    limit_s: float | None = None
    libraries: tuple[str, ...] = ()  # whose versions are recorded in a pack
    extra: str = ""  # extra that installs the libraries; "": always installed
    experimental: str = ""  # what a user of the set should know; "": nothing
    tells: tuple[str, ...] = ()  # properties that the features state, so that they test nothing


def feature_labels(names: Sequence[str], materials: Materials) -> list[str]:
    """Return the labels of a sum of feature sets.

    Args:
        names: the names of the feature sets.
        materials: the materials, whose column labels become the labels of the set `columns`.

    Raises:
        UserError: if a label repeats, or if a set has no labels.
    """
    labels = [label for name in names for label in FEATURE_SETS[name].labels(materials)]
    twice = sorted(label for label, count in Counter(labels).items() if count > 1)
    if twice:
        raise UserError(
            f"feature labels must differ, got {', '.join(twice[:5])} twice in {'+'.join(names)}"
        )
    return labels


def parse_feature_sets(text: str) -> tuple[str, ...]:
    """Parse a sum of feature sets into names. Raises UserError for an unknown or repeated one.

    >>> parse_feature_sets("magpie+elements")
    ('magpie', 'elements')
    """
    if not isinstance(text, str):
        raise UserError(f"features must be a string such as 'magpie+elements', got {text!r:.80}")
    names = tuple(check_choice("feature set", name, FEATURE_SETS) for name in text.split("+"))
    if len(set(names)) < len(names):
        raise UserError(f"each feature set may occur only once in a sum, got {text!r}")
    return names


def check_installed(names: Sequence[str]) -> None:
    """Check that the libraries of the feature sets are installed. Raises UserError if not."""
    for name in names:
        extra = FEATURE_SETS[name].extra
        for library in FEATURE_SETS[name].libraries if extra else ():
            if not _is_installed(library):
                raise UserError(
                    f"feature set {name} needs {library}, which is not installed; "
                    f"pip install 'irnet_hpc[{extra}]'"
                )


def _is_installed(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ImportError:
        return False


def need_structures(names: Sequence[str]) -> bool:
    """Tell whether any of the sets needs crystals."""
    return any(FEATURE_SETS[name].of_structure for name in names)


def experimental_notes(names: Sequence[str]) -> list[str]:
    """Return a warning for each of the sets that is experimental."""
    notes = {name: FEATURE_SETS[name].experimental for name in names}
    return [f"feature set {name} is experimental: {note}" for name, note in notes.items() if note]


def unknown_elements(names: Sequence[str], materials: Materials) -> dict[int, str]:
    """Return row -> symbols of the row's elements that at least one of the sets does not know."""
    known = [elements for name in names if (elements := FEATURE_SETS[name].elements) is not None]
    if not known:
        return {}
    is_unknown = ~np.isin(materials.number, list(frozenset.intersection(*known)))
    rows = materials.row_of_amount
    symbols: dict[int, list[str]] = {}
    for place in np.flatnonzero(is_unknown):
        symbols.setdefault(int(rows[place]), []).append(SYMBOLS[materials.number[place] - 1])
    return {row: ", ".join(of_row) for row, of_row in symbols.items()}


def describe(
    names: Sequence[str], materials: Materials, left_out: LeftOut | None = None
) -> Described:
    """Compute the features of all the sets, side by side.

    Args:
        names: the names of the feature sets.
        materials: n_rows materials.
        left_out: the rows that must not be computed, as row -> (reason, detail).

    Returns:
        The features (n_rows, n_features) float32, and the rows without features; in these rows,
        numbers are NaN or infinite.
    """
    if left_out:
        return _describe_but(left_out, names, materials)
    parts = []
    for name in names:
        at(None)
        parts.append(FEATURE_SETS[name].describe(materials))
    with np.errstate(over="ignore"):
        x = np.concatenate([part.x for part in parts], axis=1).astype(np.float32)
    unsuited = {
        int(row): ("features not finite", "") for row in np.flatnonzero(~np.isfinite(x).all(1))
    }
    # If several sets give a reason, the first set's reason counts.
    for part in reversed(parts):
        unsuited |= part.unsuited
    return Described(x, unsuited)


def _describe_but(left_out: LeftOut, names: Sequence[str], materials: Materials) -> Described:
    """Compute the features of all rows except those in `left_out`, whose features are NaN."""
    rest = np.setdiff1d(np.arange(len(materials)), list(left_out))
    described = describe(names, materials.take(rest))
    x = np.full((len(materials), described.x.shape[1]), np.nan, np.float32)
    x[rest] = described.x
    unsuited = {int(rest[row]): reason for row, reason in described.unsuited.items()}
    return Described(x, dict(left_out) | unsuited)


def worthwhile_workers(names: Sequence[str], n_rows: int, max_workers: int) -> int:
    """Return the number of processes that is fastest, at most `max_workers`.

    For sets of formulas this is one, unless there are millions of rows.
    """
    work_s = n_rows * sum(FEATURE_SETS[name].row_s for name in names)
    return max(1, min(max_workers, int(work_s / WORKER_START_S)))


def block_rows(names: Sequence[str]) -> int:
    """Return the number of rows in a block of work; it depends only on the feature sets."""
    row_s = sum(FEATURE_SETS[name].row_s for name in names)
    return max(1, min(BLOCK_ROWS, int(BLOCK_S / row_s) if row_s else BLOCK_ROWS))


def describe_batches(
    names: Sequence[str], batches: Iterable[Materials], workers: int
) -> Iterator[Described]:
    """Describe the batches with `workers` processes, and yield the results in order.

    Raises UserError if a library is missing.
    """
    check_installed(names)
    limits = [limit_s for name in names if (limit_s := FEATURE_SETS[name].limit_s) is not None]
    yield from in_order(
        functools.partial(describe, names), batches, workers, min(limits, default=None)
    )


def _elements(materials: Materials) -> Described:
    """Compute the atomic fractions, (n_rows, 86) float64."""
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
            "feature set 'columns' is the table's own numeric columns, "
            "but this table has none besides its properties"
        )
    return list(materials.column_labels)


@functools.cache
def _warm_up(vector: Callable[[Crystal], np.ndarray]) -> None:
    """Call `vector` once, so that its imports do not count against the time limit of a row."""
    vector(Crystal(3 * np.eye(3), np.array([NUMBER["Po"]], np.int16), np.zeros((1, 3))))


def _of_crystals(
    version: int,
    labels: Sequence[str],
    vector: Callable[[Crystal], np.ndarray],
    row_s: float,
    **fields: Any,
) -> FeatureSet:
    """Make a feature set from a function that computes the features of one crystal.

    Args:
        version: the version of the set.
        labels: the names of the features.
        vector: returns the features of a crystal (n_features,), or raises Unsuitable.
        row_s: the seconds that a crystal takes on one core, approximately.
        **fields: further fields of FeatureSet.
    """

    def describe(materials: Materials) -> Described:
        x = np.full((len(materials), len(labels)), np.nan)
        if materials.crystals is None:
            return Described(x, dict.fromkeys(range(len(materials)), ("no structure", "")))
        _warm_up(vector)
        unsuited: dict[int, tuple[str, str]] = {}
        for row in range(len(materials)):
            at(row)
            if not materials.crystals.n_sites[row]:
                unsuited[row] = materials.crystals.problem[row]
                continue
            try:
                x[row] = vector(materials.crystals[row])
            except Unsuitable as error:
                reason, detail = error.args
                unsuited[row] = (reason, detail)
        return Described(x, unsuited)

    return FeatureSet(
        version,
        lambda _: list(labels),
        describe,
        row_s,
        of_structure=True,
        limit_s=LIMIT_S,
        **fields,
    )


FEATURE_SETS = {
    "magpie": FeatureSet(
        1,
        lambda _: list(magpie.LABELS),
        lambda materials: Described(magpie.matrix(materials), {}),
        row_s=2e-6,
        of_formula=True,
        libraries=("matminer", "pymatgen"),
    ),
    "elements": FeatureSet(
        1,
        lambda _: list(ELEMENTS),
        _elements,
        row_s=1e-6,
        of_formula=True,
        elements=frozenset(ELEMENTS.values()),
    ),
    "ordered": FeatureSet(
        1,
        lambda _: list(ordered.LABELS),
        lambda materials: Described(ordered.matrix(materials, tuple(ELEMENTS.values())), {}),
        row_s=1e-6,
        of_formula=True,
        libraries=("matminer", "pymatgen"),
    ),
    "classes": FeatureSet(
        1,
        lambda _: ordered.class_labels(ELEMENTS),
        lambda materials: Described(ordered.classes(materials, tuple(ELEMENTS.values())), {}),
        row_s=2e-6,
        of_formula=True,
        elements=frozenset(ELEMENTS.values()),
        libraries=("matminer", "pymatgen"),
    ),
    "structure": _of_crystals(
        1,
        ward2017.LABELS,
        ward2017.vector,
        row_s=2.5e-3,
        libraries=("matminer", "pymatgen", "scipy"),
    ),
    "volume": _of_crystals(
        1,
        volume.LABELS,
        volume.vector,
        row_s=1e-4,
        libraries=("matminer", "pymatgen"),
        tells=volume.TELLS,
    ),
    "columns": FeatureSet(
        1, _column_labels, lambda materials: Described(materials.columns, {}), row_s=0
    ),
    "asph": _of_crystals(
        1,
        homology.LABELS,
        homology.vector,
        row_s=0.07,
        libraries=("gudhi",),
        extra="homology",
        experimental="it differs from its paper, and its numbers may change; see docs/homology.md",
    ),
}
