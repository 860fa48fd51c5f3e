"""The layer strings and the networks, against counts from the papers, plain torch and passes worked out by hand."""

import functools
import itertools

import pytest
import torch
from torch.nn.functional import batch_norm, linear, relu

from irnet_hpc.errors import UserError
from irnet_hpc.models import normalisation
from irnet_hpc.models.architectures import (
    MODELS,
    TEMPLATES,
    custom_name,
    layer_string,
    parse_layers,
)
from irnet_hpc.models.dropout import Dropout
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.network import Network, autocast, n_parameters
from irnet_hpc.models.normalisation import (
    GroupNormalise,
    Groups,
    Normalise,
    one_kernel_a_group,
    rank_groups,
)
from irnet_hpc.runs.spec import model_of

BY_THE_PAPERS = {
    17: (4_705_665, 5_554_529),
    24: (5_058_673, 5_908_065),
    48: (10_676_257, 11_525_649),
}


@pytest.mark.parametrize("depth", BY_THE_PAPERS)
def test_parameter_counts_with_145_inputs_are_those_of_the_papers(depth):
    counts = {
        a: n_parameters(Network(145, parse_layers(layer_string(a, depth)))) for a in TEMPLATES
    }
    plain, residual = BY_THE_PAPERS[depth]
    assert counts == {"plain": plain, "srnet": residual, "irnet": residual}


@pytest.mark.parametrize("architecture", MODELS)
def test_every_preset_has_the_depth_that_it_is_named_for(architecture):
    assert all(
        parse_layers(layer_string(architecture, depth)).depth == depth
        for depth in MODELS[architecture]
    )


def test_which_models_exist():
    depths = (10, 17, 24, 48)
    assert {
        "plain": depths,
        "srnet": depths,
        "irnet": depths,
        "brnet": (17,),
        "elemnet": (17,),
    } == MODELS


@pytest.mark.parametrize("name", ["ibrnet-17", "ibrnet-17", "ibrnet"])
def test_ibrnet_is_a_recipe_of_brnet_and_one_sentence_says_so(name):
    with pytest.raises(UserError, match="brnet-17 trained with recipe ibrnet"):
        model_of(name)


# Layers of each stack of 1024, 512, 256, 128 and 64 -> parameters with 86 inputs: the eleven placements of the branches that
# the BRNet paper tabulates (Gupta et al. 2023). Which of a stack's branches is the longer makes no difference to a count.
BRNET = {
    ("2+2", "3", "3", "3", "2"): 4_548_385,
    ("3+1", "3", "3", "3", "2"): 4_548_385,
    ("2+1+1", "3", "3", "3", "2"): 3_676_961,
    ("1+1+1+1", "3", "3", "3", "2"): 2_805_537,
    ("4", "2+1", "3", "3", "2"): 6_206_753,
    ("4", "1+1+1", "3", "3", "2"): 6_993_697,
    ("4", "3", "2+1", "3", "2"): 5_616_673,
    ("4", "3", "1+1+1", "3", "2"): 5_813_537,
    ("4", "3", "3", "2+1", "2"): 5_469_089,
    ("4", "3", "3", "1+1+1", "2"): 5_518_369,
    ("4", "3", "3", "3", "1+1"): 5_432_161,
}


def brnet(counts: tuple[str, ...]) -> str:
    stacks = [
        f"{width}L0.3Rx{count}"
        for width, count in zip((1024, 512, 256, 128, 64), counts, strict=True)
    ]
    return "-".join([*stacks, "32L0.3Rx1", "1"])


@pytest.mark.parametrize("counts", BRNET, ids="-".join)
def test_brnet_has_the_published_parameters_wherever_its_branches_are(counts):
    assert n_parameters(Network(86, parse_layers(brnet(counts)))) == BRNET[counts]


def test_brnet_17_branches_its_widest_stack_two_and_two_as_the_published_code():
    assert layer_string("brnet", 17) == brnet(("2+2", "3", "3", "3", "2"))


def test_elemnet_17_is_the_string_and_the_dropout_of_the_reference():
    assert (
        layer_string("elemnet", 17) == "1024Ax4D0.2-512Ax3D0.1-256Ax3D0.3-128Ax3D0.2-64Ax2-32Ax1-1"
    )
    network = Network(86, parse_layers(layer_string("elemnet", 17)))
    assert network.n_noise == 1024 + 512 + 256 + 128
    # A weight and a bias: n * m + m of each layer.
    sizes = [86, *[1024] * 4, *[512] * 3, *[256] * 3, *[128] * 3, *[64] * 2, 32, 1]
    assert (
        n_parameters(network) == sum((n + 1) * m for n, m in itertools.pairwise(sizes)) == 4_631_361
    )


def test_irnet_17_is_the_string_of_the_reference_code():
    assert layer_string("irnet", 17) == "1024BARx4-512BARx3-256BARx3-128BARx3-64BARx2-32BARx1-1"


def test_srnet_48_has_a_shortcut_around_every_four_layers():
    assert layer_string("srnet", 48).startswith("1024BAx4R-1024BAx4R-512BAx4R-512BAx4R-")
    assert layer_string("srnet", 48).endswith("-32BAx4R-16BAx3R-1")


@pytest.mark.parametrize(
    "string",
    [
        "",
        "1",
        "64BAR",
        "64RABx2-1",
        "64BARx2R-1",
        "64BARx0-1",
        "64QARx2-1",
        "64BARx2-",
        "64BARx2-0",
        "x2-1",
        "64BAR x2-1",
        "64Lx2-1",
        "64AL0.3x2-1",
        "64L1.5x2-1",
        "64L-0.3x2-1",
        "64L.3x2-1",
        "64Dx2-1",
        "64AD0x2-1",
        "64AD1.0x2-1",
        "64D0.2Ax2-1",
        "64Ax2D0.2R-1",
        "64ARD0.2R-1",
        "64Ax2+-1",
        "64Ax2+0-1",
        "64Ax2++1-1",
        "64Ax999+2-1",
        "64Ax[2,2]-1",
    ],
)
def test_a_string_outside_the_grammar_is_one_sentence_that_quotes_it(string):
    with pytest.raises(UserError) as error:
        parse_layers(string)
    assert repr(string) in str(error.value) and "\n" not in str(error.value)


def test_every_part_of_a_stack_is_read():
    (stack,) = parse_layers("64BL0.3RD0.1x2+1D0.5-1").stacks
    assert stack == (64, (2, 1), True, 0.3, "layer", 0.1, 0.5)
    (stack,) = parse_layers("64x3RD0.25-1").stacks
    assert stack == (64, (3,), False, None, "stack", 0.0, 0.25)
    assert [s.slope for s in parse_layers("8A-8L0-8-1").stacks] == [0.0, 0.0, None]


def test_depth_counts_the_layers_of_all_branches():
    assert parse_layers("8A-4Ax1+3+2-2Ax2+2-1").depth == 1 + (1 + 3 + 2) + (2 + 2) + 1


def test_a_users_own_string_gets_a_name_of_its_own_and_its_depth():
    assert model_of("64BARx2-8BAx1-1") == {
        "architecture": custom_name("64BARx2-8BAx1-1"),
        "depth": 4,
        "layers": "64BARx2-8BAx1-1",
    }
    assert custom_name("64BARx2-1") != custom_name("64BAx2-1")


def by_hand(network: Network, x: torch.Tensor, group: int) -> torch.Tensor:
    """4BARx2-3BAx2R-2x1-1 written out with torch's own functions: add after the ReLU, nothing after the add."""

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
    # x = 2: relu(2 * 2 - 1) + 2 = 5, 3 * 5 + 0.5 = 15.5.   x = -1: relu(-3) - 1 = -1, 3 * -1 + 0.5 = -2.5.
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
    """Two branches of two layers on 2 inputs: a = LReLU(FC(x)) + FC'(x), b = LReLU(FC(a)) + a, the two b added."""
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
    """Half of 2 columns: the noise is given, so what is dropped is known. 1 + 1 from the residual layer, doubled."""
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


def test_group_normalisation_has_the_right_gradient():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((12, 3), 3, 3)
    )
    assert torch.autograd.gradcheck(
        lambda *a: GroupNormalise.apply(*a, Groups(4, 4)), (x, weight, bias)
    )


def test_a_group_in_pieces_is_normalised_like_a_whole_one():
    """Two segments a group, summed here by the index alone: what a rank does, without the other rank."""
    x = torch.randn(
        16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    weight, bias = torch.full((3,), 1.5, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    pieces = Groups(4, 8, torch.tensor([0, 0, 1, 1]), 2, lambda sums: sums)
    loss = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outcomes = []
    for groups in (Groups(8, 8), pieces):
        y = GroupNormalise.apply(x, weight, bias, groups)
        outcomes.append((y, *torch.autograd.grad((y * loss).sum(), x)))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "segment"), [(1, 32), (2, 32), (4, 32), (8, 16), (16, 8)])
def test_a_rank_cuts_its_rows_where_groups_begin(size, segment):
    groups = [rank_groups(32, 128, rank, size, lambda t: t, "cpu") for rank in range(size)]
    assert {g.segment for g in groups} == {segment}
    if segment < 32:
        assert torch.cat([g.group_of_segment for g in groups]).tolist() == [
            row // 32 for row in range(0, 128, segment)
        ]


def test_groups_that_neither_divide_nor_hold_a_ranks_rows_are_cut_at_both_bounds():
    """Batch 96 in groups of 32 over 2 ranks: each has one whole group and a half of the middle one."""
    groups = [rank_groups(32, 96, rank, 2, lambda t: t, "cpu") for rank in (0, 1)]
    assert [(g.segment, g.group_of_segment.tolist(), g.n_groups) for g in groups] == [
        (16, [0, 0, 1], 3),
        (16, [1, 2, 2], 3),
    ]


def test_rows_far_from_zero_keep_their_variance():
    """In fp32, E[x²] - mean² of values around 10,000 with deviation 1 would be rounding alone."""
    x = 10_000 + torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    expected = batch_norm(x.double(), None, None, training=True)
    for groups in (Groups(32, 32), Groups(16, 32, torch.tensor([0, 0]), 1, lambda sums: sums)):
        y = GroupNormalise.apply(x, torch.ones(4), torch.zeros(4), groups)
        assert (y - expected).abs().max() < 0.01


@pytest.mark.parametrize("segment", [24, 8])
def test_torchs_kernel_normalises_groups_as_the_lines_that_ranks_need_do(monkeypatch, segment):
    generator = torch.Generator().manual_seed(3)
    x, loss = (
        50 + 3 * torch.randn(24, 5, dtype=torch.float64, generator=generator) for _ in range(2)
    )
    weight, bias = (
        torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True)
        for _ in range(2)
    )
    x.requires_grad_()
    outcomes = []
    for by_kernel in (True, False):
        monkeypatch.setattr(
            normalisation, "one_kernel_a_group", lambda *_, answer=by_kernel: answer
        )
        y = GroupNormalise.apply(x, weight, bias, Groups(segment, segment))
        outcomes.append((y, *torch.autograd.grad(y, (x, weight, bias), loss)))
    torch.testing.assert_close(*outcomes, rtol=1e-11, atol=1e-11)


def test_torchs_kernel_is_for_whole_groups_of_bf16_rows_that_are_few_or_large():
    whole, spanning = Groups(32, 32), Groups(16, 32, torch.tensor([0, 0]), 1, lambda sums: sums)
    few, large, many = (
        torch.empty(shape, dtype=torch.bfloat16) for shape in ((256, 8), (4096, 256), (288, 8))
    )
    assert one_kernel_a_group(few, whole) and one_kernel_a_group(large, whole)
    assert not one_kernel_a_group(many, whole) and not one_kernel_a_group(few, spanning)
    assert not one_kernel_a_group(few.float(), whole)


@pytest.mark.parametrize("n_rows", [32, 96])
def test_torchs_kernel_keeps_the_variance_and_the_gradient_of_bf16_rows(n_rows):
    """Next to torch's batch_norm in fp64, on the same rows; what is left is the rounding of the outcome to 8 bits."""
    generator = torch.Generator().manual_seed(4)
    x, loss = ((20 + torch.randn(n_rows, 6, generator=generator)).bfloat16() for _ in range(2))
    norm, x = Normalise(6), x.requires_grad_()
    y = norm(x, Groups(32, 32))
    wide = x.detach().double().requires_grad_()
    expected = torch.cat([batch_norm(part, None, None, training=True) for part in wide.split(32)])
    torch.testing.assert_close(y.double(), expected, rtol=0.005, atol=0.005)
    (grad,), (right,) = (
        torch.autograd.grad(y, x, loss),
        torch.autograd.grad(expected, wide, loss.double()),
    )
    torch.testing.assert_close(grad.double(), right, rtol=0.005, atol=0.005)


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


def test_population_statistics_are_the_mean_and_variance_over_the_rows():
    network = Network(3, parse_layers("4BAx1-1")).double()
    network.initialise(0)
    x = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3 + 7

    def run() -> int:
        network(x[:32], Groups(16, 16))
        network(x[32:], Groups(16, 16))
        return len(x)

    network.population_statistics(run, lambda sums: sums)
    layer = network.body[0]
    z = linear(x, layer.linear.weight, layer.linear.bias).detach()
    torch.testing.assert_close(layer.norm.mean, z.mean(0))
    torch.testing.assert_close(layer.norm.var, z.var(0, unbiased=False))
    alone, among = network(x[5:6]), network(x)[5:6]
    torch.testing.assert_close(alone, among)  # a prediction does not depend on its neighbours


def test_bf16_keeps_the_sums_of_a_group_wide():
    """32 rows around 100: a mean taken in bf16 would be off by up to 0.25."""
    x = (100 + torch.arange(32.0)).unsqueeze(1).bfloat16()
    norm = Normalise(1)
    y = norm(x, Groups(32, 32)).float()
    expected = (x.float() - x.float().mean()) / x.float().std(unbiased=False)
    assert (y - expected).abs().max() < 0.05


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


def test_initial_weights_are_a_function_of_the_seed():
    networks = [Network(5, parse_layers("8BARx2-1")) for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        network.initialise(seed)
    first, same, other = (n.output.weight for n in networks)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert first.abs().max() <= 8**-0.5  # ±1/sqrt(n_inputs)
