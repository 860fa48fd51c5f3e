"""Keep parameters and gradients in two flat buffers, and define layers that write into them.

K networks of one shape are stacked: weights (K, ...) and rows (K, n_rows, ...) go through one
module, with one matrix product per layer. The code indexes dimensions from the last one, so it also
works for a single network without the first dimension.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from irnet_hpc.models.normalisation import Normalise


class Linear(nn.Linear):
    """A fully connected layer of one network, or of each replica of a stack.

    If `overwrites` is true, the backward pass overwrites `weight.grad` and `bias.grad` instead of
    adding to them. Then they need not be set to zero first, and no gradient is copied. This is
    correct only if the layer has one backward pass per step; FlatParameters.overwrite sets it.
    """

    overwrites = False
    # Copies of weight and bias in another dtype, which FlatParameters keeps (see `narrow`).
    narrow: tuple[Tensor, Tensor] | None = None

    def reset_parameters(self) -> None:
        """Draw weights, which Network.initialise replaces, without the program's generator."""
        if self.weight.is_meta:  # only shapes are wanted
            return
        generator = torch.Generator(self.weight.device).manual_seed(0)
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to x (..., n_rows, n_inputs). Returns (..., n_rows, width)."""
        is_trained = torch.is_grad_enabled() and self.weight.requires_grad
        if is_trained and (self.overwrites or has_outer_product(self.weight)):
            return LinearFunction.apply(x, self.weight, self.bias, self.overwrites, self.narrow)
        return product(x, self.weight, self.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Multiply x (..., n_rows, n_inputs) by weight.mT (..., n_inputs, width), and add the bias."""
    # A stack of one is as fast as no stack, and the same to the bit.
    if is_single(weight):
        return nn.functional.linear(x, weight.flatten(0, -2), bias.flatten())
    return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


def is_single(weight: Tensor) -> bool:
    """Return True if a weight belongs to one network, whether or not it has a dimension K = 1."""
    return weight.dim() == 2 or len(weight) == 1


def has_outer_product(weight: Tensor) -> bool:
    """Return True if torch would compute the gradient of a layer's input as an outer product.

    These are stacks of layers with one output. torch 2.13 computes outer products of a stack on a
    GPU by Triton, which needs a C compiler on the node.
    """
    return weight.shape[-2] == 1 and not is_single(weight)


class LinearFunction(torch.autograd.Function):
    """`product` with a backward pass that may overwrite gradients, and has no outer product.

    Autocast treats it in the same way as torch's linear.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        overwrites: bool,
        copies: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Compute the product, (..., n_rows, width)."""
        narrow = dtype_of_products(weight)
        x, (narrow_weight, narrow_bias) = x.to(narrow), copies or (weight, bias)
        if narrow_weight.dtype != narrow:
            narrow_weight, narrow_bias = weight.to(narrow), bias.to(narrow)
        ctx.save_for_backward(x, narrow_weight)
        ctx.grads = (weight.grad, bias.grad) if overwrites else None
        if not is_single(weight):
            return product(x, narrow_weight, narrow_bias)
        # Return no view, so that the next operation may work in place.
        y = x.new_empty(*x.shape[:-1], weight.shape[-2])
        single = (narrow_bias.flatten(), x.flatten(0, -2), narrow_weight.flatten(0, -2).t())
        torch.addmm(*single, out=y.view(-1, y.shape[-1]))
        return y

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Compute the gradients of x, weight and bias.

        Those of weight and bias are either returned or written to their buffers.
        """
        x, weight = ctx.saved_tensors
        shape = x.shape
        if ctx.grads is None:
            of_x = grad * weight if has_outer_product(weight) else grad @ weight
            return of_x, grad.mT @ x, grad.sum(-2), None, None
        of_weight, of_bias = ctx.grads
        if is_single(weight):
            grad, x, weight, of_weight = (t.flatten(0, -2) for t in (grad, x, weight, of_weight))
            of_bias = of_bias.flatten()
        write_product(grad.mT, x, of_weight)
        write_sum(grad, of_bias)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        of_x = grad * weight if grad.shape[-1] == 1 else grad @ weight
        return of_x.view(shape), None, None, None, None


def dtype_of_products(weight: Tensor) -> torch.dtype:
    """Return the dtype in which a layer multiplies, which autocast may have made narrower."""
    device = weight.device.type
    is_narrower = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_narrower else weight.dtype


def write_product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Write a @ b to `out`, which may be wider than a and b.

    On a GPU this is one kernel, which rounds only once.
    """
    if a.is_cuda and a.dtype != out.dtype:
        multiply = torch.mm if a.dim() == 2 else torch.bmm
        multiply(a, b, out_dtype=out.dtype, out=out)
    elif a.dtype == out.dtype and (out.is_contiguous() or a.is_cuda):
        torch.matmul(a, b, out=out)
    else:
        out.copy_(a @ b)


def add_product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Add a @ b to `out`, all (K, ...) of one dtype."""
    if len(a) == 1:
        out[0].addmm_(a[0], b[0])
    else:
        out.baddbmm_(a, b)


def write_sum(rows: Tensor, out: Tensor) -> None:
    """Write the sum over rows (..., n_rows, width) to `out` (..., width).

    On a GPU it is not rounded to the dtype of the rows.
    """
    if rows.is_cuda:
        torch.sum(rows, -2, dtype=out.dtype, out=out)
    else:
        out.copy_(rows.sum(-2))


class FlatParameters:
    """All parameters of a stack as views of one buffer, and all gradients as views of another.

    A step therefore needs one allreduce, one copy, and one kernel of the optimiser per replica.

    Attributes:
        values: (K, n_params), the parameters.
        reduced: (K * n_params + 2 * K,), all gradients and, at its end, `riders`.
        gradients: (K, n_params), a view of `reduced`.
        riders: (2, K), two more numbers per replica, summed in the same allreduce.
        n_frozen: the number of parameters, at the start of each replica, that are not trained.
        trained: the parameters that the optimiser updates: one tensor per replica, without the
            frozen ones.
        narrow: (K, n_params rounded up), a copy of the values in the dtype of matrix products; None
            without `keep_narrow`.
    """

    narrow: Tensor | None = None

    def __init__(self, networks: Sequence[nn.Module], n_frozen: int = 0) -> None:
        """Turn the first network into the stack of all networks; the others are only read."""
        self.network, self.n_frozen = networks[0], n_frozen
        self.shapes = [parameter.shape for parameter in self.network.parameters()]
        for same in zip(*(network.modules() for network in networks), strict=True):
            if isinstance(same[0], Normalise):
                same[0].mean, same[0].var = (
                    torch.stack([getattr(m, name) for m in same]) for name in ("mean", "var")
                )
        self._bind(
            torch.stack(
                [nn.utils.parameters_to_vector(network.parameters()) for network in networks]
            ).detach()
        )

    def keep(self, places: list[int]) -> None:
        """Keep only the replicas at `places`, and set the gradients to zero."""
        for module in self.network.modules():
            if isinstance(module, Normalise):
                module.mean, module.var = module.mean[places], module.var[places]
        self._bind(self.values[places])

    def _bind(self, values: Tensor) -> None:
        k, n = values.shape
        self.values, self.reduced, start = values, values.new_zeros(k * n + 2 * k), 0
        gradients, self.riders = self.reduced[: k * n].view(k, n), self.reduced[k * n :].view(2, k)
        self.gradients = gradients
        for parameter, shape in zip(self.network.parameters(), self.shapes, strict=True):
            stop = start + shape.numel()
            # The old gradient may have another shape.
            parameter.grad = None
            parameter.data = values[:, start:stop].view(k, *shape)
            parameter.grad = gradients[:, start:stop].view(k, *shape)
            parameter.requires_grad_(start >= self.n_frozen)
            start = stop
        self.trained = [nn.Parameter(own[self.n_frozen :]) for own in values]
        for own, gradient in zip(self.trained, gradients, strict=True):
            own.grad = gradient[self.n_frozen :]
        if self.narrow is not None:
            self.keep_narrow(self.narrow.dtype)
        self.overwrite(True)

    def keep_narrow(self, dtype: torch.dtype) -> None:
        """Let fully connected layers use a copy of the parameters in another dtype.

        Whoever changes the values calls `refresh`. Otherwise each layer makes a copy in each step.
        """
        k, n = self.values.shape
        # Each replica begins at a multiple of 128 bytes, as fast matrix products want it.
        self.narrow = self.values.new_zeros(k, -(-n // 64) * 64, dtype=dtype)
        self.refresh()
        offsets = self.offsets()
        for module in self.network.modules():
            if isinstance(module, Linear):
                weight, bias = (
                    self.narrow[:, offsets[id(own)] :][:, : own[0].numel()].view(own.shape)
                    for own in (module.weight, module.bias)
                )
                module.narrow = weight, bias

    def offsets(self) -> dict[int, int]:
        """Return where each parameter begins among those of a replica, by the parameter's id."""
        starts = itertools.accumulate((shape.numel() for shape in self.shapes), initial=0)
        # One more start than parameters.
        return {id(own): at for own, at in zip(self.network.parameters(), starts, strict=False)}

    def refresh(self) -> None:
        """Copy the values to `narrow`, if it is kept."""
        if self.narrow is not None:
            self.narrow[:, : self.values.shape[1]].copy_(self.values)

    def overwrite(self, yes: bool) -> None:
        """Let layers overwrite their gradients (`yes`), or add to them.

        Overwriting is correct if a step has a single backward pass. If it has several, their
        gradients must be added up.
        """
        overwritten: set[int] = set()
        # On a CPU, adding to a gradient costs less than a call of Python.
        kinds = (Linear, Normalise) if self.values.is_cuda else (Linear,)
        for module in self.network.modules():
            if isinstance(module, kinds):
                module.overwrites = yes
                overwritten |= {id(parameter) for parameter in module.parameters() if yes}
        gradients = {id(p): p.grad for p in self.network.parameters() if p.grad is not None}
        self.added_to = [grad for key, grad in gradients.items() if key not in overwritten]

    def clear(self) -> None:
        """Set the riders to zero, and the gradients to which backward passes add.

        Call before a step.
        """
        torch._foreach_zero_([self.riders, *self.added_to])
