"""Train small networks on the ranks of a launcher, for test_engines.py; rank 0 writes the outcome.

mpirun -np 2 python tests/train_on_ranks.py ENGINE PACK OUT.json PACK_WITH_GAPS
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch

from irnet_hpc.distributed.allreduce import sum_step
from irnet_hpc.distributed.engines import Comm, start
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train import dataset as data
from irnet_hpc.train import loop as training
from irnet_hpc.train import stream
from irnet_hpc.train.dataset import load
from tests import builders

BASE = {"name": "t", "base": "onecycle", "precision": "fp64", "batch": 64, "epochs": 8, "ema": 0.9}
LAYERS = "48BARx2-32BAx2R-1"
# name -> layers, recipe. Two ranks have 32 rows of a batch each: 16 divides them, 64 spans both
# ranks. 7 steps an epoch: 56 in all.
CASES = {
    "local groups": (LAYERS, resolve(BASE | {"norm_group": 16})),
    "decay by epochs": (
        LAYERS,
        resolve(BASE | {"norm_group": 16, "weight_decay": 0, "decay_epochs": 4}),
    ),
    "spanning groups": (LAYERS, resolve(BASE | {"norm_group": 64})),
    "fp32, spanning": (LAYERS, resolve(BASE | {"norm_group": 64, "precision": "fp32"})),
    "fp32, bf16 allreduce": (
        LAYERS,
        resolve(BASE | {"norm_group": 16, "precision": "fp32", "allreduce": "bf16"}),
    ),
    "fp32, local groups": (LAYERS, resolve(BASE | {"norm_group": 16, "precision": "fp32"})),
    "dropout, branches": ("48L0.3Rx2+1D0.2-32BAD0.1x2-1", resolve(BASE | {"norm_group": 16})),
    "several properties": (
        LAYERS,
        resolve(BASE | {"norm_group": 16, "epochs": 10}),
    ),  # with gaps: fewer rows
}


def numbers(rank: int, n: int) -> torch.Tensor:
    """What a rank puts into a sum: (n,) of sizes from 1e-12 to 1e12, which fp16 could not hold."""
    random = torch.Generator().manual_seed(rank)
    return torch.randn(n, generator=random) * 10.0 ** torch.randint(-12, 13, (n,), generator=random)


def sums_in_bf16(comm: Comm) -> list[list[float]]:
    """What is left of 1, 7 and 1,001 numbers and two exact ones after a sum over the ranks."""
    return [sum_step(comm, numbers(comm.rank, n + 2), 2, "bf16").tolist() for n in (1, 7, 1001)]


def main() -> None:
    engine, pack_file, out, gaps_file = sys.argv[1], *map(Path, sys.argv[2:])
    comm = start(engine, out.parent / "rendezvous")
    training.CHECKPOINT_S = 1e9
    outcomes = {"engine": comm.name, "size": comm.size, "sums": sums_in_bf16(comm)}
    for name, (layers, recipe) in CASES.items():
        several = name == "several properties"
        properties = "mixing_enthalpy,size_mismatch" if several else "mixing_enthalpy"
        spec = RunSpec("pack", properties, **model_of(layers), seed=3)
        with open_pack(gaps_file if several else pack_file) as pack:
            rows = load(pack, spec, recipe, torch.device("cpu"))
        path = out.parent / f"{out.stem}-{name}"
        path.mkdir(exist_ok=True)
        network, state = builders.train(spec, recipe, "key", rows, path, comm, torch.device("cpu"))
        outcomes[name] = {
            "steps": state.step,
            "losses": [row[3:5] for row in state.history],
            "weights": [float(p.detach().abs().sum()) for p in network.parameters()],
            "statistics": [float(b.abs().sum()) for b in network.buffers()],
            "recipe": dataclasses.asdict(recipe),
        }
    outcomes |= streamed_and_resident(pack_file, out, comm)
    if comm.rank == 0:
        out.write_text(json.dumps(outcomes))
    comm.close()


def streamed_and_resident(pack_file: Path, out: Path, comm: Comm) -> dict:
    """Return all numbers, by name, of two trainings with the features in different places."""
    data.SHUFFLED_ROWS = stream.SHUFFLED_ROWS = 16
    data.WINDOW_PIECES = stream.WINDOW_PIECES = 4
    recipe, spec = (
        CASES["fp32, spanning"][1],
        RunSpec("pack", "mixing_enthalpy", **model_of(LAYERS), seed=3),
    )
    outcomes = {}
    for place in ("resident", "stream"):
        with open_pack(pack_file) as pack:
            rows = load(pack, spec, recipe, torch.device("cpu"), place=place)
        path = out.parent / f"{out.stem}-{place}"
        path.mkdir(exist_ok=True)
        network, state = builders.train(spec, recipe, "key", rows, path, comm, torch.device("cpu"))
        numbers = {name: tensor.tolist() for name, tensor in network.state_dict().items()}
        outcomes[place] = {"history": [row[:5] for row in state.history], "numbers": numbers}
    return outcomes


if __name__ == "__main__":
    main()
