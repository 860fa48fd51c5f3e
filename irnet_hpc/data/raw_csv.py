"""Read raw tables of cells, from CSV files or from DataFrames.

A table has these columns:

    formula, optional material_id, optional split (train, val, test), a column per property,
    further numeric columns

headings.py decides which columns these are, and cells.py what a cell of numbers says. An empty
field means that the value is not reported. A formula is always text: `NaN` could also be a formula,
of sodium and nitrogen. predict/candidates.py reads the header of candidates to predict and accepts
the same names.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from irnet_hpc.data.cells import ColumnReader
from irnet_hpc.data.faults import CellRules, settle
from irnet_hpc.data.formulas import formula_text
from irnet_hpc.data.headings import FORMULAS, Headings, plain_headings, plain_name
from irnet_hpc.data.identifying import identifying_name, leave_out_row_numbers
from irnet_hpc.data.numerals import has_codes
from irnet_hpc.data.raw_table import (
    RESERVED,
    Fault,
    RawTable,
    TableText,
    check_text,
    number_rows,
    one_sentence,
)
from irnet_hpc.data.splits import ROLES
from irnet_hpc.errors import UserError

DELIMITERS = (",", ";", "\t", "|")
# Text is converted to numbers block by block, so that a wide table is never in memory as text.
BLOCK_ROWS = 16384
LENGTH = "another number of fields than the header"
NAMELESS = "without a name"


def sniff(table: TableText, formula_column: str = "") -> TableText:
    """Find the character that separates the fields of a table, from its first line.

    It is the first of DELIMITERS by which the line has a column of formulas; if there is none, the
    one by which it has the most columns.
    """
    with one_sentence(table.name):
        line = next((line for line in table.lines() if line.strip()), "")
    return table._replace(delimiter=delimiter_of(line, formula_column, table.delimiter))


def delimiter_of(line: str, formula_column: str = "", default: str = ",") -> str:
    """Return the character that separates the fields of a table's first line, as in sniff."""
    if default != ",":
        return default
    columns: dict[str, list[str]] = {}
    for delimiter in DELIMITERS:
        try:
            columns[delimiter] = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
    for delimiter, header in columns.items():
        if any(is_formula_column(name, formula_column) for name in header):
            return delimiter
    return max(columns, key=lambda delimiter: len(columns[delimiter]), default=default)


def is_formula_column(name: str, stated: str = "") -> bool:
    """Return True if a header names the formulas: as the user stated, or else as people call it."""
    return name.strip() == stated if stated else plain_name(name) in FORMULAS


def read_csv_header(table: TableText) -> list[str]:
    """Read the column names. Raises UserError if the table is empty or a name repeats."""
    with one_sentence(table.name):
        reader = csv.reader(table.lines(), delimiter=table.delimiter, strict=True)
        header = next((fields for fields in reader if any(fields)), [])
    header = [column.strip() for column in header]
    if not any(header):
        raise UserError(
            f"{table.name} is empty; a table must name its columns, including formula, and have "
            "rows"
        )
    # Columns without a name are left out, so there may be several, as behind a last comma.
    twice = sorted(column for column, count in Counter(header).items() if count > 1 and column)
    if twice:
        raise UserError(
            f"{table.name} repeats column names: {', '.join(map(repr, twice))}; name each once"
        )
    return header


def require_formula(table: str, headings: Headings) -> None:
    """Check that a table has a column of formulas. Raises UserError if not."""
    if "formula" not in headings.names:
        raise UserError(
            f"{table} has no column named formula; its columns: "
            f"{', '.join(name for name in headings.given if name)}; --formula-column names one"
        )


def read_csv_table(
    table: TableText,
    name: str,
    targets: Collection[str],
    is_feature: Callable[[str], bool],
    headings: Headings | None = None,
    rules: CellRules | None = None,
) -> RawTable:
    """Read a table of separated values.

    Args:
        table: the text of the table.
        name: the name of the table; a row without a material_id gets the id `<name>-<row>`.
        targets: columns to predict.
        is_feature: tells of any other column whether it becomes a feature if it is numeric.
        headings: the names of the columns; None: as the table has them.
        rules: how cells are read; None: by the defaults.

    Raises:
        UserError: if the table is malformed; the message names the line.
    """
    headings = headings or plain_headings(read_csv_header(table))
    rules = rules or CellRules()
    require_formula(table.name, headings)
    text: dict[str, list[str]] = {column: [] for column in headings.names if column in RESERVED}
    features = [
        column
        for column in headings.names
        if column and column not in {*RESERVED, *targets} and is_feature(column)
    ]
    left_out = {column: why for column in features if (why := identifying_name(column))}
    numbers = {
        column: ColumnReader(rules.units.get(column, ""), rules.missing)
        for column in (*targets, *features)
        if column not in left_out
    }
    lines: list[int] = []
    faults: dict[int, Fault] = {}
    digest = hashlib.sha256()
    with one_sentence(table.name):
        for block_lines, block in _blocks(table, len(headings.given), faults, digest):
            for column, values in zip(headings.names, zip(*block, strict=True), strict=True):
                if column in text:
                    text[column] += values
                elif column not in numbers:
                    continue
                elif column not in targets and has_codes(values):
                    del numbers[column]
                else:
                    numbers[column].read(values)
            lines += block_lines
    if not lines:
        raise UserError(f"{table.name} has a header and no rows")
    _check_lengths(table, lines, faults, rules.strict)
    for row in faults:
        if "split" in text:
            text["split"][row] = ROLES[0]
    check_text(table, text, lines)
    settled = settle(table, numbers, targets, lines, rules)
    faults = settled.faults | faults
    columns = settled.columns
    ids, has_id = number_rows(text.get("material_id", [""] * len(lines)), name)
    if headings.own_id:
        has_id = np.zeros(
            len(ids), bool
        )  # it names the row; whether it names a material, who knows
    left_out |= leave_out_row_numbers(columns, targets)
    kept = {*text, *columns}
    return RawTable(
        line=np.array(lines, np.int64) - table.offset,
        formula=text["formula"],
        material_id=ids,
        has_id=has_id,
        role=text.get("split"),
        targets={column: columns.pop(column) for column in targets if column in columns},
        columns=columns,
        ignored=_ignored(headings, kept, left_out),
        sha256=digest.hexdigest(),
        faults=faults,
        notes=settled.notes,
    )


def _ignored(
    headings: Headings, kept: Collection[str], left_out: dict[str, str]
) -> tuple[str, ...]:
    """List the columns that are not read, with the reason if there is one."""
    ignored = []
    for place, (given, name) in enumerate(
        zip(headings.given, headings.names, strict=True), start=1
    ):
        if name in kept and name:
            continue
        called = given or f"column {place}"
        why = headings.left_out.get(given) or left_out.get(name) or ("" if given else NAMELESS)
        ignored.append(f"{called} ({why})" if why else called)
    return tuple(ignored)


def with_named_index(frame: Any) -> Any:
    """Turn the named levels of a pandas DataFrame's index into columns.

    `set_index("material_id")` and `groupby(["formula", "T"])` put data into the index. A level
    stays in the index if a column has the same name.
    """
    named = [
        level
        for level in frame.index.names
        if level is not None and level not in frame.columns and frame.columns.nlevels == 1
    ]
    return frame.reset_index(level=named) if named else frame


def frame_text(frame: Any, name: str, formula_column: str = "") -> TableText:
    """Return the text of a pandas DataFrame as `frame.to_csv(index=False)` writes it.

    The named levels of its index are written as columns too. A DataFrame and its CSV file therefore
    give the same table and the same hash. In error messages, rows are counted from 1. Raises
    UserError if the columns have several levels.
    """
    if frame.columns.nlevels > 1:
        raise UserError(
            f"the columns of {name} have {frame.columns.nlevels} levels; give each column one name"
        )

    frame = with_named_index(frame)
    compositions = [
        column for column in frame.columns if is_formula_column(str(column), formula_column)
    ]

    def lines(digest: Any = None) -> Iterator[str]:
        for start in range(0, max(1, len(frame)), BLOCK_ROWS):
            block = frame.iloc[start : start + BLOCK_ROWS]
            for column in compositions if frame.columns.is_unique else ():
                block = block.assign(**{column: block[column].astype(object).map(_as_text)})
            text = block.to_csv(index=False, header=start == 0, lineterminator="\n")
            content = text.encode()
            if digest:
                digest.update(content)
            yield from io.StringIO(text)

    return TableText(name, lines, unit="row", first=2)


def _as_text(formula: Any) -> Any:
    """Convert a pymatgen Composition to a formula, as for predictions; return text unchanged."""
    return formula if isinstance(formula, str) else formula_text(formula)


def _blocks(
    table: TableText, n_fields: int, faults: dict[int, Fault], digest: Any
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield blocks of (line numbers, rows).

    Blank rows are left out, and all rows have equal length. Rows of another length are noted in
    `faults`, and get empty fields.
    """
    reader = csv.reader(table.lines(digest), delimiter=table.delimiter, strict=True)
    lines: list[int] = []
    rows: list[list[str]] = []
    n_rows, last = 0, 0
    try:
        while not any(next(reader)):
            pass
        last = reader.line_num
        for fields in reader:
            last += 1
            if reader.line_num != last:
                raise UserError(
                    f"{table.place(last)}: a quoted field extends over several lines; "
                    "is a closing quote missing?"
                )
            if not fields:
                continue
            if len(fields) != n_fields:
                detail = f"must have {n_fields} fields, got {len(fields)}"
                faults[n_rows] = Fault("", table.delimiter.join(fields)[:200], LENGTH, detail)
                fields = [""] * n_fields
            lines.append(last)
            rows.append(fields)
            n_rows += 1
            if len(rows) == BLOCK_ROWS:
                yield lines, rows
                lines, rows = [], []
    except csv.Error as error:
        raise UserError(f"{table.place(last + 1)} is not valid CSV: {error}") from None
    if rows:
        yield lines, rows


def _check_lengths(
    table: TableText, lines: list[int], faults: dict[int, Fault], strict: bool
) -> None:
    """Raise UserError if rows of another length are many, or if one is too many."""
    if faults and (strict or 2 * len(faults) >= len(lines)):
        row, fault = next(iter(faults.items()))
        raise UserError(
            f"{table.place(lines[row])} {fault.detail}"
            + (f"; so do {len(faults) - 1:,} more lines" if len(faults) > 1 else "")
        )
