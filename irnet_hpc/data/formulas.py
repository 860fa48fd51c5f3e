"""Formulas: text -> amounts of elements -> the one name of a composition. The only place that reads a formula."""

import re
from collections.abc import Iterable
from math import gcd, inf

import numpy as np

from irnet_hpc.data.elements import NUMBER

PLAIN = re.compile(r"(?:[A-Z][a-z]?(?:[0-9]+(?:\.[0-9]+)?)?)+")
TOKEN = re.compile(r"([A-Z][a-z]?)([0-9.]*)")
GROUP = re.compile(r"\(([^()]*)\)([0-9]+(?:\.[0-9]+)?)?")
SYMBOL = re.compile(r"[A-Z][a-z]*")
SYMBOL_TOKEN = re.compile(r"[A-Z][a-z]?")
SMALLEST = 1e-8  # pymatgen takes smaller amounts for zero

# Amounts that are not whole are brought to whole numbers by the smallest multiplier that fits to this, else to 1e-6.
MULTIPLIERS = np.arange(1.0, 1001.0)
TOLERANCE = 1e-4


class InvalidFormula(ValueError):
    """A formula that is no composition; its two arguments are reason and detail."""


def parse_formula(formula: str) -> dict[str, float]:
    """Element -> amount (atoms per formula), in the order written. Raises InvalidFormula.

    Most formulas are elements, amounts and round brackets, and are read here. Whatever else there is goes to pymatgen,
    which is several times slower and knows the rest of the notation; where both can read a formula they agree exactly.

    >>> composition("Ag(AuS)2")
    {'Ag': 1.0, 'Au': 2.0, 'S': 2.0}
    """
    amounts = parse_simple(formula)
    return parse_by_pymatgen(formula) if amounts is None else amounts


def elements_in(formulas: Iterable[str]) -> frozenset[str]:
    """The elements that occur in readable formulas; far quicker than their compositions.

    >>> sorted(symbols(["Ag(AuS)2", "CO"]))
    ['Ag', 'Au', 'C', 'O', 'S']
    """
    return frozenset(SYMBOL_TOKEN.findall("\n".join(formulas)))


def parse_simple(formula: str) -> dict[str, float] | None:
    """The composition of a formula that is nothing but elements, plain positive amounts and round brackets; else None."""
    while (
        "(" in formula
    ):  # the innermost groups are multiplied out, as text, which is how pymatgen does it
        formula, n_groups = GROUP.subn(_expanded, formula)
        if not n_groups:
            return None
    amounts = _amounts(formula)
    return (
        amounts
        if amounts and min(amounts.values()) >= SMALLEST and max(amounts.values()) < inf
        else None
    )


def _amounts(formula: str, factor: float = 1.0) -> dict[str, float] | None:
    if not PLAIN.fullmatch(formula):
        return None
    amounts: dict[str, float] = {}
    for symbol, amount in TOKEN.findall(formula):
        if symbol not in NUMBER:
            return None
        amounts[symbol] = amounts.get(symbol, 0.0) + (float(amount) if amount else 1.0) * factor
    return amounts


def _expanded(group: re.Match[str]) -> str:
    amounts = _amounts(group[1], float(group[2] or 1))
    if amounts is None:
        return "?"  # which no plain formula has
    return "".join(f"{symbol}{amount}" for symbol, amount in amounts.items())


def parse_by_pymatgen(formula: str) -> dict[str, float]:
    """Element -> amount as pymatgen reads it, strictly. Raises InvalidFormula.

    What pymatgen would let pass with another meaning is refused: isotopes, which it turns into the element, and amounts
    of zero, which it drops.
    """
    from pymatgen.core import Composition  # half a second, which --help should not pay

    if not formula.strip():
        raise InvalidFormula("formula is empty", "")
    try:
        amounts = {
            element.symbol: amount for element, amount in Composition(formula, strict=True).items()
        }
    except ValueError as error:
        reason = "negative amount" if "negative" in str(error) else "formula not readable"
        raise InvalidFormula(reason, str(error)) from None
    lost = set(SYMBOL.findall(formula)) - amounts.keys()
    if lost & {"D", "T"}:
        raise InvalidFormula("isotope, not an element", ", ".join(sorted(lost)))
    if lost:
        raise InvalidFormula("amount of zero", ", ".join(sorted(lost)))
    if not all(np.isfinite(list(amounts.values()))):
        raise InvalidFormula("formula not readable", "an amount is not finite")
    return amounts


def reduced_formula(amounts: dict[str, float]) -> str:
    """The name of a composition: symbols by the alphabet, whole amounts without a common divisor.

    Splits hang on it, so it is ours: pymatgen's depends on tables of electronegativities and names fractional
    compositions in more than one way.

    >>> reduced_formula({"O": 6, "Fe": 4}), reduced_formula({"Fe": 0.5, "O": 0.75})
    ('Fe2O3', 'Fe2O3')
    """
    symbols = sorted(amounts)
    exact = [amounts[symbol] for symbol in symbols]
    whole = list(map(int, exact))
    if whole != exact:
        whole = _whole(np.array(exact))
    divisor = gcd(*whole)
    counts = zip(symbols, whole, strict=True)
    return "".join(
        [symbol if count == divisor else f"{symbol}{count // divisor}" for symbol, count in counts]
    )


def _whole(amounts: np.ndarray) -> list[int]:
    """Whole numbers in the ratio of `amounts`."""
    ratios = amounts / amounts.min()
    fits = MULTIPLIERS  # those that make every ratio so far whole
    for ratio in ratios[ratios != 1]:
        multiples = fits * ratio
        fits = fits[np.abs(multiples - np.rint(multiples)) <= TOLERANCE]
    best = fits[0] * ratios if len(fits) else amounts * 1e6
    return [max(1, int(count)) for count in np.rint(best)]
