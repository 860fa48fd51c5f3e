"""Crystals: lattices and sites in columns, and what makes one unfit to be described."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Unsuitable(ValueError):
    """A crystal that a feature set cannot describe; its two arguments are reason and detail, as those of a rejected row."""


class Crystal(NamedTuple):
    """One periodic crystal of `n_sites` whole atoms."""

    lattice: np.ndarray  # (3, 3) float64, Å, a vector a row
    number: np.ndarray  # (n_sites,) int16, atomic numbers
    position: np.ndarray  # (n_sites, 3) float64, fractional


@dataclasses.dataclass(frozen=True)
class Crystals:
    """`n_rows` crystals. Sites lie in flat arrays: crystal i has those in start[i]:start[i + 1], none where it has no structure."""

    lattice: np.ndarray  # (n_rows, 3, 3) float64, Å, a vector a row
    start: np.ndarray  # (n_rows + 1,) int64
    number: np.ndarray  # (n_sites,) int16, atomic numbers
    position: np.ndarray  # (n_sites, 3) float64, fractional

    def __len__(self) -> int:
        return len(self.lattice)

    @property
    def n_sites(self) -> np.ndarray:
        """(n_rows,) int64; 0 where a row has no structure."""
        return np.diff(self.start)

    def __getitem__(self, row: int) -> Crystal:
        sites = slice(self.start[row], self.start[row + 1])
        return Crystal(self.lattice[row], self.number[sites], self.position[sites])

    def take(self, rows: np.ndarray) -> "Crystals":
        """The crystals of these row numbers, in their order."""
        counts = self.n_sites[rows]
        start = np.concatenate([[0], np.cumsum(counts)])
        flat = np.repeat(self.start[rows] - start[:-1], counts) + np.arange(start[-1])
        return Crystals(self.lattice[rows], start, self.number[flat], self.position[flat])


def collect(crystals: Sequence[Crystal | None]) -> Crystals:
    """Crystals in columns; None is a row without a structure."""
    lattice = np.zeros((len(crystals), 3, 3))
    counts = np.zeros(len(crystals), np.int64)
    number, position = [np.zeros(0, np.int16)], [np.zeros((0, 3))]
    for row, crystal in enumerate(crystals):
        if crystal is not None:
            lattice[row], counts[row] = crystal.lattice, len(crystal.number)
            number.append(crystal.number)
            position.append(crystal.position)
    start = np.concatenate([[0], np.cumsum(counts)])
    return Crystals(lattice, start, np.concatenate(number), np.concatenate(position))
