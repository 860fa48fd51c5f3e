"""The elements of a formula in order, each by its fraction and its properties: who plays which part in a compound.

Ward's statistics say what a compound's elements are like on average, and fractions which they are; of ABX3 neither says
directly what A, B and X are like. Here the most abundant element comes first (X), the next second and so on, of equally
abundant ones the less electronegative first: the first four, each by its fraction and Magpie's 22 properties (Ward et al.
2016). Where there are fewer, the fraction is 0 and the properties are the means over the 86 elements, which after scaling
say nothing. Of the compounds in OQMD one in 200 has more than four elements.
"""

import functools

import numpy as np

from irnet_hpc.magpie import PROPERTIES, tables
from irnet_hpc.materials import Materials

PLACES = 4
LABELS = [f"{name} of element {place}" for place in range(1, PLACES + 1) for name in ("fraction", *PROPERTIES)]
DECIMALS = 4  # of fractions that are equal; rounding of amounts must not decide an order


def matrix(materials: Materials, known: tuple[int, ...]) -> np.ndarray:
    """(n_rows, 92) float64. `known` are the atomic numbers over which the means of absent elements are taken."""
    x = np.empty((len(materials), PLACES, 1 + len(PROPERTIES)))
    x[..., 0], x[..., 1:] = 0, _means(known)
    n_elements = materials.n_elements
    for size in np.unique(n_elements):
        rows = np.flatnonzero(n_elements == size)
        place = materials.start[rows] + np.arange(size)[:, None]
        number, amount = materials.number[place], materials.amount[place]  # (n_elements, n)
        fraction = amount / amount.sum(0)
        # By the last key first: fraction, then electronegativity, then atomic number, so that a spelling has no say.
        order = np.lexsort((number, tables().electronegativity[number], -fraction.round(DECIMALS)), axis=0)[:PLACES]
        number, fraction = (np.take_along_axis(values, order, 0) for values in (number, fraction))
        x[rows, : len(order), 0] = fraction.T
        x[rows, : len(order), 1:] = tables().properties[number].transpose(1, 0, 2)
    return x.reshape(len(materials), len(LABELS))


@functools.cache
def _means(known: tuple[int, ...]) -> np.ndarray:
    """(22,) of each property over the elements."""
    return tables().properties[list(known)].mean(0)
