"""PROPERTIES: the canonical names, units and plausible ranges. The only place where a unit is written."""

import math
from typing import NamedTuple

from irnet_hpc.errors import UserError


class Property(NamedTuple):
    symbol: str  # for plots and tables, plain text
    unit: str
    low: (
        float  # plausible range, in the unit; a value outside is worth a warning, never a rejection
    )
    high: float
    floor: float = (
        -math.inf
    )  # below which no value can be, and at which many may be: no band gap is negative, many are 0


PROPERTIES = {
    "formation_energy": Property("E_f", "eV/atom", -10, 10),
    "energy_per_atom": Property("E", "eV/atom", -30, 10),
    # Of stable compounds some databases give the distance from the hull of the other phases, which is negative.
    "energy_above_hull": Property("E_hull", "eV/atom", -5, 20),
    "band_gap": Property("E_g", "eV", 0, 30, floor=0),
    "band_gap_mbj": Property(
        "E_g(mBJ)", "eV", 0, 30, floor=0
    ),  # of the Tran-Blaha modified Becke-Johnson potential
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
    """The least value that a property can have, in its unit; -inf where none is known."""
    return PROPERTIES[name].floor if name in PROPERTIES else -math.inf


def unit_of(name: str, stated: str | None = None) -> str:
    """The unit of a property: from the table, or as the user stated it for a property the table does not know.

    Raises UserError where neither says it, or where both do and disagree.
    """
    known = PROPERTIES.get(name)
    if known and stated and stated != known.unit:
        raise UserError(
            f"{name} is in {known.unit}, but --unit says {stated!r}; convert the column or rename it"
        )
    if not known and not stated:
        raise UserError(
            f"the unit of {name!r} is not known; give it with --unit {name}=UNIT, or use one of: {', '.join(PROPERTIES)}"
        )
    return known.unit if known else stated
