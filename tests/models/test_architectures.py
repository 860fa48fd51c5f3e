"""Layer strings and presets: depths and parameter counts of the papers."""

import itertools

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import (
    MODELS,
    TEMPLATES,
    custom_name,
    layer_string,
    parse_layers,
)
from irnet_hpc.models.network import Network, n_parameters
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
    with pytest.raises(UserError, match="brnet-17"):
        model_of(name)


# Layers of each stack of 1024, 512, 256, 128 and 64 -> parameters with 86 inputs: the eleven
# placements of the branches that the BRNet paper tabulates (Gupta et al. 2023). Which of a stack's
# branches is the longer makes no difference to a count.
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
