"""Memory of a GPU: a step gives it back, and a bundle that does not fit is halved."""

import pytest

pytestmark = pytest.mark.slow


def test_a_step_that_nobody_uses_gives_its_graphs_memory_back(stand_in):
    found = stand_in.json("-m", "tests.fake_gpu.memory", "dropped")
    assert found["freed at once"]
    # Its graphs' memory is gone; what stays is cuBLAS's workspaces.
    assert found["with graphs"] - found["before"] > 150
    assert found["after"] - found["before"] < 70


# The memory, and of 8 cells how many train together in it; twice as many need more.
@pytest.mark.parametrize(("gb", "n_together"), [(40, 8), (2.5, 4), (1.4, 2)])
def test_a_bundle_is_halved_until_it_fits(stand_in, tmp_path, gb, n_together):
    found = stand_in.json("-m", "tests.fake_gpu.memory", "bundle", 8, 1024, tmp_path, gb=gb)
    assert found["sizes"] == [n_together] * 8


def test_a_bundle_that_would_not_fit_alone_either_is_not_halved_needlessly(stand_in, tmp_path):
    # Twice as many as above, in memory that nothing has used before.
    found = stand_in.json("-m", "tests.fake_gpu.memory", "bundle", 4, 1024, tmp_path, gb=1.4)
    assert found["sizes"] == [2] * 4


def test_a_recording_meets_the_thread_that_reads_ahead(stand_in, alloys_pack, tmp_path):
    options = ["--pack", alloys_pack, "--property", "mixing_enthalpy", "--layers", "32BARx2-1"]
    options += ["--results", tmp_path, "--data", "stream", "--device", "cuda"]
    recipe = "{name: t, base: onecycle, epochs: 2, batch: 64, norm_group: 32}"
    found = stand_in.json("-m", "tests.fake_gpu.reader", *options, "--recipe", recipe)
    assert found == {"graphs": [True, True], "met": True, "violations": []}
