"""The one training loop: replicas and a comm -> each one's best network, as soon as it has ended.

A stack of replicas goes from step to step together; each has its own order of rows, schedule, history, best epoch and end.
"""

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.distributed.processes import StopSignals
from irnet_hpc.errors import UserError
from irnet_hpc.models.network import Network
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train import checkpoint
from irnet_hpc.train import progress as epochs_bar
from irnet_hpc.train import run_writer as folder
from irnet_hpc.train.checkpoint import State
from irnet_hpc.train.dataset import epoch_order
from irnet_hpc.train.evaluation import (
    in_unit,
    outputs,
    row_errors,
    select_halves,
    take_statistics,
    weights,
)
from irnet_hpc.train.schedules import learning_rate, plateau_factor
from irnet_hpc.train.stack import Replica, Stack, stacks
from irnet_hpc.train.step import Step

CHECKPOINT_S = 60  # what is lost with a node at most, or an epoch where that is longer
EMA_STEPS = 8  # the average is updated every so many steps, by the decay to that power, and at an epoch's end


@dataclasses.dataclass(frozen=True)
class Ended:
    """A replica that needs no more training: with the network of its best epoch, or the sentence for which there is none."""

    replica: Replica
    state: State
    bundle_size: int  # replicas that it began with
    network: Network | None
    error: str | None = None


def train(
    replicas: Sequence[Replica],
    comm: Comm,
    device: torch.device,
    stop: StopSignals,
    graphs: bool = True,
    micro_batch: int | None = None,
    show: bool = False,
) -> Iterator[Ended]:
    """Train replicas of one shape and step (`stacks`) to the end of their recipes, and yield each as soon as it has ended.

    Of a rank's part of a batch, `micro_batch` rows at most are in the network at once: the same step, in less memory.
    After a signal checkpoints are in the folders of those that have not, and none is yielded any more. A network that is
    yielded has the weights and population statistics of its best epoch. With `show` a terminal gets a bar.
    """
    stack = Stack(replicas, comm, device)
    with contextlib.closing(epochs_bar.bar_of(stack, show and comm.rank == 0)) as bar:
        yield from _epochs(stack, comm, stop, graphs, micro_batch, bar)


def _epochs(
    stack: Stack, comm: Comm, stop: StopSignals, graphs: bool, micro_batch: int | None, bar: tqdm
) -> Iterator[Ended]:
    """The loop of `train`."""
    replicas = list(stack.replicas)
    recipe, rows, n_steps = (
        replicas[0].recipe,
        replicas[0].data.train.row,
        replicas[0].n_steps,
    )  # that all have in common
    for replica, state in stack.members:
        if comm.rank == 0:
            folder.write_history(replica.path, state.history)
    step_of = Step(stack, comm, graphs, micro_batch)
    look = 16  # steps between two looks of the host at the device
    clock = saved = said = time.monotonic()
    saving_s = 0.0

    while stack.replicas:
        states, epoch = stack.states, stack.states[0].epoch
        first = states[0].step - epoch * n_steps  # not 0 where a signal stopped the epoch
        orders = {r.spec.seed: epoch_order(rows, r.spec.seed, epoch) for r in stack.replicas}
        visited = [orders[r.spec.seed][: n_steps * recipe.batch] for r in stack.replicas]
        rates = np.stack([rates_of(r.recipe, s, n_steps) for r, s in stack.members], 1)
        errors: list[str | None] = [None] * len(states)
        step_of.begin(visited, rates, first)
        for i in range(first, n_steps):
            step_of(i, epoch * n_steps + i, stop.asked)
            follow(stack, n_steps, i)
            if (epoch * n_steps + i + 1) % look == 0 or i == n_steps - 1:
                for k, error_sum in enumerate(step_of.error_sum.tolist()):
                    states[k].step, states[k].error_sum = epoch * n_steps + i + 1, error_sum
                    if errors[k] is None and not math.isfinite(error_sum):
                        at = first + int(
                            step_of.n_finite[k]
                        )  # the host looks at some steps only, the device at each
                        at_rows = rows[visited[k].reshape(-1, recipe.batch)[at]]
                        errors[k] = non_finite(
                            stack.replicas[k].spec, states[k], n_steps, at, at_rows, rates[at, k]
                        )
                epochs_bar.goes_on(bar, epoch * n_steps + i + 1)
                if all(errors):
                    break
                if stack.flat.riders[1, 0] > 0:
                    step_of.end()
                    spend(stack, comm, time.monotonic() - clock, time.monotonic() - clock)
                    errors = save(stack, errors, comm)
                    yield from (
                        Ended(*stack.members[k], len(replicas), None, e)
                        for k, e in enumerate(errors)
                        if e
                    )
                    return
        step_of.end()
        trained_s = time.monotonic() - clock

        maes = evaluate(stack, errors, comm) if not all(errors) else [math.nan] * len(errors)
        now = time.monotonic()
        epoch_s = now - clock
        spend(stack, comm, epoch_s, trained_s)
        clock = now
        lost: dict[int, str] = {}  # place -> whose the run is by now
        for k, replica in enumerate(stack.replicas):
            if errors[k] is None:
                note_epoch(replica, states[k], maes[k], rates[-1, k])
                if comm.rank == 0:
                    try:
                        folder.append_history(replica.path, states[k].history[-1])
                    except RunIsHeld as error:
                        lost[k] = str(error)
        # One rank's clock decides for all. Due is what would be too late at the end of the next epoch. Many large replicas take
        # long to save: a twentieth of the time at most.
        steps_per_s = (n_steps - first) / max(trained_s, 1e-6)
        is_due = now - saved + epoch_s > CHECKPOINT_S and now - saved >= 20 * saving_s
        due, look, lost = comm.gather((is_due, max(1, round(steps_per_s)), lost))[0]
        errors = [lost.get(k, error) for k, error in enumerate(errors)]
        ended = [
            bool(errors[k]) or s.stopped or s.epoch == r.recipe.epochs
            for k, (r, s) in enumerate(stack.members)
        ]
        epochs_bar.tell(bar, stack)
        is_time = now - said >= len(ended) or any(ended)  # a line a second
        if comm.rank == 0 and is_time and not epochs_bar.stands_for_lines(bar):
            said = now
            for k, (replica, state) in enumerate(stack.members):
                if errors[k] is None:
                    print(
                        progress(replica, state, len(ended), steps_per_s * recipe.batch), flush=True
                    )
        for k, (replica, state) in enumerate(stack.members):
            if ended[k]:
                bar.clear()  # for the lines that will be said of it
                network = None if errors[k] else stack.alone(k)
                yield Ended(replica, state, len(replicas), network, errors[k])
        if all(ended):
            return
        if any(ended):
            stack.keep([k for k, is_over in enumerate(ended) if not is_over])
            step_of, clock = Step(stack, comm, graphs, micro_batch), time.monotonic()
        if due:
            saved = time.monotonic()
            save(
                stack, [None] * len(stack.replicas), comm
            )  # of one lost just now the next epoch says so
            saving_s = time.monotonic() - saved


def rates_of(recipe: Recipe, state: State, n_steps: int) -> np.ndarray:
    """The learning rate of each step of the epoch that is about to be trained (n_steps,)."""
    reduced = plateau_factor(recipe, [row[4] for row in state.history])
    steps = range(state.epoch * n_steps, (state.epoch + 1) * n_steps)
    return np.array(
        [reduced * learning_rate(recipe, step, recipe.epochs * n_steps) for step in steps]
    )


def follow(stack: Stack, n_steps: int, i: int) -> None:
    """After step i of an epoch: the averages go after the weights. Without `ema` they are the weights, when it counts."""
    is_last, n_frozen = i == n_steps - 1, stack.flat.n_frozen
    for k, (replica, state) in enumerate(stack.members):
        if is_last or (replica.recipe.ema and i % EMA_STEPS == EMA_STEPS - 1):
            step = state.epoch * n_steps + i + 1
            decay = min(
                replica.recipe.ema, (1 + step) / (10 + step)
            )  # a young average forgets faster
            stack.average[k, n_frozen:].lerp_(
                stack.flat.values[k, n_frozen:], 1 - decay ** (i % EMA_STEPS + 1)
            )


def evaluate(stack: Stack, errors: list[str | None], comm: Comm) -> list[float]:
    """The error of each replica on the rows that select; the better ones are remembered, and `errors` filled in."""
    maes, first = [], stack.replicas[0]
    role = "val" if first.spec.protocol == "honest" else "test"
    with weights(stack.flat, stack.average):
        take_statistics(stack.network, first.data.train, first.recipe, comm)
        out = outputs(stack.network, getattr(first.data, role), first.recipe, comm)
        for k, (replica, state) in enumerate(stack.members):
            rows = getattr(replica.data, role)
            of_rows = row_errors(in_unit(out[k], rows, replica.data), rows, replica.data)
            maes.append(float(of_rows.mean()))
            if errors[k] is None and not math.isfinite(maes[k]):
                errors[k] = (
                    f"the error on the rows that select is not finite after epoch {state.epoch + 1} of {replica.spec.model} "
                    f"on {replica.spec.property}: {maes[k]}"
                )
            if errors[k] is None and maes[k] < state.best_mae:
                state.best_mae, state.best_epoch = maes[k], state.epoch
                stack.note_best(k)
            if errors[k] is None and role == "test":
                select_halves(state.halves, of_rows, replica.spec.seed)
    return maes


def note_epoch(replica: Replica, state: State, mae: float, rate: float) -> None:
    """A row of history, and whether the replica has waited long enough for a better one. `rate`: of the epoch's last step."""
    scaling, recipe = replica.data.scaling, replica.recipe
    unit = 1.0 if scaling.spread is not None else scaling.target_scale  # of a scaled error
    train_mae = state.error_sum / (replica.n_steps * recipe.batch) * unit
    state.history.append([state.epoch, state.step, float(rate), train_mae, mae, state.wall_s])
    state.stopped = bool(recipe.patience) and state.epoch - state.best_epoch >= recipe.patience
    state.epoch, state.error_sum = state.epoch + 1, 0.0


def spend(stack: Stack, comm: Comm, seconds: float, training_s: float) -> None:
    """Each replica's share of the time: summed over cells it is what the device was busy."""
    for state in stack.states:
        state.spend(seconds / len(stack.states), comm.size)
        state.training_s += training_s / len(stack.states)


def save(stack: Stack, errors: list[str | None], comm: Comm) -> list[str | None]:
    """Write the checkpoints of those without an error. Returns the errors, also of runs that are another process's by now."""
    errors = list(errors)
    for k, (replica, state) in enumerate(stack.members):
        if errors[k] is None:
            try:
                checkpoint.save(replica.path, replica.key, stack.tensors(k), state, comm)
            except RunIsHeld as error:
                errors[k] = str(error)
    return comm.gather(errors)[0]


def trained(
    replicas: Sequence[Replica],
    comm: Comm,
    device: torch.device,
    stop: StopSignals,
    micro_batch: int | None = None,
) -> Iterator[Ended]:
    """Train replicas of one shape, stack after stack; a stack that the device's memory does not hold, in halves."""
    waiting = stacks(replicas, comm)
    while waiting:
        left = {replica.path: replica for replica in waiting.pop(0)}
        is_too_large = False
        try:
            for ended in train(
                list(left.values()), comm, device, stop, micro_batch=micro_batch, show=True
            ):
                del left[ended.replica.path]
                yield ended
        except torch.cuda.OutOfMemoryError:
            if comm.size > 1:  # the others are waiting for this rank, and cannot be told
                print(
                    f"error: {len(left)} cells together do not fit in this rank's memory; bundle fewer",
                    file=sys.stderr,
                )
                raise
            if len(left) == 1:
                raise UserError(
                    f"a network and its batch must fit in the device's memory, however: {replicas[0].spec.model} and "
                    f"{replicas[0].recipe.batch} rows do not; fewer rows at once (--micro-batch), or more ranks, may"
                ) from None
            is_too_large = True
        if is_too_large:  # and, the error being gone, what it held is free
            torch.cuda.empty_cache()
            members, half = list(left.values()), len(left) // 2
            print(
                f"{len(left)} cells together do not fit in memory: {half} and {len(left) - half} instead",
                flush=True,
            )
            waiting = [*stacks(members[:half], comm), *stacks(members[half:], comm), *waiting]
        elif left:
            return  # a signal


def non_finite(
    spec: RunSpec, state: State, n_steps: int, at: int, rows: np.ndarray, rate: float
) -> str:
    """`at`: the step of the epoch whose loss was the first that is not finite; `rows` (batch,) were in it, by their numbers."""
    some = ", ".join(map(str, rows[:8])) + f" and {len(rows) - 8} more" * (len(rows) > 8)
    return (
        f"the loss is no longer finite at step {state.epoch * n_steps + at + 1} (epoch {state.epoch + 1}) of {spec.model} on "
        f"{spec.property}, learning rate {rate:.2g}, rows {some} of {spec.pack}; a smaller rate, or recipe fields features: standard and target: standard, may help"
    )


def progress(replica: Replica, state: State, n_together: int, rows_per_s: float) -> str:
    spec, recipe = replica.spec, replica.recipe
    epoch, _, _, train_mae, mae, wall_s = state.history[-1]
    left_min = (recipe.epochs - state.epoch) * wall_s * n_together / (epoch + 1) / 60
    who = f"{spec.property}, {spec.recipe}, seed {spec.seed}: " if n_together > 1 else ""
    return (
        f"{who}epoch {epoch + 1}/{recipe.epochs}  {'relative ' * (len(spec.properties) > 1)}MAE train {train_mae:.4g}  {'val' if spec.protocol == 'honest' else 'test'} "
        f"{mae:.4g} (best {state.best_mae:.4g})  {rows_per_s:,.0f} rows/s  at most {left_min:.1f} min left"
    )
