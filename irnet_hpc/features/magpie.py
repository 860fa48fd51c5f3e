"""Compute Ward's 145 features for a whole table of compositions, with matminer's numbers.

Ward et al., npj Comput. Mater. 2, 16028 (2016): matminer's Stoichiometry (6), ElementProperty
"magpie" (132), ValenceOrbital averages (4) and IonProperty(fast=True) (3). The tables of element
properties come from matminer and pymatgen and are read once per process. Compounds with the same
number of elements are computed together.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.data.materials import Materials
from irnet_hpc.distributed.processes import no_warnings

NORMS = (0, 2, 3, 5, 7, 10)
STATISTICS = ("minimum", "maximum", "range", "mean", "avg_dev", "mode")
SHELLS = ("NsValence", "NpValence", "NdValence", "NfValence")
PROPERTIES = (
    *(
        "Number",
        "MendeleevNumber",
        "AtomicWeight",
        "MeltingT",
        "Column",
        "Row",
        "CovalentRadius",
        "Electronegativity",
    ),
    *(*SHELLS, "NValence", "NsUnfilled", "NpUnfilled", "NdUnfilled", "NfUnfilled", "NUnfilled"),
    *("GSvolume_pa", "GSbandgap", "GSmagmom", "SpaceGroupNumber"),
)
LABELS = [
    *(f"{norm}-norm" for norm in NORMS),
    *(f"MagpieData {statistic} {name}" for name in PROPERTIES for statistic in STATISTICS),
    *(f"avg {shell} valence electrons" for shell in "spdf"),
    *("compound possible", "max ionic char", "avg ionic char"),
]

# numpy.isclose, by which matminer finds ties of the mode and charges that are neutral
RELATIVE, ABSOLUTE = 1e-5, 1e-8
EPSILON = np.finfo(float).eps
# How many assignments of oxidation states to the elements of compounds are tried at once.
MAX_WAYS = 2**20


class Tables(NamedTuple):
    """Properties of the elements by atomic number; row 0 is unused."""

    # (119, 22), gaps filled with the mean over the elements, as matminer does
    properties: np.ndarray
    electronegativity: np.ndarray  # (119,) pymatgen's, gaps filled likewise
    # (119,) number of common oxidation states. pymatgen 2026.10.24 gives none for He, Ne, Ar, Rn
    # and Db to Og, but +2 for Kr and +2, +4 and +6 for Xe.
    n_states: np.ndarray
    states: np.ndarray  # (119, largest of n_states), of which the first n_states of a row count
    lowest: np.ndarray  # (119,) lowest state, zero if an element has no states
    highest: np.ndarray  # (119,)


@functools.cache
def tables() -> Tables:
    """Read the tables of matminer and pymatgen, without the warnings of their imports."""
    with no_warnings():
        from matminer.utils.data import MagpieData, PymatgenData
        from pymatgen.core import Element

        magpie, ionic = MagpieData(impute_nan=True), PymatgenData(impute_nan=True)
        elements = [Element(symbol) for symbol in SYMBOLS]
        states = [(), *(ionic.get_oxidation_states(element) for element in elements)]
        unused = np.full((1, len(PROPERTIES)), np.nan)
        properties = [
            [magpie.get_elemental_property(element, name) for name in PROPERTIES]
            for element in elements
        ]
        electronegativity = [
            np.nan,
            *(ionic.get_elemental_property(element, "X") for element in elements),
        ]
    padded = np.zeros((len(states), max(map(len, states))))
    for number, values in enumerate(states):
        padded[number, : len(values)] = values
    return Tables(
        properties=np.concatenate([unused, properties]),
        electronegativity=np.array(electronegativity),
        n_states=np.array([*map(len, states)]),
        states=padded,
        lowest=np.array([min(values, default=0) for values in states], float),
        highest=np.array([max(values, default=0) for values in states], float),
    )


def matrix(materials: Materials) -> np.ndarray:
    """Compute the features (n_rows, 145) float64, in the order of LABELS."""
    x = np.empty((len(materials), len(LABELS)))
    unsure = np.zeros(len(materials), bool)
    n_elements = materials.n_elements
    for size in np.unique(n_elements):
        rows = np.flatnonzero(n_elements == size)
        place = materials.start[rows] + np.arange(size)[:, None]
        x[rows], unsure[rows] = _of_equal_size(materials.number[place], materials.amount[place])
    if unsure.any():
        x[unsure] = row_by_row(materials.take(unsure))
    return x


def _of_equal_size(number: np.ndarray, amount: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features of n compounds that all have n_elements elements.

    Args:
        number: (n_elements, n) atomic numbers. Elements are the first axis, so that numpy adds them
            in the same order as matminer.
        amount: (n_elements, n) amounts of the elements.

    Returns:
        The features (n, 145), and (n,) bool, True for rows that matminer itself must compute.
    """
    size, n_rows = number.shape
    x = np.empty((n_rows, len(LABELS)))
    total = amount.sum(0)
    fraction = amount / total
    x[:, 0] = size
    for place, norm in enumerate(NORMS[1:], start=1):
        x[:, place] = (fraction**norm).sum(0) ** (1 / norm)

    value = tables().properties[number]  # (n_elements, n, 22)
    mean = (value * amount[..., None]).sum(0) / total[:, None]
    largest = amount.max(0)
    is_mode = np.abs(amount - largest) <= ABSOLUTE + RELATIVE * largest
    statistics = x[:, len(NORMS) : len(NORMS) + len(PROPERTIES) * len(STATISTICS)].reshape(
        n_rows, len(PROPERTIES), -1
    )
    statistics[..., 0] = low = value.min(0)
    statistics[..., 1] = high = value.max(0)
    statistics[..., 2] = high - low
    statistics[..., 3] = mean
    statistics[..., 4] = (np.abs(value - mean) * amount[..., None]).sum(0) / total[:, None]
    statistics[..., 5] = np.where(is_mode[..., None], value, np.inf).min(0)
    x[:, -7:-3] = mean[:, [PROPERTIES.index(shell) for shell in SHELLS]]

    if size == 1:
        x[:, -3:] = 1, 0, 0
        return x, np.zeros(n_rows, bool)
    x[:, -3], unsure = _neutral(number, amount)
    first, second = np.triu_indices(size, 1)  # the pairs of elements
    electronegativity = tables().electronegativity[number]
    character = 1 - np.exp(-0.25 * (electronegativity[first] - electronegativity[second]) ** 2)
    x[:, -2] = character.max(0)
    x[:, -1] = (fraction[first] * fraction[second] * character).sum(0)
    return x, unsure


def _neutral(number: np.ndarray, amount: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell which compounds can be neutral with one common oxidation state for each element.

    Args:
        number: (n_elements, n) atomic numbers.
        amount: (n_elements, n) amounts of the elements.

    Returns:
        The answers (n,) bool, and (n,) bool, True where the answer is uncertain: if it depends on
        rounding (only with amounts in the millions), or if there are too many combinations to try.
    """
    known = tables()
    n_states = known.n_states[number]  # (n_elements, n)
    ways = np.prod(n_states, axis=0, dtype=float)
    lowest, highest = known.lowest[number] * amount, known.highest[number] * amount
    rounding = 4 * EPSILON * len(number) * np.maximum(np.abs(lowest), np.abs(highest)).sum(0)
    slack = ABSOLUTE + 2 * rounding
    both_signs = (ways > 0) & (lowest.sum(0) <= slack) & (highest.sum(0) >= -slack)
    unsure = both_signs & (ways > MAX_WAYS)
    possible = np.zeros(len(ways), bool)
    for rows in _portions(np.flatnonzero(both_signs & ~unsure), ways):
        # (n_ways,) the charge so far, and the row that each way belongs to
        charge, row = np.zeros(len(rows)), rows
        for place in range(len(number)):
            count = n_states[place, row]
            which = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            row = np.repeat(row, count)
            state = known.states[number[place, row], which]
            charge = np.repeat(charge, count) + state * amount[place, row]
            # Drop the ways that the remaining elements cannot balance.
            within = charge + lowest[place + 1 :].sum(0)[row] <= slack[row]
            within &= charge + highest[place + 1 :].sum(0)[row] >= -slack[row]
            row, charge = row[within], charge[within]
        excess = np.abs(charge) - ABSOLUTE
        possible[row[excess <= -rounding[row]]] = True
        unsure[row[np.abs(excess) < rounding[row]]] = True
    return possible, unsure & ~possible


def _portions(rows: np.ndarray, ways: np.ndarray) -> Iterator[np.ndarray]:
    """Split rows into groups with about MAX_WAYS combinations of oxidation states each.

    `ways` has the number of combinations of each row.
    """
    portion = np.cumsum(ways[rows]) // MAX_WAYS
    yield from (rows[portion == number] for number in np.unique(portion))


@functools.cache
def featurizers() -> tuple:
    """Make matminer's featurizers, once per process."""
    with no_warnings():
        from matminer.featurizers.composition import (
            ElementProperty,
            IonProperty,
            Stoichiometry,
            ValenceOrbital,
        )

        return (  # 6 + 132 + 4 + 3 = 145
            Stoichiometry(),
            ElementProperty.from_preset("magpie", impute_nan=True),
            ValenceOrbital(props=["avg"], impute_nan=True),
            IonProperty(fast=True, impute_nan=True),
        )


def row_by_row(materials: Materials) -> np.ndarray:
    """Compute the same features as `matrix`, (n_rows, 145) float64, with matminer itself.

    This takes 1 ms per row.
    """
    from pymatgen.core import Composition

    rows = []
    with no_warnings():
        for start, stop in itertools.pairwise(materials.start):
            amounts = zip(materials.number[start:stop], materials.amount[start:stop], strict=True)
            composition = Composition({SYMBOLS[number - 1]: amount for number, amount in amounts})
            rows.append(
                [
                    value
                    for featurizer in featurizers()
                    for value in featurizer.featurize(composition)
                ]
            )
    return np.array(rows, np.float64).reshape(len(materials), len(LABELS))
