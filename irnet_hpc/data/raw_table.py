"""Define raw tables, the form that every source has before packing, and functions to read them.

A table is CSV (raw_csv.py), also separated by tabs or semicolons, or, if it has structures, JSON
lines (raw_jsonl.py). It may be compressed (.gz, .xz). Workbooks and files of other libraries
(raw_files.py) are read as the CSV that they would be saved as. A file `<name>.about.json` beside
the table may state its title, licence, citation, units and hash.
"""

import contextlib
import csv
import dataclasses
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from irnet_hpc.data.crystals import Crystals
from irnet_hpc.data.splits import ROLES
from irnet_hpc.data.xz import open_xz
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json

OPENERS: dict[str, Callable] = {
    f".{form}{packing}": opener
    for form in ("csv", "tsv", "txt", "jsonl")
    for packing, opener in (("", open), (".gz", gzip.open), (".xz", open_xz))
}
# Files that other libraries read, see raw_files.py.
FOREIGN = (".xlsx", ".xlsm", ".parquet", ".feather", ".json")
RESERVED = ("formula", "material_id", "split")
MAX_TEXT_LENGTH = 1000
# In bytes. A structure of a thousand sites takes a hundred thousand.
MAX_LINE_LENGTH = 2**25
# A table is held in memory, and a small file can unpack to a thousand times its size. Real tables
# unpack to 5 to 30 times their size. Up to ALWAYS_UNPACKED bytes, any ratio is allowed.
MAX_UNPACKED_RATIO = 300
ALWAYS_UNPACKED = 2**25


class Fault(NamedTuple):
    """A cell that cannot be read, which costs its row."""

    column: str  # as the table calls it; empty: the row as a whole
    text: str
    reason: str
    detail: str = ""


class Place(NamedTuple):
    """The file that a structure comes from."""

    file: str  # below the folder, or in the archive
    block: str  # of a CIF, or the number in a file of several; empty: the only one


@dataclasses.dataclass(frozen=True)
class RawTable:
    """The rows of a source as they were read, before any formula is parsed."""

    line: np.ndarray  # (n_rows,) int64, the line in the file; the header of a CSV is line 1
    formula: Sequence[str]
    material_id: Sequence[str]
    role: Sequence[str] | None = None  # train, val or test, from the column `split`
    # property -> (n_rows,) float64, NaN = not reported
    targets: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    # further numeric columns, (n_rows,) float64 each
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()  # columns of the source that were not read
    sha256: str = ""  # hash of the table's text, whether compressed or not
    # (n_rows,) bool: whether the table states the row's id; False where the row's number is its id.
    # None: it states all of them.
    has_id: np.ndarray | None = None
    crystals: Crystals | None = None  # None if the table has no structures
    fold: np.ndarray | None = None  # (n_rows,) int64, in which each row is tested; None: no folds
    # row -> the first cell that cannot be read; such a row is rejected
    faults: dict[int, Fault] = dataclasses.field(default_factory=dict)
    # How cells were read that are no plain numbers, one sentence for each rule and column.
    notes: tuple[str, ...] = ()
    # line -> where its structure comes from; empty for other tables
    places: Mapping[int, Place] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.line)

    def take(self, rows: np.ndarray) -> "RawTable":
        """Return the rows with these numbers."""
        faults = {
            place: self.faults[row]
            for place, row in enumerate(np.asarray(rows).tolist() if self.faults else ())
            if row in self.faults
        }
        return dataclasses.replace(
            self,
            faults=faults,
            line=self.line[rows],
            formula=[self.formula[row] for row in rows],
            material_id=[self.material_id[row] for row in rows],
            role=self.role and [self.role[row] for row in rows],
            has_id=None if self.has_id is None else self.has_id[rows],
            fold=None if self.fold is None else self.fold[rows],
            targets={name: values[rows] for name, values in self.targets.items()},
            columns={name: values[rows] for name, values in self.columns.items()},
            crystals=self.crystals and self.crystals.take(rows),
        )


def number_rows(given: Sequence[str], name: str) -> tuple[list[str], np.ndarray]:
    """Return the id of each row, and whether the table states it.

    A row without an id gets `<name>-<row>`, counted from 1. Such an id does not count as stated,
    even if a download has written it into the table: it identifies the row, not a material.

    Args:
        given: (n_rows,) ids, empty where the table has none.
        name: the table's name.

    Returns:
        The (n_rows,) ids, and (n_rows,) bool.

    >>> ids, has_id = number_rows(["mp-8", "", "gaps-3"], "matminer-gaps")
    >>> ids, has_id.tolist()
    (['mp-8', 'matminer-gaps-2', 'gaps-3'], [True, False, False])
    """
    ids = [own or f"{name}-{row}" for row, own in enumerate(given, start=1)]
    short = name.removeprefix("matminer-")  # the ids of matminer's tables omit the prefix
    has_id = [
        own not in ("", f"{name}-{row}", f"{short}-{row}") for row, own in enumerate(given, start=1)
    ]
    return ids, np.array(has_id, bool)


def formula_table(
    formulas: Sequence[str],
    columns: dict[str, np.ndarray] | None = None,
    crystals: Crystals | None = None,
) -> RawTable:
    """Return a table of formulas without targets.

    The row numbers serve as line numbers, and the formulas as ids.
    """
    line = np.arange(len(formulas))
    return RawTable(line, formulas, formulas, columns=columns or {}, crystals=crystals)


class TableText(NamedTuple):
    """The text of a table, from a file or from a DataFrame that is written as CSV."""

    name: str  # the path, or the name of the DataFrame, for messages
    lines: Callable[..., Iterator[str]]  # takes a hashlib digest to update, or None
    unit: str = "line"  # what messages call a line: "line" or "row"
    first: int = 1  # the line that messages call number 1
    delimiter: str = ","
    offset: int = 0  # lines before the first of the file, as the header of a list of JSON objects

    def place(self, line: int) -> str:
        """Return the name of a line (1 is the header) for a message, such as `my.csv, line 3`."""
        return f"{self.name}, {self.unit} {line - self.first + 1}"


def file_text(path: Path) -> TableText:
    """Return the text of a file. The file is read and unpacked only while iterating over lines."""
    delimiter = "\t" if ending_of(path).startswith(".tsv") else ","
    return TableText(str(path), lambda digest=None: read_lines(path, digest), delimiter=delimiter)


def ending_of(path: Path) -> str:
    """Return the ending of a table's name, such as `.csv.xz`. Raises UserError if it is unknown."""
    known = (*OPENERS, *FOREIGN)
    ending = next((ending for ending in known if path.name.endswith(ending)), None)
    if ending is None:
        remedy = "; save it as .xlsx" if path.suffix in (".xls", ".ods", ".xlsb") else ""
        raise UserError(f"a raw table's name must end in {', '.join(known)}, got {path}{remedy}")
    return ending


def form_of(table: Path) -> str:
    """Return the form of a table: `jsonl`, or `csv` for every other table of cells."""
    return "jsonl" if ending_of(table).startswith(".jsonl") else "csv"


def about_path(table: Path) -> Path:
    """Return the path of the file beside a raw table that describes it."""
    return table.with_name(f"{table.name.removesuffix(ending_of(table))}.about.json")


def read_about(table: Path) -> dict[str, Any]:
    """Read the description of a raw table (title, licence, citation, units); empty if it has none.

    A table with structures and a table without may have the same name, and so the same description
    file. The key `form` in it says which of the two tables it describes.
    """
    path = about_path(table)
    about = read_json(path) if path.is_file() else {}
    if not isinstance(about.get("units", {}), dict):
        raise UserError(f"{path}: units must map properties to units, got {about['units']!r}")
    return about if about.get("form", form_of(table)) == form_of(table) else {}


def read_lines(path: Path, digest: Any = None) -> Iterator[str]:
    """Yield the unpacked lines of a table, and update `digest` (of hashlib) with their bytes.

    Raises UserError if a line is too long, or if the file unpacks to implausibly many bytes.
    """
    max_bytes = max(ALWAYS_UNPACKED, MAX_UNPACKED_RATIO * path.stat().st_size)
    with OPENERS[ending_of(path)](path, "rb") as stream:
        n_bytes = 0
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_LENGTH + 1), b"")):
            n_bytes += len(line)
            if len(line) > MAX_LINE_LENGTH:
                raise UserError(
                    f"{path}, line {number + 1} is longer than the limit of "
                    f"{MAX_LINE_LENGTH / 2**20:.0f} MiB"
                )
            if n_bytes > max_bytes:
                raise UserError(
                    f"{path} unpacks to more than {MAX_UNPACKED_RATIO} times its size, "
                    "as no real table does; if you trust the file, unpack it yourself"
                )
            if digest:
                digest.update(line)
            if not number and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UserError(f"{path} must be UTF-8 text, got UTF-16; save it as CSV UTF-8")
            # Spreadsheets put a byte order mark at the start of a file.
            yield line.decode("utf-8" if number else "utf-8-sig")


def check_text(table: TableText, text: dict[str, list[str]], lines: list[int]) -> None:
    """Check the text columns. Raises UserError if a split is unknown or a text is unsuitable.

    A pack cannot store every text: HDF5 cuts text at a NUL character, and gives every row as much
    space as the longest row needs.
    """
    for column, values in text.items():
        for line, value in zip(lines, values, strict=True):
            if "\0" in value:
                problem = f"text without NUL, got {value[:50]!r}"
            elif column == "split" and value not in ROLES:
                problem = f"{', '.join(ROLES)}, got {value!r}"
            elif len(value) > MAX_TEXT_LENGTH:
                problem = f"at most {MAX_TEXT_LENGTH} characters long, got {len(value)}"
            else:
                continue
            raise UserError(f"{table.place(line)}: {column} must be {problem}")


@contextlib.contextmanager
def one_sentence(name: Path | str) -> Iterator[None]:
    """Raise UserError with one sentence if an error in the block concerns the file as a whole."""
    try:
        yield
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise UserError(
            f"{name} is not UTF-8 text: {error.reason} at byte {error.start} of a line"
        ) from None
    except csv.Error as error:
        raise UserError(f"{name} is not valid CSV: {error}") from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{name} cannot be unpacked, because it is incomplete or its ending is wrong: {error}"
        ) from None
