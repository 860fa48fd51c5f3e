"""Compute everything that the outputs show about a folder of results, each number once."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from irnet_hpc.aggregate.all_models import AllModels, all_models
from irnet_hpc.aggregate.curves import Convergence, convergence_of
from irnet_hpc.aggregate.diagnostics import Diagnosis, diagnose
from irnet_hpc.aggregate.importance import ModelImportance
from irnet_hpc.aggregate.predicted import TaskPoints, points_of
from irnet_hpc.aggregate.ranking import Ranking, rank_models
from irnet_hpc.aggregate.scores import Model
from irnet_hpc.aggregate.series import Series, chemistry_series, size_series
from irnet_hpc.aggregate.significance import judge
from irnet_hpc.aggregate.tables import Table, tabulate
from irnet_hpc.aggregate.task_results import Task, tasks_of, tasks_with_all_results
from irnet_hpc.runs.collect import FinishedRun, Gap
from irnet_hpc.runs.predictions import Predictions


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that is known about the runs below a folder."""

    runs: Sequence[FinishedRun]
    gaps: Mapping[Path, Gap]  # folder without a result -> why
    tables: Sequence[Table]
    all_models: Sequence[AllModels]  # the models of several tables side by side
    tasks: Sequence[Task]
    ranking: Ranking | None  # None: no two models have two tasks in common
    sizes: Sequence[Series]  # MAE against the number of training rows
    chemistry: Sequence[Series]  # MAE on different kinds of test rows
    convergence: Sequence[Convergence]
    predictions: Predictions
    unreadable: Mapping[Path, str]  # history.csv -> why it cannot be read
    importance: Sequence[ModelImportance] = ()  # of the features of the best models, if asked for

    @property
    def models(self) -> set[Model]:
        """All models of all tables."""
        return {model for table in self.tables for model in table.models}

    @functools.cached_property
    def diagnoses(self) -> tuple[Diagnosis, ...]:
        """The errors of the best model of each task, computed on first use."""
        return diagnose(self.tasks, self.predictions)

    @functools.cached_property
    def points(self) -> tuple[TaskPoints, ...]:
        """The predictions of all models, for the plots of the page, computed on first use."""
        found = (points_of(task, self.predictions) for task in tasks_with_all_results(self.tables))
        return tuple(points for points in found if points)

    @property
    def problems(self) -> dict[Path, str]:
        """Path -> reason, for the predictions and histories that cannot be used."""
        return {**self.predictions.problems, **self.unreadable}


def find(
    runs: Sequence[FinishedRun],
    gaps: Mapping[Path, Gap] | None = None,
    tables: Iterable[Table] | None = None,
) -> Findings:
    """Compute everything that the outputs show.

    Args:
        runs: the finished runs.
        gaps: run folder -> the reason why it has no result.
        tables: the tables of these runs; None: they are built here.

    Raises:
        UserError: if two packs, or two origins, of different content have the same name; the
            message names two folders.
    """
    gaps, predictions = gaps or {}, Predictions()
    if tables is None:
        tables = judge(tabulate(runs, gaps.values()), predictions)
    tables = tuple(tables)
    tasks = tasks_of(tables)
    convergence, unreadable = convergence_of(tables)
    return Findings(
        runs=runs,
        gaps=gaps,
        tables=tables,
        all_models=all_models(tables, predictions),
        tasks=tasks,
        ranking=rank_models(tasks),
        sizes=size_series(tables),
        chemistry=chemistry_series(tables),
        convergence=convergence,
        predictions=predictions,
        unreadable=unreadable,
    )
