"""Compare the predictions of runs on their test rows.

If a file is missing or unreadable, or its rows differ from those of the other runs, the tables are
still made: they lack a number and have a note.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.predictions_file import ARRAYS, read_arrays

if TYPE_CHECKING:
    import numpy as np


FILE = "test_predictions.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledRows:
    """The test rows of one pack that report one property, with their targets."""

    material_id: "np.ndarray"  # (n_rows,) str
    formula: "np.ndarray"  # (n_rows,) str
    target: "np.ndarray"  # (n_rows,) in the property's unit

    def is_same(self, other: "LabelledRows") -> bool:
        """Return True if all rows are the same, in the same order."""
        import numpy as np

        return self is other or all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name))
            for field in dataclasses.fields(self)
        )

    @functools.cached_property
    def formula_number(self) -> "np.ndarray":
        """A number for each row's formula, (n_rows,) int; equal formulas have equal numbers."""
        import numpy as np

        return np.unique(self.formula, return_inverse=True)[1]


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """The test rows of one split, and each run's predictions for these rows."""

    rows: LabelledRows
    predictions: dict[Path, "np.ndarray"]  # folder of a run -> (n_rows,)

    def shares_rows_with(self, other: "SplitRows") -> bool:
        """Return True if both have the same targets, and equal formulas in the same rows."""
        import numpy as np

        return self.rows is other.rows or (
            np.array_equal(self.rows.formula_number, other.rows.formula_number)
            and np.array_equal(self.rows.target, other.rows.target)
        )

    def errors(self, runs: Iterable[FinishedRun]) -> "np.ndarray":
        """Return the absolute errors, (n_runs, n_rows), of the runs whose predictions were read."""
        import numpy as np

        known = [self.predictions[run.folder] for run in runs if run.folder in self.predictions]
        return np.abs(np.array(known).reshape(-1, len(self.rows.target)) - self.rows.target)


# Seed of a pack's split (None if the split has no seed) -> the rows of this split.
Splits = dict[int | None, SplitRows]


class Predictions:
    """The predictions of runs.

    Each file is read once; `problems` has the reason if one is unusable.

    Runs of one split share the arrays of their test rows, so each further run needs memory only for
    its predictions.
    """

    def __init__(self) -> None:
        self.problems: dict[Path, str] = {}  # folder of a run -> sentence
        self._read: dict[tuple[Path, str], tuple[LabelledRows, np.ndarray] | None] = {}
        self._known_rows: dict[bytes, LabelledRows] = {}

    def read(self, run: FinishedRun) -> "tuple[LabelledRows, np.ndarray] | None":
        """Return a run's test rows and predictions, (n_rows,); None if they cannot be used."""
        key = run.folder, run.spec.property
        if key not in self._read:
            try:
                arrays = read_predictions(run)
                self._read[key] = self._shared_rows(arrays), arrays["prediction"]
            except UserError as error:
                self.problems[run.folder] = str(error)
                self._read[key] = None
        return self._read[key]

    def _shared_rows(self, arrays: dict[str, "np.ndarray"]) -> LabelledRows:
        """Return the test rows in `arrays`, or to save memory the equal rows of an earlier run."""
        digest = hashlib.blake2b()
        for name in ARRAYS[:3]:
            digest.update(f"{arrays[name].dtype} {arrays[name].shape}".encode())
            digest.update(arrays[name].tobytes())
        return self._known_rows.setdefault(
            digest.digest(), LabelledRows(*(arrays[name] for name in ARRAYS[:3]))
        )

    def by_split(self, runs: Iterable[FinishedRun]) -> Splits:
        """Map each split to its test rows and the predictions for them.

        Args:
            runs: The runs on one property of one pack. A run is left out if its rows differ from
                those of the first run of its split.
        """
        splits: Splits = {}
        for run in runs:
            if (found := self.read(run)) is None:
                continue
            rows, predictions = found
            split = splits.setdefault(run.split, SplitRows(rows, {}))
            if split.rows.is_same(rows):
                split.predictions[run.folder] = predictions
            else:
                self.problems[run.folder] = (
                    f"{run.folder / FILE} has test rows that differ from those of the other runs "
                    "of this split"
                )
        return splits


def readable_runs(
    runs: Iterable[FinishedRun], splits: Splits
) -> dict[int | None, list[FinishedRun]]:
    """Group by split those runs whose predictions could be read."""
    readable: dict[int | None, list[FinishedRun]] = {}
    for run in runs:
        if run.split in splits and run.folder in splits[run.split].predictions:
            readable.setdefault(run.split, []).append(run)
    return readable


def pool_splits(numbers: Iterable[int | None], splits: Splits) -> list[list[int | None]]:
    """Group the splits that have the same test rows.

    If an element is held out, the seed of the split changes only train and val. Several runs on
    such splits have the same test rows, so their splits must count as one and not as several.
    """
    pools: list[list[int | None]] = []
    for number in numbers:
        rows = splits[number]
        same = next((pool for pool in pools if splits[pool[0]].shares_rows_with(rows)), None)
        if same is None:
            pools.append([number])
        else:
            same.append(number)
    return pools


def has_predictions(run: FinishedRun) -> bool:
    """Return True if a run has a file of predictions, which may be unreadable."""
    return all((one.folder / FILE).exists() for one in run.folds or (run,))


def _read_folds(folds: Sequence[FinishedRun]) -> dict[str, "np.ndarray"]:
    """Read the predictions of all folds, in an order that does not depend on the folds."""
    import numpy as np

    parts = [read_predictions(fold) for fold in folds]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in ARRAYS}
    lengths = [len(part["target"]) for part in parts]
    arrays["fold"] = np.repeat(np.arange(len(parts)), lengths)
    order = np.lexsort((arrays["target"], arrays["material_id"], arrays["formula"]))
    return {name: array[order] for name, array in arrays.items()}


def read_predictions(run: FinishedRun) -> dict[str, "np.ndarray"]:
    """Read the predictions of a run, and check that their MAE is that of its result.

    Args:
        run: The run of one property, as `one_a_property` gives it.

    Returns:
        The arrays that `predictions_file.read_arrays` returns. If folds were put together, the rows
        of all of them, sorted by formula, material and target, and `fold`, (n_rows,) int: the fold
        in which each row was test.

    Raises:
        UserError: If the file cannot be read, or its MAE is not that of result.json.
    """
    if run.folds:
        return _read_folds(run.folds)
    path = run.folder / FILE
    if not has_predictions(run):  # a report of runs without predictions needs no numpy
        raise UserError(f"{path} is missing")
    import numpy as np

    arrays = read_arrays(path, run.spec.property if run.joint else None)
    mae = float(np.abs(arrays["prediction"].astype(float) - arrays["target"]).mean())
    if not np.isclose(mae, run.result.test_mae, rtol=1e-5):
        raise UserError(
            f"{path} does not belong to result.json: its MAE is {mae:g}, "
            f"not {run.result.test_mae:g}"
        )
    return arrays
