"""Run under a launcher by test_ranks.py: train small networks on the ranks there are, and let rank 0 write what came out.

mpirun -np 2 python tests/train_on_ranks.py ENGINE PACK OUT.json
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch

from irnet_hpc import train
from irnet_hpc.comm import start
from irnet_hpc.data import load
from irnet_hpc.recipes import resolve
from irnet_hpc.runs import RunSpec, model_of
from irnet_hpc.store import open_pack

SPEC = RunSpec("pack", "mixing_enthalpy", **model_of("48BARx2-32BAx2R-1"), seed=3)
BASE = {"name": "t", "base": "onecycle", "precision": "fp64", "batch": 64, "epochs": 8, "ema": 0.9}
# name -> recipe. Two ranks have 32 rows of a batch each: 16 divides them, 64 spans both ranks. 7 steps an epoch: 56 in all.
CASES = {
    "local groups": resolve(BASE | {"norm_group": 16}),
    "decay by epochs": resolve(BASE | {"norm_group": 16, "weight_decay": 0, "decay_epochs": 4}),
    "spanning groups": resolve(BASE | {"norm_group": 64}),
    "fp32, spanning": resolve(BASE | {"norm_group": 64, "precision": "fp32"}),
}


def main() -> None:
    engine, pack_file, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    comm = start(engine, out.parent / "rendezvous")
    train.CHECKPOINT_S = 1e9
    outcomes = {"engine": comm.name, "size": comm.size}
    for name, recipe in CASES.items():
        with open_pack(pack_file) as pack:
            data = load(pack, SPEC, recipe, torch.device("cpu"), train.DTYPES[recipe.precision])
        path = out.parent / f"{out.stem}-{name}"
        path.mkdir(exist_ok=True)
        network, state = train.train(SPEC, recipe, "key", data, path, comm, torch.device("cpu"))
        outcomes[name] = {
            "steps": state.step,
            "losses": [row[3:5] for row in state.history],
            "weights": [float(p.detach().abs().sum()) for p in network.parameters()],
            "statistics": [float(b.abs().sum()) for b in network.buffers()],
            "recipe": dataclasses.asdict(recipe),
        }
    if comm.rank == 0:
        out.write_text(json.dumps(outcomes))
    comm.close()


if __name__ == "__main__":
    main()
