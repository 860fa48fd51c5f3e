"""Normalise batches in fixed groups of rows. A group may be divided among several ranks."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

EPSILON = 1e-5  # added to a variance before its root
# Rows normalised by group have nearly the mean square that rows normalised by all rows have. With
# less than this share of it, a unit is unusual (see Normalise.set_statistics).
ORDINARY = 0.99
# The rounding of a sum of products, in units of the last place of a layer's typical number.
SUM_ROUNDING = 16


class Groups(NamedTuple):
    """The fixed groups of rows that are normalised together.

    The rows of a rank are consecutive segments. Each segment belongs to one group; a group may have
    segments on several ranks.
    """

    segment: int  # rows
    group: int  # rows
    # (n_segments,) the group of each segment; None: every segment is a whole group
    group_of_segment: Tensor | None = None
    n_groups: int = 0  # over all ranks
    all_sum: Callable[[Tensor], Tensor] | None = None  # sums a tensor in place over all ranks
    # (n_groups, n_segments) float64: 1 where a segment belongs to a group, else 0; None: index_add_
    members: Tensor | None = None

    def total(self, sums: Tensor) -> Tensor:
        """Replace sums over segments (..., n_segments, k) by the sums over their whole groups."""
        if self.group_of_segment is None:
            return sums
        if self.members is not None:
            groups = self.members.to(sums.dtype) @ sums
        else:
            groups = sums.new_zeros(*sums.shape[:-2], self.n_groups, sums.shape[-1]).index_add_(
                -2, self.group_of_segment, sums
            )
        assert self.all_sum is not None
        return self.all_sum(groups).index_select(-2, self.group_of_segment)


def rank_groups(
    group: int, batch: int, rank: int, size: int, all_sum: Callable[[Tensor], Tensor], device: Any
) -> Groups:
    """Return the groups to which the rows of one rank belong.

    Args:
        group: the number of rows in a group.
        batch: the number of rows in the global batch.
        rank: the rank of this process. Its rows begin at row rank * batch / size of the global
            batch.
        size: number of ranks, which divides `batch`.
        all_sum: sums a tensor in place over all ranks.
        device: where the indices are.
    """
    n_local = batch // size
    segment = math.gcd(n_local, group)
    if segment == group:
        return Groups(group, group)
    first_row = rank * n_local + segment * torch.arange(n_local // segment, device=device)
    group_of_segment, n_groups = first_row // group, batch // group
    members = None
    if first_row.is_cuda:
        # On a GPU index_add_ adds in any order (atomicAdd), so that a resumed training would not
        # repeat its numbers to the bit.
        members = membership(group_of_segment, n_groups)
    return Groups(segment, group, group_of_segment, n_groups, all_sum, members)


def membership(group_of_segment: Tensor, n_groups: int) -> Tensor:
    """Return the matrix of zeros and ones by which sums over segments become sums over groups.

    Args:
        group_of_segment: The group of each segment, (n_segments,).
        n_groups: The number of groups, over all ranks.

    Returns:
        (n_groups, n_segments) float64.
    """
    groups = torch.arange(n_groups, device=group_of_segment.device)
    return (groups[:, None] == group_of_segment).double()


class GroupNormalise(torch.autograd.Function):
    """Batch normalisation of each group of rows by itself (Ioffe and Szegedy 2015, section 3).

    It is written by hand because a group that spans ranks needs exactly one allreduce forward and
    one backward. It computes in the precision of the weights. On a CPU, copying bf16 rows to fp32
    and summing these is ten times faster than torch's own reductions of bf16 (var_mean,
    vector_norm), and exact. Segments are centred before they are squared and added up in fp64, so
    that features with a large mean (such as a year) keep their variance. If the groups of bf16 rows
    are whole and on a CPU, torch's own kernel normalises each of them, in two passes over memory
    instead of ten.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: Groups, overwrites: bool = False
    ) -> Tensor:
        """Normalise x (..., n_rows, width) by groups."""
        ctx.grads = (weight.grad, bias.grad) if overwrites else None
        ctx.by_kernel = one_kernel_a_group(x, groups)
        if ctx.by_kernel:
            y, *ctx.statistics = normalise_each(x, weight, bias, groups.group)
            ctx.save_for_backward(x, weight)
            ctx.groups = groups
            return y
        # (..., n_segments, segment, width)
        v = x.to(weight.dtype).unflatten(-2, (-1, groups.segment))
        own_mean = v.mean(-2, keepdim=True)
        centred = v - own_mean
        own_sum, own_square = (
            groups.segment * own_mean.squeeze(-2).double(),
            centred.square().sum(-2).double(),
        )
        sums = torch.cat([own_sum, own_square + own_sum.square() / groups.segment], -1)
        # (..., n_segments, 1, width) each
        mean, square = (groups.total(sums) / groups.group).unsqueeze(-2).chunk(2, -1)
        var = (square - mean.square()).clamp_(min=0)
        mean, rstd = mean.to(v.dtype), (var + EPSILON).rsqrt_().to(v.dtype)
        weight, bias = (per_replica[..., None, None, :] for per_replica in (weight, bias))
        scale = weight * rstd
        ctx.save_for_backward(x)
        ctx.groups, ctx.mean, ctx.rstd, ctx.scale = groups, mean, rstd, scale
        # No view, so that what follows may act in place.
        y = x.new_empty(x.shape, dtype=scale.dtype)
        torch.addcmul(bias, centred.add_(own_mean - mean), scale, out=y.view(v.shape))
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        """Compute the gradients of x, weight and bias.

        Those of weight and bias are either returned or written to their buffers.
        """
        if ctx.by_kernel:
            x, weight = ctx.saved_tensors
            means, rstds = ctx.statistics
            grad_x, *sums = normalise_each_backward(grad, x, weight, means, rstds, ctx.groups.group)
            return grad_x, *totals(sums, ctx.grads), None, None
        (x,), groups, rstd, scale = ctx.saved_tensors, ctx.groups, ctx.rstd, ctx.scale
        centred = x.to(scale.dtype).unflatten(-2, (-1, groups.segment)) - ctx.mean
        g = grad.to(scale.dtype).reshape(centred.shape)
        sum_g, sum_gx = g.sum(-2), (g * centred).sum(-2) * rstd.squeeze(-2)  # with the normalised x
        mean_g, mean_gx = (
            (groups.total(torch.cat([sum_g, sum_gx], -1)) / groups.group).unsqueeze(-2).chunk(2, -1)
        )
        # dx = scale * (g - mean(g) - x_hat * mean(g x_hat))
        grad_x = torch.addcmul(-scale * mean_g, g, scale).addcmul_(centred, -scale * rstd * mean_gx)
        return grad_x.view_as(x).to(x.dtype), *totals([sum_gx, sum_g], ctx.grads), None, None


def totals(
    sums: list[Tensor], grads: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, ...] | tuple[None, None]:
    """Add up sums over groups (..., n_groups, width), and write them to `grads` if there are any.

    Returns:
        What a backward pass returns: the totals (..., width), or None for each that was written.
    """
    if grads is None:
        return tuple(of_groups.sum(-2) for of_groups in sums)
    for of_groups, grad in zip(sums, grads, strict=True):
        torch.sum(of_groups, -2, out=grad)
    return None, None


# Numbers in a group (rows x width) below which one kernel per group costs more than one pass over
# all groups.
MIN_KERNEL_NUMBERS = 8192


def one_kernel_a_group(x: Tensor, groups: Groups) -> bool:
    """Return True if torch's own kernel should normalise each group.

    It must be correct (no group spans ranks) and faster (few or large groups). It is used only for
    bf16 rows. For fp32 rows it rounds differently from the code for several ranks; Adam amplifies
    the difference, so that one rank and two ranks would drift apart by 0.3 % in 50 steps. The
    rounding of bf16 rows is much coarser than this difference. Which is faster was measured on CPUs
    only; on GPUs it was counted: for few groups, torch's kernel is fewer launches.
    """
    few = x.numel() <= 8 * groups.group * x.shape[-1]
    large = groups.group * x.shape[-1] >= MIN_KERNEL_NUMBERS and x.device.type == "cpu"
    return (few or large) and groups.group_of_segment is None and x.dtype == torch.bfloat16


def normalise_each(
    x: Tensor, weight: Tensor, bias: Tensor, group: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each group of rows (..., n_rows, width) by itself with torch's kernel.

    The kernel takes bf16 rows with fp32 weights, sums in fp32, and centres before it squares.

    Returns:
        The normalised rows; and the means and 1 / standard deviation of each group, both (n_groups,
        width).
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    rows, out = x.reshape(-1, x.shape[-1]).split(group), y.view(-1, x.shape[-1]).split(group)
    means = weight.new_empty(len(rows), x.shape[-1])
    rstds = torch.empty_like(means)
    weights, biases = _of_groups(len(rows), weight, bias)
    outs = zip(out, means, rstds, strict=True)
    for of_rows, w, b, out_of in zip(rows, weights, biases, outs, strict=True):
        torch.native_batch_norm(of_rows, w, b, None, None, True, 0.0, EPSILON, out=out_of)
    return y, means, rstds


def normalise_each_backward(
    grad: Tensor, x: Tensor, weight: Tensor, means: Tensor, rstds: Tensor, group: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of x (..., n_rows, width), and those of weight and bias for each group.

    The latter two are (..., n_groups, width).
    """
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    of_weight, of_bias = torch.empty_like(means), torch.empty_like(means)
    grads, rows, grads_x = (t.reshape(-1, x.shape[-1]).split(group) for t in (grad, x, grad_x))
    (weights,) = _of_groups(len(rows), weight)
    parts = (grads, rows, weights, means, rstds, grads_x, of_weight, of_bias)
    for g, of_rows, w, mean, rstd, *outs in zip(*parts, strict=True):
        torch.ops.aten.native_batch_norm_backward.out(
            g,
            of_rows,
            w,
            None,
            None,
            mean,
            rstd,
            True,
            EPSILON,
            [True] * 3,
            out0=outs[0],
            out1=outs[1],
            out2=outs[2],
        )
    shape = (*weight.shape[:-1], -1, weight.shape[-1])
    return grad_x, of_weight.view(shape), of_bias.view(shape)


def _of_groups(n_groups: int, *parameters: Tensor) -> list[list[Tensor]]:
    """Repeat each replica's parameters (width,) for each of its groups."""
    of_replicas = [parameter.reshape(-1, parameter.shape[-1]) for parameter in parameters]
    return [[row for row in rows for _ in range(n_groups // len(rows))] for rows in of_replicas]


class Normalise(nn.Module):
    """Batch normalisation: by groups while training, by population statistics otherwise."""

    mean: Tensor
    var: Tensor
    # While population statistics are computed: first the sums (3, ..., width) float64 of x, of x²
    # and of the squares of the normalised x; then, if units are unusual, how to sum over ranks.
    # Set on the class, since pickles of older versions lack them.
    sums: Tensor | None = None
    # True: the backward pass overwrites gradients, as that of flat.Linear may.
    overwrites = False
    all_sum: Callable[[Tensor], Tensor] | None = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))

    def forward(self, x: Tensor, groups: Groups | None) -> Tensor:
        """Normalise x (..., n_rows, width) by groups; without groups, by population statistics."""
        if groups is None:
            if self.all_sum is not None:
                self._settle(x)
            mean, var = self.mean.flatten(), self.var.flatten()
            weight, bias = self.weight.flatten(), self.bias.flatten()
            # (n_rows, ..., width): to torch, replicas are further columns
            wide = x.movedim(-2, 0)
            y = nn.functional.batch_norm(wide.flatten(1), mean, var, weight, bias, eps=EPSILON)
            return y.view(wide.shape).movedim(0, -2)
        if self.sums is not None:
            wide = x.detach().double()
            var = wide.unflatten(-2, (-1, groups.group)).var(-2, correction=0)
            normalised_square = groups.group * (var / (var + EPSILON)).sum(-2)
            self.sums += torch.stack([wide.sum(-2), wide.square().sum(-2), normalised_square])
        # The same kernel for a group alone, without Python's part of a step.
        is_one = x.numel() == groups.group * x.shape[-1] and not self.overwrites
        if is_one and one_kernel_a_group(x, groups):
            own = (self.weight.flatten(), self.bias.flatten())
            return nn.functional.batch_norm(
                x.flatten(0, -2), None, None, *own, True, 0.0, EPSILON
            ).view_as(x)
        overwrites = self.overwrites and torch.is_grad_enabled() and self.weight.requires_grad
        return GroupNormalise.apply(x, self.weight, self.bias, groups, overwrites)

    def set_statistics(self, mean: Tensor, square: Tensor, seen: Tensor) -> bool:
        """Set the population statistics from rows that were normalised by group.

        Evaluation must show each layer what training showed it. The variance over all rows does
        that, except in a unit whose variance within a group is often near EPSILON or 0, because it
        hardly varies from row to row, as with a constant or a rare 0/1 feature. There, rows
        normalised by all rows would be larger than rows normalised by group, and each layer would
        multiply the excess. The statistics of such unusual units are settled in a second pass.

        Args:
            mean: mean of x over rows, (..., width) float64.
            square: mean of x².
            seen: mean square of x as normalised by group, between 0 and 1.

        Returns:
            True if units are unusual.
        """
        var = (square - mean**2).clamp(min=0)
        is_constant = self._is_constant(mean, var)
        self.seen = seen
        self.unusual = (seen < ORDINARY * var / (var + EPSILON)) | is_constant
        self.mean.copy_(mean)
        self.var.copy_(var.masked_fill(is_constant, math.inf))
        return bool((self.unusual & ~is_constant).any())

    def _settle(self, x: Tensor) -> None:
        """Set the statistics of unusual units from rows that are normalised as in evaluation.

        They are set such that, over the rows (..., n_rows, width) that reach this layer, the mean
        square of each such unit is what it was when rows were normalised by group.
        """
        assert self.all_sum is not None
        wide = x.detach().double()
        count = wide.new_full((1, *wide.shape[:-2], wide.shape[-1]), wide.shape[-2])
        sums = torch.cat([torch.stack([wide.sum(-2), wide.square().sum(-2)]), count])
        total, of_squares, n_rows = self.all_sum(sums)
        mean = total / n_rows
        var = (of_squares / n_rows - mean**2).clamp(min=0)
        is_constant = self._is_constant(mean, var) | self.var.isinf()
        raised = (var / self.seen - EPSILON).clamp(min=0).masked_fill(is_constant, math.inf)
        self.mean.copy_(torch.where(self.unusual, mean, self.mean))
        self.var.copy_(torch.where(self.unusual, raised, self.var))

    def _is_constant(self, mean: Tensor, var: Tensor) -> Tensor:
        """Tell which units (..., width) vary only by rounding: their output is just the shift."""
        # Rows come from a matrix product. Their type is not read from rows, since a rank may have
        # none, and all ranks must decide alike.
        device, dtype = self.weight.device.type, self.weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        of_rows = torch.finfo(dtype).eps / 2 * mean.abs()
        # Sums over many inputs are added up in the weights' precision, and may cancel.
        typical = mean.square().mean(-1, keepdim=True).sqrt()
        of_sums = SUM_ROUNDING * torch.finfo(self.weight.dtype).eps * typical
        return var <= of_rows**2 + of_sums**2
