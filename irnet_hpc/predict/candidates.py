"""Read the rows to predict, batch by batch, and keep the text of each row unchanged.

A row that cannot be read stays at its position, with a text that says what is wrong. A table is a
CSV with a formula column or JSON lines with structures, from a file (also .gz or .xz) or from
stdin; a file of a spreadsheet or of pandas (data/raw_files.py); a folder or archive of structures
(data/structures/); or a DataFrame. The columns of formulas are found and cells are read as for
packing. The memory needed does not depend on the
number of rows, except for the texts of an Excel workbook.
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

from irnet_hpc.data.cells import NoNumber, read_cell
from irnet_hpc.data.crystals import Crystal, Crystals, Unsuitable, stack_crystals
from irnet_hpc.data.formulas import InvalidFormula, formula_text, parse_formula
from irnet_hpc.data.numerals import parse_column
from irnet_hpc.data.raw_csv import delimiter_of, is_formula_column, with_named_index
from irnet_hpc.data.raw_files import foreign_text
from irnet_hpc.data.raw_jsonl import parse_json_line, parse_structure, source_of
from irnet_hpc.data.raw_table import FOREIGN, OPENERS, ending_of, file_text, one_sentence
from irnet_hpc.data.reading import Reading
from irnet_hpc.data.resolve import AS_IT_IS
from irnet_hpc.data.structures.documents import holds_structures, lines_hold_records
from irnet_hpc.data.structures.finding import find_records, find_structures
from irnet_hpc.data.structures.formats import may_hold_structures
from irnet_hpc.data.structures.frames import entry_of_value, structure_column
from irnet_hpc.data.structures.listing import line_of
from irnet_hpc.errors import UserError, check_choice

if TYPE_CHECKING:
    import pandas as pd

# The byte order mark of UTF-16, as surrogateescape decodes it.
UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")
# Large enough for efficient matrix products, small enough to stay in a processor's cache.
BATCH_ROWS = 2048
STRUCTURE_KEYS = ("lattice", "species", "frac_coords")


class RowBatch(NamedTuple):
    """A batch of rows, in the order of their table."""

    fields: list[list[str]]  # (n_rows, n_header) text that is copied to the output
    formula: list[str]
    columns: np.ndarray  # (n_rows, n_columns) float64, the model's feature columns; NaN: unreadable
    crystals: Crystals | None  # None: the table has no structures
    problems: dict[int, str]  # row -> why it cannot be read


class Candidates(NamedTuple):
    """The rows to predict."""

    header: list[str]  # names of the columns that are copied to the output
    has_formula: bool
    has_structures: bool
    batches: Iterator[RowBatch]
    n_rows: int | None = None  # None: not known, since a table is read while it is predicted


def formula_candidates(formulas: Iterable[str], n_rows: int | None = None) -> Candidates:
    """Make candidates from formulas.

    Args:
        formulas: The formulas, read batch by batch.
        n_rows: The number of formulas; None: not known.
    """

    def batches() -> Iterator[RowBatch]:
        rest = iter(formulas)
        while batch := list(itertools.islice(rest, BATCH_ROWS)):
            no_columns = np.empty((len(batch), 0))
            yield RowBatch([[formula] for formula in batch], batch, no_columns, None, {})

    return Candidates(["formula"], True, False, batches(), n_rows)


def frame_candidates(
    frame: "pd.DataFrame", columns: Sequence[str], formula_needed: bool
) -> Candidates:
    """Make candidates from the rows of a DataFrame.

    Args:
        frame: The table. Its columns are not copied into the output, since the caller has them.
        columns: Names of the feature columns that the model needs.
        formula_needed: True if there must be a column named formula.

    Raises:
        UserError: If a column is missing or its name occurs twice.
    """
    frame = with_named_index(frame)
    held = structure_column(frame)
    header = _names("the DataFrame", [str(name) for name in frame.columns], AS_IT_IS)
    _check_header("the DataFrame", header, columns, formula_needed and not held)
    has_formula = "formula" in header

    def text(values: "pd.Series") -> list[str]:
        return values.astype(object).where(values.notna(), "").astype(str).tolist()

    def batches() -> Iterator[RowBatch]:
        for start in range(0, len(frame), BATCH_ROWS):
            rows = frame.iloc[start : start + BATCH_ROWS]
            rows.columns = header
            formula = [""] * len(rows)
            if has_formula:
                formula = [
                    formula_text(value) or str(value).strip()
                    for value in rows["formula"].astype(object).where(rows["formula"].notna(), "")
                ]
            crystals = None
            if held:
                formula, crystals = _structures(list(rows[held]), formula)
            texts = [text(rows[name]) for name in columns]
            numbers, problems = _feature_columns(columns, texts, len(rows))
            yield RowBatch([[]] * len(rows), formula, numbers, crystals, problems)

    return Candidates([], has_formula or bool(held), bool(held), batches(), len(frame))


def _structures(values: list[Any], formulas: list[str]) -> tuple[list[str], Crystals]:
    """Return the formulas and crystals of a column of structures; stated formulas come first."""
    rows: list[tuple[Crystal | Unsuitable, str]] = []
    for value, formula in zip(values, formulas, strict=True):
        entry = entry_of_value(value)
        if isinstance(entry, Unsuitable):
            rows.append((entry, formula))
        else:
            rows.append(parse_structure({**entry, "formula": formula}))
    return [formula for _, formula in rows], stack_crystals([crystal for crystal, _ in rows])


@contextlib.contextmanager
def open_table(
    path: str, columns: Sequence[str], formula_needed: bool, reading: Reading = AS_IT_IS
) -> Iterator[Candidates]:
    """Open a table of candidates.

    Args:
        path: A file that packing reads as well, which may be compressed (.gz or .xz) if it is
            text, or `-` for stdin.
        columns: Names of the feature columns that the model needs.
        formula_needed: True if a table of cells must have a column of formulas.
        reading: How the table is to be read.

    Raises:
        UserError: If the table as a whole is unusable: it lacks a column, cannot be unpacked, or
            is not UTF-8.
    """
    name = Path("stdin" if path == "-" else path)
    if path != "-" and (lines := _structure_lines(name, reading)):
        yield _jsonl_candidates(name, lines, columns)
        return
    ending = None if path == "-" else ending_of(name)
    if ending in FOREIGN:
        needed = (columns, formula_needed)
        yield _csv_candidates(name, foreign_text(name, reading.sheet).lines(), needed, reading)
        return
    if reading.sheet:
        raise UserError(f"--sheet names a sheet of an Excel workbook, but {name} is none")
    with (
        one_sentence(name),
        sys.stdin.buffer if ending is None else OPENERS[ending](path, "rb") as raw,
    ):
        # Bytes that are not UTF-8 are written to the output unchanged. Spreadsheets put a byte
        # order mark in front, which utf-8-sig removes.
        stream = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        first = next((line for line in stream if line.strip()), None)
        if first is None:
            raise UserError(
                f"{name} is empty; the first line must name the columns, one of them formula"
            )
        if first.startswith(UTF_16):
            raise UserError(f"{name} must be UTF-8 text, got UTF-16; save it again as CSV UTF-8")
        lines = itertools.chain([first], stream)
        is_jsonl = first.lstrip().startswith("{") if ending is None else ".jsonl" in ending
        if is_jsonl:
            yield _jsonl_candidates(name, lines, columns)
        else:
            tabs = ending is not None and ending.startswith(".tsv")
            delimiter = delimiter_of(first, reading.formula_column, "\t" if tabs else ",")
            needed = (columns, formula_needed)
            yield _csv_candidates(name, lines, needed, reading, delimiter)


def _structure_lines(path: Path, reading: Reading) -> Iterator[str] | None:
    """Return the lines of a source of structures; None for a table.

    Each line also has the name of its file, which is copied to the output.
    """
    is_json = path.name.endswith(".json") and path.is_file() and holds_structures(path)
    is_lines = ".jsonl" in path.name and path.is_file() and lines_hold_records(file_text(path))
    if not (is_json or is_lines or may_hold_structures(path)):
        return None
    if reading.settings():
        raise UserError(
            f"{', '.join(reading.settings())} can be stated for a table, but {path} has structures"
        )
    found = find_records(file_text(path)) if is_lines else find_structures(path)
    lines = (line_of(one) for one in found)
    first = next(lines, None)
    if first is None:
        raise UserError(f"{path} has no files of structures")
    return itertools.chain([first], lines)


def _csv_candidates(
    path: Path,
    lines: Iterator[str],
    needed: tuple[Sequence[str], bool],
    reading: Reading,
    delimiter: str = ",",
) -> Candidates:
    """Read candidates from lines of cells; `needed` is what _check_header asks for."""
    columns, formula_needed = needed
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = [name.strip() for name in next((fields for fields in reader if any(fields)), [])]
    if not header:
        raise UserError(
            f"{path} is empty; the first line must name the columns, one of them formula"
        )
    names = _names(path, header, reading)
    _check_header(path, names, columns, formula_needed)
    formula_place = names.index("formula") if "formula" in names else None
    places = [names.index(name) for name in columns]

    def batches() -> Iterator[RowBatch]:
        rows = _csv_rows(path, reader, len(header))
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            fields = [fields for fields, _ in batch]
            formula = [""] * len(batch)
            if formula_place is not None:
                formula = [row[formula_place].strip() for row in fields]
            texts = [[row[place] for row in fields] for place in places]
            numbers, problems = _feature_columns(columns, texts, len(batch), reading.missing)
            problems |= {row: problem for row, (_, problem) in enumerate(batch) if problem}
            yield RowBatch(fields, formula, numbers, None, problems)

    return Candidates(header, formula_place is not None, False, batches())


def _names(table: Path | str, header: list[str], reading: Reading) -> list[str]:
    """Return the names by which columns are read; the output keeps those of the table."""
    names = list(header)
    for column, name in reading.rename.items():
        check_choice(f"column of {table} (of --rename)", column, filter(None, header))
        names[header.index(column)] = name
    if stated := reading.formula_column:
        check_choice(f"column of {table} (of --formula-column)", stated, filter(None, header))
        names = ["formula (not read)" if name == "formula" else name for name in names]
        names[header.index(stated)] = "formula"
    if "formula" not in names:
        alike = [place for place, name in enumerate(header) if is_formula_column(name)]
        if len(alike) > 1:
            raise UserError(
                f"{table} has several columns that may hold the formulas, "
                f"{', '.join(repr(header[place]) for place in alike)}; rename one to formula, or "
                "choose it with --formula-column"
            )
        for place in alike:
            names[place] = "formula"
    return names


def _check_header(
    path: Path | str, header: list[str], columns: Sequence[str], formula_needed: bool
) -> None:
    if formula_needed and "formula" not in header:
        hint = ""
        with contextlib.suppress(InvalidFormula, IndexError):
            parse_formula(header[0])
            hint = "; a plain list of formulas also needs a first line that says: formula"
        raise UserError(
            f"{path} must have a column named formula; its columns: {', '.join(header)}{hint}"
        )
    if missing := [name for name in columns if name not in header]:
        raise UserError(
            f"{path} lacks columns that the model takes as features: "
            f"{', '.join(missing[:5])}; its columns: {', '.join(header)}"
        )
    if repeated := sorted(name for name, n in Counter(header).items() if n > 1 and name):
        raise UserError(
            f"{path} must name each column once, got {', '.join(map(repr, repeated))} repeatedly"
        )


def _csv_rows(path: Path, reader: Any, n_fields: int) -> Iterator[tuple[list[str], str]]:
    """Yield (fields, problem) for every row of a csv.reader, except blank rows.

    Raises:
        UserError: If a quote is not closed, since the rows after it would be read as one field.
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
            yield [""] * n_fields, f"line {last + 1} is not valid CSV: {error}"
            continue
        if len(fields) == n_fields:
            yield fields, ""
        elif fields:
            problem = f"a row must have {n_fields} fields, got {len(fields)}"
            if len(fields) > n_fields:
                problem += f", with the surplus {', '.join(map(repr, fields[n_fields:]))}"
            yield (fields + [""] * n_fields)[:n_fields], problem


def _feature_columns(
    names: Sequence[str],
    texts: Sequence[list[str]],
    n_rows: int,
    missing: Sequence[str] = (),
) -> tuple[np.ndarray, dict[int, str]]:
    """Read feature columns from their text.

    Returns:
        The numbers, (n_rows, n_columns) float64, with NaN where the text is not a finite number;
        and row -> problem, for rows with such a text.
    """
    numbers = np.full((n_rows, len(names)), math.nan)
    problems: dict[int, str] = {}
    for column, (name, values) in enumerate(zip(names, texts, strict=True)):
        if missing:
            values = ["" if text.strip() in missing else text for text in values]
        block = parse_column(values)
        if block is not None:
            numbers[:, column] = block
            if np.isfinite(block).all():
                continue
        for row, text in enumerate(values):
            with contextlib.suppress(NoNumber):
                numbers[row, column] = read_cell(text)[0]
            if not math.isfinite(numbers[row, column]):
                problem = f"feature {name} must be a finite number, got {text!r}"
                problems.setdefault(row, problem)
    return numbers, problems


def _jsonl_candidates(path: Path, lines: Iterator[str], columns: Sequence[str]) -> Candidates:
    """Read candidates from JSON lines.

    The output gets the columns material_id and formula, and a column for every key that has text or
    a number in the first line.
    """
    first, header = next(lines), ["material_id", "formula"]
    with contextlib.suppress(ValueError):
        header += ["file"] if source_of(json.loads(first)) else []
    # If the first line is not an object, it gets a problem when its batch is read, as any other.
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
                    *(str(entry.get(name, source_of(entry).get(name, ""))) for name in header[2:]),
                ]
                for entry, text in zip(entries, formula, strict=True)
            ]
            texts = [[str(entry.get(name, "")) for entry in entries] for name in columns]
            numbers, problems = _feature_columns(columns, texts, len(batch))
            crystals = stack_crystals([crystal for crystal, _ in structures])
            yield RowBatch(fields, formula, numbers, crystals, problems | unreadable)

    return Candidates(header, True, True, batches())
