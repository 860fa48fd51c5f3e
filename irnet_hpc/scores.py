"""How good predictions are: the test MAE is computed here, in the property's unit, once over all rows."""

import numpy as np

from irnet_hpc.checkpoint import NEVER
from irnet_hpc.data import Dataset
from irnet_hpc.runs import RunSpec
from irnet_hpc.store import Pack


def metrics(target: np.ndarray, prediction: np.ndarray) -> tuple[float, float, float | None]:
    """MAE and RMSE in the unit of the arrays (n_rows,), and R²; None where the target does not vary."""
    error = prediction - target
    spread = float(((target - target.mean()) ** 2).sum())
    r2 = 1 - float((error**2).sum()) / spread if spread > 0 else None
    return float(np.abs(error).mean()), float(np.sqrt((error**2).mean())), r2


def measure(unit: str, train: np.ndarray, test: np.ndarray, prediction: np.ndarray) -> dict:
    """The errors of one property, from reported targets (n_rows,) in `unit`, as RunResult names them."""
    mae, rmse, r2 = metrics(test, prediction)
    baseline = float(np.abs(test - np.median(train)).mean())
    return {"unit": unit, "test_mae": mae, "test_rmse": rmse, "test_r2": r2, "baseline_mae": baseline}


def measure_several(
    spec: RunSpec, pack: Pack, data: Dataset, prediction: np.ndarray, of_val: np.ndarray | None
) -> dict:
    """The errors of each property, over the rows that report it, and the means of their relative errors."""
    per_property, train, val, test = {}, data.train.target, data.val.target, data.test.target
    for p, name in enumerate(spec.properties):
        columns = [part[:, p] for part in (train, val, test)]
        of_train, of_validation, of_test = (~np.isnan(column) for column in columns)
        found = measure(pack.units[name], train[of_train, p], test[of_test, p], prediction[of_test, p])
        val_mae = float(np.abs(of_val[:, p] - val[:, p])[of_validation].mean()) if of_validation.any() else None
        counts = {"n_train": of_train.sum(), "n_val": of_validation.sum(), "n_test": of_test.sum()}
        per_property[name] = found | {"val_mae": val_mae} | {count: int(n) for count, n in counts.items()}
    relative = {
        field: float(
            np.mean(
                [one[field] / spread for one, spread in zip(per_property.values(), data.scaling.spread, strict=True)]
            )
        )
        for field in ("test_mae", "test_rmse", "baseline_mae")
    }
    r2s = [one["test_r2"] for one in per_property.values()]
    r2 = None if None in r2s else float(np.mean(r2s))
    return {"unit": "relative", **relative, "test_r2": r2, "per_property": per_property}


def optimism(halves: list) -> float | None:
    """How much lower the MAE is on the half of the test rows that chose the epoch than on the other, in the unit, averaged
    over both ways round; None where a half has no rows. `halves` are two of [MAE of the half, of the other half]."""
    if any(mae == NEVER for mae, _ in halves):
        return None
    return float(np.mean([other - chosen for chosen, other in halves]))
