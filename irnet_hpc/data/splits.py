"""Splits: train, val or test as a function of the material alone, so that every pack of every source agrees on them.

random            a hash of the formula decides
element:O         test is every material that contains O; element:F+Cl: F or Cl
family:halogens   test is every material that contains one of the halogens
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.elements import FAMILIES, NUMBER, SYMBOLS
from irnet_hpc.errors import UserError, check_choice

ROLES = ("train", "val", "test")
SHARES = (0.8, 0.1, 0.1)

SPLIT_KINDS = {"random": "random", "element": "element:SYMBOL[+SYMBOL...]", "family": "family:NAME"}
SUFFIX = re.compile(
    r"(?:-(?:element_[A-Za-z+]+|family_\w+))?(?:-split[1-9][0-9]*)?(?=(?:-nofilters)?$)"
)


class SplitRule(NamedTuple):
    """How rows are divided: what decides, and the seed of the hash. A table's own `split` column comes before it."""

    by: str = "random"  # of SPLIT_KINDS
    held_out: str = ""  # of element: symbols joined by +; of family: its name
    seed: int = 0

    @property
    def elements(self) -> tuple[str, ...]:
        """A material that contains one of them is test; none for `random`."""
        return (
            FAMILIES[self.held_out]
            if self.by == "family"
            else tuple(filter(None, self.held_out.split("+")))
        )

    def __str__(self) -> str:
        """As `--split` takes it, which does not take the seed."""
        return f"{self.by}:{self.held_out}" if self.held_out else self.by


RANDOM = SplitRule()


def parse_split_rule(text: str, seed: int = 0) -> SplitRule:
    """What `--split` stands for. Raises UserError for a kind, an element or a family that there is not.

    >>> parse_split("element:Cl+F")
    Split(by='element', held_out='F+Cl', seed=0)
    """
    by, _, held_out = text.partition(":")
    check_choice("kind of split", by, SPLIT_KINDS)
    if (by == "random") != (not held_out) or (by == "random" and text != by):
        raise UserError(f"a split must be {', '.join(SPLIT_KINDS.values())}, got {text!r}")
    if by == "family":
        check_choice("family of elements", held_out, FAMILIES)
    if by == "element":
        elements = {check_choice("element", symbol, SYMBOLS) for symbol in held_out.split("+")}
        held_out = "+".join(sorted(elements, key=NUMBER.get))
    return SplitRule(by, held_out, seed)


def split_suffix(split: SplitRule) -> str:
    """What a split that is not the default adds to a pack's name.

    >>> name_suffix(Split("element", "O", 1))
    '-element_O-split1'
    """
    return f"-{split.by}_{split.held_out}" * (split.by != "random") + f"-split{split.seed}" * (
        split.seed != 0
    )


def split_suffix_in(name: str) -> str:
    """The part of a pack's name that `name_suffix` has put there: packs that differ in nothing else have the rest in common.

    >>> split_suffix("oqmd-magpie-element_O-split1"), split_suffix("oqmd-magpie")
    ('-element_O-split1', '')
    """
    return SUFFIX.search(name)[0]


def split_identity(split: SplitRule) -> dict:
    """What a pack's identity says of its split: {by, elements, seed}, and the family's name where it is one."""
    if split.by == "random":
        return {"by": "reduced formula", "seed": split.seed}
    family = {"family": split.held_out} if split.by == "family" else {}
    return {"by": split.by, **family, "elements": list(split.elements), "seed": split.seed}


def rule_of_identity(identity: dict) -> SplitRule | None:
    """The inverse of `split_identity`; None where the table's own column decided."""
    if identity["by"] == "column":
        return None
    if identity["by"] == "reduced formula":
        return SplitRule(seed=identity["seed"])
    return SplitRule(
        identity["by"], identity.get("family", "+".join(identity["elements"])), identity["seed"]
    )


def describe_held_out(identity: dict) -> str:
    """Of a pack's identity: which rows are test because of what they contain, in words; empty where it is not that."""
    if "elements" not in identity:
        return ""
    family = f" ({identity['family']})" if "family" in identity else ""
    return f"every one that contains {join_with_or(identity['elements'])}{family}"


def join_with_or(symbols: Sequence[str]) -> str:
    """
    >>> join_with_or(["O"]), join_with_or(["F", "Cl", "Br"])
    ('O', 'F, Cl or Br')
    """
    *others, last = symbols
    return f"{', '.join(others)} or {last}" if others else last


def uniform(*key: object) -> float:
    """A number in [0, 1) that is a fixed function of the key, the same on every machine and version of Python.

    >>> uniform(0, "Fe2O3")
    0.1317276651446572
    """
    text = "\0".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2**64


def role_of(reduced: str, seed: int = 0) -> str:
    """The split of a composition, given by its reduced formula."""
    place = uniform("split", seed, reduced)
    return "train" if place < SHARES[0] else "val" if place < SHARES[0] + SHARES[1] else "test"


def roles_of(reduced: Iterable[str], seed: int = 0) -> np.ndarray:
    """(n_rows,) splits as str objects."""
    return np.array([role_of(formula, seed) for formula in reduced], object)


def roles_around(reduced: Iterable[str], held_out: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n_rows,) splits as str objects: test is what is held out, (n_rows,) bool, and nothing else.

    All others keep their place of `split_of` between 0 and 1, of which train and val have test's share too, in
    proportion: 8/9 and 1/9. So where a material goes depends on itself and the seed alone, whatever else is in the table.
    """
    share = SHARES[0] / (SHARES[0] + SHARES[1])
    return np.array(
        [
            "test" if is_out else "train" if uniform("split", seed, formula) < share else "val"
            for formula, is_out in zip(reduced, held_out, strict=True)
        ],
        object,
    )


def count_on_two_sides(reduced: Iterable[str], split: Iterable[str]) -> int:
    """How many compositions are in more than one split: possible only where a source's own column says so."""
    sides = Counter(formula for formula, _ in set(zip(reduced, split, strict=True)))
    return sum(count > 1 for count in sides.values())


def pack_order(line: np.ndarray, split: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n_rows,) row numbers: train, then val, then test, each in an order that is random but fixed.

    A row's place hangs on its line and the seed alone, so packs of one table with other features, or fewer rows, keep
    the same order: the first n training rows are the same compounds.
    """
    place = np.array([uniform("order", seed, number) for number in line])
    return np.lexsort((place, [ROLES.index(name) for name in split]))


def sample(n_rows: int, size: int) -> np.ndarray:
    """(size,) ascending row numbers: a fixed random part of a table, of which smaller parts are parts."""
    place = np.array([uniform("sample", number) for number in range(n_rows)])
    return np.sort(np.argsort(place, kind="stable")[:size])
