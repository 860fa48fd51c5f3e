"""Compare CUDA graphs, cells that share a device and bf16 on a GPU, side by side in one run.

    python benchmarks/gpu.py                        # on a GPU machine; half an hour at most
    python benchmarks/gpu.py --device cpu --smoke   # the same logic on small networks, for a test
    python benchmarks/gpu.py --device cpu --rows cpu-bundles cpu-bundles-bf16  # on a CPU

Prints a Markdown table. Each row is measured in turns, A B A B ..., and shows medians of at least 5
and their spread. Rows of data are random: what is timed is the step of the package's own loop,
including reading, without evaluation. FLOPs are counted as 6 x weights x rows.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from irnet_hpc.console import exit_status
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.distributed.gpus import device_of
from irnet_hpc.distributed.processes import keep_freed_memory
from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import layer_string, n_weights
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train.dataset import arrange
from irnet_hpc.train.run import Run
from irnet_hpc.train.stack import Replica, Stack
from irnet_hpc.train.step import WARM_UP, Step

N_FEATURES = 248
SMALL = {
    17: "32BARx4-16BARx2-1",
    48: "32BARx8-16BARx4-1",
}  # depth -> what --smoke trains in its place
# name -> depth, batches, precision, cells
ROWS = {
    "graphs": (17, (32,), "fp32", 1),
    "bundle": (48, (256,), "bf16", 16),
    "product": (48, (8192, 65536), "bf16", 1),
    "cpu-bundles": (None, (32, 256), "fp32", 4),  # both depths
    "cpu-bundles-bf16": (None, (32, 256), "bf16", 4),
}


def replicas_of(
    depth: int, batch: int, precision: str, n_cells: int, device: torch.device, smoke: bool
) -> list[Replica]:
    """Cells that differ in the seed, on random rows that they hold in common."""
    recipe = resolve(
        {
            "name": "benchmark",
            "base": "onecycle",
            "batch": batch,
            "norm_group": min(batch, 256),
            "precision": precision,
        }
    )
    model = model_of(SMALL[depth] if smoke else layer_string("irnet", depth))
    random, n_rows = np.random.default_rng(0), max(2 * batch, 4096)
    x, y = random.normal(size=(n_rows, N_FEATURES)).astype(np.float32), random.normal(size=n_rows)
    part = (np.arange(n_rows), x, y)
    data = arrange([part] * 3, recipe, device)
    specs = [
        RunSpec("benchmark", "y", recipe="benchmark", seed=seed, **model) for seed in range(n_cells)
    ]
    return [
        Replica(Run(spec, recipe, "", RunFolder(Path(tempfile.gettempdir()) / "no-such-run")), data)
        for spec in specs
    ]


def stepping(
    replicas: Sequence[Replica], device: torch.device, graphs: bool
) -> Callable[[int], float]:
    """Return a function from a number of steps to seconds a step, warm, with recorded graphs."""
    stack = Stack(replicas, Alone(), device)
    step, recipe, n_steps = Step(stack, Alone(), graphs), replicas[0].recipe, replicas[0].n_steps
    visited = [
        np.random.default_rng(r.spec.seed).permutation(len(r.data.train))[: n_steps * recipe.batch]
        for r in replicas
    ]
    step.begin(visited, np.full((n_steps, len(replicas)), recipe.learning_rate))

    def run(n: int) -> float:
        settle(device)
        began = now(device)
        for i in range(n):
            step(i % n_steps, False)
        settle(device)
        return (now(device) - began) / n

    run(WARM_UP + 2)
    return run


def now(device: torch.device) -> float:
    """Return seconds; on a CPU processor time of all threads, which other work hardly disturbs."""
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def by_turns(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Map each way to its seconds; ways take turns, so that a slower machine slows all of them."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(way())
    return found


def n_steps_for(run: Callable[[int], float], seconds: float) -> int:
    return max(2, min(2000, int(seconds / max(run(2), 1e-6))))


def line(what: str, times: dict[str, list[float]], rows: int) -> str:
    """Return a row of the table: two ways in rows a second, and the spread of their ratio."""
    (one, of_one), (two, of_two) = times.items()
    ratios = [b / a for a, b in zip(of_one, of_two, strict=True)]
    rates = [
        f"{name} {rows / statistics.median(of):,.0f} rows/s"
        for name, of in ((one, of_one), (two, of_two))
    ]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {what} | {' / '.join(rates)} | {ratio} |"


def graphs_row(
    batch: int, depth: int, precision: str, _: int, device: torch.device, smoke: bool, repeats: int
) -> str:
    ways = {
        name: stepping(
            replicas_of(depth, batch, precision, 1, device, smoke), device, name == "graphed"
        )
        for name in ("graphed", "eager")
    }
    n = n_steps_for(ways["eager"], 0.02 if smoke else 1.0)
    times = by_turns({name: lambda run=run: run(n) for name, run in ways.items()}, repeats)
    return line(f"IRNet-{depth}, batch {batch}, {precision}: graphed against eager", times, batch)


def bundle_row(
    batch: int, depth: int, precision: str, k: int, device: torch.device, smoke: bool, repeats: int
) -> str:
    """Compare K cells at once with the same cells one after the other."""
    cells = replicas_of(depth, batch, precision, k, device, smoke)
    together, alone = stepping(cells, device, True), stepping(cells[:1], device, True)
    n = n_steps_for(together, 0.02 if smoke else 2.0)
    ways = {f"{k} together": lambda: together(n), "one by one": lambda: k * alone(n)}
    return line(
        f"{k} cells of IRNet-{depth}, batch {batch}, {precision}",
        by_turns(ways, repeats),
        k * batch,
    )


def product_row(
    batch: int, depth: int, precision: str, _: int, device: torch.device, smoke: bool, repeats: int
) -> str:
    """Compare the step's FLOP rate with that of the widest layer's matrix product."""
    replicas = replicas_of(depth, batch, precision, 1, device, smoke)
    run = stepping(replicas, device, True)
    layers = replicas[0].layers
    width, dtype = (
        max(stack.width for stack in layers.stacks),
        torch.bfloat16 if precision == "bf16" else torch.float32,
    )
    a, b = (
        torch.randn(shape, device=device, dtype=dtype) for shape in ((batch, width), (width, width))
    )

    def product(n: int) -> float:
        settle(device)
        began = now(device)
        for _ in range(n):
            a @ b
        settle(device)
        return (now(device) - began) / n

    product(3)
    n, m = n_steps_for(run, 0.02 if smoke else 1.0), n_steps_for(product, 0.02 if smoke else 1.0)
    times = by_turns({"step": lambda: run(n), "product": lambda: product(m)}, repeats)
    step_flops, product_flops = 6 * n_weights(layers, N_FEATURES) * batch, 2 * batch * width * width
    shares = [
        (step_flops / one) / (product_flops / other)
        for one, other in zip(times["step"], times["product"], strict=True)
    ]
    rates = [
        flops / statistics.median(times[name]) / 1e12
        for name, flops in (("step", step_flops), ("product", product_flops))
    ]
    return (
        f"| IRNet-{depth}, batch {batch}, {precision}: step against matrix product | "
        f"{rates[0]:.3f} / {rates[1]:.3f} TFLOP/s | "
        f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}) |"
    )


MEASURES = {
    "graphs": graphs_row,
    "bundle": bundle_row,
    "product": product_row,
    "cpu-bundles": bundle_row,
    "cpu-bundles-bf16": bundle_row,
}


def lines(names: Sequence[str], device: torch.device, smoke: bool, repeats: int) -> Iterator[str]:
    for name in names:
        depth, batches, precision, n_cells = ROWS[name]
        for one in (17, 48) if depth is None else (depth,):
            for batch in batches:
                size = (min(batch, 64), min(n_cells, 3)) if smoke else (batch, n_cells)
                yield MEASURES[name](size[0], one, precision, size[1], device, smoke, repeats)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["graphs", "bundle", "product"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="small networks and batches: shows that it runs, and no speed",
    )
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {arguments.repeats}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "this measures a GPU, and torch finds none here; --device cpu --smoke runs the "
            "same code without one"
        )
    device = device_of(0, arguments.device)
    keep_freed_memory()  # as training does
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or "cpu"
    )
    print(
        f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, medians of "
        f"{arguments.repeats}\n"
    )
    print("| what | rates | ratio (spread) |\n|---|---|---|")
    for text in lines(arguments.rows, device, arguments.smoke, arguments.repeats):
        print(text, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
