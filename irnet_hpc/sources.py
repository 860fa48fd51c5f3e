"""SOURCES: database -> what it holds, its filters, licence and citation; and reading one, or a file of the user's own."""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from irnet_hpc import alloys, raw_table
from irnet_hpc.errors import UserError, choose
from irnet_hpc.files import NAME
from irnet_hpc.properties import PROPERTIES, unit_of
from irnet_hpc.raw_table import OPENERS, RESERVED, RawTable, ending_of
from irnet_hpc.splits import sample


class Filter(NamedTuple):
    """A rule for one property's values: what breaks it becomes not reported. The row stays."""

    property: str
    low: float = -np.inf  # in the property's unit, excluded
    high: float = np.inf
    deviations: float = np.inf  # standard deviations from the mean of the values that the filters before it leave

    def __str__(self) -> str:
        if np.isfinite(self.deviations):
            return f"|{self.property} - mean| <= {self.deviations:g} sd"
        return f"{self.low:g} < {self.property} < {self.high:g} {unit_of(self.property)}"

    def breaks(self, values: np.ndarray) -> np.ndarray:
        """(n_rows,) bool: the values that break the rule. NaN, which is not reported, never does."""
        outside = (values <= self.low) | (values >= self.high)
        if np.isfinite(self.deviations) and not np.isnan(values).all():
            outside |= np.abs(values - np.nanmean(values)) > self.deviations * np.nanstd(values)
        return outside


class Source(NamedTuple):
    title: str
    properties: tuple[str, ...]  # that its table may report
    licence: str = ""
    citation: str = ""
    filters: tuple[Filter, ...] = ()
    pure_elements: bool = True  # False: rows of one element are rejected, as in the papers


# The papers filter energies. The other properties are left alone: five standard deviations of OQMD's band gaps, nine in
# ten of which are zero, would take away every wide gap.
FORMATION = (Filter("formation_energy", -20, 5), Filter("formation_energy", deviations=5))
ENERGY = (Filter("energy_per_atom", deviations=5),)
MODULI = (Filter("bulk_modulus", deviations=5), Filter("shear_modulus", deviations=5))

SOURCES = {
    "alloys": Source(
        "alloys of 3 to 5 elements, computed by the regular-solution model",
        ("mixing_enthalpy", "size_mismatch"),
        "data of matminer (BSD)",
        "Takeuchi and Inoue, Mater. Trans. 46, 2817 (2005); Miracle et al., Int. Mater. Rev. 55, 218 (2010)",
    ),
    "oqmd": Source(
        "Open Quantum Materials Database",
        ("formation_energy", "energy_per_atom", "energy_above_hull", "volume_per_atom", "band_gap"),
        "CC BY 4.0",
        "Saal et al., JOM 65, 1501 (2013); Kirklin et al., npj Comput. Mater. 1, 15010 (2015)",
        FORMATION + ENERGY,
        pure_elements=False,
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
        "Jain et al., APL Mater. 1, 011002 (2013)",
        FORMATION + MODULI,
    ),
    "jarvis": Source(
        "JARVIS-DFT",
        ("formation_energy", "energy_above_hull", "band_gap", "bulk_modulus", "shear_modulus"),
        "see jarvis.nist.gov",
        "Choudhary et al., npj Comput. Mater. 6, 173 (2020)",
        FORMATION,
    ),
    "aflow": Source(
        "AFLOW",
        ("formation_energy", "energy_per_atom", "band_gap", "volume", "density", "bulk_modulus", "shear_modulus"),
        "see aflow.org",
        "Curtarolo et al., Comput. Mater. Sci. 58, 218 (2012)",
        FORMATION + ENERGY,
    ),
}
DEFAULT_ROWS = 20_000  # of alloys


class Loaded(NamedTuple):
    identity: str  # its name in SOURCES, or `file:` and the name of the user's own file
    source: Source
    table: RawTable
    units: dict[str, str]  # property -> unit, of the properties to pack
    n_available: int  # rows of the source, of which `table` may be a sample


def load(
    source: str,
    data_dir: Path | str | None = None,
    n_rows: int | None = None,
    properties: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    columns: bool = False,
) -> Loaded:
    """Read a source: a name from SOURCES, or a path to a table.

    `n_rows` limits the rows to a fixed random sample (alloys: how many are made). `properties` are the targets, if not all
    columns that are in PROPERTIES; `units` those of properties that are not in it. With `columns`, numeric columns that are
    no property are read as features. Raises UserError.
    """
    units = units or {}
    name = name_of(source)
    known = SOURCES.get(source) or Source(source, tuple(PROPERTIES))  # a path is the user's own, whatever its name
    if source == "alloys":
        targets = _targets(properties, known.properties, units, f"property of {name}")
        table = alloys.read(n_rows or DEFAULT_ROWS)
    else:
        path = find_table(source, data_dir)
        targets = _targets(properties, raw_table.read_header(path), units, f"property of {path}")
        if not targets:
            raise UserError(
                f"{path} has no column named like a property ({', '.join(PROPERTIES)}); "
                "name those to predict with --property NAME --unit NAME=UNIT"
            )
        table = raw_table.read(path, name, targets, lambda column: columns and column not in PROPERTIES)
    empty = [target for target in targets if np.isnan(table.targets[target]).all()]
    for target in empty:
        if target in properties or len(empty) == len(targets):
            raise UserError(f"property {target!r} has no values in {source}: every row leaves it empty")
        del targets[target]
    n_available = len(table)
    if n_rows and n_rows < n_available:
        table = table.take(sample(n_available, n_rows))
    table = dataclasses.replace(table, targets={target: table.targets[target] for target in targets})
    return Loaded(source if source in SOURCES else f"file:{name}", known, table, targets, n_available)


def name_of(source: str) -> str:
    """The name of a source: its own, or that of the table's file without its ending. Raises UserError where it is neither."""
    if source in SOURCES:
        return source
    path = Path(source)
    if "/" in source or path.exists() or path.suffix in (".csv", ".gz", ".xz"):
        stem = path.name.removesuffix(ending_of(path))
        return re.sub(r"[^A-Za-z0-9_.=-]+", "_", stem).strip("_.-=") or "table"
    return choose("source", source, [*SOURCES, "a path to a table"])


def find_table(source: str, data_dir: Path | str | None = None) -> Path:
    """The raw table of a source: `<source>.csv`, `.csv.gz` or `.csv.xz` in `data_dir`, else $IRNET_DATA, else data/."""
    if source not in SOURCES:
        if not Path(source).is_file():
            raise UserError(f"there is no raw table {source}")
        return Path(source)
    folder = Path(data_dir or os.environ.get("IRNET_DATA") or "data")
    candidates = [folder / f"{source}{ending}" for ending in OPENERS]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UserError(
            f"no raw table of {source} in {folder}/: looked for {', '.join(path.name for path in candidates)}; it must have a "
            f"column formula and at least one of {', '.join(SOURCES[source].properties)}; another folder is given by "
            "--data-dir or $IRNET_DATA"
        )
    return found


def _targets(wanted: Sequence[str], columns: Iterable[str], units: Mapping[str, str], kind: str) -> dict[str, str]:
    """Property -> unit of the columns to predict."""
    columns = [column for column in columns if column not in RESERVED]
    for name in wanted:
        choose(kind, name, columns)
        if not NAME.fullmatch(name):
            raise UserError(
                f"a property's name must be letters, digits and _.+=-, however: {name!r}; rename the column"
            )
    targets = list(dict.fromkeys(wanted)) or [column for column in columns if column in PROPERTIES]
    for name in units:
        if name not in targets:
            choose("property (of --unit)", name, targets)
    return {name: unit_of(name, units.get(name)) for name in targets}
