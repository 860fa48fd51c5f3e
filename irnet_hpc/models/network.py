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

import torch
from torch import Tensor, nn

from irnet_hpc.models.architectures import Layers, Stack
from irnet_hpc.models.dropout import Dropout, dropout_noise
from irnet_hpc.models.normalisation import Groups, Normalise


class Linear(nn.Linear):
    """A fully connected layer, of one network or of each replica of a stack, whose backward pass may write the gradients
    where they belong.

    With `writes` true, `weight.grad` and `bias.grad` are overwritten rather than added to: nothing has to zero them, and no
    gradient is made in one place to be added in another. Right for a layer that is used once between two steps, which
    FlatParameters says.
    """

    writes = False

    def forward(self, x: Tensor) -> Tensor:
        if self.writes and torch.is_grad_enabled() and self.weight.requires_grad:
            return WrittenLinear.apply(x, self.weight, self.bias)
        return product(x, self.weight, self.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (..., n_rows, n_inputs) times weight (..., width, n_inputs), and bias (..., width), of each replica its own."""
    if is_single(weight):  # a stack of one is as fast as no stack, and the same to the bit
        return nn.functional.linear(x, weight.flatten(0, -2), bias.flatten())
    return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


def is_single(weight: Tensor) -> bool:
    return weight.dim() == 2 or len(weight) == 1


class WrittenLinear(torch.autograd.Function):
    """`product`, under autocast in the precisions of torch's own."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        device = x.device.type
        narrow = (
            torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        )
        x, narrow_weight = x.to(narrow), weight.to(narrow)
        ctx.save_for_backward(x, narrow_weight)
        ctx.grads = weight.grad, bias.grad
        if not is_single(weight):
            return product(x, narrow_weight, bias.to(narrow))
        y = x.new_empty(
            *x.shape[:-1], weight.shape[-2]
        )  # no view, so that what follows may act in place
        of_one = (bias.to(narrow).flatten(), x.flatten(0, -2), narrow_weight.flatten(0, -2).t())
        torch.addmm(*of_one, out=y.view(-1, y.shape[-1]))
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, None]:
        (x, weight), (of_weight, of_bias), shape = (
            ctx.saved_tensors,
            ctx.grads,
            ctx.saved_tensors[0].shape,
        )
        if is_single(weight):
            grad, x, weight, of_weight = (t.flatten(0, -2) for t in (grad, x, weight, of_weight))
            of_bias = of_bias.flatten()
        if grad.dtype == of_weight.dtype and of_weight.is_contiguous():
            torch.matmul(grad.mT, x, out=of_weight)
        else:
            of_weight.copy_(grad.mT @ x)
        of_bias.copy_(grad.sum(-2))
        return (grad @ weight).view(shape) if ctx.needs_input_grad[0] else None, None, None


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


def _through(
    blocks: nn.ModuleList, x: Tensor, groups: Groups | None, noise: Tensor | None
) -> Tensor:
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
        return (
            dropout_noise(seed, step, rows, self.n_noise, self.output.weight.device)
            if self.n_noise
            else None
        )

    def forward(
        self, x: Tensor, groups: Groups | None = None, noise: Tensor | None = None
    ) -> Tensor:
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
                        drawn = torch.rand(
                            parameter.shape, generator=generator, dtype=torch.float32
                        )
                        parameter.copy_((2 * drawn - 1) * bound)

    def population_statistics(
        self, run: Callable[[], int], all_sum: Callable[[Tensor], Tensor]
    ) -> None:
        """Set every normalisation's mean and variance from one pass over rows.

        `run` sends this rank's share of the rows through the network, normalised by group, and returns how many there are.
        """
        norms = [module for module in self.modules() if isinstance(module, Normalise)]
        if not norms:
            return
        for norm in norms:
            norm.sums = norm.mean.new_zeros(2, *norm.mean.shape, dtype=torch.float64)
        n_rows = run()
        sums = torch.cat(
            [norm.sums.flatten() for norm in norms] + [norms[0].sums.new_full((1,), n_rows)]
        )
        *parts, n = all_sum(sums).split([2 * norm.mean.numel() for norm in norms] + [1])
        for norm, part in zip(norms, parts, strict=True):
            mean, square = (part / n).view(2, *norm.mean.shape)
            norm.mean.copy_(mean)
            norm.var.copy_((square - mean**2).clamp(min=0))
            norm.sums = None


def n_before_last(network: Network, n_layers: int) -> int:
    """How many parameters come before those of the last `n_layers` fully connected layers, the output layer included,
    with their normalisation. A shortcut's projection goes with the last layer that it goes around."""
    layers = [
        *(module for module in network.modules() if isinstance(module, Layer)),
        network.output,
    ]
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
                same[0].mean, same[0].var = (
                    torch.stack([getattr(m, name) for m in same]) for name in ("mean", "var")
                )
        self._bind(
            torch.stack(
                [nn.utils.parameters_to_vector(network.parameters()) for network in networks]
            ).detach()
        )

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
        self.overwrite(True)

    def overwrite(self, yes: bool) -> None:
        """Whether fully connected layers overwrite their gradients: where there is one backward pass a step."""
        linears = [module for module in self.network.modules() if isinstance(module, Linear)]
        for linear in linears:
            linear.writes = yes
        written = (
            {id(parameter) for linear in linears for parameter in linear.parameters()}
            if yes
            else set()
        )
        self.added_to = [p.grad for p in self.network.parameters() if id(p) not in written]

    def clear(self) -> None:
        """Before a step: zero what rides, and the gradients that backward passes add to."""
        torch._foreach_zero_([self.riders, *self.added_to])


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 matrix products where `precision` says so; weights and sums stay wide."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
