"""Layers in few kernels, in Triton's interpreter: they compute what the plain path computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.fused_cases import IN_PIECES, KINDS

ROOT = Path(__file__).parents[2]
ALL = [*KINDS, *(f"{kind}, in pieces" for kind in IN_PIECES)]


@pytest.fixture(scope="module")
def found() -> dict:
    """Return what fused and plain networks differ by."""
    pytest.importorskip("triton", reason="needs Triton: pip install --no-deps triton==3.7.1")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.models.fused_cases"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ALL)
def test_fused_layers_compute_what_plain_layers_do(found, kind):
    for name, (fused, plain, size) in found[kind].items():
        if name.endswith("linear.bias") and size < 1e-4:
            continue  # exactly 0, see below
        # The interpreter cuts numbers off where it stores bf16; GPUs round, as the plain path does.
        limit = max(4 * plain, 2e-3 * size) if "bf16" in kind else 5e-6 * size
        assert size > 0 and fused <= limit, name


def test_the_bias_that_normalisation_takes_off_has_a_gradient_of_zero(found):
    biases = {
        name: v for name, v in found["irnet"].items() if name.endswith("layers.0.linear.bias")
    }
    assert len(biases) == 5
    for fused, plain, size in biases.values():
        # The plain gradient is the rounding of 0, from which 0 differs by all of it.
        assert plain == 0 and size < 1e-5 and fused == size


def test_a_feature_with_a_large_mean_keeps_its_variance(found):
    assert found["a large mean"]["largest error"] < 1e-4


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_update_is_that_of_torch(found, optimizer):
    for name, (off, size) in found[optimizer].items():
        # bf16 has 8 bits; the other numbers are 4 at most, in fp32.
        assert size > 0.01 and off <= (2**-7 * size if name == "copy" else 2e-6), name


def test_kernels_that_differ_from_torch_are_not_used(found):
    assert found["without a slip"] is None
    assert "differs" in found["with a slip"]
