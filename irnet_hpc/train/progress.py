"""The bar of a training: which epoch, how good, how long at most; shown by rank 0, on a terminal only.

Anywhere else (a log, a pipe, ranks under a launcher) there is none, and the lines of the epochs are what is read.
"""

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from irnet_hpc.train.stack import Stack


FORMAT = "{desc}: {percentage:3.0f}%|{bar}| at most {remaining} left{postfix}"  # tqdm puts a comma before the last


def bar_of(stack: "Stack", wanted: bool) -> tqdm:
    """It counts steps, from where a checkpoint left off. Gone from the screen when closed: the result's line stays."""
    bar = tqdm(
        initial=stack.states[0].step,
        total=_n_steps(stack),
        disable=None if wanted else True,  # None: only on a terminal
        bar_format=FORMAT,
        smoothing=0,  # the mean speed so far, evaluations included
        leave=False,
        dynamic_ncols=True,
    )
    tell(bar, stack)
    return bar


def tell(bar: tqdm, stack: "Stack") -> None:
    """Say where the stack is; at an epoch's end, and when replicas have left it."""
    if bar.disable:
        return
    spec, state = stack.replicas[0].spec, stack.states[0]
    bar.total = _n_steps(stack)
    bar.set_description_str(
        spec.model if len(stack.replicas) == 1 else f"{len(stack.replicas)} {spec.model}", False
    )
    n_epochs = max(replica.recipe.epochs for replica in stack.replicas)
    text = f"epoch {min(state.epoch + 1, n_epochs)}/{n_epochs}"
    if seen := [one for one in stack.states if one.history]:
        role = "val" if spec.protocol == "honest" else "test"
        last, best = [one.history[-1][4] for one in seen], [one.best_mae for one in seen]
        text += f", MAE {role} {_between(last)} (best {_between(best)})"
    bar.set_postfix_str(text, False)


def goes_on(bar: tqdm, step: int) -> None:
    """So many steps are done, over all epochs."""
    bar.update(step - bar.n)


def stands_for_lines(bar: tqdm) -> bool:
    """Whether who would read the lines of the epochs sees the bar instead."""
    return not bar.disable and sys.stdout.isatty()


def _n_steps(stack: "Stack") -> int:
    return max(replica.recipe.epochs * replica.n_steps for replica in stack.replicas)


def _between(values: list[float]) -> str:
    low, high = (f"{value:.4g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
