"""Estimate how many seconds a network's training takes, from its weights, rows and epochs.

    a step on one rank = 6 weights rows / rate + weights * weight_s + depth * layer_s
    a training         = epochs * steps * (a step + the allreduce of the gradients)

The factor 6 is 2 (a multiplication and an addition) times 3 (the forward pass, the gradient of the
input and the gradient of the weights). The second term is the optimiser's pass over the weights,
which matters if batches are small; the third is the time to start a layer. Rates are those of
whole trainings, evaluation included. Finished trainings correct the estimate (estimates.py). This
module must not import torch: `sweep plan` estimates thousands of cells as it starts.
"""

import dataclasses
import functools
import math

from irnet_hpc.models import architectures
from irnet_hpc.runs.recipes import Recipe


@dataclasses.dataclass(frozen=True)
class Link:
    """A connection over which ranks send their messages."""

    # Seconds of one step of the allreduce.
    latency_s: float
    # Bytes/s in each direction.
    bandwidth: float
    source: str


SHARED_MEMORY = Link(
    0.5e-3,
    1.5e9,
    "Horovod between 2 processes on 2 cores, the shortest of many times: docs/performance.md",
)


def ring_s(n_ranks: int, n_bytes: float, link: Link) -> float:
    """Return the seconds of a ring allreduce of a buffer of `n_bytes`."""
    return 2 * (n_ranks - 1) * (link.latency_s + n_bytes / n_ranks / link.bandwidth)


@dataclasses.dataclass(frozen=True)
class Device:
    """The device on which one rank computes."""

    # precision -> FLOP/s over a whole training
    rate: dict[str, float]
    # The seconds that a step takes per weight.
    weight_s: float
    # The seconds that a step takes per layer.
    layer_s: float
    # The link between the devices of a node; None: not measured, so allreduces are not counted.
    link: Link | None
    source: str


# kind -> device. The rate of a rank is the rate of a core times the rank's number of cores.
DEVICES = {
    "core": Device(
        {"bf16": 200e9, "fp32": 80e9, "fp64": 40e9},
        weight_s=2e-9,
        layer_s=0.0,
        link=SHARED_MEMORY,
        source="trainings on a core of an AMD EPYC with AVX512-BF16 (docs/performance.md); "
        "for fp64, half the rate of fp32",
    ),
    "gpu": Device(
        {"bf16": 40e12, "fp32": 20e12, "fp64": 5e12},
        weight_s=2e-11,
        layer_s=4.3e-4,
        link=None,
        source="not measured: the time of a layer follows from the published 7.3 ms a step of "
        "IRNet-17, the rest is assumed",
    ),
}
# Precision -> bytes of a gradient; with bf16 only the matrix products have 16 bits.
BYTES = {"bf16": 4, "fp32": 4, "fp64": 8}


@functools.cache
def n_weights(layer_string: str, n_features: int, n_outputs: int = 1) -> int:
    """Count the parameters of the network that a layer string describes."""
    layers = architectures.parse_layers(layer_string)._replace(n_outputs=n_outputs)
    return architectures.n_weights(layers, n_features)


@dataclasses.dataclass(frozen=True)
class Work:
    """The facts that determine the cost of one training."""

    n_weights: int
    depth: int
    # The number of training rows.
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
    # The cores of each rank, if the device is a core.
    cores: int = 1

    @property
    def n_ranks(self) -> int:
        """The number of ranks over all nodes."""
        return self.nodes * self.ranks_per_node

    @property
    def link(self) -> Link | None:
        """The link between all ranks; None if it was never measured."""
        return DEVICES[self.device].link if self.nodes == 1 else None


def training_s(work: Work, allocation: Allocation) -> float:
    """Estimate the seconds of a training, not yet corrected by finished trainings.

    The allreduce is left out if the link between the ranks was never measured.
    """
    n_steps = max(1, work.n_rows // work.recipe.batch)
    step = step_s(work, allocation, work.recipe.batch / allocation.n_ranks)
    return work.epochs * n_steps * (step + allreduce_s(work, allocation))


def step_s(work: Work, allocation: Allocation, n_rows: float) -> float:
    """Estimate the seconds of a step without the allreduce, if each rank has `n_rows` rows."""
    device = DEVICES[allocation.device]
    n_cores = allocation.cores if allocation.device == "core" else 1
    rate = device.rate[work.recipe.precision] * n_cores
    computing = 6 * work.n_weights * n_rows / rate
    return computing + work.n_weights * device.weight_s + work.depth * device.layer_s


def allreduce_s(work: Work, allocation: Allocation) -> float:
    """Estimate the seconds that summing the gradients of a step takes; 0 if that is unknown."""
    if allocation.link is None:
        return 0.0
    n_bytes = 2 if work.recipe.allreduce == "bf16" else BYTES[work.recipe.precision]
    return ring_s(allocation.n_ranks, work.n_weights * n_bytes, allocation.link)


# The lowest accepted efficiency: below it, more than half of the paid time is waiting.
MIN_EFFICIENCY = 0.5


def proposed_ranks(
    work: Work, allocation: Allocation, limit_s: float, speed: float = 1.0
) -> int | None:
    """Return the smallest number of ranks, all on one node, with which a training ends in time.

    One rank is preferred: summing gradients over ranks costs time, whereas training another cell
    beside this one does not. The number of ranks is a power of two, and no group of rows that are
    normalised together is divided among ranks. More than one rank is proposed only if the link
    between the ranks was measured.

    Args:
        work: The training.
        allocation: The kind of device and its cores.
        limit_s: The seconds within which the training must end.
        speed: The measured seconds of trainings here per estimated second.

    Returns:
        The number of ranks; None if no number meets the limit.
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
