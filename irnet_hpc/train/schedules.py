"""Learning rate and weight decay: pure functions of the recipe, the step and the errors so far; a resumed run needs no more."""

import math
from collections.abc import Sequence

from irnet_hpc.runs.recipes import Recipe


def learning_rate(recipe: Recipe, step: int, n_steps: int) -> float:
    """One cycle (Smith and Topin 2018): cosine from 1/25 up to the rate over 30 % of the steps, then down to 1e-5 of it."""
    if recipe.schedule != "onecycle":
        return recipe.learning_rate
    rising = step < 0.3 * n_steps
    low, part = (
        (1 / 25, step / (0.3 * n_steps)) if rising else (1e-5, (n_steps - step) / (0.7 * n_steps))
    )
    return recipe.learning_rate * (low + (1 - low) * (1 - math.cos(math.pi * part)) / 2)


def plateau_factor(recipe: Recipe, maes: Sequence[float]) -> float:
    """What schedule `plateau` multiplies the rate with in the epoch after those of which `maes` are the selection MAEs.

    The rate falls by `plateau_factor` after `plateau_patience` epochs that were not better, by more than
    `plateau_threshold`, than the best before them or, once it has fallen, after as many again. So counts Keras, in which
    iBRNet is published; torch's ReduceLROnPlateau counts one epoch more.
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
    """Of the optimiser, for epochs of `n_steps`.

    AdamW's weights are an exponential average of its updates that reaches 1 / (rate x decay) steps back; the length that is
    best is about the same number of epochs for any number of rows (Wang and Aitchison 2024, arXiv:2405.13698).
    """
    if not recipe.decay_epochs:
        return recipe.weight_decay
    return 1 / (recipe.learning_rate * n_steps * recipe.decay_epochs)
