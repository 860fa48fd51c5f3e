"""Write lines of text as Markdown, LaTeX and CSV. These functions know nothing of the content."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

PAGE_WIDTH = 100  # characters in \footnotesize, gaps included, that fit into a line


class Text(NamedTuple):
    """The text of a cell, and how it is shown."""

    text: str
    bold: bool = False
    missing: bool = False  # whether the text is the reason why there is no number


Line = list[Text]


def line_of(*cells: str | Text) -> Line:
    """Make a line of a table."""
    return [cell if isinstance(cell, Text) else Text(cell) for cell in cells]


def missing(reason: str) -> Text:
    """Make the text of a cell that shows a reason instead of a number."""
    return Text(reason, missing=True)


class TableBlock(NamedTuple):
    """One table of a section."""

    title: str
    name: str  # a label of letters, digits and _.+=-
    lines: list[Line]  # the header is the first line


class Section(NamedTuple):
    """A part of the report that answers one question and is also written as a CSV."""

    name: str  # the name of the CSV
    heading: str
    text: str  # how to read the section
    blocks: Sequence[TableBlock]
    records: Sequence[Mapping] = ()  # lines of the CSV in full precision; empty: no CSV


def section_markdown(section: Section, width: int | None = None) -> str:
    """Write a section as Markdown; wrap its tables to `width` characters if that is given."""
    blocks = [f"### {block.title}\n\n{aligned(block.lines, width)}" for block in section.blocks]
    return "\n\n".join([f"## {section.heading}", section.text, *blocks])


def section_latex(section: Section) -> list[str]:
    """Write each table of a section as LaTeX."""
    return [
        latex_table(
            f"{section.heading}. {block.title}.", f"{section.name}-{block.name}", block.lines
        )
        for block in section.blocks
    ]


def one_line(text: str) -> str:
    """Make text from a file safe for tables and terminals: one line, without control characters."""
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())


def aligned(lines: Sequence[Line], width: int | None = None) -> str:
    """Write lines of text as an aligned Markdown table.

    Args:
        lines: the cells of all lines, the header first.
        width: the width of a terminal in characters. Columns that do not fit are shown below the
            others, and nothing is escaped. None: the table is not split.
    """
    texts = [[_markdown_text(cell, escape=not width) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n\n".join(
        "\n".join(_markdown_lines(texts, widths, columns)) for columns in _blocks(widths, width)
    )


def _markdown_text(cell: Text, escape: bool) -> str:
    text = one_line(cell.text)
    text = re.sub(r"([\\`*<>|])", r"\\\1", text) if escape else text
    return f"**{text}**" if cell.bold else text


def _markdown_lines(
    texts: Sequence[Sequence[str]], widths: Sequence[int], columns: Sequence[int]
) -> Iterator[str]:
    """Yield the lines of some columns: the first aligned to the left, the others to the right."""
    for number, line in enumerate(texts):
        cells = [
            line[column].rjust(widths[column]) if column else line[0].ljust(widths[0])
            for column in columns
        ]
        yield "| " + " | ".join(cells) + " |"
        if number == 0:
            rule = ["-" * (widths[column] + 1) + (":" if column else "-") for column in columns]
            yield "|" + "|".join(rule) + "|"


def _blocks(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Split columns into blocks that fit into `width`. Each block begins with the first column."""
    blocks = [[0]]
    for column in range(1, len(widths)):
        needed = sum(widths[other] + 3 for other in [*blocks[-1], column]) + 1
        if width and needed > width and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(column)
    return blocks


# fmt: off
LATEX = {letter: "\\" + letter for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "–": "--", "Å": r"\AA{}", "µ": r"$\mu$",
    "μ": r"$\mu$", "°": r"\textdegree{}", "·": r"$\cdot$", "²": "$^2$", "³": "$^3$", "⁻": "$^-$",
    "¹": "$^1$", "×": r"$\times$", "Ω": r"$\Omega$", "ρ": r"$\rho$", "δ": r"$\delta$",
}
# fmt: on


def escape_latex(text: str) -> str:
    """Escape text for LaTeX. Characters outside ASCII are kept, unless LATEX replaces them."""
    return "".join(LATEX.get(letter, letter) for letter in one_line(text))


def latex_table(caption: str, name: str, lines: Sequence[Line]) -> str:
    r"""Write lines of text, the header first, as a table of the LaTeX package booktabs."""
    widths = [max(len(line[column].text) for line in lines) for column in range(len(lines[0]))]
    blocks = _blocks(widths, PAGE_WIDTH)
    tabulars = "\n\n\\medskip\n".join(_tabular(lines, columns) for columns in blocks)
    return rf"""\begin{{table}}
\centering
\footnotesize
\caption{{{escape_latex(caption)}}}
\label{{tab:{name}}}
{tabulars}
\end{{table}}"""


def _tabular(lines: Sequence[Line], columns: Sequence[int]) -> str:
    header, *body = [
        " & ".join(_latex_cell(line[column]) for column in columns) + r" \\" for line in lines
    ]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}"
    return "\n".join(
        [begin, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    )


def _latex_cell(cell: Text) -> str:
    return rf"\textbf{{{escape_latex(cell.text)}}}" if cell.bold else escape_latex(cell.text)


def csv_text(records: Iterable[Mapping]) -> str:
    """Write records that have the same fields as CSV with a header."""
    records = list(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, records[0].keys() if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in line.items()} for line in records)
    return text.getvalue()


def _inert(value: object) -> object:
    """Quote text that a spreadsheet would read as a formula. Numbers are returned unchanged."""
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if is_formula else value
