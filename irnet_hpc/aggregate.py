"""Results -> tables and figures: every result.json below a folder, whatever the folders are called.

python -m irnet_hpc.aggregate                                   what is below results/
python -m irnet_hpc.aggregate results/ --matrix jobs/full.yaml  and which cells of the matrix have no result
python -m irnet_hpc.aggregate results/ --tables paper/tables    mae.md, mae.csv, mae.tex, a CSV a section, figures
"""

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.curves import convergence
from irnet_hpc.differences import differences_section
from irnet_hpc.ensembles import ensembles_section, with_ensembles
from irnet_hpc.errors import UserError, exit_status
from irnet_hpc.files import write_text
from irnet_hpc.grouping import content_hash, splits_of_one, with_changed_origin
from irnet_hpc.optimism import optimism_section
from irnet_hpc.published import published_csv, published_markdown
from irnet_hpc.rendering import (
    HOW_TO_READ,
    HOW_TO_READ_CLASSICAL,
    HOW_TO_READ_JOINT,
    HOW_TO_READ_SPLITS,
    latex,
    markdown,
    tidy_csv,
)
from irnet_hpc.report import write_figures
from irnet_hpc.results import Gap, Run, collect
from irnet_hpc.series import Series, chemistry_section, chemistry_series, size_section, size_series
from irnet_hpc.tables import Table, tabulate
from irnet_hpc.typeset import Section, csv_text, one_line, section_latex, section_markdown

SHOWN = 20  # lines of a note on the screen; the Markdown file has all


class Note(NamedTuple):
    """A part of the footer: a heading, and the cells or names that it is about."""

    heading: str
    lines: tuple[str, ...] = ()


def main() -> None:
    arguments = parse_arguments()
    runs, gaps = collect(arguments.results)
    notes = ask_ledger(arguments.matrix, arguments.results, gaps) if arguments.matrix else []
    notes += footer(gaps)
    if not runs:
        raise UserError(nothing_done(arguments.results, gaps))
    problems: dict[Path, str] = {}  # what predictions and histories cannot be read
    tables = with_ensembles(tabulate(runs), problems)
    sizes, trainings = size_series(tables), convergence(tables, problems)
    sections = sections_of(tables, sizes, problems)
    notes += [*legend(runs, tables), *unread(problems)]
    folder = arguments.tables or arguments.results / "tables"
    said = write(folder, tables, sections, document(tables, notes, sections=sections))
    try:
        said += [f"wrote {path}" for path in write_figures(tables, folder, sizes, trainings)]
    except ImportError as error:
        said.append(f"no figure, for the tables need no matplotlib but it does: {error}")
    # Shown when all is written, for whoever looks at the first lines only (`aggregate | head`) ends the program there.
    terminal = sys.stdout.isatty()
    print(document(tables, notes, shutil.get_terminal_size().columns if terminal else None, SHOWN, sections))
    print("\n".join(said))


def sections_of(tables: Sequence[Table], sizes: Sequence[Series], problems: dict[Path, str]) -> tuple[Section, ...]:
    """What is asked of several tables, or of one in another way; a section that has nothing to say is left out. `problems`
    gets a sentence for each run whose predictions were wanted and cannot be read."""
    found = (
        ensembles_section(tables),
        differences_section(tables, problems),
        size_section(sizes),
        chemistry_section(chemistry_series(tables)),
        optimism_section(tables),
    )
    return tuple(section for section in found if section.blocks)


def write(folder: Path, tables: Sequence[Table], sections: Sequence[Section], text: str) -> list[str]:
    """Everything but figures into `folder`; returns a line for each file."""
    write_text(folder / "mae.md", text)
    write_text(folder / "mae.csv", tidy_csv(tables))
    tex = [latex(table) for table in tables] + [text for section in sections for text in section_latex(section)]
    write_text(folder / "mae.tex", "\n\n".join(["% needs \\usepackage{booktabs}", *tex]) + "\n")
    said = [f"wrote {folder / 'mae'}.md, .csv and .tex"]
    others = {"published": published_csv(tables)}
    others |= {section.name: csv_text(section.records) for section in sections if section.records}
    for name, lines in others.items():
        if lines:
            write_text(folder / f"{name}.csv", lines)
            said.append(f"wrote {folder / name}.csv")
    return said


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m irnet_hpc.aggregate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--matrix", type=Path, help="jobs/*.yaml: say which of its cells have no result, and why")
    parser.add_argument("--tables", type=Path, metavar="DIR", help="where to write; default: RESULTS/tables")
    return parser.parse_args()


def ask_ledger(matrix_path: Path, results: Path, gaps: dict[Path, Gap]) -> list[Note]:
    """Add the cells of a matrix that have no result of their own, or one that is stale, to `gaps`."""
    from irnet_hpc.ledger import read_ledger  # here, since a matrix opens packs, and tables need no HDF5
    from irnet_hpc.matrix import read_matrix

    matrix = read_matrix(matrix_path)
    ledger = read_ledger(matrix, results)
    for entry in ledger.entries:
        if entry.state == "missing":
            gaps.setdefault(
                entry.folder, Gap("not run", spec=entry.cell.spec)
            )  # run.json may be there, of a run that no sweep has started
        elif entry.state != "done":
            gaps[entry.folder] = Gap(entry.state, entry.detail, entry.cell.spec)
    dropped = tuple(f"{dropped.product}: {dropped.reason}" for dropped in matrix.dropped)
    notes = [Note(f"{matrix_path}: {ledger.counts()['done']} of {len(ledger.entries)} cells are done")]
    notes += [Note(one_line(text)) for text in (*matrix.notes, *ledger.notes)]
    return [*notes, Note("products that do not exist", dropped)] if dropped else notes


def footer(gaps: dict[Path, Gap]) -> list[Note]:
    """What is missing and why, by state, in the order of the folders."""
    by_state = defaultdict(list)
    for folder, gap in sorted(gaps.items()):
        by_state[gap.state].append(one_line(f"{folder}: {gap.why}" if gap.why else str(folder)))
    return [Note(state, tuple(by_state[state])) for state in sorted(by_state)]


def nothing_done(results: Path, gaps: dict[Path, Gap]) -> str:
    """Why there is no table, in one sentence."""
    counts = [f"{len(note.lines)} {note.heading} (e.g. {note.lines[0]})" for note in footer(gaps)]
    return f"no finished run below {results}: " + ("; ".join(counts) or "it holds no run folder")


def legend(runs: Sequence[Run], tables: Iterable[Table]) -> list[Note]:
    """What names in the tables stand for, where they do not say it themselves."""
    custom = {f"{run.spec.model}: {run.spec.layers}" for run in runs if run.spec.layers}
    stale = {table.recipe for table in tables if table.recipe.endswith("(stale)")}
    recipes = defaultdict(list)  # name -> contents
    fewer = set()
    for run in runs:
        spec, result = run.spec, run.result
        if spec.is_classical:  # each has a grid of its own
            if (result.fitted_rows or result.n_train) < result.n_train:
                rows = f"the first {result.fitted_rows:,} of {result.n_train:,} training rows"
                fewer.add(f"{spec.model} on {spec.pack}, {spec.property}: {rows}")
        elif result.recipe not in recipes[spec.recipe]:
            recipes[spec.recipe].append(result.recipe)
    several = {
        f"{name}#{content_hash(recipe)}: {_differences(recipe, contents)}"
        for name, contents in recipes.items()
        for recipe in contents
        if len(contents) > 1
    }
    unknown = sorted(
        {
            str(run.folder)
            for run in runs
            if run.spec.start_from and (run.result.origin or {}).get("n_shared_test") is None
        }
    )
    changed = {str(run.folder) for run in with_changed_origin(runs)}
    unlike = [
        f"{', '.join(splits.packs)}: {', '.join(splits.differing)}"
        for splits in splits_of_one(runs)
        if splits.differing
    ]
    notes = (
        Note("layer strings", tuple(sorted(custom))),
        Note("recipes of one name and different content, each in a table of its own", tuple(sorted(several))),
        Note("fitted on fewer rows, all that the model can take in reasonable time", tuple(sorted(fewer))),
        Note("packs named as splits of one that differ in more than the seed, so not merged", tuple(unlike)),
        Note("started from a run of which it is not known whether it has seen test formulas", tuple(unknown)),
        Note("started from a run that has since been trained otherwise", tuple(sorted(changed))),
        Note("stale: trained with a recipe or a trainer that has since changed", tuple(sorted(stale))),
    )
    return [note for note in notes if note.lines]


def unread(problems: dict[Path, str]) -> list[Note]:
    """The runs whose predictions or history were wanted."""
    lines = tuple(one_line(problems[path]) for path in sorted(problems))
    return [Note("predictions or histories left out of what is made of them", lines)] if lines else []


def _differences(recipe: dict, contents: Sequence[dict]) -> str:
    """The fields of a recipe that are not the same in all of `contents`."""
    fields = [name for name in recipe if any(other.get(name) != recipe[name] for other in contents)]
    return ", ".join(f"{name} {recipe[name]}" for name in fields)


def document(
    tables: Sequence[Table],
    notes: Sequence[Note],
    width: int | None = None,
    most: int | None = None,
    sections: Sequence[Section] = (),
) -> str:
    """All tables, sections and the footer as Markdown; at most `most` lines of a note."""
    parts = []
    for table in tables:
        parts.append(f"## {table.title}\n\n{markdown(table, width)}")
        parts += [text] if (text := published_markdown(table, width)) else []
    parts.append(HOW_TO_READ)
    parts += [HOW_TO_READ_CLASSICAL] if any(table.has_classical for table in tables) else []
    parts += [HOW_TO_READ_JOINT] if any(table.joint for table in tables) else []
    parts += [HOW_TO_READ_SPLITS] if any(len(table.splits) > 1 for table in tables) else []
    parts += [section_markdown(section, width) for section in sections]
    parts += ["## Notes"] if sections and notes else []
    for note in notes:
        lines = [f"- {line}" for line in note.lines[:most]]
        lines += [f"- and {len(note.lines) - most} more, all in mae.md"] if most and len(note.lines) > most else []
        parts.append("\n".join([f"{note.heading} ({len(note.lines)}):", "", *lines] if lines else [f"{note.heading}."]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
