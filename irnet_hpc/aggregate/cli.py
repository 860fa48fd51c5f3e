"""Make tables and figures of all results below a folder; the names of subfolders do not matter.

python -m irnet_hpc.aggregate                                   all results below results/
python -m irnet_hpc.aggregate results/ --matrix jobs/full.yaml  also list cells without a result
python -m irnet_hpc.aggregate results/ --html report.html       also write one page with everything
python -m irnet_hpc.aggregate results/ --importance             also measure which features matter
python -m irnet_hpc.aggregate results/ --matbench official/     also write Matbench's result files
python -m irnet_hpc.aggregate results/ --tables paper/tables    write tables and figures there
python -m irnet_hpc.aggregate results/ --all                    print everything, not one screen
python -m irnet_hpc.aggregate results/ --json                   print JSON; other lines to stderr
"""

import argparse
import importlib.util
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.console import CommandParser, command_parser, json_answer

if TYPE_CHECKING:
    from irnet_hpc.aggregate.report import Report

NOT_WRAPPED = sys.maxsize  # the width of everything in a pipe, in characters
WIDTH = 100  # characters of the one screen where there is no terminal to ask
MAX_NOTE_LINES = 20  # of each note on the screen; mae.md has all lines


def main() -> None:
    """Run the command `aggregate`."""
    arguments = parser().parse_args()
    with json_answer(arguments.json) as answer:
        aggregate(arguments, answer)


def aggregate(arguments: argparse.Namespace, answer: Callable[[object], None]) -> None:
    """Make and write the tables; print the tables and the paths of their files."""
    # Imported here, so that --help does not wait for it.
    from irnet_hpc.aggregate.report import make_tables
    from irnet_hpc.aggregate.screen import screen, written_lines

    report = make_tables(
        arguments.results,
        matrix=arguments.matrix,
        diagnose=bool(arguments.html),
        importance=arguments.importance,
        pack_dir=arguments.pack_dir,
    )
    if arguments.matbench:
        # Imported only now: it needs numpy, and the tables do not.
        from irnet_hpc.aggregate.matbench.files import plan_matbench, write_matbench

        # Before anything is written, so that missing folds cost no time.
        plan = plan_matbench(report.findings.tasks)
    folder = arguments.tables or arguments.results / "tables"
    tables, lines = report.write_tables(folder), []
    try:
        tables += report.write_figures(folder)
    except ImportError as error:
        lines.append(f"the figures are left out, since they need matplotlib: {error}")
    files = list(tables)
    if arguments.html:
        files.append(report.write_page(arguments.html))
        n_bytes = arguments.html.stat().st_size
        lines.append(f"wrote {arguments.html} ({n_bytes / 1e6:.1f} MB)")
        if importlib.util.find_spec("bokeh") is None:
            lines.append(
                "the page has plain figures; pip install 'irnet_hpc[charts]' adds interactive ones"
            )
    official = write_matbench(plan, arguments.matbench) if arguments.matbench else []
    if official:
        files += [file.path for file in official]
        lines += [file.line for file in official]
        lines += [f"not in a result file of Matbench: {text}" for text in plan.lacking]
    # Printed last, since a pipe that closes early (`aggregate | head`) ends the program.
    # Text for people is not escaped, also in a pipe or a log; mae.md is for programs.
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    if arguments.all:
        print(report.markdown(width if sys.stdout.isatty() else NOT_WRAPPED, MAX_NOTE_LINES))
    else:
        print(screen(report, width), end="\n\n")
        lines.append(f"{folder / 'mae.md'} has everything; so has --all")
    steps = next_steps(report, arguments.results, arguments.html)
    lines = [*written_lines(tables, width), *lines]
    print("\n".join([*lines, *(f"next: {step}" for step in steps)]))
    findings = report.findings
    answer(
        {
            "tables": [
                {"title": table.title, "name": table.name, "n_properties": len(table.rows)}
                for table in report.tables
            ],
            "files": [str(path) for path in files],
            "best": [
                {
                    "dataset": task.dataset,
                    "property": task.property,
                    "unit": task.unit,
                    "model": str(task.best.model),
                    "test_mae_mean": task.best.score.mae,
                    "n_runs": task.best.score.n,
                }
                for task in findings.tasks
            ],
            "html": arguments.html and str(arguments.html),
            "matbench": [
                {
                    "file": str(file.path),
                    "algorithm": file.algorithm.label,
                    "scores": [score._asdict() for score in file.scores],
                }
                for file in official
            ],
            "cells": {
                "done": len({one.folder for run in findings.runs for one in run.folds or (run,)}),
                **Counter(gap.state for gap in findings.gaps.values()),
            },
            "next": steps,
        }
    )


def next_steps(report: "Report", results: Path, page: Path | None) -> list[str]:
    """Suggest commands for what to do next with the results."""
    name = shlex.quote(str(page or "report.html"))
    below = shlex.quote(str(results))
    steps = [
        f"python -m webbrowser {name}"
        if page
        else f"python -m irnet_hpc.aggregate {below} --html {name}"
    ]
    # `predict --best` chooses by val MAE among the runs that have kept their models.
    specs = [
        run.spec
        for run in report.findings.runs
        if run.keeps_model and run.result.val_mae is not None
    ]
    if specs:
        options = f"--best {specs[0].properties[0]}"
        options += f" --pack {specs[0].pack}" if len({spec.pack for spec in specs}) > 1 else ""
        options += "" if results == Path("results") else f" --results {below}"
        steps.append(f"python -m irnet_hpc.predict {options} formulas.csv -o predictions.csv")
    return steps


def parser() -> CommandParser:
    """Make the parser of the command line."""
    parser = command_parser("aggregate", __doc__)
    parser.add_argument(
        "results",
        nargs="?",
        type=Path,
        default=Path("results"),
        help="folder of runs (default: results)",
    )
    parser.add_argument(
        "--matrix", type=Path, help="jobs/*.yaml: also list the cells without a result, and why"
    )
    parser.add_argument(
        "--tables", type=Path, metavar="DIR", help="folder to write to (default: RESULTS/tables)"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write one page with everything"
    )
    parser.add_argument(
        "--matbench",
        type=Path,
        metavar="DIR",
        help="also write Matbench's official result files there, recorded and scored by its own "
        "package, which pip installs in an environment of its own (0.4 GB, once)",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="print all tables, sections and notes, instead of one screen",
    )
    parser.add_argument(
        "--importance",
        action="store_true",
        help="also measure which features the best models of each task rely on (needs their packs)",
    )
    parser.add_argument(
        "--pack-dir",
        metavar="DIR",
        help="folder of the packs, for --importance (default: $IRNET_PACKS, else packs)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object at the end, for programs; other lines go to stderr",
    )
    return parser
