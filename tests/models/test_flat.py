"""Flat parameters and gradients."""

import functools

import pytest
import torch

from irnet_hpc.models.architectures import (
    parse_layers,
)
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.network import Network, autocast, n_parameters
from irnet_hpc.models.normalisation import (
    Groups,
)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp64", 1e-12), ("fp32", 1e-5), ("bf16", 0.01)]
)
@pytest.mark.parametrize("n_frozen", [0, 5 * 6 + 6])
def test_written_gradients_are_those_that_torch_adds_up(precision, tolerance, n_frozen):
    """The same network with torch's own linear layers, whatever the buffer held before."""
    string, dtype = "6BARx2-6BAx2R-4x1-1", torch.float64 if precision == "fp64" else torch.float32
    ours, plain = (Network(5, parse_layers(string)).to(dtype) for _ in range(2))
    for network in (ours, plain):
        network.initialise(0)
    flat, n = FlatParameters([ours], n_frozen), n_parameters(plain)  # a stack of one
    flat.reduced[n_frozen:] = 7
    flat.clear()
    x = torch.randn(1, 24, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    outputs, close = (
        [],
        functools.partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance),
    )
    for network, rows in ((ours, x), (plain, x[0])):
        with autocast(precision, x.device):
            outputs.append(network(rows, Groups(8, 8)).view(24, 1))
        outputs[-1].abs().sum().backward()
    close(*outputs)
    gradients = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    close(flat.reduced[n_frozen:n], gradients[n_frozen:])
    assert not flat.reduced[:n_frozen].any() and not flat.riders.any() and gradients.abs().max() > 1
    # A weight that has seen a second backward pass holds the second gradient, not the sum.
    ours(x, Groups(8, 8)).sum().backward()
    plain.zero_grad()
    plain(x[0], Groups(8, 8)).sum().backward()
    close(ours.output.weight.grad[0], plain.output.weight.grad)


def test_flat_buffers_are_the_parameters_and_their_gradients():
    network = Network(3, parse_layers("4BARx2-1"))
    network.initialise(3)
    before = [p.detach().clone() for p in network.parameters()]
    flat = FlatParameters([network])
    assert all(torch.equal(a, b[0]) for a, b in zip(before, network.parameters(), strict=True))
    network(torch.randn(1, 8, 3), Groups(8, 8)).sum().backward()
    gradients = torch.cat([p.grad.flatten() for p in network.parameters()])
    assert torch.equal(flat.trained[0].grad, gradients) and gradients.abs().sum() > 0
    flat.values.zero_()
    assert all(not p.any() for p in network.parameters())
