"""The networks: what a layer string means in torch. Knows only torch and the grammar.

A layer is FC -> batch normalisation -> ReLU. IRNet adds a shortcut after every layer, SRNet around every stack, both
*after* the ReLU and with nothing after the sum; the shortcut is the identity where widths match, else a bare FC
(Jha et al. 2019, section 3, and the reference code). The branches of a stack (BRNet, Gupta et al. 2023) all start from its
input, and their outputs are added.

K networks of one shape are a stack: weights (K, ...) and rows (K, n_rows, ...), which go through one module with one product a
layer. A network alone has neither; every shape here is written from its last dimensions, so that the code is the same.
"""

import math
from collections.abc import Callable, Sequence
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
        """Sums of each segment (..., n_segments, k) -> sums of the whole group that it lies in (..., n_segments, k)."""
        if self.index is None:
            return sums
        groups = sums.new_zeros(*sums.shape[:-2], self.n_groups, sums.shape[-1]).index_add_(-2, self.index, sums)
        return self.all_sum(groups).index_select(-2, self.index)


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
    together in fp64, so that rows far from zero (a raw feature such as a year) keep their variance.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: Groups) -> Tensor:
        v = x.to(weight.dtype).unflatten(-2, (-1, groups.segment))  # (..., n_segments, segment, width)
        own_mean = v.mean(-2, keepdim=True)
        centred = v - own_mean
        own_sum, own_square = groups.segment * own_mean.squeeze(-2).double(), centred.square().sum(-2).double()
        sums = torch.cat([own_sum, own_square + own_sum.square() / groups.segment], -1)
        mean, square = (groups.total(sums) / groups.group).unsqueeze(-2).chunk(2, -1)  # (..., n_segments, 1, width)
        var = (square - mean.square()).clamp_(min=0)
        mean, rstd = mean.to(v.dtype), (var + EPSILON).rsqrt_().to(v.dtype)
        weight, bias = (per_replica[..., None, None, :] for per_replica in (weight, bias))
        scale = weight * rstd
        ctx.save_for_backward(x)
        ctx.groups, ctx.mean, ctx.rstd, ctx.scale = groups, mean, rstd, scale
        return torch.addcmul(bias, centred.add_(own_mean - mean), scale).view_as(x).to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (x,), groups, rstd, scale = ctx.saved_tensors, ctx.groups, ctx.rstd, ctx.scale
        centred = x.to(scale.dtype).unflatten(-2, (-1, groups.segment)) - ctx.mean
        g = grad.to(scale.dtype).reshape(centred.shape)
        sum_g, sum_gx = g.sum(-2), (g * centred).sum(-2) * rstd.squeeze(-2)  # with the normalised x
        mean_g, mean_gx = (groups.total(torch.cat([sum_g, sum_gx], -1)) / groups.group).unsqueeze(-2).chunk(2, -1)
        # dx = scale * (g - mean(g) - x_hat * mean(g x_hat))
        grad_x = torch.addcmul(-scale * mean_g, g, scale).addcmul_(centred, -scale * rstd * mean_gx)
        return grad_x.view_as(x).to(x.dtype), sum_gx.sum(-2), sum_g.sum(-2), None


class Normalise(nn.Module):
    """Batch normalisation by group while training, by the population statistics otherwise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))
        self.sums: Tensor | None = None  # (2, ..., width) float64: of x and x² while population statistics are taken

    def forward(self, x: Tensor, groups: Groups | None) -> Tensor:
        if groups is None:
            of_all = (t.flatten() for t in (self.mean, self.var, self.weight, self.bias))
            wide = x.movedim(-2, 0)  # (n_rows, ..., width): to torch, replicas are so many more columns
            y = nn.functional.batch_norm(wide.flatten(1), *of_all, eps=EPSILON)
            return y.view(wide.shape).movedim(0, -2)
        if self.sums is not None:
            wide = x.detach().double()
            self.sums += torch.stack([wide.sum(-2), wide.square().sum(-2)])
        return GroupNormalise.apply(x, self.weight, self.bias, groups)


class Linear(nn.Linear):
    """A fully connected layer, of one network or of each replica of a stack."""

    def forward(self, x: Tensor) -> Tensor:
        if (
            self.weight.dim() == 2 or len(self.weight) == 1
        ):  # a stack of one is as fast as no stack, and the same to the bit
            return nn.functional.linear(x, self.weight.flatten(0, -2), self.bias.flatten())
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)


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
        return nn.functional.leaky_relu(x, self.slope) if self.slope else torch.relu(x)


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
    """A layer string as a network: (n_rows, n_inputs) -> (n_rows, n_outputs), or of a stack (K, n_rows, ...) -> (K, n_rows, ...)."""

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
        """What dropout needs at a training step for `rows` of the global batch (n_rows, n_noise); None without dropout."""
        return dropout_noise(seed, step, rows, self.n_noise, self.output.weight.device) if self.n_noise else None

    def forward(self, x: Tensor, groups: Groups | None = None, noise: Tensor | None = None) -> Tensor:
        """`groups` says how the rows are normalised together; None uses the population statistics.

        `noise` (..., n_rows, n_noise) says what is dropped; None drops nothing.
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
            norm.sums = norm.mean.new_zeros(2, *norm.mean.shape, dtype=torch.float64)
        n_rows = run()
        sums = torch.cat([norm.sums.flatten() for norm in norms] + [norms[0].sums.new_full((1,), n_rows)])
        *parts, n = all_sum(sums).split([2 * norm.mean.numel() for norm in norms] + [1])
        for norm, part in zip(norms, parts, strict=True):
            mean, square = (part / n).view(2, *norm.mean.shape)
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
    """All parameters of a stack as views of one buffer, and all gradients of another: one allreduce, one copy, and of the
    optimiser one kernel a replica.

    `values` (K, n_params); `reduced` (K * n_params + 2 * K,) is all the gradients and, at its end, `riders` (2, K), numbers of each
    replica that ride in the same allreduce. The first `n_frozen` numbers of each get no gradient; `trained`, what an optimiser is
    given, does not hold them.
    """

    def __init__(self, networks: Sequence[Network], n_frozen: int = 0) -> None:
        """Makes the first network the stack of all; the others are only read."""
        self.network, self.n_frozen = networks[0], n_frozen
        self.shapes = [parameter.shape for parameter in self.network.parameters()]
        for same in zip(*(network.modules() for network in networks), strict=True):
            if isinstance(same[0], Normalise):
                same[0].mean, same[0].var = (torch.stack([getattr(m, name) for m in same]) for name in ("mean", "var"))
        self._bind(torch.stack([nn.utils.parameters_to_vector(network.parameters()) for network in networks]).detach())

    def keep(self, places: list[int]) -> None:
        """Leave these replicas alone in the stack, with zero gradients."""
        for module in self.network.modules():
            if isinstance(module, Normalise):
                module.mean, module.var = module.mean[places], module.var[places]
        self._bind(self.values[places])

    def _bind(self, values: Tensor) -> None:
        k, n = values.shape
        self.values, self.reduced, start = values, values.new_zeros(k * n + 2 * k), 0
        gradients, self.riders = self.reduced[: k * n].view(k, n), self.reduced[k * n :].view(2, k)
        for parameter, shape in zip(self.network.parameters(), self.shapes, strict=True):
            stop = start + shape.numel()
            parameter.grad = None  # of another shape, perhaps
            parameter.data = values[:, start:stop].view(k, *shape)
            parameter.grad = gradients[:, start:stop].view(k, *shape)
            parameter.requires_grad_(start >= self.n_frozen)
            start = stop
        self.trained = [nn.Parameter(own[self.n_frozen :]) for own in values]
        for own, gradient in zip(self.trained, gradients, strict=True):
            own.grad = gradient[self.n_frozen :]


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 matrix products where `precision` says so; weights and sums stay wide."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
