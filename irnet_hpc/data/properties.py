"""PROPERTIES: canonical names, units and plausible ranges. No other file states a unit."""

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


PROPERTIES = {
    "formation_energy": Property("E_f", "eV/atom", -10, 10),
    "energy_per_atom": Property("E", "eV/atom", -30, 10),
    # For a stable compound some databases give its distance from the hull of all other phases; this
    # distance is negative.
    "energy_above_hull": Property("E_hull", "eV/atom", -5, 20),
    "band_gap": Property("E_g", "eV", 0, 30, floor=0),
    # by the Tran-Blaha modified Becke-Johnson potential
    "band_gap_mbj": Property("E_g(mBJ)", "eV", 0, 30, floor=0),
    "volume_per_atom": Property("V/atom", "Å³/atom", 1, 500),
    "volume": Property("V", "Å³/cell", 1, 100_000),
    "density": Property("ρ", "g/cm³", 0, 30),
    "total_magnetization": Property("M", "µB/cell", -1000, 1000),
    "bulk_modulus": Property("K", "GPa", -100, 1000),
    "shear_modulus": Property("G", "GPa", -1000, 1000),
    "mixing_enthalpy": Property("ΔH_mix", "eV/atom", -3, 3),
    "size_mismatch": Property("δ", "%", 0, 100, floor=0),
}


def floor_of(name: str) -> float:
    """Return the lowest value that a property can have, in its unit; -inf if none is known."""
    return PROPERTIES[name].floor if name in PROPERTIES else -math.inf


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
