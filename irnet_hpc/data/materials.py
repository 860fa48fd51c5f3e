"""Materials: compounds stored as columns, each with a formula and the amounts of its elements."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.crystals import Crystals
from irnet_hpc.data.elements import NUMBER
from irnet_hpc.data.formulas import InvalidFormula, parse_formula, reduced_formula
from irnet_hpc.data.raw_table import RawTable


class Rejected(NamedTuple):
    """A row of the source that is left out of the pack, and the reason.

    Rejected rows are counted by `reason`; `detail` may differ from row to row.
    """

    line: int
    material_id: str
    formula: str
    reason: str
    detail: str = ""
    column: str = ""  # the column of a cell that cannot be read
    text: str = ""  # the text of that cell
    file: str = ""  # the file of a structure
    block: str = ""  # its block, or its number in a file of several


class LostValue(NamedTuple):
    """A value that the pack does not have, although its row may be packed."""

    line: int
    material_id: str
    formula: str
    property: str
    value: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Materials:
    """Compounds stored as columns.

    The elements and amounts of all rows are stored one after the other in two flat arrays; those of
    row i are at start[i]:start[i + 1].
    """

    line: np.ndarray  # (n_rows,) int64, in the source's table
    material_id: np.ndarray  # (n_rows,) str objects
    formula: np.ndarray  # (n_rows,) str objects, as in the source
    reduced: np.ndarray  # (n_rows,) str objects, the same for every spelling of a composition
    start: np.ndarray  # (n_rows + 1,) int64
    number: np.ndarray  # (n_amounts,) int16, atomic numbers
    amount: np.ndarray  # (n_amounts,) float64, atoms per formula as written, positive
    role: np.ndarray | None  # (n_rows,) "train", "val" or "test"; None if the source has no roles
    columns: np.ndarray  # (n_rows, n_columns) float32, the user's own features
    column_labels: tuple[str, ...]
    targets: dict[str, np.ndarray]  # property -> (n_rows,) float64 in its unit, NaN = not reported
    crystals: Crystals | None = None  # None if the source has no structures
    # (n_rows,) bool: whether the source states the row's id; None: it states all of them
    has_id: np.ndarray | None = None
    fold: np.ndarray | None = None  # (n_rows,) int64, in which each row is tested; None: no folds

    def __len__(self) -> int:
        return len(self.line)

    @property
    def n_elements(self) -> np.ndarray:
        """Return the number of elements of each compound, (n_rows,) int64."""
        return np.diff(self.start)

    @property
    def row_of_amount(self) -> np.ndarray:
        """Return the row that each amount belongs to, (n_amounts,) int64."""
        return np.repeat(np.arange(len(self)), self.n_elements)

    def contains(self, elements: Iterable[str]) -> np.ndarray:
        """Tell which materials contain at least one of the elements, (n_rows,) bool."""
        is_one = np.isin(self.number, [NUMBER[symbol] for symbol in elements])
        return np.bincount(self.row_of_amount[is_one], minlength=len(self)) > 0

    def take(self, rows: np.ndarray) -> "Materials":
        """Return the materials at `rows`: row numbers, in any order, or a mask."""
        rows = np.arange(len(self))[rows]
        counts = self.n_elements[rows]
        start = np.concatenate([[0], np.cumsum(counts)])
        flat = np.repeat(self.start[rows] - start[:-1], counts) + np.arange(start[-1])
        return dataclasses.replace(
            self,
            **{
                name: getattr(self, name)[rows]
                for name in ("line", "material_id", "formula", "reduced", "columns")
            },
            start=start,
            number=self.number[flat],
            amount=self.amount[flat],
            role=None if self.role is None else self.role[rows],
            has_id=None if self.has_id is None else self.has_id[rows],
            fold=None if self.fold is None else self.fold[rows],
            targets={name: values[rows] for name, values in self.targets.items()},
            crystals=self.crystals and self.crystals.take(rows),
        )


def reject(materials: Materials, row: int, reason: str, detail: str = "") -> Rejected:
    """Make the record of a row that is not packed."""
    return Rejected(
        int(materials.line[row]), materials.material_id[row], materials.formula[row], reason, detail
    )


def lose(materials: Materials, row: int, name: str, reason: str) -> LostValue:
    """Make the record of a value that is not packed."""
    return LostValue(
        int(materials.line[row]),
        materials.material_id[row],
        materials.formula[row],
        name,
        float(materials.targets[name][row]),
        reason,
    )


def parse_materials(table: RawTable, named: bool = True) -> tuple[Materials, list[Rejected]]:
    """Parse every formula of a table.

    Args:
        table: the raw rows.
        named: compute reduced formulas; without them, parsing takes two thirds of the time.

    Returns:
        The rows whose formula is a composition, and the rejected rows, each with the reason:
        an unreadable formula, or an unreadable cell.
    """
    rejected: list[Rejected] = []
    kept: list[int] = []
    reduced: list[str] = []
    counts: list[int] = []
    numbers: list[int] = []
    amounts: list[float] = []
    for row, formula in enumerate(table.formula):
        if fault := table.faults.get(row):
            where = int(table.line[row]), table.material_id[row], formula
            rejected.append(Rejected(*where, fault.reason, fault.detail, fault.column, fault.text))
            continue
        try:
            composition = parse_formula(formula)
        except InvalidFormula as error:
            reason = error.args
            if not formula and table.crystals is not None:
                # The formula would have come from the structure, so the fault is in the structure.
                reason = table.crystals.problem[row] or reason
            line = int(table.line[row])
            rejected.append(Rejected(line, table.material_id[row], formula, *reason))
            continue
        kept.append(row)
        reduced.append(reduced_formula(composition) if named else "")
        counts.append(len(composition))
        numbers += [NUMBER[symbol] for symbol in composition]
        amounts += composition.values()
    rows = np.array(kept, np.int64)
    columns = np.empty((len(rows), len(table.columns)), np.float32)
    for place, values in enumerate(table.columns.values()):
        with np.errstate(over="ignore"):  # overflow gives inf, rejected as not finite
            columns[:, place] = values[rows]
    materials = Materials(
        line=table.line[rows],
        material_id=np.array(table.material_id, object)[rows],
        formula=np.array(table.formula, object)[rows],
        reduced=np.array(reduced, object),
        start=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        number=np.array(numbers, np.int16),
        amount=np.array(amounts, np.float64),
        role=None if table.role is None else np.array(table.role, object)[rows],
        columns=columns,
        column_labels=tuple(table.columns),
        targets={name: values[rows] for name, values in table.targets.items()},
        crystals=table.crystals and table.crystals.take(rows),
        has_id=None if table.has_id is None else table.has_id[rows],
        fold=None if table.fold is None else table.fold[rows],
    )
    return materials, rejected
