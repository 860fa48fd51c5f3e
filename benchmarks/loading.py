"""Measure how fast a pack becomes tensors, and training on a streamed against a resident pack.

python -m irnet_hpc.pack --source oqmd --features magpie
python benchmarks/loading.py                 packs/oqmd-magpie.h5: IRNet-17, batches 256 and 2,048
python benchmarks/loading.py --pack alloys-magpie --property mixing_enthalpy \\
    --layers 256BARx2-1 --batch 256

Loading is the whole way from a closed file in the page cache to scaled tensors: open, read, verify
the chunks' checksums, statistics, scaling; in turn with the same by whole arrays in float64, whose
results must be the same bits. An epoch is the training loop's own: read, forward, backward, AdamW,
on a resident and a streamed pack in turn, whose weights must end in the same bits. Medians of
--repeats, and the minimum, which other work on the machine disturbs least.
"""

import argparse
import contextlib
import hashlib
import io
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from features import machine

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.distributed.gpus import device_of
from irnet_hpc.distributed.launch import n_threads
from irnet_hpc.distributed.processes import keep_freed_memory
from irnet_hpc.pack.store import open_pack, pack_path
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.recipes import Recipe, resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train.dataset import DTYPES, load
from irnet_hpc.train.loop import train
from irnet_hpc.train.run import Run
from irnet_hpc.train.stack import Replica
from irnet_hpc.train.stopping import NeverStop

PLACES = ("resident", "stream")


def main() -> None:
    arguments = parser().parse_args()
    keep_freed_memory()
    torch.set_num_threads(n_threads(None))
    model = (
        {"architecture": "irnet", "depth": 17}
        if arguments.layers is None
        else model_of(arguments.layers)
    )
    spec, path = (
        RunSpec("pack", arguments.property, train_rows=arguments.train_rows, **model),
        pack_path(arguments.pack, arguments.pack_dir),
    )
    print(
        f"{path.name}, {spec.property}, {spec.model}, on {machine()}, {torch.get_num_threads()} "
        "threads"
    )
    of_loading(path, spec, arguments.repeats)
    for batch in arguments.batch:
        of_epochs(path, spec, batch, arguments.precision, arguments.repeats)


def of_loading(path: Path, spec: RunSpec, repeats: int) -> None:
    """Time each load in a process of its own, since half of it is memory new to the process."""
    seconds, cpu, found = {way: [] for way in WAYS}, {way: [] for way in WAYS}, set()
    for _ in range(repeats):
        for way in WAYS:  # in turn, so that other work on the machine meets all alike
            with multiprocessing.get_context("fork").Pool(1) as pool:
                wall_s, cpu_s, digest = pool.apply(timed, (way, path, spec))
            seconds[way].append(wall_s)
            cpu[way].append(cpu_s)
            found.add(digest)
    assert len(found) == 1, "the ways of loading must agree in every bit"
    for way in WAYS:
        wall, of_cpu = (
            f"{statistics.median(each):.3f} s, least {min(each):.3f}"
            for each in (seconds[way], cpu[way])
        )
        print(f"loading {path.stat().st_size / 2**20:,.0f} MiB, {way:12} {wall}; of CPU {of_cpu}")


def timed(way: str, path: Path, spec: RunSpec) -> tuple[float, float, str]:
    """Seconds of wall clock and of CPU, and a hash of what was loaded."""
    began, began_cpu = time.perf_counter(), time.process_time()
    arrays = WAYS[way](path, spec, resolve("onecycle"))
    seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return *seconds, hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def ours(path: Path, spec: RunSpec, recipe: Recipe) -> list[np.ndarray]:
    with open_pack(path) as pack:
        data = load(pack, spec, recipe, torch.device("cpu"))
    return [part.x.numpy() for part in (data.train, data.val, data.test)]


def whole_arrays(path: Path, spec: RunSpec, recipe: Recipe) -> list[np.ndarray]:
    """What loading comes to, in the fewest lines of numpy."""
    rows = []
    with open_pack(path) as pack:
        for role in ("train", "val", "test"):
            reported = ~np.isnan(pack.y(spec.property, pack.rows(role)))
            rows.append(pack.x(pack.rows(role))[reported])
    rows[0] = rows[0][: spec.train_rows]
    mean, scale = rows[0].mean(0, dtype=np.float64), rows[0].std(0, dtype=np.float64)
    scale[scale <= 1e-7 * np.abs(mean)] = 0
    scale[scale == 0] = 1
    return [np.clip((x - mean) / scale, -recipe.clip, recipe.clip).astype(np.float32) for x in rows]


WAYS = {"irnet_hpc": ours, "whole arrays": whole_arrays}


def of_epochs(path: Path, spec: RunSpec, batch: int, precision: str, repeats: int) -> None:
    recipe = resolve(
        {"name": "b", "base": "onecycle", "batch": batch, "precision": precision, "epochs": 1}
    )
    device, weights = device_of(0), {}
    with open_pack(path) as pack:
        data = {place: load(pack, spec, recipe, device, place=place) for place in PLACES}

    def epoch(place: str) -> tuple[float, float]:
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            replica = Replica(Run(spec, recipe, "", RunFolder(folder)), data[place])
            (ended,) = train([replica], Alone(), device, NeverStop())
        weights[place] = ended.network.state_dict()
        return ended.state.training_s, time.process_time() - began

    seconds, cpu = {place: [] for place in PLACES}, {place: [] for place in PLACES}
    for _ in range(repeats):
        for place in PLACES:
            wall_s, cpu_s = epoch(place)
            seconds[place].append(wall_s)
            cpu[place].append(cpu_s)
    assert all(
        torch.equal(tensor, weights["stream"][name]) for name, tensor in weights["resident"].items()
    )
    n_rows = len(data["resident"].train) // batch * batch
    for place in PLACES:
        middle, least = statistics.median(seconds[place]), min(seconds[place])
        print(
            f"batch {batch:5} {precision} {place:9} epoch {middle:7.2f} s, least {least:7.2f}   "
            f"{n_rows / middle:9,.0f} rows/s; "
            f"of CPU, evaluation included, {statistics.median(cpu[place]):7.2f} s"
        )
    for what, of in (("seconds", seconds), ("CPU, evaluation included,", cpu)):
        ratios = [resident / stream for resident, stream in zip(*of.values(), strict=True)]
        print(
            f"{what} of resident / stream: {statistics.median(ratios):.3f} ({min(ratios):.3f} "
            f"to {max(ratios):.3f})"
        )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", default="oqmd-magpie")
    parser.add_argument("--pack-dir", help="default: $IRNET_PACKS, else packs")
    parser.add_argument("--property", default="formation_energy")
    parser.add_argument("--layers", help="a layer string; default: IRNet-17")
    parser.add_argument("--batch", type=int, nargs="*", default=[256, 2048])
    parser.add_argument("--precision", default="bf16", choices=sorted(DTYPES))
    parser.add_argument("--train-rows", type=int, help="the first so many only")
    parser.add_argument("--repeats", type=int, default=5)
    return parser


if __name__ == "__main__":
    main()
