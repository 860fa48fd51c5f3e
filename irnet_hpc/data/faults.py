"""Decide what cells that hold no number cost: their row, their column, or the whole table.

The decision is made by the whole column, so that it does not depend on the order of the rows:

- a column of features with more texts than numbers describes the rows in words, and is left out;
  so is a column that counts as a property only by the unit in its header;
- any other property with more texts than numbers is an error, since it is the wrong column;
- otherwise a cell that holds no number costs its row, or ends the command (--strict).
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.cells import ColumnReader
from irnet_hpc.data.raw_table import Fault, TableText
from irnet_hpc.errors import UserError


@dataclasses.dataclass(frozen=True)
class CellRules:
    """State how the cells of numbers are read."""

    missing: tuple[str, ...] = ()  # texts that mean "not reported", as the user stated
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> unit of its cells
    guessed: frozenset[str] = frozenset()  # properties only because their header has a unit
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> in the table
    strict: bool = False


class Settled(NamedTuple):
    """The columns of numbers, and the cells that cost their rows."""

    columns: dict[str, np.ndarray]  # name -> (n_rows,) float64, NaN where not reported
    faults: dict[int, Fault]
    notes: tuple[str, ...]


def settle(
    table: TableText,
    readers: Mapping[str, ColumnReader],
    targets: Collection[str],
    lines: Sequence[int],
    rules: CellRules,
) -> Settled:
    """Decide about the cells of all columns that hold no number.

    Args:
        table: The table, which messages name.
        readers: Name -> the cells of the column, all read.
        targets: The names of the properties; all other columns are features.
        lines: (n_rows,) the line of each row.
        rules: How cells are read.

    Raises:
        UserError: If a property holds more texts than numbers, or any text if `rules.strict`.
    """
    columns: dict[str, np.ndarray] = {}
    found: dict[int, list[Fault]] = {}
    notes: list[str] = []
    for name, reader in readers.items():
        values = reader.finish()
        n_numbers, n_texts = int(np.isfinite(values).sum()), len(reader.faults)
        header = rules.headers.get(name, name)
        if n_texts > n_numbers:
            if name not in targets or name in rules.guessed:
                continue
            raise _no_numbers(table, header, reader, lines, n_numbers)
        columns[name] = values
        for row, (text, reason) in reader.faults.items():
            found.setdefault(row, []).append(Fault(header, text, reason))
        notes += [f"{n:,} cells of {header} {rule}" for rule, n in reader.rules.most_common()]
    faults = {row: _first(cells) for row, cells in sorted(found.items())}
    if faults and rules.strict:
        row, fault = next(iter(faults.items()))
        more = f"; {len(faults) - 1:,} more rows have such cells" if len(faults) > 1 else ""
        raise UserError(f"{table.place(lines[row])}: {_must(fault)}{more}")
    return Settled(columns, faults, tuple(notes))


def _first(cells: Sequence[Fault]) -> Fault:
    others = ", ".join(f"{fault.column} {fault.text.strip()!r:.50}" for fault in cells[1:])
    return cells[0]._replace(detail=f"also {others}" if others else "")


def _must(fault: Fault) -> str:
    return (
        f"{fault.column} must be a finite number, or empty where not reported, "
        f"got {fault.text!r:.50} ({fault.reason})"
    )


def _no_numbers(
    table: TableText, header: str, reader: ColumnReader, lines: Sequence[int], n_numbers: int
) -> UserError:
    row, (text, reason) = next(iter(reader.faults.items()))
    return UserError(
        f"{table.place(lines[row])}: {_must(Fault(header, text, reason))}; {n_numbers:,} rows "
        f"have a number, and {len(reader.faults):,} have text"
    )
