"""Find the elements and rows for which the best model of each task has large errors.

Only runs whose predictions can be read are used. The error of a row is the mean over the seeds of
the split that has this row as a test row.
"""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from irnet_hpc.aggregate.task_results import Task, TaskResult
from irnet_hpc.runs.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np


N_WORST = 12  # the number of worst rows that are shown
WORST_SHARE = 0.05  # the fraction of rows that count as worst; their part of the MAE is stated


@dataclasses.dataclass(frozen=True)
class ElementError:
    """The errors of the test rows that contain an element, in the property's unit."""

    symbol: str
    n: int
    mae: float
    bias: float  # mean of prediction minus target


@dataclasses.dataclass(frozen=True)
class WorstRow:
    """A test row with one of the largest errors."""

    material_id: str
    formula: str
    target: float
    prediction: float  # mean over the seeds
    error: float  # mean over the seeds of the absolute error


class Points(NamedTuple):
    """Targets and predictions of one model on one property, for its plots."""

    property: str
    unit: str
    target: "np.ndarray"  # (n,) in the unit
    prediction: "np.ndarray"  # (n,) in the unit


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The errors of the best model of a task: averages by element, and the worst rows."""

    task: Task
    result: TaskResult
    n_runs: int
    n_rows: int  # number of test rows of all splits together
    points: Points  # a point for every row of every run
    mae: float  # over the rows
    median: float  # median over the rows of the absolute error
    n_worst: int  # number of rows in WORST_SHARE of all rows, at least 1
    worst_share: float  # fraction of the MAE that is due to these rows
    elements: tuple[ElementError, ...]  # by atomic number
    n_unreadable: int  # number of rows whose formula cannot be parsed
    worst: tuple[WorstRow, ...]


def diagnose(tasks: Iterable[Task], predictions: Predictions) -> tuple[Diagnosis, ...]:
    """Diagnose the best model of each task whose predictions can be read."""
    diagnoses = (_diagnosis(task, predictions) for task in tasks)
    return tuple(diagnosis for diagnosis in diagnoses if diagnosis)


def _diagnosis(task: Task, predictions: Predictions) -> Diagnosis | None:
    import numpy as np

    splits = predictions.by_split(task.best.score.runs).values()
    if not splits:
        return None
    ids, formulas, target = (
        np.concatenate([getattr(split.rows, name) for split in splits])
        for name in ("material_id", "formula", "target")
    )
    predicted = [np.array(list(split.predictions.values())) for split in splits]  # (n_runs, n_rows)
    mean = np.concatenate([runs.mean(axis=0) for runs in predicted])
    errors = np.concatenate(
        [
            np.abs(runs - split.rows.target).mean(axis=0)
            for runs, split in zip(predicted, splits, strict=True)
        ]
    )
    order = np.argsort(-errors, kind="stable")
    n_share = max(1, round(WORST_SHARE * len(errors)))
    elements, n_unreadable = errors_by_element(formulas, errors, mean - target)
    return Diagnosis(
        task=task,
        result=task.best,
        n_runs=sum(map(len, predicted)),
        n_rows=len(target),
        points=Points(
            task.property,
            task.unit,
            np.concatenate(
                [np.tile(split.rows.target, len(split.predictions)) for split in splits]
            ),
            np.concatenate([runs.ravel() for runs in predicted]),
        ),
        mae=float(errors.mean()),
        median=float(np.median(errors)),
        n_worst=n_share,
        worst_share=float(errors[order[:n_share]].sum() / (errors.sum() or 1)),
        elements=elements,
        n_unreadable=n_unreadable,
        worst=tuple(
            WorstRow(
                str(ids[row]),
                str(formulas[row]),
                float(target[row]),
                float(mean[row]),
                float(errors[row]),
            )
            for row in order[:N_WORST]
        ),
    )


def errors_by_element(
    formulas: Iterable[str], errors: "np.ndarray", residuals: "np.ndarray"
) -> tuple[tuple[ElementError, ...], int]:
    """Average errors over the rows that contain each element.

    Args:
        formulas: formulas (n_rows,).
        errors: absolute errors (n_rows,).
        residuals: predictions minus targets (n_rows,).

    Returns:
        The errors of each element that occurs, by atomic number, and the number of rows whose
        formula cannot be read.
    """
    import numpy as np

    from irnet_hpc.data.elements import NUMBER, SYMBOLS
    from irnet_hpc.data.formulas import InvalidFormula, parse_formula

    rows, numbers, n_unreadable = [], [], 0
    for row, formula in enumerate(formulas):
        try:
            elements = [NUMBER[symbol] for symbol in parse_formula(str(formula))]
        except (InvalidFormula, KeyError):
            n_unreadable += 1
            continue
        rows += [row] * len(elements)
        numbers += elements
    n = np.bincount(np.array(numbers, int), minlength=len(SYMBOLS) + 1)
    sums = (
        np.bincount(np.array(numbers, int), values[np.array(rows, int)], len(n))
        for values in (errors, residuals)
    )
    maes, biases = (total / np.maximum(n, 1) for total in sums)
    return tuple(
        ElementError(
            SYMBOLS[number - 1], int(n[number]), float(maes[number]), float(biases[number])
        )
        for number in np.flatnonzero(n)
    ), n_unreadable
