"""Convert the units of columns, with pint.

pint 0.25 knows no atom, unit cell or formula unit. Here each is a dimension of its own, so an
energy per atom is never taken for an energy, nor kJ/mol (of what?) for an energy per atom.
"""

import functools
import re
from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np

from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    import pint

# The words of units as they stand in the headers of tables. Other words in brackets are remarks:
# `gap (HSE)`, `lattice (a)`. pint alone would take the latter for years.
WORDS = {
    *("meV", "eV", "keV", "J", "mJ", "kJ", "MJ", "cal", "kcal", "Ha", "Eh", "hartree"),
    *("Hartree", "Ry", "Rydberg", "Pa", "kPa", "MPa", "GPa", "TPa", "bar", "kbar", "Mbar"),
    *("atm", "K", "mK", "°C", "degC", "g", "kg", "mg", "m", "cm", "mm", "µm", "um", "nm"),
    *("pm", "Å", "Angstrom", "angstrom", "Angstroem", "ångström", "bohr", "atom", "at"),
    *("cell", "fu", "f.u.", "mol", "mmol", "W", "mW", "kW", "S", "mS", "Ω", "mΩ", "kΩ"),
    *("ohm", "Ohm", "V", "mV", "kV", "T", "mT", "Hz", "kHz", "MHz", "GHz", "THz", "s"),
    *("ms", "µs", "ns", "ps", "fs", "min", "h", "%", "µB", "muB", "mu_B", "A", "mA", "C"),
    *("mC", "N", "kN", "cc", "mL", "ml", "L", "F", "pF", "emu", "Oe", "HV", "HRC", "ppm"),
    *("ppb", "deg", "rad"),
}
# `Eg (ev)`; of one letter, a remark is more likely: `lattice (a)`.
LOWER_WORDS = {word.lower() for word in WORDS if len(word) > 1} - {"at", "min"}
SPELLINGS = {
    "Angstrom": "angstrom",
    "Angstroem": "angstrom",
    "at": "atom",
    "fu": "formula_unit",
    "f.u.": "formula_unit",
    "µB": "bohr_magneton",
    "muB": "bohr_magneton",
    "mu_B": "bohr_magneton",
    "Ha": "hartree",
    "Hartree": "hartree",
    "Rydberg": "rydberg",
    "Ohm": "ohm",
    "%": "percent",
}
TO_PLAIN = str.maketrans({"μ": "µ", "\u212b": "Å", "·": "*", "⋅": "*", "−": "-"})
SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
POWER = re.compile(r"([⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
TERM = re.compile(r"(f\.u\.|[A-Za-zÅåÖöΩµ°%_]+)(?:(?:\^|\*\*)?(-?[0-9]))?")
HEADER = re.compile(r"(?P<name>.*?)[ _]*[(\[](?P<unit>[^()\[\]]*)[)\]]|(?P<n>.*?) *, *(?P<u>\S+)")
ROUNDING = 1e-12
FUNCTIONS = ("log", "log10", "lg", "ln", "exp", "sqrt")


def split_header(header: str) -> tuple[str, str]:
    """Split a header into a name and a unit; the unit is empty if the header has none.

    >>> split_header("K_VRH [GPa]"), split_header("gap (HSE)")
    (('K_VRH', 'GPa'), ('gap (HSE)', ''))
    """
    match = HEADER.fullmatch(header)
    name, unit = (match["name"] or match["n"], match["unit"] or match["u"]) if match else ("", "")
    if not name or not unit or name.lower() in FUNCTIONS or not is_unit(unit):
        return header, ""
    return name, unit.strip()


def foreign_unit(header: str, target: str) -> str:
    """Return the text in the brackets of a header if it seems to be a unit that is not in WORDS.

    Args:
        header: A header in which `split_header` finds no unit.
        target: The unit of the property that the column is taken for.

    >>> [foreign_unit(f"Eg ({text})", "eV") for text in ("mRy", "10^-3 eV", "PBE")]
    ['mRy', '10^-3 eV', '']
    """
    import pint

    match = HEADER.fullmatch(header)
    text = (match["unit"] or match["u"] or "").strip() if match else ""
    if not text or is_unit(text):
        return ""
    if {word.lower() for word in re.findall(r"[^\W\d_]+", text)} & LOWER_WORDS:
        return text
    try:
        unit = _registry().parse_units(text)
    except (pint.errors.PintError, AttributeError, ValueError, TypeError, TokenError):
        return ""
    own = _unit(target)
    # Capitals alone are names of methods (GW), unless the dimension is right.
    is_like = own is not None and bool(unit.is_compatible_with(own))
    return text if is_like or (len(text) > 2 and not text.isupper()) else ""


def is_unit(text: str) -> bool:
    """Return True if a text is a unit of known words, such as `meV/atom` or `g cm-3`."""
    return _for_pint(text) is not None


def _for_pint(text: str) -> str | None:
    """Write a unit as pint reads it; None if it has an unknown word."""
    text = text.translate(TO_PLAIN).replace("**", "^").strip()
    text = POWER.sub(lambda power: "^" + power[1].translate(SUPERSCRIPT), text)
    # Factors, and between them the signs; a blank is a product.
    parts = re.split(r"([/*]|\s+)", re.sub(r"\s*([/*])\s*", r"\1", text))
    written = []
    for place, part in enumerate(parts):
        if place % 2:
            written.append(part.strip() or "*")
            continue
        term = TERM.fullmatch(part)
        if term is None or term[1] not in WORDS:
            return None
        written.append(SPELLINGS.get(term[1], term[1]) + (f"**{term[2]}" if term[2] else ""))
    return " ".join(written)


@functools.cache
def _registry() -> "pint.UnitRegistry":
    import pint

    registry: pint.UnitRegistry = pint.UnitRegistry()
    for name in ("atom", "cell", "formula_unit"):
        registry.define(f"{name} = [{name}s]")
    return registry


def _unit(text: str) -> "pint.Unit | None":
    """Return pint's unit; None if a word of it is unknown to pint or to this file."""
    import pint

    written = _for_pint(text)
    try:
        return None if written is None else _registry().parse_units(written)
    except (pint.errors.PintError, AttributeError):
        return None


def can_convert(source: str, target: str) -> bool:
    """Return True if quantities in one unit can be converted to the other."""
    if source == target:
        return True
    first, second = _unit(source), _unit(target)
    return first is not None and second is not None and bool(first.is_compatible_with(second))


def convert(values: np.ndarray, source: str, target: str) -> np.ndarray:
    """Convert quantities from one unit to another.

    Args:
        values: (n_rows,) quantities in the unit `source`.
        source: A unit, such as `meV/atom`.
        target: A unit of the same dimension, such as `eV/atom`.

    Returns:
        (n_rows,) quantities in the unit `target`; the same array if both are one unit.

    Raises:
        UserError: If the units measure different things.
    """
    if source == target:
        return values
    if not can_convert(source, target):
        raise UserError(f"{source} cannot be converted to {target}")
    first, second = _unit(source), _unit(target)
    if first == second:
        return values
    zero, one = _registry().Quantity(np.array([0.0, 1.0]), first).to(second).magnitude
    whole = round(1 / one) if not zero and one < 1 else 0
    if whole and abs(whole * one - 1) < ROUNDING:
        return values / whole  # 1400 meV are 1.4 eV; 1400 * 0.001 is 1.4000000000000001
    return values * (one - zero) + zero
