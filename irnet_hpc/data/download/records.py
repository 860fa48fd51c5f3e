"""Write the materials that a service returns as a raw table.

A table is written row by row, and appears under its name only when complete. Beside it,
`<name>.about.json` holds source, url, date, rows, hash, licence, citation and units.
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irnet_hpc.data.numerals import parse_number
from irnet_hpc.data.raw_table import MAX_TEXT_LENGTH, about_path, form_of
from irnet_hpc.files import replacing, write_json


class Unusable(ValueError):
    """Signal that a row of a service is not a usable material.

    Its text is the reason, by which such rows are counted.
    """


class UnitCell(NamedTuple):
    """A crystal in the form that raw tables store."""

    lattice: list[list[float]]  # 3 x 3, Å, one vector per row
    species: list[str | dict[str, float]]  # per site: its symbol, or symbol -> occupancy
    frac_coords: list[list[float]]  # n_sites x 3


class Record(NamedTuple):
    """A material as a service returns it."""

    material_id: str
    formula: str | None  # None: the formula follows from the crystal
    targets: dict[str, float]  # reported property -> value in the property's unit
    cell: UnitCell | None = None
    # Reason and detail, if the service has a structure that cannot be used. The row is written, so
    # that packing lists it, or packs its formula.
    fault: tuple[str, str] | None = None


class Lowest(NamedTuple):
    """A rule for records with the same id: keep the one with the lowest value of a property."""

    property: str
    values: dict[str, float]  # id -> lowest value; infinite if no record has a value

    def includes(self, record: Record) -> bool:
        """Return True if a record has the lowest value of all records with its id."""
        return record.targets.get(self.property, math.inf) <= self.values[record.material_id]


class WrittenTable(NamedTuple):
    """The outcome of writing a table: how many rows were written or left out, and why."""

    n_rows: int
    n_reported: dict[str, int]  # property -> rows that report it
    sha256: str  # hash of the table's text
    n_repeated: int  # rows left out because a row with the same id and content exists
    n_other: int  # rows left out because a row with the same id but other content exists
    unusable: dict[str, int]  # reason -> number of rows left out

    def remarks(self) -> list[str]:
        """Return warnings about the table for the user, one sentence each."""
        remarks = [f"{count:,} rows left out: {reason}" for reason, count in self.unusable.items()]
        if self.n_repeated:
            remarks.append(
                f"{self.n_repeated:,} rows came twice and were kept once; if a service repeats "
                "rows on several pages, as many other rows may be missing"
            )
        if self.n_other:
            remarks.append(
                f"{self.n_other:,} rows had the id of an earlier row but other values "
                "and were left out"
            )
        remarks += [f"no row reports {name}" for name, n in self.n_reported.items() if not n]
        return remarks


def number(value: object) -> float | None:
    """Convert a number or its text to float. Returns None if it is not reported or not finite.

    >>> number("6.8531"), number(0), number(None), number("")
    (6.8531, 0.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        parsed = parse_number(value) if isinstance(value, str) else float(value)
        return parsed if math.isfinite(parsed) else None
    return None


UNPRINTABLE = (
    f"a formula or an id that has more than {MAX_TEXT_LENGTH:,} characters, "
    "or characters that cannot be printed"
)


def is_printable(record: Record) -> bool:
    """Return True if a record's texts are short and printable. A line end would break the table."""
    texts = (record.material_id, record.formula or "")
    return all(text.isprintable() and len(text) <= MAX_TEXT_LENGTH for text in texts)


def reported(**values: float | None) -> dict[str, float]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


Records = Iterable[Record | Unusable]


def write_table(
    path: Path, columns: Sequence[str], records: Records, lowest: Lowest | None = None
) -> WrittenTable:
    """Write records as compressed CSV or JSON lines, depending on the ending of the path.

    A CSV has the columns `formula, material_id, *columns`. Numbers have all their digits, and a
    field is empty if its value is not reported. JSON lines have the form that raw_jsonl.py reads.

    Args:
        path: the path of the table, which ends in `.csv.xz` or `.jsonl.gz`.
        columns: the properties.
        records: the materials, and for each unusable row the reason.
        lowest: the rule for records with the same id; the first of them that the rule includes is
            kept. Without a rule, the first record is kept.
    """
    seen: dict[str, int] = {}  # id -> hash of the content, of the rows kept
    repeated: Counter[bool] = Counter()
    n_reported = Counter(dict.fromkeys(columns, 0))
    unusable: Counter[str] = Counter()

    def kept() -> Iterator[Record]:
        for record in records:
            if isinstance(record, Unusable) or not is_printable(record):
                unusable[str(record) if isinstance(record, Unusable) else UNPRINTABLE] += 1
                continue
            if lowest and not lowest.includes(record):
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
    is_csv = form_of(path) == "csv"
    blocks = _csv_blocks(kept(), columns) if is_csv else map(_json_line, kept())
    with replacing(path) as temporary, _open(temporary, is_csv) as file:
        for text in blocks:
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


def _open(path: Path, is_csv: bool) -> Any:
    return lzma.open(path, "wb", preset=3) if is_csv else gzip.open(path, "wb", compresslevel=6)


def _csv_blocks(records: Iterable[Record], columns: Sequence[str]) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["formula", "material_id", *columns])
    for record in records:
        targets = record.targets
        values = [repr(targets[column]) if column in targets else "" for column in columns]
        writer.writerow([record.formula, record.material_id, *values])
        if text.tell() > 2**16:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _json_line(record: Record) -> str:
    line: dict[str, Any] = {"material_id": record.material_id}
    line |= {"formula": record.formula} if record.formula else {}
    line |= record.cell._asdict() if record.cell else {}
    if record.fault:
        reason, detail = record.fault
        line |= {"formula": record.formula or ""}
        line["read_from"] = {"reason": reason, "detail": detail, "cells": {}}
    line["targets"] = record.targets
    return json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n"


def write_about(table: Path, written: WrittenTable, about: Mapping[str, Any]) -> None:
    """Write the description of a table beside it.

    Args:
        table: the path of the table.
        written: the outcome of writing the table.
        about: source, url, title, licence, citation, units, and any other facts to record.
    """
    units = {name: unit for name, unit in about["units"].items() if written.n_reported.get(name, 1)}
    facts = {
        "fetched": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "n_rows": written.n_rows,
        "form": form_of(table),
        "sha256": written.sha256,
        "units": units,
        "reported": written.n_reported,
        "notes": [*about.get("notes", []), *written.remarks()],
    }
    write_json(about_path(table), {**about, **facts})
