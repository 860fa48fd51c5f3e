"""Parse formulas into amounts of elements, and give each composition a unique name.

No other file parses a formula.
"""

import itertools
import re
from collections.abc import Iterable
from math import gcd, inf, isqrt, log10

import numpy as np

from irnet_hpc.data.elements import NUMBER
from irnet_hpc.data.notation import InvalidFormula, parts_of

PLAIN = re.compile(r"(?:[A-Z][a-z]?(?:[0-9]+(?:\.[0-9]+)?)?)+")
TOKEN = re.compile(r"([A-Z][a-z]?)([0-9.]*)")
# The sign of an ion's charge: an element, a group or the end follows.
CHARGE = re.compile(r"[+-](?=[A-Z()\[\]]|$)")
GROUP = re.compile(r"\(([^()]*)\)([0-9]+(?:\.[0-9]+)?)?")
SYMBOL = re.compile(r"[A-Z][a-z]*")
SYMBOL_TOKEN = re.compile(r"[A-Z][a-z]?")
# Of doping and deficiency: YBa2Cu3O7-δ, Al1-xGaxAs, LixCoO2.
VARIABLE = re.compile(r"[-–+±]\s*(?:[xyzδ]|delta|d(?![a-z]))|(?<=[A-Za-z0-9)])(?:[xz](?![a-z])|δ)")
MIN_AMOUNT = 1e-8  # pymatgen takes smaller amounts for zero

# Rounded fractions such as 0.333 and 0.667 are recognised first. Other fractional amounts are
# multiplied by the smallest of MULTIPLIERS that makes all of them whole within TOLERANCE, or by 1e6
# if none does.
MAX_DECIMALS = 8
FLOAT_ERROR = 1e-9
MULTIPLIERS = np.arange(1.0, 1001.0)
TOLERANCE = 1e-4


def parse_formula(formula: str) -> dict[str, float]:
    """Parse a formula.

    Most formulas consist of elements, amounts and round brackets, and are parsed here. All other
    notation goes to pymatgen, which is several times slower. Both give exactly the same amounts
    for a formula that both can parse.

    Args:
        formula: a formula such as `Fe2O3`, `Ag(AuS)2`, `[Co(NH3)6]Cl3` or `CuSO4·5H2O`, also in
            the spellings of notation.py.

    Returns:
        Element -> amount (atoms per formula), in the order written.

    Raises:
        InvalidFormula: if the formula is not a composition.

    >>> parse_formula("Ag(AuS)2")
    {'Ag': 1.0, 'Au': 2.0, 'S': 2.0}
    """
    parts = parts_of(formula)
    if len(parts) == 1:
        return _parse_part(parts[0][1])
    total: dict[str, float] = {}
    for factor, part in parts:
        for symbol, amount in _parse_part(part).items():
            total[symbol] = total.get(symbol, 0.0) + factor * amount
    return total


def _parse_part(text: str) -> dict[str, float]:
    amounts = parse_simple(text)
    return parse_by_pymatgen(text) if amounts is None else amounts


def formula_text(value: object) -> str:
    """Return a formula as text, from text or from pymatgen's Composition; empty for anything else.

    Elements keep their order. Amounts have up to ten digits; those of an element in several
    oxidation states add up. Isotopes keep their symbols, whereas pymatgen's own text has the
    element's symbol.
    """
    if isinstance(value, str):
        return value.strip()
    if not hasattr(value, "get_el_amt_dict") or not hasattr(value, "items"):
        return ""
    amounts: dict[str, float] = {}
    for specie, amount in value.items():
        name = getattr(specie, "name", str(specie))
        amounts[name] = amounts.get(name, 0.0) + amount
    return "".join(f"{name}{'' if n == 1 else f'{n:.10g}'}" for name, n in amounts.items())


def elements_in(formulas: Iterable[str]) -> frozenset[str]:
    """Return the elements in valid formulas. This is much faster than parsing the formulas.

    >>> sorted(elements_in(["Ag(AuS)2", "CO"]))
    ['Ag', 'Au', 'C', 'O', 'S']
    """
    return frozenset(SYMBOL_TOKEN.findall("\n".join(formulas)))


def parse_simple(formula: str) -> dict[str, float] | None:
    """Parse a formula of elements, plain positive amounts and round brackets; else return None."""
    # The innermost groups are multiplied out as text, as in pymatgen.
    while "(" in formula:
        formula, n_groups = GROUP.subn(_expand, formula)
        if not n_groups:
            return None
    amounts = _amounts(formula)
    is_valid = amounts and min(amounts.values()) >= MIN_AMOUNT and max(amounts.values()) < inf
    return amounts if is_valid else None


def _amounts(formula: str, factor: float = 1.0) -> dict[str, float] | None:
    if not PLAIN.fullmatch(formula):
        return None
    amounts: dict[str, float] = {}
    for symbol, amount in TOKEN.findall(formula):
        if symbol not in NUMBER:
            return None
        amounts[symbol] = amounts.get(symbol, 0.0) + (float(amount) if amount else 1.0) * factor
    return amounts


def _expand(group: re.Match[str]) -> str:
    """Multiply out a bracketed group.

    Returns `?`, which never parses, if it is not a plain group.
    """
    amounts = _amounts(group[1], float(group[2] or 1))
    if amounts is None:
        return "?"
    return "".join(f"{symbol}{amount}" for symbol, amount in amounts.items())


def parse_by_pymatgen(formula: str) -> dict[str, float]:
    """Parse a formula with pymatgen, strictly. Returns element -> amount.

    Raises InvalidFormula also for two things that pymatgen accepts but changes: isotopes, which
    pymatgen turns into the element, and amounts of zero, which pymatgen drops.
    """
    # This import takes half a second, so it is not at the top, where it would delay --help.
    from pymatgen.core import Composition

    if not formula.strip():
        raise InvalidFormula("formula is empty", "")
    try:
        composition = Composition(formula, strict=True)
    except ValueError as error:
        reason = "negative amount" if "negative" in str(error) else "formula not readable"
        raise InvalidFormula(reason, unreadable(formula) or str(error)) from None
    amounts = {element.symbol: amount for element, amount in composition.items()}
    lost = set(SYMBOL.findall(formula)) - amounts.keys()
    if lost & {"D", "T"}:
        raise InvalidFormula("isotope, not an element", ", ".join(sorted(lost)))
    if lost:
        raise InvalidFormula("amount of zero", ", ".join(sorted(lost)))
    if not all(np.isfinite(list(amounts.values()))):
        raise InvalidFormula("formula not readable", "an amount is not finite")
    return amounts


def unreadable(formula: str) -> str:
    """Say in words why a formula of a common form cannot be read; empty if it is of none.

    >>> unreadable("YBa2Cu3O7-δ"), unreadable("gaas"), unreadable("NACL")
    ('the amount -δ is no number', 'symbols begin with a capital letter', 'A, L are no elements')
    """
    if variable := VARIABLE.search(formula):
        return f"the amount {variable[0].strip()} is no number"
    if ":" in formula:
        return "the amounts of what is behind : are not known"
    if CHARGE.search(formula):
        return "the sign of a charge (+ or -) is not part of a formula; leave it out"
    if not SYMBOL.search(formula):
        return "symbols begin with a capital letter"
    unknown = dict.fromkeys(name for name in SYMBOL.findall(formula) if name not in NUMBER)
    names = ", ".join(name for name in unknown if name not in ("D", "T"))
    return f"{names} {'are no elements' if ',' in names else 'is no element'}" if names else ""


def reduced_formula(amounts: dict[str, float]) -> str:
    """Name a composition: symbols in alphabetical order, whole amounts without a common divisor.

    Splits depend on this name, so it is defined here and not taken from pymatgen. There it depends
    on tables of electronegativities, and one fractional composition can have several names.
    Decimals that are rounded simple fractions are read as these: Fe0.333O0.667 is FeO2.

    >>> reduced_formula({"O": 6, "Fe": 4}), reduced_formula({"Fe": 0.5, "O": 0.75})
    ('Fe2O3', 'Fe2O3')
    >>> reduced_formula({"Fe": 0.333, "O": 0.667}), reduced_formula({"Fe": 0.3, "O": 0.7})
    ('FeO2', 'Fe3O7')
    """
    symbols = sorted(amounts)
    exact = [amounts[symbol] for symbol in symbols]
    whole = list(map(int, exact))
    if whole != exact:
        whole = _as_simple_fractions(exact) or _whole(np.array(exact))
    divisor = gcd(*whole)
    counts = zip(symbols, whole, strict=True)
    return "".join(
        [symbol if count == divisor else f"{symbol}{count // divisor}" for symbol, count in counts]
    )


def _as_simple_fractions(amounts: list[float]) -> list[int] | None:
    """Return whole numbers in the ratio of `amounts` if these are rounded fractions, else None.

    The fraction must be simpler than the decimals: the square of its denominator is at most the
    number of steps that the decimals distinguish, 100 for 0.67 and 1,000 for 0.667. Otherwise every
    decimal number would be some fraction. Whole amounts, and tenths below 10, are meant as they are
    written: 0.3 is not a third.
    """
    decimals = [len(f"{n:.{MAX_DECIMALS}f}".rstrip("0").partition(".")[2]) for n in amounts]
    is_rounded = [d > 1 or (d == 1 and n >= 10) for n, d in zip(amounts, decimals, strict=True)]
    if not any(is_rounded):
        return None
    steps = 10 ** min(itertools.compress(decimals, is_rounded))
    steps *= 10 ** max(0, int(log10(max(itertools.compress(amounts, is_rounded)))))
    half = [0.5 / 10**d if r else 0.0 for d, r in zip(decimals, is_rounded, strict=True)]
    for denominator in range(1, min(isqrt(steps), len(MULTIPLIERS)) + 1):
        whole = [round(n * denominator) for n in amounts]
        errors = [count / denominator - n for count, n in zip(whole, amounts, strict=True)]
        # Half a step is rounded up: 0.875 is 0.88, and 0.125 is not 0.12.
        if all(
            -h - FLOAT_ERROR <= error < max(h, 2 * FLOAT_ERROR) - FLOAT_ERROR
            for error, h in zip(errors, half, strict=True)
        ):
            return whole if all(whole) else None
    return None


def _whole(amounts: np.ndarray) -> list[int]:
    """Return whole numbers in the ratio of `amounts`."""
    ratios = amounts / amounts.min()
    fits = MULTIPLIERS  # the multipliers that make all ratios seen so far whole
    for ratio in ratios[ratios != 1]:
        multiples = fits * ratio
        fits = fits[np.abs(multiples - np.rint(multiples)) <= TOLERANCE]
    best = fits[0] * ratios if len(fits) else amounts * 1e6
    return [max(1, int(count)) for count in np.rint(best)]
