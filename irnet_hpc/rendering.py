"""A Table as Markdown, as LaTeX and as lines of a tidy CSV. What is rounded here is rounded for reading only."""

import csv
import io
import re
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from irnet_hpc.runs import model_name
from irnet_hpc.tables import BestClassical, Cell, Row, Table

HOW_TO_READ = (
    "Test MAE, mean ± sd over seeds (n seeds), the best of a row in bold. baseline: the train median predicted for every "
    "row. irnet vs plain: by how many per cent IRNet's MAE is below plain's at that depth."
)

HOW_TO_READ_CLASSICAL = (
    "best classical: of the classical models on the same rows, the one of least MAE on val, never on test (under protocol "
    "paper, which has no val, by the val MAE of its honest cells), and its test MAE. irnet vs classical: by how many per "
    "cent IRNet's MAE is below it."
)

HOW_TO_READ_JOINT = (
    "one network for several properties: trained on the rows that report at least one, selected by the mean of the errors "
    "relative to the sd of the training targets. vs one each: by how many per cent the MAE is below that of the same model "
    "trained for the property alone, over the seeds both have."
)

PAGE = 100  # letters of \footnotesize, gaps included, that the width of a page holds


class Text(NamedTuple):
    text: str
    bold: bool = False


def row_format(row: Row) -> str:
    """The format of all numbers of a row, which are there to be compared: two digits of the median sd over seeds decide
    the places behind the point, at most five digits of the least MAE, and four of it where no cell has a sd."""
    least = min(cell.mae for cell in row.cells if cell)
    sds = [cell.sd for cell in row.cells if cell and cell.sd]
    if not 1e-4 <= least < 1e6:
        return ".3e"
    return f".{min(_decimals(median(sds), 2), _decimals(least, 5)) if sds else _decimals(least, 4)}f"


def _decimals(value: float, digits: int) -> int:
    """Places behind the point that show `value` with so many significant digits."""
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 0.0996 is 0.10
    return max(0, digits - 1 - exponent)


def cell_text(cell: Cell | BestClassical, form: str) -> str:
    spread = "" if cell.sd is None else f" ± {cell.sd:{form}}"
    return f"{cell.mae:{form}}{spread} (n={len(cell.seeds)})"


def grid(table: Table) -> list[list[Text]]:
    """The table as text, header first: property, baseline, a column a model, a column a compared depth."""
    depths = table.compared_depths
    irnets = [depth for architecture, depth in table.models if architecture == "irnet" and table.has_classical]
    header = ["property", "baseline"] + (["best classical"] if table.has_classical else [])
    header += [model_name(*model) for model in table.models]
    header += [f"irnet vs plain, {depth}" for depth in depths]
    header += [f"irnet vs classical, {depth}" for depth in irnets]
    header += [f"{model_name(*model)} vs one each" for model in table.compared_with_single]
    lines = [[Text(text) for text in header]]
    for row in table.rows:
        form = row_format(row)
        line = [Text(f"{row.property} ({row.unit})"), Text(f"{row.baseline:{form}}", row.baseline_best)]
        if table.has_classical:
            theirs = row.best_classical
            line.append(Text(f"{theirs.model} {cell_text(theirs, form)}", theirs.best) if theirs else Text("–"))
        line += [Text(cell_text(cell, form), cell.best) if cell else Text("–") for cell in row.cells]
        for depth in depths:
            plain, irnet = table.cell(row, "plain", depth), table.cell(row, "irnet", depth)
            both = plain and irnet and irnet.improvement is not None
            line.append(Text(f"{irnet.improvement:+.1f} %" if both else "–"))
        for depth in irnets:
            irnet = table.cell(row, "irnet", depth)
            known = irnet and irnet.improvement_over_classical is not None
            line.append(Text(f"{irnet.improvement_over_classical:+.1f} %" if known else "–"))
        for model in table.compared_with_single:
            cell = table.cell(row, *model)
            known = cell and cell.improvement_over_single is not None
            line.append(Text(f"{cell.improvement_over_single:+.1f} %" if known else "–"))
        lines.append(line)
    return lines


def one_line(text: str) -> str:
    """Text from a file made harmless for a table and a terminal: one line, nothing that does not print."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def markdown(table: Table, width: int | None = None) -> str:
    """The table as aligned Markdown; where a `width` in letters is given, columns that go beyond it follow below."""
    return aligned(grid(table), width)


def aligned(texts_of: list[list[Text]], width: int | None) -> str:
    """Lines of text, header first, as Markdown."""
    lines = []
    for line in texts_of:
        texts = [re.sub(r"([\\`*<>|])", r"\\\1", one_line(text)) for text, _ in line]
        lines.append([f"**{text}**" if bold else text for text, (_, bold) in zip(texts, line, strict=True)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n\n".join(
        "\n".join(
            [
                _markdown_line(lines[0], widths, columns),
                "|" + "|".join("-" * (widths[column] + 1) + (":" if column else "-") for column in columns) + "|",
                *(_markdown_line(line, widths, columns) for line in lines[1:]),
            ]
        )
        for columns in _blocks(widths, width)
    )


def _markdown_line(line: list[str], widths: list[int], columns: list[int]) -> str:
    cells = [line[column].rjust(widths[column]) if column else line[0].ljust(widths[0]) for column in columns]
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


def latex(table: Table) -> str:
    r"""The table in booktabs' style, in blocks of columns below each other; the preamble needs `\usepackage{booktabs}`."""
    lines = grid(table)
    widths = [max(len(line[column].text) for line in lines) for column in range(len(lines[0]))]
    tabulars = "\n\n\\medskip\n".join(_tabular(lines, columns) for columns in _blocks(widths, PAGE))
    return rf"""\begin{{table}}
\centering
\footnotesize
\caption{{{escape_latex(f"Test MAE. {table.title}.")}}}
\label{{tab:{table.name}}}
{tabulars}
\end{{table}}"""


def _tabular(lines: list[list[Text]], columns: list[int]) -> str:
    header, *body = [" & ".join(_latex_cell(line[column]) for column in columns) + r" \\" for line in lines]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}"
    return "\n".join([begin, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def _latex_cell(cell: Text) -> str:
    return rf"\textbf{{{escape_latex(cell.text)}}}" if cell.bold else escape_latex(cell.text)


def tidy_csv(tables: Iterable[Table]) -> str:
    """All tables as one CSV, a line a cell, numbers in full precision; errors in `unit`, improvement in per cent."""
    tables = list(tables)
    with_classical, with_joint = any(table.has_classical for table in tables), any(table.joint for table in tables)
    lines = [
        {
            "pack": table.pack,
            "property": row.property,
            "model": model_name(architecture, depth),
            "architecture": architecture,
            "depth": depth,
            "recipe": table.recipe,
            "protocol": table.protocol,
            "selected_on": table.selected_on,
            "train_rows": table.train_rows,
            "start_from": table.start_from,
            "n_train": row.n_train,
            "n_val": row.n_val,
            "n_test": row.n_test,
            "unit": row.unit,
            "test_mae_mean": cell.mae,
            "test_mae_sd": cell.sd,
            "n_seeds": len(cell.seeds),
            "seeds": " ".join(map(str, cell.seeds)),
            "baseline_mae": row.baseline,
            "improvement_over_plain": cell.improvement,
            "best": int(cell.best),
            "n_parameters": cell.n_parameters,
            "device_hours": cell.device_hours,
        }
        | (_classical_columns(row, cell) if with_classical else {})
        | ({"joint": table.joint, "improvement_over_single": cell.improvement_over_single} if with_joint else {})
        for table in tables
        for row in table.rows
        for (architecture, depth), cell in zip(table.models, row.cells, strict=True)
        if cell
    ]
    return csv_text(lines)


def _classical_columns(row: Row, cell: Cell) -> dict:
    theirs = row.best_classical
    return {
        "best_classical": theirs and theirs.model,
        "best_classical_mae": theirs and theirs.mae,
        "improvement_over_classical": cell.improvement_over_classical,
    }


def csv_text(lines: list[dict]) -> str:
    """Lines of one kind as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0].keys() if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _inert(value: object) -> object:
    """A spreadsheet takes text that begins with = + - @ for a formula; numbers are left as they are."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
