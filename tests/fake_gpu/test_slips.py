"""The stand-in sees what it claims to: slips planted in the training step, one at a time."""

import pytest

# slip -> which graphs are recorded nevertheless: of the gradients, of the update
SPOILT = {
    "the loss is looked at": [False, True],
    "if the sum is positive": [True, False],
    "rows by a boolean mask": [False, True],
    "distinct rows": [False, True],
    "a constant of the CPU": [False, True],
    "the device is waited for": [True, False],
    "a wait for a foreign stream": [False, True],
    "a stream that is not joined": [False, True],
    "another thread synchronizes": [False, True],
    "another thread allocates, mode global": [False, True],
}


@pytest.fixture(scope="module")
def seen(stand_in) -> dict:
    """Return what the stand-in sees of each slip."""
    return stand_in.json("-m", "tests.fake_gpu.slips", FAKE_GPU_QUIET=1)


@pytest.mark.parametrize("slip", ["none", "another thread allocates"])
def test_a_step_without_a_slip_is_not_complained_of(seen, slip):
    found = seen[slip]
    assert found["graphs"] == [True, True] and found["error"] is None
    assert not found["violations"] and not found["waits"] and not found["copies"]


@pytest.mark.parametrize(("slip", "graphs"), SPOILT.items())
def test_a_slip_within_a_recording_spoils_its_graph(seen, slip, graphs):
    assert seen[slip]["graphs"] == graphs


@pytest.mark.parametrize("slip", SPOILT)
def test_a_spoilt_recording_gives_the_stream_back(seen, slip):
    assert seen[slip]["stream is restored"] is True


def test_slips_outside_the_graphs_are_seen_as_waits_and_copies(seen):
    looks, copies = (
        seen[f"each step {slip}"] for slip in ("looks outside the graphs", "copies from pageable")
    )
    assert looks["waits"] == {"cudaStreamSynchronize": 1}
    assert copies["copies"] == {"copy host to device, pageable": 1}


def test_a_graph_that_reads_memory_of_a_tensor_that_is_gone_is_an_error(seen):
    assert "dead tensor" in seen["the batch is another tensor"]["error"]


def test_only_collectives_in_a_wrong_order_are_complained_of(seen):
    counts = {name: len(found) for name, found in seen["collectives"].items()}
    assert counts == {"right": 0, "too_early": 1, "too_late": 1}
