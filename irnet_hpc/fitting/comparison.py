"""Compare the models of a fit in one DataFrame."""

from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.statistics import mean_interval
from irnet_hpc.errors import UserError
from irnet_hpc.predict.saved import SavedFit
from irnet_hpc.runs.collect import FinishedRun, collect_runs
from irnet_hpc.runs.folds import chosen_on_val, join_folds
from irnet_hpc.runs.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "baseline"
NESTED = "chosen in each fold"
COLUMNS = ("chosen", "val_mae", "test_mae", "low", "high", "test_rmse", "test_r2")
COUNTS = ("n_train", "n_val", "n_test")


def compare(results: Path, fit: SavedFit) -> "pd.DataFrame":
    """Make a DataFrame of the errors of all runs of a fit, the lowest val MAE first.

    Args:
        results: The folder of the runs.
        fit: The fit, which names the chosen runs.

    Returns:
        A row for each model and a last one for the baseline, with COLUMNS, COUNTS and `seconds`.
        Errors are in the property's unit. Those of several folds are over the rows of all folds,
        and if there are several models, the row NESTED is before the last one.

    Raises:
        UserError: If the runs are missing.
    """
    import pandas as pd

    runs = [
        run
        for run in collect_runs(results)[0]
        if run.spec.pack in fit.packs and run.spec.property == fit.property
    ]
    if len(fit.packs) > 1:
        runs = [run for run in join_folds(runs).runs if run.folds]
    if not runs:
        raise UserError(f"{results} must have the runs of {fit.property}, but has none")
    predictions = Predictions()
    rows = {name: _row(run, fit, predictions) for name, run in _named(runs).items()}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame = frame.sort_values("val_mae", kind="stable")
    for run in chosen_on_val(runs)[:1]:  # none without folds, or of a single model
        nested = _row(run, fit, predictions) | {"chosen": False}
        frame = pd.concat([frame, pd.DataFrame([nested], index=[NESTED])])
    of_any = runs[0].result
    baseline = {
        "chosen": False,
        "val_mae": of_any.val_baseline_mae,
        "test_mae": of_any.baseline_mae,
    }
    frame = pd.concat([frame, pd.DataFrame([baseline], index=[BASELINE])])
    frame.index.name = "model"
    return frame[[*COLUMNS, *COUNTS, "seconds"]]


def _named(runs: list[FinishedRun]) -> dict[str, FinishedRun]:
    """Name each run by its model, and by what else it differs in from others of that model."""
    named: dict[str, FinishedRun] = {}
    for run in runs:
        spec = run.spec
        same = [other.spec for other in runs if other.spec.model == spec.model]
        name = spec.layers or spec.model
        if len({other.recipe for other in same}) > 1:
            name += f" {spec.recipe}"
        if len({other.seed for other in same}) > 1:
            name += f" seed {spec.seed}"
        if name in named:
            name += f" {run.folder.parent.name}"
        named[name] = run
    return named


def _row(run: FinishedRun, fit: SavedFit, predictions: Predictions) -> dict[str, object]:
    result, folders = run.result, {fold.folder for fold in run.folds or (run,)}
    chosen = {folder.resolve() for folder in folders} == {folder.resolve() for folder in fit.runs}
    row: dict[str, object] = {"chosen": chosen, "seconds": result.wall_time_s}
    for column in ("val_mae", "test_mae", "test_rmse", "test_r2", *COUNTS):
        row[column] = getattr(result, column)
    if (read := predictions.read(run)) is not None:
        labelled, predicted = read
        errors = abs(predicted.astype(float) - labelled.target)
        interval = mean_interval([errors[None]], [labelled.formula_number])
        row |= {"low": interval.low, "high": interval.high}
    return row
