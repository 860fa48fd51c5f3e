"""Who plays which part in a compound: its elements in order, and which element has about which fraction.

`ordered`: Ward's statistics say what a compound's elements are like on average, and fractions which they are; of ABX3 neither says
directly what A, B and X are like. Here the most abundant element comes first (X), the next second and so on, of equally
abundant ones the less electronegative first: the first four, each by its fraction and Magpie's 22 properties (Ward et al.
2016). Where there are fewer, the fraction is 0 and the properties are the means over the 86 elements, which after scaling
say nothing. Of the compounds in OQMD one in 200 has more than four elements.

`classes`: whether an element is there with a fraction of a class, a column for each of the 86 elements and eight classes,
and for each of the first four places. A network's first layer then adds up a vector for each part that an element plays,
as networks on sets do (Zaheer et al. 2017), where a fraction only scales the element's one vector. What these sets are
worth is in docs/recipes.md.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from irnet_hpc.data.materials import Materials
from irnet_hpc.features.magpie import PROPERTIES, tables

PLACES = 4
LABELS = [
    f"{name} of element {place}"
    for place in range(1, PLACES + 1)
    for name in ("fraction", *PROPERTIES)
]
# Upper bounds of the classes of fractions, between the fractions that stoichiometry likes: 1/8, 1/5, 1/4, 1/3, 2/5, 1/2, 2/3.
BOUNDS = (0.17, 0.22, 0.27, 0.35, 0.45, 0.55, 0.7, 1.0)
DECIMALS = 4  # of fractions that are equal; rounding of amounts must not decide an order


def matrix(materials: Materials, known: tuple[int, ...]) -> np.ndarray:
    """(n_rows, 92) float64. `known` are the atomic numbers over which the means of absent elements are taken."""
    x = np.empty((len(materials), PLACES, 1 + len(PROPERTIES)))
    x[..., 0], x[..., 1:] = 0, _means(known)
    for rows, number, fraction in _in_order(materials):
        x[rows, : len(number), 0] = fraction.T
        x[rows, : len(number), 1:] = tables().properties[number].transpose(1, 0, 2)
    return x.reshape(len(materials), len(LABELS))


def class_labels(symbols: Iterable[str]) -> list[str]:
    bounds = [f"{low:g} to {high:g}" for low, high in itertools.pairwise((0.0, *BOUNDS))]
    things = (*symbols, *(f"element {place}" for place in range(1, PLACES + 1)))
    return [f"{thing} in {text}" for thing in things for text in bounds]


def classes(materials: Materials, known: tuple[int, ...]) -> np.ndarray:
    """(n_rows, 8 * (n_known + 4)) float64, 0 or 1. `known` are the atomic numbers that have columns, in their order."""
    n_classes = len(BOUNDS)
    x = np.zeros((len(materials), len(known) + PLACES, n_classes))
    column = np.full(len(tables().properties), -1)
    column[list(known)] = np.arange(len(known))
    row = materials.row_of_amount
    fraction = materials.amount / np.bincount(row, materials.amount, minlength=len(materials))[row]
    x[row, column[materials.number], _class_of(fraction)] = 1
    for rows, number, fractions in _in_order(materials):
        for place in range(len(number)):
            x[rows, len(known) + place, _class_of(fractions[place])] = 1
    return x.reshape(len(materials), -1)


def _class_of(fraction: np.ndarray) -> np.ndarray:
    return np.searchsorted(BOUNDS[:-1], fraction.round(DECIMALS), side="left")


def _in_order(materials: Materials) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For compounds of equally many elements: rows (n,), atomic numbers and fractions (at most 4, n) in order."""
    n_elements = materials.n_elements
    for size in np.unique(n_elements):
        rows = np.flatnonzero(n_elements == size)
        place = materials.start[rows] + np.arange(size)[:, None]
        number, amount = materials.number[place], materials.amount[place]  # (n_elements, n)
        fraction = amount / amount.sum(0)
        # By the last key first: fraction, then electronegativity, then atomic number, so that a spelling has no say.
        order = np.lexsort(
            (number, tables().electronegativity[number], -fraction.round(DECIMALS)), axis=0
        )[:PLACES]
        yield rows, *(np.take_along_axis(values, order, 0) for values in (number, fraction))


@functools.cache
def _means(known: tuple[int, ...]) -> np.ndarray:
    """(22,) of each property over the elements."""
    return tables().properties[list(known)].mean(0)
