"""Records: materials as a service gives them, one by one, and the raw tables that they become.

A table is written row by row and appears whole, with what it is beside it: `<name>.about.json` holds source, url, date,
rows, hash, licence, citation and units.
"""

import contextlib
import csv
import datetime
import gzip
import hashlib
import io
import json
import lzma
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.data.raw_table import MAX_TEXT_LENGTH, about_path, form_of
from irnet_hpc.files import replacing, write_json


class Unusable(ValueError):
    """A row of a service's that is no material; its text is the reason, by which such rows are counted."""


class UnitCell(NamedTuple):
    """A crystal as a raw table has it."""

    lattice: list[list[float]]  # 3 x 3, Å, a vector a row
    species: list[str | dict[str, float]]  # a site: its symbol, or the occupancy of each symbol
    frac_coords: list[list[float]]  # n_sites x 3


class Record(NamedTuple):
    material_id: str
    formula: str | None  # None where the crystal says it
    targets: dict[str, float]  # property -> value in its unit; what is not reported is left out
    cell: UnitCell | None = None


class Lowest(NamedTuple):
    """Which of the records of one id is the material: that of the lowest value of a property."""

    property: str
    values: dict[str, float]  # id -> the lowest value, infinite where no record of it has one

    def has(self, record: Record) -> bool:
        return record.targets.get(self.property, math.inf) <= self.values[record.material_id]


class WrittenTable(NamedTuple):
    """What has become of the rows of a service."""

    n_rows: int
    n_reported: dict[str, int]  # property -> rows that report it
    sha256: str  # of the table's text
    n_twice: int  # rows that came again with the same content, and were left out
    n_other: int  # rows with the id of another one, but other content, that were left out
    unusable: dict[str, int]  # reason -> rows

    def remarks(self) -> list[str]:
        """What is worth saying of it, a sentence each."""
        said = [f"{count:,} rows left out: {reason}" for reason, count in self.unusable.items()]
        if self.n_twice:
            said.append(
                f"{self.n_twice:,} rows came twice and were kept once; where a service repeats rows between its pages, as "
                "many others may be missing"
            )
        if self.n_other:
            said.append(
                f"{self.n_other:,} rows had the id of another one but other values and were left out"
            )
        said += [f"no row reports {name}" for name, count in self.n_reported.items() if not count]
        return said


def number(value: object) -> float | None:
    """A number as services write it, which may be text; None for what is not reported or not finite.

    >>> number("6.8531"), number(0), number(None), number("")
    (6.8531, 0.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        found = float(value)
        return found if math.isfinite(found) else None
    return None


UNPRINTABLE = f"a formula or an id of more than {MAX_TEXT_LENGTH:,} characters, or of some that cannot be printed"


def printable(record: Record) -> bool:
    """Whether its texts fit into a table: line ends among them would make all of it unreadable."""
    texts = (record.material_id, record.formula or "")
    return all(text.isprintable() and len(text) <= MAX_TEXT_LENGTH for text in texts)


def reported(**values: float | None) -> dict[str, float]:
    """Targets, without those that are None."""
    return {name: value for name, value in values.items() if value is not None}


Records = Iterable[Record | Unusable]


def write_csv(
    path: Path, columns: Sequence[str], records: Records, lowest: Lowest | None = None
) -> WrittenTable:
    """Write `formula, material_id, *columns` as .csv.xz; every number with all its digits, nothing where not reported.

    Of records of one id the first is kept, or where `lowest` has the id the first whose property has that value.
    """

    def lines(kept: Iterator[Record]) -> Iterator[str]:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["formula", "material_id", *columns])
        for record in kept:
            values = [
                repr(record.targets[column]) if column in record.targets else ""
                for column in columns
            ]
            writer.writerow([record.formula, record.material_id, *values])
            if text.tell() > 2**16:
                yield text.getvalue()
                text.seek(0)
                text.truncate()
        yield text.getvalue()

    return _write(
        path,
        columns,
        records,
        lowest,
        lines,
        lambda temporary: lzma.open(temporary, "wb", preset=3),
    )


def write_jsonl(
    path: Path, columns: Sequence[str], records: Records, lowest: Lowest | None = None
) -> WrittenTable:
    """Write one material a line as .jsonl.gz, in the form that raw_structures.py reads; `lowest` as in write_csv."""

    def lines(kept: Iterator[Record]) -> Iterator[str]:
        for record in kept:
            line = {"material_id": record.material_id}
            line |= {"formula": record.formula} if record.formula else {}
            line |= record.cell._asdict() if record.cell else {}
            yield (
                json.dumps(
                    line | {"targets": record.targets}, separators=(",", ":"), allow_nan=False
                )
                + "\n"
            )

    return _write(
        path,
        columns,
        records,
        lowest,
        lines,
        lambda temporary: gzip.open(temporary, "wb", compresslevel=6),
    )


def _write(
    path: Path,
    columns: Sequence[str],
    records: Records,
    lowest: Lowest | None,
    lines: Callable[[Iterator[Record]], Iterator[str]],
    opener: Callable[[Path], io.BufferedIOBase],
) -> WrittenTable:
    seen: dict[str, int] = {}  # id -> hash of the content, of the rows kept
    repeated, n_reported, unusable = Counter(), Counter(dict.fromkeys(columns, 0)), Counter()

    def kept() -> Iterator[Record]:
        for record in records:
            if isinstance(record, Unusable) or not printable(record):
                unusable[str(record) if isinstance(record, Unusable) else UNPRINTABLE] += 1
                continue
            if lowest and not lowest.has(record):
                repeated[False] += 1
                continue
            content = hash((record.formula, *record.targets.items(), str(record.cell)))
            if record.material_id in seen:
                repeated[seen[record.material_id] == content] += 1
                continue
            seen[record.material_id] = content
            n_reported.update(record.targets.keys())
            yield record

    digest = hashlib.sha256()
    with replacing(path) as temporary, opener(temporary) as file:
        for text in lines(kept()):
            file.write(text.encode())
            digest.update(text.encode())
    return WrittenTable(
        len(seen),
        dict(n_reported),
        digest.hexdigest(),
        repeated[True],
        repeated[False],
        dict(unusable),
    )


def write_about(
    table: Path, written: WrittenTable, url: str, units: Mapping[str, str], **what: object
) -> None:
    """Write what a table is beside it. `what` has source, title, licence, citation and whatever else is to be known."""
    about = {
        **what,
        "url": url,
        "fetched": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "n_rows": written.n_rows,
        "form": form_of(table),
        "sha256": written.sha256,
        "units": {name: unit for name, unit in units.items() if written.n_reported.get(name, 1)},
        "reported": written.n_reported,
        "notes": [*what.get("notes", []), *written.remarks()],
    }
    write_json(about_path(table), about)
