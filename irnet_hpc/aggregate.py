"""Results -> tables and figures: every result.json below a folder, whatever the folders are called.

python -m irnet_hpc.aggregate                                   what is below results/
python -m irnet_hpc.aggregate results/ --matrix jobs/full.yaml  and which cells of the matrix have no result
python -m irnet_hpc.aggregate results/ --tables paper/tables    mae.md, mae.csv, mae.tex and figures there
"""

import argparse
import contextlib
import dataclasses
import math
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.errors import UserError, exit_status
from irnet_hpc.files import read_json, write_text
from irnet_hpc.published import published_csv, published_markdown
from irnet_hpc.rendering import (
    HOW_TO_READ,
    HOW_TO_READ_CLASSICAL,
    HOW_TO_READ_JOINT,
    latex,
    markdown,
    one_line,
    tidy_csv,
)
from irnet_hpc.report import write_figures
from irnet_hpc.runs import RunResult, RunSpec, read_recipe, read_result, read_spec
from irnet_hpc.tables import Run, Table, content_hash, tabulate

MAY_BE_NONE = ("n_parameters", "val_mae", "fitted_rows")  # numbers that not every result has
PER_PROPERTY = {  # of a result of several properties, what each has
    *("unit", "test_mae", "test_rmse", "test_r2", "val_mae", "baseline_mae", "n_train", "n_val", "n_test"),
}
SHOWN = 20  # lines of a note on the screen; the Markdown file has all


class Note(NamedTuple):
    """A part of the footer: a heading, and the cells or names that it is about."""

    heading: str
    lines: tuple[str, ...] = ()


class Gap(NamedTuple):
    """A cell that a table does not hold, or holds with a reservation."""

    state: str
    why: str = ""


def main() -> None:
    arguments = parse_arguments()
    runs, gaps = collect(arguments.results)
    notes = ask_ledger(arguments.matrix, arguments.results, gaps) if arguments.matrix else []
    notes += footer(gaps)
    if not runs:
        raise UserError(nothing_done(arguments.results, gaps))
    tables = tabulate(runs)
    notes += legend(runs, tables)
    terminal = sys.stdout.isatty()
    print(document(tables, notes, shutil.get_terminal_size().columns if terminal else None, SHOWN))
    folder = arguments.tables or arguments.results / "tables"
    write_text(folder / "mae.md", document(tables, notes))
    write_text(folder / "mae.csv", tidy_csv(tables))
    write_text(folder / "mae.tex", "\n\n".join(["% needs \\usepackage{booktabs}", *map(latex, tables)]) + "\n")
    print(f"wrote {folder / 'mae'}.md, .csv and .tex")
    if published := published_csv(tables):
        write_text(folder / "published.csv", published)
        print(f"wrote {folder / 'published.csv'}")
    try:
        figures = write_figures(tables, folder)
    except ImportError as error:
        print(f"no figure, for the tables need no matplotlib but it does: {error}")
    else:
        for path in figures:
            print(f"wrote {path}")


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


def collect(results: Path) -> tuple[list[Run], dict[Path, Gap]]:
    """Read every result below `results`; the folders that have none, or none that can be read, come back as gaps."""
    if not results.is_dir():
        raise UserError(f"{results} is not a folder; give the one that train and sweep write their runs to")
    runs, gaps = [], {}
    for folder, names in _folders(results):
        if "result.json" in names:
            try:
                result = read_result(folder / "result.json")
                spec = _checked_spec(folder, result)
                with contextlib.suppress(UserError):  # of fields that recipes no longer have; it is shown as stale
                    result = dataclasses.replace(result, recipe=dataclasses.asdict(read_recipe(spec, result.recipe)))
                runs.append(Run(folder, spec, result))
            except (UserError, OSError) as error:
                gaps[folder] = Gap("unreadable, and left out", str(error))
        elif "error.json" in names:
            gaps[folder] = Gap("failed", _sentence(folder / "error.json"))
        elif "run.json" in names:
            gaps[folder] = Gap("running, or interrupted")
    return runs, gaps


def _folders(top: Path) -> Iterator[tuple[Path, set[str]]]:
    """Each folder below `top` with its files' names, in order; links are followed, each real folder is seen once."""
    seen = set()
    for folder, below, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            yield Path(folder), set(names)
        seen.add(real)


def _checked_spec(folder: Path, result: RunResult) -> RunSpec:
    """The specification of a result whose numbers can be counted on. Raises UserError where they cannot."""
    for name, kind in (("spec", dict), ("recipe", dict), ("pack_identity", dict), ("unit", str), ("key", str)):
        if not isinstance(getattr(result, name), kind):
            raise UserError(f"{folder / 'result.json'}: {name} must be of type {kind.__name__}")
    if not isinstance(result.origin, dict | None):
        raise UserError(f"{folder / 'result.json'}: origin must be of type dict, or null")
    try:
        for name in ("test_mae", "baseline_mae", "n_train", "n_val", "n_test", "device_hours", *MAY_BE_NONE):
            _check_number(name, getattr(result, name), may_be_none=name in MAY_BE_NONE)
        spec = result.spec
        for field in dataclasses.fields(RunSpec):
            value = spec.get(field.name)
            if field.name in spec and (isinstance(value, bool) or not isinstance(value, field.type)):
                kind = getattr(field.type, "__name__", field.type)
                raise UserError(f"{field.name} must be of type {kind}, however: {value!r}")
        spec = read_spec(spec)
        _check_per_property(spec.properties, result.per_property)
        return spec
    except UserError as error:
        raise UserError(f"{folder / 'result.json'}: {error}") from None


def _check_per_property(names: Sequence[str], per_property: object) -> None:
    """Of several properties each has its own numbers; of one there is nothing to say."""
    if len(names) == 1 and per_property is None:
        return
    if not isinstance(per_property, dict) or len(names) == 1 or per_property.keys() != set(names):
        raise UserError(f"per_property must be of {', '.join(names)}, and null for one, however: {per_property!r:.80}")
    for name, of in per_property.items():
        if not isinstance(of, dict) or of.keys() != PER_PROPERTY or not isinstance(of["unit"], str):
            raise UserError(f"per_property of {name} must have {', '.join(sorted(PER_PROPERTY))}, however: {of!r:.80}")
        for field in PER_PROPERTY - {"unit", "test_r2"}:
            _check_number(f"{field} of {name}", of[field], may_be_none=field == "val_mae")


def _check_number(name: str, value: object, may_be_none: bool) -> None:
    if value is None and may_be_none:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"{name} must be a number that is not negative, however: {value!r}")


def _sentence(path: Path) -> str:
    """What a failed run said."""
    try:
        return str(read_json(path)["error"])
    except (UserError, OSError, KeyError) as error:
        return f"its error.json cannot be read ({error})"


def ask_ledger(matrix_path: Path, results: Path, gaps: dict[Path, Gap]) -> list[Note]:
    """Add the cells of a matrix that have no result of their own, or one that is stale, to `gaps`."""
    from irnet_hpc.ledger import read_ledger  # here, since a matrix opens packs, and tables need no HDF5
    from irnet_hpc.matrix import read_matrix

    matrix = read_matrix(matrix_path)
    ledger = read_ledger(matrix, results)
    for entry in ledger.entries:
        if entry.state == "missing":
            gaps.setdefault(entry.folder, Gap("not run"))  # run.json may be there, of a run that no sweep has started
        elif entry.state != "done":
            gaps[entry.folder] = Gap(entry.state, entry.detail)
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


def legend(runs: Iterable[Run], tables: Iterable[Table]) -> list[Note]:
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
    notes = (
        Note("layer strings", tuple(sorted(custom))),
        Note("recipes of one name and different content, each in a table of its own", tuple(sorted(several))),
        Note("fitted on fewer rows, all that the model can take in reasonable time", tuple(sorted(fewer))),
        Note("stale: trained with a recipe or a trainer that has since changed", tuple(sorted(stale))),
    )
    return [note for note in notes if note.lines]


def _differences(recipe: dict, contents: Sequence[dict]) -> str:
    """The fields of a recipe that are not the same in all of `contents`."""
    fields = [name for name in recipe if any(other.get(name) != recipe[name] for other in contents)]
    return ", ".join(f"{name} {recipe[name]}" for name in fields)


def document(tables: Sequence[Table], notes: Sequence[Note], width: int | None = None, most: int | None = None) -> str:
    """All tables and the footer as Markdown; at most `most` lines of a note."""
    parts = []
    for table in tables:
        parts.append(f"## {table.title}\n\n{markdown(table, width)}")
        parts += [text] if (text := published_markdown(table, width)) else []
    parts.append(HOW_TO_READ)
    parts += [HOW_TO_READ_CLASSICAL] if any(table.has_classical for table in tables) else []
    parts += [HOW_TO_READ_JOINT] if any(table.joint for table in tables) else []
    for note in notes:
        lines = [f"- {line}" for line in note.lines[:most]]
        lines += [f"- and {len(note.lines) - most} more, all in mae.md"] if most and len(note.lines) > most else []
        parts.append("\n".join([f"{note.heading} ({len(note.lines)}):", "", *lines] if lines else [f"{note.heading}."]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
