"""Features of the roles that elements have in a compound, such as A, B and X in ABX3.

`ordered` describes the first four elements of a compound, each by its fraction and Magpie's 22
properties (Ward et al. 2016). The most abundant element comes first; among equally abundant
elements, the least electronegative comes first. Ward's statistics average over all elements, and
atomic fractions only say which elements occur, so neither set directly states the properties of A,
B and X. If a compound has fewer than four elements, the columns of the missing ones contain the
fraction 0 and the mean properties of the 86 elements, which scaling turns into 0. Of the compounds
in OQMD, one in 200 has more than four elements.

`classes` sorts fractions into eight classes. It has a column for each pair of an element and a
class, and for each pair of an element and one of the first four positions; each column is 0 or 1.
The first layer of a network then adds up one learned vector for each role of an element, as
networks on sets do (Zaheer et al. 2017). With plain fractions, an element has a single vector,
which its fraction scales. docs/recipes.md states the errors with these sets.
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
DECIMALS = 4  # digits of fractions; rounding errors in amounts must not decide the order


def matrix(materials: Materials, known: tuple[int, ...]) -> np.ndarray:
    """Compute the features `ordered`.

    Args:
        materials: n_rows materials.
        known: atomic numbers of the elements whose mean properties fill the empty places of a
            formula with fewer elements.

    Returns:
        (n_rows, 92) float64, in the order of LABELS.
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
        known: atomic numbers of the elements, in the order of the columns.

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
    """Yield the materials in groups with the same number of elements, with their elements in order.

    Yields:
        The rows (n,), and the atomic numbers and the fractions of their first elements, both (at
        most 4, n).
    """
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
    """Return the means (22,) of Magpie's properties over the elements `known`."""
    return tables().properties[list(known)].mean(0)
