"""Compare a training step with a plain PyTorch loop, with its matrix products, and with memory.

python benchmarks/step.py                                   all of it; five minutes on 2 cores
python benchmarks/step.py --rows 32 256                     only some rows: 32, 256, 2048, epoch
python benchmarks/step.py --rows epoch --pack oqmd-magpie   an epoch of a pack (a name, or a path)

Our side is the loop of irnet_hpc.train itself, on rows made in memory, by its own clock around the
steps. The plain side is a DataLoader over a TensorDataset, the same network written with torch's
modules, Adam, fp32, in a process of its own as anyone would run it; `tuned` is the same in our
process, where freed memory is kept (distributed/memory.py). Sides take turns; medians of the rounds
count, with minimum and maximum behind them. FLOPs are 6 x weights x rows.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import io
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from features import machine
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from irnet_hpc.console import exit_status
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.distributed.processes import keep_freed_memory
from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import layer_string, parse_layers
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.network import Network, autocast
from irnet_hpc.models.normalisation import rank_groups
from irnet_hpc.pack.store import open_pack, pack_path
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.recipes import RECIPES, Recipe, resolve
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train.dataset import Dataset, arrange, load
from irnet_hpc.train.evaluation import predict, take_statistics
from irnet_hpc.train.loop import train
from irnet_hpc.train.run import Run
from irnet_hpc.train.stack import OPTIMIZERS, Replica
from irnet_hpc.train.step import LOSSES
from irnet_hpc.train.stopping import NeverStop

CPU = torch.device("cpu")
N_INPUTS = 248
# Steps of a round: long enough for a clock, short enough for turns on a shared machine.
STEPS = {32: 60, 256: 16, 2048: 6}
ROWS = ("32", "256", "2048", "epoch")
Sides = dict[str, Callable[[], float]]  # name -> runs a round, and returns rows (or FLOPs) a second


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print(
        f"{machine()}, {arguments.threads} threads, torch {torch.__version__}, load "
        f"{os.getloadavg()[0]:.1f}"
    )
    for row in arguments.rows:
        {"32": small_batches, "256": small_batches, "2048": against_products, "epoch": epoch}[row](
            row, arguments
        )
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 0


def small_batches(row: str, arguments: argparse.Namespace) -> None:
    """IRNet-17: our steps in both precisions, and the plain loop's."""
    batch, depth = int(row), 17
    sides = {
        name: our_steps(depth, dataclasses.replace(paper_of(batch), precision=name))
        for name in ("bf16", "fp32")
    } | {
        "tuned": plain_steps(depth, batch),
        "plain": in_its_own_process(depth, batch, arguments.threads),
    }
    if not has_bf16():
        del sides["bf16"]
    rates = take_turns(sides, arguments.repeats)
    print(f"\nIRNet-{depth}, {N_INPUTS} inputs, batch {batch}: rows/s")
    for name in sides:
        print(f"  {name:6}{in_words(rates[name])}{ratio(rates[name], rates['plain'])}")
    step_s, read_write = least_optimiser_s(weights_of(depth))
    print(
        "  weights, gradients and two moments, read and written once by Adam: "
        f"{read_write / 1e6:.0f} MB a step, {step_s * 1e3:.1f} ms "
        f"at the rate of a copy: at most {batch / step_s:,.0f} rows/s, "
        f"{batch / step_s / statistics.median(rates['plain']):.1f} times plain"
    )


def against_products(row: str, arguments: argparse.Namespace) -> None:
    """IRNet-48: our steps next to the products of its layers alone, in FLOP/s of one precision."""
    batch, depth = int(row), 48
    precision = "bf16" if has_bf16() else "fp32"
    recipe = dataclasses.replace(
        RECIPES["onecycle"], batch=batch, epochs=1, statistics_rows=2, precision=precision
    )
    n = weights_of(depth)
    steps = our_steps(depth, recipe)
    sides = {"step": lambda: steps() * 6 * n, "products": products(depth, batch, precision)}
    rates = take_turns(sides, arguments.repeats)
    print(f"\nIRNet-{depth}, {N_INPUTS} inputs, batch {batch}, {precision}: GFLOP/s")
    for name, values in rates.items():
        print(f"  {name:9}{in_words([v / 1e9 for v in values])}{ratio(values, rates['products'])}")
    print(f"  that is {statistics.median(rates['step']) / 6 / n:,.0f} rows/s")


def epoch(row: str, arguments: argparse.Namespace) -> None:
    """Compare the real loop's epoch over a resident pack with bare steps in memory."""
    path = pack_path(arguments.pack, arguments.pack_dir)
    if not path.exists():
        raise UserError(
            f"there is no pack {path}; make it by python -m irnet_hpc.pack --source oqmd, or "
            "name another by --pack"
        )
    with open_pack(path) as pack:
        name = arguments.property or next(iter(pack.units))
        recipe = dataclasses.replace(
            RECIPES["onecycle"], precision="bf16" if has_bf16() else "fp32"
        )
        spec = RunSpec(path.stem, name, "irnet", 17, seed=0)
        data = load(pack, spec, recipe, CPU)
    n_steps = len(data.train) // recipe.batch
    loop = loop_rate(
        spec, dataclasses.replace(recipe, epochs=1, statistics_rows=2), without_evaluation(data)
    )
    sides = {"epoch": loop, "bare": bare_steps(recipe, data, n_steps)}
    rates = take_turns(sides, arguments.epochs, warm=False)
    print(
        f"\nIRNet-17, an epoch of {path.stem} ({n_steps} steps of {recipe.batch}), "
        f"{recipe.precision}: rows/s"
    )
    for side in sides:
        print(f"  {side:6}{in_words(rates[side])}{ratio(rates[side], rates['bare'])}")
    network = network_of(17, data.train.x.shape[1])
    began = time.perf_counter()
    take_statistics(network, data.train, recipe, Alone())
    predict(network, data.val, data, recipe, Alone())
    seconds = time.perf_counter() - began
    training_s = n_steps * recipe.batch / statistics.median(rates["epoch"])
    print(
        "  beside it, once an epoch: statistics of "
        f"{min(recipe.statistics_rows, len(data.train)):,} rows and predictions of "
        f"{len(data.val):,}, "
        f"{seconds:.2f} s ({seconds / (seconds + training_s):.1%} of the epoch)"
    )


def take_turns(sides: Sides, repeats: int, warm: bool = True) -> dict[str, list[float]]:
    """Rates of each side over the rounds; the first, which only warms up, is left out."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(repeats + warm):
        for name, side in sides.items():
            rate = side()
            rates[name] += [rate] if i >= warm else []
    return rates


def our_steps(depth: int, recipe: Recipe) -> Callable[[], float]:
    rows = made(recipe.batch * STEPS[recipe.batch])
    some = tuple(part[:2] for part in rows)
    data = arrange([rows, some, some], recipe, CPU)
    return loop_rate(RunSpec("made", "band_gap", "irnet", depth, seed=0), recipe, data)


def loop_rate(spec: RunSpec, recipe: Recipe, data: Dataset) -> Callable[[], float]:
    """Time the real loop over one epoch, by its own clock: without evaluation and files."""
    assert recipe.epochs == 1

    def one_round() -> float:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            replica = Replica(Run(spec, recipe, "key", RunFolder(folder)), data)
            (ended,) = train([replica], Alone(), CPU, NeverStop())
        for number in (
            signal.SIGTERM,
            signal.SIGUSR1,
            signal.SIGUSR2,
        ):  # training takes them to save; here nothing is saved
            signal.signal(number, signal.SIG_DFL)
        return ended.state.step * recipe.batch / ended.state.training_s

    return one_round


def plain_steps(depth: int, batch: int) -> Callable[[], float]:
    """What anyone would write first."""
    _, x, y = made(batch * STEPS[batch])
    loader = DataLoader(
        TensorDataset(torch.from_numpy(x), torch.from_numpy(y).float()), batch, shuffle=True
    )
    network = plain_network(depth)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    loss_of = nn.L1Loss()

    def one_round() -> float:
        began, total = time.perf_counter(), 0.0
        for rows, target in loader:
            optimizer.zero_grad()
            loss = loss_of(network(rows)[:, 0], target)
            loss.backward()
            optimizer.step()
            total += loss.item()
        return len(x) / (time.perf_counter() - began)

    return one_round


def in_its_own_process(depth: int, batch: int, n_threads: int) -> Callable[[], float]:
    """The plain loop in a process that nobody has prepared but for the number of threads."""
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        1, context, _prepare_plain, (depth, batch, n_threads)
    )
    return lambda: pool.submit(_plain_round).result()


def _prepare_plain(depth: int, batch: int, n_threads: int) -> None:
    global _plain  # of the process
    torch.set_num_threads(n_threads)
    _plain = plain_steps(depth, batch)


def _plain_round() -> float:
    return _plain()


class PlainResidual(nn.Module):
    """FC, batch normalisation, ReLU, and a shortcut."""

    def __init__(self, n_inputs: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(n_inputs, width), nn.BatchNorm1d(width), nn.ReLU())
        self.shortcut = nn.Linear(n_inputs, width) if n_inputs != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.shortcut(x)


def plain_network(depth: int) -> nn.Module:
    widths = [
        stack.width
        for stack in parse_layers(layer_string("irnet", depth)).stacks
        for _ in range(stack.branches[0])
    ]
    blocks = [PlainResidual(n, m) for n, m in zip([N_INPUTS, *widths], widths, strict=False)]
    return nn.Sequential(*blocks, nn.Linear(widths[-1], 1))


def products(depth: int, batch: int, precision: str) -> Callable[[], float]:
    """Return FLOP/s of the three products of every fully connected layer, in sequence."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    linears = [
        module
        for module in network_of(depth).modules()
        if isinstance(module, nn.Linear) and module.out_features > 1
    ]
    operands = [
        (
            torch.randn(batch, m.in_features, dtype=dtype),
            m.weight.detach().to(dtype),
            torch.randn(batch, m.out_features, dtype=dtype),
        )
        for m in linears
    ]

    def one_round() -> float:
        began = time.perf_counter()
        for x, weight, g in operands:
            x @ weight.t(), g @ weight, g.t() @ x
        return (
            6
            * batch
            * sum(weight.numel() for _, weight, _ in operands)
            / (time.perf_counter() - began)
        )

    return one_round


def bare_steps(recipe: Recipe, data: Dataset, n_steps: int) -> Callable[[], float]:
    """Time forward, backward and optimiser over a few batches in memory, and nothing else."""
    network = network_of(17, data.train.x.shape[1])
    flat = FlatParameters([network])  # a stack of one
    optimizer = OPTIMIZERS[recipe.optimizer](
        flat.trained, recipe.learning_rate / 100, weight_decay=recipe.weight_decay, fused=True
    )
    groups = rank_groups(recipe.norm_group, recipe.batch, 0, 1, Alone().sum_, CPU)
    x = torch.randn(8, 1, recipe.batch, data.train.x.shape[1])
    y = torch.randn(8, 1, recipe.batch)

    def one_round() -> float:
        began = time.perf_counter()
        for i in range(n_steps):
            flat.clear()
            with autocast(recipe.precision, CPU):
                error = network(x[i % 8], groups)[..., 0] - y[i % 8]
            (LOSSES[recipe.loss](error).sum() / recipe.batch).backward()
            optimizer.step()
        return n_steps * recipe.batch / (time.perf_counter() - began)

    return one_round


def least_optimiser_s(n_weights: int) -> tuple[float, int]:
    """Return seconds and bytes of a step of Adam at the rate of a copy: 4 reads, 3 writes."""
    source, target = torch.ones(32_000_000), torch.zeros(32_000_000)  # far more than any cache
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - began)
    read_write = 7 * 4 * n_weights
    return read_write / (2 * source.nbytes) * min(seconds), read_write


def made(n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, features (n_rows, 248) and a target (n_rows,) of rows that never were."""
    random = np.random.default_rng(0)
    return (
        np.arange(n_rows),
        random.standard_normal((n_rows, N_INPUTS), np.float32),
        random.standard_normal(n_rows),
    )


def paper_of(batch: int) -> Recipe:
    """Return the papers' recipe for one round; batches are normalised whole, as by BatchNorm1d."""
    return resolve(
        {
            "name": "step",
            "base": "paper",
            "batch": batch,
            "norm_group": batch,
            "epochs": 1,
            "statistics_rows": 2,
        }
    )


def network_of(depth: int, n_inputs: int = N_INPUTS) -> Network:
    network = Network(n_inputs, parse_layers(layer_string("irnet", depth)))
    network.initialise(0)
    return network


def weights_of(depth: int) -> int:
    return sum(parameter.numel() for parameter in network_of(depth).parameters())


def without_evaluation(data: Dataset) -> Dataset:
    """All training rows, and two rows to select on."""
    val = data.val
    return dataclasses.replace(
        data,
        val=dataclasses.replace(
            val, row=val.row[:2], target=val.target[:2], x=val.x[:2], y=val.y[:2]
        ),
    )


def has_bf16() -> bool:
    """Return whether the processor multiplies bf16; elsewhere torch emulates it, slower than "
    "fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def in_words(rates: list[float]) -> str:
    return f"{statistics.median(rates):10,.0f}  ({min(rates):,.0f} to {max(rates):,.0f})"


def ratio(rates: list[float], of: list[float]) -> str:
    """Format the ratio of medians and the median of the rounds' ratios, which load harms less."""
    pairs = statistics.median(a / b for a, b in zip(rates, of, strict=True))
    medians = statistics.median(rates) / statistics.median(of)
    return f"   {medians:.2f} times; round by round {pairs:.2f}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="of the table (default: all)")
    add("--threads", type=int, default=2, help="default: 2")
    add("--repeats", type=int, default=7, help="rounds of each side (default: %(default)s)")
    add("--epochs", type=int, default=5, help="rounds of row epoch (default: %(default)s)")
    add(
        "--pack",
        default="oqmd-magpie",
        help="of row epoch: a name or a path (default: %(default)s)",
    )
    add("--property", help="of row epoch (default: the pack's first)")
    add("--pack-dir", help="default: $IRNET_PACKS, else packs")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main))
