"""Compare feature sets: one model and recipe, trained on several feature sets of one dataset."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, missing
from irnet_hpc.aggregate.mae_table import row_format, score_text
from irnet_hpc.aggregate.tables import Missing
from irnet_hpc.aggregate.task_results import Task, TaskResult

TEXT = (
    "Test MAE of one model and recipe with each representation of the same dataset; the lowest of "
    "a row is bold, whether or not the others differ from it significantly. A feature set may "
    "reject rows that another accepts; then the numbers of rows differ, as shown."
)


def section(findings: Findings) -> Section:
    """Make a block for each task with models that were trained on several feature sets.

    Only runs that differ in nothing but the feature set are compared.
    """
    blocks, records = [], []
    for number, task in enumerate(findings.tasks):
        if alike := _trained_alike(task):
            blocks.append(TableBlock(task.label, f"task{number}", _grid(alike)))
            records += [_record(task, result) for line in alike for result in line.values()]
    return Section(
        "representations", "Representations", TEXT, blocks, records, "the lowest MAE of a row"
    )


def _trained_alike(task: Task) -> list[dict[str, TaskResult]]:
    """List groups of results that differ only in the feature set, as feature set -> result."""
    alike: dict[tuple, dict[str, TaskResult]] = defaultdict(dict)
    for result in task.results:
        table = result.table
        settings = (table.recipe_label, table.train_rows, table.start, table.joint, result.splits)
        alike[result.model, *settings].setdefault(result.features, result)
    return [results for results in alike.values() if len(results) > 1]


def _grid(alike: Sequence[Mapping[str, TaskResult]]) -> list[Line]:
    features = sorted({name for results in alike for name in results})
    lines = [line_of("model", "recipe", "training rows", "test rows", *features)]
    for results in alike:
        first = next(iter(results.values()))
        lowest = min(result.score.mae for result in results.values())
        form = row_format(first.row)
        cells = [
            Text(score_text(result.score, form), result.score.mae == lowest)
            if (result := results.get(name))
            else missing(Missing.NOT_RUN)
            for name in features
        ]
        n_train = _range([result.row.n_train for result in results.values()])
        n_test = _range([result.row.n_test for result in results.values()])
        lines.append(line_of(str(first.model), first.training, n_train, n_test, *cells))
    return lines


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _record(task: Task, result: TaskResult) -> dict:
    table, row, score = result.table, result.row, result.score
    return {
        "dataset": task.dataset,
        "property": task.property,
        "unit": task.unit,
        "features": result.features,
        "pack": table.pack,
        "model": str(result.model),
        "recipe": table.recipe_label,
        "train_rows": table.train_rows,
        "start_from": table.start_from,
        "joint": table.joint,
        "n_train": row.n_train,
        "n_test": row.n_test,
        "test_mae_mean": score.mae,
        "test_mae_sd": score.sd,
        "n_runs": score.n,
    }
