"""Compare the models of a fit in one DataFrame."""

from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.statistics import mean_interval
from irnet_hpc.predict.saved import SavedFit
from irnet_hpc.runs.collect import FinishedRun, collect_runs
from irnet_hpc.runs.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd

BASELINE = "baseline"
COLUMNS = ("chosen", "val_mae", "test_mae", "low", "high", "test_rmse", "test_r2")
COUNTS = ("n_train", "n_val", "n_test")


def compare(results: Path, fit: SavedFit) -> "pd.DataFrame":
    """Make a DataFrame of the errors of all runs of a fit, the lowest val MAE first.

    Args:
        results: The folder of the runs.
        fit: The fit, which names the chosen runs.

    Returns:
        A row for each model and a last one for the baseline, with COLUMNS, COUNTS and `seconds`.
        Errors are in the property's unit.
    """
    import pandas as pd

    runs = [
        run
        for run in collect_runs(results)[0]
        if run.spec.pack == fit.pack and run.spec.property == fit.property
    ]
    chosen = {run.resolve() for run in fit.runs}
    predictions = Predictions()
    rows = {
        name: _row(run, run.folder.resolve() in chosen, predictions)
        for name, run in _named(runs).items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame = frame.sort_values("val_mae", kind="stable")
    last = runs[0].result
    baseline = {"chosen": False, "val_mae": last.val_baseline_mae, "test_mae": last.baseline_mae}
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


def _row(run: FinishedRun, chosen: bool, predictions: Predictions) -> dict[str, object]:
    result = run.result
    row: dict[str, object] = {"chosen": chosen, "seconds": result.wall_time_s}
    for column in ("val_mae", "test_mae", "test_rmse", "test_r2", *COUNTS):
        row[column] = getattr(result, column)
    if (read := predictions.read(run)) is not None:
        labelled, predicted = read
        errors = abs(predicted.astype(float) - labelled.target)
        interval = mean_interval([errors[None]], [labelled.formula_number])
        row |= {"low": interval.low, "high": interval.high}
    return row
