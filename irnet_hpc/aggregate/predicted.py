"""Average the test predictions of every model of a task, for plots that compare its models.

A point is a material of the test rows: its target, and the mean of the predictions of all runs
that have this material as a test row. Its error is the mean of the absolute errors of these runs,
so that the mean over the points is the MAE of the tables, and not the lower one of an ensemble.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from irnet_hpc.aggregate.task_results import Task, TaskResult
from irnet_hpc.aggregate.words import model_words
from irnet_hpc.runs.predictions import LabelledRows, Predictions

if TYPE_CHECKING:
    import numpy as np

# A material of the test rows: its id, formula, target, and how many rows before it have the same
# three.
Material = tuple[str, str, float, int]


@dataclasses.dataclass(frozen=True, eq=False)
class ModelPoints:
    """The predictions of one model for the materials of a task."""

    name: str  # tells it apart from the other models of the task
    result: TaskResult
    n_runs: int  # whose predictions could be read
    prediction: "np.ndarray"  # (n_rows,) mean over the runs; NaN: not a test row of the model
    error: "np.ndarray"  # (n_rows,) mean over the runs of the absolute error; NaN likewise


@dataclasses.dataclass(frozen=True, eq=False)
class TaskPoints:
    """The predictions of all models of a task."""

    task: Task
    material_id: "np.ndarray"  # (n_rows,) str
    formula: "np.ndarray"  # (n_rows,) str
    target: "np.ndarray"  # (n_rows,) in the property's unit
    models: tuple[ModelPoints, ...]  # in the order of the task's results
    unread: tuple[str, ...]  # the names of models without predictions


class RunSums(NamedTuple):
    """The sums over the runs of a model on one split."""

    place: "np.ndarray"  # (n,) the places of the split's rows among the materials of the task
    n_runs: int
    prediction: "np.ndarray"  # (n,)
    error: "np.ndarray"  # (n,) of the absolute errors


def points_of(task: Task, predictions: Predictions) -> TaskPoints | None:
    """Collect the predictions of the models of a task; None if no predictions can be read."""
    import numpy as np

    known: dict[Material, int] = {}  # material -> its place
    places: dict[int, np.ndarray] = {}  # id of labelled rows -> the places of their materials
    models, unread, names = [], [], names_of(task.results)
    for name, result in zip(names, task.results, strict=True):
        splits = predictions.by_split(result.score.runs).values()
        if not splits:
            unread.append(name)
            continue
        sums = []
        for split in splits:
            rows = split.rows
            # `predictions` keeps the rows, so no other rows get the same id.
            if id(rows) not in places:
                places[id(rows)] = _places(rows, known)
            runs = np.array(list(split.predictions.values()), float)  # (n_runs, n_rows)
            errors = np.abs(runs - rows.target)
            sums.append(RunSums(places[id(rows)], len(runs), runs.sum(axis=0), errors.sum(axis=0)))
        models.append((name, result, sums))
    if not models:
        return None
    ids, formulas, targets, _ = zip(*known, strict=True)
    return TaskPoints(
        task=task,
        material_id=np.array(ids),
        formula=np.array(formulas),
        target=np.array(targets, float),
        models=tuple(_model_points(*model, len(known)) for model in models),
        unread=tuple(unread),
    )


def _places(rows: LabelledRows, known: dict[Material, int]) -> "np.ndarray":
    """Return the place of each row (n_rows,); materials that are not known yet are added."""
    import numpy as np

    before: Counter[tuple[str, str, float]] = Counter()
    places = np.empty(len(rows.target), int)
    labels = zip(
        rows.material_id.tolist(), rows.formula.tolist(), rows.target.tolist(), strict=True
    )
    for row, (material_id, formula, target) in enumerate(labels):
        same = str(material_id), str(formula), float(target)
        places[row] = known.setdefault((*same, before[same]), len(known))
        before[same] += 1
    return places


def _model_points(
    name: str, result: TaskResult, sums: Sequence[RunSums], n_rows: int
) -> ModelPoints:
    """Average over the runs of all splits; `n_rows` is the number of materials of the task."""
    import numpy as np

    n, prediction, error = np.zeros(n_rows), np.zeros(n_rows), np.zeros(n_rows)
    for split in sums:
        n[split.place] += split.n_runs
        prediction[split.place] += split.prediction
        error[split.place] += split.error
    with np.errstate(invalid="ignore"):
        prediction, error = prediction / n, error / n
    return ModelPoints(name, result, sum(split.n_runs for split in sums), prediction, error)


def names_of(results: Iterable[TaskResult]) -> list[str]:
    """Name results by model, and by as many further settings as tell them apart."""
    results = list(results)
    names = [model_words(result.model) for result in results]
    for settings in (
        [result.features for result in results],
        [result.training for result in results],
        [f"{result.row.n_train:,} training rows" for result in results],
        [f"with {result.table.joint}" if result.table.joint else "" for result in results],
        [result.remark for result in results],
    ):
        of_name: dict[str, set[str]] = {}
        for name, setting in zip(names, settings, strict=True):
            of_name.setdefault(name, set()).add(setting)
        names = [
            f"{name}, {setting}" if setting and len(of_name[name]) > 1 else name
            for name, setting in zip(names, settings, strict=True)
        ]
    # A result that must not be compared always says so.
    return [
        f"{name}, {result.remark}" if result.remark and not name.endswith(result.remark) else name
        for name, result in zip(names, results, strict=True)
    ]
