"""Candidates: the rows to predict, block by block, each kept as it came so that nothing of it is lost.

A row that cannot be read has a problem, in words, and stays in its place. Tables are CSV with a formula column or JSON
lines with structures, also .gz or .xz, or stdin. Memory does not depend on how many rows there are.
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
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.crystals import Crystals, stack_crystals
from irnet_hpc.data.formulas import InvalidFormula, parse_formula
from irnet_hpc.data.raw_jsonl import parse_json_line, parse_structure
from irnet_hpc.data.raw_table import OPENERS, ending_of, one_sentence
from irnet_hpc.errors import UserError

UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")  # the mark at its beginning, as surrogateescape has it
BLOCK_ROWS = 2048  # large enough for matrix products, small enough to stay in a processor's cache


class Block(NamedTuple):
    """Rows in the order of the file."""

    fields: list[list[str]]  # of every row as many as there are columns
    formula: list[str]
    columns: (
        np.ndarray
    )  # (n_rows, n_columns) float64, the feature columns asked for; NaN where a row has none
    crystals: Crystals | None  # where the table has structures
    problems: dict[int, str]  # row -> why it cannot be read


class Candidates(NamedTuple):
    header: list[str]  # names of the columns that are passed on
    has_formula: bool
    has_structures: bool
    blocks: Iterator[Block]
    n_rows: int | None = None  # None: a table, which is read as it comes


def of_formulas(formulas: Iterable[str], n_rows: int | None = None) -> Candidates:
    """Candidates that are formulas and nothing else."""

    def blocks() -> Iterator[Block]:
        rest = iter(formulas)
        while block := list(itertools.islice(rest, BLOCK_ROWS)):
            yield Block(
                [[formula] for formula in block], block, np.empty((len(block), 0)), None, {}
            )

    return Candidates(["formula"], True, False, blocks(), n_rows)


@contextlib.contextmanager
def opened(path: str, columns: Sequence[str], formula_needed: bool) -> Iterator[Candidates]:
    """The rows of a table, or with `-` of stdin, with the feature `columns`. Raises UserError for what is wrong with all
    of it: no formula where one is needed, a column that is missing, what cannot be unpacked."""
    named = Path("stdin" if path == "-" else path)
    ending = None if path == "-" else ending_of(named)
    # What is not UTF-8 comes out again as it came in; a mark at the beginning is a spreadsheet's.
    with (
        one_sentence(named),
        sys.stdin.buffer if ending is None else OPENERS[ending](path, "rb") as raw,
    ):
        stream = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        first = next((line for line in stream if line.strip()), None)
        if first is None:
            raise UserError(
                f"{named} is empty; its first line must name its columns, formula among them"
            )
        if first.startswith(UTF_16):
            raise UserError(
                f"{named} must be UTF-8 text, however: it begins with the mark of UTF-16; save it as CSV UTF-8"
            )
        lines = itertools.chain([first], stream)
        is_lines = first.lstrip().startswith("{") if ending is None else ending.startswith(".jsonl")
        read = _json_lines if is_lines else _csv
        yield read(named, lines, columns, formula_needed)


def _csv(
    path: Path, lines: Iterator[str], columns: Sequence[str], formula_needed: bool
) -> Candidates:
    reader = csv.reader(lines, strict=True)
    header = [name.strip() for name in next(reader)]
    _check(path, header, columns, formula_needed)
    place = header.index("formula") if "formula" in header else None
    places = [header.index(name) for name in columns]

    def blocks() -> Iterator[Block]:
        rows = _rows(path, reader, len(header))
        while block := list(itertools.islice(rows, BLOCK_ROWS)):
            problems = {row: problem for row, (_, problem) in enumerate(block) if problem}
            fields = [fields for fields, _ in block]
            formula = [""] * len(block) if place is None else [row[place].strip() for row in fields]
            numbers = np.full((len(block), len(columns)), math.nan)
            for at, name in enumerate(columns):
                numbers[:, at] = _numbers(name, [row[places[at]] for row in fields], problems)
            yield Block(fields, formula, numbers, None, problems)

    return Candidates(header, place is not None, False, blocks())


def _check(path: Path, header: list[str], columns: Sequence[str], formula_needed: bool) -> None:
    if formula_needed and "formula" not in header:
        hint = ""
        with contextlib.suppress(InvalidFormula):
            parse_formula(header[0])
            hint = "; a list of formulas, too, begins with a line that names its column: formula"
        raise UserError(
            f"{path} must have a column named formula; its columns: {', '.join(header)}{hint}"
        )
    if missing := [name for name in columns if name not in header]:
        raise UserError(
            f"{path} must have the columns that the model has as features, however: {', '.join(missing[:5])} "
            f"{'is' if len(missing) == 1 else 'are'} missing; its columns: {', '.join(header)}"
        )
    if twice := sorted(name for name, count in Counter(header).items() if count > 1):
        raise UserError(
            f"{path} must name each column once, however: {', '.join(map(repr, twice))} stands there twice"
        )


def _rows(
    path: Path, reader: Iterator[list[str]], n_fields: int
) -> Iterator[tuple[list[str], str]]:
    """(fields, problem) of every row but blank ones. A quote that is not closed is an error: rows would be lost in it."""
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
            lost = (
                f", the last of them {', '.join(map(repr, fields[n_fields:]))}"
                if len(fields) > n_fields
                else ""
            )
            problem = f"a row must have {n_fields} fields, however: {len(fields)}{lost}"
            yield (fields + [""] * n_fields)[:n_fields], problem


def _numbers(name: str, texts: list[str], problems: dict[int, str]) -> np.ndarray:
    """(n_rows,) float64; rows whose text is no finite number get a problem, and NaN."""
    with contextlib.suppress(ValueError):
        numbers = np.array([float(text) for text in texts])
        if np.isfinite(numbers).all():
            return numbers
    numbers = np.full(len(texts), math.nan)
    for row, text in enumerate(texts):
        with contextlib.suppress(ValueError):
            numbers[row] = float(text)
        if not math.isfinite(numbers[row]):
            problems.setdefault(row, f"feature {name} must be a finite number, however: {text!r}")
    return numbers


def _json_lines(
    path: Path, lines: Iterator[str], columns: Sequence[str], formula_needed: bool
) -> Candidates:
    """What is passed on: material_id, formula and whatever else the first line has that is text or a number."""
    first, header = next(lines), ["material_id", "formula"]
    with contextlib.suppress(
        ValueError, AttributeError
    ):  # a first line that is none gets a problem as any other does
        header += [
            key
            for key, value in json.loads(first).items()
            if isinstance(value, str | int | float)
            and key not in (*header, "lattice", "species", "frac_coords")
        ]

    def blocks() -> Iterator[Block]:
        numbered = enumerate(itertools.chain([first], lines), start=1)
        rest = ((number, line) for number, line in numbered if line.strip())
        while block := list(itertools.islice(rest, BLOCK_ROWS)):
            entries, problems = [], {}
            for row, (number, line) in enumerate(block):
                try:
                    entries.append(parse_json_line(f"{path}, line {number}", line))
                except UserError as error:
                    entries.append({})
                    problems[row] = str(error)
            found = [parse_structure(entry) for entry in entries]
            formula = [formula for _, formula in found]
            fields = [
                [
                    entry.get("material_id", ""),
                    text,
                    *(str(entry.get(name, "")) for name in header[2:]),
                ]
                for entry, text in zip(entries, formula, strict=True)
            ]
            numbers = np.full((len(block), len(columns)), math.nan)
            for at, name in enumerate(columns):
                texts = [str(entry.get(name, "")) for entry in entries]
                numbers[:, at] = _numbers(name, texts, problems)
            yield Block(
                fields,
                formula,
                numbers,
                stack_crystals([crystal for crystal, _ in found]),
                problems,
            )

    return Candidates(header, True, True, blocks())
