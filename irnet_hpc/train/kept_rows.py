"""Keep the loaded rows of a pack between the trainings of one process.

Only a process that trains one cell after the other keeps rows (trainer.py). The command `train` and
the library load them anew, since their caller may need the memory.
"""

import gc
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irnet_hpc.train.dataset import Dataset

# The datasets that are kept at once: those of a few properties or scalings of one pack.
MAX_KEPT = 4


class KeptRows:
    """The datasets that were loaded last, all of one pack.

    A dataset is never changed once it is loaded, so that trainings may share it.
    """

    def __init__(self) -> None:
        self._pack: Hashable = None
        self._datasets: dict[Hashable, Dataset] = {}

    def get(self, pack: Hashable, key: Hashable, load: Callable[[], "Dataset"]) -> "Dataset":
        """Return the dataset of a key, and load it if it is not kept.

        Args:
            pack: Identifies the content of the pack. Rows of any other pack are dropped.
            key: Everything else on which the dataset depends.
            load: Loads the dataset.

        Returns:
            The dataset.
        """
        if pack != self._pack:
            self.drop()
            self._pack = pack
        # The last one is the one that was used last.
        data = self._datasets.pop(key, None) or load()
        self._datasets[key] = data
        while len(self._datasets) > MAX_KEPT:
            del self._datasets[next(iter(self._datasets))]
        return data

    def drop(self) -> bool:
        """Drop all rows, for example if memory is short. Returns False if there were none."""
        if not self._datasets:
            return False
        self._datasets.clear()
        gc.collect()
        return True


_kept: KeptRows | None = None


def keep_rows() -> None:
    """Keep rows in this process from now on."""
    global _kept
    _kept = _kept or KeptRows()


def kept_rows() -> KeptRows | None:
    """Return the rows that this process keeps; None if it keeps none."""
    return _kept
