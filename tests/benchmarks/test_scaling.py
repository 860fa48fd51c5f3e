"""Hold the model of scale to seconds by hand, and the fit to what its times were made from."""

import math

import pytest

from benchmarks.scaling import BETWEEN_NODES, WITHIN_NODE, efficiency, fit, hierarchical_s
from irnet_hpc.sweep.costs import Link, ring_s

SLOW = Link(latency_s=1e-3, bandwidth=1e6, source="")
FAST = Link(latency_s=1e-4, bandwidth=1e8, source="")


def test_a_ring_takes_two_rounds_of_p_minus_1_steps():
    # 4 ranks: 6 steps of 1 ms, and 6 quarters of 4 MB at 1 MB/s.
    assert ring_s(4, 4e6, SLOW) == pytest.approx(6e-3 + 6.0)
    assert ring_s(1, 4e6, SLOW) == 0


def test_a_ring_in_each_node_is_followed_by_one_over_the_nodes():
    within = 2 * 3 * (1e-4 + 1e6 / 1e8)  # 4 ranks a node, slices of 1 MB at 100 MB/s
    between = 2 * 1 * (1e-3 + 2e6 / 2e6)  # 2 nodes, halves of 4 MB over two ports of 1 MB/s
    assert hierarchical_s((2, 4), 4e6, FAST, SLOW, n_ports=2) == pytest.approx(within + between)
    assert hierarchical_s((1, 4), 4e6, FAST, SLOW, n_ports=2) == ring_s(4, 4e6, FAST)


def test_efficiency_is_the_part_of_the_time_that_computes():
    assert efficiency(3.0, 1.0) == 0.75


@pytest.mark.parametrize("link", [*WITHIN_NODE.values(), *BETWEEN_NODES.values()])
def test_the_fit_recovers_the_link_that_the_times_were_made_from(link):
    made = [(p, n, ring_s(p, n, link)) for p in (2, 4) for n in (1e3, 1e5, 1e7)]
    found = fit(made)
    assert found.link.latency_s == pytest.approx(link.latency_s)
    assert found.link.bandwidth == pytest.approx(link.bandwidth)
    assert found.largest_error < 1e-9


def test_the_fit_says_how_far_it_is_from_the_times():
    made = [(2, n, ring_s(2, n, SLOW)) for n in (1e3, 1e4, 1e5, 1e6, 1e7)]
    made[2] = (2, 1e5, 2 * made[2][2])  # one of five took twice as long, which is at most -50 %
    found = fit(made)
    assert 0.2 < found.largest_error < 0.5
    assert found.median_error < found.largest_error
    assert found.link.bandwidth == pytest.approx(1e6, rel=0.3)


def test_a_parameter_is_never_negative():
    assert (
        fit([(2, 1e3, 1e-6), (2, 2e3, 4e-6)]).link.latency_s == 0
    )  # twice the bytes, four times the time
    shrinking = fit([(2, 1e3, 4e-6), (2, 2e3, 1e-6)]).link
    assert math.isinf(shrinking.bandwidth) and shrinking.latency_s > 0
