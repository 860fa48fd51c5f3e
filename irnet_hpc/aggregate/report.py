"""Make the report of a folder of results, and write it in all formats."""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.document import document, exported
from irnet_hpc.aggregate.findings import Findings, find
from irnet_hpc.aggregate.formats import Section, csv_text, one_line, section_latex
from irnet_hpc.aggregate.importance import measure
from irnet_hpc.aggregate.mae_table import latex, tidy_csv, tidy_records
from irnet_hpc.aggregate.model_table import model_latex, model_markdown
from irnet_hpc.aggregate.notes import Note, gap_notes, legend, problem_notes
from irnet_hpc.aggregate.published import published_csv
from irnet_hpc.aggregate.sections import SECTIONS
from irnet_hpc.aggregate.tables import Table
from irnet_hpc.aggregate.words import in_words
from irnet_hpc.errors import UserError
from irnet_hpc.files import followed, write_json, write_text
from irnet_hpc.runs.collect import Gap, collect_runs
from irnet_hpc.runs.folds import join_folds, out_of_fold_csv
from irnet_hpc.runs.state_names import CellState, GapState

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """The findings about the runs below a folder, which can be shown or written.

    Attributes:
        findings: The findings, from which the sections and the page are made.
        sections: The sections that have something to show.
        notes: Notes on missing results and on the meaning of names.
    """

    findings: Findings
    sections: Sequence[Section]
    notes: Sequence[Note]

    def __repr__(self) -> str:
        """Return one line; the default would show all findings, for example in a notebook."""
        return f"<Report of {len(self.findings.runs):,} runs in {len(self.tables):,} tables>"

    def _repr_markdown_(self) -> str:
        """Show the tables of all models in a notebook."""
        return "\n\n".join(map(model_markdown, self.findings.all_models))

    @property
    def tables(self) -> Sequence[Table]:
        """The tables: one for each pack, recipe, protocol, number of training rows and start."""
        return self.findings.tables

    def frame(self) -> "pd.DataFrame":
        """Return a DataFrame with a row for each MAE, unrounded, and the columns of mae.csv."""
        import pandas as pd

        return pd.DataFrame(list(tidy_records(self.tables)))

    def markdown(self, width: int | None = None, max_lines: int | None = None) -> str:
        """Return tables, sections and notes as Markdown.

        Args:
            width: wrap tables to this number of characters; None: do not wrap.
            max_lines: show at most this many lines of each note; None: all.
        """
        models = self.findings.all_models
        return document(self.tables, self.sections, self.notes, width, max_lines, models)

    def write(self, folder: Path | str) -> list[Path]:
        """Write the tables in all formats, and the figures.

        Without matplotlib the figures are left out, and the log says so.

        Args:
            folder: the folder to write to; it is created if it is missing.

        Returns:
            The files that were written.
        """
        files = self.write_tables(folder)
        try:
            return files + self.write_figures(folder)
        except ImportError as error:
            logging.getLogger(__name__).info(
                "the figures are left out, since they need matplotlib: %s", error
            )
            return files

    def write_tables(self, folder: Path | str) -> list[Path]:
        """Write mae.md, mae.csv, mae.json, mae.tex and a CSV for each section with numbers.

        If rows were dealt to folds, out_of_fold.csv has each model's prediction of each row.
        """
        folder = Path(folder)
        models = self.findings.all_models
        properties = frozenset(run.spec.property for run in self.findings.runs)
        words = functools.partial(in_words, properties=properties)
        tables = [*map(model_latex, models), *map(latex, self.tables)]
        tables += [text for section in self.sections for text in section_latex(section, words)]
        texts = {
            "mae.md": self.markdown(),
            "mae.csv": tidy_csv(self.tables),
            "mae.json": None,
            "mae.tex": "\n\n".join(["% needs \\usepackage{booktabs}", *tables]) + "\n",
            "published.csv": published_csv(self.tables),
            "out_of_fold.csv": out_of_fold_csv(self.findings.runs),
        }
        for section in self.sections:
            texts[f"{section.name}.csv"] = csv_text(section.records) if section.records else ""
        files = []
        for name, text in texts.items():
            if text is None:
                write_json(folder / name, exported(self.tables, self.sections, self.notes, models))
            elif text:
                write_text(folder / name, text)
            if text != "":
                files.append(folder / name)
        return files

    def write_figures(self, folder: Path | str) -> list[Path]:
        """Draw MAE against depth and rows, convergence and ranks; write each as PNG and PDF.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        from irnet_hpc.aggregate.figures import write_figures

        return write_figures(self.findings, Path(folder))

    def write_page(self, path: Path | str) -> Path:
        """Write everything to one HTML file, which needs neither the network nor other files.

        Raises:
            UserError: if matplotlib or Jinja2 is not installed.
        """
        # Imported here: the page needs numpy, Jinja2 and matplotlib; the tables need none of them.
        try:
            from irnet_hpc.aggregate.page.page import render_page

            write_text(followed(path), render_page(self))
        except ImportError as error:
            raise UserError(
                f"the page needs matplotlib and Jinja2, but one of them cannot be imported: {error}"
            ) from None
        return Path(path)


def make_tables(
    results: Path | str = "results",
    *,
    matrix: Path | str | None = None,
    diagnose: bool = False,
    importance: bool = False,
    pack_dir: Path | str | None = None,
) -> Report:
    """Make tables of every finished run below a folder.

    Args:
        results: a folder to which `train` and `sweep` have written their runs.
        matrix: a YAML file of `sweep`; the notes then list its cells without a result, and why.
        diagnose: True to read also the predictions that only a page shows; the notes then list the
            predictions that cannot be used.
        importance: True to measure how much the best network and the best classical model of each
            task rely on each feature, which loads these models and their packs.
        pack_dir: the folder of packs, for `importance`; None: $IRNET_PACKS, else packs/.

    Returns:
        The report; `report.frame()` is a DataFrame with every MAE.

    Raises:
        UserError: if `results` is not a folder or has no finished run, or if two packs, or two
            origins, of different content have the same name.
    """
    results = Path(results)
    runs, gaps = collect_runs(results)
    notes = _add_matrix(Path(matrix), results, gaps) if matrix else []
    notes += gap_notes(gaps)
    if not runs:
        raise UserError(_no_result_message(results, gaps))
    joined = join_folds(runs)
    if joined.lacking:
        heading = "folds that are left out, since others of their set are missing"
        notes.append(Note(heading, tuple(joined.lacking)))
    # Where no set is complete yet, each fold counts as a split of its own.
    runs = joined.runs or runs
    findings = find(runs, gaps)
    if importance:
        measured, problems = measure(findings.tasks, pack_dir)
        findings = dataclasses.replace(findings, importance=measured)
        lines = tuple(one_line(problems[path]) for path in sorted(problems))
        notes += [Note("models whose importances are not known", lines)] if lines else []
    if diagnose:
        _ = findings.diagnoses, findings.points
    return make_report(findings, notes)


def make_report(findings: Findings, notes: Sequence[Note] = ()) -> Report:
    """Make the report, with its sections and notes, from the findings.

    Args:
        findings: the findings about the runs.
        notes: the notes to begin with, such as those on gaps.
    """
    sections = [section(findings) for section in SECTIONS]
    shown = tuple(section for section in sections if section.blocks)
    all_notes = [*notes, *legend(findings), *problem_notes(findings.problems)]
    return Report(findings, shown, all_notes)


def _add_matrix(path: Path, results: Path, gaps: dict[Path, Gap]) -> list[Note]:
    """Add to `gaps` the cells of a matrix that have no valid result.

    Returns notes on the matrix.
    """
    # Imported here, since a matrix opens packs, which need HDF5, and tables do not.
    from irnet_hpc.sweep.cell_states import read_ledger
    from irnet_hpc.sweep.matrix.matrix import read_matrix

    matrix = read_matrix(path)
    ledger = read_ledger(matrix, results)
    for cell in ledger.cells:
        if cell.state == CellState.MISSING:
            # A run that was not started by a sweep may have a run.json; then it is already a gap.
            gaps.setdefault(cell.folder, Gap(GapState.NOT_RUN, spec=cell.cell.spec))
        elif cell.state != CellState.DONE:
            gaps[cell.folder] = Gap(GapState(cell.state), cell.detail, cell.cell.spec)
    dropped = tuple(f"{product.product}: {product.reason}" for product in matrix.dropped)
    notes = [
        Note(f"{path}: {ledger.counts()[CellState.DONE]} of {len(ledger.cells)} cells are done")
    ]
    notes += [Note(one_line(text)) for text in (*matrix.notes, *ledger.notes)]
    return [*notes, Note("products that do not exist", dropped)] if dropped else notes


def _no_result_message(results: Path, gaps: Mapping[Path, Gap]) -> str:
    counts = [
        f"{len(note.lines)} {note.heading} (e.g. {note.lines[0]})" for note in gap_notes(gaps)
    ]
    return f"no finished run below {results}: " + ("; ".join(counts) or "it holds no run folder")
