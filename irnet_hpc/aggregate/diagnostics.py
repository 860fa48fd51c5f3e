"""Where the best model of each task errs: predictions beside targets, errors by element, the worst rows.

Over all runs of the model whose predictions can be read. A row's error is the mean over the seeds of its split.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.sections.tasks import Entry, Task
from irnet_hpc.errors import UserError
from irnet_hpc.runs.predictions import ARRAYS, read_predictions

if TYPE_CHECKING:
    import numpy as np


WORST = 12  # rows that are shown
WORST_PART = 0.05  # of the rows, whose part in the MAE is told


@dataclasses.dataclass(frozen=True)
class ElementError:
    """Over the test rows whose formula has the element, in the property's unit."""

    symbol: str
    n: int
    mae: float
    bias: float  # mean of prediction less target


@dataclasses.dataclass(frozen=True)
class WorstRow:
    material_id: str
    formula: str
    target: float
    prediction: float  # mean over the seeds
    error: float  # mean over the seeds of the absolute error


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    task: Task
    entry: Entry
    n_runs: int
    n_rows: int  # of all splits
    target: "np.ndarray"  # (n,) of every row of every run
    prediction: "np.ndarray"  # (n,)
    mae: float  # over the rows
    median: float  # of the rows' absolute errors
    worst_part: float  # what the worst WORST_PART of the rows make of the MAE, 0 to 1
    elements: tuple[ElementError, ...]  # by atomic number
    n_unreadable: int  # rows whose formula is no composition
    worst: tuple[WorstRow, ...]


def diagnoses(tasks: Iterable[Task], problems: dict[Path, str]) -> tuple[Diagnosis, ...]:
    """One a task whose best model has predictions. `problems` gets a sentence for each run whose are not there."""
    return tuple(found for task in tasks if (found := _diagnosis(task, task.best, problems)))


def _diagnosis(task: Task, entry: Entry, problems: dict[Path, str]) -> Diagnosis | None:
    import numpy as np

    of_split: dict[int | None, list[dict]] = {}
    for run in entry.cell.runs:
        try:
            arrays = read_predictions(run)
        except UserError as error:
            problems[run.folder] = str(error)
            continue
        others = of_split.setdefault(run.split, [])
        if not others or all(np.array_equal(arrays[name], others[0][name]) for name in ARRAYS[:3]):
            others.append(arrays)
    of_split = {split: found for split, found in of_split.items() if found}
    if not of_split:
        return None
    every = [arrays for found in of_split.values() for arrays in found]
    ids, formulas, target = (
        np.concatenate([found[0][name] for found in of_split.values()]) for name in ARRAYS[:3]
    )
    predictions = [
        np.array([arrays["prediction"] for arrays in found]) for found in of_split.values()
    ]
    mean = np.concatenate([one.mean(axis=0) for one in predictions])
    errors = np.concatenate(
        [
            np.abs(one - found[0]["target"]).mean(axis=0)
            for one, found in zip(predictions, of_split.values(), strict=True)
        ]
    )
    order = np.argsort(-errors, kind="stable")
    elements, n_unreadable = errors_by_element(formulas, errors, mean - target)
    return Diagnosis(
        task=task,
        entry=entry,
        n_runs=len(every),
        n_rows=len(target),
        target=np.concatenate([arrays["target"] for arrays in every]),
        prediction=np.concatenate([arrays["prediction"] for arrays in every]),
        mae=float(errors.mean()),
        median=float(np.median(errors)),
        worst_part=float(
            errors[order[: max(1, round(WORST_PART * len(errors)))]].sum() / (errors.sum() or 1)
        ),
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
            for row in order[:WORST]
        ),
    )


def errors_by_element(
    formulas: Sequence[str], errors: "np.ndarray", residuals: "np.ndarray"
) -> tuple[tuple[ElementError, ...], int]:
    """The elements that occur, and how many rows have a formula that cannot be read. All of (n_rows,)."""
    import numpy as np

    from irnet_hpc.data.elements import NUMBER, SYMBOLS
    from irnet_hpc.data.formulas import InvalidFormula, parse_formula

    rows, numbers, n_unreadable = [], [], 0
    for row, formula in enumerate(formulas):
        try:
            found = [NUMBER[symbol] for symbol in parse_formula(str(formula))]
        except (InvalidFormula, KeyError):
            n_unreadable += 1
            continue
        rows += [row] * len(found)
        numbers += found
    n = np.bincount(np.array(numbers, int), minlength=len(SYMBOLS) + 1)
    sums = (
        np.bincount(np.array(numbers, int), of[np.array(rows, int)], len(n))
        for of in (errors, residuals)
    )
    maes, biases = (total / np.maximum(n, 1) for total in sums)
    return tuple(
        ElementError(
            SYMBOLS[number - 1], int(n[number]), float(maes[number]), float(biases[number])
        )
        for number in np.flatnonzero(n)
    ), n_unreadable
