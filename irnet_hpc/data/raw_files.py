"""Read tables that other libraries write, as lines of CSV: Excel, Parquet, Feather and JSON.

Each cell becomes the text that its library stores, so that numbers, line numbers and reasons are
those of any other table. pandas would take the formula NaN, of sodium and nitrogen, for a missing
value. Rows are read one after the other, so the memory needed does not depend on their number,
except for the texts of a workbook, which Excel stores apart from the cells.

A small file may be made to unpack to much more than the memory, so sizes are checked beforehand.
"""

import csv
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from irnet_hpc.data.json_stream import list_objects, read_start
from irnet_hpc.data.raw_jsonl import parse_json_object
from irnet_hpc.data.raw_table import (
    ALWAYS_UNPACKED,
    MAX_UNPACKED_RATIO,
    TableText,
)
from irnet_hpc.errors import UserError, check_choice

BATCH_ROWS = 2048  # of Parquet and Feather
CHUNK_BYTES = 2**20
# Bytes that the parts of a workbook may unpack to, by the first element of a part. openpyxl 3.1
# reads sheets row by row, all texts at once, and of other parts a tree of many times their size.
MAX_PART_BYTES = {b"<worksheet": 2**29, b"<sst": 2**27}
MAX_OTHER_BYTES = 2**24
MAX_ROW_BYTES = 2**23  # of a sheet's XML; the 16,384 cells of the widest row take a fifth of it
MAX_EXCEL_ROW = 1_048_576
ROW = re.compile(rb"<(?:\w+:)?row[ >/]")
FORMULA = re.compile(rb"<(?:\w+:)?f[ >]")
ENDS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


class _Echo:
    """A file for csv.writer that returns what is written."""

    def write(self, text: str) -> str:
        return text


def foreign_text(path: Path, sheet: str = "") -> TableText:
    """Return the text of a file of FOREIGN, as CSV.

    Args:
        path: The file.
        sheet: The name of an Excel sheet; empty: the only one.
    """
    reader, first = READERS[path.suffix]
    return TableText(
        str(path),
        lambda digest=None: _lines(path, reader(path, sheet), digest),
        unit="row",
        first=first,
        offset=first - 1,
    )


def _lines(path: Path, rows: Iterable[Sequence[str]], digest: Any) -> Iterator[str]:
    """Yield rows as lines of CSV. Raises UserError if they are implausibly many for the file."""
    max_bytes = max(ALWAYS_UNPACKED, MAX_UNPACKED_RATIO * path.stat().st_size)
    n_bytes = 0
    for line in map(_csv_line, rows):
        encoded = line.encode(errors="surrogatepass")
        n_bytes += len(encoded)
        if n_bytes > max_bytes:
            raise UserError(
                f"{path} unpacks to more than {MAX_UNPACKED_RATIO} times its size, as no real "
                "table does; if you trust the file, save it as CSV"
            )
        if digest:
            digest.update(encoded)
        yield line


def _csv_line(row: Sequence[str]) -> str:
    # A field may not extend over several lines, as after an unclosed quote.
    texts = [ENDS.sub(" ", text) for text in row]
    return csv.writer(_Echo(), lineterminator="\n").writerow(texts) if any(texts) else "\n"


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)


# ----------------------------------------------------------------------------------- workbooks


def _sheet_rows(path: Path, sheet: str) -> Iterator[list[str]]:
    """Yield the rows of a sheet, those without cells included, as wide as the first with a cell."""
    import warnings
    import xml.etree.ElementTree as ElementTree

    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    # openpyxl 3.1.5 raises these for files that are no workbooks, or damaged ones; SyntaxError is
    # the base of lxml's errors of parsing.
    damaged = (
        *(zipfile.BadZipFile, InvalidFileException, ElementTree.ParseError, SyntaxError),
        *(KeyError, ValueError, TypeError, AttributeError, IndexError, EOFError, OSError),
        *(NotImplementedError, RuntimeError),
    )
    if not path.is_file():
        raise UserError(f"the raw table {path} does not exist")
    try:
        has_formulas = _check_workbook(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts that are not read, such as drop-down lists
            book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
            formulas = (
                load_workbook(path, read_only=True, keep_links=False) if has_formulas else None
            )
        try:
            cells = _cells(book, formulas, _choose_sheet(path, book, sheet))
            width = 0
            for row in cells:
                while row and not row[-1]:
                    row.pop()
                width = width or len(row)
                # Remarks to the right of the table are no part of it.
                yield (row + [""] * (width - len(row)))[:width] if row else []
        finally:
            for opened in (book, formulas):
                if opened:
                    opened.close()
    except damaged as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} cannot be read as an Excel workbook (damaged, or encrypted?): {text:.200}"
        ) from None


def _choose_sheet(path: Path, book: Any, sheet: str) -> str:
    names = [worksheet.title for worksheet in book.worksheets]
    if sheet:
        return check_choice(f"sheet of {path}", sheet, names)
    if len(names) != 1:
        raise UserError(
            f"{path} has {len(names)} sheets; choose one with --sheet: "
            f"{', '.join(map(repr, names)) or 'none'}"
        )
    return names[0]


def _cells(book: Any, formulas: Any, name: str) -> Iterator[list[str]]:
    """Yield the cells of each row. A formula without a stored value is its text, `=A1+B1`."""

    def rows(opened: Any) -> Iterator[tuple]:
        worksheet = next(each for each in opened.worksheets if each.title == name)
        # Some programs state a sheet of 16,384 columns, and openpyxl would fill them all.
        worksheet.reset_dimensions()
        return worksheet.iter_rows(max_row=MAX_EXCEL_ROW, values_only=True)

    if formulas is None:
        for row in rows(book):
            yield [_text(value) for value in row]
        return
    for row, typed in zip(rows(book), rows(formulas), strict=True):
        yield [
            _text(value if value is not None or not _is_formula(own) else "=")
            for value, own in zip(row, typed, strict=True)
        ]


def _is_formula(value: object) -> bool:
    # A formula of several cells is an object of openpyxl.
    return value is not None and (not isinstance(value, str) or value.startswith("="))


def _check_workbook(path: Path) -> bool:
    """Check what a workbook declares to unpack to, and how long its rows are.

    zipfile never unpacks a part to more than it declares.

    Returns:
        Whether any sheet has formulas.

    Raises:
        UserError: If a part is too large to be read.
    """
    has_formulas = False
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if not part.filename.endswith((".xml", ".rels")):
                continue
            with archive.open(part) as stream:
                head = stream.read(2048)
                if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
                    raise UserError(f"{path}: {part.filename} has a document type, as no sheet has")
                root = next((root for root in MAX_PART_BYTES if root in head), b"")
                limit = MAX_PART_BYTES.get(root, MAX_OTHER_BYTES)
                if part.file_size > limit:
                    raise UserError(
                        f"{path}: {part.filename} unpacks to {part.file_size / 2**20:,.0f} MiB, "
                        f"more than the limit of {limit / 2**20:,.0f} MiB; save the sheet as CSV"
                    )
                if root == b"<worksheet":
                    has_formulas |= _scan_sheet(f"{path}: {part.filename}", head, stream)
    return has_formulas


def _scan_sheet(name: str, head: bytes, stream: IO[bytes]) -> bool:
    """Return True if a sheet has formulas. Raises UserError if a row is implausibly long."""
    has_formulas, n_bytes, last_row, rest = False, 0, 0, b""
    chunk = head
    while chunk:
        window = rest + chunk
        start = n_bytes - len(rest)
        for match in ROW.finditer(window):
            last_row = start + match.start()
        n_bytes += len(chunk)
        has_formulas = has_formulas or FORMULA.search(window) is not None
        if n_bytes - last_row > MAX_ROW_BYTES:
            raise UserError(
                f"{name} has a row of more than {MAX_ROW_BYTES / 2**20:.0f} MiB, as no real table "
                "has"
            )
        rest = window[-64:]
        chunk = stream.read(CHUNK_BYTES)
    return has_formulas


# ------------------------------------------------------------------------------ Parquet, Feather


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UserError(
            "Parquet and Feather need pyarrow, which is not installed; "
            "pip install 'irnet_hpc[parquet]'"
        ) from None
    return pyarrow


def _arrow_rows(path: Path, sheet: str) -> Iterator[list[str]]:
    """Yield the header and the rows of a file of Arrow's columns."""
    _refuse_sheet(path, sheet)
    pyarrow = _arrow()
    batches = _parquet_batches if path.suffix == ".parquet" else _feather_batches
    try:
        for number, (names, batch) in enumerate(batches(path)):
            if not number:
                yield names
            if batch is not None:
                columns = [
                    [_text(value) for value in column.to_pylist()] for column in batch.columns
                ]
                yield from map(list, zip(*columns, strict=True))
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as {path.suffix[1:]}: {text:.200}") from None


class _Batch(NamedTuple):
    """The names of the columns, and the rows of a part of the file; None: no rows."""

    names: list[str]
    rows: Any


def _parquet_batches(path: Path) -> Iterator[_Batch]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        facts = file.metadata
        n_bytes = sum(
            facts.row_group(group).total_byte_size for group in range(facts.num_row_groups)
        )
        if n_bytes > max(ALWAYS_UNPACKED, MAX_UNPACKED_RATIO * path.stat().st_size):
            raise UserError(
                f"{path} unpacks to {n_bytes / 2**20:,.0f} MiB, more than {MAX_UNPACKED_RATIO} "
                "times its size, as no real table does"
            )
        names = list(file.schema_arrow.names)
        yield _Batch(names, None)
        for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
            yield _Batch(names, batch)


def _feather_batches(path: Path) -> Iterator[_Batch]:
    import pyarrow
    import pyarrow.ipc

    with pyarrow.memory_map(str(path)) as source:
        file = pyarrow.ipc.open_file(source)
        names = list(file.schema.names)
        yield _Batch(names, None)
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield _Batch(names, batch.slice(start, BATCH_ROWS))


# ------------------------------------------------------------------------------------------ JSON


def _json_rows(path: Path, sheet: str) -> Iterator[list[str]]:
    """Yield the header and the rows of a list of JSON objects.

    The columns are the keys of all objects, so the file is read twice.
    """
    _refuse_sheet(path, sheet)
    yield from rows_of_records(lambda: _json_objects(path))


def rows_of_records(records: Callable[[], Iterator[dict[str, Any]]]) -> Iterator[list[str]]:
    """Yield the header and the rows of flat objects, whose keys are the columns.

    Args:
        records: Returns an iterator over the objects each time it is called.
    """
    names = list(dict.fromkeys(name for record in records() for name in record))
    yield names
    for record in records():
        yield [_json_text(record.get(name)) for name in names]


def records_text(table: TableText) -> TableText:
    """Return JSON lines that are rows of cells as CSV; see are_cells of raw_jsonl.py."""

    def lines(digest: Any = None) -> Iterator[str]:
        def records() -> Iterator[dict[str, Any]]:
            for number, line in enumerate(table.lines(), start=1):
                yield (
                    parse_json_object(table.place(number), line, numbers=str)
                    if line.strip()
                    else {}
                )

        if digest:
            for _ in table.lines(digest):
                pass
        yield from map(_csv_line, rows_of_records(records))

    return TableText(table.name, lines, first=2, offset=1)


def _json_text(value: object) -> str:
    """Return a value as text; nested values, which are no cells, as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _json_objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON list one by one. Numbers keep their text."""
    with path.open(encoding="utf-8-sig") as stream:
        start = read_start(stream)
        if not start.startswith("["):
            raise UserError(
                f"{path} must be a list of JSON objects, one for each row, as pandas writes by "
                "to_json(orient='records')"
            )
        yield from list_objects(stream, start, str(path), numbers=str)


def _refuse_sheet(path: Path, sheet: str) -> None:
    if sheet:
        raise UserError(f"--sheet names a sheet of an Excel workbook, but {path} is none")


# ending -> the function that yields its rows, and the line that messages call number 1
READERS: dict[str, tuple[Callable[[Path, str], Iterator[list[str]]], int]] = {
    ".xlsx": (_sheet_rows, 1),
    ".xlsm": (_sheet_rows, 1),
    ".parquet": (_arrow_rows, 2),
    ".feather": (_arrow_rows, 2),
    ".json": (_json_rows, 2),
}
