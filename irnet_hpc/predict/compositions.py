"""Enumerate the compositions of a grid, each once, from a text such as `Li|Na-Fe|Co-O, step 0.1`.

    Li|Na-Fe|Co-O, step 0.1          each place is an element or a list of elements
    alkali-3d-chalcogens, step 0.25  a place may also be a family of elements (data/elements.py)
    A-B-O, step 0.05                 A, B and X stand for any element that the model was trained on
    A-B-O, step 0.05, A=Li|Na, B=3d  or for the elements that the text defines

Fractions are multiples of the step and add up to 1. Different places have different elements. A
fraction may be 0, unless endpoints are left out; then every fraction is at least one step.
"""

import functools
import itertools
import math
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from irnet_hpc.data.elements import FAMILIES, NUMBER
from irnet_hpc.errors import UserError

# Names that may stand for any element, as in ABX3. If no place is named A, B is boron.
NAMES = ("A", "B", "X")
# A formula distinguishes amounts down to 1e-6, and all steps of a set of elements are in memory.
MAX_STEPS = 1_000_000
# All orders of a composition's elements are tried to find the first one.
MAX_PLACES = 6
GRAMMAR = "e.g. 'Li|Na-Fe|Co-O, step 0.1' or 'A-B-O, step 0.05, A=alkali, B=3d'"


class Space(NamedTuple):
    """A grid of compositions. Fractions are multiples of 1 / n_steps and add up to 1."""

    places: tuple[tuple[str, ...], ...]  # the symbols that each place may hold
    n_steps: int
    endpoints: bool  # whether a place may be empty


def parse_space(text: str, elements: Collection[str], endpoints: bool = True) -> Space:
    """Parse the text that describes a grid of compositions.

    Args:
        text: The places, the step and the names, as the docstring of this module describes them.
        elements: The elements that A, B and X stand for if the text does not define them.
        endpoints: True if a fraction may be 0.

    Raises:
        UserError: If the text cannot be read.
    """
    first, *clauses = (part.strip() for part in text.split(","))
    n_steps: int | None = None
    names: dict[str, tuple[str, ...]] = {}
    for clause in clauses:
        name, is_definition, listed = (part.strip() for part in clause.partition("="))
        if (is_definition and name in names) or (not is_definition and n_steps is not None):
            raise UserError(
                f"the step and each name must be defined once, got {clause!r} again in {text!r}"
            )
        if is_definition:
            if not re.fullmatch("[A-Z]", name):
                raise UserError(
                    f"a name must be one capital letter, got {name!r} in {text!r}; {GRAMMAR}"
                )
            names[name] = _symbols(listed, text)
        elif clause.startswith("step"):
            n_steps = _n_steps(clause.removeprefix("step").strip())
        else:
            raise UserError(
                f"after the places there may be a step and names, got {clause!r} in {text!r}; "
                f"{GRAMMAR}"
            )
    if n_steps is None:
        raise UserError(f"the step is missing in {text!r}; {GRAMMAR}")
    words = [word.strip() for word in first.split("-")]
    if "A" in words:
        names = dict.fromkeys(NAMES, tuple(sorted(elements, key=NUMBER.__getitem__))) | names
    if unused := sorted(set(names) - set(words) - set(NAMES)):
        raise UserError(
            f"{', '.join(unused)} is given elements in {text!r} but is not one of its places; "
            f"{GRAMMAR}"
        )
    if len(words) > MAX_PLACES:
        raise UserError(f"there must be at most {MAX_PLACES} places, got {len(words)} in {text!r}")
    space = Space(
        tuple(names.get(word) or _symbols(word, text) for word in words), n_steps, endpoints
    )
    if not endpoints and len(words) > n_steps:
        raise UserError(
            "without endpoints there must be at least as many steps as places, "
            f"got {n_steps} steps for {len(words)} places in {text!r}"
        )
    return space


def _n_steps(text: str) -> int:
    try:
        n_steps = round(1 / float(text))
        whole = n_steps >= 1 and math.isclose(n_steps * float(text), 1, rel_tol=1e-6)
    except (ValueError, ZeroDivisionError, OverflowError):
        whole = False
    if not whole:
        raise UserError(f"step must be 1 divided by a whole number, e.g. 0.05, got {text!r}")
    if n_steps > MAX_STEPS:
        raise UserError(f"step must be at least {1 / MAX_STEPS:g}, got {text!r}")
    return n_steps


def _symbols(text: str, whole: str) -> tuple[str, ...]:
    """Parse a list of elements. Returns each once, in the order of the text."""
    listed: dict[str, None] = {}
    for word in (word.strip() for word in text.split("|")):
        symbols = FAMILIES.get(word, (word,))
        if symbols[0] not in NUMBER:
            raise UserError(
                f"a place must hold elements or families of elements ({', '.join(FAMILIES)}), "
                f"got {word!r} in {whole!r}; {GRAMMAR}"
            )
        listed |= dict.fromkeys(symbols)
    return tuple(listed)


def count(space: Space) -> int:
    """Count the compositions of a space, without enumerating them."""
    # n steps fill k places, none of them empty, in as many ways as k - 1 of the n - 1 gaps between
    # the steps can be chosen.
    return sum(math.comb(space.n_steps - 1, len(elements) - 1) for elements in _sets(space))


def enumerate_formulas(space: Space) -> Iterator[str]:
    """Yield each composition once, as a formula with whole amounts that have no common divisor."""
    for elements in _sets(space):
        for cuts in itertools.combinations(range(1, space.n_steps), len(elements) - 1):
            steps = [b - a for a, b in itertools.pairwise((0, *cuts, space.n_steps))]
            divisor = math.gcd(*steps)
            amounts = [step // divisor for step in steps]
            yield "".join(
                [s if n == 1 else f"{s}{n}" for s, n in zip(elements, amounts, strict=True)]
            )


def _sets(space: Space) -> Iterator[tuple[str, ...]]:
    """Yield each set of elements that can fill the places, once and in the order of the places.

    If a set can fill the places in several ways, all of them give the same compositions, since all
    places have the same steps. So the set is yielded only for the first way, and sets that were
    yielded need not be remembered.
    """
    rank = [{symbol: at for at, symbol in enumerate(place)} for place in space.places]
    n_places = len(rank)
    overlap = space.endpoints or sum(map(len, rank)) > len(set().union(*rank))
    for size in range(1 if space.endpoints else n_places, n_places + 1):
        for places in itertools.combinations(range(n_places), size):
            for elements in itertools.product(*(space.places[place] for place in places)):
                if len(set(elements)) < size:
                    continue
                if not overlap or (places, elements) == min(
                    _ways(rank, elements), key=functools.partial(_order, rank)
                ):
                    yield elements


# The places that are filled, and the symbol in each of them.
Way = tuple[tuple[int, ...], tuple[str, ...]]


def _ways(rank: list[dict[str, int]], elements: tuple[str, ...]) -> Iterator[Way]:
    """Yield every way in which a set of elements can fill the places."""
    for places in itertools.combinations(range(len(rank)), len(elements)):
        for order in itertools.permutations(elements):
            if all(symbol in rank[place] for symbol, place in zip(order, places, strict=True)):
                yield places, order


def _order(rank: list[dict[str, int]], way: Way) -> tuple:
    """Return the sort key that decides which way of filling places `_sets` finds first."""
    places, symbols = way
    return places, [rank[place][symbol] for place, symbol in zip(places, symbols, strict=True)]
