"""Compare ways to sum gradients over 2 ranks, and 2 ranks with 1, one thread each.

    python benchmarks/ranks.py              # 2 to 3 minutes on 2 free cores; a table per launcher
    python benchmarks/ranks.py --precision fp32 --launchers gloo

IRNet-17 with 248 inputs and the package's own step, unless a row says otherwise, with the same
number of rows on each rank. A time is the median of --repeats, taken in turn over the rows of a
table, with the minimum and maximum in brackets. The times of one rank are from a process without
Horovod, before and after. All ways are checked to give the same weights before they are timed.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from irnet_hpc.console import exit_status
from irnet_hpc.distributed.allreduce import sum_step
from irnet_hpc.distributed.engines import Alone, Comm, Horovod, start
from irnet_hpc.distributed.processes import keep_freed_memory
from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import layer_string, parse_layers
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.network import Network, autocast
from irnet_hpc.models.normalisation import Groups

N_FEATURES = 248
GROUP = 256  # rows that are normalised together
CPU = torch.device("cpu")
LAUNCHERS = {"mpi": ["mpirun", "-np", "2"], "gloo": ["horovodrun", "--gloo", "-np", "2"]}
STEPS_S = 0.5  # a time is that of so many steps as take about so long
N_PIECES = 4  # of the flat buffer, in the trial of overlapping

Step = Callable[[], None]


def batch(comm: Comm, n_rows: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(comm.rank)
    return torch.randn(n_rows, N_FEATURES, generator=random), torch.randn(n_rows, generator=random)


def new_network() -> Network:
    network = Network(N_FEATURES, parse_layers(layer_string("irnet", 17)))
    network.initialise(0)
    return network


def backward(network: nn.Module, x: Tensor, y: Tensor, precision: str, n_global: int) -> Tensor:
    with autocast(precision, CPU):
        error = network(x, Groups(GROUP, GROUP)).view_as(y) - y
    (error.abs().sum() / n_global).backward()
    return error


def flat_step(
    comm: Comm, n_rows: int, precision: str, wire: str, parts: dict | None = None
) -> tuple[Network, Step]:
    """The step of step.py; `parts` collects the seconds of gradient, allreduce and optimiser."""
    network, (x, y) = new_network(), batch(comm, n_rows)
    flat = FlatParameters([network])
    optimizer = torch.optim.AdamW(flat.trained, 1e-3, fused=True)
    n = flat.values.numel()

    def step() -> None:
        times = [time.perf_counter()]
        flat.clear()
        error = backward(network, x[None], y[None], precision, n_rows * comm.size)
        flat.reduced[n] = error.detach().abs().sum()
        times.append(time.perf_counter())
        sum_step(comm, flat.reduced, 2, wire)
        times.append(time.perf_counter())
        optimizer.step()
        times.append(time.perf_counter())
        if parts is not None:
            for name, began, ended in zip(
                ("gradient", "allreduce", "optimiser"), times, times[1:], strict=False
            ):
                parts.setdefault(name, []).append(ended - began)

    return network, step


def pieces_step(comm: Horovod, n_rows: int, precision: str) -> tuple[Network, Step]:
    """Sum the flat buffer in pieces, each in the background once backward has filled it."""
    network, (x, y) = new_network(), batch(comm, n_rows)
    flat = FlatParameters([network])
    flat.overwrite(False)  # torch then says when a gradient is there
    optimizer = torch.optim.AdamW(flat.trained, 1e-3, fused=True)
    parameters, n, hvd = list(network.parameters()), flat.values.numel(), comm._hvd
    piece_of, ends, first = [], [], 0
    for parameter in parameters:
        piece_of.append(min(N_PIECES - 1, first * N_PIECES // n))
        first += parameter.numel()
        ends = [*ends[: piece_of[-1]], first]
    ends[-1] = n + 2
    bounds = list(zip([0, *ends], ends, strict=False))
    waiting, handles = [0] * N_PIECES, []

    def ready(piece: int) -> None:
        waiting[piece] -= 1
        if not waiting[piece]:
            part = flat.reduced[slice(*bounds[piece])]
            handles.append(hvd.allreduce_async_(part, op=hvd.Sum, name=f"piece {piece} {n_rows}"))

    for parameter, piece in zip(parameters, piece_of, strict=True):
        parameter.register_post_accumulate_grad_hook(lambda _, piece=piece: ready(piece))

    def step() -> None:
        waiting[:] = [piece_of.count(piece) for piece in range(N_PIECES)]
        flat.clear()
        backward(network, x[None], y[None], precision, n_rows * comm.size)
        for handle in handles:
            hvd.synchronize(handle)
        handles.clear()
        optimizer.step()

    return network, step


def horovod_step(comm: Horovod, n_rows: int, precision: str) -> tuple[Network, Step]:
    """As Horovod's documentation has it."""
    network, (x, y) = new_network(), batch(comm, n_rows)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    optimizer = comm._hvd.DistributedOptimizer(
        optimizer, network.named_parameters(prefix=f"{n_rows} ")
    )

    def step() -> None:
        optimizer.zero_grad()
        backward(network, x, y, precision, n_rows)  # Horovod takes the mean
        optimizer.step()

    return network, step


def ddp_step(comm: Comm, n_rows: int, precision: str) -> tuple[Network, Step]:
    """torch's DistributedDataParallel over Gloo."""
    network, (x, y) = new_network(), batch(comm, n_rows)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    wrapped = nn.parallel.DistributedDataParallel(network)

    def step() -> None:
        optimizer.zero_grad()
        backward(wrapped, x, y, precision, n_rows)
        optimizer.step()

    return network, step


def weights_of(network: Network) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).clone()


def measure(
    ways: dict[str, tuple[Network, Step]], comm: Comm, repeats: int
) -> dict[str, list[float]]:
    """Seconds a step of each way, --repeats times, in turn."""
    first, n_steps = None, 1
    for name, (network, step) in ways.items():
        step()
        weights = weights_of(network)
        first = weights if first is None else first
        # Adam's first step is the rate times the sign of a gradient: where a gradient is only
        # rounding, either sign is right.
        differ = float(((weights - first).abs() > 1e-4).float().mean())
        assert differ < 0.02, f"{name}: {differ:.1%} of the weights differ after a step"
    for name, (_, step) in ways.items():
        began = time.perf_counter()
        step()
        if name == "flat buffer":
            n_steps = comm.gather(max(1, round(STEPS_S / (time.perf_counter() - began))))[0]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, (_, step) in ways.items():
            comm.gather(None)  # all begin together
            began = time.perf_counter()
            for _ in range(n_steps):
                step()
            times[name].append((time.perf_counter() - began) / n_steps)
    return times


def work(arguments: argparse.Namespace) -> None:
    """What a rank does; rank 0 writes what it measured."""
    folder = Path(arguments.work)
    keep_freed_memory()
    comm = (
        Alone() if os.environ.get("RANKS_ALONE") else start("horovod", folder, lambda size: True)
    )  # as `train` does
    torch.set_num_threads(1)
    if comm.size > 1:
        ports = comm.gather(free_port())
        torch.distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{ports[0]}", rank=comm.rank, world_size=comm.size
        )
    found: dict = {"engine": comm.name}
    for n_rows in arguments.rows:
        parts: dict[str, list[float]] = {}
        ways = {"flat buffer": flat_step(comm, n_rows, arguments.precision, "full", parts)}
        if comm.size > 1:
            ways |= {
                "flat buffer, allreduce: bf16": flat_step(
                    comm, n_rows, arguments.precision, "bf16"
                ),
                f"flat buffer in {N_PIECES} pieces, overlapped": pieces_step(
                    comm, n_rows, arguments.precision
                ),
                "Horovod's DistributedOptimizer": horovod_step(comm, n_rows, arguments.precision),
                "torch DDP (Gloo)": ddp_step(comm, n_rows, arguments.precision),
            }
        found[str(n_rows)] = measure(ways, comm, arguments.repeats)
        found[f"parts {n_rows}"] = {
            name: statistics.median(seconds[2:]) for name, seconds in parts.items()
        }
    if comm.rank == 0:
        Path(arguments.out).write_text(json.dumps(found))
    comm.gather(None)
    if comm.size > 1:
        torch.distributed.destroy_process_group()
    comm.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


# -------------------------------------------------------------------------------------- the parent


def launch(
    command: list[str], arguments: argparse.Namespace, folder: Path, **variables: str
) -> dict:
    """What the ranks of one launch measured."""
    out = folder / f"{len(list(folder.iterdir()))}.json"
    options = ["--work", str(folder), "--out", str(out), "--precision", arguments.precision]
    options += ["--repeats", str(arguments.repeats), "--rows", *map(str, arguments.rows)]
    root = (
        {f"OMPI_ALLOW_RUN_AS_ROOT{suffix}": "1" for suffix in ("", "_CONFIRM")}
        if os.geteuid() == 0
        else {}
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | root | variables
    done = subprocess.run(
        [*command, sys.executable, __file__, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        raise UserError(
            f"{' '.join(command) or 'one rank'} failed: {(done.stderr or done.stdout)[-1500:]}"
        )
    return json.loads(out.read_text())


def shown(seconds: list[float]) -> str:
    milliseconds = [1e3 * second for second in seconds]
    extremes = f"{min(milliseconds):.1f} to {max(milliseconds):.1f}"
    return f"{statistics.median(milliseconds):.1f} ms ({extremes})"


def table(name: str, arguments: argparse.Namespace, folder: Path) -> list[str]:
    before = launch([], arguments, folder, RANKS_ALONE="1")
    two = launch(LAUNCHERS[name], arguments, folder)
    after = launch([], arguments, folder, RANKS_ALONE="1")
    lines = [
        f"\n{two['engine']}, {arguments.precision}\n",
        "| rows a rank | way | a step | 2 ranks against 1 |",
    ]
    lines.append("|---:|---|---:|---:|")
    for n_rows in arguments.rows:
        alone = before[str(n_rows)]["flat buffer"] + after[str(n_rows)]["flat buffer"]
        lines.append(f"| {n_rows} | one rank, no Horovod | {shown(alone)} | |")
        for way, seconds in two[str(n_rows)].items():
            gain = 2 * statistics.median(alone) / statistics.median(seconds)
            lines.append(f"| {n_rows} | {way} | {shown(seconds)} | {gain:.2f} |")
    for n_rows in arguments.rows:
        one, of = before[f"parts {n_rows}"], two[f"parts {n_rows}"]
        parts = ", ".join(
            f"{part} {1e3 * of[part]:.1f} ms (alone {1e3 * one[part]:.1f})" for part in of
        )
        lines.append(f"\nThe flat buffer's step at {n_rows} rows a rank: {parts}.")
    return lines


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--rows",
        type=int,
        nargs="+",
        default=[256, 2048],
        help="a rank; multiples of 256 (default: 256 2048)",
    )
    add("--precision", choices=("bf16", "fp32"), default="bf16", help="default: %(default)s")
    add(
        "--launchers",
        nargs="+",
        choices=LAUNCHERS,
        default=list(LAUNCHERS),
        help="default: all that are installed",
    )
    add("--repeats", type=int, default=7, help="of each time (default: %(default)s)")
    add("--work", help=argparse.SUPPRESS)  # of a rank: a folder that all ranks see
    add("--out", help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if any(n < GROUP or n % GROUP for n in arguments.rows):
        raise UserError(
            f"--rows must be multiples of {GROUP}, got {' '.join(map(str, arguments.rows))}"
        )
    if arguments.work:
        work(arguments)
        return 0
    there = [name for name in arguments.launchers if shutil.which(LAUNCHERS[name][0])]
    if not there:
        known = ", ".join(command[0] for command in LAUNCHERS.values())
        raise UserError(f"no launcher is installed; known: {known}")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in there:
            print("\n".join(table(name, arguments, Path(folder))), flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
