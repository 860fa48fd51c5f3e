"""Lines of text -> Markdown, LaTeX and CSV, whatever they are about; a Section is several tables about one question."""

import csv
import io
import re
from typing import NamedTuple

PAGE = 100  # letters of \footnotesize, gaps included, that the width of a page holds


class Text(NamedTuple):
    text: str
    bold: bool = False


class Block(NamedTuple):
    """One table of a section."""

    title: str
    name: str  # as a label: letters, digits and _.+=-
    lines: list[list[Text]]  # header first


class Section(NamedTuple):
    """A part of the document that is about one question, and a CSV of its own."""

    name: str  # of the CSV
    heading: str
    said: str  # how to read it
    blocks: tuple[Block, ...]
    records: list[dict]  # lines of the CSV, in full precision; none: no CSV


def section_markdown(section: Section, width: int | None = None) -> str:
    blocks = [f"### {block.title}\n\n{aligned(block.lines, width)}" for block in section.blocks]
    return "\n\n".join([f"## {section.heading}", section.said, *blocks])


def section_latex(section: Section) -> list[str]:
    return [
        latex_table(
            f"{section.heading}. {block.title}.", f"{section.name}-{block.name}", block.lines
        )
        for block in section.blocks
    ]


def one_line(text: str) -> str:
    """Text from a file made harmless for a table and a terminal: one line, nothing that does not print."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def aligned(texts_of: list[list[Text]], width: int | None) -> str:
    """Lines of text, header first, as Markdown; of a `width` in letters, for a terminal, where nothing needs escaping."""
    lines = []
    for line in texts_of:
        texts = [one_line(text) for text, _ in line]
        texts = texts if width else [re.sub(r"([\\`*<>|])", r"\\\1", text) for text in texts]
        lines.append(
            [f"**{text}**" if bold else text for text, (_, bold) in zip(texts, line, strict=True)]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n\n".join(
        "\n".join(
            [
                _markdown_line(lines[0], widths, columns),
                "|"
                + "|".join(
                    "-" * (widths[column] + 1) + (":" if column else "-") for column in columns
                )
                + "|",
                *(_markdown_line(line, widths, columns) for line in lines[1:]),
            ]
        )
        for columns in _blocks(widths, width)
    )


def _markdown_line(line: list[str], widths: list[int], columns: list[int]) -> str:
    cells = [
        line[column].rjust(widths[column]) if column else line[0].ljust(widths[0])
        for column in columns
    ]
    return "| " + " | ".join(cells) + " |"


def _blocks(widths: list[int], width: int | None) -> list[list[int]]:
    """Columns in blocks that fit into `width`, the first column in each."""
    blocks = [[0]]
    for column in range(1, len(widths)):
        needed = sum(widths[other] + 3 for other in [*blocks[-1], column]) + 1
        if width and needed > width and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(column)
    return blocks


# fmt: off
LATEX = {letter: "\\" + letter for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$",
    "±": r"$\pm$", "–": "--", "Å": r"\AA{}", "µ": r"$\mu$", "μ": r"$\mu$", "°": r"\textdegree{}", "·": r"$\cdot$",
    "²": "$^2$", "³": "$^3$", "⁻": "$^-$", "¹": "$^1$", "×": r"$\times$", "Ω": r"$\Omega$", "ρ": r"$\rho$", "δ": r"$\delta$",
}
# fmt: on


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands. Letters outside ASCII and the table above are left to the engine."""
    return "".join(LATEX.get(letter, letter) for letter in one_line(text))


def latex_table(caption: str, name: str, lines: list[list[Text]]) -> str:
    r"""Lines of text, header first, in booktabs' style, in blocks of columns below each other."""
    widths = [max(len(line[column].text) for line in lines) for column in range(len(lines[0]))]
    tabulars = "\n\n\\medskip\n".join(_tabular(lines, columns) for columns in _blocks(widths, PAGE))
    return rf"""\begin{{table}}
\centering
\footnotesize
\caption{{{escape_latex(caption)}}}
\label{{tab:{name}}}
{tabulars}
\end{{table}}"""


def _tabular(lines: list[list[Text]], columns: list[int]) -> str:
    header, *body = [
        " & ".join(_latex_cell(line[column]) for column in columns) + r" \\" for line in lines
    ]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}"
    return "\n".join(
        [begin, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    )


def _latex_cell(cell: Text) -> str:
    return rf"\textbf{{{escape_latex(cell.text)}}}" if cell.bold else escape_latex(cell.text)


def csv_text(lines: list[dict]) -> str:
    """Lines of one kind as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0].keys() if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _inert(value: object) -> object:
    """A spreadsheet takes text that begins with = + - @ for a formula; numbers are left as they are."""
    return (
        "'" + value
        if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
        else value
    )
