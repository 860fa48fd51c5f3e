"""State how a user's own table is to be read: sheet, names of columns, missing values."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Reading:
    """The way in which a table is to be read; the defaults read it as it is."""

    formula_column: str = ""  # header of the column of formulas; empty: recognised
    # header -> the name by which the column is read
    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
    drop: tuple[str, ...] = ()  # headers of columns that are not read
    # Texts of cells that mean "not reported", case-sensitive; never of formulas or ids.
    missing: tuple[str, ...] = ()
    sheet: str = ""  # of an Excel workbook; empty: its only sheet
    strict: bool = False  # whether a cell or a file that cannot be read ends the command
    properties_table: str = ""  # path of the table with the properties of structures

    def settings(self) -> dict[str, Any]:
        """Return the fields that decide the content of a pack, without those at their defaults.

        Of a table of properties it is the name; its content is part of the source's hash.
        """
        stated = {
            "formula_column": self.formula_column,
            "rename": dict(self.rename),
            "drop": sorted(set(self.drop)),
            "missing": sorted(set(self.missing)),
            "sheet": self.sheet,
            "properties_table": Path(self.properties_table).name,
        }
        return {name: value for name, value in stated.items() if value}
