"""Datasets: the order in which an epoch visits rows."""

import numpy as np

from irnet_hpc.train.dataset import SHUFFLED_ROWS, WINDOW_PIECES, epoch_order


def test_an_epoch_visits_every_row_once_in_an_order_of_seed_and_epoch_alone():
    row = np.sort(
        np.random.default_rng(0).permutation(3 * SHUFFLED_ROWS * WINDOW_PIECES)[
            : SHUFFLED_ROWS * WINDOW_PIECES * 2
        ]
    )
    orders = [epoch_order(row, seed, epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert all(np.array_equal(np.sort(order), np.arange(len(row))) for order in orders)
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2]) and not np.array_equal(orders[0], orders[3])


def test_an_epoch_reads_whole_chunks_window_by_window():
    """What makes streaming possible: the first window's rows come from WINDOW_PIECES chunks of the
    pack, and only them.
    """
    row = np.arange(4 * SHUFFLED_ROWS * WINDOW_PIECES)
    order = epoch_order(row, 0, 0)
    window = order[: SHUFFLED_ROWS * WINDOW_PIECES] // SHUFFLED_ROWS
    assert len(np.unique(window)) == WINDOW_PIECES
    assert np.abs(np.corrcoef(np.arange(1000), order[:1000])[0, 1]) < 0.2
