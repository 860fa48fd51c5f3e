"""A training step on a GPU: two graphs, nothing that makes the host wait, and few launches."""

import pytest

from tests.fake_gpu.steps import KINDS

# The kernels of a step that its two graphs hold, fused and by torch's operations; fewer are better.
MOST_NODES = {
    "irnet": (63, 287),
    "fp32": (60, 312),
    "fp64": (288, 288),  # is not fused
    "srnet": (69, 287),
    "micro-batches": (136, 538),
    "three cells": (63, 359),
    "three cells, dropout": (103, 108),
    "IRNet-17": (125, 339),
    "IRNet-48": (283, 901),
    "IRNet-17, 16 cells": (125, 935),
}
# The launches of a step once its graphs are recorded: two graphs, reading features and targets, the
# rates, and the flag of a stop; with dropout, the states from which its noise is drawn.
LAUNCHES, DROPOUT_LAUNCHES = 6, 7
WITH_DROPOUT = [name for name, kind in KINDS.items() if "D0." in kind[0]]


@pytest.fixture(scope="module")
def phases(stand_in) -> dict:
    """Return what steps of every kind do."""
    return stand_in.json("-m", "tests.fake_gpu.steps")


@pytest.fixture(scope="module")
def plain_phases(stand_in) -> dict:
    """Return what steps do where Triton or a compiler is missing."""
    return stand_in.json("-m", "tests.fake_gpu.steps", *MOST_NODES, IRNET_FUSED="no")


@pytest.mark.parametrize("kind", KINDS)
def test_both_graphs_of_a_step_are_recorded(phases, kind):
    assert phases[kind]["graphs"] == [True, True]
    for name, phase in phases[kind].items():
        assert name == "graphs" or phase["violations"] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", ["launched", "replayed"])
def test_a_step_never_makes_the_host_wait_nor_asks_for_memory(phases, kind, phase):
    found = phases[kind][phase]
    assert found["waits"] == {} and found["calls"] == {}
    assert not [name for name in found["copies"] if "host" in name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_replayed_step_is_few_launches(phases, kind):
    launches = sum(phases[kind]["replayed"]["launches"].values())
    assert launches <= (DROPOUT_LAUNCHES if kind in WITH_DROPOUT else LAUNCHES)


@pytest.mark.parametrize("kind", MOST_NODES)
@pytest.mark.parametrize("way", ["fused", "plain"])
def test_the_graphs_of_a_step_hold_no_more_kernels_than_they_did(phases, plain_phases, way, kind):
    phase, most = {"fused": phases, "plain": plain_phases}[way][kind], MOST_NODES[kind]
    recorded, launched = phase["recorded"], phase["launched"]
    assert phase["graphs"] == [True, True]
    assert 0 < sum(recorded["nodes"].values()) <= most[way == "plain"]
    # What is recorded is what was launched one by one before, but for the two reads, the rates and
    # the flag, and the states of noise.
    apart = 5 if kind in WITH_DROPOUT else 4
    assert sum(launched["launches"].values()) - sum(recorded["nodes"].values()) == apart


# Once for the outputs, and once for each layer while statistics are taken.
@pytest.mark.parametrize(("kind", "most"), [("irnet", 8), ("IRNet-17", 18), ("IRNet-48", 49)])
def test_the_host_waits_once_a_layer_in_an_evaluation(phases, kind, most):
    waits = phases[kind]["evaluation"]["waits"]
    assert 0 < sum(waits.values()) <= most
