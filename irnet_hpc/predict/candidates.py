"""Read the rows to predict batch by batch, and keep each as it came.

A row that cannot be read stays in its place with a problem in words. Tables are CSV with a formula
column or JSON lines with structures, also .gz or .xz, or stdin; or a DataFrame. Memory does not
depend on how many rows a table has.
"""

import contextlib
import csv
import io
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from irnet_hpc.data.crystals import Crystals, stack_crystals
from irnet_hpc.data.formulas import InvalidFormula, parse_formula
from irnet_hpc.data.raw_jsonl import parse_json_line, parse_structure
from irnet_hpc.data.raw_table import OPENERS, ending_of, one_sentence
from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

# The byte order mark of UTF-16, as surrogateescape decodes it.
UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")
# Large enough for matrix products, small enough to stay in a processor's cache.
BATCH_ROWS = 2048
STRUCTURE_KEYS = ("lattice", "species", "frac_coords")


class RowBatch(NamedTuple):
    """Rows in the order of their table."""

    fields: list[list[str]]  # (n_rows, n_header) text that is copied to the output
    formula: list[str]
    columns: np.ndarray  # (n_rows, n_columns) float64, the model's feature columns; NaN: unreadable
    crystals: Crystals | None  # where the table has structures
    problems: dict[int, str]  # row -> why it cannot be read


class Candidates(NamedTuple):
    """The rows to predict."""

    header: list[str]  # names of the columns that are copied to the output
    has_formula: bool
    has_structures: bool
    batches: Iterator[RowBatch]
    n_rows: int | None = None  # None: not known, since a table is read as it is predicted


def formula_candidates(formulas: Iterable[str], n_rows: int | None = None) -> Candidates:
    """Return formulas as candidates."""

    def batches() -> Iterator[RowBatch]:
        rest = iter(formulas)
        while batch := list(itertools.islice(rest, BATCH_ROWS)):
            no_columns = np.empty((len(batch), 0))
            yield RowBatch([[formula] for formula in batch], batch, no_columns, None, {})

    return Candidates(["formula"], True, False, batches(), n_rows)


def frame_candidates(
    frame: "pd.DataFrame", columns: Sequence[str], formula_needed: bool
) -> Candidates:
    """Return the rows of a DataFrame as candidates.

    Args:
        frame: A table, whose columns are not copied: they stay with the DataFrame.
        columns: Names of the feature columns that the model takes.
        formula_needed: Whether there must be a column named formula.

    Raises:
        UserError: If a column is missing or its name occurs twice.
    """
    header = [str(name) for name in frame.columns]
    _check_header("the DataFrame", header, columns, formula_needed)
    has_formula = "formula" in header

    def text(values: "pd.Series") -> list[str]:
        return values.astype(object).where(values.notna(), "").astype(str).tolist()

    def batches() -> Iterator[RowBatch]:
        for start in range(0, len(frame), BATCH_ROWS):
            rows = frame.iloc[start : start + BATCH_ROWS]
            rows.columns = header
            formula = [""] * len(rows)
            if has_formula:
                formula = [value.strip() for value in text(rows["formula"])]
            texts = [text(rows[name]) for name in columns]
            numbers, problems = _feature_columns(columns, texts, len(rows))
            yield RowBatch([[]] * len(rows), formula, numbers, None, problems)

    return Candidates([], has_formula, False, batches(), len(frame))


@contextlib.contextmanager
def open_table(path: str, columns: Sequence[str], formula_needed: bool) -> Iterator[Candidates]:
    """Open a table of candidates.

    Args:
        path: A .csv or .jsonl, also .gz or .xz, or `-` for stdin.
        columns: Names of the feature columns that the model takes.
        formula_needed: Whether a CSV must have a column named formula.

    Raises:
        UserError: If the table as a whole is wrong: a column is missing, or it cannot be unpacked
            or is not UTF-8.
    """
    name = Path("stdin" if path == "-" else path)
    ending = None if path == "-" else ending_of(name)
    with (
        one_sentence(name),
        sys.stdin.buffer if ending is None else OPENERS[ending](path, "rb") as raw,
    ):
        # Bytes that are not UTF-8 are written again as they came. Spreadsheets put a byte order
        # mark in front.
        stream = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        first = next((line for line in stream if line.strip()), None)
        if first is None:
            raise UserError(
                f"{name} is empty; its first line must name its columns, formula among them"
            )
        if first.startswith(UTF_16):
            raise UserError(f"{name} must be UTF-8 text, got UTF-16; save it as CSV UTF-8")
        lines = itertools.chain([first], stream)
        is_jsonl = first.lstrip().startswith("{") if ending is None else ".jsonl" in ending
        if is_jsonl:
            yield _jsonl_candidates(name, lines, columns)
        else:
            yield _csv_candidates(name, lines, columns, formula_needed)


def _csv_candidates(
    path: Path, lines: Iterator[str], columns: Sequence[str], formula_needed: bool
) -> Candidates:
    reader = csv.reader(lines, strict=True)
    header = [name.strip() for name in next(reader)]
    _check_header(path, header, columns, formula_needed)
    formula_place = header.index("formula") if "formula" in header else None
    places = [header.index(name) for name in columns]

    def batches() -> Iterator[RowBatch]:
        rows = _csv_rows(path, reader, len(header))
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            fields = [fields for fields, _ in batch]
            formula = [""] * len(batch)
            if formula_place is not None:
                formula = [row[formula_place].strip() for row in fields]
            texts = [[row[place] for row in fields] for place in places]
            numbers, problems = _feature_columns(columns, texts, len(batch))
            problems |= {row: problem for row, (_, problem) in enumerate(batch) if problem}
            yield RowBatch(fields, formula, numbers, None, problems)

    return Candidates(header, formula_place is not None, False, batches())


def _check_header(
    path: Path | str, header: list[str], columns: Sequence[str], formula_needed: bool
) -> None:
    if formula_needed and "formula" not in header:
        hint = ""
        with contextlib.suppress(InvalidFormula, IndexError):
            parse_formula(header[0])
            hint = "; a list of formulas, too, begins with a line that names its column: formula"
        raise UserError(
            f"{path} must have a column named formula; its columns: {', '.join(header)}{hint}"
        )
    if missing := [name for name in columns if name not in header]:
        raise UserError(
            f"{path} must have the columns that the model has as features, "
            f"got none named {', '.join(missing[:5])}; its columns: {', '.join(header)}"
        )
    if repeated := sorted(name for name, count in Counter(header).items() if count > 1):
        raise UserError(
            f"{path} must name each column once, got {', '.join(map(repr, repeated))} twice"
        )


def _csv_rows(path: Path, reader: Any, n_fields: int) -> Iterator[tuple[list[str], str]]:
    """Yield (fields, problem) of every row of a csv.reader that is not blank.

    Raises UserError for a quote that is not closed, since rows would be lost in it.
    """
    while True:
        last = reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if reader.line_num != last + 1:
                raise UserError(
                    f"{path}, line {last + 1}: a quoted field is not closed: {error}"
                ) from None
            yield [""] * n_fields, f"line {last + 1} is not sound CSV: {error}"
            continue
        if len(fields) == n_fields:
            yield fields, ""
        elif fields:
            problem = f"a row must have {n_fields} fields, got {len(fields)}"
            if len(fields) > n_fields:
                problem += f", the last of them {', '.join(map(repr, fields[n_fields:]))}"
            yield (fields + [""] * n_fields)[:n_fields], problem


def _feature_columns(
    names: Sequence[str], texts: Sequence[list[str]], n_rows: int
) -> tuple[np.ndarray, dict[int, str]]:
    """Read feature columns from their text.

    Returns:
        (n_rows, n_columns) float64, NaN where text is not a finite number, and row -> problem.
    """
    numbers = np.full((n_rows, len(names)), math.nan)
    problems: dict[int, str] = {}
    for column, (name, values) in enumerate(zip(names, texts, strict=True)):
        with contextlib.suppress(ValueError):
            numbers[:, column] = [float(text) for text in values]
            if np.isfinite(numbers[:, column]).all():
                continue
        for row, text in enumerate(values):
            numbers[row, column] = math.nan
            with contextlib.suppress(ValueError):
                numbers[row, column] = float(text)
            if not math.isfinite(numbers[row, column]):
                problem = f"feature {name} must be a finite number, got {text!r}"
                problems.setdefault(row, problem)
    return numbers, problems


def _jsonl_candidates(path: Path, lines: Iterator[str], columns: Sequence[str]) -> Candidates:
    """Read JSON lines; copy material_id, formula and the keys with text or numbers in line 1."""
    first, header = next(lines), ["material_id", "formula"]
    # A first line that is no object gets a problem as any other does.
    with contextlib.suppress(ValueError, AttributeError):
        header += [
            key
            for key, value in json.loads(first).items()
            if isinstance(value, str | int | float) and key not in (*header, *STRUCTURE_KEYS)
        ]

    def batches() -> Iterator[RowBatch]:
        numbered = enumerate(itertools.chain([first], lines), start=1)
        rest = ((number, line) for number, line in numbered if line.strip())
        while batch := list(itertools.islice(rest, BATCH_ROWS)):
            entries: list[dict] = []
            unreadable: dict[int, str] = {}
            for row, (number, line) in enumerate(batch):
                try:
                    entries.append(parse_json_line(f"{path}, line {number}", line))
                except UserError as error:
                    entries.append({})
                    unreadable[row] = str(error)
            structures = [parse_structure(entry) for entry in entries]
            formula = [formula for _, formula in structures]
            fields = [
                [
                    entry.get("material_id", ""),
                    text,
                    *(str(entry.get(name, "")) for name in header[2:]),
                ]
                for entry, text in zip(entries, formula, strict=True)
            ]
            texts = [[str(entry.get(name, "")) for entry in entries] for name in columns]
            numbers, problems = _feature_columns(columns, texts, len(batch))
            crystals = stack_crystals([crystal for crystal, _ in structures])
            yield RowBatch(fields, formula, numbers, crystals, problems | unreadable)

    return Candidates(header, True, True, batches())
