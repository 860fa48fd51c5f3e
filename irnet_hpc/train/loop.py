"""Run the training loop of networks, and yield the best network of each replica when it ends.

All replicas of a stack take each step together. Each replica has its own order of rows, schedule,
history, best epoch and end, so its numbers are the same as if it were trained alone.
"""

import contextlib
import dataclasses
import gc
import logging
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.errors import UserError
from irnet_hpc.models.network import Network
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.train import checkpoint, progress
from irnet_hpc.train.checkpoint import State
from irnet_hpc.train.evaluation import (
    in_unit,
    outputs,
    row_errors,
    select_halves,
    take_statistics,
    weights,
)
from irnet_hpc.train.orders import Orders
from irnet_hpc.train.run import DEFAULT_OPTIONS, TrainOptions
from irnet_hpc.train.schedules import average_weight, learning_rate, plateau_factor
from irnet_hpc.train.stack import Replica, Stack, stacks
from irnet_hpc.train.step import Step
from irnet_hpc.train.stopping import StopRequest
from irnet_hpc.train.threads import threads_of, with_threads

# A lost node costs at most so many seconds of work, or an epoch if that takes longer.
CHECKPOINT_S = 60
# The host looks at the device every so many steps, until the speed is known; then about once per
# second.
FIRST_LOOK_STEPS = 16

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Ended:
    """A replica whose training has ended, with the network of its best epoch, or with an error."""

    replica: Replica
    state: State
    bundle_size: int  # number of replicas with which its stack began
    network: Network | None
    error: UserError | None = None


def train_all(
    replicas: Sequence[Replica],
    comm: Comm,
    device: torch.device,
    stop: StopRequest,
    options: TrainOptions,
) -> Iterator[Ended]:
    """Train replicas of one shape, one stack after the other, as `train` does.

    If a stack does not fit in the memory of the device, it is divided in two.

    Raises:
        UserError: If a single replica does not fit in memory.
    """
    waiting = stacks(replicas, comm)
    while waiting:
        left = {id(replica): replica for replica in waiting.pop(0)}
        is_too_large = False
        try:
            for ended in train(list(left.values()), comm, device, stop, options):
                del left[id(ended.replica)]
                yield ended
        except torch.cuda.OutOfMemoryError as error:
            if comm.size > 1:
                # The other ranks are waiting for this one and cannot be told to start again.
                logger.warning(
                    f"error: {len(left)} cells together do not fit in this rank's memory; "
                    "bundle fewer"
                )
                raise
            if len(left) == 1:
                error.__traceback__ = None  # it refers to the stack, and so to its memory
                raise _too_large(replicas[0]) from error
            is_too_large = True
        if is_too_large:
            # Done after the `except` block, when nothing refers to the stack's memory any more.
            _free_memory(device)
            members, half = list(left.values()), len(left) // 2
            logger.info(
                f"{len(left)} cells together do not fit in memory; training {half} and "
                f"{len(left) - half} instead"
            )
            waiting = [*stacks(members[:half], comm), *stacks(members[half:], comm), *waiting]
        elif left:
            return  # `stop` has asked to stop
        elif waiting:
            _free_memory(device)  # of this stack, before the next one takes memory


def train(
    replicas: Sequence[Replica],
    comm: Comm,
    device: torch.device,
    stop: StopRequest,
    options: TrainOptions = DEFAULT_OPTIONS,
) -> Iterator[Ended]:
    """Train replicas of one stack to the end of their recipes.

    Args:
        replicas: Replicas of one shape and at the same step, as `stacks` groups them.
        comm: The ranks that train.
        device: The device of this rank.
        stop: The request to stop, which is read once per step. If it asks to stop, checkpoints are
            written and nothing more is yielded.
        options: The options, of which `micro_batch`, `cuda_graphs`, `progress_bar` and
            `epoch_lines` are used.

    Yields:
        Each replica as soon as it has ended, with the weights and population statistics of its best
        epoch.
    """
    stack = Stack(replicas, comm, device)
    bar = progress.make_bar(stack, options.progress_bar and comm.rank == 0)
    orders = Orders(replicas[0].data.train.row, ahead=device.type == "cuda")
    n_threads = threads_of(stack.replicas[0], comm, device)
    with contextlib.closing(bar), contextlib.closing(orders), with_threads(n_threads):
        yield from _Training(stack, comm, stop, options, bar, orders).epochs()


class _Training:
    """The training of one stack, and the clocks that decide when to log and when to save."""

    def __init__(
        self,
        stack: Stack,
        comm: Comm,
        stop: StopRequest,
        options: TrainOptions,
        bar: progress.Bar,
        orders: Orders,
    ) -> None:
        self.stack, self.comm, self.stop, self.options = stack, comm, stop, options
        self.bar, self.orders = bar, orders
        self.n_begun = len(stack.replicas)
        first = stack.replicas[0]
        # The same for all replicas.
        self.batch, self.rows, self.n_steps = (
            first.recipe.batch,
            first.data.train.row,
            first.n_steps,
        )
        self.look_steps = FIRST_LOOK_STEPS
        self.clock = self.saved = self.logged = time.monotonic()
        self.saving_s = 0.0

    def epochs(self) -> Iterator[Ended]:
        """Train until every replica has ended, or until the training is asked to stop."""
        stack, comm = self.stack, self.comm
        if comm.rank == 0:
            for replica, state in stack.members:
                replica.run.folder.write_history(state.history)
        step = self._new_step()
        while True:
            # This is not 0 if a signal interrupted this epoch in an earlier attempt.
            first = stack.states[0].step - stack.states[0].epoch * self.n_steps
            rates = np.stack([epoch_rates(r.recipe, s, self.n_steps) for r, s in stack.members], 1)
            errors, is_stopped = self._train_epoch(step, first, rates)
            trained_s = time.monotonic() - self.clock
            if is_stopped:
                spend(stack, comm, trained_s, trained_s)
                errors = save(stack, errors, comm)
                yield from self._ended([bool(error) for error in errors], errors)
                return

            maes = [math.nan] * len(errors)
            if not all(errors):
                maes = evaluate(stack, errors, comm)
            now = time.monotonic()
            epoch_s, self.clock = now - self.clock, now
            spend(stack, comm, epoch_s, trained_s)
            lost = self._note_epoch(errors, maes, rates[-1])

            # The clock of rank 0 decides for all ranks. A checkpoint is due if the end of the next
            # epoch would be too late. If saving takes long (many large replicas), checkpoints are
            # rarer, so that saving takes at most a twentieth of the time.
            steps_per_s = (self.n_steps - first) / max(trained_s, 1e-6)
            is_due = (
                now - self.saved + epoch_s > CHECKPOINT_S and now - self.saved >= 20 * self.saving_s
            )
            decided = (is_due, max(1, round(steps_per_s)), lost)
            is_due, self.look_steps, lost = comm.gather(decided)[0]
            errors = [lost.get(k, error) for k, error in enumerate(errors)]
            has_ended = [
                bool(error) or state.stopped or state.epoch == replica.recipe.epochs
                for error, (replica, state) in zip(errors, stack.members, strict=True)
            ]
            self._log_epoch(errors, now, any(has_ended), steps_per_s * self.batch)
            yield from self._ended(has_ended, errors)
            if all(has_ended):
                return
            if any(has_ended):
                del step  # before a new one takes memory
                stack.keep([k for k, ended in enumerate(has_ended) if not ended])
                _free_memory(stack.device)
                step, self.clock = self._new_step(), time.monotonic()
            if is_due:
                self.saved = time.monotonic()
                # If a run is lost just now, the next epoch notices it.
                save(stack, [None] * len(stack.replicas), comm)
                self.saving_s = time.monotonic() - self.saved

    def _new_step(self) -> Step:
        """Make a Step for the replicas that the stack has now."""
        return Step(self.stack, self.comm, self.options.cuda_graphs, self.options.micro_batch)

    def _train_epoch(
        self, step: Step, first: int, rates: np.ndarray
    ) -> tuple[list[UserError | None], bool]:
        """Train one epoch, from step `first` on.

        Args:
            step: The step of this stack.
            first: The first step; it is not 0 if an earlier attempt stopped within the epoch.
            rates: The learning rates (n_steps, K).

        Returns:
            For each replica an error if its loss is no longer finite, else None; and True if the
            training was asked to stop.
        """
        stack, n_steps, epoch = self.stack, self.n_steps, self.stack.states[0].epoch
        seeds = [replica.spec.seed for replica in stack.replicas]
        is_last = epoch + 1 >= max(replica.recipe.epochs for replica in stack.replicas)
        orders = self.orders.of(seeds, epoch, is_last)
        visited = [orders[seed][: n_steps * self.batch] for seed in seeds]
        errors: list[UserError | None] = [None] * len(seeds)
        is_stopped = False
        step.begin(visited, rates, first)
        for i in range(first, n_steps):
            n_done = epoch * n_steps + i + 1
            step(i, self.stop.asked)
            if not step.is_fused:
                update_averages(stack, n_done - 1, n_steps)
            if n_done % self.look_steps and i < n_steps - 1:
                continue
            # Here the host looks at the device, and so waits for the steps that are under way.
            for k, error_sum in enumerate(step.error_sum.tolist()):
                stack.states[k].step, stack.states[k].error_sum = n_done, error_sum
                if errors[k] is None and not math.isfinite(error_sum):
                    # The host looks only after some steps, while the device counts finite steps.
                    at = first + int(step.n_finite[k])
                    at_rows = self.rows[visited[k].reshape(-1, self.batch)[at]]
                    errors[k] = self._not_finite(k, at, at_rows, rates[at, k])
            progress.advance(self.bar, n_done)
            if all(errors):
                break
            if stack.flat.riders[1, 0] > 0:
                is_stopped = True
                break
        step.end_epoch()
        return errors, is_stopped

    def _note_epoch(
        self, errors: list[UserError | None], maes: list[float], rates: np.ndarray
    ) -> dict[int, UserError]:
        """Add the finished epoch to the history of each replica that has no error.

        Returns:
            k -> error, for each replica k whose run another process has taken over. Only rank 0
            writes history.csv and notices this; on other ranks the result is empty.
        """
        lost: dict[int, UserError] = {}
        for k, (replica, state) in enumerate(self.stack.members):
            if errors[k] is None:
                note_epoch(replica, state, maes[k], rates[k])
                if self.comm.rank == 0:
                    try:
                        replica.run.folder.append_history(state.history[-1])
                    except RunIsHeld as error:
                        lost[k] = error
        return lost

    def _log_epoch(
        self, errors: list[UserError | None], now: float, any_ended: bool, rows_per_s: float
    ) -> None:
        """Log a line for each replica, at most one per second on average, if no bar is visible."""
        progress.update(self.bar, self.stack)
        n_together = len(self.stack.replicas)
        is_time = any_ended or now - self.logged >= n_together
        is_wanted = self.options.epoch_lines and not progress.replaces_log_lines(self.bar)
        if self.comm.rank != 0 or not is_time or not is_wanted:
            return
        self.logged = now
        for k, (replica, state) in enumerate(self.stack.members):
            if errors[k] is None:
                logger.info(progress.epoch_line(replica, state, n_together, rows_per_s))

    def _ended(self, has_ended: list[bool], errors: list[UserError | None]) -> Iterator[Ended]:
        """Yield the replicas that have ended."""
        for k, (replica, state) in enumerate(self.stack.members):
            if has_ended[k]:
                self.bar.clear()  # since lines about this replica will be printed
                network = None if errors[k] else self.stack.best_network(k)
                yield Ended(replica, state, self.n_begun, network, errors[k])

    def _not_finite(self, k: int, at: int, rows: np.ndarray, rate: float) -> UserError:
        """Describe the first step of replica k whose loss is not finite.

        Args:
            k: The replica.
            at: The step in this epoch.
            rows: The rows of the step's batch, as numbers in the pack (batch,).
            rate: The learning rate of the step.
        """
        spec, state = self.stack.replicas[k].spec, self.stack.states[k]
        some = ", ".join(map(str, rows[:8])) + f" and {len(rows) - 8} more" * (len(rows) > 8)
        return UserError(
            f"the loss is no longer finite at step {state.epoch * self.n_steps + at + 1} "
            f"(epoch {state.epoch + 1}) of {spec.model} on {spec.property}, learning rate "
            f"{rate:.2g}, rows {some} of {spec.pack}; a smaller rate, or recipe fields features: "
            "standard and target: standard, may help"
        )


def epoch_rates(recipe: Recipe, state: State, n_steps: int) -> np.ndarray:
    """Compute the learning rates of the steps of the next epoch, (n_steps,)."""
    reduced = plateau_factor(recipe, [row[4] for row in state.history])
    steps = range(state.epoch * n_steps, (state.epoch + 1) * n_steps)
    return np.array(
        [reduced * learning_rate(recipe, step, recipe.epochs * n_steps) for step in steps]
    )


def update_averages(stack: Stack, step: int, n_steps: int) -> None:
    """Move the averaged weights towards the present weights, after a step.

    Args:
        stack: The stack.
        step: The number of the step over all epochs, from 0 on.
        n_steps: The number of steps of an epoch.
    """
    n_frozen = stack.flat.n_frozen
    for k, replica in enumerate(stack.replicas):
        weight = average_weight(replica.recipe, step, n_steps)
        if weight:
            stack.average[k, n_frozen:].lerp_(stack.flat.values[k, n_frozen:], weight)


def evaluate(stack: Stack, errors: list[UserError | None], comm: Comm) -> list[float]:
    """Compute each replica's error on the rows that select the epoch (test for protocol `paper`).

    If a replica is better than in all earlier epochs, its weights are kept as its best. If its
    error is not finite, a UserError is put into `errors`, which has an item for each replica.
    """
    maes, first = [], stack.replicas[0]
    role = "val" if first.spec.protocol == "honest" else "test"
    with weights(stack.flat, stack.average):
        take_statistics(stack.network, first.data.train, first.recipe, comm)
        out = outputs(stack.network, getattr(first.data, role), first.recipe, comm)
        for k, (replica, state) in enumerate(stack.members):
            rows = getattr(replica.data, role)
            errors_of_rows = row_errors(in_unit(out[k], rows, replica.data), rows, replica.data)
            maes.append(float(errors_of_rows.mean()))
            if errors[k] is None and not math.isfinite(maes[k]):
                errors[k] = UserError(
                    f"the error on the rows that select the epoch is not finite after epoch "
                    f"{state.epoch + 1} of {replica.spec.model} on {replica.spec.property}, "
                    f"got {maes[k]}"
                )
            if errors[k] is None and maes[k] < state.best_mae:
                state.best_mae, state.best_epoch = maes[k], state.epoch
                stack.note_best(k)
            if errors[k] is None and role == "test":
                select_halves(state.halves, errors_of_rows, replica.spec.seed)
    return maes


def note_epoch(replica: Replica, state: State, mae: float, rate: float) -> None:
    """Add a row to the history, and mark the replica as stopped if its patience has run out.

    Args:
        replica: The replica.
        state: The state of the replica, which is changed.
        mae: The replica's error on the rows that select the best epoch.
        rate: The learning rate of the last step.
    """
    scaling, recipe = replica.data.scaling, replica.recipe
    unit = 1.0 if scaling.spread is not None else scaling.target_scale  # the unit of a scaled error
    train_mae = state.error_sum / (replica.n_steps * recipe.batch) * unit
    state.history.append([state.epoch, state.step, float(rate), train_mae, mae, state.wall_s])
    state.stopped = bool(recipe.patience) and state.epoch - state.best_epoch >= recipe.patience
    state.epoch, state.error_sum = state.epoch + 1, 0.0


def spend(stack: Stack, comm: Comm, seconds: float, training_s: float) -> None:
    """Charge the time to the replicas in equal shares, so that their times add up to the total."""
    for state in stack.states:
        state.spend(seconds / len(stack.states), comm.size)
        state.training_s += training_s / len(stack.states)


def save(stack: Stack, errors: list[UserError | None], comm: Comm) -> list[UserError | None]:
    """Write the checkpoints of the replicas that have no error.

    Returns:
        A copy of `errors`, with an error for each run that another process has taken over.
    """
    errors = list(errors)
    for k, (replica, state) in enumerate(stack.members):
        if errors[k] is None:
            try:
                checkpoint.save(replica.run.folder, replica.run.key, stack.tensors(k), state, comm)
            except RunIsHeld as error:
                errors[k] = error
    return comm.gather(errors)[0]


def _free_memory(device: torch.device) -> None:
    """Return unused memory to the GPU.

    torch's optimisers contain references to themselves, so only the garbage collector frees them.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def _too_large(replica: Replica) -> UserError:
    return UserError(
        f"{replica.spec.model} with a batch of {replica.recipe.batch} rows does not fit in the "
        "device's memory; fewer rows at once (--micro-batch) or more ranks may fit"
    )
