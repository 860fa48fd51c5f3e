"""Compare the predictions that runs have left on their test rows.

A file that is missing, unreadable, or of other rows than its neighbours' costs a number and a note,
never the tables.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.predictions_file import ARRAYS, read_arrays

if TYPE_CHECKING:
    import numpy as np

FILE = "test_predictions.npz"


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """One split's test rows of one property, and what each run has predicted for them."""

    formula: "np.ndarray"  # (n_rows,) int: the same number is the same formula
    target: "np.ndarray"  # (n_rows,) in the property's unit
    predictions: dict[Path, "np.ndarray"]  # folder of a run -> (n_rows,)

    def has_the_rows_of(self, other: "SplitRows") -> bool:
        import numpy as np

        return np.array_equal(self.formula, other.formula) and np.array_equal(
            self.target, other.target
        )

    def errors(self, runs: Iterable[FinishedRun]) -> "np.ndarray":
        """Absolute errors (n_runs, n_rows) of those runs that are here."""
        import numpy as np

        found = [self.predictions[run.folder] for run in runs if run.folder in self.predictions]
        return np.abs(np.array(found).reshape(-1, len(self.target)) - self.target)


def read_rows(
    runs: Iterable[FinishedRun], problems: dict[Path, str]
) -> dict[int | None, SplitRows]:
    """Split -> its rows, of runs on one property of one pack. `problems` gets a sentence for each run that is left out."""
    import numpy as np

    first, rows = {}, {}
    for run in runs:
        try:
            arrays = read_predictions(run)
        except UserError as error:
            problems[run.folder] = str(error)
            continue
        labels = [arrays[name] for name in ARRAYS[:3]]
        known = first.setdefault(run.split, labels)
        if not all(map(np.array_equal, known, labels)):
            problems[run.folder] = (
                f"{run.folder / FILE} is of other test rows than those of the runs beside it"
            )
            continue
        if run.split not in rows:
            rows[run.split] = SplitRows(np.unique(labels[1], return_inverse=True)[1], labels[2], {})
        rows[run.split].predictions[run.folder] = arrays["prediction"]
    return rows


def by_split(
    runs: Iterable[FinishedRun], rows: dict[int | None, SplitRows]
) -> dict[int | None, list[FinishedRun]]:
    """The runs whose predictions were read."""
    found: dict[int | None, list[FinishedRun]] = {}
    for run in runs:
        if run.split in rows and run.folder in rows[run.split].predictions:
            found.setdefault(run.split, []).append(run)
    return found


def pools_of(
    splits: Iterable[int | None], rows: dict[int | None, SplitRows]
) -> list[list[int | None]]:
    """Splits by their test rows. Where an element is held out, the seed of the split moves train and val alone: such splits
    are several runs on one draw of test rows, which they must not pass off as several."""
    pools: list[list[int | None]] = []
    for split in splits:
        same = next((pool for pool in pools if rows[pool[0]].has_the_rows_of(rows[split])), None)
        if same is None:
            pools.append([split])
        else:
            same.append(split)
    return pools


def read_predictions(run: FinishedRun) -> dict[str, "np.ndarray"]:
    """Read the predictions of a run, and check that they are those of its result.

    Args:
        run: The run; of several properties one.

    Returns:
        The arrays of `predictions_file.read_arrays`.

    Raises:
        UserError: If they cannot be read, or their MAE is not that of result.json.
    """
    import numpy as np

    path = run.folder / FILE
    arrays = read_arrays(path, run.spec.property if run.joint else None)
    mae = float(np.abs(arrays["prediction"].astype(float) - arrays["target"]).mean())
    if not np.isclose(mae, run.result.test_mae, rtol=1e-5):
        raise UserError(
            f"{path} is not that of result.json: MAE {mae:g} and {run.result.test_mae:g}"
        )
    return arrays
