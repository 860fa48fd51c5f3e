"""Tasks: one property of one dataset under one kind of split, whatever represents its rows; and the best of each.

What was trained on a task (tables of several representations, recipes, starts, numbers of rows) has the same test formulas, so
it may be set side by side. The best is chosen by val and reported by test, like everything else that is chosen here.
"""

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.groups import SEEN, unseeded_identity
from irnet_hpc.aggregate.published import Published, published_on
from irnet_hpc.aggregate.render import cell_text, row_format
from irnet_hpc.aggregate.scores import Cell
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.spec import model_name

SAID = (
    "A task is a property of a dataset under one kind of split. Of all that was trained on it with protocol honest (any features, "
    "recipe, start and rows; nothing that has seen test formulas) the one of least MAE on val, and its test MAE, which chose "
    "nothing. best classical: on the same rows and features. published: the least MAE that others report on the dataset, of "
    "other rows and splits."
)
REPRESENTATION = (
    "features",
    "feature_versions",
)  # of a pack's identity: what the same rows may be described by


@dataclasses.dataclass(frozen=True)
class Entry:
    """One model that was trained on a task."""

    table: Table
    row: Row
    model: tuple[str, int | None]
    cell: Cell

    @property
    def name(self) -> str:
        return model_name(*self.model)

    @property
    def features(self) -> str:
        return str(self.cell.runs[0].result.pack_identity.get("features", "not stated"))

    @property
    def how(self) -> str:
        """Recipe and start, in words."""
        start = f", started from {self.table.start_from}" if self.table.start_from else ""
        joint = (
            f", one network for {self.table.joint.replace(',', ', ')}" if self.table.joint else ""
        )
        return f"{self.table.recipe}{start}{joint}"

    @property
    def val_mae(self) -> float | None:
        known = [run.result.val_mae for run in self.cell.runs if run.result.val_mae is not None]
        return fmean(known) if len(known) == self.cell.n else None


@dataclasses.dataclass(frozen=True)
class Task:
    dataset: str  # the pack's name without its features
    property: str
    unit: str
    entries: tuple[Entry, ...]  # by MAE on val, the best first; what has none comes last
    published: Published | None  # the least

    @property
    def best(self) -> Entry:
        return self.entries[0]

    @property
    def name(self) -> str:
        return f"{self.dataset} {self.property}"

    @property
    def n_tables(self) -> int:
        return len({entry.table.name for entry in self.entries})


def tasks_of(tables: Iterable[Table]) -> tuple[Task, ...]:
    """In the order of the tables."""
    entries = defaultdict(list)
    for table in tables:
        if (
            table.protocol != "honest"
            or table.recipe.endswith("(stale)")
            or (table.start_from or "").endswith(SEEN)
        ):
            continue
        for row in table.rows:
            for model, cell in zip(table.models, row.cells, strict=True):
                if cell:
                    entries[_same_rows(cell), row.property, row.unit].append(
                        Entry(table, row, model, cell)
                    )
    return tuple(_task(name, unit, found) for (_, name, unit), found in entries.items())


def _same_rows(cell: Cell) -> str:
    """What packs of one task have in common: their identity but for the representation and the split's seed."""
    identity = unseeded_identity(cell.runs[0])
    return json.dumps(
        {key: value for key, value in identity.items() if key not in REPRESENTATION}, sort_keys=True
    )


def _task(name: str, unit: str, found: Sequence[Entry]) -> Task:
    table = found[0].table
    datasets = {
        re.sub(rf"-{re.escape(entry.features)}(?=-|$)", "", entry.table.pack, count=1)
        for entry in found
    }
    lines = [] if table.held_out else published_on(table.source, [(name, unit)])
    return Task(
        dataset=min(datasets, key=lambda dataset: (len(dataset), dataset)),
        property=name,
        unit=unit,
        entries=tuple(
            sorted(found, key=lambda entry: (entry.val_mae is None, entry.val_mae, entry.cell.mae))
        ),
        published=min(lines, key=lambda line: line.mae, default=None),
    )


def percent_below(mae: float, other: float | None) -> float | None:
    return 100 * (other - mae) / other if other else None


def tasks_section(tasks: Sequence[Task]) -> Section:
    """One block with a line a task."""
    blocks = (Block("all tasks", "tasks", _grid(tasks)),) if tasks else ()
    return Section(
        "tasks", "The best of each task", SAID, blocks, [_record(task) for task in tasks]
    )


def _grid(tasks: Sequence[Task]) -> list[list[Text]]:
    header = (
        "task",
        "training rows",
        "test MAE",
        "model",
        "features",
        "recipe",
        "baseline",
        "below baseline",
    )
    lines = [
        [
            Text(text)
            for text in (
                *header,
                "best classical",
                "published",
                "its protocol",
                "its rows",
                "models tried",
            )
        ]
    ]
    for task in tasks:
        best, form = task.best, row_format(task.best.row)
        theirs, line = best.row.best_classical, task.published
        below = percent_below(best.cell.mae, best.row.baseline)
        texts = [
            f"{task.name} ({task.unit})",
            f"{best.row.n_train:,}",
            cell_text(best.cell, form),
            best.name,
        ]
        texts += [best.features, best.how, f"{best.row.baseline:{form}}"]
        texts += ["baseline is 0" if below is None else f"{below:+.1f} %"]
        classical = "is one" if best.cell.runs[0].spec.is_classical else "not run"
        texts += [f"{theirs.model} {cell_text(theirs, form)}" if theirs else classical]
        texts += (
            [f"{model_name(line.model, line.depth)} {line.mae:g}", line.split]
            if line
            else ["none known", "none known"]
        )
        texts += [(f"{line.n_rows:,}" if line.n_rows else "not stated") if line else "none known"]
        lines.append([Text(text) for text in (*texts, f"{len(task.entries)}")])
    return lines


def _record(task: Task) -> dict:
    best, line = task.best, task.published
    theirs = best.row.best_classical
    return {
        "dataset": task.dataset,
        "property": task.property,
        "unit": task.unit,
        "model": best.name,
        "features": best.features,
        "pack": best.table.pack,
        "recipe": best.table.recipe,
        "start_from": best.table.start_from,
        "joint": best.table.joint,
        "n_train": best.row.n_train,
        "n_test": best.row.n_test,
        "test_mae_mean": best.cell.mae,
        "test_mae_sd": best.cell.sd,
        "n_runs": best.cell.n,
        "val_mae_mean": best.val_mae,
        "baseline_mae": best.row.baseline,
        "best_classical": theirs and theirs.model,
        "best_classical_mae": theirs and theirs.mae,
        "published_model": line and model_name(line.model, line.depth),
        "published_mae": line and line.mae,
        "published_split": line and line.split,
        "published_n_rows": line and line.n_rows,
        "published_source": line and line.source,
        "n_tried": len(task.entries),
    }
