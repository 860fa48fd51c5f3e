"""Prepare tables for the page: how each cell is shown, and the value by which it is sorted.

The templates escape text, so this module does not. Only `formula` makes markup, and it escapes the
parts of the formula.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from irnet_hpc.aggregate.formats import Line, Text, one_line

# The first number of a cell, or the number behind a model's name.
NUMBER = re.compile(r"(?:p [<=] )?([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?: .*)?")
NAMED = re.compile(r"[\w.+-]+ (\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?) (?:± \S+ )?\(n=\d+[^)]*\)")
MAX_UNBROKEN = 44  # a cell with more characters may be broken into lines


class PageCell(NamedTuple):
    """A cell of a table of the page."""

    text: str
    classes: str = ""  # classes of the style sheet
    value: float | None = None  # the number by which the cell is sorted; None: by its text


class PageTable(NamedTuple):
    """A table that the page's script can sort by any column."""

    header: list[PageCell]
    lines: list[list[PageCell]]  # the first cell of each line is the line's heading


def page_table(lines: Sequence[Line], first: Callable[[str], str] = str) -> PageTable:
    """Prepare lines of text, the header first.

    Args:
        lines: the cells of all lines.
        first: the function that renders a cell of the first column, such as `formula`.
    """
    header, *body = lines
    values = [
        [None if cell.missing else number_of(one_line(cell.text)) for cell in line] for line in body
    ]
    # Columns that contain mostly numbers are aligned to the right.
    is_right = [
        column > 0 and 2 * sum(line[column] is not None for line in values) > len(body)
        for column in range(len(header))
    ]
    rows = []
    for line, numbers in zip(body, values, strict=True):
        heading = PageCell(first(line[0].text), "best" if line[0].bold else "", numbers[0])
        cells = zip(line[1:], numbers[1:], is_right[1:], strict=True)
        rows.append([heading, *(_cell(*cell) for cell in cells)])
    heads = [
        PageCell(cell.text, "n" if right else "")
        for cell, right in zip(header, is_right, strict=True)
    ]
    return PageTable(heads, rows)


def _cell(cell: Text, value: float | None, is_right: bool) -> PageCell:
    classes = {
        "n": is_right,
        "best": cell.bold,
        "missing": cell.missing,
        "long": len(cell.text) > MAX_UNBROKEN,
    }
    return PageCell(
        cell.text, " ".join(name for name, applies in classes.items() if applies), value
    )


def number_of(text: str) -> float | None:
    """Return the number by which a text is sorted; None if the text itself is the sort key."""
    match = NUMBER.fullmatch(text) or NAMED.fullmatch(text)
    return float(match[1].replace(",", "")) if match else None


def formula(text: str) -> Markup:
    """Show a formula with its amounts as subscripts."""
    parts = re.split(r"(?<=[A-Za-z)\]])(\d+(?:\.\d+)?)", one_line(text))
    return Markup("").join(
        Markup("<sub>{}</sub>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
