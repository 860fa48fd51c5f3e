"""Take population statistics on the ranks of a launcher; rank 0 writes them.

mpirun -np 2 python tests/distributed/statistics_on_ranks.py ENGINE OUT.json
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from irnet_hpc.distributed.engines import Comm, start
from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.network import Network
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.train.dataset import arrange
from irnet_hpc.train.evaluation import outputs, take_statistics

GROUP = 16
# name -> rows, precision. 20 rows have one whole group, so of two ranks one has no row; of the two
# groups of 40 rows, the third rank has none.
CASES = {
    "one row": (160, "fp64"),
    "one row, bf16": (160, "bf16"),
    "one row of three groups": (48, "fp64"),
    "one row of two groups": (40, "fp64"),
    "one row of two groups, bf16": (40, "bf16"),
    "one group": (20, "fp64"),
    "one group, bf16": (20, "bf16"),
    "ordinary": (160, "fp64"),
}


def features(name: str, n_rows: int) -> np.ndarray:
    """Return (n_rows, 3) with a constant and a column that singles out row 5, or ordinary ones."""
    rows, noise = np.arange(n_rows), np.random.default_rng(0).normal(size=n_rows)
    if name == "ordinary":
        return np.stack([noise, rows % 7.0, noise**2], 1).astype(np.float32)
    return np.stack([np.full(n_rows, 3.0), rows == 5, np.zeros(n_rows)], 1).astype(np.float32)


def statistics(name: str, comm: Comm) -> dict:
    n_rows, precision = CASES[name]
    recipe = resolve(
        {"name": "t", "base": "onecycle", "precision": precision, "norm_group": GROUP, "batch": 32}
    )
    x, y = features(name, n_rows), np.arange(n_rows, dtype=np.float64)
    roles = [(np.arange(k), x[:k], y[:k]) for k in (n_rows, 4, 4)]
    data = arrange(roles, recipe, torch.device("cpu"))
    network = Network(3, parse_layers("8BAx3-4BAR-1"))
    network.initialise(1)
    network.to(data.train.y.dtype)
    is_unusual = take_statistics(network, data.train, recipe, comm)
    return {
        "unusual": is_unusual,
        "statistics": torch.cat([buffer.flatten() for buffer in network.buffers()]).tolist(),
        "outputs": outputs(network, data.train, recipe, comm).ravel().tolist(),
    }


def main() -> None:
    engine, out = sys.argv[1], Path(sys.argv[2])
    comm = start(engine, out.parent / "rendezvous")
    outcomes = {name: statistics(name, comm) for name in CASES}
    if comm.rank == 0:
        out.write_text(json.dumps({"size": comm.size, "engine": comm.name, "cases": outcomes}))
    comm.close()


if __name__ == "__main__":
    main()
