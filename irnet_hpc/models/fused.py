"""A layer in few kernels: products, then normalisation, ReLU and shortcut in one (kernels.py).

Launches bound the step of a narrow network on a GPU, so there fewer kernels are faster. The plain
path computes the same, to rounding: it is for CPUs, for what is not fused (layers without
normalisation, branches, fp64, groups that span ranks), and for machines without Triton or a C
compiler.

The bias of a layer's product is not added: normalisation by group takes it off again. For the same
reason its gradient is exactly 0, where the plain path computes the rounding of 0.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from irnet_hpc.models.flat import Linear, add_product, dtype_of_products, is_single, write_product
from irnet_hpc.models.normalisation import Normalise


class GroupSums:
    """The gradients of normalisations and of the biases of shortcuts, as sums over each group.

    Attributes:
        sums: (n_groups, K, n_columns) float32.
        places: (n_columns,), where the gradient of each column lies in a replica's parameters.
        first_group: the first group of the rows that go through the network now.
    """

    def __init__(self, gradients: Tensor, n_groups: int, places: list[Tensor]) -> None:
        self.gradients, self.first_group = gradients, 0
        self.places = torch.cat(places).to(gradients.device)
        # Columns of layers that are not trained stay 0.
        self.sums = gradients.new_zeros(n_groups, len(gradients), len(self.places))

    def write(self) -> None:
        """Add the sums up, and write the gradients."""
        from irnet_hpc.models import kernels

        kernels.total(self.sums, self.places, self.gradients)


class Place(NamedTuple):
    """Name the place where a fused layer writes its sums."""

    sums: GroupSums
    column: int


class FusedPart(NamedTuple):
    """A layer of a network, and what is added to its output."""

    linear: Linear
    norm: Normalise
    slope: float | None
    shortcut: nn.Module | None  # a Linear, the identity, or nothing
    place: Place


class FusedLayer(torch.autograd.Function):
    """The layer and its shortcut. Gradients of parameters are written, or added, to their buffers.

    The weight of the normalisation is an argument only so that autograd calls `backward`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, part: FusedPart, group: int) -> Tensor:
        """Transform x (K, n_rows, n_inputs) into (K, n_rows, width)."""
        from irnet_hpc.models import kernels

        linear, norm, shortcut = part.linear, part.norm, part.shortcut
        x = x.to(dtype_of_products(linear.weight))
        z = times(x, weight_of(linear, x.dtype))
        added: kernels.Shortcut
        if isinstance(shortcut, Linear):
            added = times(x, weight_of(shortcut, x.dtype)), shortcut.bias
        else:
            added = (x.contiguous() if shortcut is not None else None), None
        y, *statistics = kernels.forward(z, (norm.weight, norm.bias), part.slope, added, group)
        ctx.save_for_backward(x, z, *statistics)
        ctx.part, ctx.group = part, group
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        """Return the gradient of x."""
        from irnet_hpc.models import kernels

        (x, z, means, rstds), part = ctx.saved_tensors, ctx.part
        linear, norm, shortcut, (sums, column) = part.linear, part.norm, part.shortcut, part.place
        grad, has_bias = grad.contiguous(), isinstance(shortcut, Linear)
        grad_z = kernels.backward(
            grad,
            z,
            (norm.weight, norm.bias, means, rstds),
            part.slope,
            ctx.group,
            (sums.sums, sums.first_group, column, has_bias),
        )
        to_weight(linear, grad_z, x)
        if has_bias:
            to_weight(shortcut, grad, x)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        weight = weight_of(linear, x.dtype)
        if shortcut is None:
            return times(grad_z, weight.mT), None, None, None
        if has_bias:
            of_x = times(grad, weight_of(shortcut, x.dtype).mT)
        else:
            # In place: the layers that are fused with a shortcut follow each other, so nobody else
            # uses the gradient of this one's output (Network.fuse).
            of_x = grad
        add_product(grad_z, weight, of_x)
        return of_x, None, None, None


def weight_of(linear: Linear, dtype: torch.dtype) -> Tensor:
    """Return a layer's weights (K, width, n_inputs) in the dtype of its products."""
    weight = linear.weight.detach()
    if linear.narrow is not None and weight.dtype != dtype:
        weight = linear.narrow[0]
    return weight.to(dtype)


def times(rows: Tensor, weight: Tensor) -> Tensor:
    """Multiply rows (K, n_rows, n) by weight.mT (K, n, width)."""
    if is_single(weight):
        return torch.mm(rows.flatten(0, -2), weight[0].t()).unsqueeze(0)
    return torch.bmm(rows, weight.mT)


def to_weight(linear: Linear, grad: Tensor, x: Tensor) -> None:
    """Write the gradient of a layer's weights, or add it, from that of its output and its input."""
    of_weight = linear.weight.grad
    assert of_weight is not None
    a, b = grad.mT, x
    if is_single(linear.weight):
        a, b, of_weight = a[0], b[0], of_weight[0]
    if linear.overwrites:
        write_product(a, b, of_weight)
    else:
        of_weight.add_(a @ b)


def fused_adam(
    flat: tuple[Tensor, Tensor, Tensor],
    moments: tuple[Tensor, Tensor],
    narrow: Tensor | None,
    of_replicas: tuple[Tensor, Tensor, Tensor, Tensor],
    is_adamw: bool,
) -> None:
    """Take a step of Adam or AdamW for all replicas, in one kernel, as torch's fused ones do.

    Args:
        flat: values, gradients and average, (K, n_params) each.
        moments: (K, n_trained) each; only the last n_trained parameters are trained.
        narrow: a copy of the values in another dtype, (K, n_narrow); None for no copy.
        of_replicas: the number of the step (from 1), the rate, the weight decay, and the share of
            the new values in the average, (K,) float32 each.
        is_adamw: True for AdamW, False for Adam.
    """
    from irnet_hpc.models import kernels

    kernels.adam(flat, moments, narrow, of_replicas, is_adamw)
