"""Orders that are computed ahead are those that would be computed at once."""

import numpy as np
import pytest
import torch

from irnet_hpc.train import orders
from irnet_hpc.train.dataset import epoch_order
from irnet_hpc.train.evaluation import rows_at_once


@pytest.mark.parametrize("ahead", [True, False])
def test_each_epoch_has_its_own_order_whoever_leaves_the_stack(ahead, monkeypatch):
    rows, computed = np.arange(10_000), []

    def counted(row, seed, epoch):
        computed.append((seed, epoch))
        return epoch_order(row, seed, epoch)

    monkeypatch.setattr(orders, "epoch_order", counted)
    made = orders.Orders(rows, ahead)
    # Seed 0 twice; seed 7 leaves after epoch 1; a resumed training goes on at another epoch.
    for epoch, seeds in ((0, [0, 7, 0]), (1, [0, 7, 0]), (2, [0]), (9, [0])):
        found = made.of(seeds, epoch, is_last=epoch == 9)
        assert list(found) == list(dict.fromkeys(seeds))
        for seed, order in found.items():
            assert np.array_equal(order, epoch_order(rows, seed, epoch))
    made.close()
    needed = {(0, 0), (7, 0), (0, 1), (7, 1), (0, 2), (0, 9)}
    # Ahead: none is computed twice, and of those that nobody takes none is of an epoch after the
    # last.
    assert needed <= set(computed) and len(set(computed)) == len(computed)
    assert set(computed) - needed <= ({(7, 2), (0, 3)} if ahead else set())


@pytest.mark.parametrize(
    ("batch", "device", "n_rows"),
    [
        (32, "cpu", 4096),
        (65_536, "cpu", 4096),
        (32, "cuda", 4096),
        (8192, "cuda", 8192),
        (65_536, "cuda", 32_768),
    ],
)
def test_a_gpu_evaluates_as_many_rows_at_once_as_it_trains_on(batch, device, n_rows):
    assert rows_at_once(batch, torch.device(device)) == n_rows
