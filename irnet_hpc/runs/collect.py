"""Read and check every result.json below a folder, and note which runs have no result."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.errors import UserError
from irnet_hpc.runs.classical_grids import AS_NUMBERS, GRIDS
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.result import MAX_NUMBER, RunResult, read_result
from irnet_hpc.runs.spec import RunSpec, read_recipe, read_spec
from irnet_hpc.runs.state_names import GapState

# Numbers that may be null in a result.
MAY_BE_NONE = ("n_parameters", "val_mae", "fitted_rows")
NUMBERS = ("test_mae", "baseline_mae", "n_train", "n_val", "n_test", "device_hours", *MAY_BE_NONE)
# The fields that a result of several properties has for each property.
PER_PROPERTY = frozenset(
    [
        "unit",
        "test_mae",
        "test_rmse",
        "test_r2",
        "val_mae",
        "val_baseline_mae",  # absent from older results
        "baseline_mae",
        "n_train",
        "n_val",
        "n_test",
    ]
)


class FinishedRun(NamedTuple):
    """A run that has a result."""

    folder: Path
    spec: RunSpec
    result: RunResult
    # The names of all properties that the network predicts, joined by commas; None: only one.
    joint: str | None = None
    # The runs of all folds of one table, if they are put together (folds.py); then `folder` may not
    # exist, and each number of `result` is that of all folds. Empty: an ordinary run.
    folds: "tuple[FinishedRun, ...]" = ()

    @property
    def trained(self) -> RunSpec:
        """The specification of the training, with all properties that were trained together."""
        return dataclasses.replace(self.spec, property=self.joint) if self.joint else self.spec

    @property
    def split_identity(self) -> dict:
        """The split of the run's pack; empty if the pack does not state it."""
        split = self.result.pack_identity.get("split")
        return split if isinstance(split, dict) else {}

    @property
    def split(self) -> int | None:
        """The seed of the pack's split; None if a column of the source states the split."""
        seed = self.split_identity.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None

    @property
    def repetition(self) -> tuple[int, int]:
        """(split seed, seed), by which the runs of one cell differ."""
        return (self.split or 0, self.spec.seed)

    @property
    def n_trainings(self) -> int:
        """The number of trainings: one, or one for each fold."""
        return max(1, len(self.folds))

    @property
    def keeps_model(self) -> bool:
        """Return False if the model is not kept, as its result says, so that it cannot predict."""
        return (
            not self.spec.is_classical
            or self.spec.architecture in AS_NUMBERS
            or self.result.estimator_sha256 is not None
        )

    @property
    def uses_seed(self) -> bool:
        """Return False if the model gives the same result for every seed."""
        grid = GRIDS.get(self.spec.architecture)
        return grid is None or grid.uses_seed(self.result.fitted_rows or self.result.n_train)


class Gap(NamedTuple):
    """A run that is missing from a table, or that the table shows with a note."""

    state: GapState
    why: str = ""
    spec: RunSpec | None = None  # None: run.json does not state it


def collect_runs(results: Path | str) -> tuple[list[FinishedRun], dict[Path, Gap]]:
    """Read every result below a folder; the names of the folders in it do not matter.

    Args:
        results: The folder that train and sweep write their runs to.

    Returns:
        The finished runs in the order of their folders; and folder -> gap for each run folder
        whose result is missing or cannot be read.

    Raises:
        UserError: If `results` is not a folder.
    """
    results = Path(results)
    if not results.is_dir():
        raise UserError(
            f"{results} is not a folder; give the one that train and sweep write their runs to"
        )
    runs, gaps = [], {}
    for path, names in _folders(results):
        folder = RunFolder(path)
        if "result.json" in names:
            try:
                result = read_result(folder.result_json)
                spec = _checked_spec(path, result)
                # A result with fields that recipes no longer have is kept, and shown as stale.
                with contextlib.suppress(UserError):
                    # A shallow copy: the fields of a recipe are plain values.
                    result.recipe.update(vars(read_recipe(spec, result.recipe)))
                runs.append(FinishedRun(path, spec, result))
            except (UserError, OSError) as error:
                gaps[path] = Gap(GapState.UNREADABLE, str(error), folder.spec())
        elif "error.json" in names:
            failure = folder.error()
            gaps[path] = Gap(GapState.FAILED, failure.message if failure else "", folder.spec())
        elif "run.json" in names:
            gaps[path] = Gap(GapState.UNFINISHED, spec=folder.spec())
    return runs, gaps


def _folders(top: Path) -> Iterator[tuple[Path, set[str]]]:
    """Yield each folder below `top`, in sorted order, with the names of its files.

    Symbolic links are followed, but each real folder is yielded only once.
    """
    seen: set[str] = set()
    real_of: dict[str, str] = {}
    for folder, below, names in os.walk(top, followlinks=True):
        parent, name = os.path.split(folder)
        # Only links are resolved, since that takes a call of the file system for each part.
        is_known = parent in real_of and not Path(folder).is_symlink()
        real = f"{real_of[parent]}/{name}" if is_known else os.path.realpath(folder)
        real_of[folder] = real
        below[:] = (
            [] if real in seen else sorted(name for name in below if not name.startswith("."))
        )
        if real not in seen:
            yield Path(folder), set(names)
        seen.add(real)


def _checked_spec(folder: Path, result: RunResult) -> RunSpec:
    """Return the specification of a result; raise UserError if its numbers are not plausible."""
    try:
        for name in NUMBERS:
            _check_number(name, getattr(result, name), may_be_none=name in MAY_BE_NONE)
        spec = read_spec(result.spec)
        _check_per_property(spec.properties, result.per_property)
        return spec
    except UserError as error:
        raise UserError(f"{folder / 'result.json'}: {error}") from None


def _check_per_property(names: Sequence[str], per_property: object) -> None:
    """Check that a result has numbers per property if, and only if, it has several properties."""
    if len(names) == 1 and per_property is None:
        return
    if not isinstance(per_property, dict) or len(names) == 1 or per_property.keys() != set(names):
        raise UserError(
            f"per_property must have the keys {', '.join(names)}, or be null for one property, "
            f"got {per_property!r:.80}"
        )
    for name, numbers in per_property.items():
        is_complete = (
            isinstance(numbers, dict) and numbers.keys() | {"val_baseline_mae"} == PER_PROPERTY
        )
        if not is_complete or not isinstance(numbers["unit"], str):
            raise UserError(
                f"per_property of {name} must have {', '.join(sorted(PER_PROPERTY))}, "
                f"got {numbers!r:.80}"
            )
        for field in PER_PROPERTY - {"unit", "test_r2"}:
            is_of_val = field in ("val_mae", "val_baseline_mae")
            _check_number(f"{field} of {name}", numbers.get(field), may_be_none=is_of_val)


def _check_number(name: str, value: object, may_be_none: bool) -> None:
    """Raise UserError unless a value is a number that is neither negative nor too large."""
    if value is None and may_be_none:
        return
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= MAX_NUMBER
    ):
        raise UserError(f"{name} must be a number that is not negative, got {value!r:.50}")


def one_a_property(run: FinishedRun) -> list[FinishedRun]:
    """Split a run with several properties into one run for each property.

    Each of these runs has the errors of its property, and an equal share of the device-hours.
    """
    names, result = run.spec.properties, run.result
    if len(names) == 1 or result.per_property is None:
        return [run]
    shared = {
        "optimism": None,
        "per_property": None,
        "device_hours": result.device_hours / len(names),
    }
    return [
        FinishedRun(
            run.folder,
            dataclasses.replace(run.spec, property=name),
            dataclasses.replace(result, **result.per_property[name] | shared),
            run.spec.property,
        )
        for name in names
    ]
