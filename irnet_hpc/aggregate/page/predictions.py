"""Show the predictions of every model of a task: charts, errors by element and the worst rows."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from irnet_hpc.aggregate.diagnostics import Diagnosis, Points
from irnet_hpc.aggregate.error_panels import draw_parity, draw_residuals, is_density
from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import line_of
from irnet_hpc.aggregate.mae_table import row_format
from irnet_hpc.aggregate.page.cells import PageTable, formula, page_table
from irnet_hpc.aggregate.page.interactive import Drawn, Live, live_charts
from irnet_hpc.aggregate.page.periodic_table import (
    MIN_ROWS,
    ElementTile,
    element_table,
    element_tile,
)
from irnet_hpc.aggregate.page.pictures import Chart, panel_chart
from irnet_hpc.aggregate.page.summary import count
from irnet_hpc.aggregate.predicted import ModelPoints, TaskPoints
from irnet_hpc.aggregate.task_results import Task
from irnet_hpc.aggregate.words import model_words, property_words

SMALL = (2.9, 2.5)  # inches, of the plots of the models that are not the best
DENSITY = "number of rows, logarithmic, as opacity"
MAX_PARITY = 40  # plain figures of such models on a page; the interactive charts have all


class PageModel(NamedTuple):
    """A model that a reader may lay over others in the chart of its task."""

    name: str
    mae: str


class PageErrors(NamedTuple):
    """The errors of the best model of a task."""

    text: str
    charts: list[Chart]
    elements: list[ElementTile]
    note: str
    element_table: PageTable
    worst: PageTable


class PageTask(NamedTuple):
    """The predictions for a task, as the page shows them."""

    title: str
    errors: PageErrors | None  # None: no result of the task may be called its best
    drawn: Drawn | None  # the rows that the interactive chart shows; None: there is no such chart
    models: list[PageModel]
    charts: list[Chart]  # parity plots of the other models
    note: str  # which models are not shown, and why


class PagePredictions(NamedTuple):
    """The part of the page on predictions."""

    tasks: list[PageTask]
    live: Live | None
    text: str
    how_to_ask: str  # on a screen only


def page_predictions(findings: Findings) -> PagePredictions:
    """Prepare the predictions of all tasks."""
    live = live_charts(findings.points)
    best = {_first_run(diagnosis.task): diagnosis for diagnosis in findings.diagnoses}
    tasks, n_left = [], MAX_PARITY
    for number, points in enumerate(findings.points):
        task = _page_task(number, points, best.get(_first_run(points.task)), n_left)
        n_left -= len(task.charts)
        tasks.append(task._replace(drawn=live.drawn[number] if live else None))
    text = "On test rows; a model with several runs predicts their mean."
    return PagePredictions(
        tasks,
        live,
        text if tasks else "No predictions can be read.",
        _how_to_ask(findings.points, live),
    )


def _how_to_ask(tasks: Sequence[TaskPoints], live: Live | None) -> str:
    """Say what the charts on a screen can be asked."""
    if not tasks:
        return ""
    if live:
        return (
            "Choose the models to lay over each other, and click an element to keep the materials "
            "that contain it. Point at a material, or tap it, for its name and numbers; the tools "
            "above the chart zoom and move it."
        )
    return (
        "These are plain figures, since Bokeh is not installed: pip install 'irnet_hpc[charts]' "
        "makes charts that name materials, filter by element and lay models over each other."
    )


def _first_run(task: Task) -> tuple[Path, str, str]:
    """Return what tells tasks apart: the first run of the best result, and the property."""
    return task.best.score.runs[0].folder, task.property, task.unit


def _page_task(
    number: int, points: TaskPoints, diagnosis: Diagnosis | None, n_left: int
) -> PageTask:
    """Prepare a task.

    Args:
        number: the number of the task, from 0 on.
        points: the predictions of its models.
        diagnosis: the errors of its best model; None: no result may be called the best.
        n_left: how many plain figures of other models the page may still have.
    """
    others = [model for model in points.models if not _is_best(model, diagnosis)]
    drawn = others[:n_left]
    notes = [
        f"{len(others) - len(drawn)} more models have no plain figure; mae.csv has their errors."
        if len(drawn) < len(others)
        else "",
        f"Without predictions that can be read: {'; '.join(points.unread)}."
        if points.unread
        else "",
    ]
    task = points.task
    title = f"{property_words(task.property)} ({task.unit}), {task.dataset}"
    if diagnosis:
        form = row_format(diagnosis.result.row)
        title += f": {model_words(diagnosis.result.model)}, MAE {diagnosis.mae:{form}}"
    return PageTask(
        title=title,
        errors=_errors(number, diagnosis) if diagnosis else None,
        drawn=None,
        models=[
            PageModel(model.name, f"MAE {model.result.score.mae:{row_format(model.result.row)}}")
            for model in points.models
        ],
        charts=[
            _small_chart(f"parity{number}-{place}", points, model)
            for place, model in enumerate(drawn, start=1)
        ],
        note=" ".join(filter(None, notes)),
    )


def _is_best(model: ModelPoints, diagnosis: Diagnosis | None) -> bool:
    return diagnosis is not None and model.result == diagnosis.result


def _small_chart(name: str, points: TaskPoints, model: ModelPoints) -> Chart:
    known = np.isfinite(model.prediction)
    task, score = points.task, model.result.score
    plotted = Points(task.property, task.unit, points.target[known], model.prediction[known])
    caption = f"{model.name}: MAE {score.mae:{row_format(model.result.row)}} {task.unit}"
    caption += f"; mean of {model.n_runs} runs" if model.n_runs > 1 else ""
    caption += f"; {DENSITY}" if is_density(plotted) else ""
    return panel_chart(functools.partial(draw_parity, points=plotted), name, caption, size=SMALL)


def _errors(number: int, diagnosis: Diagnosis) -> PageErrors:
    task, result = diagnosis.task, diagnosis.result
    name = model_words(result.model)
    mae = f"MAE {diagnosis.mae:{row_format(result.row)}}"
    n_runs = count(diagnosis.n_runs, "run")
    shown = DENSITY if is_density(diagnosis.points) else "one point per row and run"
    parity = (
        f"{name}: predicted against target, {shown}; {n_runs}; triangles mark points "
        "beyond the axes"
    )
    residuals = (
        "Residuals; half of the rows are between the dashed lines, 90 % between the dotted ones"
    )
    unreadable = (
        f" {diagnosis.n_unreadable:,} rows have a formula that cannot be read."
        if diagnosis.n_unreadable
        else ""
    )
    worst = f"the worst {count(diagnosis.n_worst, 'row')} of all"
    n_unread = result.score.n - diagnosis.n_runs
    unread = f" {count(n_unread, 'run')} cannot be shown: no predictions." if n_unread else ""
    named = ", ".join(filter(None, (name, result.training, result.features)))
    return PageErrors(
        text=(
            f"{named}, is the best of its task by "
            f"val: {mae} {task.unit} over {diagnosis.n_rows:,} test rows. Half of the errors are "
            f"below {diagnosis.median:.2g}, and {worst} cause {diagnosis.worst_share:.0%} of the "
            f"MAE.{unread}"
        ),
        charts=[
            panel_chart(
                functools.partial(draw, points=diagnosis.points), f"{kind}{number}", caption
            )
            for draw, kind, caption in (
                (draw_parity, "parity", parity),
                (draw_residuals, "residual", residuals),
            )
        ],
        elements=[element_tile(element, diagnosis) for element in diagnosis.elements],
        note=(
            f"Dashed: fewer than {MIN_ROWS} rows. A number is the MAE of {name} in "
            f"{task.unit}.{unreadable}"
        ),
        element_table=element_table(diagnosis.elements, task.unit),
        worst=_worst_table(diagnosis),
    )


def _worst_table(diagnosis: Diagnosis) -> PageTable:
    unit = diagnosis.task.unit
    header = ("formula", "material_id", f"target ({unit})", f"predicted ({unit})")
    lines = [line_of(*header, f"absolute error ({unit})")]
    lines += [
        line_of(row.formula, row.material_id, *(f"{value:.4g}" for value in values))
        for row in diagnosis.worst
        for values in [(row.target, row.prediction, row.error)]
    ]
    return page_table(lines, first=formula)
