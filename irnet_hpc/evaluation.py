"""Evaluation: which weights, which population statistics, which rows, and what is predicted for them."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.comm import Comm
from irnet_hpc.data import Dataset, Part
from irnet_hpc.joint import relative_errors
from irnet_hpc.model import FlatParameters, Network, autocast
from irnet_hpc.normalisation import rank_groups
from irnet_hpc.recipes import Recipe

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
    first, last = ((n_groups * r // comm.size) * recipe.norm_group for r in (comm.rank, comm.rank + 1))
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
    return np.maximum(out.reshape(rows.target.shape) * scaling.target_scale + scaling.target_mean, scaling.floor)


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
    first = np.random.Generator(np.random.Philox(key=[seed, 2**32])).permutation(len(errors)) < len(errors) // 2
    maes = [float(errors[first].mean()), float(errors[~first].mean())]
    for half, kept in enumerate(halves):
        if maes[half] < kept[0]:
            kept[:] = [maes[half], maes[1 - half]]
