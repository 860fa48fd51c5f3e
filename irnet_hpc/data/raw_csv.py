"""Read raw tables from CSV files or from DataFrames.

A table has these columns:

    formula, optional material_id, optional split (train, val, test), a column per property,
    further numeric columns

An empty field means that the value is not reported. A formula is always text: `NaN` could also be
a formula, of sodium and nitrogen. predict/candidates.py reads the header of candidates to predict
and accepts the same names.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from irnet_hpc.data.formulas import formula_text
from irnet_hpc.data.identifying import identifying_name, leave_out_row_numbers
from irnet_hpc.data.mixed_columns import MixedColumns
from irnet_hpc.data.numerals import has_codes, parse_column, parse_reported
from irnet_hpc.data.raw_table import (
    RESERVED,
    RawTable,
    TableText,
    check_text,
    number_rows,
    one_sentence,
)
from irnet_hpc.errors import UserError

# Text is converted to numbers block by block, so that a wide table is never in memory as text.
BLOCK_ROWS = 16384


def read_csv_header(table: TableText) -> list[str]:
    """Read the column names. Raises UserError if `formula` is missing or a name repeats."""
    with one_sentence(table.name):
        header = next(csv.reader(table.lines(), strict=True), [])
    header = [column.strip() for column in header]
    if not any(header):
        raise UserError(
            f"{table.name} is empty; its first line must name its columns, including formula"
        )
    if "formula" not in header:
        raise UserError(
            f"{table.name} has no column named formula; its columns: {', '.join(header)}"
        )
    # Columns without a name are left out, so there may be several, as behind a last comma.
    twice = sorted(column for column, count in Counter(header).items() if count > 1 and column)
    if twice:
        raise UserError(
            f"{table.name} repeats column names: {', '.join(map(repr, twice))}; name each once"
        )
    return header


def read_csv_table(
    table: TableText, name: str, targets: Collection[str], is_feature: Callable[[str], bool]
) -> RawTable:
    """Read a table of comma-separated values.

    Args:
        table: the text of the table.
        name: the name of the table; a row without a material_id gets the id `<name>-<row>`.
        targets: columns to predict.
        is_feature: tells of any other column whether it becomes a feature if it is numeric.

    Raises:
        UserError: if the table is malformed; the message names the line.
    """
    header = read_csv_header(table)
    text: dict[str, list[str]] = {column: [] for column in header if column in RESERVED}
    features = [
        column for column in header if column not in {*RESERVED, *targets} and is_feature(column)
    ]
    left_out = {column: why for column in features if (why := identifying_name(column))}
    features = [column for column in features if column not in left_out]
    numbers: dict[str, list[np.ndarray]] = {column: [] for column in (*targets, *features)}
    texts = MixedColumns(table)
    lines: list[int] = []
    digest = hashlib.sha256()
    with one_sentence(table.name):
        for block_lines, block in _blocks(table, header, digest):
            for column, values in zip(header, zip(*block, strict=True), strict=True):
                if column in text:
                    text[column] += values
                elif column not in numbers:
                    continue
                elif column in targets:
                    numbers[column].append(_numbers(table, column, values, block_lines))
                elif has_codes(values):
                    del numbers[column]
                else:
                    numbers[column].append(_numbers_if_any(texts, column, values, block_lines))
            lines += block_lines
    if not lines:
        raise UserError(f"{table.name} has a header and no rows")
    check_text(table, text, lines)
    columns = {column: np.concatenate(blocks) for column, blocks in numbers.items()}
    texts.leave_out(columns)
    ids, has_id = number_rows(text.get("material_id", [""] * len(lines)), name)
    left_out |= leave_out_row_numbers(columns, targets)
    kept = {*text, *columns}
    return RawTable(
        line=np.array(lines, np.int64),
        formula=text["formula"],
        material_id=ids,
        has_id=has_id,
        role=text.get("split"),
        targets={column: columns.pop(column) for column in targets},
        columns=columns,
        ignored=tuple(
            f"{column or f'column {place}'} ({left_out[column]})" if column in left_out else column
            for place, column in enumerate(header, start=1)
            if column not in kept
        ),
        sha256=digest.hexdigest(),
    )


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


def frame_text(frame: Any, name: str) -> TableText:
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

    def lines(digest: Any = None) -> Iterator[str]:
        for start in range(0, max(1, len(frame)), BLOCK_ROWS):
            block = frame.iloc[start : start + BLOCK_ROWS]
            if "formula" in block.columns:
                block = block.assign(formula=block["formula"].astype(object).map(_as_text))
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
    table: TableText, header: list[str], digest: Any
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield blocks of (line numbers, rows).

    Blank rows are left out, and all rows have equal length.
    """
    reader = csv.reader(table.lines(digest), strict=True)
    next(reader)
    lines: list[int] = []
    rows: list[list[str]] = []
    last = reader.line_num
    try:
        for fields in reader:
            last += 1
            if reader.line_num != last:
                raise UserError(
                    f"{table.place(last)}: a quoted field extends over several lines; "
                    "is a closing quote missing?"
                )
            if not fields:
                continue
            if len(fields) != len(header):
                raise UserError(
                    f"{table.place(last)} must have {len(header)} fields, got {len(fields)}"
                )
            lines.append(last)
            rows.append(fields)
            if len(rows) == BLOCK_ROWS:
                yield lines, rows
                lines, rows = [], []
    except csv.Error as error:
        raise UserError(f"{table.place(last + 1)} is not valid CSV: {error}") from None
    if rows:
        yield lines, rows


def _numbers_if_any(
    texts: MixedColumns, column: str, values: tuple[str, ...], lines: list[int]
) -> np.ndarray:
    """Return (n_values,) float64 like _numbers, but NaN for what is no number, noted in `texts`."""
    block = parse_column(values)
    if block is None:
        block = np.full(len(values), np.nan)
        for place, (value, line) in enumerate(zip(values, lines, strict=True)):
            try:
                block[place] = parse_reported(value)
            except ValueError:
                texts.note(column, line, value)
    return block


def _numbers(
    table: TableText, column: str, values: tuple[str, ...], lines: list[int]
) -> np.ndarray:
    """Parse values, (n_values,) float64, NaN where empty. Raises UserError if one is not finite."""
    block = parse_column(values)
    if block is not None:
        return block
    pairs = zip(values, lines, strict=True)
    return np.array([_number(table, column, value, line) for value, line in pairs])


def _number(table: TableText, column: str, value: str, line: int) -> float:
    try:
        return parse_reported(value)
    except ValueError:
        raise UserError(
            f"{table.place(line)}: {column} must be a finite number, "
            f"or empty where not reported, got {value!r}"
        ) from None
