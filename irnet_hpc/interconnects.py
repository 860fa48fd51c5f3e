"""How an allreduce scales: latency and bandwidth -> seconds, a fit to what was measured, and links by name.

A ring allreduce is a reduce-scatter and an allgather of p - 1 steps each, in which every rank sends bytes / p:

    T(p, bytes) = 2 (p - 1) latency + 2 (p - 1) / p * bytes / bandwidth

(Thakur, Rabenseifner and Gropp 2005, sections 2 and 4.5, without the term for the additions, which is in the fitted
bandwidth; Patarasuk and Yuan 2009 show that no allreduce sends fewer bytes.) Over nodes it is hierarchical: a ring in each
node over the fast link, and one over the nodes, in which each rank of a node takes part with its share of the bytes.
`python benchmarks/scaling.py` measures, fits and predicts. Nothing here needs torch.
"""

import dataclasses
from collections.abc import Sequence


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
    "NVLink 3": Link(3.4e-6, 300e9, f"{NCCL}; bandwidth: NVIDIA's A100 data sheet, 600 GB/s both ways"),
    "NVLink 4": Link(3.4e-6, 450e9, f"{NCCL}; bandwidth: NVIDIA's H100 data sheet, 900 GB/s both ways"),
    "PCIe 4": Link(5.7e-6, 32e9, f"{NCCL}; bandwidth: PCI-SIG, 16 lanes of 16 GT/s"),
    "shared memory": Link(
        0.5e-3, 1.5e9, "Horovod between 2 processes on 2 cores, the least of many times: docs/performance.md"
    ),
}
BETWEEN_NODES = {
    "InfiniBand NDR": Link(9.6e-6, 50e9, f"{NCCL}; bandwidth: IBTA, 4 lanes, 400 Gb/s"),
    "InfiniBand HDR": Link(9.6e-6, 25e9, f"{NCCL}; bandwidth: IBTA, 4 lanes, 200 Gb/s"),
    "Ethernet 100": Link(30e-6, 12.5e9, "latency: our assumption for TCP; bandwidth: IEEE 802.3, 100 Gb/s"),
    "Ethernet 10": Link(50e-6, 1.25e9, "latency: our assumption for TCP; bandwidth: IEEE 802.3, 10 Gb/s"),
}


def ring_s(n_ranks: int, n_bytes: float, link: Link) -> float:
    """Seconds of a ring allreduce of `n_bytes` (the whole buffer, as each rank has it) over `n_ranks`."""
    return 2 * (n_ranks - 1) * (link.latency_s + n_bytes / n_ranks / link.bandwidth)


def hierarchical_s(n_nodes: int, ranks_per_node: int, n_bytes: float, within: Link, between: Link, ports: int) -> float:
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
    rows = [(2 * (p - 1) / s, 2 * (p - 1) / p * n / s) for p, n, s in measured]  # of latency and 1 / bandwidth
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
