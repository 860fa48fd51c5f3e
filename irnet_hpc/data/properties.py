"""PROPERTIES: canonical names, units, plausible ranges and hard limits of properties.

No other file states a unit.
"""

import math
from typing import NamedTuple

from irnet_hpc.errors import UserError


class Property(NamedTuple):
    """A property of materials that the package knows."""

    symbol: str  # for plots and tables, plain text
    unit: str
    # Plausible range, in the unit. A value outside is worth a warning, never a rejection.
    low: float
    high: float
    # The lowest possible value, which many rows may have: no band gap is negative, many are 0.
    floor: float = -math.inf
    # Hard limits, in the unit: a value beyond them is an error of its source or a code for "not
    # reported", such as -9999. Packing removes and lists it.
    lowest: float = -math.inf
    highest: float = math.inf


PROPERTIES = {
    "formation_energy": Property("E_f", "eV/atom", -10, 10, lowest=-20, highest=20),
    # The zero of a total energy is that of the code that computed it. Pseudopotential codes stay
    # within these limits; energies of all electrons do not, and need a name of their own.
    "energy_per_atom": Property("E", "eV/atom", -30, 10, lowest=-100, highest=100),
    # For a stable compound some databases give its distance from the hull of all other phases; this
    # distance is negative.
    "energy_above_hull": Property("E_hull", "eV/atom", -5, 20, lowest=-20, highest=50),
    "band_gap": Property("E_g", "eV", 0, 30, floor=0, lowest=0, highest=50),
    # by the Tran-Blaha modified Becke-Johnson potential
    "band_gap_mbj": Property("E_g(mBJ)", "eV", 0, 30, floor=0, lowest=0, highest=50),
    "volume_per_atom": Property("V/atom", "Å³/atom", 1, 500, lowest=0.1, highest=10_000),
    "volume": Property("V", "Å³/cell", 1, 100_000, lowest=0.1, highest=10_000_000),
    "density": Property("ρ", "g/cm³", 0, 30, lowest=0, highest=200),
    "total_magnetization": Property("M", "µB/cell", -1000, 1000, lowest=-5000, highest=5000),
    # A modulus of a phase that is not stable may be negative. The stiffest solid known, diamond,
    # has 443 and 535 GPa; pressure raises both.
    "bulk_modulus": Property("K", "GPa", 0, 600, lowest=-1000, highest=2000),
    "shear_modulus": Property("G", "GPa", 0, 600, lowest=-1000, highest=2000),
    "mixing_enthalpy": Property("ΔH_mix", "eV/atom", -3, 3, lowest=-20, highest=20),
    "size_mismatch": Property("δ", "%", 0, 100, floor=0, lowest=0, highest=200),
}


def floor_of(name: str) -> float:
    """Return the lowest value that a property can have, in its unit; -inf if none is known."""
    return PROPERTIES[name].floor if name in PROPERTIES else -math.inf


def lowest_of(name: str) -> float:
    """Return the bound below which no value of a property lies, in its unit; -inf if none is known.

    It is the property's floor, or else the limit below which packing removes values as errors.
    """
    return max(PROPERTIES[name].floor, PROPERTIES[name].lowest) if name in PROPERTIES else -math.inf


def unit_of(name: str, stated: str | None = None) -> str:
    """Return the unit of a property, from PROPERTIES or else from the user.

    Args:
        name: the property.
        stated: the unit that the user states, if any.

    Raises:
        UserError: if neither PROPERTIES nor the user gives a unit, or if their units differ.
    """
    known = PROPERTIES.get(name)
    if known and stated and stated != known.unit:
        raise UserError(
            f"{name} is in {known.unit}, but --unit says {stated!r}; "
            "convert the column or rename it"
        )
    unit = known.unit if known else stated
    if not unit:
        raise UserError(
            f"the unit of {name!r} is unknown; state it with --unit {name}=UNIT, "
            f"or use one of the known properties: {', '.join(PROPERTIES)}"
        )
    return unit
