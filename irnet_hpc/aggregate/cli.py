"""Results -> tables and figures: every result.json below a folder, whatever the folders are called.

python -m irnet_hpc.aggregate                                   what is below results/
python -m irnet_hpc.aggregate results/ --matrix jobs/full.yaml  and which cells of the matrix have no result
python -m irnet_hpc.aggregate results/ --html report.html       and one page with everything, for any browser (docs/reports.md)
python -m irnet_hpc.aggregate results/ --tables paper/tables    mae.md, .csv, .json, .tex, a CSV a section, figures
python -m irnet_hpc.aggregate results/ --json                   one object: what was written, the cells by state; lines to stderr
"""

import argparse
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from irnet_hpc.aggregate.curves import convergence
from irnet_hpc.aggregate.diagnostics import diagnoses
from irnet_hpc.aggregate.document import Note, document, exported, footer, legend, unread
from irnet_hpc.aggregate.figures import write_figures
from irnet_hpc.aggregate.formats import Section, csv_text, one_line, section_latex
from irnet_hpc.aggregate.published import published_csv
from irnet_hpc.aggregate.render import latex, tidy_csv
from irnet_hpc.aggregate.sections.cost import costs_section
from irnet_hpc.aggregate.sections.depths import depths_section
from irnet_hpc.aggregate.sections.differences import differences_section
from irnet_hpc.aggregate.sections.ensembles import ensembles_section, with_ensembles
from irnet_hpc.aggregate.sections.intervals import significance_section, with_significance
from irnet_hpc.aggregate.sections.optimism import optimism_section
from irnet_hpc.aggregate.sections.ranks import ranking_of, rankings_section
from irnet_hpc.aggregate.sections.representations import representations_section
from irnet_hpc.aggregate.sections.series import (
    Series,
    chemistry_section,
    chemistry_series,
    size_section,
    size_series,
)
from irnet_hpc.aggregate.sections.tasks import tasks_of, tasks_section
from irnet_hpc.aggregate.tables import Table, tabulate
from irnet_hpc.console import CommandParser, command_parser, json_answer
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_json, write_text
from irnet_hpc.runs.collect import FinishedRun, Gap, collect_runs
from irnet_hpc.runs.states import GapState

SHOWN = 20  # lines of a note on the screen; the Markdown file has all


def main() -> None:
    arguments = parser().parse_args()
    with json_answer(arguments.json) as answer:
        aggregate(arguments, answer)


def aggregate(arguments: argparse.Namespace, answer: Callable[[object], None]) -> None:
    """The command."""
    runs, gaps = collect_runs(arguments.results)
    notes = ask_ledger(arguments.matrix, arguments.results, gaps) if arguments.matrix else []
    notes += footer(gaps)
    if not runs:
        raise UserError(nothing_done(arguments.results, gaps))
    problems: dict[Path, str] = {}  # what predictions and histories cannot be read
    tables = with_significance(with_ensembles(tabulate(runs, gaps.values()), problems), problems)
    sizes, trainings = size_series(tables), convergence(tables, problems)
    tasks, ranking = tasks_of(tables), ranking_of(tables)
    sections = sections_of(tables, sizes, problems)
    diagnosed = diagnoses(tasks, problems) if arguments.html else ()
    notes += [*legend(runs, tables), *unread(problems)]
    folder = arguments.tables or arguments.results / "tables"
    written, figures, said = write(folder, tables, sections, notes), [], []
    try:
        figures = write_figures(tables, folder, sizes, trainings, ranking)
    except ImportError as error:
        said.append(f"no figure, for the tables need no matplotlib but it does: {error}")
    if arguments.html:
        from irnet_hpc.aggregate.page.page import (
            Findings,
            webpage,  # here, since it reads formulas, and tables need no numpy
        )

        found = Findings(
            runs, gaps, tables, sections, tasks, ranking, sizes, trainings, diagnosed, notes
        )
        try:
            write_text(arguments.html, webpage(found))
        except ImportError as error:
            raise UserError(
                f"--html draws with matplotlib, which cannot be imported ({error}); the tables are written"
            ) from None
        said.append(f"wrote {arguments.html} ({arguments.html.stat().st_size / 1e6:.1f} MB)")
    said = [*lines_of(folder, [*written, *figures]), *said]
    # Shown when all is written, for whoever looks at the first lines only (`aggregate | head`) ends the program there.
    terminal = sys.stdout.isatty()
    print(
        document(
            tables, notes, shutil.get_terminal_size().columns if terminal else None, SHOWN, sections
        )
    )
    steps = next_steps(runs, arguments)
    print("\n".join([*said, *(f"next: {step}" for step in steps)]))
    counts = Counter(gap.state for gap in gaps.values())
    answer(
        {
            "tables": [
                {"title": table.title, "name": table.name, "n_properties": len(table.rows)}
                for table in tables
            ],
            "files": [
                str(path)
                for path in (*written, *figures, *([arguments.html] if arguments.html else []))
            ],
            "html": arguments.html and str(arguments.html),
            "cells": {"done": len({run.folder for run in runs}), **counts},
            "next": steps,
        }
    )


def lines_of(folder: Path, paths: Sequence[Path]) -> list[str]:
    """What was written: a line a file, however many forms it has."""
    forms: dict[str, list[str]] = {}
    for path in paths:
        forms.setdefault(path.stem, []).append(path.suffix)
    return [
        f"wrote {folder / stem}{' and '.join(filter(None, (', '.join(of[:-1]), of[-1])))}"
        for stem, of in forms.items()
    ]


def next_steps(runs: Sequence[FinishedRun], arguments: argparse.Namespace) -> list[str]:
    """What the results are good for, in commands to type."""
    results, page = (
        shlex.quote(str(arguments.results)),
        shlex.quote(str(arguments.html or "report.html")),
    )
    open_it = f"python -m webbrowser {page}"
    steps = [
        open_it if arguments.html else f"python -m irnet_hpc.aggregate {results} --html {page}"
    ]
    # Only networks are kept, and only those that val has selected are chosen by it.
    able = [
        run.spec for run in runs if not run.spec.is_classical and run.result.val_mae is not None
    ]
    if able:
        options = f"--best {able[0].properties[0]}"
        options += f" --pack {able[0].pack}" if len({spec.pack for spec in able}) > 1 else ""
        options += "" if arguments.results == Path("results") else f" --results {results}"
        steps.append(f"python -m irnet_hpc.predict {options} formulas.csv -o predictions.csv")
    return steps


def sections_of(
    tables: Sequence[Table], sizes: Sequence[Series], problems: dict[Path, str]
) -> tuple[Section, ...]:
    """What is asked of several tables, or of one in another way; a section that has nothing to say is left out. `problems`
    gets a sentence for each run whose predictions were wanted and cannot be read."""
    tasks = tasks_of(tables)
    found = (
        depths_section(tables),
        *(
            [tasks_section(tasks)] if any(task.n_tables > 1 for task in tasks) else []
        ),  # else the one table says it
        significance_section(tables),
        ensembles_section(tables),
        differences_section(tables, problems),
        size_section(sizes),
        chemistry_section(chemistry_series(tables)),
        representations_section(tasks),
        optimism_section(tables),
        costs_section(tables),
        rankings_section(ranking_of(tables)),
    )
    return tuple(section for section in found if section.blocks)


def write(
    folder: Path, tables: Sequence[Table], sections: Sequence[Section], notes: Sequence[Note]
) -> list[Path]:
    """Everything but figures into `folder`; returns the files."""
    write_text(folder / "mae.md", document(tables, notes, sections=sections))
    write_text(folder / "mae.csv", tidy_csv(tables))
    write_json(folder / "mae.json", exported(tables, sections, notes))
    tex = [latex(table) for table in tables] + [
        text for section in sections for text in section_latex(section)
    ]
    write_text(folder / "mae.tex", "\n\n".join(["% needs \\usepackage{booktabs}", *tex]) + "\n")
    written = [folder / f"mae{suffix}" for suffix in (".md", ".csv", ".json", ".tex")]
    others = {"published": published_csv(tables)}
    others |= {section.name: csv_text(section.records) for section in sections if section.records}
    for name, lines in others.items():
        if lines:
            write_text(folder / f"{name}.csv", lines)
            written.append(folder / f"{name}.csv")
    return written


def parser() -> CommandParser:
    parser = command_parser("aggregate", __doc__)
    parser.add_argument(
        "results", nargs="?", type=Path, default=Path("results"), help="default: results"
    )
    parser.add_argument(
        "--matrix", type=Path, help="jobs/*.yaml: say which of its cells have no result, and why"
    )
    parser.add_argument(
        "--tables", type=Path, metavar="DIR", help="where to write; default: RESULTS/tables"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write one page with everything"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="one object at the end, for a program to read; lines for people to stderr",
    )
    return parser


def ask_ledger(matrix_path: Path, results: Path, gaps: dict[Path, Gap]) -> list[Note]:
    """Add the cells of a matrix that have no result of their own, or one that is stale, to `gaps`."""
    from irnet_hpc.sweep.ledger import (
        read_ledger,
    )  # here, since a matrix opens packs, and tables need no HDF5
    from irnet_hpc.sweep.matrix.matrix import read_matrix

    matrix = read_matrix(matrix_path)
    ledger = read_ledger(matrix, results)
    for entry in ledger.cells:
        if entry.state == "missing":
            gaps.setdefault(
                entry.folder, Gap(GapState.NOT_RUN, spec=entry.cell.spec)
            )  # run.json may be there, of a run that no sweep has started
        elif entry.state != "done":
            gaps[entry.folder] = Gap(GapState(entry.state), entry.detail, entry.cell.spec)
    dropped = tuple(f"{dropped.product}: {dropped.reason}" for dropped in matrix.dropped)
    notes = [
        Note(f"{matrix_path}: {ledger.counts()['done']} of {len(ledger.cells)} cells are done")
    ]
    notes += [Note(one_line(text)) for text in (*matrix.notes, *ledger.notes)]
    return [*notes, Note("products that do not exist", dropped)] if dropped else notes


def nothing_done(results: Path, gaps: dict[Path, Gap]) -> str:
    """Why there is no table, in one sentence."""
    counts = [f"{len(note.lines)} {note.heading} (e.g. {note.lines[0]})" for note in footer(gaps)]
    return f"no finished run below {results}: " + ("; ".join(counts) or "it holds no run folder")
