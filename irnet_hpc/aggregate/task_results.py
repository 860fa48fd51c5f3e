"""Find the tasks, and the best result of each task.

A task is one property of one dataset under one kind of split; the features may differ. All models
trained on a task have the same test formulas, even if their features, recipes, starts or numbers of
rows differ, so their results may be compared. The best model is chosen by its MAE on val, and its
MAE on test is reported.
"""

import builtins
import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from irnet_hpc.aggregate.groups import unseeded_identity
from irnet_hpc.aggregate.published import Published, published_on
from irnet_hpc.aggregate.scores import Model, ModelScore
from irnet_hpc.aggregate.tables import Row, Table

# The parts of a pack's identity that state how its rows are represented.
REPRESENTATION = ("features", "feature_versions")


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """The score of one model that was trained on a task."""

    table: Table
    row: Row
    model: Model
    score: ModelScore

    @property
    def features(self) -> str:
        """The feature set of the model's pack."""
        return str(self.score.runs[0].result.pack_identity.get("features", "not stated"))

    @property
    def training(self) -> str:
        """The recipe and the start, in words; empty for a classical model, which has one recipe."""
        is_classical = self.score.runs[0].spec.is_classical
        recipe = "" if is_classical else self.table.recipe_label
        return f"{recipe}{self.table.origin_words}".removeprefix(", ")

    @property
    def words(self) -> str:
        """The model, how it was trained, and its features."""
        return ", ".join(filter(None, (str(self.model), self.training, self.features)))

    @property
    def remark(self) -> str:
        """Why the result must not be compared with others on the task; empty: it may be."""
        if self.table.protocol != "honest":
            return "selected on test"
        if self.table.stale:
            return "stale"
        seen = self.table.start is not None and self.table.start.has_seen_test
        return "its start has seen test formulas" if seen else ""

    @property
    def splits(self) -> frozenset[int | None]:
        """The splits of the runs; None stands for a split without a seed."""
        return frozenset(run.split for run in self.score.runs)

    @property
    def val_mae(self) -> float | None:
        """The mean MAE on val; None if a run has none."""
        known = [run.result.val_mae for run in self.score.runs if run.result.val_mae is not None]
        return fmean(known) if len(known) == self.score.n else None


@dataclasses.dataclass(frozen=True)
class Task:
    """One property of one dataset under one kind of split, and the results of all models on it."""

    dataset: str  # the pack's name without its features
    property: str
    unit: str
    # Ordered by MAE on val. Results without val come last, but before results on fewer splits.
    results: tuple[TaskResult, ...]
    published: Published | None  # the published number with the lowest MAE

    @builtins.property
    def best(self) -> TaskResult:
        """The result with the lowest MAE on val."""
        return self.results[0]

    @builtins.property
    def comparable(self) -> tuple[TaskResult, ...]:
        """The results on the same splits as the best; only their MAEs are on the same test rows."""
        return tuple(result for result in self.results if result.splits == self.best.splits)

    @builtins.property
    def name(self) -> str:
        """Dataset and property, e.g. `oqmd formation_energy`."""
        return f"{self.dataset} {self.property}"

    @builtins.property
    def label(self) -> str:
        """Dataset, property and unit."""
        return f"{self.name} ({self.unit})"

    @builtins.property
    def n_tables(self) -> int:
        """The number of tables that contain the task's results."""
        return len({result.table.name for result in self.results})


def tasks_of(tables: Iterable[Table]) -> tuple[Task, ...]:
    """Find all tasks, in the order of the tables.

    Results of protocol `paper` and stale results are left out, and so are results whose start was
    trained on test formulas.
    """
    tasks = []
    for (_, name, unit), results in _results_of(tables).items():
        if compared := [result for result in results if not result.remark]:
            tasks.append(_task(name, unit, compared))
    return tuple(tasks)


def tasks_with_all_results(tables: Iterable[Table]) -> tuple[Task, ...]:
    """Find all tasks, with the results that must not be compared behind the others.

    Only plots of single models use them. A task that has no other results is included, too.
    """
    tasks = []
    for (_, name, unit), results in _results_of(tables).items():
        sides = [
            [result for result in results if bool(result.remark) == has_remark]
            for has_remark in (False, True)
        ]
        first, *others = [_task(name, unit, side) for side in sides if side]
        behind = [result for task in others for result in task.results]
        tasks.append(dataclasses.replace(first, results=(*first.results, *behind)))
    return tuple(tasks)


def _results_of(tables: Iterable[Table]) -> dict[tuple[str, str, str], list[TaskResult]]:
    """Group the results of all tables: (identity of the rows, property, unit) -> results."""
    results = defaultdict(list)
    for table in tables:
        for row, model, score in table.scored():
            task = _rows_identity(score), row.property, row.unit
            results[task].append(TaskResult(table, row, model, score))
    return results


def _rows_identity(score: ModelScore) -> str:
    """Return a pack's identity without its features and the seed of its split."""
    identity = unseeded_identity(score.runs[0])
    kept = {key: value for key, value in identity.items() if key not in REPRESENTATION}
    return json.dumps(kept, sort_keys=True)


def _task(name: str, unit: str, results: Sequence[TaskResult]) -> Task:
    table = results[0].table
    datasets = {
        re.sub(rf"-{re.escape(result.features)}(?=-|$)", "", result.table.pack, count=1)
        for result in results
    }
    lines = [] if table.held_out else published_on(table.source, [(name, unit)])

    n_splits = max(len(result.splits) for result in results)

    # As in a table, a model that was trained on some of the splits only, whose rows may be easier,
    # cannot be the best.
    def by_val(result: TaskResult) -> tuple:
        val_mae = result.val_mae
        return len(result.splits) < n_splits, val_mae is None, val_mae, result.score.mae

    return Task(
        dataset=min(datasets, key=lambda dataset: (len(dataset), dataset)),
        property=name,
        unit=unit,
        results=tuple(sorted(results, key=by_val)),
        published=min(lines, key=lambda line: line.mae, default=None),
    )
