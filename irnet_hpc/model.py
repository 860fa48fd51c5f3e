"""The networks: what a layer string means in torch. Knows only torch and the grammar.

A layer is FC -> batch normalisation -> ReLU. IRNet adds a shortcut after every layer, SRNet around every stack, both
*after* the ReLU and with nothing after the sum; the shortcut is the identity where widths match, else a bare FC
(Jha et al. 2019, section 3, and the reference code). The branches of a stack (BRNet, Gupta et al. 2023) all start from its
input, and their outputs are added.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from irnet_hpc.architectures import Layers, Stack
from irnet_hpc.dropout import Dropout, dropout_noise

EPSILON = 1e-5  # added to a variance before its root


class Groups(NamedTuple):
    """How the rows at hand fall into the fixed groups that are normalised together.

    The rows are consecutive segments; a segment lies in one group, and a group may lie on several ranks.
    """

    segment: int  # rows
    group: int  # rows
    index: Tensor | None = None  # (n_segments,) the group of each segment; None: every segment is a whole group
    n_groups: int = 0  # over all ranks
    all_sum: Callable[[Tensor], Tensor] | None = None  # in place over all ranks

    def total(self, sums: Tensor) -> Tensor:
        """Sums of each segment (n_segments, k) -> sums of the whole group that it lies in (n_segments, k)."""
        if self.index is None:
            return sums
        groups = sums.new_zeros(self.n_groups, sums.shape[1]).index_add_(0, self.index, sums)
        return self.all_sum(groups)[self.index]


def rank_groups(group: int, batch: int, rank: int, size: int, all_sum: Callable[[Tensor], Tensor], device) -> Groups:
    """The groups of one rank's slice of a global batch: rows rank * batch / size onwards. `size` must divide `batch`."""
    n_local = batch // size
    segment = math.gcd(n_local, group)
    if segment == group:
        return Groups(group, group)
    first_row = rank * n_local + segment * torch.arange(n_local // segment, device=device)
    return Groups(segment, group, first_row // group, batch // group, all_sum)


class GroupNormalise(torch.autograd.Function):
    """Batch normalisation of each group of rows by itself (Ioffe and Szegedy 2015, equations of section 3).

    Written by hand because a group that spans ranks needs exactly one allreduce forward and one backward. Computed in the
    weights' precision: on a CPU a copy of bf16 rows to fp32 and sums over it are ten times faster than torch's own
    reductions of bf16 (var_mean, vector_norm), and exact. Segments are centred before they are squared and brought
    together in fp64, so that rows far from zero (a raw feature such as a year) keep their variance. Where whole groups of
    bf16 rows lie on this rank's CPU, torch's own kernel takes each of them, in two passes where these lines take ten.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: Groups) -> Tensor:
        ctx.by_kernel = one_kernel_a_group(x, groups)
        if ctx.by_kernel:
            y, *ctx.statistics = normalise_each(x, weight, bias, groups.group)
            ctx.save_for_backward(x, weight)
            ctx.groups = groups
            return y
        v = x.to(weight.dtype).view(-1, groups.segment, x.shape[1])  # (n_segments, segment, width)
        own_mean = v.mean(1, keepdim=True)
        centred = v - own_mean
        own_sum, own_square = groups.segment * own_mean[:, 0].double(), centred.square().sum(1).double()
        sums = torch.cat([own_sum, own_square + own_sum.square() / groups.segment], 1)
        mean, square = (groups.total(sums) / groups.group).unsqueeze(1).chunk(2, 2)  # (n_segments, 1, width)
        var = (square - mean.square()).clamp_(min=0)
        mean, rstd = mean.to(v.dtype), (var + EPSILON).rsqrt_().to(v.dtype)
        scale = weight * rstd
        ctx.save_for_backward(x)
        ctx.groups, ctx.mean, ctx.rstd, ctx.scale = groups, mean, rstd, scale
        y = torch.empty_like(x, dtype=weight.dtype)  # no view, so that what follows may act in place
        torch.addcmul(bias, centred.add_(own_mean - mean), scale, out=y.view(v.shape))
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        if ctx.by_kernel:
            return *normalise_each_backward(grad, *ctx.saved_tensors, *ctx.statistics, ctx.groups.group), None
        (x,), groups, rstd, scale = ctx.saved_tensors, ctx.groups, ctx.rstd, ctx.scale
        centred = x.to(scale.dtype).view(-1, groups.segment, x.shape[1]) - ctx.mean
        g = grad.to(scale.dtype).reshape(centred.shape)
        sum_g, sum_gx = g.sum(1), (g * centred).sum(1) * rstd[:, 0]  # with the normalised x
        mean_g, mean_gx = (groups.total(torch.cat([sum_g, sum_gx], 1)) / groups.group).unsqueeze(1).chunk(2, 2)
        # dx = scale * (g - mean(g) - x_hat * mean(g x_hat))
        grad_x = torch.addcmul(-scale * mean_g, g, scale).addcmul_(centred, -scale * rstd * mean_gx)
        return grad_x.view_as(x).to(x.dtype), sum_gx.sum(0), sum_g.sum(0), None


KERNEL_NUMBERS = (
    8192  # of a group (rows x width), below which a kernel a group costs more than one pass over all groups
)


def one_kernel_a_group(x: Tensor, groups: Groups) -> bool:
    """Whether torch's kernel is right (no group lies on other ranks too) and pays (few groups, or large ones).

    For bf16 rows alone: in fp32 its rounding is another than that of the lines for ranks, and Adam amplifies it, so one rank
    and two would drift apart by 0.3 % in 50 steps; between bf16 rows it is far below theirs. Measured on CPUs, so for them.
    """
    few = x.numel() <= 8 * groups.group * x.shape[-1]
    pays = few or groups.group * x.shape[-1] >= KERNEL_NUMBERS
    return pays and groups.index is None and x.dtype == torch.bfloat16 and x.device.type == "cpu"


def normalise_each(x: Tensor, weight: Tensor, bias: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each group of rows (n_rows, width) normalised by itself, and its mean and 1 / deviation (n_groups, width).

    The kernel takes bf16 rows with fp32 weights, sums in fp32, and centres before it squares.
    """
    y, means = torch.empty_like(x), weight.new_empty(len(x) // group, x.shape[1])
    rstds = torch.empty_like(means)
    for rows, out, mean, rstd in zip(x.split(group), y.split(group), means, rstds, strict=True):
        torch.native_batch_norm(rows, weight, bias, None, None, True, 0.0, EPSILON, out=(out, mean, rstd))
    return y, means, rstds


def normalise_each_backward(
    grad: Tensor, x: Tensor, weight: Tensor, means: Tensor, rstds: Tensor, group: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (n_rows, width), weight and bias (width,)."""
    grad, grad_x = grad.contiguous(), torch.empty_like(x)
    of_weight, of_bias = torch.empty_like(means), torch.empty_like(means)
    parts = (grad.split(group), x.split(group), means, rstds, grad_x.split(group), of_weight, of_bias)
    for g, rows, mean, rstd, *outs in zip(*parts, strict=True):
        torch.ops.aten.native_batch_norm_backward.out(
            g, rows, weight, None, None, mean, rstd, True, EPSILON, [True] * 3, out0=outs[0], out1=outs[1], out2=outs[2]
        )
    return grad_x, of_weight.sum(0), of_bias.sum(0)


class Normalise(nn.Module):
    """Batch normalisation by group while training, by the population statistics otherwise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))
        self.sums: Tensor | None = None  # (2, width) float64: of x and x² while population statistics are taken

    def forward(self, x: Tensor, groups: Groups | None) -> Tensor:
        if groups is None:
            return nn.functional.batch_norm(x, self.mean, self.var, self.weight, self.bias, eps=EPSILON)
        if self.sums is not None:
            wide = x.detach().double()
            self.sums += torch.stack([wide.sum(0), wide.square().sum(0)])
        if len(x) == groups.group and one_kernel_a_group(x, groups):  # the same kernel, without Python's part of a step
            return nn.functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, EPSILON)
        return GroupNormalise.apply(x, self.weight, self.bias, groups)


class Linear(nn.Linear):
    """A fully connected layer whose backward pass may write the gradients where they belong.

    With `writes` true, `weight.grad` and `bias.grad` are overwritten rather than added to: nothing has to zero them, and no
    gradient is made in one place to be added in another. Right for a layer that a forward pass uses once. FlatParameters
    says so; a layer that it does not know is torch's own.
    """

    writes = False

    def forward(self, x: Tensor) -> Tensor:
        if self.writes and torch.is_grad_enabled() and self.weight.requires_grad:
            return WrittenLinear.apply(x, self.weight, self.bias)
        return super().forward(x)


class WrittenLinear(torch.autograd.Function):
    """x (n_rows, n_inputs) times weight (width, n_inputs) and bias, under autocast in the precisions of torch's own."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        device = x.device.type
        narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        x, narrow_weight = x.to(narrow), weight.to(narrow)
        ctx.save_for_backward(x, narrow_weight)
        ctx.grads = weight.grad, bias.grad
        return nn.functional.linear(x, narrow_weight, bias.to(narrow))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, None]:
        (x, weight), (of_weight, of_bias) = ctx.saved_tensors, ctx.grads
        if grad.dtype == of_weight.dtype:
            torch.mm(grad.t(), x, out=of_weight)
            torch.sum(grad, 0, out=of_bias)
        else:
            of_weight.copy_(grad.t() @ x)
            of_bias.copy_(grad.sum(0))
        return grad @ weight if ctx.needs_input_grad[0] else None, None, None


class Layer(nn.Module):
    def __init__(self, n_inputs: int, stack: Stack) -> None:
        super().__init__()
        self.linear = Linear(n_inputs, stack.width)
        self.norm = Normalise(stack.width) if stack.norm else None
        self.slope = stack.slope

    def forward(self, x: Tensor, groups: Groups | None, noise: Tensor | None) -> Tensor:
        x = self.linear(x)
        x = self.norm(x, groups) if self.norm is not None else x
        if self.slope is None:
            return x
        # In place: what comes before, a product or a normalisation, keeps its inputs for the backward pass, not this.
        return nn.functional.leaky_relu_(x, self.slope) if self.slope else torch.relu_(x)


class Residual(nn.Module):
    """Layers with a shortcut around them."""

    def __init__(self, n_inputs: int, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.projection = Linear(n_inputs, width) if n_inputs != width else nn.Identity()

    def forward(self, x: Tensor, groups: Groups | None, noise: Tensor | None) -> Tensor:
        y = _through(self.layers, x, groups, noise)
        return y + self.projection(x)  # the shortcut


class Branches(nn.Module):
    """Several ways from one input, added."""

    def __init__(self, branches: list[list[nn.Module]]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.ModuleList(branch) for branch in branches)

    def forward(self, x: Tensor, groups: Groups | None, noise: Tensor | None) -> Tensor:
        first, *others = (_through(branch, x, groups, noise) for branch in self.branches)
        return sum(others, start=first)


def _through(blocks: nn.ModuleList, x: Tensor, groups: Groups | None, noise: Tensor | None) -> Tensor:
    for block in blocks:
        x = block(x, groups, noise)
    return x


class Network(nn.Module):
    """A layer string as a network: (n_rows, n_inputs) -> (n_rows, n_outputs)."""

    def __init__(self, n_inputs: int, layers: Layers) -> None:
        super().__init__()
        self.n_noise = 0  # columns of noise that dropout takes
        self.body = nn.ModuleList()
        for stack in layers.stacks:
            self.body.extend(self._stack(n_inputs, stack))
            n_inputs = stack.width
        self.output = Linear(n_inputs, layers.n_outputs)

    def _stack(self, n_inputs: int, stack: Stack) -> list[nn.Module]:
        branches = [self._branch(n_inputs, stack, n_layers) for n_layers in stack.branches]
        blocks = branches[0] if len(branches) == 1 else [Branches(branches)]
        if stack.shortcut == "stack":
            blocks = [Residual(n_inputs, blocks, stack.width)]
        return blocks + self._dropout(stack.stack_dropout, stack.width)

    def _branch(self, n_inputs: int, stack: Stack, n_layers: int) -> list[nn.Module]:
        blocks = []
        for n in [n_inputs] + [stack.width] * (n_layers - 1):
            layer = Layer(n, stack)
            blocks.append(Residual(n, [layer], stack.width) if stack.shortcut == "layer" else layer)
            blocks += self._dropout(stack.layer_dropout, stack.width)
        return blocks

    def _dropout(self, rate: float, width: int) -> list[nn.Module]:
        first, self.n_noise = self.n_noise, self.n_noise + (width if rate else 0)
        return [Dropout(rate, slice(first, self.n_noise))] if rate else []

    def noise(self, seed: int, step: int, rows: slice) -> Tensor | None:
        """What dropout needs at a training step for `rows` of the global batch; None for a network without dropout."""
        return dropout_noise(seed, step, rows, self.n_noise, self.output.weight.device) if self.n_noise else None

    def forward(self, x: Tensor, groups: Groups | None = None, noise: Tensor | None = None) -> Tensor:
        """`groups` says how the rows are normalised together; None uses the population statistics.

        `noise` (n_rows, n_noise) says what is dropped; None drops nothing.
        """
        x = _through(self.body, x, groups, noise)
        # Never in bf16: its 8 bits would round the prediction itself, by up to 0.4 %.
        with torch.autocast(x.device.type, enabled=False):
            return self.output(x.to(self.output.weight.dtype))

    def initialise(self, seed: int) -> None:
        """Uniform in ±1/sqrt(n_inputs) for weights and biases (torch's own default), from `seed` alone, drawn in fp32."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    bound = 1 / math.sqrt(module.in_features)
                    for parameter in (module.weight, module.bias):
                        drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
                        parameter.copy_((2 * drawn - 1) * bound)

    def population_statistics(self, run: Callable[[], int], all_sum: Callable[[Tensor], Tensor]) -> None:
        """Set every normalisation's mean and variance from one pass over rows.

        `run` sends this rank's share of the rows through the network, normalised by group, and returns how many there are.
        """
        norms = [module for module in self.modules() if isinstance(module, Normalise)]
        if not norms:
            return
        for norm in norms:
            norm.sums = norm.mean.new_zeros(2, len(norm.mean), dtype=torch.float64)
        n_rows = run()
        sums = torch.cat([norm.sums.flatten() for norm in norms] + [norms[0].sums.new_full((1,), n_rows)])
        *parts, n = all_sum(sums).split([2 * len(norm.mean) for norm in norms] + [1])
        for norm, part in zip(norms, parts, strict=True):
            mean, square = (part / n).chunk(2)
            norm.mean.copy_(mean)
            norm.var.copy_((square - mean**2).clamp(min=0))
            norm.sums = None


def n_before_last(network: Network, n_layers: int) -> int:
    """How many parameters come before those of the last `n_layers` fully connected layers, the output layer included,
    with their normalisation. A shortcut's projection goes with the last layer that it goes around."""
    layers = [*(module for module in network.modules() if isinstance(module, Layer)), network.output]
    first, before = next(layers[-n_layers].parameters()), 0
    for parameter in network.parameters():
        if parameter is first:
            return before
        before += parameter.numel()
    raise AssertionError("a layer's parameters are the network's")


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class FlatParameters:
    """All parameters as views of one buffer, and all gradients of another: one allreduce, one optimiser kernel, one copy.

    `reduced` is the gradients' buffer with two more numbers at its end that ride in the same allreduce. The first
    `n_frozen` numbers get no gradient, and `trained`, which is what an optimiser is given, does not hold them.
    """

    def __init__(self, network: nn.Module, n_frozen: int = 0) -> None:
        parameters = list(network.parameters())
        n = sum(parameter.numel() for parameter in parameters)
        self.values = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        self.reduced = torch.zeros(n + 2, dtype=self.values.dtype, device=self.values.device)
        self.values.grad = self.reduced[:n]
        start = 0
        for parameter in parameters:
            stop = start + parameter.numel()
            parameter.data = self.values.data[start:stop].view(parameter.shape)
            parameter.grad = self.reduced[start:stop].view(parameter.shape)
            parameter.requires_grad_(start >= n_frozen)
            start = stop
        linears = [module for module in network.modules() if isinstance(module, Linear)]
        for linear in linears:
            linear.writes = True
        written = {id(parameter) for linear in linears for parameter in linear.parameters()}
        self.added_to = [parameter.grad for parameter in parameters if id(parameter) not in written]
        self.n_frozen, self.trained = n_frozen, self.values
        if n_frozen:
            self.trained = nn.Parameter(self.values.data[n_frozen:])
            self.trained.grad = self.reduced[n_frozen:n]

    def clear(self) -> None:
        """Before a backward pass: zero the gradients that it adds to. Those of fully connected layers it overwrites."""
        if self.added_to:
            torch._foreach_zero_(self.added_to)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 matrix products where `precision` says so; weights and sums stay wide."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
