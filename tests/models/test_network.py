"""Networks: forward passes worked out by hand."""

import torch
from torch.nn.functional import batch_norm, linear, relu

from irnet_hpc.models.architectures import (
    parse_layers,
)
from irnet_hpc.models.dropout import Dropout
from irnet_hpc.models.network import Network
from irnet_hpc.models.normalisation import (
    Groups,
)


def by_hand(network: Network, x: torch.Tensor, group: int) -> torch.Tensor:
    """Compute 4BARx2-3BAx2R-2x1-1 by torch's functions: add after the ReLU, nothing after it."""

    def layer(x, module):
        z = linear(x, module.linear.weight, module.linear.bias)
        parts = [
            batch_norm(p, None, None, module.norm.weight, module.norm.bias, training=True)
            for p in z.split(group)
        ]
        return relu(torch.cat(parts))

    one, two, stack, bare = network.body
    x = layer(x, one.layers[0]) + linear(x, one.projection.weight, one.projection.bias)
    x = layer(x, two.layers[0]) + x
    x = layer(layer(x, stack.layers[0]), stack.layers[1]) + linear(
        x, stack.projection.weight, stack.projection.bias
    )
    x = linear(x, bare.linear.weight, bare.linear.bias)
    return linear(x, network.output.weight, network.output.bias)


def test_shortcuts_are_added_where_the_papers_add_them():
    network = Network(5, parse_layers("4BARx2-3BAx2R-2x1-1")).double()
    network.initialise(0)
    x = torch.randn(24, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        network(x, Groups(8, 8)), by_hand(network, x, 8), rtol=1e-12, atol=1e-12
    )


def test_a_forward_pass_worked_out_by_hand():
    network = Network(1, parse_layers("1ARx1-1"))
    with torch.no_grad():
        for module, weight, bias in (
            (network.body[0].layers[0].linear, 2, -1),
            (network.output, 3, 0.5),
        ):
            module.weight.fill_(weight)
            module.bias.fill_(bias)
    # x = 2: relu(2 * 2 - 1) + 2 = 5, 3 * 5 + 0.5 = 15.5.   x = -1: relu(-3) - 1 = -1, 3 * -1 + 0.5
    # = -2.5.
    assert network(torch.tensor([[2.0], [-1.0]]))[:, 0].tolist() == [15.5, -2.5]


def set_linear(module, weight: float, bias: float) -> None:
    with torch.no_grad():
        module.weight.fill_(weight)
        module.bias.fill_(bias)


def test_a_forward_pass_of_a_leaky_residual_worked_out_by_hand():
    network = Network(1, parse_layers("1L0.3R-1"))
    set_linear(network.body[0].layers[0].linear, 2, -1)
    set_linear(network.output, 10, 0)
    # x = -2: FC gives -5, leaky ReLU -1.5, the shortcut -3.5.   x = 2: 3 + 2.
    torch.testing.assert_close(
        network(torch.tensor([[-2.0], [2.0]]))[:, 0], torch.tensor([-35.0, 50.0])
    )


def test_a_forward_pass_of_brnet_worked_out_by_hand():
    """Two branches on 2 inputs: a = LReLU(FC(x)) + FC'(x), b = LReLU(FC(a)) + a, both b added."""
    network = Network(2, parse_layers("1L0.3Rx2+2-1"))
    one, two = network.body[0].branches
    set_linear(one[0].layers[0].linear, 1, 0)
    set_linear(one[0].projection, 2, 1)
    set_linear(one[1].layers[0].linear, -1, 0)
    set_linear(two[0].layers[0].linear, -1, 0)
    set_linear(two[0].projection, 0, -4)
    set_linear(two[1].layers[0].linear, 3, 2)
    set_linear(network.output, 1, 0.5)
    # x = (1, 2), whose sum is 3.
    # One: a = 3 + (2 * 3 + 1) = 10, b = 0.3 * -10 + 10 = 7.
    # Two: a = 0.3 * -3 - 4 = -4.9, b = 0.3 * (3 * -4.9 + 2) - 4.9 = -8.71.
    torch.testing.assert_close(
        network(torch.tensor([[1.0, 2.0]])), torch.tensor([[7 - 8.71 + 0.5]])
    )


def test_a_shortcut_after_the_count_goes_around_all_branches_together():
    network = Network(1, parse_layers("1Ax1+1R-1"))
    for branch, weight in zip(network.body[0].layers[0].branches, (1, -2), strict=True):
        set_linear(branch[0].linear, weight, 0)
    set_linear(network.output, 1, 0)
    # x = 3: 3 + 0 + 3.   x = -3: 0 + 6 - 3.
    assert network(torch.tensor([[3.0], [-3.0]]))[:, 0].tolist() == [6.0, 3.0]


def test_branches_start_from_different_weights():
    network = Network(4, parse_layers("4Ax1+1-1"))
    network.initialise(0)
    one, two = (branch[0].linear.weight for branch in network.body[0].branches)
    assert not torch.equal(one, two)


def test_dropout_follows_the_shortcut_and_scales_up_what_it_keeps():
    """Half of 2 columns is dropped, by given noise: 1 + 1 from the residual layer, doubled."""
    network = Network(2, parse_layers("2ARD0.5-1"))
    with torch.no_grad():
        network.body[0].layers[0].linear.weight.copy_(torch.eye(2))
        network.body[0].layers[0].linear.bias.zero_()
    set_linear(network.output, 1, 0)
    x, noise = (
        torch.ones(3, 2),
        torch.tensor([[-32768, -1], [0, -1], [0, 32767]], dtype=torch.int16),
    )
    assert network(x, None, noise)[:, 0].tolist() == [0.0, 4.0, 8.0]
    assert network(x)[:, 0].tolist() == [4.0, 4.0, 4.0]


def test_each_dropout_has_columns_of_noise_of_its_own():
    network = Network(3, parse_layers("4AD0.2x2D0.1-8A-2ARx2D0.5-1"))
    columns = [
        (m.columns.start, m.columns.stop) for m in network.modules() if isinstance(m, Dropout)
    ]
    assert columns == [(0, 4), (4, 8), (8, 12), (12, 14)] and network.n_noise == 14
    assert Network(3, parse_layers("4BARx2-1")).noise(0, 0, slice(0, 8)) is None


def test_population_statistics_are_the_mean_and_variance_over_the_rows():
    network = Network(3, parse_layers("4BAx1-1")).double()
    network.initialise(0)
    x = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3 + 7

    def run() -> int:
        network(x[:32], Groups(16, 16))
        network(x[32:], Groups(16, 16))
        return len(x)

    network.population_statistics(run, lambda: network(x), lambda sums: sums)
    layer = network.body[0]
    z = linear(x, layer.linear.weight, layer.linear.bias).detach()
    torch.testing.assert_close(layer.norm.mean, z.mean(0))
    torch.testing.assert_close(layer.norm.var, z.var(0, unbiased=False))
    alone, among = network(x[5:6]), network(x)[5:6]
    torch.testing.assert_close(alone, among)  # a prediction does not depend on its neighbours


def test_initial_weights_are_a_function_of_the_seed():
    networks = [Network(5, parse_layers("8BARx2-1")) for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        network.initialise(seed)
    first, same, other = (n.output.weight for n in networks)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert first.abs().max() <= 8**-0.5  # ±1/sqrt(n_inputs)
