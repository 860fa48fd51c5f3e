"""The predictions that runs have left on their test rows, read where they are wanted.

What is missing, unreadable, or of other rows than its neighbours' costs a number and a note, never the tables.
"""

import dataclasses
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import Run

if TYPE_CHECKING:
    import numpy as np


FILE = "test_predictions.npz"
ARRAYS = ("material_id", "formula", "target", "prediction")
MOST_UNPACKED = 50  # ours are not compressed; numpy's own compression of them gives a fifth
FREELY_UNPACKED = 2**26  # bytes, whatever the file's size
UNREADABLE = (  # what zipfile and numpy raise of a file that is none of ours
    *(
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        RuntimeError,
        MemoryError,
    ),
    *(SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


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

    def errors(self, runs: Iterable[Run]) -> "np.ndarray":
        """Absolute errors (n_runs, n_rows) of those runs that are here."""
        import numpy as np

        found = [self.predictions[run.folder] for run in runs if run.folder in self.predictions]
        return np.abs(np.array(found).reshape(-1, len(self.target)) - self.target)


def read_rows(runs: Iterable[Run], problems: dict[Path, str]) -> dict[int | None, SplitRows]:
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


def by_split(runs: Iterable[Run], rows: dict[int | None, SplitRows]) -> dict[int | None, list[Run]]:
    """The runs whose predictions were read."""
    found: dict[int | None, list[Run]] = {}
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


def read_predictions(run: Run) -> dict[str, "np.ndarray"]:
    """The arrays of a run's file. Raises UserError where they are not all there, or are not those of its result."""
    import numpy as np

    path = run.folder / FILE
    try:
        _check_bytes(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {
                name: np.asarray(file[name]) for name in ARRAYS
            }  # of what is no array numpy gives the bytes
            arrays = (
                _of_one_property(arrays, file["property"], run.spec.property)
                if run.joint
                else arrays
            )
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or any(array.ndim != 1 for array in arrays.values()):
        raise UserError(
            f"{path} must hold arrays of one dimension and one length, however: {sorted(shapes)}"
        )
    numbers = [arrays[name] for name in ("target", "prediction")]
    if not all(
        array.dtype.kind == "f" and len(array) and np.isfinite(array).all() for array in numbers
    ):
        raise UserError(f"{path} must hold finite targets and predictions")
    mae = float(np.abs(numbers[1].astype(float) - numbers[0]).mean())
    if not np.isclose(mae, run.result.test_mae, rtol=1e-5):
        raise UserError(
            f"{path} is not that of result.json: MAE {mae:g} and {run.result.test_mae:g}"
        )
    return arrays


def _check_bytes(path: Path) -> None:
    """Raises ValueError where a file is made to fill the memory, BadZipFile where a checksum of it fails: numpy looks at that
    last, after it has read what is damaged."""
    with zipfile.ZipFile(path) as file:
        n_bytes = sum(member.file_size for member in file.infolist())
        if n_bytes > max(FREELY_UNPACKED, MOST_UNPACKED * path.stat().st_size):
            raise ValueError(
                f"it unpacks to {n_bytes / 2**20:,.0f} MiB, more than {MOST_UNPACKED} times its size"
            )
        if damaged := file.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged!r} fails")


def _of_one_property(
    arrays: dict[str, "np.ndarray"], names: "np.ndarray", name: str
) -> dict[str, "np.ndarray"]:
    """Of a network of several properties, whose targets are (n_rows, n_properties): one, on the rows that report it."""
    import numpy as np

    column = names.tolist().index(name)
    arrays = arrays | {label: arrays[label][:, column] for label in ("target", "prediction")}
    reported = ~np.isnan(arrays["target"])
    return {label: array[reported] for label, array in arrays.items()}
