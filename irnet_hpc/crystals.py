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
    """`n_rows` crystals. Sites lie in flat arrays: row i has those in start[i]:start[i + 1], none where it has no crystal."""

    lattice: np.ndarray  # (n_rows, 3, 3) float64, Å, a vector a row
    start: np.ndarray  # (n_rows + 1,) int64
    number: np.ndarray  # (n_sites,) int16, atomic numbers
    position: np.ndarray  # (n_sites, 3) float64, fractional
    lacking: np.ndarray  # (n_rows,) objects: why a row has no crystal, (reason, detail), or None where it has one

    def __len__(self) -> int:
        return len(self.lattice)

    @property
    def n_sites(self) -> np.ndarray:
        """(n_rows,) int64; 0 where a row has no crystal."""
        return np.diff(self.start)

    def __getitem__(self, row: int) -> Crystal:
        sites = slice(self.start[row], self.start[row + 1])
        return Crystal(self.lattice[row], self.number[sites], self.position[sites])

    def take(self, rows: np.ndarray) -> "Crystals":
        """The crystals of these row numbers, in their order."""
        counts = self.n_sites[rows]
        start = np.concatenate([[0], np.cumsum(counts)])
        flat = np.repeat(self.start[rows] - start[:-1], counts) + np.arange(start[-1])
        return Crystals(self.lattice[rows], start, self.number[flat], self.position[flat], self.lacking[rows])


def collect(rows: Sequence[Crystal | Unsuitable]) -> Crystals:
    """Crystals in columns, from a crystal a row, or the reason why it has none."""
    lattice = np.zeros((len(rows), 3, 3))
    counts = np.zeros(len(rows), np.int64)
    lacking = np.full(len(rows), None, object)
    number, position = [np.zeros(0, np.int16)], [np.zeros((0, 3))]
    for row, crystal in enumerate(rows):
        if isinstance(crystal, Unsuitable):
            lacking[row] = crystal.args
            continue
        lattice[row], counts[row] = crystal.lattice, len(crystal.number)
        number.append(crystal.number)
        position.append(crystal.position)
    start = np.concatenate([[0], np.cumsum(counts)])
    return Crystals(lattice, start, np.concatenate(number), np.concatenate(position), lacking)
