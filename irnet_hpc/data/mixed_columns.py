"""Decide what a column is that holds numbers in some rows and text in others.

The decision is made by the whole column, so that it does not depend on the order of the rows.
"""

import numpy as np

from irnet_hpc.data.raw_table import TableText
from irnet_hpc.errors import UserError


class MixedColumns:
    """The texts that stand where a feature needs a number.

    Args:
        table: The table, which error messages name.
    """

    def __init__(self, table: TableText) -> None:
        self.table = table
        self.first: dict[str, tuple[int, object]] = {}  # column -> line and value of its first text
        self.count: dict[str, int] = {}

    def note(self, column: str, line: int, value: object) -> None:
        """Note that a line has no number in this column, but this value."""
        self.first.setdefault(column, (line, value))
        self.count[column] = self.count.get(column, 0) + 1

    def leave_out(self, columns: dict[str, np.ndarray]) -> None:
        """Remove the columns that hold more texts than numbers: they describe the rows in words.

        Args:
            columns: Name -> (n_rows,) float64, NaN where there is no number; changed in place.

        Raises:
            UserError: If a column holds texts, but at least as many numbers.
        """
        for column, (line, value) in self.first.items():
            if column not in columns:
                continue
            n_numbers = int(np.isfinite(columns[column]).sum())
            if n_numbers >= self.count[column]:
                raise UserError(
                    f"{self.table.place(line)}: {column} must be a finite number, or empty where "
                    f"not reported, got {value!r:.50}; {n_numbers:,} rows have a number, and "
                    f"{self.count[column]:,} have text"
                )
            del columns[column]
