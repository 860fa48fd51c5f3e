"""Compare the estimated memory of cells (sweep/memory_needs.py) with the peaks of real trainings.

    python benchmarks/memory.py                                    all cases
    python benchmarks/memory.py 40000x145:irnet-17:2048            ROWSxFEATURES:MODEL:BATCH
    python benchmarks/memory.py 2000x145:random_forest:1000        a classical model: TRAINING_ROWS

Each cell is trained for one epoch, in a process of its own with one thread, on random numbers: the
peak does not depend on what they mean, nor on how busy the machine is. An estimate below a peak
ends with status 1.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from irnet_hpc.pack.writer import create_pack
from irnet_hpc.runs.classical_grids import GRIDS
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.context import open_sweep
from irnet_hpc.sweep.memory_needs import MemoryNeeds

PROPERTY = "mixing_enthalpy"
CASES = (
    *("2000x145:64BARx2-1:64", "2000x145:irnet-17:256", "2000x145:irnet-48:512"),
    *("40000x145:irnet-17:2048", "40000x600:64BARx2-1:64", "200000x145:irnet-10:512"),
    *("40000x600:linear:32000", "40000x600:ridge:32000", "40000x600:elastic_net:32000"),
    *("40000x600:sgd:32000", "40000x145:decision_tree:8000", "2000x145:svr:1000"),
    *("2000x145:random_forest:1000", "2000x145:extra_trees:1000", "2000x145:bagging:1000"),
    *("2000x145:adaboost:1000", "2000x145:boosted_trees:1000", "2000x145:tabm:1000"),
)


def main() -> int:
    arguments = parser().parse_args()
    print(f"peaks of one process each on {machine()}")
    ratios = []
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        for case in arguments.cases or CASES:
            size, model, number = case.split(":")
            n_rows, n_features = map(int, size.split("x"))
            name = write_pack(Path(folder), n_rows, n_features)
            table = {"packs": [name], "properties": [PROPERTY], "models": [model]}
            peak, expected = peak_and_estimate(Path(folder), table | settings(model, int(number)))
            ratios.append(expected / peak)
            print(f"{case:32} peak {peak:6.3f} GiB  estimate {expected:6.3f}  {ratios[-1]:.2f}")
            sys.stdout.flush()
    print(f"estimate / peak: {min(ratios):.2f} to {max(ratios):.2f}")
    return 0 if min(ratios) >= 1 else 1


def write_pack(folder: Path, n_rows: int, n_features: int) -> str:
    """Write a pack of random numbers, unless it is there. Returns its name."""
    name = f"random-{n_rows}x{n_features}"
    if (folder / f"{name}.h5").exists():
        return name
    random, weights = np.random.default_rng(0), np.random.default_rng(1).normal(size=n_features)
    counts = {"train": n_rows * 8 // 10, "val": n_rows // 10}
    counts["test"] = n_rows - sum(counts.values())
    identity = {
        "source": "random",
        "source_sha256": "0" * 64,
        "rules": 1,
        "n_source_rows": n_rows,
        "properties": {PROPERTY: "eV/atom"},
        "features": f"{n_features}",
        "feature_versions": {},
        "filters": [],
        "split": {"by": "reduced formula", "seed": 0},
    }
    targets = []
    with create_pack(folder / f"{name}.h5", [f"x{i}" for i in range(n_features)], n_rows) as writer:
        for first in range(0, n_rows, 10_000):
            n = min(10_000, n_rows - first)
            x = random.normal(size=(n, n_features)).astype(np.float32)
            targets.append(np.tanh(x @ weights / 10) + 0.1 * random.normal(size=n))
            writer.append(x)
        writer.finish(
            [f"Al{i + 1}Ni" for i in range(n_rows)],
            [str(i) for i in range(n_rows)],
            {PROPERTY: np.concatenate(targets)},
            counts,
            identity,
            {"reported": {PROPERTY: counts}},
        )
    return name


def settings(model: str, number: int) -> dict:
    """Return the keys of a matrix that a case's number sets: training rows, or the batch."""
    if model in GRIDS:
        return {"train_rows": [number]}
    recipe = {"name": "one", "base": "onecycle", "batch": number, "epochs": 1}
    return {"recipes": [recipe | {"norm_group": min(number, 32)}]}


def peak_and_estimate(folder: Path, table: dict) -> tuple[float, float]:
    """Train the only cell of a matrix. Returns its peak and its estimate, in GiB."""
    context = open_sweep(table, folder / "results", folder)
    (status,) = read_ledger(context.matrix, context.results).cells
    expected = MemoryNeeds(context, has_gpu=False).gb((status,))
    spec = status.cell.spec
    options = ["--pack", spec.pack, "--pack-dir", folder, "--property", spec.property]
    options += ["--layers", spec.layers] if spec.layers else ["--architecture", spec.architecture]
    options += [] if spec.layers or spec.is_classical else ["--depth", spec.depth]
    options += ["--recipe", status.cell.recipe_option, "--results", context.results]
    options += ["--train-rows", spec.train_rows] if spec.train_rows else []
    subprocess.run(
        [sys.executable, "-m", "irnet_hpc.train", "--device", "cpu", *map(str, options)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    result = json.loads((status.folder / "result.json").read_text(encoding="utf-8"))
    return result["peak_memory_gb"], expected


def machine() -> str:
    n_cores = len(os.sched_getaffinity(0))
    return f"{platform.node()}, {n_cores} cores, Python {platform.python_version()}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
