"""Train one step of a stack: read a batch, compute gradients, sum them over the ranks, update.

A narrow network spends most of its time on launching kernels. So on a GPU, the computation of the
gradients is recorded as one CUDA graph and the update as another. The allreduce runs between the
two graphs, since Horovod runs it on a thread of its own. The code is the same with and without
recording.
"""

import contextlib
import functools
import logging
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.distributed.allreduce import sum_step
from irnet_hpc.distributed.engines import Comm
from irnet_hpc.errors import UserError
from irnet_hpc.models.dropout import drawn_noise, noise_state
from irnet_hpc.models.network import autocast
from irnet_hpc.models.normalisation import Groups, rank_groups
from irnet_hpc.train.fusing import is_fused
from irnet_hpc.train.joint import equal_shares, loss_weights
from irnet_hpc.train.schedules import average_weight
from irnet_hpc.train.stack import Stack

logger = logging.getLogger(__name__)


def pieces(groups: Groups, rows: slice, max_rows: int | None) -> list[slice]:
    """Split a rank's rows of the global batch into slices of whole groups.

    Args:
        groups: The groups of rows that are normalised together.
        rows: The rank's rows.
        max_rows: The largest number of rows in a slice; None for a single slice.

    Raises:
        UserError: If a group has more than `max_rows` rows, or spans ranks. Its sums need all rows
            of the group at once.
    """
    n_rows = rows.stop - rows.start
    if max_rows is None or n_rows <= max_rows:
        return [rows]
    if groups.group_of_segment is not None:
        raise UserError(
            "--micro-batch needs groups of rows that lie on one rank, got norm_group "
            f"{groups.group} and {n_rows} rows per rank; use fewer ranks"
        )
    if max_rows < groups.group:
        raise UserError(
            f"--micro-batch must be at least the recipe's norm_group of {groups.group}, "
            f"got {max_rows}"
        )
    step = max_rows // groups.group * groups.group
    return [
        slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)
    ]


# The weights of a replica are contiguous, for its optimiser and its checkpoint. So a parameter of
# the whole stack is strided, and so is its gradient. torch 2.13 warns about this once, unless the
# thread says that it is meant; older versions cannot be told.
any_layout: Callable[[], contextlib.AbstractContextManager] = functools.partial(
    getattr(torch.autograd, "enforce_grad_layout_policy", contextlib.nullcontext), False
)

# Calls before a graph is recorded, in which libraries initialise and the allocator learns sizes.
WARM_UP = 3
LOSSES = {
    "mae": torch.abs,
    "mse": torch.square,
    "huber": lambda e: torch.where(e.abs() < 1, e * e / 2, e.abs() - 0.5),
}


@functools.cache
def side_stream(device: int) -> torch.cuda.Stream:
    """Return the stream of a GPU on which kernels are warmed up and recorded.

    There is one for the whole process, since cuBLAS keeps a workspace (64 MiB on an H100) for every
    stream that it has seen, and torch's allocator keeps memory for each stream.
    """
    return torch.cuda.Stream(device)


class Graphed:
    """Kernels on fixed buffers.

    After some calls they are recorded as a CUDA graph and then replayed.

    If the kernels cannot be recorded, there is a warning, and they are launched one by one.

    Args:
        launch: The method that launches the kernels. Only a weak reference to it is kept, so that a
            Step and its graphs are freed when nobody uses the Step. The caller must therefore keep
            the object of the method.
        wanted: False to launch the kernels one by one in every call.
    """

    def __init__(self, launch: Callable[[], None], wanted: bool) -> None:
        self.method, self.wanted, self.n_calls = weakref.WeakMethod(launch), wanted, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Launch the kernels."""
        if self.wanted and self.graph is None and self.n_calls >= WARM_UP:
            self._record()
        if self.graph is not None:
            self.graph.replay()
        elif self.wanted:
            # On a side stream, as in the later recording, since autograd's buffers belong to a
            # stream.
            here = torch.cuda.current_stream()
            side = side_stream(here.device_index)
            side.wait_stream(here)
            with torch.cuda.stream(side):
                self.launch()
            here.wait_stream(side)
        else:
            self.launch()
        self.n_calls += 1

    def launch(self) -> None:
        """Launch the kernels one by one."""
        method = self.method()
        assert method is not None  # since its object calls this
        method()

    def _record(self) -> None:
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # This records the kernels without running them. In the mode "global", which is torch's
            # default, an allocation by the thread that reads ahead fails and spoils the recording.
            stream = side_stream(here.device_index)
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.launch()
            self.graph = graph
        except torch.cuda.OutOfMemoryError:
            torch.cuda.set_stream(here)
            raise
        except RuntimeError as error:
            # torch 2.13 leaves the stream of a recording that fails at its end as the current one.
            torch.cuda.set_stream(here)
            torch.cuda.synchronize()
            self.wanted = False
            logger.warning(
                "warning: no CUDA graph could be recorded, so kernels are launched one by one: "
                f"{str(error).splitlines()[0]}"
            )


class Step:
    """The training step of a stack. If replicas leave the stack, a new Step must be made."""

    def __init__(
        self, stack: Stack, comm: Comm, graphs: bool = True, micro_batch: int | None = None
    ) -> None:
        first = stack.replicas[0]
        self.stack, self.comm, self.recipe = stack, comm, first.recipe
        n_local = first.recipe.batch // comm.size
        # This rank's rows of every batch.
        self.mine = slice(comm.rank * n_local, (comm.rank + 1) * n_local)
        self.groups = rank_groups(
            first.recipe.norm_group,
            first.recipe.batch,
            comm.rank,
            comm.size,
            comm.sum_,
            stack.device,
        )
        # The same rows in slices; each slice goes through the network at once.
        self.pieces = [
            slice(rows.start - self.mine.start, rows.stop - self.mine.start)
            for rows in pieces(self.groups, self.mine, micro_batch)
        ]
        spans = self.groups.group_of_segment is not None
        self.is_fused = not spans and is_fused(stack.device, first.recipe.precision, comm)
        if stack.device.type == "cuda" and first.recipe.precision == "bf16":
            # On a CPU, each layer's copy is still in the cache when the layer uses it.
            stack.flat.keep_narrow(torch.bfloat16)
        stack.flat.overwrite(len(self.pieces) == 1)
        self.sums = None
        if self.is_fused:
            self.sums = stack.network.fuse(stack.flat, n_local // first.recipe.norm_group)
        self.parts, k = [replica.data.train for replica in stack.replicas], len(stack.replicas)
        # The targets of all replicas, one after the other: (K * n_rows[, n_properties]).
        targets = [part.y for part in self.parts]
        self.targets = torch.cat(targets) if k > 1 else targets[0]
        self.x = self.targets.new_empty(k, n_local, self.parts[0].n_features)
        self.y = self.targets.new_empty(k, n_local, *self.targets.shape[1:])
        # The states from which the noise of dropout is drawn, (K,).
        self.noise_states = torch.zeros(k, dtype=torch.int64, device=stack.device)
        self.has_several_properties = first.data.scaling.spread is not None
        self.floor = self._per_replica([s.scaled_floor for s in self._scalings()])
        if self.has_several_properties:
            # Weights of the properties, (K, n_properties, 1): in the loss, and in the train error.
            loss = [loss_weights(replica.data.train.target) for replica in stack.replicas]
            self.weight = self._per_replica(loss).mT.contiguous()
            self.share = torch.empty_like(self.weight)
        # Sums of |error| over the epoch so far, of the scaled target.
        self.error_sum = torch.zeros(k, dtype=torch.float64, device=stack.device)
        # The number of steps in this epoch before the first loss that is not finite.
        self.n_finite = torch.zeros(k, dtype=torch.int64, device=stack.device)
        graphs = graphs and stack.device.type == "cuda"
        # If a group spans ranks, normalisation needs an allreduce, which no graph can hold.
        self.gradients = Graphed(self._gradients, graphs and not spans)
        self.update = Graphed(self._update, graphs)

    def _scalings(self) -> list:
        return [replica.data.scaling for replica in self.stack.replicas]

    def _per_replica(self, values: Sequence[float | np.ndarray]) -> Tensor:
        """Stack the replicas' values: numbers to (K, 1), arrays (n,) to (K, 1, n)."""
        return torch.as_tensor(np.stack(values)).to(self.y).unsqueeze(1)

    def begin(self, visited: Sequence[np.ndarray], rates: np.ndarray, first: int = 0) -> None:
        """Prepare an epoch.

        Args:
            visited: The rows that each replica visits, in order (n_steps * batch,).
            rates: The learning rates (n_steps, K).
            first: The step to begin with.
        """
        batch, device, n_rows = self.recipe.batch, self.stack.device, len(self.parts[0])
        # (n_steps, K, n_local)
        rows = np.stack([order.reshape(-1, batch)[:, self.mine] for order in visited], 1)
        # If features stream: the batches that are read from the pack, for each replica.
        self.coming = None
        if self.parts[0].streams:
            self.coming = [part.batches(rows[:, k], first) for k, part in enumerate(self.parts)]
        self.rows = torch.from_numpy(rows).to(device).flatten(1)
        # The offset of each replica's targets in self.targets.
        shift = torch.arange(len(visited), device=device) * n_rows
        self.target_rows = self.rows + shift.repeat_interleave(self.y.shape[1])
        # (n_steps, 2, K)
        step = self.stack.states[0].step - first  # the first of the epoch
        self.of_steps = torch.from_numpy(
            np.stack([rates, self._average_weights(step, len(rates))], 1)
        ).to(self.stack.of_step)
        self.all_noise_states = self._noise_states(step, len(rates))
        self.stack.flat.refresh()
        self.error_sum.copy_(
            torch.tensor([state.error_sum for state in self.stack.states], dtype=torch.float64)
        )
        self.n_finite.zero_()
        if self.has_several_properties:
            shares = [
                equal_shares(part.target[order]) * scaling.target_scale / scaling.spread
                for part, order, scaling in zip(self.parts, visited, self._scalings(), strict=True)
            ]
            self.share.copy_(self._per_replica(shares).mT)

    def _average_weights(self, first: int, n_steps: int) -> np.ndarray:
        """Compute the shares of new weights in the averages, (n_steps, K), from step `first` on."""
        recipes = [replica.recipe for replica in self.stack.replicas]
        steps = range(first, first + n_steps)
        return np.array(
            [[average_weight(recipe, step, n_steps) for recipe in recipes] for step in steps]
        )

    def _noise_states(self, first: int, n_steps: int) -> Tensor | None:
        """Compute the states of the noise, (n_steps, K), from step `first` of the training on."""
        if not self.stack.network.n_noise:
            return None
        seeds = [replica.spec.seed for replica in self.stack.replicas]
        steps = range(first, first + n_steps)
        states = [[noise_state(seed, step) for seed in seeds] for step in steps]
        return torch.tensor(states, device=self.stack.device)

    def end_epoch(self) -> None:
        """Stop reading ahead. Call this also if a signal interrupts the epoch."""
        for batches in self.coming or ():
            batches.close()

    def read(self, i: int) -> None:
        """Read batch i of the epoch into the buffers.

        Must be called in the order of the batches.
        """
        if self.coming:
            for k, batches in enumerate(self.coming):
                x, y = next(batches)
                self.x[k].copy_(x)
                self.y[k].copy_(y)
            return
        torch.index_select(
            self.parts[0].resident, 0, self.rows[i], out=self.x.view(-1, self.x.shape[-1])
        )
        torch.index_select(self.targets, 0, self.target_rows[i], out=self.y.flatten(0, 1))

    def __call__(self, i: int, stop: bool) -> None:
        """Train one step.

        Args:
            i: The number of the step in the epoch.
            stop: True if this rank has been asked to stop. The step tells all ranks, by the
                allreduce of the gradients.
        """
        flat = self.stack.flat
        self.read(i)
        self.stack.of_step.copy_(self.of_steps[i])
        if self.all_noise_states is not None:
            self.noise_states.copy_(self.all_noise_states[i])
        self.gradients()
        flat.riders[1] = float(stop)
        # Each rank divides its gradients by the global batch size, so the sum is the average. The
        # riders behind the gradients are never rounded.
        sum_step(self.comm, flat.reduced, flat.riders.numel(), self.recipe.allreduce)
        self.update()

    def _gradients(self) -> None:
        flat, n_noise = self.stack.flat, self.stack.network.n_noise
        flat.clear()
        if not self.is_fused:  # else the update has refreshed it
            flat.refresh()
        noise = drawn_noise(self.noise_states, self.mine, n_noise) if n_noise else None
        for rows in self.pieces:
            if self.sums is not None:
                self.sums.first_group = rows.start // self.groups.group
            self._add_gradients(rows, None if noise is None else noise[:, rows])
        if self.sums is not None:
            self.sums.write()

    def _add_gradients(self, rows: slice, noise: Tensor | None) -> None:
        recipe, y = self.recipe, self.y[:, rows]
        with autocast(recipe.precision, self.stack.device):
            error = self.stack.network(self.x[:, rows], self.groups, noise).view_as(y) - y
        if recipe.floor == "censored":
            # If a target is at the floor, any prediction below the floor is right (Tobin 1958).
            error = error.masked_fill((y <= self.floor) & (error < 0), 0)
        if self.has_several_properties:
            # A value that is not reported has no error.
            error = error.masked_fill(y.isnan(), 0)
            # The loss is no matrix product, since its gradient would be an outer product: see
            # models.flat.has_outer_product.
            loss = LOSSES[recipe.loss](error) * self.weight.mT
            absolute = error.detach().abs() @ self.share
        else:
            loss, absolute = LOSSES[recipe.loss](error), error.detach().abs()
        # Summing over replicas is safe, since each has its own weights and so its own gradient.
        with any_layout():
            (loss.sum() / recipe.batch).backward()
        self.stack.flat.riders[0] += absolute.flatten(1).sum(1)

    def _update(self) -> None:
        if self.is_fused:
            self.stack.fused_update()
        else:
            self.stack.optimizer.step()
        self.error_sum += self.stack.flat.riders[0]
        # Once a sum is not finite, it never becomes finite again.
        self.n_finite += self.error_sum.isfinite()
