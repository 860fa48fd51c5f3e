"""Train some steps of every kind on the stand-in, and print what they did to the GPU.

python -m tests.fake_gpu.steps [NAME ...]     # under the stand-in; see stand_in.py
"""

import ctypes
import functools
import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.models.architectures import layer_string
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train.dataset import Dataset, arrange
from irnet_hpc.train.evaluation import outputs, take_statistics, weights
from irnet_hpc.train.stack import Replica, Stack
from irnet_hpc.train.step import WARM_UP, Step
from tests import builders

N_FEATURES, N_STEPS = 40, 8
IRNET = "32BARx4-16BARx2-1"
# name -> layer string, number of replicas, of properties, rows at once, and fields of the recipe
KINDS: dict[str, tuple[str, int, int, int | None, dict]] = {
    "irnet": (IRNET, 1, 1, None, {}),
    "plain": ("32BAx4-16BAx2-1", 1, 1, None, {}),
    "srnet": ("32BAx4R-16BAx2R-1", 1, 1, None, {}),
    "brnet": ("32L0.3Rx2+2-16L0.3Rx2-1", 1, 1, None, {"precision": "fp32"}),
    "branches and dropout": ("24L0.3Rx2+1D0.2-16BAD0.1x2-1", 1, 1, None, {}),
    "elemnet": ("32Ax4D0.2-16Ax3D0.1-1", 1, 1, None, {}),
    "fp32": (IRNET, 1, 1, None, {"precision": "fp32"}),
    "fp64": (IRNET, 1, 1, None, {"precision": "fp64"}),
    "adam": (IRNET, 1, 1, None, {"optimizer": "adam", "weight_decay": 0.0}),
    "mse": (IRNET, 1, 1, None, {"loss": "mse"}),
    "huber": (IRNET, 1, 1, None, {"loss": "huber"}),
    "censored": (IRNET, 1, 1, None, {"floor": "censored"}),
    "no average": (IRNET, 1, 1, None, {"ema": 0.0}),
    "frozen layers": (IRNET, 1, 1, None, {"trained_layers": 2}),
    "two properties": (IRNET, 1, 2, None, {}),
    "micro-batches": (IRNET, 1, 1, 32, {}),
    "three cells": (IRNET, 3, 1, None, {}),
    "three cells, fp32": (IRNET, 3, 1, None, {"precision": "fp32"}),
    "three cells, dropout": ("32Ax4D0.2-16Ax3D0.1-1", 3, 1, None, {}),
    "three cells, two properties": (IRNET, 3, 2, None, {}),
    "three cells, frozen layers": (IRNET, 3, 1, None, {"trained_layers": 2}),
    "three cells, micro-batches": (IRNET, 3, 1, 32, {}),
    "IRNet-17": (layer_string("irnet", 17), 1, 1, None, {"batch": 256, "norm_group": 256}),
    "IRNet-48": (layer_string("irnet", 48), 1, 1, None, {"batch": 256, "norm_group": 256}),
    "IRNet-17, 16 cells": (
        layer_string("irnet", 17),
        16,
        1,
        None,
        {"batch": 256, "norm_group": 256},
    ),
}
DEVICE = torch.device("cuda", 0)


def report() -> dict:
    """Return what happened to the GPU since the last call."""
    call = ctypes.CDLL(None).fake_gpu_report
    call.restype = ctypes.c_char_p
    return json.loads(call())


def replicas(
    layers: str,
    k: int,
    n_properties: int,
    recipe_fields: dict,
    device: torch.device = DEVICE,
    n_features: int = N_FEATURES,
) -> list[Replica]:
    """Make replicas that share made-up rows, enough for N_STEPS steps."""
    fields = {"name": "t", "base": "onecycle", "batch": 64, "norm_group": 16} | recipe_fields
    recipe, random = resolve(fields), np.random.default_rng(0)
    n_rows = N_STEPS * recipe.batch
    x = random.normal(size=(n_rows, n_features)).astype(np.float32)
    y = random.normal(size=(n_rows, n_properties))
    y[::7, 0] = np.nan if n_properties > 1 else 0
    rows = (np.arange(n_rows), x, y if n_properties > 1 else y[:, 0])
    data: Dataset = arrange((rows, rows, rows), recipe, device)
    names = ",".join(f"p{i}" for i in range(n_properties))
    specs = [RunSpec("pack", names, recipe="t", seed=seed, **model_of(layers)) for seed in range(k)]
    return [
        Replica(builders.run_of(spec, recipe, Path("/nonexistent/run")), data) for spec in specs
    ]


def begun(
    members: list[Replica], micro_batch: int | None = None, device: torch.device = DEVICE
) -> tuple[Stack, Step]:
    """Make a stack and its step, at the beginning of an epoch."""
    stack = Stack(members, Alone(), device)
    # In a function of its own: the stack's optimiser refers to the frames of those who made it, and
    # so to their variables.
    return stack, _begun(stack, micro_batch)


def _begun(stack: Stack, micro_batch: int | None) -> Step:
    step = Step(stack, Alone(), True, micro_batch)
    n_rows, k = len(stack.replicas[0].data.train), len(stack.replicas)
    visited = [np.random.default_rng(seed).permutation(n_rows) for seed in range(k)]
    step.begin(visited, np.full((N_STEPS, k), 1e-3))
    return step


def phases(
    layers: str, k: int, n_properties: int, micro_batch: int | None, recipe_fields: dict
) -> dict:
    """Return what a step does to the GPU when launched, recorded and replayed, and what follows."""
    members = replicas(layers, k, n_properties, recipe_fields)
    stack, step = begun(members, micro_batch)
    found, places = {}, dict(enumerate(["launched"] * WARM_UP + ["recorded", "replayed"]))
    torch.cuda.synchronize()
    report()
    for i, name in places.items():
        step(i, False)
        found[name] = report()
    recipe, data = members[0].recipe, members[0].data
    with weights(stack.flat, stack.average):
        take_statistics(stack.network, data.train, recipe, Alone())
        outputs(stack.network, data.val, recipe, Alone())
    found["evaluation"] = report()
    graphs = [step.gradients.graph is not None, step.update.graph is not None]
    return {"graphs": graphs} | found


def main() -> None:
    """Print the phases of the kinds that are named, or of all, as JSON."""
    logging.basicConfig(format="%(message)s")
    # torch keeps weak references to what a graph reads, and checks them at each replay.
    torch.cuda.graph = functools.partial(torch.cuda.graph, check_input_liveness=True)
    report()
    print(json.dumps({name: phases(*KINDS[name]) for name in sys.argv[1:] or KINDS}))


if __name__ == "__main__":
    main()
