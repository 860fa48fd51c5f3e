"""Evaluate networks: set weights, compute population statistics, predict rows, measure errors."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.network import Network, autocast
from irnet_hpc.models.normalisation import rank_groups
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train.checkpoint import NEVER
from irnet_hpc.train.dataset import Dataset, Part
from irnet_hpc.train.joint import relative_errors

EVALUATION_ROWS = 4096  # rows per forward pass
# On a GPU a forward pass has as many rows as a batch, but at most so many: launching its kernels
# takes as long for few rows as for many.
MOST_ROWS = 32_768


def rows_at_once(batch: int, device: torch.device) -> int:
    """Return the number of rows per forward pass, for training with `batch` rows on a device."""
    return min(max(batch, EVALUATION_ROWS), MOST_ROWS) if device.type == "cuda" else EVALUATION_ROWS


@contextlib.contextmanager
def weights(flat: FlatParameters, values: Tensor) -> Iterator[None]:
    """Use `values` (K, n_params) as the weights of the network inside the block."""
    own = flat.values.clone()
    flat.values.copy_(values)
    try:
        yield
    finally:
        flat.values.copy_(own)


@torch.no_grad()
def take_statistics(network: Network, rows: Part, recipe: Recipe, comm: Comm) -> bool:
    """Compute the population statistics of the normalisation layers, from the first training rows.

    Only whole groups of rows are used. The groups are divided among the ranks. If a unit hardly
    varies from row to row, a rank's share also goes through the network as a whole, and True is
    returned.
    """
    n_groups = min(recipe.statistics_rows, len(rows)) // recipe.norm_group or 1
    first, last = (
        (n_groups * r // comm.size) * recipe.norm_group for r in (comm.rank, comm.rank + 1)
    )
    groups = rank_groups(recipe.norm_group, recipe.norm_group, 0, 1, comm.sum_, rows.device)
    at_once = max(1, EVALUATION_ROWS // recipe.norm_group) * recipe.norm_group

    def run() -> int:
        for _, x in rows.slabs(first, last, at_once):
            network(_for_all(network, x), groups)
        return last - first

    def evaluate() -> None:
        slabs = [x.clone() for _, x in rows.slabs(first, last, at_once)]
        no_rows = rows.y.new_empty(0, rows.n_features)  # a rank may have no group
        network(_for_all(network, torch.cat([no_rows, *slabs])))

    with autocast(recipe.precision, rows.device):
        return network.population_statistics(run, evaluate, comm.sum_)


@torch.no_grad()
def outputs(network: Network, rows: Part, recipe: Recipe, comm: Comm) -> np.ndarray:
    """Run the network on rows.

    Each rank computes a share of them, and every rank returns all outputs.

    Returns:
        The outputs, (..., n_rows, n_outputs) float64, still scaled.
    """
    weight = network.output.weight  # (..., n_outputs, n_inputs)
    out = weight.new_zeros(*weight.shape[:-2], len(rows), weight.shape[-2], dtype=torch.float64)
    first, last = len(rows) * comm.rank // comm.size, len(rows) * (comm.rank + 1) // comm.size
    at_once = rows_at_once(recipe.batch // comm.size, rows.device)
    with autocast(recipe.precision, rows.device):
        for places, x in rows.slabs(first, last, at_once):
            out[..., places, :] = network(_for_all(network, x)).double()
    return comm.sum_(out).cpu().numpy()


def _for_all(network: Network, x: Tensor) -> Tensor:
    """Repeat features (n_rows, n_features) for each replica: (..., n_rows, n_features)."""
    return x.expand(*network.output.weight.shape[:-2], -1, -1)


def in_unit(out: np.ndarray, rows: Part, data: Dataset) -> np.ndarray:
    """Convert the outputs of one network to the property's unit, and raise them to its floor.

    Args:
        out: (n_rows, n_outputs).
        rows: The rows of these outputs.
        data: The data, whose scaling is undone.

    Returns:
        Predictions float64 (n_rows,), or (n_rows, n_properties) for several properties.
    """
    return data.scaling.in_unit(out.reshape(rows.target.shape))


def predict(network: Network, rows: Part, data: Dataset, recipe: Recipe, comm: Comm) -> np.ndarray:
    """Predict the target of each row with one network, in the property's unit, on every rank."""
    return in_unit(outputs(network, rows, recipe, comm), rows, data)


def row_errors(prediction: np.ndarray, rows: Part, data: Dataset) -> np.ndarray:
    """Compute the |error| or relative error of each row (n_rows,). Their mean selects the epoch."""
    if data.scaling.spread is None:
        return np.abs(prediction - rows.target)
    return relative_errors(prediction, rows.target, data.scaling.spread)


def select_halves(halves: list, errors: np.ndarray, seed: int) -> None:
    """Update the records from which `optimism` is estimated after a training of protocol `paper`.

    The test rows are divided into two halves. A half's record is kept from the epoch in which the
    MAE on this half was lowest.

    Args:
        halves: For each half, [its lowest MAE so far, the MAE of the other half in that epoch];
            changed in place.
        errors: The errors of the test rows in this epoch (n_rows,).
        seed: The seed of the run, which also decides the halves.
    """
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
    """Compute MAE, RMSE and R² of arrays (n_rows,); R² is None for a constant target."""
    error = prediction - target
    spread = float(((target - target.mean()) ** 2).sum())
    r2 = 1 - float((error**2).sum()) / spread if spread > 0 else None
    return float(np.abs(error).mean()), float(np.sqrt((error**2).mean())), r2


def measure(unit: str, train: np.ndarray, test: np.ndarray, prediction: np.ndarray) -> dict:
    """Compute the errors of one property, as fields of RunResult.

    Args:
        unit: The unit of the targets.
        train: Reported targets of the training rows (n_train,).
        test: Targets of the test rows (n_test,).
        prediction: Predictions for the test rows (n_test,).
    """
    mae, rmse, r2 = metrics(test, prediction)
    return {
        "unit": unit,
        "test_mae": mae,
        "test_rmse": rmse,
        "test_r2": r2,
        "baseline_mae": baseline_mae(train, test),
    }


def baseline_mae(train: np.ndarray, rows: np.ndarray) -> float:
    """Compute the MAE of predicting the median of targets `train` (n_train,) for rows (n_rows,)."""
    return float(np.abs(rows - np.median(train)).mean())


def measure_several(
    spec: RunSpec,
    pack: Pack,
    data: Dataset,
    prediction: np.ndarray,
    val_prediction: np.ndarray | None,
) -> dict:
    """Compute the errors of each property on the rows that report it, and their relative averages.

    Args:
        spec: The specification of the run.
        pack: The pack, which states the units.
        data: The rows of the pack.
        prediction: Predictions for the test rows (n_test, n_properties).
        val_prediction: Predictions for the val rows (n_val, n_properties); None if there are none.
    """
    per_property, train, val, test = {}, data.train.target, data.val.target, data.test.target
    for p, name in enumerate(spec.properties):
        columns = [part[:, p] for part in (train, val, test)]
        in_train, in_val, in_test = (~np.isnan(column) for column in columns)
        val_mae = val_baseline_mae = None
        if val_prediction is not None and in_val.any():
            val_baseline_mae = baseline_mae(train[in_train, p], val[in_val, p])
            val_mae = float(np.abs(val_prediction[:, p] - val[:, p])[in_val].mean())
        per_property[name] = {
            **measure(
                pack.units[name], train[in_train, p], test[in_test, p], prediction[in_test, p]
            ),
            "val_mae": val_mae,
            "val_baseline_mae": val_baseline_mae,
            "n_train": int(in_train.sum()),
            "n_val": int(in_val.sum()),
            "n_test": int(in_test.sum()),
        }
    spreads = data.scaling.spread
    assert spreads is not None
    relative = {}
    for field in ("test_mae", "test_rmse", "baseline_mae"):
        errors = [measured[field] for measured in per_property.values()]
        relative[field] = float(
            np.mean([error / spread for error, spread in zip(errors, spreads, strict=True)])
        )
    r2s = [measured["test_r2"] for measured in per_property.values()]
    r2 = None if None in r2s else float(np.mean(r2s))
    return {"unit": "relative", **relative, "test_r2": r2, "per_property": per_property}


def optimism(halves: list) -> float | None:
    """Estimate by how much the test MAE is too low because the test rows have selected the epoch.

    Each half of the test rows selects an epoch; the other half, which did not select, gives an
    honest MAE in that epoch.

    Args:
        halves: For each half, [MAE of this half, MAE of the other half]; see `select_halves`.

    Returns:
        The mean of the differences, in the property's unit; None if a half has no rows.
    """
    if any(mae == NEVER for mae, _ in halves):
        return None
    return float(np.mean([other - chosen for chosen, other in halves]))
