"""Measure how training scales here, and predict larger machines from it.

    python benchmarks/scaling.py      # 1 to 2 minutes; tables of measurements and of predictions
    python benchmarks/scaling.py --model irnet-48 --launcher gloo --ranks 2 4

Measured, as medians of --repeats: a step against rows and an allreduce against bytes. The
latency-bandwidth model of a ring is fitted to the allreduces; runs with more ranks than cores are
marked and left out of the fit, since their ranks wait for each other. Predicted: the efficiency
(the part of a step that is not the allreduce) of 8 to 1,024 GPUs, 8 a node, from the nominal speeds
of links and a GPU's step by costs.py: bounds from a model, not measurements.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from irnet_hpc.console import exit_status
from irnet_hpc.distributed.engines import start
from irnet_hpc.distributed.processes import keep_freed_memory
from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.network import Network, autocast
from irnet_hpc.models.normalisation import Groups
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.sweep.costs import (
    DEVICES,
    SHARED_MEMORY,
    Allocation,
    Link,
    Work,
    n_weights,
    ring_s,
    step_s,
)

N_FEATURES = 248
GROUP = 64  # rows that are normalised together
ROWS = (64, 256, 1024, 2048)
BYTES = (*(1000 * 4**power for power in range(8)), 64_000_000)  # 1 kB to 16 MB, and 64 MB
GPUS, GPUS_A_NODE = (8, 16, 64, 256, 1024), 8
LAUNCHERS = {"mpi": ("mpirun", "--oversubscribe", "-np"), "gloo": ("horovodrun", "--gloo", "-np")}


# NCCL's own model of its rings (src/graph/tuning.cc as of 2020, table hwLat: ring, Simple).
NCCL = "latency: NCCL's tuning table of 2020"
# Name -> link. Bandwidths are those of data sheets, which a real allreduce does not reach, so that
# predictions are bounds.
WITHIN_NODE = {
    "NVLink 3": Link(
        3.4e-6, 300e9, f"{NCCL}; bandwidth: NVIDIA's A100 data sheet, 600 GB/s both ways"
    ),
    "NVLink 4": Link(
        3.4e-6, 450e9, f"{NCCL}; bandwidth: NVIDIA's H100 data sheet, 900 GB/s both ways"
    ),
    "PCIe 4": Link(5.7e-6, 32e9, f"{NCCL}; bandwidth: PCI-SIG, 16 lanes of 16 GT/s"),
    "shared memory": SHARED_MEMORY,
}
BETWEEN_NODES = {
    "InfiniBand NDR": Link(9.6e-6, 50e9, f"{NCCL}; bandwidth: IBTA, 4 lanes, 400 Gb/s"),
    "InfiniBand HDR": Link(9.6e-6, 25e9, f"{NCCL}; bandwidth: IBTA, 4 lanes, 200 Gb/s"),
    "Ethernet 100": Link(
        30e-6, 12.5e9, "latency: our assumption for TCP; bandwidth: IEEE 802.3, 100 Gb/s"
    ),
    "Ethernet 10": Link(
        50e-6, 1.25e9, "latency: our assumption for TCP; bandwidth: IEEE 802.3, 10 Gb/s"
    ),
}


def hierarchical_s(
    ranks: tuple[int, int], n_bytes: float, within: Link, between: Link, n_ports: int
) -> float:
    """Return the seconds of an allreduce over (nodes, ranks of each).

    Each node has `n_ports` ports of the network, which its ranks share.
    """
    n_nodes, ranks_per_node = ranks
    network = dataclasses.replace(between, bandwidth=n_ports * between.bandwidth)
    return ring_s(ranks_per_node, n_bytes, within) + ring_s(n_nodes, n_bytes, network)


def efficiency(step_s: float, allreduce_s: float) -> float:
    """Return the part of the time that computes, where each step waits for its allreduce."""
    return step_s / (step_s + allreduce_s)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A link fitted to measured times."""

    link: Link
    # Of |predicted / measured - 1|.
    median_error: float
    largest_error: float


def fit(measured: Sequence[tuple[int, float, float]]) -> Fit:
    """Fit the link that explains (n_ranks, n_bytes, seconds) best, with least relative squares.

    Relative, since the times range over four decades, and the small messages are all that is known
    of the latency. A parameter that would come out negative is held at zero (an infinite
    bandwidth); at least two times are needed.
    """
    assert len(measured) >= 2
    # Coefficients of the latency and of 1 / bandwidth.
    rows = [(2 * (p - 1) / s, 2 * (p - 1) / p * n / s) for p, n, s in measured]
    aa, ab, bb = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = (sum(row[i] for row in rows) for i in (0, 1))
    determinant = aa * bb - ab * ab
    latency, inverse = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
    if latency < 0:
        latency, inverse = 0.0, b / bb
    elif inverse <= 0:
        latency, inverse = a / aa, 0.0
    link = Link(latency, 1 / inverse if inverse else float("inf"), "fitted")
    errors = sorted(abs(ring_s(p, n, link) / s - 1) for p, n, s in measured)
    return Fit(link, errors[len(errors) // 2], errors[-1])


def steps(layer_string: str, repeats: int) -> dict[int, float]:
    """Rows -> seconds of a step of one rank and thread in bf16, without an allreduce."""
    network = Network(N_FEATURES, parse_layers(layer_string))
    network.initialise(0)
    flat = FlatParameters([network])
    optimizer = torch.optim.AdamW(flat.trained, 1e-3, fused=True)
    found = {}
    for n_rows in ROWS:
        x, y = torch.randn(1, n_rows, N_FEATURES), torch.randn(1, n_rows)  # a stack of one
        times = []
        for _ in range(repeats + 1):  # the first is to warm up
            began = time.perf_counter()
            flat.clear()
            with autocast("bf16", x.device):
                error = network(x, Groups(GROUP, GROUP)).view_as(y) - y
            (error.abs().sum() / n_rows).backward()
            optimizer.step()
            times.append(time.perf_counter() - began)
        found[n_rows] = statistics.median(times[1:])
    return found


def work(arguments: argparse.Namespace) -> None:
    """What a rank does: time allreduces of every size; rank 0 writes the medians."""
    comm, found = start("horovod", Path(arguments.work).parent), []
    for n_bytes in BYTES:
        buffer, times = torch.zeros(n_bytes // 4), []
        for _ in range(arguments.repeats + 2):
            comm.gather(None)  # all begin together
            began = time.perf_counter()
            comm.sum_(buffer)
            times.append(time.perf_counter() - began)
        found.append((comm.size, n_bytes, statistics.median(times[2:])))
    if comm.rank == 0:
        Path(arguments.work).write_text(json.dumps(found))
    comm.gather(None)
    comm.close()


def allreduces(n_ranks: int, arguments: argparse.Namespace) -> list[tuple[int, int, float]]:
    """(ranks, bytes, seconds) of a launch of so many ranks."""
    root = (
        {f"OMPI_ALLOW_RUN_AS_ROOT{suffix}": "1" for suffix in ("", "_CONFIRM")}
        if os.geteuid() == 0
        else {}
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [
            *LAUNCHERS[arguments.launcher],
            str(n_ranks),
            sys.executable,
            __file__,
            "--work",
            str(out),
        ]
        command += ["--repeats", str(arguments.repeats)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | root
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise UserError(f"{n_ranks} ranks failed: {(done.stderr or done.stdout)[-1500:]}")
        return [tuple(row) for row in json.loads(out.read_text())]


def of_steps(found: dict[int, float]) -> list[str]:
    lines = [
        "\n## Measured: a step of one rank and thread\n",
        "| rows | ms | rows/s |",
        "|---:|---:|---:|",
    ]
    return lines + [
        f"| {n} | {1e3 * seconds:.1f} | {n / seconds:,.0f} |" for n, seconds in found.items()
    ]


def of_allreduces(measured: list[tuple[int, int, float]], found: Fit) -> list[str]:
    lines = ["\n## Measured: an allreduce, and the fitted model beside it\n"]
    lines += ["| ranks | bytes | measured, ms | fitted, ms |", "|---:|---:|---:|---:|"]
    for n_ranks, n_bytes, seconds in measured:
        mark = " (more than cores: not fitted)" if n_ranks > os.cpu_count() else ""
        fitted = f"{1e3 * ring_s(n_ranks, n_bytes, found.link):.3f}" if not mark else ""
        lines.append(f"| {n_ranks}{mark} | {n_bytes:,} | {1e3 * seconds:.3f} | {fitted} |")
    link = found.link
    return [
        *lines,
        f"\nfit: latency {1e6 * link.latency_s:.0f} µs a step, bandwidth "
        f"{link.bandwidth / 1e9:.2f} GB/s; the model is off by "
        f"{found.median_error:.0%} in the median, {found.largest_error:.0%} at most",
    ]


def of_gpus(work: Work, n_rows: int) -> list[str]:
    """Predicted efficiencies: a line for each number of GPUs, a column for each pair of links."""
    pairs = [
        ("NVLink 4", "InfiniBand NDR", 8),
        ("NVLink 3", "InfiniBand HDR", 8),
        ("NVLink 3", "InfiniBand HDR", 1),
        ("PCIe 4", "Ethernet 100", 1),
        ("PCIe 4", "Ethernet 10", 1),
    ]
    step, n_bytes = step_s(work, Allocation(1, 1, "gpu"), n_rows), 4 * work.n_weights
    heads = [
        f"{within}, {ports} × {between}" if ports > 1 else f"{within}, {between}"
        for within, between, ports in pairs
    ]
    lines = [
        f"\n## Predicted: efficiency with {n_rows} rows a GPU, whose step is taken to be "
        f"{1e3 * step:.1f} ms\n"
    ]
    lines += [f"| GPUs | {' | '.join(heads)} |", f"|---:|{'---:|' * len(pairs)}"]
    for n_gpus in GPUS:
        times = [
            hierarchical_s(
                (n_gpus // GPUS_A_NODE, GPUS_A_NODE),
                n_bytes,
                WITHIN_NODE[a],
                BETWEEN_NODES[b],
                ports,
            )
            for a, b, ports in pairs
        ]
        cells = [f"{efficiency(step, seconds):.0%} ({1e3 * seconds:.2f} ms)" for seconds in times]
        lines.append(f"| {n_gpus} | {' | '.join(cells)} |")
    return lines


def of_sources() -> list[str]:
    lines = [
        "\n## What the predictions rest on\n",
        "| link | latency, µs | bandwidth, GB/s | source |",
        "|---|---:|---:|---|",
    ]
    for name, link in (WITHIN_NODE | BETWEEN_NODES).items():
        lines.append(
            f"| {name} | {1e6 * link.latency_s:.1f} | {link.bandwidth / 1e9:g} | {link.source} |"
        )
    return [*lines, f"\na GPU's step: {DEVICES['gpu'].source}"]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--model",
        default="irnet-17",
        help="architecture and depth, or a layer string (default: %(default)s)",
    )
    add("--launcher", choices=LAUNCHERS, default="mpi", help="default: %(default)s")
    add(
        "--ranks",
        type=int,
        nargs="+",
        default=[2, 4],
        help="of the allreduces, from 2 (default: 2 4)",
    )
    add("--repeats", type=int, default=11, help="of each time (default: %(default)s)")
    add("--work", help=argparse.SUPPRESS)  # of a rank: the file for what it measured
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    keep_freed_memory()
    torch.set_num_threads(1)
    if arguments.work:
        work(arguments)
        return 0
    if min(arguments.ranks) < 2:
        raise UserError(f"--ranks must be at least 2, got {min(arguments.ranks)}")
    spec = RunSpec("pack", "property", **model_of(arguments.model))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, load "
        f"{os.getloadavg()[0]:.1f}, {spec.model}"
    )
    print("\n".join(of_steps(steps(spec.layer_string, arguments.repeats))), flush=True)
    measured = [row for n_ranks in arguments.ranks for row in allreduces(n_ranks, arguments)]
    within = [row for row in measured if row[0] <= os.cpu_count()]
    if not within:
        raise UserError(
            f"--ranks must have one of at most {os.cpu_count()}, the cores, got "
            f"{min(arguments.ranks)}"
        )
    print("\n".join(of_allreduces(measured, fit(within))), flush=True)
    weights, depth = n_weights(spec.layer_string, N_FEATURES), parse_layers(spec.layer_string).depth
    gpu_work = Work(weights, depth, n_rows=0, epochs=1, recipe=RECIPES["onecycle"])
    for n_rows in (256, 2048):
        print("\n".join(of_gpus(gpu_work, n_rows)))
    print("\n".join(of_sources()))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
