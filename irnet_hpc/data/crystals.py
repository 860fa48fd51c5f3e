"""Crystals stored as columns, and the reduction of a lattice to short vectors."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MIN_VOLUME = 0.01  # Å³; every atom takes up more
# Å, as pymatgen's Structure.DISTANCE_TOLERANCE. The shortest bond of all, in H2, is 0.74 Å long.
MIN_DISTANCE = 0.5
# Limit of lattice vectors (Å) and coordinates. For larger ones, float64 has too few digits to
# locate a site.
MAX_NUMBER = 1e6
MAX_LENGTH_ERROR = 1e-7  # Å; rounding may change a lattice vector by at most this much
MAX_REDUCTION_STEPS = 1000


class Unsuitable(ValueError):
    """Signal that a feature set cannot describe a crystal.

    Its two arguments are the reason and the detail, as in `Rejected`.
    """


class Crystal(NamedTuple):
    """A periodic crystal of `n_sites` sites, each fully occupied by one atom."""

    lattice: np.ndarray  # (3, 3) float64, Å, one vector per row
    number: np.ndarray  # (n_sites,) int16, atomic numbers
    position: np.ndarray  # (n_sites, 3) float64, fractional


@dataclasses.dataclass(frozen=True)
class Crystals:
    """Crystals stored as columns.

    The sites of all rows are stored one after the other in flat arrays; those of row i are at
    start[i]:start[i + 1]. A row without a crystal has no sites.
    """

    lattice: np.ndarray  # (n_rows, 3, 3) float64, Å, one vector per row
    start: np.ndarray  # (n_rows + 1,) int64
    number: np.ndarray  # (n_sites,) int16, atomic numbers
    position: np.ndarray  # (n_sites, 3) float64, fractional
    problem: np.ndarray  # (n_rows,) objects: (reason, detail) where a row has no crystal, else None

    def __len__(self) -> int:
        return len(self.lattice)

    @property
    def n_sites(self) -> np.ndarray:
        """Return the number of sites of each row, (n_rows,) int64; 0 if the row has no crystal."""
        return np.diff(self.start)

    def __getitem__(self, row: int) -> Crystal:
        sites = slice(self.start[row], self.start[row + 1])
        return Crystal(self.lattice[row], self.number[sites], self.position[sites])

    def take(self, rows: np.ndarray) -> "Crystals":
        """Return the crystals with these row numbers, in the given order."""
        counts = self.n_sites[rows]
        start = np.concatenate([[0], np.cumsum(counts)])
        flat = np.repeat(self.start[rows] - start[:-1], counts) + np.arange(start[-1])
        return Crystals(
            self.lattice[rows], start, self.number[flat], self.position[flat], self.problem[rows]
        )


def stack_crystals(rows: Sequence[Crystal | Unsuitable]) -> Crystals:
    """Store rows as columns; each row is a crystal, or the reason why there is none."""
    lattice = np.zeros((len(rows), 3, 3))
    counts = np.zeros(len(rows), np.int64)
    problem = np.full(len(rows), None, object)
    number, position = [np.zeros(0, np.int16)], [np.zeros((0, 3))]
    for row, crystal in enumerate(rows):
        if isinstance(crystal, Unsuitable):
            problem[row] = crystal.args
            continue
        lattice[row], counts[row] = crystal.lattice, len(crystal.number)
        number.append(crystal.number)
        position.append(crystal.position)
    start = np.concatenate([[0], np.cumsum(counts)])
    return Crystals(lattice, start, np.concatenate(number), np.concatenate(position), problem)


def reduced_cell(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """Describe a crystal by the shortest vectors of its lattice.

    Returns:
        The lattice (3, 3) in Å, one vector per row, and the fractional positions (n_sites, 3),
        from 0 to 1.

    Raises:
        Unsuitable: if numbers are not finite or too large for the precision of float64, if the
            lattice has no volume or is too skewed, or if a lattice vector is so short that a site
            coincides with its own periodic image.
    """
    if not all(
        (np.abs(numbers) < MAX_NUMBER).all() for numbers in (crystal.lattice, crystal.position)
    ):
        raise Unsuitable(
            "structure not readable", f"its numbers must be finite and below {MAX_NUMBER:g}"
        )
    volume = abs(np.linalg.det(crystal.lattice))
    if volume < MIN_VOLUME:
        raise Unsuitable("lattice of no volume", f"{volume:.3g} Å³")
    try:
        # If the lattice is too skewed for float64, numbers grow until they overflow.
        with np.errstate(all="ignore"):
            change = _reduction(crystal.lattice)
            back = np.rint(np.linalg.inv(change))
            lattice = change @ crystal.lattice
            products = np.abs(change) @ np.abs(crystal.lattice), np.abs(back) @ np.abs(lattice)
    except np.linalg.LinAlgError:
        raise Unsuitable(
            "lattice too skewed", "its vectors are parallel to within rounding"
        ) from None
    lost = np.finfo(float).eps * np.max(products)
    if not lost <= MAX_LENGTH_ERROR:
        raise Unsuitable(
            "lattice too skewed", f"its shortest vectors are known only to within {lost:.1g} Å"
        )
    return lattice, crystal.position % 1 @ back % 1


def _reduction(lattice: np.ndarray) -> np.ndarray:
    """Return the integer matrix (3, 3) that turns lattice vectors into short ones; determinant ±1.

    This is Semaev's greedy reduction. Each step subtracts from the longest vector an integer
    combination of the other two, chosen so that the remaining vector is as short as possible.
    """
    change = np.eye(3)
    for _ in range(MAX_REDUCTION_STEPS):
        vectors = change @ lattice
        lengths = np.linalg.norm(vectors, axis=1)
        order = np.argsort(lengths, kind="stable")
        if lengths[order[0]] < MIN_DISTANCE:
            raise Unsuitable(
                "sites on one another", f"a site and its image, {lengths[order[0]]:.3g} Å apart"
            )
        change, (a, b, c) = change[order], vectors[order]
        if step := np.rint(a @ b / (a @ a)):
            change[1] -= step * change[0]
            continue
        near = np.floor(np.linalg.solve([[a @ a, a @ b], [a @ b, b @ b]], [a @ c, b @ c]))
        steps = [near + corner for corner in itertools.product((0, 1), repeat=2)]
        left = [np.linalg.norm(c - i * a - j * b) for i, j in steps]
        if min(left) >= lengths[order[2]] * (1 - 1e-12):
            break
        i, j = steps[int(np.argmin(left))]
        change[2] -= i * change[0] + j * change[1]
    return change
