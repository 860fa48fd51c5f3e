"""The learning rate over steps and epochs, against torch's own scheduler and by hand."""

import numpy as np
import pytest
import torch

from irnet_hpc.runs.recipes import RECIPES, resolve
from irnet_hpc.train.schedules import average_weight, learning_rate, plateau_factor


def test_one_cycle_rises_for_30_percent_and_ends_near_nothing():
    recipe = RECIPES["onecycle"]
    rates = np.array([learning_rate(recipe, step, 1000) for step in range(1000)])
    assert rates.argmax() == 300 and rates.max() == pytest.approx(recipe.learning_rate)
    assert rates[0] == pytest.approx(recipe.learning_rate / 25)
    assert rates[-1] < 2e-5 * recipe.learning_rate
    assert (np.diff(rates[:301]) > 0).all() and (np.diff(rates[300:]) < 0).all()


@pytest.mark.parametrize("threshold", [0.0, 0.004])
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_plateaus_are_those_of_torch_which_waits_an_epoch_longer(patience, threshold):
    """An error that falls, stays and jumps: 120 epochs, with equal values among them."""
    random = np.random.default_rng(0)
    maes = (np.exp(-np.arange(120) / 25) + random.normal(0, 0.02, 120)).round(2).tolist()
    recipe = resolve(
        {"name": "p", "base": "paper", "schedule": "plateau", "plateau_factor": 0.5}
        | {"plateau_patience": patience, "plateau_threshold": threshold}
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.learning_rate)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        factor=0.5,
        patience=patience - 1,
        threshold=threshold,
        threshold_mode="abs",
        eps=0,
    )
    for epoch, mae in enumerate(maes):
        theirs.step(mae)
        ours = learning_rate(recipe, 0, 1) * plateau_factor(recipe, maes[: epoch + 1])
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-12), epoch
    assert ours < recipe.learning_rate / 4


def test_ibrnet_reduces_the_rate_after_45_epochs_without_0_1_meV_of_progress():
    recipe = RECIPES["ibrnet"]
    assert (recipe.learning_rate, recipe.batch, recipe.loss, recipe.patience) == (
        1e-4,
        32,
        "mae",
        50,
    )
    flat = [0.1, *[0.09995] * 44]
    assert plateau_factor(recipe, flat) == 1
    assert plateau_factor(recipe, [*flat, 0.09995]) == 0.1
    assert plateau_factor(recipe, [*flat, 0.0998]) == 1
    assert plateau_factor(recipe, [0.1] * 91) == pytest.approx(0.01)


def test_other_schedules_know_no_plateau():
    assert all(plateau_factor(RECIPES[name], [0.1] * 1000) == 1 for name in ("paper", "onecycle"))


def test_the_average_takes_in_every_eighth_step_and_the_last_of_an_epoch():
    recipe = resolve({"name": "a", "base": "onecycle", "ema": 0.9})
    taken = {step: average_weight(recipe, step, 20) for step in range(40)}
    assert [step for step, weight in taken.items() if weight] == [7, 15, 19, 27, 35, 39]
    # (1 + n) / (10 + n) after n steps, until that is more than 0.9.
    assert taken[7] == pytest.approx(1 - (9 / 18) ** 8)
    assert taken[19] == pytest.approx(1 - (21 / 30) ** 4)
    late = average_weight(recipe, 1007, 1000)
    assert late == pytest.approx(1 - 0.9**8)


def test_without_an_average_the_last_step_of_an_epoch_replaces_the_weights():
    recipe = resolve({"name": "a", "base": "onecycle", "ema": 0.0})
    assert [average_weight(recipe, step, 4) for step in range(8)] == [0, 0, 0, 1, 0, 0, 0, 1]
