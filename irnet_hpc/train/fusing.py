"""Decide whether steps use Triton's kernels, and compare these with torch's own operations first.

On a GPU a step is fused if Triton is installed, a C compiler works, and fused layers and updates
agree with plain ones on this machine. IRNET_FUSED=no forbids it. IRNET_FUSED=unchecked omits the
comparison: it is for the stand-in of tests/fake_gpu, whose kernels compute nothing.
"""

import functools
import importlib
import itertools
import logging
import os
import warnings

import torch
from torch import Tensor

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.fused import fused_adam
from irnet_hpc.models.network import Layer, Network, autocast
from irnet_hpc.models.normalisation import Groups

logger = logging.getLogger(__name__)

CHOICES = ("yes", "no", "unchecked")
# The network that is compared, its inputs, and the rows and number of its groups.
LAYERS, N_INPUTS, GROUP, N_GROUPS = "48BARx2-32BARx1-1", 20, 32, 3
N_REPLICAS = (1, 2)
# The largest root mean square of the difference, as a share of that of the plain numbers. A slip in
# a kernel makes differences of the order of 1; where a ReLU is near 0, rounding may switch it.
LIMITS = {"fp32": 1e-3, "bf16": 0.3}


def is_fused(device: torch.device, precision: str, comm: Comm) -> bool:
    """Return True if all ranks can fuse steps. Ranks must agree, or their weights would differ.

    Raises:
        UserError: If IRNET_FUSED is none of CHOICES.
    """
    choice = os.environ.get("IRNET_FUSED", "yes")
    if choice not in CHOICES:
        raise UserError(f"IRNET_FUSED must be one of {', '.join(CHOICES)}, got {choice!r}")
    if device.type != "cuda" or precision not in LIMITS or choice == "no":
        return False
    reasons = [reason for reason in comm.gather(reason_against(device, choice)) if reason]
    if reasons and comm.rank == 0:
        _warn(reasons[0])
    return not reasons


@functools.cache
def _warn(reason: str) -> None:
    logger.warning(f"warning: a step takes more kernels than it needs to: {reason}")


@functools.cache
def reason_against(device: torch.device, choice: str = "yes") -> str | None:
    """Return why this process cannot fuse steps on a device; None if it can."""
    try:
        importlib.import_module("irnet_hpc.models.kernels")
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    if choice == "unchecked":
        return None
    try:
        for (precision, limit), k in itertools.product(LIMITS.items(), N_REPLICAS):
            for name, share in differences(device, precision, k).items():
                if not share <= limit:
                    return f"{name} in {precision} differs from torch's by {share:.2g} of its size"
    except torch.cuda.OutOfMemoryError:
        raise
    # Triton reports errors of compilers and of its own as many kinds of exception.
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"
    return None


def differences(device: torch.device, precision: str, k: int) -> dict[str, float]:
    """Return the shares by which fused gradients, and an update, of k replicas differ from plain.

    The plain ones are autograd's own, to which backward passes add.
    """
    (plain, plain_flat), (fused, flat) = (
        _gradients(device, precision, k, is_fused) for is_fused in (False, True)
    )
    pairs = {"the output": (fused, plain)}
    layers = [layer for layer in plain_flat.network.modules() if isinstance(layer, Layer)]
    biases = [layer.linear.bias for layer in layers if layer.norm is not None]
    named = zip(plain_flat.network.named_parameters(), flat.network.parameters(), strict=True)
    for (name, expected), own in named:
        if all(expected is not bias for bias in biases):  # whose gradient is the rounding of 0
            assert own.grad is not None and expected.grad is not None
            pairs[f"the gradient of {name}"] = own.grad, expected.grad
    pairs |= _update(plain_flat)
    return {name: share(own, expected) for name, (own, expected) in pairs.items()}


def share(found: Tensor, expected: Tensor) -> float:
    """Return the root mean square of a difference, relative to that of what is expected."""
    off = (found.double() - expected.double()).square().mean().sqrt()
    return float(off / expected.double().square().mean().sqrt())


def _gradients(
    device: torch.device, precision: str, k: int, is_fused: bool
) -> tuple[Tensor, FlatParameters]:
    networks = [Network(N_INPUTS, parse_layers(LAYERS)) for _ in range(k)]
    for seed, network in enumerate(networks):
        network.initialise(seed)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(k, GROUP * N_GROUPS, N_INPUTS, generator=random).to(device)
    network = networks[0]
    flat = FlatParameters([own.to(device) for own in networks])
    flat.overwrite(is_fused)
    sums = network.fuse(flat, N_GROUPS) if is_fused else None
    with autocast(precision, device):
        y = network(x, Groups(GROUP, GROUP))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strided gradients, as in step.any_layout
        (y * (1 + torch.arange(y.numel(), device=device).view_as(y) % 3)).sum().backward()
    if sums is not None:
        sums.write()
    return y.detach(), flat


def _update(flat: FlatParameters) -> dict[str, tuple[Tensor, Tensor]]:
    """Take a step of AdamW by torch and by the kernel; return the changes, and the averages."""
    before, k = flat.values.clone(), len(flat.values)
    rate, decay, weight = 1e-3, 0.1, 0.25
    average, moments = before * 2, (torch.zeros_like(before), torch.zeros_like(before))
    step, rates, decays, weights = (
        flat.values.new_full((k,), own) for own in (1.0, rate, decay, weight)
    )
    values, of_replicas = before.clone(), (step, rates, decays, weights)
    fused_adam((values, flat.gradients, average), moments, None, of_replicas, True)
    torch.optim.AdamW(flat.trained, lr=rate, weight_decay=decay).step()
    return {
        "the update": (values - before, flat.values - before),
        "the average": (average, torch.lerp(before * 2, flat.values, weight)),
    }
