"""One step of a stack: a batch is read, its gradients taken, summed over the ranks, and the optimiser moves the weights.

On a GPU the gradients are one CUDA graph and the optimiser another, since a narrow network is bound by its launches; the
allreduce is between them, for Horovod's runs on a thread of its own. What is computed is the same code, recorded or not.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.distributed.allreduce import sum_step
from irnet_hpc.distributed.engines import Comm
from irnet_hpc.errors import UserError
from irnet_hpc.models.network import autocast
from irnet_hpc.models.normalisation import Groups, rank_groups
from irnet_hpc.train.joint import equal_shares, loss_weights
from irnet_hpc.train.stack import Stack


def pieces(groups: Groups, rows: slice, most: int | None) -> list[slice]:
    """A rank's `rows` of the global batch as consecutive slices of at most `most` rows, each of whole groups; None: one.

    Raises UserError where a group has more rows than that, or lies on several ranks: its sums need all of its rows at once.
    """
    n_rows = rows.stop - rows.start
    if most is None or n_rows <= most:
        return [rows]
    if groups.index is not None:
        raise UserError(
            f"--micro-batch needs groups of rows that lie on one rank, however: norm_group {groups.group} and {n_rows} rows "
            "a rank; use fewer ranks"
        )
    if most < groups.group:
        raise UserError(
            f"--micro-batch must be at least the recipe's norm_group of {groups.group}, however: {most}"
        )
    step = most // groups.group * groups.group
    return [
        slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)
    ]


# A replica's weights lie together, for its optimiser and its checkpoint, so that a parameter of a stack is strided; torch's
# advice to have it dense is not for us.
warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")

WARM_UP = 3  # calls before a graph is recorded: libraries set themselves up, the allocator learns the sizes
LOSSES = {
    "mae": torch.abs,
    "mse": torch.square,
    "huber": lambda e: torch.where(e.abs() < 1, e * e / 2, e.abs() - 0.5),
}


class Graphed:
    """Kernels on buffers that stay where they are: launched one by one at first, then recorded as one CUDA graph and replayed.

    Where they cannot be recorded they go on one by one, which is said once.
    """

    def __init__(self, launch: Callable[[], None], wanted: bool) -> None:
        self.launch, self.wanted, self.n_calls, self.graph = launch, wanted, 0, None

    def __call__(self) -> None:
        if self.wanted and self.graph is None and self.n_calls >= WARM_UP:
            self._record()
        if self.graph is not None:
            self.graph.replay()
        elif self.wanted:
            # On a stream of its own, as the recording will be: torch binds what autograd prepares to the stream.
            here, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(here)
            with torch.cuda.stream(side):
                self.launch()
            here.wait_stream(side)
        else:
            self.launch()
        self.n_calls += 1

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):  # which records and does not compute
                self.launch()
            self.graph = graph
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize()
            self.wanted = False
            print(
                f"warning: no CUDA graph, every kernel is launched by itself: {str(error).splitlines()[0]}",
                flush=True,
            )


class Step:
    """The step of a stack as it is now: when replicas leave, there is a new one."""

    def __init__(
        self, stack: Stack, comm: Comm, graphs: bool = True, micro_batch: int | None = None
    ) -> None:
        first = stack.replicas[0]
        self.stack, self.comm, self.recipe = stack, comm, first.recipe
        n_local = first.recipe.batch // comm.size
        self.mine = slice(
            comm.rank * n_local, (comm.rank + 1) * n_local
        )  # this rank's rows of every batch
        self.groups = rank_groups(
            first.recipe.norm_group,
            first.recipe.batch,
            comm.rank,
            comm.size,
            comm.sum_,
            stack.device,
        )
        # Of this rank's rows, those that go through the network at once.
        self.pieces = [
            slice(rows.start - self.mine.start, rows.stop - self.mine.start)
            for rows in pieces(self.groups, self.mine, micro_batch)
        ]
        stack.flat.overwrite(len(self.pieces) == 1)
        self.parts, k = [replica.data.train for replica in stack.replicas], len(stack.replicas)
        # Of one replica the targets themselves, of several one after the other: (K * n_rows[, n_properties]).
        targets = [part.y for part in self.parts]
        self.targets = torch.cat(targets) if k > 1 else targets[0]
        self.x = self.targets.new_empty(k, n_local, self.parts[0].n_features)
        self.y = self.targets.new_empty(k, n_local, *self.targets.shape[1:])
        self.noise = self._noise(0)
        self.several = first.data.scaling.spread is not None  # properties
        self.floor = self._of_each(
            [(s.floor - s.target_mean) / s.target_scale for s in self._scalings()]
        )
        if (
            self.several
        ):  # (K, n_properties, 1): what they weigh in the loss, and in the error that is shown
            self.weight = self._of_each(
                [loss_weights(r.data.train.target) for r in stack.replicas]
            ).mT.contiguous()
            self.share = torch.empty_like(self.weight)
        self.error_sum = torch.zeros(
            k, dtype=torch.float64, device=stack.device
        )  # of the epoch so far, scaled
        self.n_finite = torch.zeros(
            k, dtype=torch.int64, device=stack.device
        )  # steps of it before one that was not
        graphs = graphs and stack.device.type == "cuda"
        # A group that spans ranks has an allreduce within its layer, which no graph can hold.
        self.gradients = Graphed(self._gradients, graphs and self.groups.index is None)
        self.update = Graphed(self._update, graphs)

    def _scalings(self) -> list:
        return [replica.data.scaling for replica in self.stack.replicas]

    def _of_each(self, values: Sequence[float | np.ndarray]) -> Tensor:
        """A number, or one a property, of each replica: (K, 1) or (K, 1, n_properties), beside a batch's errors."""
        return torch.as_tensor(np.stack(values)).to(self.y).unsqueeze(1)

    def _noise(self, step: int) -> Tensor | None:
        """(K, n_local, n_noise); None of a network without dropout."""
        of_each = [
            self.stack.network.noise(r.spec.seed, step, self.mine) for r in self.stack.replicas
        ]
        return None if of_each[0] is None else torch.stack(of_each)

    def begin(self, visited: Sequence[np.ndarray], rates: np.ndarray, first: int = 0) -> None:
        """An epoch, from its step `first` on: which rows each replica visits, in order (n_steps * batch,), and the rates
        (n_steps, K)."""
        batch, device, n_rows = self.recipe.batch, self.stack.device, len(self.parts[0])
        rows = np.stack(
            [of_one.reshape(-1, batch)[:, self.mine] for of_one in visited], 1
        )  # (n_steps, K, n_local)
        self.coming = None  # batches of each replica from its pack, where they do not lie in memory
        if self.parts[0].streams:
            self.coming = [part.batches(rows[:, k], first) for k, part in enumerate(self.parts)]
        self.rows = torch.from_numpy(rows).to(device).flatten(1)
        shift = (
            torch.arange(len(visited), device=device) * n_rows
        )  # to where each one's targets begin
        self.target_rows = self.rows + shift.repeat_interleave(self.y.shape[1])
        self.rates = torch.from_numpy(rates).to(self.stack.rates)
        self.error_sum.copy_(
            torch.tensor([state.error_sum for state in self.stack.states], dtype=torch.float64)
        )
        self.n_finite.zero_()
        if self.several:
            share = [
                equal_shares(replica.data.train.target[of_one])
                * scaling.target_scale
                / scaling.spread
                for replica, of_one, scaling in zip(
                    self.stack.replicas, visited, self._scalings(), strict=True
                )
            ]
            self.share.copy_(self._of_each(share).mT)

    def end(self) -> None:
        """Of an epoch, also one that a signal stops: nothing reads ahead any more."""
        for of_one in self.coming or ():
            of_one.close()

    def read(self, i: int) -> None:
        """Batch i of the epoch, which comes after i - 1, of every replica, into the buffers that the gradients are taken of."""
        if self.coming:
            for k, of_one in enumerate(self.coming):
                x, y = next(of_one)
                self.x[k].copy_(x)
                self.y[k].copy_(y)
            return
        torch.index_select(self.parts[0].x, 0, self.rows[i], out=self.x.view(-1, self.x.shape[-1]))
        torch.index_select(self.targets, 0, self.target_rows[i], out=self.y.flatten(0, 1))

    def __call__(self, i: int, step: int, stop: bool) -> None:
        """Step `step` of the training, i of its epoch. `stop`: whether this rank has been asked to, which all then learn."""
        flat = self.stack.flat
        self.read(i)
        self.stack.rates.copy_(self.rates[i])
        if self.noise is not None:
            self.noise.copy_(self._noise(step))
        self.gradients()
        flat.riders[1] = float(stop)
        # Averages the gradients, since each rank divided by the global batch; what rides behind them stays exact.
        sum_step(self.comm, flat.reduced, flat.riders.numel(), self.recipe.allreduce)
        self.update()

    def _gradients(self) -> None:
        self.stack.flat.clear()
        for rows in self.pieces:
            self._add_gradients(rows)

    def _add_gradients(self, rows: slice) -> None:
        recipe, y = self.recipe, self.y[:, rows]
        noise = None if self.noise is None else self.noise[:, rows]
        with autocast(recipe.precision, self.stack.device):
            error = self.stack.network(self.x[:, rows], self.groups, noise).view_as(y) - y
        if (
            recipe.floor == "censored"
        ):  # a target at the floor is met by whatever is cut there (Tobin 1958)
            error = error.masked_fill((y <= self.floor) & (error < 0), 0)
        if self.several:  # what is not reported is no error
            error = error.masked_fill(y.isnan(), 0)
            loss, absolute = (
                LOSSES[recipe.loss](error) @ self.weight,
                error.detach().abs() @ self.share,
            )
        else:
            loss, absolute = LOSSES[recipe.loss](error), error.detach().abs()
        (loss.sum() / recipe.batch).backward()  # a sum over replicas: each has its own gradient
        self.stack.flat.riders[0] += absolute.flatten(1).sum(1)

    def _update(self) -> None:
        self.stack.optimizer.step()
        self.error_sum += self.stack.flat.riders[0]
        self.n_finite += self.error_sum.isfinite()  # a sum that is not stays so
