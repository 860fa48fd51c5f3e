"""Show the best result of each task."""

from collections.abc import Sequence

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, line_of, missing
from irnet_hpc.aggregate.mae_table import classical_cell, percent_text, row_format, score_text
from irnet_hpc.aggregate.scores import percent_below
from irnet_hpc.aggregate.task_results import Task

TEXT = (
    "A task is a property of a dataset under one kind of split. Val chooses the best model of each "
    "task among all that were trained on it with protocol honest: any features, recipe, start and "
    "number of rows, but nothing that has seen test formulas, and nothing that was trained on "
    "fewer splits than another. Its test MAE took no part in the choice. best classical: on the "
    "same rows and features. published: the lowest MAE that others report on the dataset, with "
    "other rows and splits."
)
HEADER = (
    *("task", "training rows", "test MAE", "model", "features", "recipe", "baseline"),
    *("below baseline", "best classical", "published", "its protocol", "its rows", "models tried"),
)


def section(findings: Findings) -> Section:
    """Make one block with a line for each task.

    If each task has only one table, there is no block, since the tables already show the best
    model.
    """
    shown = best_of_each(findings)
    several = any(task.n_tables > 1 for task in findings.tasks)
    return shown if several else shown._replace(blocks=(), records=())


def best_of_each(findings: Findings) -> Section:
    """Make one block with a line for each task, even if each task has only one table."""
    tasks = findings.tasks
    blocks = [TableBlock("all tasks", "tasks", _grid(tasks))] if tasks else []
    return Section(
        "tasks", "The best of each task", TEXT, blocks, [_record(task) for task in tasks]
    )


def _grid(tasks: Sequence[Task]) -> list[Line]:
    """Show a line for each task, without the columns that are empty for every task."""
    body = list(map(_line, tasks))
    kept = [n for n in range(len(HEADER)) if not all(line[n].missing for line in body)]
    return [[line[number] for number in kept] for line in (line_of(*HEADER), *body)]


def _line(task: Task) -> Line:
    best, row, published = task.best, task.best.row, task.published
    form, none_known = row_format(row), missing("none known")
    is_classical = not row.best_classical and best.score.runs[0].spec.is_classical
    n_rows = published and published.n_rows
    return line_of(
        task.label,
        f"{row.n_train:,}",
        score_text(best.score, form),
        str(best.model),
        best.features,
        best.training,
        f"{row.baseline:{form}}",
        percent_text(percent_below(best.score.mae, row.baseline), "baseline is 0"),
        missing("this model") if is_classical else classical_cell(row)._replace(bold=False),
        f"{published.their_model} {published.mae:g}" if published else none_known,
        published.split if published else none_known,
        f"{n_rows:,}" if n_rows else missing("not stated") if published else none_known,
        str(len(task.results)),
    )


def _record(task: Task) -> dict:
    best, row, score, published = task.best, task.best.row, task.best.score, task.published
    classical = row.best_classical
    return {
        "dataset": task.dataset,
        "property": task.property,
        "unit": task.unit,
        "model": str(best.model),
        "features": best.features,
        "pack": best.table.pack,
        "recipe": best.table.recipe_label,
        "start_from": best.table.start_from,
        "joint": best.table.joint,
        "n_train": row.n_train,
        "n_test": row.n_test,
        "test_mae_mean": score.mae,
        "test_mae_sd": score.sd,
        "n_runs": score.n,
        "val_mae_mean": best.val_mae,
        "baseline_mae": row.baseline,
        "best_classical": classical and classical.model,
        "best_classical_mae": classical and classical.mae,
        "published_model": published and str(published.their_model),
        "published_mae": published and published.mae,
        "published_split": published and published.split,
        "published_n_rows": published and published.n_rows,
        "published_source": published and published.source,
        "n_tried": len(task.results),
    }
