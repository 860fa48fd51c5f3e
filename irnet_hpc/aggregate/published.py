"""Show published MAEs beside ours, in tables of their own.

Published numbers come from other rows, splits and ways of selecting; each line says so. They are
read from published.csv, and shown beside the tables of packs that were made from the same dataset.
"""

import builtins
import csv
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from irnet_hpc.aggregate.formats import Line, Text, aligned, csv_text, line_of, missing, one_line
from irnet_hpc.aggregate.mae_table import classical_cell, row_format, score_text
from irnet_hpc.aggregate.scores import BestClassical, Model, ModelScore
from irnet_hpc.aggregate.tables import Missing, Row, Table
from irnet_hpc.runs.spec import ARCHITECTURES

# Models of published.csv that have a different name here.
OUR_MODELS = {Model("random-forest"): Model("random_forest")}
BEST_CLASSICAL = "best of 10 classical"


class Published(NamedTuple):
    """A line of published.csv."""

    dataset: str  # a source's name, e.g. oqmd
    n_rows: int | None  # number of rows of the whole dataset; None: not stated
    property: str
    unit: str
    features: str
    model: str
    depth: int | None
    mae: float  # in `unit`
    split: str  # how rows were split, and on which rows the number was selected
    source: str

    @builtins.property
    def their_model(self) -> Model:
        """The model, by its published name."""
        return Model(self.model, self.depth)

    @builtins.property
    def our_model(self) -> Model:
        """The model, by our name. If it is not one of ours, it keeps its published name."""
        return OUR_MODELS.get(self.their_model, self.their_model)


class Comparison(NamedTuple):
    """A published number, the row of our table beside it, and our score of the same model."""

    line: Published
    row: Row
    score: ModelScore | BestClassical | None  # None: the model was not run, or is not ours


def _value(name: str, text: str) -> Any:
    """Convert the text of a field of published.csv. n_rows and depth may be empty."""
    if name in ("n_rows", "depth"):
        return int(text) if text else None
    return float(text) if name == "mae" else text


@functools.cache
def read_published() -> tuple[Published, ...]:
    """Read published.csv, which is part of the package."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Published(**{name: _value(name, text) for name, text in line.items()})
            for line in csv.DictReader(file)
        )


def published_on(dataset: str | None, targets: Iterable[tuple[str, str]]) -> list[Published]:
    """List the published numbers on a dataset, in the order of the `targets` (property, unit)."""
    return [
        line
        for target in targets
        for line in read_published()
        if line.dataset == dataset and (line.property, line.unit) == target
    ]


def published_beside(table: Table) -> list[Comparison]:
    """List the published numbers on the dataset of the table's pack, each with our score.

    The list is empty for a table of the first n training rows or of held-out chemistry, since
    published numbers are for whole datasets that were split at random.
    """
    if table.train_rows is not None or table.held_out:
        return []
    rows = {(row.property, row.unit): row for row in table.rows}
    comparisons = []
    for line in published_on(table.source, rows):
        row = rows[line.property, line.unit]
        is_best = line.model == BEST_CLASSICAL
        score = row.best_classical if is_best else table.score(row, line.our_model)
        comparisons.append(Comparison(line, row, score))
    return comparisons


def caption(table: Table) -> str:
    """Write the sentence that introduces the published numbers beside a table."""
    return (
        f"Published on {table.source}, with other rows, splits and ways of selecting, so these "
        "numbers are not in our table:"
    )


def published_markdown(table: Table, width: int | None = None) -> str:
    """Write the published numbers beside a table as Markdown; "" if there are none."""
    lines, sources = published_grid(table)
    if not sources:
        return ""
    listed = "\n".join(f"{i + 1}. {one_line(source)}" for i, source in enumerate(sources))
    return f"{caption(table)}\n\n{aligned(lines, width)}\n\n{listed}"


def published_grid(table: Table) -> tuple[list[Line], list[str]]:
    """Return a line for each published number, and the sources numbered in the last column."""
    comparisons = published_beside(table)
    sources = list(dict.fromkeys(comparison.line.source for comparison in comparisons))
    header = ("property", "model", "features", "published", "rows", "split", "ours")
    lines = [line_of(*header, "our training rows", "source")]
    for comparison in comparisons:
        line, row, _ = comparison
        lines.append(
            line_of(
                row.label,
                str(line.their_model),
                line.features,
                f"{line.mae:g}",
                f"{line.n_rows:,}" if line.n_rows else missing("not stated"),
                line.split,
                _our_cell(comparison),
                f"{row.n_train:,}",
                str(sources.index(line.source) + 1),
            )
        )
    return lines, sources


def _our_cell(comparison: Comparison) -> str | Text:
    line, row, score = comparison
    if line.model == BEST_CLASSICAL:
        return classical_cell(row)._replace(bold=False)
    if score is None:
        is_ours = line.our_model.architecture in ARCHITECTURES
        return missing(Missing.NOT_RUN if is_ours else "not one of ours")
    return score_text(score, row_format(row))


def published_csv(tables: Iterable[Table]) -> str:
    """Write a CSV with a line for each published number beside each table; "" if there is none."""
    tables = list(tables)
    with_joint = any(table.joint for table in tables)
    records = [
        {
            **table.settings,
            "property": line.property,
            "unit": line.unit,
            "dataset": line.dataset,
            "published_model": str(line.their_model),
            "published_features": line.features,
            "published_mae": line.mae,
            "published_n_rows": line.n_rows,
            "published_split": line.split,
            "published_source": line.source,
            "our_model": getattr(score, "model", str(line.our_model)) if score else None,
            "our_test_mae_mean": score and score.mae,
            "our_n_seeds": score and len(score.seeds),
            "our_n_runs": score and score.n,
            "our_n_train": row.n_train,
        }
        | ({"joint": table.joint} if with_joint else {})
        for table in tables
        for line, row, score in published_beside(table)
    ]
    return csv_text(records) if records else ""
