"""Evaluation: which weights, which population statistics, which rows, and what is predicted for them."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.models.network import FlatParameters, Network, autocast
from irnet_hpc.models.normalisation import rank_groups
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train.checkpoint import NEVER
from irnet_hpc.train.dataset import Dataset, Part
from irnet_hpc.train.joint import relative_errors

EVALUATION_ROWS = 4096  # a forward pass


@contextlib.contextmanager
def weights(flat: FlatParameters, values: Tensor) -> Iterator[None]:
    """The network with other weights (K, n_params), for an evaluation."""
    own = flat.values.clone()
    flat.values.copy_(values)
    try:
        yield
    finally:
        flat.values.copy_(own)


@torch.no_grad()
def take_statistics(network: Network, rows: Part, recipe: Recipe, comm: Comm) -> None:
    """Population statistics from whole groups of the first training rows, shared out over the ranks."""
    n_groups = min(recipe.statistics_rows, len(rows)) // recipe.norm_group or 1
    first, last = (
        (n_groups * r // comm.size) * recipe.norm_group for r in (comm.rank, comm.rank + 1)
    )
    groups = rank_groups(recipe.norm_group, recipe.norm_group, 0, 1, comm.sum_, rows.device)
    at_once = max(1, EVALUATION_ROWS // recipe.norm_group) * recipe.norm_group

    def run() -> int:
        with autocast(recipe.precision, rows.device):
            for _, x in rows.slabs(first, last, at_once):
                network(_for_all(network, x), groups)
        return last - first

    network.population_statistics(run, comm.sum_)


@torch.no_grad()
def outputs(network: Network, rows: Part, recipe: Recipe, comm: Comm) -> np.ndarray:
    """What the network says of rows (..., n_rows, n_outputs), float64 and scaled, on every rank; each rank computes a share,
    none is padded."""
    weight = network.output.weight  # (..., n_outputs, n_inputs)
    out = weight.new_zeros(*weight.shape[:-2], len(rows), weight.shape[-2], dtype=torch.float64)
    first, last = len(rows) * comm.rank // comm.size, len(rows) * (comm.rank + 1) // comm.size
    with autocast(recipe.precision, rows.device):
        for places, x in rows.slabs(first, last, EVALUATION_ROWS):
            out[..., places, :] = network(_for_all(network, x)).double()
    return comm.sum_(out).cpu().numpy()


def _for_all(network: Network, x: Tensor) -> Tensor:
    """Features (n_rows, n_features) for every replica: (..., n_rows, n_features)."""
    return x.expand(*network.output.weight.shape[:-2], -1, -1)


def in_unit(out: np.ndarray, rows: Part, data: Dataset) -> np.ndarray:
    """Outputs of one network (n_rows, n_outputs) -> predictions float64 in the property's unit, cut at its floor.

    Their shape is that of the targets: (n_rows,), of several properties (n_rows, n_properties).
    """
    scaling = data.scaling
    return np.maximum(
        out.reshape(rows.target.shape) * scaling.target_scale + scaling.target_mean, scaling.floor
    )


def predict(network: Network, rows: Part, data: Dataset, recipe: Recipe, comm: Comm) -> np.ndarray:
    """Predictions of one network for rows, on every rank: see `outputs` and `in_unit`."""
    return in_unit(outputs(network, rows, recipe, comm), rows, data)


def row_errors(prediction: np.ndarray, rows: Part, data: Dataset) -> np.ndarray:
    """What the selection takes the mean of (n_rows,): |error| in the unit, of several properties the relative one."""
    if data.scaling.spread is None:
        return np.abs(prediction - rows.target)
    return relative_errors(prediction, rows.target, data.scaling.spread)


def select_halves(halves: list, errors: np.ndarray, seed: int) -> None:
    """Protocol `paper`: the best epoch by each half of the test rows, and what the other half says of that epoch."""
    if len(errors) < 2:
        return
    first = (
        np.random.Generator(np.random.Philox(key=[seed, 2**32])).permutation(len(errors))
        < len(errors) // 2
    )
    maes = [float(errors[first].mean()), float(errors[~first].mean())]
    for half, kept in enumerate(halves):
        if maes[half] < kept[0]:
            kept[:] = [maes[half], maes[1 - half]]


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
    return {
        "unit": unit,
        "test_mae": mae,
        "test_rmse": rmse,
        "test_r2": r2,
        "baseline_mae": baseline,
    }


def measure_several(
    spec: RunSpec, pack: Pack, data: Dataset, prediction: np.ndarray, of_val: np.ndarray | None
) -> dict:
    """The errors of each property, over the rows that report it, and the means of their relative errors."""
    per_property, train, val, test = {}, data.train.target, data.val.target, data.test.target
    for p, name in enumerate(spec.properties):
        columns = [part[:, p] for part in (train, val, test)]
        of_train, of_validation, of_test = (~np.isnan(column) for column in columns)
        found = measure(
            pack.units[name], train[of_train, p], test[of_test, p], prediction[of_test, p]
        )
        val_mae = (
            float(np.abs(of_val[:, p] - val[:, p])[of_validation].mean())
            if of_validation.any()
            else None
        )
        counts = {"n_train": of_train.sum(), "n_val": of_validation.sum(), "n_test": of_test.sum()}
        per_property[name] = (
            found | {"val_mae": val_mae} | {count: int(n) for count, n in counts.items()}
        )
    relative = {
        field: float(
            np.mean(
                [
                    one[field] / spread
                    for one, spread in zip(per_property.values(), data.scaling.spread, strict=True)
                ]
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
