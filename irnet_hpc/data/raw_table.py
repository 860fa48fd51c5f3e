"""Raw tables: the form that every source is brought to before packing, and what its readers share.

A table is CSV (raw_csv.py) or, with structures, JSON lines (raw_jsonl.py), as it is or compressed
(.gz, .xz). A file `<name>.about.json` beside it may hold title, licence, citation, units and hash.
"""

import contextlib
import csv
import dataclasses
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from irnet_hpc.data.crystals import Crystals
from irnet_hpc.data.splits import ROLES
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json

OPENERS: dict[str, Callable] = {
    f".{form}{packing}": opener
    for form in ("csv", "jsonl")
    for packing, opener in (("", open), (".gz", gzip.open), (".xz", lzma.open))
}
RESERVED = ("formula", "material_id", "split")
MAX_TEXT_LENGTH = 1000
# Bytes; the structure of a thousand sites takes a hundred thousand.
MAX_LINE_LENGTH = 2**25
# A few bytes can unpack to a thousand times as many, and a table is held in memory. Real tables
# unpack to 5 to 30 times their size. Below the second limit, in bytes, any multiple is allowed.
MAX_UNPACKED_RATIO = 300
ALWAYS_UNPACKED = 2**25


@dataclasses.dataclass(frozen=True)
class RawTable:
    """A source's rows as they were read, before any formula is parsed."""

    line: np.ndarray  # (n_rows,) int64, in the file, whose header is line 1
    formula: Sequence[str]
    material_id: Sequence[str]
    role: Sequence[str] | None = None  # train, val or test, from the column `split`
    # property -> (n_rows,) float64, NaN = not reported
    targets: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    # further numeric columns, (n_rows,) float64 each
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()  # columns that are neither
    sha256: str = ""  # hash of the table's text, whether compressed or not
    crystals: Crystals | None = None  # where the table has structures

    def __len__(self) -> int:
        return len(self.line)

    def take(self, rows: np.ndarray) -> "RawTable":
        """Return the rows of these numbers."""
        return dataclasses.replace(
            self,
            line=self.line[rows],
            formula=[self.formula[row] for row in rows],
            material_id=[self.material_id[row] for row in rows],
            role=self.role and [self.role[row] for row in rows],
            targets={name: values[rows] for name, values in self.targets.items()},
            columns={name: values[rows] for name, values in self.columns.items()},
            crystals=self.crystals and self.crystals.take(rows),
        )


def formula_table(
    formulas: Sequence[str],
    columns: dict[str, np.ndarray] | None = None,
    crystals: Crystals | None = None,
) -> RawTable:
    """Return a table of formulas without targets; lines are row numbers, ids the formulas."""
    line = np.arange(len(formulas))
    return RawTable(line, formulas, formulas, columns=columns or {}, crystals=crystals)


class TableText(NamedTuple):
    """The text of a table: a file, or a DataFrame written as CSV."""

    name: str  # the path, or the name of the DataFrame, for messages
    lines: Callable[..., Iterator[str]]  # called with a hashlib digest, which it updates, or None
    unit: str = "line"  # word for the number of a record in messages
    first: int = 1  # the line whose number in messages is 1

    def place(self, line: int) -> str:
        """Name a line (1 is the header) for a message, such as `my.csv, line 3`."""
        return f"{self.name}, {self.unit} {line - self.first + 1}"


def file_text(path: Path) -> TableText:
    """Return the text of a file, which is read and unpacked only as its lines are."""
    return TableText(str(path), lambda digest=None: read_lines(path, digest))


def ending_of(path: Path) -> str:
    """Return the ending of a table's name, such as `.csv.xz`. Raises UserError for any other."""
    ending = next((ending for ending in OPENERS if path.name.endswith(ending)), None)
    if ending is None:
        raise UserError(f"a raw table's name must end in {', '.join(OPENERS)}, got {path}")
    return ending


def form_of(table: Path) -> str:
    """Return `csv` or `jsonl`."""
    return ending_of(table).split(".")[1]


def about_path(table: Path) -> Path:
    """Return the path of the file that describes a raw table, which lies beside it."""
    return table.with_name(f"{table.name.removesuffix(ending_of(table))}.about.json")


def read_about(table: Path) -> dict[str, Any]:
    """Read the description of a raw table: title, licence, citation, units. Empty if there is none.

    A table with structures and one without may share a name; the description says whose it is.
    """
    path = about_path(table)
    about = read_json(path) if path.is_file() else {}
    if not isinstance(about.get("units", {}), dict):
        raise UserError(f"{path}: units must map properties to units, got {about['units']!r}")
    return about if about.get("form", form_of(table)) == form_of(table) else {}


def read_lines(path: Path, digest: Any = None) -> Iterator[str]:
    """Yield the lines of a table, unpacked; `digest` (of hashlib) is updated with their bytes.

    Raises UserError for a line that is too long, and for a file made to fill the memory.
    """
    max_bytes = max(ALWAYS_UNPACKED, MAX_UNPACKED_RATIO * path.stat().st_size)
    with OPENERS[ending_of(path)](path, "rb") as stream:
        n_bytes = 0
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_LENGTH + 1), b"")):
            n_bytes += len(line)
            if len(line) > MAX_LINE_LENGTH:
                raise UserError(
                    f"{path}, line {number + 1} must be at most "
                    f"{MAX_LINE_LENGTH / 2**20:.0f} MiB long"
                )
            if n_bytes > max_bytes:
                raise UserError(
                    f"{path} unpacks to more than {MAX_UNPACKED_RATIO} times its size, "
                    "which no table does; unpack it yourself if it is one"
                )
            if digest:
                digest.update(line)
            # Spreadsheets put a byte order mark in front.
            yield line.decode("utf-8" if number else "utf-8-sig")


def check_text(table: TableText, text: dict[str, list[str]], lines: list[int]) -> None:
    """Check the text columns. Raises UserError for an unknown split and for text unfit for a pack.

    HDF5 cuts text at a NUL, and gives every row the room of the longest one.
    """
    for column, values in text.items():
        for line, value in zip(lines, values, strict=True):
            if "\0" in value:
                problem = f"text, got {value[:50]!r}"
            elif column == "split" and value not in ROLES:
                problem = f"{', '.join(ROLES)}, got {value!r}"
            elif len(value) > MAX_TEXT_LENGTH:
                problem = f"at most {MAX_TEXT_LENGTH} characters, got {len(value)}"
            else:
                continue
            raise UserError(f"{table.place(line)}: {column} must be {problem}")


@contextlib.contextmanager
def one_sentence(name: Path | str) -> Iterator[None]:
    """Turn errors that concern a file as a whole into a UserError."""
    try:
        yield
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise UserError(
            f"{name} must be UTF-8 text, got {error.reason} at byte {error.start} of a line"
        ) from None
    except csv.Error as error:
        raise UserError(f"{name} is not sound CSV: {error}") from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{name} cannot be unpacked; it is cut short, or not of the type that its name states: "
            f"{error}"
        ) from None
