"""Cells alone and as one stack: for test_bundles.py, which runs it under a launcher, too; rank 0
writes what came out of both.

mpirun -np 2 python tests/train/train_bundles.py ENGINE PACK OUT.json CASE ...
"""

import json
import sys
from pathlib import Path

import torch

from irnet_hpc.distributed.engines import start
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train import loop as training
from irnet_hpc.train.evaluation import predict
from irnet_hpc.train.stack import Replica, load_each
from irnet_hpc.train.stopping import NeverStop
from tests import builders

BASE = {
    "name": "t",
    "base": "onecycle",
    "precision": "fp64",
    "batch": 64,
    "norm_group": 16,
    "ema": 0.9,
    "epochs": 4,
}
ONE, TWO = "mixing_enthalpy", "size_mismatch"
# Three replicas: seed, property, and the recipe's own numbers. The second ends first, the third
# waits for nothing better.
MEMBERS = (
    (0, ONE, {}),
    (
        1,
        ONE,
        {"epochs": 2, "learning_rate": 5e-4, "weight_decay": 0, "decay_epochs": 3, "ema": 0.0},
    ),
    (
        2,
        TWO,
        {"schedule": "constant", "learning_rate": 2e-2, "patience": 1, "epochs": 6, "ema": 0.5},
    ),
)
# name -> layer string, what the three recipes have in common
CASES = {
    "plain": ("32Ax2-16Ax1-1", {}),
    "irnet": ("48BARx2-32BAx2R-1", {}),
    "spanning groups": ("32BARx2-1", {"norm_group": 64}),
    "brnet": ("24L0.3Rx2+2-16L0.3Rx1-1", {"loss": "huber"}),
    "elemnet": ("32Ax2D0.2-16Ax1D0.1-1", {"loss": "mse"}),
    "joint, censored": ("32BARx2-1", {"floor": "censored"}),
    "fp32": ("48BARx2-32BAx2R-1", {"precision": "fp32"}),
}


def replicas_of(name: str, pack_file: Path, folder: Path) -> list[Replica]:
    layers, common = CASES[name]
    recipes = [resolve(BASE | common | own) for _, _, own in MEMBERS]
    joint = f"{ONE},{TWO}" if name.startswith("joint") else None
    specs = [
        RunSpec("pack", joint or what, **model_of(layers), seed=seed) for seed, what, _ in MEMBERS
    ]
    with open_pack(pack_file) as pack:
        data = load_each(pack, specs, recipes[0], torch.device("cpu"), None)
    members = zip(specs, recipes, data, strict=True)
    return [
        Replica(builders.run_of(spec, recipe, folder / str(k), f"key{k}"), rows)
        for k, (spec, recipe, rows) in enumerate(members)
    ]


def outcome(ended: training.Ended, comm) -> dict:
    data, recipe = ended.replica.data, ended.replica.recipe
    return {
        "history": [row[:5] for row in ended.state.history],
        "best": [ended.state.best_epoch, ended.state.best_mae],
        "weights": torch.cat(
            [t.double().flatten() for t in ended.network.state_dict().values()]
        ).tolist(),
        "prediction": predict(ended.network, data.test, data, recipe, comm).tolist(),
    }


def trained(replicas: list[Replica], comm, stop=None) -> dict[str, dict]:
    """Seed -> outcome, in the order in which they ended."""
    found = {}
    for ended in training.train(replicas, comm, torch.device("cpu"), stop or NeverStop()):
        assert ended.error is None, ended.error
        found[str(ended.replica.spec.seed)] = outcome(ended, comm)
    return found


def together_and_alone(replicas: list[Replica], comm) -> dict[str, dict]:
    for replica in replicas:
        replica.run.folder.path.mkdir(parents=True, exist_ok=True)
    found = {"together": trained(replicas, comm), "alone": {}}
    for replica in replicas:
        found["alone"] |= trained([replica], comm)
    return found


def main() -> None:
    engine, pack_file, out = sys.argv[1], *map(Path, sys.argv[2:4])
    comm = start(engine, out.parent / "rendezvous")
    outcomes = {}
    for name in sys.argv[4:]:
        replicas = replicas_of(name, pack_file, out.parent / f"{out.stem}-{name}")
        outcomes[name] = together_and_alone(replicas, comm)
    if comm.rank == 0:
        out.write_text(json.dumps({"size": comm.size, "cases": outcomes}))
    comm.close()


if __name__ == "__main__":
    main()
