"""Split rules: assign each material to train, val or test by a property of the material alone.

So all packs of all sources agree on which materials are test. `--split` accepts:

random            a hash of the formula decides
element:O         every material that contains O is test (element:F+Cl: F or Cl)
family:halogens   every material that contains a halogen is test
folds:5           a hash of the formula deals the materials to 5 folds, and the seed says which fold
                  is test: 0 to 4; 5 to 9 are the folds of a second repeat, dealt anew
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from irnet_hpc.data.elements import FAMILIES, NUMBER, SYMBOLS
from irnet_hpc.errors import UserError, check_choice

ROLES = ("train", "val", "test")
# Shares of the roles. Changing them moves rows from one role to another, also in `element:` and
# `family:` splits. Then also raise RULES in pack/select.py, so that earlier packs and results count
# as outdated.
SHARES = (0.8, 0.1, 0.1)
SPLIT_KINDS = {
    "random": "random",
    "element": "element:SYMBOL[+SYMBOL...]",
    "family": "family:NAME",
    "folds": "folds:NUMBER",
}
MAX_FOLDS = 50
SUFFIX = re.compile(
    r"(?:-(?:element_[A-Za-z+]+|family_\w+|fold[0-4]|folds[0-9]+-fold[0-9]+))?"
    r"(?:-split[1-9][0-9]*)?(?=(?:-nofilters)?$)"
)


class SplitRule(NamedTuple):
    """A rule that assigns roles to materials. A `split` column in the table takes precedence."""

    by: str = "random"  # a key of SPLIT_KINDS
    # For `element`, symbols joined by +; for `family`, its name; for `folds`, how many there are.
    held_out: str = ""
    seed: int = 0  # the seed of the hash; for `folds`, repeat * n_folds + the fold that is test

    @property
    def elements(self) -> tuple[str, ...]:
        """Return the elements whose materials are test; empty for `random` and `folds`."""
        if self.by == "family":
            return FAMILIES[self.held_out]
        if self.by == "folds":
            return ()
        return tuple(filter(None, self.held_out.split("+")))

    def __str__(self) -> str:
        """Return the rule as a value of `--split`, which does not include the seed."""
        return f"{self.by}:{self.held_out}" if self.held_out else self.by


RANDOM = SplitRule()


def parse_split_rule(text: str, seed: int = 0) -> SplitRule:
    """Parse a value of `--split`. Raises UserError for an unknown kind, element or family.

    >>> parse_split_rule("element:Cl+F")
    SplitRule(by='element', held_out='F+Cl', seed=0)
    """
    by, _, held_out = text.partition(":")
    check_choice("kind of split", by, SPLIT_KINDS)
    if (by == "random") != (not held_out) or (by == "random" and text != by):
        raise UserError(f"a split must be {', '.join(SPLIT_KINDS.values())}, got {text!r}")
    if by == "family":
        check_choice("family of elements", held_out, FAMILIES)
    if by == "element":
        elements = {check_choice("element", symbol, SYMBOLS) for symbol in held_out.split("+")}
        held_out = "+".join(sorted(elements, key=NUMBER.__getitem__))
    if by == "folds":
        held_out = str(check_fold_count(held_out))
    return SplitRule(by, held_out, seed)


def check_fold_count(value: object) -> int:
    """Return a number of folds, given as a number or as text.

    Raises UserError unless it is a whole number from 2 to MAX_FOLDS.
    """
    text = str(value)
    if not re.fullmatch("[1-9][0-9]{0,5}", text) or not 2 <= int(text) <= MAX_FOLDS:
        raise UserError(
            f"the number of folds must be a whole number from 2 to {MAX_FOLDS}, got {text[:80]!r}"
        )
    return int(text)


def fold_rules(n_folds: int, n_repeats: int = 1) -> list[SplitRule]:
    """Return the rules of all folds of all repeats, one for each pack.

    >>> fold_rules(2, 2)[-1].seed
    3
    """
    return [SplitRule("folds", str(n_folds), seed) for seed in range(n_folds * n_repeats)]


def split_suffix(rule: SplitRule) -> str:
    """Return the text that a rule adds to the name of a pack; empty for the default rule.

    >>> split_suffix(SplitRule("element", "O", 1))
    '-element_O-split1'
    """
    if rule.by == "folds":
        return f"-folds{rule.held_out}-fold{rule.seed}"
    kind = "" if rule.by == "random" else f"-{rule.by}_{rule.held_out}"
    return kind + (f"-split{rule.seed}" if rule.seed else "")


def split_suffix_in(name: str) -> str:
    """Return the part of a pack's name that `split_suffix` added.

    Packs that differ only in the split have the rest of the name in common.

    >>> split_suffix_in("oqmd-magpie-element_O-split1"), split_suffix_in("oqmd-magpie")
    ('-element_O-split1', '')
    """
    match = SUFFIX.search(name)
    assert match  # it may be empty
    return match[0]


def name_of_folds(pack: str) -> str:
    """Return the name that the packs of all folds have in common.

    >>> name_of_folds("mine-magpie-folds5-fold3")
    'mine-magpie-folds5'
    """
    return re.sub(r"(-folds[0-9]+)-fold[0-9]+(?=-|$)", r"\1", pack, count=1)


def split_identity(rule: SplitRule) -> dict[str, Any]:
    """Return the part of a pack's identity that states its split rule."""
    if rule.by == "random":
        return {"by": "reduced formula", "seed": rule.seed}
    if rule.by == "folds":
        return {"by": "folds", "n_folds": int(rule.held_out), "seed": rule.seed}
    family = {"family": rule.held_out} if rule.by == "family" else {}
    return {"by": rule.by, **family, "elements": list(rule.elements), "seed": rule.seed}


def rule_of_identity(identity: dict[str, Any]) -> SplitRule | None:
    """Return the rule that an identity states; None if the table itself decided."""
    if identity["by"] in ("column", "fold"):
        return None
    if identity["by"] == "reduced formula":
        return SplitRule(seed=identity["seed"])
    if identity["by"] == "folds":
        return SplitRule("folds", str(identity["n_folds"]), identity["seed"])
    held_out = identity.get("family", "+".join(identity["elements"]))
    return SplitRule(identity["by"], held_out, identity["seed"])


def describe_held_out(identity: dict[str, Any]) -> str:
    """Describe the materials that a split holds out as test; empty for other kinds of split."""
    if "elements" not in identity:
        return ""
    family = f" ({identity['family']})" if "family" in identity else ""
    return f"every one that contains {join_with_or(identity['elements'])}{family}"


def join_with_or(symbols: Sequence[str]) -> str:
    """Join words with commas and `or`.

    >>> join_with_or(["O"]), join_with_or(["F", "Cl", "Br"])
    ('O', 'F, Cl or Br')
    """
    *others, last = symbols
    return f"{', '.join(others)} or {last}" if others else last


def uniform(*key: object) -> float:
    """Hash a key to a number in [0, 1), the same on every machine and with every Python version.

    >>> uniform(0, "Fe2O3")
    0.1317276651446572
    """
    text = "\0".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2**64


def role_of(reduced: str, seed: int = 0) -> str:
    """Return the role of a reduced formula under the random rule."""
    place = uniform("split", seed, reduced)
    return "train" if place < SHARES[0] else "val" if place < SHARES[0] + SHARES[1] else "test"


def roles_of(reduced: Iterable[str], seed: int = 0) -> np.ndarray:
    """Return the roles under the random rule, (n_rows,) str objects."""
    return np.array([role_of(formula, seed) for formula in reduced], object)


def fold_identity(fold: int) -> dict[str, Any]:
    """Return the part of a pack's identity that states the fold whose rows are test.

    It has the key of a split's seed, since another fold is a repetition just like another seed.
    """
    return {"by": "fold", "seed": fold}


def roles_around(reduced: Iterable[str], held_out: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the roles if exactly the held-out rows are test, (n_rows,) str objects.

    All other rows become train or val by the hash that `role_of` uses: train with a probability of
    8/9. The role of a material therefore depends only on the material and the seed, not on other
    rows.

    Args:
        reduced: (n_rows,) reduced formulas.
        held_out: (n_rows,) bool, True for the rows to hold out.
        seed: the seed of the hash.
    """
    share = SHARES[0] / (SHARES[0] + SHARES[1])
    return np.array(
        [
            "test" if is_out else "train" if uniform("split", seed, formula) < share else "val"
            for formula, is_out in zip(reduced, held_out, strict=True)
        ],
        object,
    )


def fold_of(reduced: str, n_folds: int, repeat: int = 0) -> int:
    """Return the fold, from 0 on, in which a reduced formula is test."""
    return int(uniform("fold", repeat, reduced) * n_folds)


def roles_of_fold(reduced: Iterable[str], split: SplitRule) -> np.ndarray:
    """Return the roles if one fold is test, (n_rows,) str objects.

    Which fold a formula is in depends only on the formula, the number of folds and the repeat. So a
    formula is test in exactly one fold of each repeat. Val is cut from the other folds as
    `roles_around` does; it has at least a tenth of their formulas, rounded up, since chance may
    leave a small table none.

    Args:
        reduced: (n_rows,) reduced formulas.
        split: the rule, with `by` folds.

    Raises:
        UserError: If there are fewer formulas than folds, or this fold has none of them.
    """
    n_folds = int(split.held_out)
    repeat, fold = divmod(split.seed, n_folds)
    of_rows = list(reduced)
    formulas = sorted(set(of_rows))
    if len(formulas) < n_folds:
        raise UserError(
            f"{n_folds} folds need at least {n_folds} different formulas, got {len(formulas)}"
        )
    held_out = {formula for formula in formulas if fold_of(formula, n_folds, repeat) == fold}
    if not held_out:
        raise UserError(
            f"fold {fold} of {n_folds} has none of the {len(formulas)} formulas; use fewer folds"
        )
    places = {
        formula: uniform("split", split.seed, formula)
        for formula in formulas
        if formula not in held_out
    }
    share = SHARES[0] / (SHARES[0] + SHARES[1])
    n_val = max(sum(place >= share for place in places.values()), math.ceil(len(places) / 10))
    val = set(sorted(places, key=lambda formula: -places[formula])[:n_val])
    return np.array(
        [
            "test" if formula in held_out else "val" if formula in val else "train"
            for formula in of_rows
        ],
        object,
    )


def count_on_two_sides(reduced: Iterable[str], roles: Iterable[str]) -> int:
    """Count the compositions that have rows in several roles, which a `split` column can cause."""
    sides = Counter(formula for formula, _ in set(zip(reduced, roles, strict=True)))
    return sum(count > 1 for count in sides.values())


def pack_order(line: np.ndarray, roles: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return row numbers (n_rows,): train, then val, then test, each in a fixed random order.

    The order depends only on the rows' lines and the seed. Packs of the same table therefore have
    the same order, even with other features or fewer rows: their first n training rows are the
    same compounds.
    """
    place = np.array([uniform("order", seed, number) for number in line])
    return np.lexsort((place, np.array([ROLES.index(role) for role in roles])))


def sample(n_rows: int, size: int) -> np.ndarray:
    """Draw a fixed random sample of row numbers, (size,), ascending.

    A smaller sample is part of every larger one.
    """
    place = np.array([uniform("sample", number) for number in range(n_rows)])
    return np.sort(np.argsort(place, kind="stable")[:size])
