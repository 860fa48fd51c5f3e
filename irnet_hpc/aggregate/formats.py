"""Write lines of text as Markdown, LaTeX and CSV. These functions know nothing of the content."""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

PAGE_WIDTH = 80  # characters in \footnotesize, gaps included, that fit into a line of article


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
    bold: str = ""  # what bold marks, for captions; empty: nothing is bold


def section_markdown(section: Section, width: int | None = None) -> str:
    """Write a section as Markdown; wrap its tables to `width` characters if that is given."""
    blocks = [f"### {block.title}\n\n{aligned(block.lines, width)}" for block in section.blocks]
    return "\n\n".join([f"## {section.heading}", section.text, *blocks])


def section_latex(section: Section, words: Callable[[str], str] = str) -> list[str]:
    """Write each table of a section as LaTeX; `words` replaces names within a text by words."""
    bold = f" Bold: {section.bold}." if section.bold else ""
    return [
        latex_table(
            f"{section.heading}. {block.title}.{bold}",
            f"{section.name}-{block.name}",
            block.lines,
            words,
        )
        for block in section.blocks
    ]


def one_line(text: str) -> str:
    """Make text from a file safe for tables and terminals: one line, without control characters."""
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())


def aligned(lines: Sequence[Line], width: int | None = None, left: Collection[str] = ()) -> str:
    """Write lines of text as an aligned Markdown table.

    Args:
        lines: the cells of all lines, the header first.
        width: the width of a terminal in characters. Columns that do not fit are shown below the
            others, and nothing is escaped. None: the table is not split.
        left: the headers of the columns that are aligned to the left, besides the first one.
    """
    texts = [[_markdown_text(cell, escape=not width) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    is_left = [number == 0 or cell.text in left for number, cell in enumerate(lines[0])]
    return "\n\n".join(
        "\n".join(_markdown_lines(texts, widths, columns, is_left))
        for columns in _blocks(widths, width)
    )


def _markdown_text(cell: Text, escape: bool) -> str:
    text = one_line(cell.text)
    text = re.sub(r"([\\`*<>|])", r"\\\1", text) if escape else text
    return f"**{text}**" if cell.bold else text


def _markdown_lines(
    texts: Sequence[Sequence[str]],
    widths: Sequence[int],
    columns: Sequence[int],
    is_left: Sequence[bool],
) -> Iterator[str]:
    """Yield the lines of some columns, each aligned to the left or to the right."""
    for number, line in enumerate(texts):
        cells = [
            line[column].ljust(widths[column])
            if is_left[column]
            else line[column].rjust(widths[column])
            for column in columns
        ]
        yield "| " + " | ".join(cells) + " |"
        if number == 0:
            ends = ("-" if is_left[column] else ":" for column in columns)
            rule = [
                "-" * (widths[column] + 1) + end for column, end in zip(columns, ends, strict=True)
            ]
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
    **{mark: f"$^{n}$" for n, mark in enumerate("⁴⁵⁶⁷⁸⁹", 4)},
    "¹": "$^1$", "×": r"$\times$", "Ω": r"$\Omega$", "ρ": r"$\rho$", "δ": r"$\delta$",
    "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$", "Δ": r"$\Delta$",
}
# fmt: on
POWER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?)e([+-])0*(\d+)(?![\w.])")
MINUS = re.compile(r"(?<![\w.{^$-])-(?=\.?\d)")


def escape_latex(text: str) -> str:
    """Escape text for LaTeX, with real minus signs and powers of ten.

    Characters outside ASCII are kept, unless LATEX replaces them.
    """
    escaped = "".join(LATEX.get(letter, letter) for letter in one_line(text))
    powers = POWER.sub(_power, escaped)
    return MINUS.sub("$-$", powers)


def _power(match: re.Match) -> str:
    number, sign, exponent = match.groups()
    return rf"${number}\times10^{{{sign.strip('+')}{exponent}}}$"


def latex_table(
    caption: str, name: str, lines: Sequence[Line], words: Callable[[str], str] = str
) -> str:
    r"""Write lines of text, the header first, as tables of the LaTeX package booktabs.

    Columns that do not fit beside the others are in a second tabular below.
    """
    lines = [[cell._replace(text=words(cell.text)) for cell in line] for line in lines]
    widths = [max(len(line[column].text) for line in lines) for column in range(len(lines[0]))]
    tabulars = [_tabular(lines, columns) for columns in _blocks(widths, PAGE_WIDTH)]
    return latex_float(words(caption), name, "\n\n\\medskip\n".join(tabulars))


def latex_float(caption: str, name: str, tabulars: str) -> str:
    r"""Put tabulars into a table with a caption and a label."""
    return rf"""\begin{{table}}
\centering
\footnotesize
\caption{{{escape_latex(caption)}}}
\label{{tab:{name}}}
{tabulars}
\end{{table}}"""


def _tabular(lines: Sequence[Line], columns: Sequence[int]) -> str:
    first, *rest = [[line[column] for column in columns] for line in lines]
    header = [cell._replace(text=cell.text[:1].upper() + cell.text[1:]) for cell in first]
    return latex_tabular(
        "l" + "r" * (len(columns) - 1), header, [latex_line(line) for line in rest]
    )


def latex_tabular(columns: str, header: Line, body: Iterable[str]) -> str:
    """Write a tabular.

    Args:
        columns: the alignment of each column, such as `lrr`.
        header: the cells of the header.
        body: the lines below it, in LaTeX.
    """
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            *(r"\toprule", latex_line(header), r"\midrule"),
            *body,
            *(r"\bottomrule", r"\end{tabular}"),
        ]
    )


def latex_line(line: Line) -> str:
    """Write a line of a tabular."""
    return " & ".join(map(_latex_cell, line)) + r" \\"


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
