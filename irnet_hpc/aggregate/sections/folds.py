"""Show how good the models of a table are whose rows were dealt to folds, and the honest choice.

The best of many models on the test rows is a little too good, since these rows chose it. The line
"chosen on val in each fold" is free of that: each fold chooses by its own val rows.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, missing
from irnet_hpc.aggregate.mae_table import difference_format, interval_text, row_format
from irnet_hpc.aggregate.scores import MIN_RUNS
from irnet_hpc.aggregate.task_results import Task
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.folds import chosen_on_val
from irnet_hpc.runs.predictions import LabelledRows, Predictions

if TYPE_CHECKING:
    import numpy as np

CHOSEN = "chosen on val in each fold"
TEXT = (
    "Each row of the table is test in one fold and is predicted by a model that was not trained on "
    "it, so the test MAE is over all rows. "
    f"{CHOSEN}: within each fold, the features, model and recipe with the lowest MAE on val are "
    "chosen and predict the test rows of the fold; the predictions of all folds are put together. "
    "This is the MAE to expect of the best model, if val chooses it. The lowest MAE of the other "
    "lines is a little too good, since the test rows themselves choose it. interval: 95 % of a "
    "bootstrap that redraws rows by formula; repeats and seeds are averaged first. difference: the "
    "model's MAE minus that of the choice, row by row, with its interval; where the interval "
    "contains zero, the two may be equally good. The folds share most of their training rows, so "
    "for another table of the same kind the MAE may differ by more than an interval says."
)
HEADER = (
    *("model", "features", "recipe", "test MAE", "95 % interval", "difference", "its interval"),
    *("val MAE", "rows", "trainings"),
)


@dataclasses.dataclass(frozen=True)
class FoldScore:
    """The errors of one model over all rows of a table, in the property's unit."""

    model: str
    features: str
    recipe: str
    mae: float
    low: float | None  # None: fewer than MIN_RUNS trainings
    high: float | None
    difference: float | None  # its MAE minus that of the choice; None: there is no choice
    difference_low: float | None
    difference_high: float | None
    val_mae: float | None
    n_rows: int
    n_trainings: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Errors:
    """The absolute errors of one model's joined runs, which have the same rows."""

    runs: Sequence[FinishedRun]
    rows: LabelledRows
    errors: "np.ndarray"  # (1, n_rows), averaged over the runs


def section(findings: Findings) -> Section:
    """Make a block for each task whose rows were dealt to folds."""
    blocks, records = [], []
    for task in findings.tasks:
        if scores := fold_scores(task, findings.predictions):
            name = f"{task.dataset}-{task.property}"
            blocks.append(TableBlock(task.label, name, _grid(task, scores)))
            known = {"dataset": task.dataset, "property": task.property, "unit": task.unit}
            records += [known | dataclasses.asdict(score) for score in scores]
    bold = "the model that val chooses in each fold"
    return Section("folds", "Out-of-fold errors", TEXT, blocks, records, bold)


def fold_scores(task: Task, predictions: Predictions) -> list[FoldScore]:
    """Score the models of a task by their out-of-fold predictions.

    Returns:
        The choice of nested selection, if there is one, then the models with the lowest MAE first;
        empty if the task has no folds or no predictions can be read.
    """
    runs = [run for result in task.results for run in result.score.runs if run.folds]
    if not runs:
        return []
    nested = chosen_on_val(runs)
    choice = _read(nested, predictions)
    scores = []
    for result in task.results:
        own = _read([run for run in result.score.runs if run.folds], predictions)
        if own:
            words = str(result.model), result.features, result.training
            scores.append(_score(words, own, choice, result.val_mae))
    scores.sort(key=lambda score: score.mae)
    if choice:
        val = [run.result.val_mae for run in nested if run.result.val_mae is not None]
        words = CHOSEN, _counts(nested, _features), _counts(nested, _training)
        scores.insert(0, _score(words, choice, None, sum(val) / len(val) if val else None))
    return scores


def _features(run: FinishedRun) -> str:
    return str(run.result.pack_identity.get("features", "not stated"))


def _training(run: FinishedRun) -> str:
    return f"{run.spec.model} {run.spec.recipe}".removesuffix(" grid")


def _counts(nested: Iterable[FinishedRun], words: Callable[[FinishedRun], str]) -> str:
    """Say how often each value was chosen, e.g. `irnet-17 onecycle 4, ridge 1`."""
    counts = Counter(words(fold) for run in nested for fold in run.folds)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _read(runs: Sequence[FinishedRun], predictions: Predictions) -> _Errors | None:
    """Read the errors of joined runs; None if one of them cannot be read or has other rows."""
    import numpy as np

    read = [predictions.read(run) for run in runs]
    known = [found for found in read if found is not None]
    if not known or len(known) < len(read):
        return None
    rows = known[0][0]
    if not all(other.is_same(rows) for other, _ in known):
        return None
    errors = np.abs(np.array([found for _, found in known]) - rows.target)
    return _Errors(runs, rows, errors.mean(axis=0, keepdims=True))


def _score(
    words: tuple[str, str, str], own: _Errors, choice: _Errors | None, val_mae: float | None
) -> FoldScore:
    from irnet_hpc.aggregate.statistics import mean_interval, paired_interval

    group = own.rows.formula_number
    n_trainings = sum(run.n_trainings for run in own.runs)
    has_interval = n_trainings >= MIN_RUNS
    interval = mean_interval([own.errors], [group])
    against = None
    if choice is not None and choice.rows.is_same(own.rows):
        against = paired_interval([own.errors], [choice.errors], [group])
    return FoldScore(
        *words,
        mae=float(own.errors.mean()),
        low=interval.low if has_interval else None,
        high=interval.high if has_interval else None,
        difference=against.mean if against else None,
        difference_low=against.low if against and has_interval else None,
        difference_high=against.high if against and has_interval else None,
        val_mae=val_mae,
        n_rows=own.errors.shape[1],
        n_trainings=n_trainings,
    )


def _grid(task: Task, scores: Sequence[FoldScore]) -> list[Line]:
    form = row_format(task.best.row)
    return [line_of(*HEADER), *(_line(score, form) for score in scores)]


def _line(score: FoldScore, form: str) -> Line:
    is_choice, few = score.model == CHOSEN, missing(f"n < {MIN_RUNS}")
    return line_of(
        Text(score.model, is_choice),
        score.features,
        score.recipe,
        Text(f"{score.mae:{form}}", is_choice),
        _interval(score.low, score.high, form) or few,
        *_difference(score, is_choice, few),
        missing("none") if score.val_mae is None else f"{score.val_mae:{form}}",
        f"{score.n_rows:,}",
        str(score.n_trainings),
    )


def _difference(score: FoldScore, is_choice: bool, few: Text) -> Iterator[str | Text]:
    if score.difference is None:
        yield from [missing("is the choice" if is_choice else "no choice")] * 2
        return
    low, high = score.difference_low, score.difference_high
    spread = [(high - low) / 4] if low is not None and high is not None else []
    form = difference_format([score.difference], spread)
    yield f"{score.difference:{form}}"
    yield _interval(low, high, form) or few


def _interval(low: float | None, high: float | None, form: str) -> str | None:
    return None if low is None or high is None else interval_text(low, high, form)
