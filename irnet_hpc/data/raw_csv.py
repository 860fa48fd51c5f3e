"""Raw tables: what every source is brought to before packing; here as CSV, with structures in raw_structures.py.

    formula, optional material_id, optional split (train, val, test), a column per property, further numeric columns

Empty means not reported. A formula is text: `NaN` is sodium nitride. Compressed tables (.gz, .xz) are read as they are.
"""

import contextlib
import csv
import dataclasses
import gzip
import hashlib
import lzma
import math
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np

from irnet_hpc.data.crystals import Crystals
from irnet_hpc.data.splits import SPLITS
from irnet_hpc.errors import UserError

OPENERS: dict[str, Callable] = {
    f".{form}{packing}": opener
    for form in ("csv", "jsonl")
    for packing, opener in (("", open), (".gz", gzip.open), (".xz", lzma.open))
}
RESERVED = ("formula", "material_id", "split")
LONGEST_TEXT = 1000
LONGEST_LINE = 2**25  # bytes; the structure of a thousand sites takes a hundred thousand
# Some bytes unpack to a thousand times as many, and a table is held in memory; real ones unpack to 5 to 30 times theirs.
MOST_UNPACKED = 300
FREELY_UNPACKED = 2**25  # bytes, whatever the file's size
BLOCK_ROWS = 16384  # text becomes numbers by blocks, so that a wide table is held as numbers only


@dataclasses.dataclass(frozen=True)
class RawTable:
    """A source's rows as they were read: formulas not looked at yet."""

    line: np.ndarray  # (n_rows,) int64, in the file, whose header is line 1
    formula: list[str]
    material_id: list[str]
    split: list[str] | None
    targets: dict[str, np.ndarray]  # property -> (n_rows,) float64, NaN = not reported
    columns: dict[str, np.ndarray]  # further numeric columns, (n_rows,) float64 each
    ignored: tuple[str, ...]  # columns that are neither
    sha256: str  # of the table's text, the same whether compressed or not
    crystals: Crystals | None = None  # where the table has structures

    def __len__(self) -> int:
        return len(self.line)

    def take(self, rows: np.ndarray) -> "RawTable":
        """The rows of these numbers."""
        return dataclasses.replace(
            self,
            line=self.line[rows],
            formula=[self.formula[row] for row in rows],
            material_id=[self.material_id[row] for row in rows],
            split=self.split and [self.split[row] for row in rows],
            targets={name: values[rows] for name, values in self.targets.items()},
            columns={name: values[rows] for name, values in self.columns.items()},
            crystals=self.crystals and self.crystals.take(rows),
        )


def ending_of(path: Path) -> str:
    """How a table is packed, by its name. Raises UserError where that is none of the known ways."""
    ending = next((ending for ending in OPENERS if path.name.endswith(ending)), None)
    if ending is None:
        raise UserError(f"a raw table's name must end in {', '.join(OPENERS)}, however: {path}")
    return ending


def read_header(path: Path) -> list[str]:
    """The names of a table's columns. Raises UserError where there is no formula, or a name twice."""
    with one_sentence(path):
        header = next(csv.reader(read_lines(path), strict=True), [])
    header = [column.strip() for column in header]
    if not any(header):
        raise UserError(
            f"{path} is empty; its first line must name its columns, formula among them"
        )
    if "formula" not in header:
        raise UserError(
            f"{path} must have a column named formula; its columns: {', '.join(header)}"
        )
    twice = sorted(column for column, count in Counter(header).items() if count > 1)
    if twice:
        raise UserError(
            f"{path} must name each column once, however: {', '.join(map(repr, twice))} stands there twice"
        )
    return header


def read(
    path: Path, name: str, targets: Collection[str], feature: Callable[[str], bool]
) -> RawTable:
    """Read a table: the `targets` to predict, and as features the numeric ones of the columns for which `feature` is true.

    Rows without a material_id get `<name>-<row>`. Raises UserError, naming the line, where the table is not sound.
    """
    header = read_header(path)
    text: dict[str, list[str]] = {column: [] for column in header if column in RESERVED}
    features = [
        column for column in header if column not in {*RESERVED, *targets} and feature(column)
    ]
    numbers: dict[str, list[np.ndarray]] = {column: [] for column in (*targets, *features)}
    lines: list[int] = []
    digest = hashlib.sha256()
    with one_sentence(path):
        for block_lines, block in _blocks(path, header, digest):
            for column, values in zip(header, zip(*block, strict=True), strict=True):
                if column in text:
                    text[column] += values
                elif (
                    column in numbers
                    and column not in targets
                    and not _may_be_numeric(values, numbers[column])
                ):
                    del numbers[column]  # words, not numbers
                elif column in numbers:
                    numbers[column].append(_numbers(path, column, values, block_lines))
            lines += block_lines
    if not lines:
        raise UserError(f"{path} has a header and no rows")
    check_text(path, text, lines)
    columns = {column: np.concatenate(blocks) for column, blocks in numbers.items()}
    ids = text.get("material_id", [""] * len(lines))
    return RawTable(
        line=np.array(lines, np.int64),
        formula=text["formula"],
        material_id=[given or f"{name}-{row}" for row, given in enumerate(ids, start=1)],
        split=text.get("split"),
        targets={column: columns.pop(column) for column in targets},
        columns=columns,
        ignored=tuple(column for column in header if column not in {*text, *numbers}),
        sha256=digest.hexdigest(),
    )


def read_lines(path: Path, digest=None) -> Iterator[str]:
    """The lines of a table, unpacked; `digest` is updated with their bytes. Raises UserError where it is made to fill the memory."""
    most = max(FREELY_UNPACKED, MOST_UNPACKED * path.stat().st_size)
    with OPENERS[ending_of(path)](path, "rb") as stream:
        n_bytes = 0
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b"")):
            n_bytes += len(line)
            if len(line) > LONGEST_LINE:
                raise UserError(
                    f"{path}, line {number + 1} must be at most {LONGEST_LINE / 2**20:.0f} MiB long"
                )
            if n_bytes > most:
                raise UserError(
                    f"{path} unpacks to more than {MOST_UNPACKED} times its size, which no table does; unpack it yourself if it is one"
                )
            if digest:
                digest.update(line)
            yield line.decode(
                "utf-8" if number else "utf-8-sig"
            )  # spreadsheets put a mark in front


def _blocks(path: Path, header: list[str], digest) -> Iterator[tuple[list[int], list[list[str]]]]:
    """(line numbers, rows of as many fields as the header has), block by block; blank lines are left out."""
    reader = csv.reader(read_lines(path, digest), strict=True)
    next(reader)
    lines, rows, last = [], [], reader.line_num
    try:
        for fields in reader:
            last += 1
            if reader.line_num != last:
                raise UserError(
                    f"{path}, line {last}: a quoted field runs over several lines; is a quote left open?"
                )
            if not fields:
                continue
            if len(fields) != len(header):
                raise UserError(
                    f"{path}, line {last} must have {len(header)} fields, however: {len(fields)}"
                )
            lines.append(last)
            rows.append(fields)
            if len(rows) == BLOCK_ROWS:
                yield lines, rows
                lines, rows = [], []
    except csv.Error as error:
        raise UserError(f"{path}, line {last + 1} is not sound CSV: {error}") from None
    if rows:
        yield lines, rows


def check_text(path: Path, text: dict[str, list[str]], lines: list[int]) -> None:
    """Raises UserError where a split is none, or a text is not for a pack: too long, or with a NUL, which HDF5 cuts off."""
    for column, values in text.items():
        for line, value in zip(lines, values, strict=True):
            if "\0" in value:
                raise UserError(
                    f"{path}, line {line}: {column} must be text, however: {value[:50]!r}"
                )
            if column == "split" and value not in SPLITS:
                raise UserError(
                    f"{path}, line {line}: split must be {', '.join(SPLITS)}, however: {value!r}"
                )
            if len(value) > LONGEST_TEXT:  # a pack gives every row the room of the longest
                raise UserError(
                    f"{path}, line {line}: {column} must be at most {LONGEST_TEXT} characters, however: {len(value)}"
                )


def _may_be_numeric(values: tuple[str, ...], before: list[np.ndarray]) -> bool:
    """Whether a column of unknown meaning holds numbers: the first value that is not empty decides."""
    if any(not np.isnan(block).all() for block in before):
        return True
    first = next((value for value in values if value), "0")
    with contextlib.suppress(ValueError):
        float(first)
        return True
    return False


def _numbers(path: Path, column: str, values: tuple[str, ...], lines: list[int]) -> np.ndarray:
    """(n_values,) float64, NaN where empty. Raises UserError where one is not a finite number."""
    with contextlib.suppress(ValueError):
        block = np.array([float(value) if value else math.nan for value in values])
        if not np.isinf(block).any():
            return block
    return np.array([_number(path, column, *place) for place in zip(values, lines, strict=True)])


def _number(path: Path, column: str, value: str, line: int) -> float:
    with contextlib.suppress(ValueError):
        number = float(value) if value.strip() else math.nan
        if not math.isinf(number):
            return number
    raise UserError(
        f"{path}, line {line}: {column} must be a finite number, or empty where not reported, however: {value!r}"
    )


@contextlib.contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """What can be wrong with a file before there is a row, as a UserError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} must be UTF-8 text, however: {error.reason} at byte {error.start} of a line"
        ) from None
    except csv.Error as error:
        raise UserError(f"{path} is not sound CSV: {error}") from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be unpacked; it is cut short, or not what its name says: {error}"
        ) from None
