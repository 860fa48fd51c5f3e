"""Define the options that say how a user's table is read; `pack` and `predict` share them."""

import argparse
from collections.abc import Sequence
from typing import TypeVar

from irnet_hpc.console import CommandParser
from irnet_hpc.data.reading import Reading
from irnet_hpc.errors import UserError

T = TypeVar("T")


def add_reading_options(parser: CommandParser) -> None:
    """Add the options of a user's own table to the parser of a command."""
    add = parser.add_argument
    add(
        "--formula-column", metavar="COLUMN", help="the column of formulas, if it is not recognised"
    )
    add(
        "--rename",
        action="append",
        default=[],
        metavar="COLUMN=NAME",
        help="read a column by another name, such as 'Eg (PBE)=band_gap'; may be given several "
        "times",
    )
    add(
        "--missing",
        action="append",
        default=[],
        metavar="TEXT,...",
        help="texts of cells that mean not reported, such as na,-9999 (never of formulas or ids)",
    )
    add("--sheet", metavar="NAME", help="the sheet of an Excel workbook, if it has several")


def reading_of(arguments: argparse.Namespace) -> Reading:
    """Convert these options into a Reading. Raises UserError for a name without its column."""
    names = []
    for pair in arguments.rename:
        column, _, name = pair.rpartition("=")
        if not column or not name:
            raise UserError(f"--rename must be COLUMN=NAME, got {pair!r}")
        names.append((column.strip(), name.strip()))
    return Reading(
        formula_column=(arguments.formula_column or "").strip(),
        rename=once_each("--rename", names, "column"),
        missing=tuple(text for texts in arguments.missing for text in texts.split(",") if text),
        sheet=arguments.sheet or "",
    )


def once_each(option: str, pairs: Sequence[tuple[str, T]], kind: str = "property") -> dict[str, T]:
    """Return name -> value. Raises UserError if a name repeats, since only one value would act."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{option} may be given once for each {kind}, got {twice} twice")
    return values
