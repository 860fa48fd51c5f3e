"""What others have published: MAEs of published.csv, shown beside ours where a pack is of the same dataset, and never mixed in.

They are of other rows, other splits and other ways of selecting, and say so in each line.
"""

import csv
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.aggregate.formats import Text, aligned, csv_text, one_line
from irnet_hpc.aggregate.render import cell_text, row_format
from irnet_hpc.aggregate.scores import BestClassical, Cell
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.spec import ARCHITECTURES, model_name

# (model, depth) in published.csv -> ours; what is not here is called the same, or is not ours
OURS = {("random-forest", None): ("random_forest", None)}
BEST_CLASSICAL = "best of 10 classical"


class Published(NamedTuple):
    """A line of published.csv."""

    dataset: str  # a source's name, e.g. oqmd
    n_rows: int | None  # of the dataset, all splits together; None: not stated
    property: str
    unit: str
    features: str
    model: str
    depth: int | None
    mae: float  # in `unit`
    split: str  # and what the number was selected on
    source: str

    @property
    def ours(self) -> tuple[str, int | None]:
        """(architecture, depth) of the same model here, if it is one of ours at all."""
        return OURS.get((self.model, self.depth), (self.model, self.depth))


@functools.cache
def read_published() -> tuple[Published, ...]:
    """All lines of the file that the package brings along, in its order."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Published(
                **line
                | {"n_rows": int(line["n_rows"]) if line["n_rows"] else None}
                | {
                    "depth": int(line["depth"]) if line["depth"] else None,
                    "mae": float(line["mae"]),
                }
            )
            for line in csv.DictReader(file)
        )


def published_on(dataset: str | None, targets: Iterable[tuple[str, str]]) -> list[Published]:
    """The lines of a dataset for properties given with their units, property by property."""
    lines = read_published()
    return [
        line
        for target in targets
        for line in lines
        if line.dataset == dataset and (line.property, line.unit) == target
    ]


def published_of(table: Table) -> list[tuple[Published, Row, Cell | BestClassical | None]]:
    """Published numbers on the dataset that the table's pack was made from, each with its row and, if it is there, ours.

    None for a table of the first n training rows, or of chemistry that was held out: published are whole datasets, split at
    random.
    """
    if table.train_rows is not None or table.held_out:
        return []
    rows = {(row.property, row.unit): row for row in table.rows}
    found = []
    for line in published_on(table.source, rows):
        row = rows[line.property, line.unit]
        ours = row.best_classical if line.model == BEST_CLASSICAL else table.cell(row, *line.ours)
        found.append((line, row, ours))
    return found


def published_markdown(table: Table, width: int | None = None) -> str:
    """What is published beside what is ours, for below the table and never within it; empty where nothing is."""
    lines, sources = published_grid(table)
    if not sources:
        return ""
    said = "\n".join(f"{i + 1}. {one_line(source)}" for i, source in enumerate(sources))
    return (
        f"Published on {table.source}, of other rows, splits and selection than ours, so beside our table and not in it:"
        f"\n\n{aligned(lines, width)}\n\n{said}"
    )


def published_grid(table: Table) -> tuple[list[list[Text]], list[str]]:
    """Header first, a line a published number; and the sources that the last column counts."""
    found = published_of(table)
    sources = list(dict.fromkeys(line.source for line, _, _ in found))
    header = [
        "property",
        "model",
        "features",
        "published",
        "rows",
        "split",
        "ours",
        "our training rows",
        "source",
    ]
    lines = [[Text(text) for text in header]]
    for line, row, ours in found:
        texts = [
            f"{line.property} ({line.unit})",
            model_name(line.model, line.depth),
            line.features,
            f"{line.mae:g}",
        ]
        texts += [f"{line.n_rows:,}" if line.n_rows else "not stated", line.split]
        texts += [_ours(line, ours, row), f"{row.n_train:,}", str(sources.index(line.source) + 1)]
        lines.append([Text(text) for text in texts])
    return lines, sources


def _ours(line: Published, cell: Cell | BestClassical | None, row: Row) -> str:
    if cell is None:
        return (
            "not run"
            if line.model == BEST_CLASSICAL or line.ours[0] in ARCHITECTURES
            else "not one of ours"
        )
    return (f"{cell.model} " if isinstance(cell, BestClassical) else "") + cell_text(
        cell, row_format(row)
    )


def published_csv(tables: Iterable[Table]) -> str:
    """A line for each published number and each of our tables that it stands beside; empty where there is none."""
    tables = list(tables)
    with_joint = any(table.joint for table in tables)
    lines = [
        {
            **table.settings,
            "property": line.property,
            "unit": line.unit,
            "dataset": line.dataset,
            "published_model": model_name(line.model, line.depth),
            "published_features": line.features,
            "published_mae": line.mae,
            "published_n_rows": line.n_rows,
            "published_split": line.split,
            "published_source": line.source,
            "our_model": getattr(ours, "model", model_name(*line.ours)) if ours else None,
            "our_test_mae_mean": ours and ours.mae,
            "our_n_seeds": ours and len(ours.seeds),
            "our_n_runs": ours and ours.n,
            "our_n_train": row.n_train,
        }
        | ({"joint": table.joint} if with_joint else {})
        for table in tables
        for line, row, ours in published_of(table)
    ]
    return csv_text(lines) if lines else ""
