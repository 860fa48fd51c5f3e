"""Evaluation: what the choice of an epoch by test rows flatters."""

import numpy as np

from irnet_hpc.train.checkpoint import State
from irnet_hpc.train.evaluation import optimism, select_halves


def test_the_optimism_is_what_the_other_half_says_of_the_epoch_that_a_half_chose():
    """Four rows, two epochs; by the permutation of seed 0 the halves are whichever they are: worked
    out for both.
    """
    first = np.random.Generator(np.random.Philox(key=[0, 2**32])).permutation(4) < 2
    errors = [
        np.where(first, 1.0, 8.0),
        np.where(first, 2.0, 4.0),
    ]  # half one chooses epoch 0, half two epoch 1
    state = State()
    for epoch in errors:
        select_halves(state.halves, epoch, seed=0)
    assert state.halves == [[1.0, 8.0], [4.0, 2.0]]
    assert optimism(state.halves) == ((8 - 1) + (2 - 4)) / 2
    assert optimism(State().halves) is None
