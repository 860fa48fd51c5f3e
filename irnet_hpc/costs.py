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

from irnet_hpc import architectures
from irnet_hpc.interconnects import BETWEEN_NODES, WITHIN_NODE, hierarchical_s
from irnet_hpc.recipes import Recipe


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
    return architectures.n_weights(architectures.parse(layer_string)._replace(n_outputs=n_outputs), n_features)


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
    return 6 * work.n_weights * n_rows / rate + work.n_weights * device.weight_s + work.depth * device.layer_s


def allreduce_s(work: Work, ranks: Ranks) -> float:
    """Seconds that the gradients of a step take to be summed."""
    n_bytes = work.n_weights * (2 if work.recipe.allreduce == "bf16" else BYTES[work.recipe.precision])
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
        if work.recipe.batch // work.recipe.norm_group % size or alone / (size * took) < LEAST_EFFICIENCY:
            return None
        if took * speed <= limit_s:
            return size
    return None
