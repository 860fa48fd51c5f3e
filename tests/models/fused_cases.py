"""Compute layers fused and plain, and print what they differ by, as JSON.

TRITON_INTERPRET=1 python -m tests.models.fused_cases     # Triton reads it when it is imported
"""

import json

import torch
from torch import Tensor

from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.network import Network, autocast
from irnet_hpc.models.normalisation import EPSILON, Groups

CPU, N_INPUTS = torch.device("cpu"), 9
# name -> layer string, replicas, rows of a group, groups, precision
KINDS = {
    "irnet": ("24BARx3-16BARx2-1", 1, 8, 1, "fp32"),
    "several groups": ("24BARx3-16BARx2-1", 1, 8, 3, "fp32"),
    "irnet, bf16": ("24BARx3-16BARx2-1", 1, 8, 3, "bf16"),
    "three cells": ("24BARx3-16BARx2-1", 3, 8, 3, "fp32"),
    "three cells, bf16": ("24BARx3-16BARx2-1", 3, 8, 3, "bf16"),
    "a group of several tiles": ("18BARx1-1", 1, 300, 1, "fp32"),
    "odd widths": ("23BARx2-7BARx2-1", 2, 5, 2, "fp32"),
    "wide": ("200BARx2-1", 1, 6, 2, "fp32"),
    "srnet": ("24BAx2R-16BAx3R-1", 2, 8, 2, "fp32"),
    "plain": ("24BAx2-16BAx1-1", 1, 8, 2, "fp32"),
    "leaky": ("24BL0.3Rx2-1", 1, 8, 2, "fp32"),
    "without activation": ("24BRx2-1", 1, 8, 2, "fp32"),
    "only some layers have a normalisation": ("24BARx2-16ARx2-1", 1, 8, 2, "fp32"),
    "branches": ("24BARx2+2-16BARx2-1", 1, 8, 2, "fp32"),
    "dropout": ("24BARx2D0.2-1", 1, 8, 2, "fp32"),
    "two properties": ("24BARx2-2", 1, 8, 2, "fp32"),
}

IN_PIECES = ("several groups", "three cells, bf16")  # as micro-batches do


def stack(kind: str) -> tuple[Network, FlatParameters]:
    """Make the stack of a kind, with normalisations that do something."""
    layers, k, *_ = KINDS[kind]
    networks = [Network(N_INPUTS, parse_layers(layers)) for _ in range(k)]
    random = torch.Generator().manual_seed(1)
    for seed, network in enumerate(networks):
        network.initialise(seed)
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
    return networks[0], FlatParameters(networks)


def backward(
    kind: str, is_fused: bool, precision: str, n_pieces: int = 1
) -> tuple[Tensor, FlatParameters]:
    """Return the output and the gradients of a stack, with its rows in one or several pieces."""
    _, k, group, n_groups, _ = KINDS[kind]
    network, flat = stack(kind)
    if precision == "bf16":
        flat.keep_narrow(torch.bfloat16)
    flat.overwrite(n_pieces == 1)
    random = torch.Generator().manual_seed(2)
    x = torch.randn(k, group * n_groups, N_INPUTS, generator=random)
    noise = torch.randint(-(2**15), 2**15, (*x.shape[:2], network.n_noise), generator=random)
    noise = noise.to(torch.int16)
    sums = network.fuse(flat, n_groups) if is_fused else None
    out, flat.reduced[:] = [], 7.0  # what a step must overwrite
    if is_fused:
        # Biases that normalisation takes off get no gradient.
        for module in network.modules():
            part = getattr(module, "fused", None)
            if part is not None:
                part.linear.bias.grad.zero_()
    flat.clear()
    n_rows = group * n_groups // n_pieces
    for first in range(0, group * n_groups, n_rows):
        rows = slice(first, first + n_rows)
        if sums is not None:
            sums.first_group = first // group
        with autocast(precision, CPU):
            y = network(x[:, rows], Groups(group, group), noise[:, rows])
        (y * (1 + torch.arange(y.numel()).view_as(y) % 5)).sum().backward()
        out.append(y.detach())
    if sums is not None:
        sums.write()
    return torch.cat(out, 1), flat


def differences(kind: str, n_pieces: int = 1) -> dict[str, list[float]]:
    """Return how the output and each gradient differ from the plain ones in fp32.

    Returns:
        The root mean squares of the difference of the fused ones, of that of the plain ones, and of
        the plain ones in fp32.
    """
    precision = KINDS[kind][-1]
    ways = [(True, precision), (False, precision), (False, "fp32")]
    pairs = []
    for is_fused, own_precision in ways:
        output, flat = backward(kind, is_fused, own_precision, n_pieces)
        gradients = {name: own.grad for name, own in flat.network.named_parameters()}
        pairs.append({"output": output} | gradients)
    fused, plain, exact = pairs
    found = {}
    for name, expected in exact.items():
        off = [fused[name].float() - expected, plain[name].float() - expected, expected]
        found[name] = [float(x.square().mean().sqrt()) for x in off]
    return found


def with_a_large_mean() -> dict[str, float]:
    """Return the largest error of groups of a feature such as a year, in fp32 against fp64."""
    from irnet_hpc.models import kernels

    random = torch.Generator().manual_seed(0)
    z = 2000 + 3 * torch.randn(1, 600, 20, generator=random)
    weight, bias = torch.ones(1, 20), torch.zeros(1, 20)
    y, *_ = kernels.forward(z, (weight, bias), None, (None, None), 300)
    v = z.double().unflatten(1, (2, 300))
    expected = (v - v.mean(2, keepdim=True)) / (
        v.var(2, correction=0, keepdim=True) + EPSILON
    ) ** 0.5
    return {"largest error": float((y.double() - expected.flatten(1, 2)).abs().max())}


def updates(is_adamw: bool) -> dict[str, list[float]]:
    """Take steps of two replicas by the kernel and by torch's own optimiser.

    Returns:
        For each tensor the largest difference, and the largest change of a number.
    """
    from irnet_hpc.models import kernels

    random = torch.Generator().manual_seed(0)
    k, n, n_frozen, n_steps = 2, 1100, 30, 5
    values = torch.randn(k, n, generator=random)
    trained = [torch.nn.Parameter(own[n_frozen:].clone()) for own in values]
    rates, decays = torch.tensor([1e-2, 3e-3]), torch.tensor([0.1, 0.0])
    optimizer = (torch.optim.AdamW if is_adamw else torch.optim.Adam)(
        [
            {"params": [own], "lr": float(rate), "weight_decay": float(decay)}
            for own, rate, decay in zip(trained, rates, decays, strict=True)
        ]
    )
    average = values.clone()
    own_values, own_average, narrow = (
        values.clone(),
        values.clone(),
        torch.zeros(k, 1152).bfloat16(),
    )
    moments = torch.zeros(k, n - n_frozen), torch.zeros(k, n - n_frozen)
    steps = torch.zeros(k)
    for i in range(n_steps):
        gradients = torch.randn(k, n, generator=random)
        share = torch.tensor([0.0, 0.01]) if i % 2 else torch.tensor([0.7, 0.0])
        for own, gradient in zip(trained, gradients, strict=True):
            own.grad = gradient[n_frozen:].clone()
        optimizer.step()
        for own, mean, weight in zip(trained, average, share, strict=True):
            mean[n_frozen:].lerp_(own.detach(), float(weight))
        steps += 1
        flat = own_values, gradients, own_average
        kernels.adam(flat, moments, narrow, (steps, rates, decays, share), is_adamw)
    assert torch.equal(own_values[:, :n_frozen], values[:, :n_frozen])
    states = [optimizer.state[own] for own in trained]
    pairs = {
        "values": (own_values[:, n_frozen:], torch.stack(trained).detach(), values[:, n_frozen:]),
        "average": (own_average, average, values),
        "exp_avg": (moments[0], torch.stack([state["exp_avg"] for state in states]), 0),
        "exp_avg_sq": (moments[1], torch.stack([state["exp_avg_sq"] for state in states]), 0),
        # bf16 has 8 bits, and the interpreter cuts numbers off.
        "copy": (narrow[:, n_frozen:n].float(), own_values[:, n_frozen:], 0),
    }
    return {
        name: [float((own - expected).abs().max()), float((expected - before).abs().max())]
        for name, (own, expected, before) in pairs.items()
    }


def compared(has_slip: bool) -> str | None:
    """Return what a process says of its kernels; the slip leaves out the shortcut."""
    from irnet_hpc.models import kernels
    from irnet_hpc.train import fusing

    was = kernels.forward
    if has_slip:
        kernels.forward = lambda z, norm, slope, _, group: was(z, norm, slope, (None, None), group)
    fusing.reason_against.cache_clear()
    said = fusing.reason_against(CPU)
    kernels.forward = was
    return said


if __name__ == "__main__":
    found = {kind: differences(kind) for kind in KINDS}
    found |= {f"{kind}, in pieces": differences(kind, 3) for kind in IN_PIECES}
    found |= {"adam": updates(False), "adamw": updates(True)}
    found |= {"without a slip": compared(False), "with a slip": compared(True)}
    print(json.dumps(found | {"a large mean": with_a_large_mean()}))
