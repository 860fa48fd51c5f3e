"""Compute learning rates and weight decay from the recipe, the step and the errors so far.

To add a schedule, add a case to `learning_rate` and a name to CHOICES in runs/recipes.py.

All functions are pure, so a resumed run needs no further state.
"""

import math
from collections.abc import Sequence

from irnet_hpc.runs.recipes import Recipe

# The averaged weights are updated every EMA_STEPS steps, with the decay raised to that power, and
# at the end of an epoch.
EMA_STEPS = 8


def learning_rate(recipe: Recipe, step: int, n_steps: int) -> float:
    """Compute the learning rate of a step.

    Under `onecycle` (Smith and Topin 2018) the rate rises along a cosine over the first 30 % of the
    steps, from 1/25 of the recipe's rate to the full rate, then falls to 1e-5 of it.

    Args:
        recipe: The recipe, which states the schedule and the rate.
        step: The number of the step over all epochs, from 0 on.
        n_steps: The number of steps of the whole training.
    """
    if recipe.schedule in ("constant", "plateau"):
        return recipe.learning_rate
    assert recipe.schedule == "onecycle", recipe.schedule
    if step < 0.3 * n_steps:
        lowest, height = 1 / 25, step / (0.3 * n_steps)
    else:
        lowest, height = 1e-5, (n_steps - step) / (0.7 * n_steps)
    return recipe.learning_rate * (lowest + (1 - lowest) * (1 - math.cos(math.pi * height)) / 2)


def plateau_factor(recipe: Recipe, maes: Sequence[float]) -> float:
    """Compute the factor of the rate in the next epoch under schedule `plateau`.

    The rate is multiplied by `plateau_factor` after `plateau_patience` epochs in which the best MAE
    did not improve by more than `plateau_threshold`, and again after as many more. Keras, which the
    published iBRNet uses, counts in this way; torch's ReduceLROnPlateau counts one epoch more.

    Args:
        recipe: The recipe.
        maes: The selection MAE of each epoch so far.
    """
    if recipe.schedule != "plateau":
        return 1.0
    best, n_waited, n_reductions = math.inf, 0, 0
    for mae in maes:
        n_waited += 1
        if mae < best - recipe.plateau_threshold:
            best, n_waited = mae, 0
        elif n_waited == recipe.plateau_patience:
            n_reductions, n_waited = n_reductions + 1, 0
    return recipe.plateau_factor**n_reductions


def weight_decay(recipe: Recipe, n_steps: int) -> float:
    """Compute the weight decay of the optimiser if an epoch has `n_steps` steps.

    With weight decay, AdamW's weights are an exponential average of its updates, over
    1 / (rate * decay) steps. Counted in epochs, the best length of this average is about the same
    for any number of rows (Wang and Aitchison 2024, arXiv:2405.13698).
    """
    if not recipe.decay_epochs:
        return recipe.weight_decay
    return 1 / (recipe.learning_rate * n_steps * recipe.decay_epochs)


def average_weight(recipe: Recipe, step: int, n_steps: int) -> float:
    """Compute the share of the present weights in their average after a step; mostly 0.

    Without `ema`, the average becomes equal to the weights at the end of an epoch.

    Args:
        recipe: The recipe.
        step: The number of the step over all epochs, from 0 on.
        n_steps: The number of steps of an epoch.
    """
    i = step % n_steps
    if i < n_steps - 1 and not (recipe.ema and i % EMA_STEPS == EMA_STEPS - 1):
        return 0.0
    # A young average forgets faster.
    decay = min(recipe.ema, (2 + step) / (11 + step))
    return 1 - decay ** (i % EMA_STEPS + 1)
