"""Show the progress of a training: a bar on a terminal, otherwise a line per epoch.

Only rank 0 shows the bar. There is no bar if the output goes to a log or a pipe, or under a
launcher.
"""

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from irnet_hpc.train.checkpoint import State
    from irnet_hpc.train.stack import Replica, Stack

# tqdm puts a comma before {postfix}.
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| at most {remaining} left{postfix}"
Bar = tqdm


def make_bar(stack: "Stack", wanted: bool) -> Bar:
    """Make a bar that counts steps, starting from the step of the checkpoint.

    Closing erases the bar.
    """
    bar = tqdm(
        initial=stack.states[0].step,
        total=_n_steps(stack),
        # None: only on a terminal
        disable=None if wanted else True,
        bar_format=FORMAT,
        # The mean speed so far, evaluations included.
        smoothing=0,
        leave=False,
        dynamic_ncols=True,
    )
    update(bar, stack)
    return bar


def update(bar: Bar, stack: "Stack") -> None:
    """Show the epoch and the errors. Call this after each epoch and when replicas have ended."""
    if bar.disable:
        return
    spec, state = stack.replicas[0].spec, stack.states[0]
    n_replicas = len(stack.replicas)
    bar.total = _n_steps(stack)
    bar.set_description_str(spec.model if n_replicas == 1 else f"{n_replicas} {spec.model}", False)
    n_epochs = max(replica.recipe.epochs for replica in stack.replicas)
    text = f"epoch {min(state.epoch + 1, n_epochs)}/{n_epochs}"
    if evaluated := [state for state in stack.states if state.history]:
        last = _range([state.history[-1][4] for state in evaluated])
        best = _range([state.best_mae for state in evaluated])
        text += f", MAE {_selecting_rows(spec.protocol)} {last} (best {best})"
    bar.set_postfix_str(text, False)


def advance(bar: Bar, step: int) -> None:
    """Move the bar to `step`, counted over all epochs."""
    bar.update(step - bar.n)


def replaces_log_lines(bar: Bar) -> bool:
    """Return True if the user sees the bar on stdout, so that no line per epoch is needed."""
    return not bar.disable and sys.stdout.isatty()


def epoch_line(replica: "Replica", state: "State", n_together: int, rows_per_s: float) -> str:
    """Format a log line about the last epoch of one replica.

    Args:
        replica: The replica.
        state: Its progress.
        n_together: The number of replicas in its stack.
        rows_per_s: The training speed of the stack: rows of its batches per second.
    """
    spec, recipe = replica.spec, replica.recipe
    epoch, _, _, train_mae, mae, wall_s = state.history[-1]
    left_min = (recipe.epochs - state.epoch) * wall_s * n_together / (epoch + 1) / 60
    prefix = f"{spec.property}, {spec.recipe}, seed {spec.seed}: " if n_together > 1 else ""
    relative = "relative " * (len(spec.properties) > 1)
    return (
        f"{prefix}epoch {epoch + 1}/{recipe.epochs}  {relative}MAE train {train_mae:.4g}  "
        f"{_selecting_rows(spec.protocol)} {mae:.4g} (best {state.best_mae:.4g})  "
        f"{rows_per_s:,.0f} rows/s  at most {left_min:.1f} min left"
    )


def _selecting_rows(protocol: str) -> str:
    return "val" if protocol == "honest" else "test"


def _n_steps(stack: "Stack") -> int:
    return max(replica.recipe.epochs * replica.n_steps for replica in stack.replicas)


def _range(values: list[float]) -> str:
    low, high = (f"{value:.4g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
