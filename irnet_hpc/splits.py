"""Splits: train, val or test as a function of the material alone, so that every pack of every source agrees on them."""

from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

SPLITS = ("train", "val", "test")
SHARES = (0.8, 0.1, 0.1)


def uniform(*key: object) -> float:
    """A number in [0, 1) that is a fixed function of the key, the same on every machine and version of Python.

    >>> uniform(0, "Fe2O3")
    0.1317276651446572
    """
    text = "\0".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2**64


def split_of(reduced: str, seed: int = 0) -> str:
    """The split of a composition, given by its reduced formula."""
    place = uniform("split", seed, reduced)
    return "train" if place < SHARES[0] else "val" if place < SHARES[0] + SHARES[1] else "test"


def split_of_all(reduced: Iterable[str], seed: int = 0) -> np.ndarray:
    """(n_rows,) splits as str objects."""
    return np.array([split_of(formula, seed) for formula in reduced], object)


def two_sided(reduced: Iterable[str], split: Iterable[str]) -> int:
    """How many compositions are in more than one split: possible only where a source's own column says so."""
    sides = Counter(formula for formula, _ in set(zip(reduced, split, strict=True)))
    return sum(count > 1 for count in sides.values())


def pack_order(line: np.ndarray, split: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n_rows,) row numbers: train, then val, then test, each in an order that is random but fixed.

    A row's place hangs on its line and the seed alone, so packs of one table with other features, or fewer rows, keep
    the same order: the first n training rows are the same compounds.
    """
    place = np.array([uniform("order", seed, number) for number in line])
    return np.lexsort((place, [SPLITS.index(name) for name in split]))


def sample(n_rows: int, size: int) -> np.ndarray:
    """(size,) ascending row numbers: a fixed random part of a table, of which smaller parts are parts."""
    place = np.array([uniform("sample", number) for number in range(n_rows)])
    return np.sort(np.argsort(place, kind="stable")[:size])
