"""Materials: compounds in columns, each a formula and the amounts of its elements."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.crystals import Crystals
from irnet_hpc.data.formulas import NUMBER, Unreadable, composition, reduced_formula


class Rejected(NamedTuple):
    """A row of the source that is not in the pack, and why. Rows are counted by `reason`; `detail` may differ in each."""

    line: int
    material_id: str
    formula: str
    reason: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Materials:
    """`n_rows` compounds. Elements and amounts lie in two flat arrays: row i has those in start[i]:start[i + 1]."""

    line: np.ndarray  # (n_rows,) int64, in the source's table
    material_id: np.ndarray  # (n_rows,) str objects
    formula: np.ndarray  # (n_rows,) str objects, as in the source
    reduced: np.ndarray  # (n_rows,) str objects, the same for every spelling of a composition
    start: np.ndarray  # (n_rows + 1,) int64
    number: np.ndarray  # (n_amounts,) int16, atomic numbers
    amount: np.ndarray  # (n_amounts,) float64, atoms per formula as written, positive
    split: np.ndarray | None  # (n_rows,) "train", "val" or "test" where the source says it
    columns: np.ndarray  # (n_rows, n_columns) float32, the user's own features
    column_labels: tuple[str, ...]
    targets: dict[str, np.ndarray]  # property -> (n_rows,) float64 in its unit, NaN = not reported
    crystals: Crystals | None = None  # where the source has structures

    def __len__(self) -> int:
        return len(self.line)

    @property
    def n_elements(self) -> np.ndarray:
        """(n_rows,) int64: how many elements each compound has."""
        return np.diff(self.start)

    @property
    def row_of_amount(self) -> np.ndarray:
        """(n_amounts,) int64: the row that each amount belongs to."""
        return np.repeat(np.arange(len(self)), self.n_elements)

    def take(self, rows: np.ndarray) -> "Materials":
        """The materials at `rows`: row numbers, in any order, or a mask."""
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
            split=None if self.split is None else self.split[rows],
            targets={name: values[rows] for name, values in self.targets.items()},
            crystals=self.crystals and self.crystals.take(rows),
        )


def parse(
    line: np.ndarray,
    material_id: Sequence[str],
    formula: Sequence[str],
    split: Sequence[str] | None,
    columns: dict[str, np.ndarray],
    targets: dict[str, np.ndarray],
    crystals: Crystals | None = None,
    named: bool = True,
) -> tuple[Materials, list[Rejected]]:
    """Read every formula; rows whose formula is no composition are rejected with the reason.

    Where they need not be `named`, reduced formulas are left empty, which saves a third of the time.
    """
    rejected, kept, reduced, counts, numbers, amounts = [], [], [], [], [], []
    for row, text in enumerate(formula):
        try:
            found = composition(text)
        except Unreadable as error:
            # Where a formula would have been that of the structure, what is wrong with the structure is the reason.
            why = error.args if text or crystals is None else crystals.lacking[row] or error.args
            rejected.append(Rejected(int(line[row]), material_id[row], text, *why))
            continue
        kept.append(row)
        reduced.append(reduced_formula(found) if named else "")
        counts.append(len(found))
        numbers += [NUMBER[symbol] for symbol in found]
        amounts += found.values()
    kept = np.array(kept, np.int64)
    matrix = np.empty((len(kept), len(columns)), np.float32)
    for place, values in enumerate(columns.values()):
        with np.errstate(over="ignore"):  # what float32 cannot hold is rejected as not finite
            matrix[:, place] = values[kept]
    materials = Materials(
        line=line[kept],
        material_id=np.array(material_id, object)[kept],
        formula=np.array(formula, object)[kept],
        reduced=np.array(reduced, object),
        start=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        number=np.array(numbers, np.int16),
        amount=np.array(amounts, np.float64),
        split=None if split is None else np.array(split, object)[kept],
        columns=matrix,
        column_labels=tuple(columns),
        targets={name: values[kept] for name, values in targets.items()},
        crystals=crystals and crystals.take(kept),
    )
    return materials, rejected
