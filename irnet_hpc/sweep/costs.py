"""What training a network costs: weights, rows and epochs -> seconds, by a model that done trainings can correct.

    a step on one rank = 6 weights rows / rate + weights * weight_s + depth * layer_s
    a training         = epochs * steps * (a step + the allreduce of the gradients)

6 = 2 for a multiplication and an addition, times 3 for forward, the gradient of the input and that of the weights; the
second term is the optimiser's way over the weights, which is what counts in small batches, the third what a device takes
to be told what to do. Rates are those of whole trainings, evaluation included. They are guesses about a machine that is not
at hand, and estimates made with them say so. No torch: thousands of cells are estimated while `sweep plan` starts.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

from irnet_hpc.models import architectures
from irnet_hpc.runs.recipes import Recipe


@dataclasses.dataclass(frozen=True)
class Link:
    """What one rank, or one node, sends its messages over."""

    latency_s: float  # of one step
    bandwidth: float  # bytes/s, each way; of a network, of one port
    source: str


# NCCL's own model of its rings (src/graph/tuning.cc as of 2020, table hwLat: ring, protocol Simple).
NCCL = "latency: NCCL's tuning table of 2020"
# name -> link. Bandwidths are what is on the label, which a real allreduce does not reach: predictions are bounds.
WITHIN_NODE = {
    "NVLink 3": Link(
        3.4e-6, 300e9, f"{NCCL}; bandwidth: NVIDIA's A100 data sheet, 600 GB/s both ways"
    ),
    "NVLink 4": Link(
        3.4e-6, 450e9, f"{NCCL}; bandwidth: NVIDIA's H100 data sheet, 900 GB/s both ways"
    ),
    "PCIe 4": Link(5.7e-6, 32e9, f"{NCCL}; bandwidth: PCI-SIG, 16 lanes of 16 GT/s"),
    "shared memory": Link(
        0.5e-3,
        1.5e9,
        "Horovod between 2 processes on 2 cores, the least of many times: docs/performance.md",
    ),
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


def ring_s(n_ranks: int, n_bytes: float, link: Link) -> float:
    """Seconds of a ring allreduce of `n_bytes` (the whole buffer, as each rank has it) over `n_ranks`."""
    return 2 * (n_ranks - 1) * (link.latency_s + n_bytes / n_ranks / link.bandwidth)


def hierarchical_s(
    n_nodes: int, ranks_per_node: int, n_bytes: float, within: Link, between: Link, ports: int
) -> float:
    """Seconds of an allreduce over nodes that have `ports` ports of the network each, shared by the node's ranks."""
    network = dataclasses.replace(between, bandwidth=ports * between.bandwidth)
    return ring_s(ranks_per_node, n_bytes, within) + ring_s(n_nodes, n_bytes, network)


def efficiency(step_s: float, allreduce_s: float) -> float:
    """Of ranks that each take `step_s` for their rows and then wait for the allreduce: 1 is no time lost."""
    return step_s / (step_s + allreduce_s)


@dataclasses.dataclass(frozen=True)
class Fit:
    link: Link
    median_error: float  # of |predicted / measured - 1|
    largest_error: float


def fit(measured: Sequence[tuple[int, float, float]]) -> Fit:
    """The link that explains (n_ranks, n_bytes, seconds) best, by least squares of the relative errors.

    Relative, since the times range over four decades, and the small messages are all that is known of the latency. A
    parameter that would come out negative is held at zero (an infinite bandwidth); at least two times are needed.
    """
    assert len(measured) >= 2
    rows = [
        (2 * (p - 1) / s, 2 * (p - 1) / p * n / s) for p, n, s in measured
    ]  # of latency and 1 / bandwidth
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


@dataclasses.dataclass(frozen=True)
class Device:
    """What one rank computes on."""

    rate: dict[str, float]  # precision -> FLOP/s over a whole training
    weight_s: float  # a step, for each weight
    layer_s: float  # a step, for each layer
    within: str  # of WITHIN_NODE: between the devices of a node
    source: str


# kind -> device. A rank of several cores has that many times the rate.
DEVICES = {
    "core": Device(
        {"bf16": 200e9, "fp32": 80e9, "fp64": 40e9},
        weight_s=2e-9,
        layer_s=0.0,
        within="shared memory",
        source="trainings on a core of an AMD EPYC with AVX512-BF16 (docs/performance.md); fp64: half of fp32",
    ),
    "gpu": Device(
        {"bf16": 40e12, "fp32": 20e12, "fp64": 5e12},
        weight_s=2e-11,
        layer_s=4.3e-4,
        within="NVLink 3",
        source="not measured: a layer from the 7.3 ms a step of IRNet-17 that were published, the rest assumed",
    ),
}
NETWORK = "InfiniBand HDR"  # between nodes, until somebody says otherwise; one port a node
BYTES = {"bf16": 4, "fp32": 4, "fp64": 8}  # of a gradient; bf16 is of the matrix products alone


@functools.cache
def n_weights(layer_string: str, n_features: int, n_outputs: int = 1) -> int:
    """Parameters of the network that model.py makes of a layer string."""
    return architectures.n_weights(
        architectures.parse_layers(layer_string)._replace(n_outputs=n_outputs), n_features
    )


@dataclasses.dataclass(frozen=True)
class Work:
    """One training, as far as its cost goes."""

    n_weights: int
    depth: int
    n_rows: int  # training rows
    epochs: int
    recipe: Recipe


@dataclasses.dataclass(frozen=True)
class Ranks:
    """What it runs on."""

    nodes: int
    ranks_per_node: int
    device: str  # of DEVICES
    cores: int = 1  # of each rank, where the device is a core

    @property
    def size(self) -> int:
        return self.nodes * self.ranks_per_node


def training_s(work: Work, ranks: Ranks) -> float:
    """Seconds that a training takes, by the model."""
    n_steps = max(1, work.n_rows // work.recipe.batch)
    step = step_s(work, ranks, work.recipe.batch / ranks.size)
    return work.epochs * n_steps * (step + allreduce_s(work, ranks))


def step_s(work: Work, ranks: Ranks, n_rows: float) -> float:
    """Seconds of one step of `n_rows` rows on each rank, without the allreduce."""
    device = DEVICES[ranks.device]
    rate = device.rate[work.recipe.precision] * (ranks.cores if ranks.device == "core" else 1)
    return (
        6 * work.n_weights * n_rows / rate
        + work.n_weights * device.weight_s
        + work.depth * device.layer_s
    )


def allreduce_s(work: Work, ranks: Ranks) -> float:
    """Seconds that the gradients of a step take to be summed."""
    n_bytes = work.n_weights * (
        2 if work.recipe.allreduce == "bf16" else BYTES[work.recipe.precision]
    )
    within, between = WITHIN_NODE[DEVICES[ranks.device].within], BETWEEN_NODES[NETWORK]
    return hierarchical_s(ranks.nodes, ranks.ranks_per_node, n_bytes, within, between, ports=1)


LEAST_EFFICIENCY = 0.5  # below it, half of what is paid for waits


def proposed_ranks(work: Work, ranks: Ranks, limit_s: float, speed: float = 1.0) -> int | None:
    """The fewest ranks, all of one node, on which a training ends within `limit_s`; None where none does.

    One, if that will do: whatever is summed over ranks costs something, and another cell of the matrix would not.
    `speed` is how long trainings take here, by the model's. Ranks have whole groups of rows, and are a power of two.
    """
    alone = training_s(work, dataclasses.replace(ranks, nodes=1, ranks_per_node=1))
    for power in range(int(math.log2(work.recipe.batch // work.recipe.norm_group)) + 1):
        size = 2**power
        took = training_s(work, dataclasses.replace(ranks, nodes=1, ranks_per_node=size))
        if (
            work.recipe.batch // work.recipe.norm_group % size
            or alone / (size * took) < LEAST_EFFICIENCY
        ):
            return None
        if took * speed <= limit_s:
            return size
    return None
