"""Estimate the seconds that the training of a network takes from its weights, rows and epochs.

    a step on one rank = 6 weights rows / rate + weights * weight_s + depth * layer_s
    a training         = epochs * steps * (a step + the allreduce of the gradients)

6 = 2 for a multiplication and an addition, times 3 for forward, the gradient of the input and that
of the weights. The second term is the optimiser's pass over the weights, which counts in small
batches; the third is the time to start a layer. Rates are those of whole trainings, evaluation
included. Finished trainings correct the estimate (estimates.py). Nothing here imports torch:
thousands of cells are estimated while `sweep plan` starts.
"""

import dataclasses
import functools
import math

from irnet_hpc.models import architectures
from irnet_hpc.runs.recipes import Recipe


@dataclasses.dataclass(frozen=True)
class Link:
    """A connection over which ranks send their messages."""

    # Of one step.
    latency_s: float
    # Bytes/s, each way.
    bandwidth: float
    source: str


SHARED_MEMORY = Link(
    0.5e-3,
    1.5e9,
    "Horovod between 2 processes on 2 cores, the least of many times: docs/performance.md",
)


def ring_s(n_ranks: int, n_bytes: float, link: Link) -> float:
    """Return the seconds of a ring allreduce of `n_bytes` (the whole buffer) over `n_ranks`."""
    return 2 * (n_ranks - 1) * (link.latency_s + n_bytes / n_ranks / link.bandwidth)


@dataclasses.dataclass(frozen=True)
class Device:
    """The device on which one rank computes."""

    # precision -> FLOP/s over a whole training
    rate: dict[str, float]
    # Seconds of a step per weight.
    weight_s: float
    # Seconds of a step per layer.
    layer_s: float
    # Between the devices of a node; None: not measured, so that allreduces are not counted.
    link: Link | None
    source: str


# kind -> device. A rank of several cores has that many times the rate.
DEVICES = {
    "core": Device(
        {"bf16": 200e9, "fp32": 80e9, "fp64": 40e9},
        weight_s=2e-9,
        layer_s=0.0,
        link=SHARED_MEMORY,
        source="trainings on a core of an AMD EPYC with AVX512-BF16 (docs/performance.md); "
        "fp64: half of fp32",
    ),
    "gpu": Device(
        {"bf16": 40e12, "fp32": 20e12, "fp64": 5e12},
        weight_s=2e-11,
        layer_s=4.3e-4,
        link=None,
        source="not measured: a layer from the 7.3 ms a step of IRNet-17 that were published, "
        "the rest assumed",
    ),
}
# Precision -> bytes of a gradient; bf16 is the precision of the matrix products alone.
BYTES = {"bf16": 4, "fp32": 4, "fp64": 8}


@functools.cache
def n_weights(layer_string: str, n_features: int, n_outputs: int = 1) -> int:
    """Count the parameters of the network of a layer string."""
    layers = architectures.parse_layers(layer_string)._replace(n_outputs=n_outputs)
    return architectures.n_weights(layers, n_features)


@dataclasses.dataclass(frozen=True)
class Work:
    """The facts that decide the cost of one training."""

    n_weights: int
    depth: int
    # Training rows.
    n_rows: int
    epochs: int
    recipe: Recipe


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The ranks on which a training runs."""

    nodes: int
    ranks_per_node: int
    # A key of DEVICES.
    device: str
    # Cores of each rank, if the device is a core.
    cores: int = 1

    @property
    def n_ranks(self) -> int:
        """The number of ranks over all nodes."""
        return self.nodes * self.ranks_per_node

    @property
    def link(self) -> Link | None:
        """The measured link between all ranks; None where there is none."""
        return DEVICES[self.device].link if self.nodes == 1 else None


def training_s(work: Work, allocation: Allocation) -> float:
    """Estimate the seconds of a training, before any correction by finished ones.

    The allreduce is left out where the link between the ranks was never measured.
    """
    n_steps = max(1, work.n_rows // work.recipe.batch)
    step = step_s(work, allocation, work.recipe.batch / allocation.n_ranks)
    return work.epochs * n_steps * (step + allreduce_s(work, allocation))


def step_s(work: Work, allocation: Allocation, n_rows: float) -> float:
    """Estimate the seconds of a step of `n_rows` rows on each rank, without the allreduce."""
    device = DEVICES[allocation.device]
    n_cores = allocation.cores if allocation.device == "core" else 1
    rate = device.rate[work.recipe.precision] * n_cores
    computing = 6 * work.n_weights * n_rows / rate
    return computing + work.n_weights * device.weight_s + work.depth * device.layer_s


def allreduce_s(work: Work, allocation: Allocation) -> float:
    """Estimate the seconds in which the gradients of a step are summed; 0 where unknown."""
    if allocation.link is None:
        return 0.0
    n_bytes = 2 if work.recipe.allreduce == "bf16" else BYTES[work.recipe.precision]
    return ring_s(allocation.n_ranks, work.n_weights * n_bytes, allocation.link)


# Least efficiency: below it, half of the paid time is waiting.
MIN_EFFICIENCY = 0.5


def proposed_ranks(
    work: Work, allocation: Allocation, limit_s: float, speed: float = 1.0
) -> int | None:
    """Return the fewest ranks, all of one node, on which a training ends in time.

    One, if that will do: a sum over ranks costs something, and another cell of the matrix would
    not. Ranks have whole groups of rows, and their number is a power of two. More than one rank is
    only proposed where the link between them was measured.

    Args:
        work: The training.
        allocation: The kind of device and its cores.
        limit_s: Seconds in which it must end.
        speed: Seconds that trainings take here per estimated second.

    Returns:
        The number of ranks; None where no number meets the limit.
    """
    one_node = dataclasses.replace(allocation, nodes=1)
    alone_s = training_s(work, dataclasses.replace(one_node, ranks_per_node=1))
    n_groups = work.recipe.batch // work.recipe.norm_group
    for power in range(int(math.log2(n_groups)) + 1 if one_node.link else 1):
        n_ranks = 2**power
        seconds = training_s(work, dataclasses.replace(one_node, ranks_per_node=n_ranks))
        if n_groups % n_ranks or alone_s / (n_ranks * seconds) < MIN_EFFICIENCY:
            return None
        if seconds * speed <= limit_s:
            return n_ranks
    return None
