"""Write the files of a finished training: first its predictions, and last its result."""

import dataclasses
import logging
from typing import Any, NamedTuple

import numpy as np

from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.collect import FinishedRun, one_a_property
from irnet_hpc.runs.result import RunResult
from irnet_hpc.train.dataset import Dataset
from irnet_hpc.train.evaluation import baseline_mae, measure, measure_several
from irnet_hpc.train.run import Run

logger = logging.getLogger(__name__)

REMEDY = "on few rows a classical model such as extra_trees is often better"


class Predictions(NamedTuple):
    """Predictions of a finished model, in the unit of each property.

    The shape is (n_rows,) or, for several properties, (n_rows, n_properties).
    """

    test: np.ndarray
    val: np.ndarray | None = None  # only for several properties


def begin(run: Run, pack: Pack, attempt: dict, origin: dict | None = None) -> list[dict]:
    """Write run.json.

    Args:
        run: The run.
        pack: Its pack.
        attempt: The facts of this attempt: size, engine, threads and, for a network, data.
        origin: The facts of the run that this run starts from; None if there is none.

    Returns:
        All attempts so far, of which the last is this one.
    """
    facts = {
        "spec": dataclasses.asdict(run.spec),
        "recipe": dataclasses.asdict(run.recipe),
        "key": run.key,
        "pack_identity": pack.identity,
        "origin": origin,
    }
    return run.folder.begin(facts, attempt)


def write_result(
    run: Run, pack: Pack, data: Dataset, predictions: Predictions, **fields: Any
) -> RunResult:
    """Write the predictions and the result; then remove the checkpoints.

    Args:
        run: The run.
        pack: Its pack.
        data: The rows of the training.
        predictions: The predictions for the test rows and, for several properties, the val rows.
        **fields: The other fields of RunResult.
    """
    spec = run.spec
    run.folder.write_predictions(prediction_arrays(run, pack, data, predictions.test))
    if len(spec.properties) == 1:
        errors = measure(
            pack.units[spec.property], data.train.target, data.test.target, predictions.test
        )
        if fields["val_mae"] is not None:
            errors["val_baseline_mae"] = baseline_mae(data.train.target, data.val.target)
    else:
        errors = measure_several(run.spec, pack, data, predictions.test, predictions.val)
    result = RunResult(
        spec=dataclasses.asdict(spec),
        key=run.key,
        recipe=dataclasses.asdict(run.recipe),
        selected_on="val" if spec.protocol == "honest" else "test",
        n_train=len(data.train),
        n_val=len(data.val),
        n_test=len(data.test),
        pack_identity=pack.identity,
        **errors,
        **fields,
    )
    run.folder.write_result(result)
    return result


def warn_above_baseline(run: Run, result: RunResult) -> None:
    """Warn if the model is worse than predicting the median of the training rows.

    Each property of a network with several outputs is judged by itself, since their mean hides one
    that failed beside others that did not. A fold of a table has few test rows; unless it failed,
    only all folds together are judged (train/folds.py).
    """
    is_fold = "n_folds" in result.pack_identity.get("split", {})
    for part in one_a_property(FinishedRun(run.folder.path, run.spec, result)):
        errors = part.result
        if errors.is_far_above_baseline:
            logger.warning(
                f"WARNING: do not use {run.folder} for {part.spec.property}: its MAE, "
                f"{errors.test_mae:.4g} on test"
                + (f" and {errors.val_mae:.4g} on val" if errors.val_mae is not None else "")
                + f", is {errors.times_baseline:.3g} times the baseline's, which is "
                f"{errors.baseline_mae:.4g} {errors.unit} on test: predicting the median of the "
                "training rows is better"
            )
        elif errors.is_above_baseline and not is_fold:
            logger.warning(
                f"warning: predicting the median of the training rows of {part.spec.property} is "
                f"better than {run.folder}, over val and test: MAE {errors.test_mae:.4g} on test, "
                f"and the median's is {errors.baseline_mae:.4g} {errors.unit}; {REMEDY}"
            )


def prediction_arrays(
    run: Run, pack: Pack, data: Dataset, prediction: np.ndarray
) -> dict[str, np.ndarray]:
    """Make the arrays of test_predictions.npz: material_id, formula, target, prediction.

    For several properties, target and prediction are (n_test, n_properties), with NaN for values
    that are not reported, and the array `property` names the columns.
    """
    rows = pack.rows("test")
    position, target = data.test.row - rows.start, data.test.target
    arrays = {
        "material_id": np.array(pack.material_ids(rows), dtype=np.str_)[position],
        "formula": np.array(pack.formulas(rows), dtype=np.str_)[position],
        "target": target,
        "prediction": prediction,
    }
    if len(run.spec.properties) > 1:
        arrays["prediction"] = np.where(np.isnan(target), np.nan, prediction)
        arrays["property"] = np.array(run.spec.properties)
    return arrays
