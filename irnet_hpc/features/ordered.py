"""Features of the parts that elements play in a compound, such as A, B and X in ABX3.

`ordered`: the first four elements, each by its fraction and Magpie's 22 properties (Ward et al.
2016). The most abundant element comes first, and of equally abundant ones the less electronegative.
Ward's statistics describe a compound's elements on average, and fractions name them; neither tells
directly what A, B and X are like. In a compound of fewer elements the fraction of the others is 0
and their properties are the means over the 86 elements, which scaling turns into 0. Of the
compounds in OQMD one in 200 has more than four elements.

`classes`: 0 or 1 for each element and each class of fractions, eight of them, and for each of the
first four places. The first layer of a network then adds up a vector for each part that an element
plays, as networks on sets do (Zaheer et al. 2017), while a fraction only scales the one vector of
an element. docs/recipes.md has the errors with these sets.
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
# Upper bounds of the classes, between the frequent fractions: 1/8, 1/5, 1/4, 1/3, 2/5, 1/2, 2/3.
BOUNDS = (0.17, 0.22, 0.27, 0.35, 0.45, 0.55, 0.7, 1.0)
DECIMALS = 4  # fractions are rounded, lest rounding of amounts decide the order of elements


def matrix(materials: Materials, known: tuple[int, ...]) -> np.ndarray:
    """Compute the features `ordered`.

    Args:
        materials: n_rows materials.
        known: atomic numbers; their mean properties stand for absent elements.

    Returns:
        (n_rows, 92) float64, as LABELS names them.
    """
    x = np.empty((len(materials), PLACES, 1 + len(PROPERTIES)))
    x[..., 0], x[..., 1:] = 0, _means(known)
    for rows, number, fraction in _in_order(materials):
        x[rows, : len(number), 0] = fraction.T
        x[rows, : len(number), 1:] = tables().properties[number].transpose(1, 0, 2)
    return x.reshape(len(materials), len(LABELS))


def class_labels(symbols: Iterable[str]) -> list[str]:
    """Return the labels of `classes` for elements with these symbols."""
    bounds = [f"{low:g} to {high:g}" for low, high in itertools.pairwise((0.0, *BOUNDS))]
    things = (*symbols, *(f"element {place}" for place in range(1, PLACES + 1)))
    return [f"{thing} in {text}" for thing in things for text in bounds]


def classes(materials: Materials, known: tuple[int, ...]) -> np.ndarray:
    """Compute the features `classes`.

    Args:
        materials: n_rows materials.
        known: atomic numbers of the columns, in their order.

    Returns:
        (n_rows, 8 * (n_known + 4)) float64, 0 or 1.
    """
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
    """Yield rows (n,), atomic numbers and fractions (at most 4, n) in order, by element count."""
    n_elements = materials.n_elements
    for size in np.unique(n_elements):
        rows = np.flatnonzero(n_elements == size)
        place = materials.start[rows] + np.arange(size)[:, None]
        number, amount = materials.number[place], materials.amount[place]  # (n_elements, n)
        fraction = amount / amount.sum(0)
        # lexsort takes the last key first: fraction, then electronegativity, then atomic number, so
        # that the spelling of a formula does not matter.
        order = np.lexsort(
            (number, tables().electronegativity[number], -fraction.round(DECIMALS)), axis=0
        )[:PLACES]
        in_order = np.take_along_axis(number, order, 0), np.take_along_axis(fraction, order, 0)
        yield rows, *in_order


@functools.cache
def _means(known: tuple[int, ...]) -> np.ndarray:
    """Return (22,) means of each property over the elements."""
    return tables().properties[list(known)].mean(0)
