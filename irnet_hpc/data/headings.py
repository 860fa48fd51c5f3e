"""Decide what each column of a table is called, from its header.

    Formula, composition, compound, ...     the formulas, if no column is named formula
    Sample ID, mp-id, ...                   the ids, if one column alone has such a name
    Eg (eV), K_VRH [GPa]                    a property, with its unit

Names that a user gives (--formula-column, --rename, --drop) come first. Tables of named sources
have the names of this package, so in them nothing is recognised.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from irnet_hpc.data.identifying import identifying_name
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.raw_table import RESERVED
from irnet_hpc.data.reading import Reading
from irnet_hpc.data.units import can_convert, foreign_unit, split_header
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME

FORMULAS = {
    *("formula", "composition", "compound", "chemicalformula", "prettyformula", "formulapretty"),
    *("reducedformula", "formulareduced", "chemicalcomposition", "chemformula"),
}
# Names by which people call the properties of PROPERTIES, as plain_name gives them. Each counts
# only with a unit that can be converted: an `Ef (eV)` may be a Fermi energy, `Ef (eV/atom)` cannot.
ALIASES = {
    "formation_energy": "ef eform hf hform deltahf formationenthalpy deltae formationenergyperatom",
    "energy_per_atom": "etot totalenergy energyperatom",
    "energy_above_hull": "ehull eabovehull eah energyabovehull",
    "band_gap": "eg egap gap bandgap",
    "volume_per_atom": "vpa volumeperatom",
    "volume": "vcell cellvolume",
    "density": "rho ρ massdensity",
    "bulk_modulus": "kvrh bulkmodulusvrh",
    "shear_modulus": "gvrh shearmodulusvrh",
}
NAMES = {
    alias: name
    for name, aliases in ALIASES.items()
    for alias in (name.replace("_", ""), *aliases.split())
} | {name.replace("_", ""): name for name in PROPERTIES}
NO_ID = ("doi",)  # names a publication, and no sample


@dataclasses.dataclass(frozen=True)
class Headings:
    """The columns of a table: what the table calls them, and what they are called here."""

    given: tuple[str, ...]  # as the table has them, without blanks around them
    names: tuple[str, ...]  # empty: the column is not read
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> unit in the header
    # Names of columns that count as properties only because their header has a unit.
    guessed: frozenset[str] = frozenset()
    own_id: bool = False  # whether material_id is a column that is not named so
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)  # given -> why
    notes: tuple[str, ...] = ()

    def name_of(self, column: str) -> str:
        """Return the name of a column that a user calls by its header or by its name."""
        if column in self.given and column not in self.names:
            return self.names[self.given.index(column)] or column
        return column


def plain_headings(given: Sequence[str]) -> Headings:
    """Return the headings of a table whose columns keep their names."""
    return Headings(tuple(given), tuple(given))


def provider_headings(
    table: str, given: Sequence[str], rename: Mapping[str, str], units: Mapping[str, str]
) -> Headings:
    """Name the columns of a table whose names and units are those of a provider of OPTIMADE.

    There `_exmpl_gap` is the name of a property. Here it is called `exmpl_gap`, since no name of
    ours begins with _. Options may call it by both names.

    Args:
        table: The name of the table, for messages.
        given: The names of the columns.
        rename: Column -> the name by which it is read.
        units: Column, or new name -> unit.

    Raises:
        UserError: If a name is not in the table or is used twice, or a unit is missing or does not
            fit.
    """
    rename = {f"_{key}" if f"_{key}" in given else key: name for key, name in rename.items()}
    naming = _Naming(table, list(given), ())
    naming.rename(rename, units)
    for column, name in rename.items():
        unit = PROPERTIES[name].unit if name in PROPERTIES else ""
        if unit and not (units.get(column) or units.get(name)):
            raise UserError(
                f"{table} does not state the unit of {column!r}, so it cannot be read as {name}; "
                f"if it is in {unit}, say so with --unit {name}={unit}"
            )
    naming.shorten(units)
    return Headings(tuple(given), tuple(naming.names), naming.units)


def plain_name(name: str) -> str:
    """Return a name without the differences of spelling: `Band gap` and `band_gap` are one.

    >>> plain_name(" Chemical_Formula ")
    'chemicalformula'
    """
    return re.sub(r"[\s_.-]+", "", name).lower().replace("δ", "delta")


def name_columns(
    table: str,
    given: Sequence[str],
    reading: Reading,
    wanted: Collection[str] = (),
    features: bool = False,
) -> Headings:
    """Name the columns of a user's own table.

    Args:
        table: The name of the table, for messages.
        given: The headers, without blanks around them.
        reading: How the user wants the table to be read.
        wanted: The properties that the user names, by their headers or by their names.
        features: True if further columns are features, which may have units too.

    Raises:
        UserError: If a name is not in the table, is used twice, or cannot be told from another.
    """
    naming = _Naming(table, list(given), wanted)
    naming.drop(reading.drop)
    naming.rename(reading.rename)
    naming.find_formula(reading.formula_column)
    naming.find_id()
    naming.find_properties(features)
    return Headings(
        tuple(given),
        tuple(naming.names),
        naming.units,
        frozenset(naming.guessed),
        naming.own_id,
        naming.left_out,
        tuple(naming.notes),
    )


class _Naming:
    """The names of the columns, as one rule after the other decides about them."""

    def __init__(self, table: str, given: list[str], wanted: Collection[str]) -> None:
        self.table, self.given, self.wanted = table, given, wanted
        self.names = list(given)
        self.is_settled = [name in RESERVED or not name for name in given]
        self.units: dict[str, str] = {}
        self.guessed: set[str] = set()
        self.own_id = False
        self.left_out: dict[str, str] = {}
        self.notes: list[str] = []

    def _place(self, option: str, column: str) -> int:
        column = column.strip()
        named = [name for name in self.given if name]
        check_choice(f"column of {self.table} (of {option})", column, named)
        return self.given.index(column)

    def _leave_out(self, place: int, why: str) -> None:
        self.names[place], self.is_settled[place] = "", True
        self.left_out[self.given[place]] = why

    def drop(self, columns: Sequence[str]) -> None:
        for column in columns:
            self._leave_out(self._place("--drop", column), "dropped")

    def rename(self, names: Mapping[str, str], units: Mapping[str, str] | None = None) -> None:
        """Rename columns; their units are in their headers, or in `units`."""
        for column, name in names.items():
            place = self._place("--rename", column)
            if self.given[place] in self.left_out:
                raise UserError(f"column {column!r} can be renamed or dropped, got both")
            if not NAME.fullmatch(name):
                raise UserError(
                    f"the new name of column {column!r} must be letters, digits and _.+=-, "
                    f"got {name!r}"
                )
            self.names[place], self.is_settled[place] = name, True
            given = self.given[place]
            unit = split_header(given)[1] if units is None else units.get(given, "")
            if unit and name not in RESERVED:
                self._convert(place, name, unit)
            elif name in PROPERTIES:
                self._refuse_foreign(place, name)
        twice = [
            name for name, n in Counter(self.names).items() if n > 1 and name in names.values()
        ]
        if twice:
            raise UserError(
                f"{self.table} would have several columns named {twice[0]!r}; --drop the others"
            )

    def shorten(self, units: Mapping[str, str]) -> None:
        """Leave out the _ before the names of columns that are not renamed."""
        for place, given in enumerate(self.given):
            short = given.lstrip("_")
            if short != given and short not in self.names and not self.is_settled[place]:
                self.names[place] = short
                if given in units:
                    self._convert(place, short, units[given])

    def _convert(self, place: int, name: str, unit: str) -> None:
        """Note the unit of a column that is read as `name`. Raises UserError if it does not fit."""
        if name in PROPERTIES and not can_convert(unit, PROPERTIES[name].unit):
            raise UserError(
                f"column {self.given[place]!r} of {self.table} is in {unit}, which cannot be "
                f"converted to {PROPERTIES[name].unit}, the unit of {name}; --rename it to another "
                "name, or --drop it"
            )
        self.units[name] = unit

    def _refuse_foreign(self, place: int, name: str) -> None:
        """Raise UserError if a column's header seems to state a unit that cannot be converted."""
        own, given = PROPERTIES[name].unit, self.given[place]
        if text := foreign_unit(given, own):
            raise UserError(
                f"column {given!r} of {self.table} seems to be in {text!r}, a unit not known "
                f"here; convert its values to {own}, and write {own} into its header"
            )

    def find_formula(self, stated: str) -> None:
        if stated:
            place = self._place("--formula-column", stated)
            if self.names[place] not in (self.given[place], "formula"):
                raise UserError(
                    f"column {stated!r} cannot be the column of formulas and renamed or dropped"
                )
            for other, name in enumerate(self.names):
                if name == "formula" and other != place:
                    self._leave_out(other, "not the column of formulas")
            self.names[place], self.is_settled[place] = "formula", True
        if "formula" in self.names:
            return
        alike = [
            place
            for place, name in enumerate(self.given)
            if not self.is_settled[place] and plain_name(name) in FORMULAS
        ]
        if len(alike) > 1:
            columns = ", ".join(repr(self.given[place]) for place in alike)
            raise UserError(
                f"{self.table} has several columns that may hold the formulas, {columns}; "
                "choose one with --formula-column"
            )
        for place in alike:
            self.names[place], self.is_settled[place] = "formula", True
            self.notes.append(f"column {self.given[place]!r} holds the formulas")

    def find_id(self) -> None:
        if "material_id" in self.names:
            return
        alike = [
            place
            for place, name in enumerate(self.given)
            if not self.is_settled[place]
            and identifying_name(name) == "an id"
            and name.lower() not in NO_ID
            and name not in self.wanted
        ]
        if len(alike) == 1:
            place = alike[0]
            self.names[place], self.is_settled[place] = "material_id", True
            self.own_id = True
            self.notes.append(f"column {self.given[place]!r} holds the ids")

    def find_properties(self, features: bool) -> None:
        """Find properties by their headers: a name and a unit, or a name that the user wants."""
        found: dict[str, list[int]] = {}
        for place, given in enumerate(self.given):
            if self.is_settled[place] or given in PROPERTIES:
                continue
            bare, unit = split_header(given)
            known = NAMES.get(plain_name(bare), "") if unit else ""
            if known and can_convert(unit, PROPERTIES[known].unit):
                found.setdefault(known, []).append(place)
            elif known and plain_name(bare) == known.replace("_", ""):
                self._convert(place, known, unit)  # raises
            elif given in self.wanted or _as_name(bare) in self.wanted or (unit and not features):
                found.setdefault(_as_name(bare), []).append(place)
        for name, places in found.items():
            if len(places) == 1:
                self._name_property(name, places[0])
            elif name in self.names or (self.wanted and name not in self.wanted):
                for place in places:
                    self._leave_out(place, f"one of several columns that may be {name}")
            else:
                self._refuse_two(name, places)

    def _refuse_two(self, name: str, places: list[int]) -> None:
        columns = ", ".join(repr(self.given[place]) for place in places)
        raise UserError(
            f"{self.table} has several columns that may be {name}, {columns}; --rename or --drop "
            "all but one"
        )

    def _name_property(self, name: str, place: int) -> None:
        given, unit = self.given[place], split_header(self.given[place])[1]
        if not name or name == given:
            return
        if name in self.names:
            # The column of exactly this name is meant.
            if given not in self.wanted:
                self._leave_out(place, f"there is a column {name}")
            return
        self.names[place] = name
        if unit:
            self.units[name] = unit
            self.guessed.add(name)
            self.notes.append(f"column {given!r} is {name} in {unit}")
        else:
            self.notes.append(f"column {given!r} is called {name}")


def _as_name(text: str) -> str:
    """Make a property's name of a header; empty if nothing of it can be part of a name."""
    return re.sub(r"[^A-Za-z0-9_.+=-]+", "_", text).strip("_.-=+")
