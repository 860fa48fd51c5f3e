"""SOURCES: the contents, filters, licence and citation of each database."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.properties import PROPERTIES, unit_of


class Filter(NamedTuple):
    """A rule for the values of a property. A value that breaks the rule counts as not reported."""

    property: str
    low: float = -np.inf  # in the property's unit
    high: float = np.inf
    # Largest distance from the mean, in standard deviations; both are computed from the values
    # that pass this rule and all earlier ones.
    deviations: float = np.inf
    closed: bool = False  # whether values equal to a bound pass
    unit: str = ""  # for properties that are not in PROPERTIES

    def __str__(self) -> str:
        if np.isfinite(self.deviations):
            return f"|{self.property} - mean| <= {self.deviations:g} sd"
        sign = "<=" if self.closed else "<"
        unit = unit_of(self.property, self.unit)
        if not np.isfinite(self.high):
            return f"{self.property} {sign.replace('<', '>')} {self.low:.12g} {unit}"
        low = f"{self.low:.12g} {sign} " if np.isfinite(self.low) else ""
        return f"{low}{self.property} {sign} {self.high:.12g} {unit}"

    def breaks(self, values: np.ndarray) -> np.ndarray:
        """Tell which values break the rule, (n_rows,) bool. NaN (not reported) never does."""
        if self.closed:
            outside = (values < self.low) | (values > self.high)
        else:
            outside = (values <= self.low) | (values >= self.high)
        if np.isfinite(self.deviations):
            outside |= are_outliers(values, self.deviations)
        return outside


def are_outliers(values: np.ndarray, deviations: float) -> np.ndarray:
    """Find values that are far from the mean of all others.

    The mean and the standard deviation are computed, repeatedly, from the values that are not
    outliers. Otherwise a single value of 2e7 would widen the standard deviation so much that no
    other value is far from the mean. Among 26 values or fewer, no value can be 5 deviations from
    the mean.

    Args:
        values: (n_rows,) values; NaN means not reported.
        deviations: The largest distance of a value that is not an outlier, in standard deviations.

    Returns:
        (n_rows,) bool; False for NaN.
    """
    inside = ~np.isnan(values)
    while inside.any():
        kept = values[inside]
        # Scaling by a power of two changes no digit. Without it, squares of 1e200 overflow, and an
        # infinite standard deviation hides every outlier.
        kept = np.ldexp(kept, -np.frexp(np.abs(kept).max())[1])
        far = np.abs(kept - kept.mean()) > deviations * kept.std()
        if not far.any():
            break
        inside[np.flatnonzero(inside)[far]] = False
    return ~inside & ~np.isnan(values)


def hard_limits(properties: Iterable[str]) -> list[Filter]:
    """Return the hard limits of the properties that are in PROPERTIES, as filters."""
    limits = {
        name: (PROPERTIES[name].lowest, PROPERTIES[name].highest)
        for name in properties
        if name in PROPERTIES
    }
    return [
        Filter(name, *limit, closed=True)
        for name, limit in limits.items()
        if np.isfinite(limit).any()
    ]


class Source(NamedTuple):
    """The facts about a source that are known before its table is read."""

    title: str
    properties: tuple[str, ...]  # properties that the source's table may report
    licence: str = ""
    citation: str = ""
    filters: tuple[Filter, ...] = ()
    pure_elements: bool = True  # False: rows of one element are rejected, as in the papers
    # True: all rows with the same formula are kept, even if their features depend only on it.
    polymorphs: bool = False
    duplicates: str = "lowest-energy"  # the rule of duplicates.py for rows of one formula
    structures: bool = False  # True: the source's table has structures
    rows: tuple[int, int] | None = None  # expected number of rows: lowest and highest
    rows_as_of: str = ""  # date and release to which the expected number applies
    lacks: tuple[str, ...] = ()  # families of elements that no row contains
    # True: no rule of ours removes or changes a row or a value; what the rules would remove is
    # listed.
    is_verbatim: bool = False
    has_folds: bool = False  # True: the table has a column `fold`, and a pack tests one of them
    units: tuple[tuple[str, str], ...] = ()  # of the properties that are not in PROPERTIES

    def unit_by_property(self) -> dict[str, str]:
        """Return property -> unit for the properties that the source's table may report."""
        known = dict(self.units)
        return {name: known.get(name) or PROPERTIES[name].unit for name in self.properties}


# The papers filter energies. Band gaps are not filtered here: nine in ten of OQMD's are zero, so a
# limit of five standard deviations would remove every wide gap.
FORMATION = (Filter("formation_energy", -20, 5), Filter("formation_energy", deviations=5))
ENERGY = (Filter("energy_per_atom", deviations=5),)
# Moduli have no limit by standard deviations: it would remove tungsten carbide and diamond. Failed
# calculations give -3476 or 3295 GPa; no solid at rest is stiffer than diamond's 535 GPa.
MODULI = (Filter("bulk_modulus", -500, 700), Filter("shear_modulus", -500, 700))

OQMD = "Saal et al., JOM 65, 1501 (2013); Kirklin et al., npj Comput. Mater. 1, 15010 (2015)"
OQMD_ROWS, OQMD_AS_OF = (
    (600_000, 2_500_000),
    "2026-11: 0.7 million in 2019, above 1.2 million since 2023",
)

SOURCES = {
    "alloys": Source(
        "alloys of 3 to 5 elements, computed by the regular-solution model",
        ("mixing_enthalpy", "size_mismatch"),
        "data of matminer (BSD)",
        "Takeuchi and Inoue, Mater. Trans. 46, 2817 (2005); "
        "Miracle et al., Int. Mater. Rev. 55, 218 (2010)",
        lacks=("hydrogen", "chalcogens", "halogens", "noble_gases"),
    ),
    "oqmd": Source(
        "Open Quantum Materials Database",
        ("formation_energy", "energy_per_atom", "energy_above_hull", "volume_per_atom", "band_gap"),
        "CC BY 4.0",
        OQMD,
        FORMATION + ENERGY,
        pure_elements=False,
        rows=OQMD_ROWS,
        rows_as_of=OQMD_AS_OF,
    ),
    "oqmd-sc": Source(
        "Open Quantum Materials Database, with structures",
        ("formation_energy", "energy_above_hull", "volume_per_atom", "band_gap"),
        "CC BY 4.0",
        OQMD,
        FORMATION,
        pure_elements=False,
        polymorphs=True,
        structures=True,
        rows=OQMD_ROWS,
        rows_as_of=OQMD_AS_OF,
    ),
    "mp": Source(
        "Materials Project",
        (
            "formation_energy",
            "energy_above_hull",
            "band_gap",
            "total_magnetization",
            "bulk_modulus",
            "shear_modulus",
            "density",
            "volume",
            "volume_per_atom",
        ),
        "CC BY 4.0",
        "Jain et al., APL Mater. 1, 011002 (2013); "
        "through matminer: Ward et al., Comput. Mater. Sci. 152, 60 (2018)",
        FORMATION + MODULI,
        structures=True,
        rows=(83_989, 83_989),
        rows_as_of="2018-10-18, a snapshot",
    ),
    "jarvis": Source(
        "JARVIS-DFT",
        (
            "formation_energy",
            "energy_above_hull",
            "band_gap",
            "band_gap_mbj",
            "bulk_modulus",
            "shear_modulus",
            "density",
            "volume",
            "volume_per_atom",
        ),
        "public data of NIST, see jarvis.nist.gov",
        "Choudhary et al., npj Comput. Mater. 6, 173 (2020); "
        "Choudhary et al., Phys. Rev. B 98, 014107 (2018); "
        "through matminer: Ward et al., Comput. Mater. Sci. 152, 60 (2018)",
        FORMATION,
        structures=True,
        rows=(25_923, 25_923),
        rows_as_of="2018-07-07, a snapshot",
    ),
    "aflow": Source(
        "AFLOW",
        (
            "formation_energy",
            "energy_per_atom",
            "band_gap",
            "volume",
            "density",
            "bulk_modulus",
            "shear_modulus",
        ),
        "open to research with citation; we found no named licence, see aflow.org",
        "Curtarolo et al., Comput. Mater. Sci. 58, 218 (2012); "
        "Rose et al., Comput. Mater. Sci. 137, 362 (2017)",
        FORMATION + ENERGY,
        rows=(3_000_000, 6_000_000),
        rows_as_of="2026-11: above 3.5 million since 2022",
    ),
}
