"""Build the torch module of a layer string.

A layer is FC -> batch normalisation -> ReLU. IRNet adds a shortcut after every layer, SRNet around
every stack. Both add it *after* the ReLU, with nothing after the sum. A shortcut is the identity if
the widths are equal, else an FC without normalisation (Jha et al. 2019, section 3, and the
reference code). The branches of a stack (BRNet, Gupta et al. 2023) all start from the stack's
input, and their outputs are added.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from irnet_hpc.models.architectures import Layers, Stack
from irnet_hpc.models.dropout import Dropout, dropout_noise
from irnet_hpc.models.flat import FlatParameters, Linear
from irnet_hpc.models.fused import FusedLayer, FusedPart, GroupSums, Place
from irnet_hpc.models.normalisation import Groups, Normalise


class Layer(nn.Module):
    """A fully connected layer with its normalisation and activation."""

    fused: FusedPart | None = None  # see Network.fuse

    def __init__(self, n_inputs: int, stack: Stack) -> None:
        super().__init__()
        self.linear = Linear(n_inputs, stack.width)
        self.norm = Normalise(stack.width) if stack.norm else None
        self.slope = stack.slope

    def forward(self, x: Tensor, groups: Groups | None, noise: Tensor | None) -> Tensor:
        """Transform x (..., n_rows, n_inputs) into (..., n_rows, width)."""
        if self.fused is not None and groups is not None and torch.is_grad_enabled():
            return FusedLayer.apply(x, self.fused.norm.weight, self.fused, groups.group)
        x = self.linear(x)
        x = self.norm(x, groups) if self.norm is not None else x
        if self.slope is None:
            return x
        # This may work in place: the layers before keep their inputs for the backward pass, not
        # their outputs.
        return nn.functional.leaky_relu_(x, self.slope) if self.slope else torch.relu_(x)


class Residual(nn.Module):
    """Layers with a shortcut around them."""

    fused: FusedPart | None = None  # see Network.fuse

    def __init__(self, n_inputs: int, layers: list[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.projection = Linear(n_inputs, width) if n_inputs != width else nn.Identity()

    def forward(self, x: Tensor, groups: Groups | None, noise: Tensor | None) -> Tensor:
        """Transform x (..., n_rows, n_inputs) into (..., n_rows, width)."""
        if self.fused is not None and groups is not None and torch.is_grad_enabled():
            return FusedLayer.apply(x, self.fused.norm.weight, self.fused, groups.group)
        y = _through(self.layers, x, groups, noise)
        return y + self.projection(x)  # the shortcut


class Branches(nn.Module):
    """Several branches from one input, whose outputs are added."""

    def __init__(self, branches: list[list[nn.Module]]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.ModuleList(branch) for branch in branches)

    def forward(self, x: Tensor, groups: Groups | None, noise: Tensor | None) -> Tensor:
        """Transform x (..., n_rows, n_inputs) into (..., n_rows, width)."""
        # Each branch is a ModuleList, but the container's type does not say so.
        first, *others = (
            _through(branch, x, groups, noise)  # type: ignore[arg-type]
            for branch in self.branches
        )
        return sum(others, start=first)


def _through(
    blocks: nn.ModuleList, x: Tensor, groups: Groups | None, noise: Tensor | None
) -> Tensor:
    for block in blocks:
        x = block(x, groups, noise)
    return x


class Network(nn.Module):
    """A layer string as a network: (n_rows, n_inputs) -> (n_rows, n_outputs).

    The same module also holds K stacked networks (flat.py): (K, n_rows, n_inputs) -> (K, n_rows,
    n_outputs).
    """

    def __init__(self, n_inputs: int, layers: Layers) -> None:
        super().__init__()
        self.n_noise = 0  # columns of noise for dropout
        self.body = nn.ModuleList()
        for stack in layers.stacks:
            self.body.extend(self._stack(n_inputs, stack))
            n_inputs = stack.width
        self.output = Linear(n_inputs, layers.n_outputs)
        self.float()  # also where the caller has set another default dtype

    def _stack(self, n_inputs: int, stack: Stack) -> list[nn.Module]:
        branches = [self._branch(n_inputs, stack, n_layers) for n_layers in stack.branches]
        blocks: list[nn.Module] = branches[0] if len(branches) == 1 else [Branches(branches)]
        if stack.shortcut == "stack":
            blocks = [Residual(n_inputs, blocks, stack.width)]
        return blocks + self._dropout(stack.stack_dropout, stack.width)

    def _branch(self, n_inputs: int, stack: Stack, n_layers: int) -> list[nn.Module]:
        blocks: list[nn.Module] = []
        for n in [n_inputs] + [stack.width] * (n_layers - 1):
            layer = Layer(n, stack)
            blocks.append(Residual(n, [layer], stack.width) if stack.shortcut == "layer" else layer)
            blocks += self._dropout(stack.layer_dropout, stack.width)
        return blocks

    def _dropout(self, rate: float, width: int) -> list[nn.Module]:
        first, self.n_noise = self.n_noise, self.n_noise + (width if rate else 0)
        return [Dropout(rate, slice(first, self.n_noise))] if rate else []

    def noise(self, seed: int, step: int, rows: slice) -> Tensor | None:
        """Compute the noise of a training step for `rows` of the global batch.

        Returns:
            (n_rows, n_noise) int16; None without dropout.
        """
        if not self.n_noise:
            return None
        return dropout_noise(seed, step, rows, self.n_noise, self.output.weight.device)

    def forward(
        self, x: Tensor, groups: Groups | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Predict.

        Args:
            x: (..., n_rows, n_inputs).
            groups: rows that are normalised together; None: use the population statistics.
            noise: (..., n_rows, n_noise), for dropout; None: drop nothing.

        Returns:
            (..., n_rows, n_outputs).
        """
        x = _through(self.body, x, groups, noise)
        # Never in bf16: its 8 bits would round the prediction itself, by up to 0.4 %.
        with torch.autocast(x.device.type, enabled=False):
            return self.output(x.to(self.output.weight.dtype))

    def fuse(self, flat: FlatParameters, n_groups: int) -> GroupSums | None:
        """Compute each layer that has a normalisation in few kernels while training (fused.py).

        Layers within branches are not fused, since branches share the gradient of their sum. Call
        this again when replicas have left the stack.

        Args:
            flat: the parameters of this network, as a stack.
            n_groups: the groups of rows in this rank's part of a batch.

        Returns:
            The sums that are to be written after the backward passes; None if nothing is fused.
        """
        self.unfuse()
        # The block that is replaced, its layer, and its shortcut.
        found: list[tuple[Layer | Residual, Layer, nn.Module | None]] = []
        for block in self.body:
            layers = list(block.layers) if isinstance(block, Residual) else [block]
            if len(layers) == 1 and isinstance(block, Residual) and isinstance(layers[0], Layer):
                found.append((block, layers[0], block.projection))
            else:
                found += [(layer, layer, None) for layer in layers if isinstance(layer, Layer)]
        found = [(block, layer, shortcut) for block, layer, shortcut in found if layer.norm]
        if not found:
            return None
        offsets, column = flat.offsets(), 0
        columns: list[int] = []
        places: list[Tensor] = []
        for _, layer, shortcut in found:
            assert layer.norm is not None
            columns.append(column)
            written = [layer.norm.weight, layer.norm.bias]
            written += [shortcut.bias] if isinstance(shortcut, Linear) else []
            for parameter in written:
                places.append(offsets[id(parameter)] + torch.arange(parameter.shape[-1]))
                column += parameter.shape[-1]
        sums = GroupSums(flat.gradients, n_groups, places)
        for (block, layer, shortcut), column in zip(found, columns, strict=True):
            assert layer.norm is not None
            block.fused = FusedPart(
                layer.linear, layer.norm, layer.slope, shortcut, Place(sums, column)
            )
        return sums

    def unfuse(self) -> None:
        """Compute layers by torch's own operations again."""
        for module in self.modules():
            if isinstance(module, (Layer, Residual)):
                module.fused = None

    def initialise(self, seed: int) -> None:
        """Draw weights and biases uniformly in ±1/sqrt(n_inputs), torch's own default.

        The values depend only on `seed`, and are drawn in fp32.
        """
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
        self,
        run: Callable[[], int],
        evaluate: Callable[[], object],
        all_sum: Callable[[Tensor], Tensor],
    ) -> bool:
        """Set the statistics of every normalisation from a pass over rows, or two if need be.

        Args:
            run: runs the network on this rank's share of the rows, normalised by group, and returns
                the number of these rows.
            evaluate: runs the network on the same rows at once, without groups.
            all_sum: sums a tensor in place over all ranks.

        Returns:
            True if units are unusual (see Normalise.set_statistics), so that `evaluate` was called.
        """
        norms = [module for module in self.modules() if isinstance(module, Normalise)]
        if not norms:
            return False
        shares = [norm.mean.new_zeros(3, *norm.mean.shape, dtype=torch.float64) for norm in norms]
        for norm, share in zip(norms, shares, strict=True):
            norm.sums = share
        n_rows = run()
        count = shares[0].new_full((1,), n_rows)
        sums = torch.cat([*(share.flatten() for share in shares), count])
        *parts, n = all_sum(sums).split([3 * norm.mean.numel() for norm in norms] + [1])
        unusual = []
        for norm, part in zip(norms, parts, strict=True):
            norm.sums = None
            unusual.append(norm.set_statistics(*(part / n).view(3, *norm.mean.shape)))
        if any(unusual):
            for norm in norms:
                norm.all_sum = all_sum
            evaluate()
            for norm in norms:
                norm.all_sum = None
        return any(unusual)


def n_before_last(network: Network, n_layers: int) -> int:
    """Count the parameters of all layers but the last `n_layers`, which include the output layer.

    A layer includes its normalisation. The projection of a shortcut belongs to the last of the
    layers that the shortcut bypasses.
    """
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
    """Count the parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return a context that computes matrix products in bf16 if `precision` is `bf16`.

    Sums keep a higher precision.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
