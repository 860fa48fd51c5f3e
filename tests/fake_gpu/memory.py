"""Train bundles on the stand-in, and print how much memory they take and give back.

python -m tests.fake_gpu.memory dropped               # a Step that nobody uses any more
python -m tests.fake_gpu.memory bundle 8 2048 FOLDER  # cells, batch and an empty folder for runs
"""

import dataclasses
import gc
import json
import logging
import sys
import weakref
from pathlib import Path

import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.models.architectures import layer_string
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.train.loop import train_all
from irnet_hpc.train.run import TrainOptions
from irnet_hpc.train.stopping import NeverStop
from tests.fake_gpu.steps import DEVICE, begun, replicas

LAYERS, MIB = layer_string("irnet", 17), 2**20


def recipe(batch: int) -> dict:
    """Return the fields of a recipe of one epoch."""
    return {"batch": batch, "norm_group": 256, "precision": "bf16", "epochs": 1}


def dropped() -> dict[str, float | bool]:
    """Return the memory, in MiB, before a Step is made, with its graphs, and without it."""
    gc.disable()
    stack, step = begun(replicas(LAYERS, 4, 1, recipe(1024)))
    before = torch.cuda.memory_allocated() / MIB
    for i in range(5):
        step(i, False)
    torch.cuda.synchronize()
    held, alive = torch.cuda.memory_reserved() / MIB, weakref.ref(step)
    del step
    is_freed = alive() is None
    torch.cuda.empty_cache()
    return {
        "before": before,
        "with graphs": held,
        "after": torch.cuda.memory_reserved() / MIB,
        "freed at once": is_freed,
        "weights": stack.flat.values.nbytes / MIB,
    }


def bundle(n_cells: int, batch: int, folder: Path) -> dict[str, list[int]]:
    """Train cells together; return for each how many were in the stack in which it ended."""
    members = []
    for replica in replicas(LAYERS, n_cells, 1, recipe(batch)):
        run = dataclasses.replace(
            replica.run, folder=RunFolder(folder / f"{n_cells}-{replica.spec.seed}")
        )
        members.append(dataclasses.replace(replica, run=run))
    sizes = []
    for cell in train_all(members, Alone(), DEVICE, NeverStop(), TrainOptions()):
        assert cell.error is None
        sizes.append(cell.bundle_size)
    return {"sizes": sizes}


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    if sys.argv[1] == "dropped":
        print(json.dumps(dropped()))
    else:
        print(json.dumps(bundle(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))
