"""Find features that tell a property, such as columns that order the rows as it does.

Such a column usually comes from the property itself: the same quantity in another unit or from
another average, a rank, a prediction, or the row's number in a table sorted by the property. As a
feature it makes every error small and every prediction worthless, since the column is not known for
a new material.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.materials import Materials
from irnet_hpc.features.sets import FEATURE_SETS

# Below this many rows, chance orders some column as the property.
MIN_ROWS = 20
MAX_ROWS = 10_000  # of a pack's rows, which are in random order
# Related quantities stay below: 0.87 for bulk and shear moduli of AFLOW, 0.85 of the Materials
# Project, 0.81 of JARVIS.
MIN_CORRELATION = 0.99


class Twin(NamedTuple):
    """A column of the user's table that orders the rows almost as a property does."""

    column: str
    property: str
    correlation: float  # of the ranks; below zero if one falls where the other rises

    def __str__(self) -> str:
        return (
            f"warning: column {self.column} orders the rows as {self.property} does (correlation "
            f"of ranks {self.correlation:.4f}); if it comes from {self.property}, it must not "
            "be a feature: errors would be too small, and new materials have no such number"
        )


def find_twins(materials: Materials) -> Iterator[Twin]:
    """Yield the columns that order the rows almost as a property does, column by column.

    Args:
        materials: The materials in the order of the pack.
    """
    materials = materials.take(np.arange(min(len(materials), MAX_ROWS)))
    for place, label in enumerate(materials.column_labels):
        column = materials.columns[:, place].astype(np.float64)
        for name, values in materials.targets.items():
            known = ~np.isnan(column) & ~np.isnan(values)
            if known.sum() < MIN_ROWS:
                continue
            correlation = rank_correlation(column[known], values[known])
            if abs(correlation) >= MIN_CORRELATION:
                yield Twin(label, name, correlation)


def describe_told(feature_sets: Sequence[str], properties: Iterable[str]) -> list[str]:
    """Return a sentence for each property that a feature set states.

    Args:
        feature_sets: The names of the feature sets of a pack.
        properties: The properties that the pack has.
    """
    return [
        f"feature set {name} states {property}, so a model of {property} on this pack would test "
        "nothing; leave the set out for this property"
        for name in feature_sets
        for property in properties
        if property in FEATURE_SETS[name].tells
    ]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's correlation of two arrays (n_rows,); 0 if one of them is constant."""
    ranks = [_ranks(values) for values in (a, b)]
    centred = [rank - rank.mean() for rank in ranks]
    norm = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float(centred[0] @ centred[1] / norm) if norm else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks (n_rows,); equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]
