"""Keep which formulas trained a model as hashes, so that a model can say so without its table.

A formula is kept as a 64-bit hash of its reduced form. A formula that trained the model is always
found. One that did not is mistaken for one of n kept formulas with a probability of n / 2**64: for
300,000 formulas 2e-14 for each formula that is asked for.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

HASH_BYTES = 8


class KnownFormulas(NamedTuple):
    """The formulas of a model's training and val rows, as sorted hashes."""

    train: np.ndarray  # (n_train_formulas,) int64, ascending
    val: np.ndarray  # (n_val_formulas,) int64, ascending

    def roles_of(self, reduced: Sequence[str]) -> list[str]:
        """Tell which formulas the model has seen.

        Args:
            reduced: (n_rows,) reduced formulas.

        Returns:
            (n_rows,) `train` for a formula that trained the model, `val` for one that selected its
            epoch, else empty.
        """
        hashes = hashes_of(reduced)
        in_train, in_val = (_among(hashes, known) for known in (self.train, self.val))
        return np.where(in_train, "train", np.where(in_val, "val", "")).tolist()

    def n_seen(self, reduced: Iterable[str]) -> int:
        """Count the different formulas that trained the model or selected its epoch."""
        return sum(map(bool, self.roles_of(sorted(set(reduced)))))


def hash_formulas(train: Iterable[str], val: Iterable[str]) -> KnownFormulas:
    """Hash the reduced formulas of training and of val rows."""
    return KnownFormulas(*(np.unique(hashes_of(sorted(set(part)))) for part in (train, val)))


def hashes_of(reduced: Sequence[str]) -> np.ndarray:
    """Return the hashes (n_rows,) int64 of reduced formulas, the same on every machine."""
    digests = (blake2b(formula.encode(), digest_size=HASH_BYTES).digest() for formula in reduced)
    return np.frombuffer(b"".join(digests), ">i8").astype(np.int64)


def _among(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Tell which hashes are among those in an ascending array, (n_rows,) bool."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    place = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    return known[place] == hashes
