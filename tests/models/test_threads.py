"""Hold how many threads a network gets on a CPU."""

import pytest

from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.threads import threads_that_pay


@pytest.mark.parametrize(
    ("layers", "n_rows", "n_threads"),
    [
        ("64BARx3-1", 256, 1),
        ("256BARx3-1", 64, 1),
        ("256BARx3-1", 256, 2),
        ("1024BARx4-512BARx3-1", 32, 4),
        ("1024BARx4-512BARx3-1", 256, 8),
        ("1-1", 32, 1),
    ],
)
def test_small_networks_have_one_thread_and_large_ones_all(layers, n_rows, n_threads):
    assert threads_that_pay(parse_layers(layers), n_rows, 8) == n_threads
    assert threads_that_pay(parse_layers(layers), n_rows, 1) == 1
