"""Compute the order of an epoch's rows, on a GPU while the epoch before it is trained."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from irnet_hpc.train.dataset import epoch_order


class Orders:
    """The orders in which epochs visit the training rows.

    Args:
        rows: The numbers of the training rows in the pack (n_rows,), ascending.
        ahead: True to compute the orders of the next epoch in a thread. A GPU would be idle
            meanwhile; on a CPU all cores are at work already.
    """

    def __init__(self, rows: np.ndarray, ahead: bool) -> None:
        self.rows = rows
        self.thread = ThreadPoolExecutor(1, "orders") if ahead else None
        # (seed, epoch) -> order, of the next epoch
        self.coming: dict[tuple[int, int], Future[np.ndarray]] = {}

    def of(self, seeds: Sequence[int], epoch: int, is_last: bool) -> dict[int, np.ndarray]:
        """Return the order (n_rows,) of each seed, as `dataset.epoch_order` computes it.

        Args:
            seeds: The seeds, some of which may be equal.
            epoch: The number of the epoch, from 0 on.
            is_last: True if no epoch follows.
        """
        coming, self.coming = self.coming, {}
        orders = {
            seed: coming[seed, epoch].result()
            if (seed, epoch) in coming
            else epoch_order(self.rows, seed, epoch)
            for seed in dict.fromkeys(seeds)
        }
        if self.thread is not None and not is_last:
            self.coming = {
                (seed, epoch + 1): self.thread.submit(epoch_order, self.rows, seed, epoch + 1)
                for seed in orders
            }
        return orders

    def close(self) -> None:
        """End the thread, after the order that it computes."""
        if self.thread is not None:
            self.thread.shutdown(cancel_futures=True)
