"""Read and write the folder of a run; only this file knows the names of the files in it.

    run.json  history.csv  checkpoint/  model.safetensors  test_predictions.npz  error.json
    result.json         and of a classical model parameters.safetensors  estimator.skops

`run.json` is written first, and `result.json` last and atomically. A run is done only if it has a
`result.json`. This module never imports torch, and imports numpy only to read or write arrays.
"""

import contextlib
import csv
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, remove_temporaries
from irnet_hpc.runs.lease import Leases, RunIsHeld, SeenLease, read_lease
from irnet_hpc.runs.predictions_file import read_arrays
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.spec import RunSpec, read_spec
from irnet_hpc.runs.state_names import Cause

if TYPE_CHECKING:
    import numpy as np

# Columns of history.csv; val_mae is the MAE on the rows that select, even if those are test rows.
HISTORY = ("epoch", "step", "lr", "train_mae", "val_mae", "seconds")
# Checkpoints alternate between two slots, so that a torn write costs one checkpoint, not the run.
SLOTS = ("a", "b")
SUFFIXES = (".json", ".safetensors")


@dataclasses.dataclass(frozen=True)
class RunError:
    """The content of error.json: why a run has no result."""

    message: str  # one line
    cause: Cause = Cause.OTHER
    time: float = float("inf")  # when it was written, in s since 1970; infinite if not stated
    log: str | None = None


class RunFolder:
    """The folder of one run.

    Args:
        path: The folder, which need not exist yet.
        leases: The leases of this process, which are checked before every write. Reading needs no
            lease.
    """

    def __init__(self, path: Path | str, leases: Leases | None = None) -> None:
        self.path = path if isinstance(path, Path) else Path(path)
        self._leases = leases

    @functools.cached_property
    def leases(self) -> Leases:
        """The leases that are checked before every write."""
        return self._leases or Leases()  # made late, since tables read a thousand folders

    def __str__(self) -> str:
        return str(self.path)

    @property
    def run_json(self) -> Path:
        """The specification, recipe, key and attempts; the file that is written first."""
        return self.path / "run.json"

    @property
    def result_json(self) -> Path:
        """The result; the file that is written last."""
        return self.path / "result.json"

    @property
    def error_json(self) -> Path:
        """The file that says why there is no result."""
        return self.path / "error.json"

    @property
    def history_csv(self) -> Path:
        """The history of a network's training, one line per epoch."""
        return self.path / "history.csv"

    @property
    def model(self) -> Path:
        """The trained network."""
        return self.path / "model.safetensors"

    @property
    def parameters(self) -> Path:
        """The scaling of a classical model, and what it has learnt if that is plain numbers."""
        return self.path / "parameters.safetensors"

    @property
    def estimator(self) -> Path:
        """The fitted trees or support vectors of a classical model."""
        return self.path / "estimator.skops"

    @property
    def test_predictions(self) -> Path:
        """Targets and predictions of the test rows."""
        return self.path / "test_predictions.npz"

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoints from which an interrupted training is resumed."""
        return self.path / "checkpoint"

    # ------------------------------------------------------------------------------------ reading

    def names(self) -> frozenset[str]:
        """List the names in the folder with one system call; empty if there is no folder."""
        return names_in(self.path)

    def spec(self) -> RunSpec | None:
        """Read the specification from run.json; None if it is missing or cannot be read."""
        try:
            return read_spec(read_json(self.run_json)["spec"])
        except (UserError, OSError, KeyError, TypeError, AttributeError, ValueError):
            return None

    def result(self) -> RunResult | None:
        """Read the result; None if there is no result.json.

        Raises:
            UserError: If result.json is damaged, or was written by another version.
        """
        try:
            result = read_result(self.result_json)
        except FileNotFoundError:
            return None
        if result.test_mae is None or result.device_hours is None:
            raise UserError(f"{self.result_json}: test_mae and device_hours must be numbers")
        return result

    def error(self, since: float | None = None) -> RunError | None:
        """Read error.json, which says why there is no result.

        Args:
            since: A time in s since 1970; an error that was written before this time is ignored.

        Returns:
            The error, or None if there is no error.json. If error.json cannot be read, the returned
            error says so.
        """
        try:
            content = read_json(self.error_json)
        except FileNotFoundError:
            return None
        except UserError as unreadable:
            return RunError(str(unreadable))
        causes = [cause for cause in Cause if cause == content.get("cause")]
        error = RunError(
            message=str(content.get("error")),
            cause=causes[0] if causes else Cause.OTHER,  # older files state no cause
            time=seconds_since_1970(content.get("time")),
            log=str(content["log"]) if content.get("log") else None,
        )
        return None if since is not None and error.time < since else error

    def history(self) -> list[dict[str, str]]:
        """Read the lines of history.csv, each as column -> text; empty if there is no file."""
        try:
            with self.history_csv.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{self.history_csv} cannot be read: {error}") from None

    def predictions(self, property_name: str | None = None) -> dict[str, "np.ndarray"]:
        """Read the targets and predictions of the test rows, as `read_arrays` does."""
        return read_arrays(self.test_predictions, property_name)

    def has_checkpoint(self, key: str | None = None) -> bool:
        """Return True if there is a checkpoint of the run with this key (None: of any run)."""
        if not any(name.endswith(".json") for name in names_in(self.checkpoint)):
            return False
        try:
            return key is None or read_json(self.run_json).get("key") == key
        except (UserError, FileNotFoundError):
            return False

    def lease(self) -> SeenLease | None:
        """Read the lease, even an expired one; None if there is no lease."""
        return read_lease(self.path)

    # ------------------------------------------------------------------------------------ writing

    def is_done(self, key: str, force: bool = False) -> bool:
        """Return True if the folder holds the result of the run with this key.

        Raises:
            UserError: If the folder holds a result of another recipe, pack or version, and `force`
                is False.
        """
        if not self.result_json.exists():
            return False
        try:
            result = read_result(self.result_json)
            if result.key == key and not result.has_earlier_fit:
                return True
            problem = (
                f"{self.result_json} is stale: its recipe, pack or version differs from this run's"
            )
        except UserError as error:
            problem = str(error)
        if not force:
            raise UserError(
                f"{problem}; --force replaces it; a recipe with another name keeps both"
            )
        return False

    def claim(self, key: str, force: bool = False) -> bool:
        """Acquire the lease of the run, unless the run is done. Returns False if it is done.

        Raises:
            RunIsHeld: If another process trains the run.
            UserError: As `is_done`.
        """
        if self.is_done(key, force):
            return False
        self.leases.acquire(self.path)
        # The former holder of the lease may have finished the run.
        if self.is_done(key, force):
            self.release()
            return False
        return True

    def release(self) -> None:
        """Release the lease of the run."""
        self.leases.release(self.path)

    def begin(self, facts: Mapping[str, object], attempt: Mapping[str, object]) -> list[dict]:
        """Write run.json, and remove what another run left in the folder.

        Args:
            facts: The content of run.json without the attempts. If the folder has a run with
                another `key`, its attempts and checkpoints are dropped.
            attempt: The facts that run.json states about this attempt, besides the time of its
                start.

        Returns:
            All attempts so far, of which the last is this one.
        """
        self.leases.acquire(self.path)  # unless `claim` has acquired it already
        self.error_json.unlink(missing_ok=True)
        attempts = self.earlier_attempts(facts["key"])
        if not attempts:
            self.remove_checkpoints()
        self.result_json.unlink(missing_ok=True)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        attempts.append({"started": started, **attempt})
        self.write_json(self.run_json, {**facts, "attempts": attempts})
        return attempts

    def earlier_attempts(self, key: object) -> list[dict]:
        """Read the attempts in run.json; empty if run.json belongs to another run or lists none."""
        with contextlib.suppress(FileNotFoundError, UserError, KeyError):
            earlier = read_json(self.run_json)
            if earlier["key"] == key:
                attempts = earlier["attempts"]
                if isinstance(attempts, list) and all(isinstance(a, dict) for a in attempts):
                    return attempts
        return []

    def write_error(self, message: str, cause: Cause = Cause.OTHER) -> None:
        """Write error.json, unless another process now holds the run."""
        with contextlib.suppress(RunIsHeld):
            is_new = self.leases.acquire(self.path)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.write_json(self.error_json, {"error": message, "cause": cause, "time": now})
            if is_new:
                self.release()

    def write_history(self, rows: list[list]) -> None:
        """Rewrite history.csv with the rows that are stored in a checkpoint."""
        with (
            self.replacing(self.history_csv) as temporary,
            temporary.open("w", newline="") as file,
        ):
            csv.writer(file).writerows([HISTORY, *rows])

    def append_history(self, row: list) -> None:
        """Append the row of an epoch to history.csv."""
        self.check()
        with self.history_csv.open("a", newline="") as file:
            csv.writer(file).writerow(row)

    def write_predictions(self, arrays: "Mapping[str, np.ndarray]") -> None:
        """Write test_predictions.npz, which holds plain arrays and no pickles."""
        import numpy as np

        with self.replacing(self.test_predictions) as temporary:
            np.savez(temporary, **dict(arrays))  # type: ignore[arg-type]  # a keyword of numpy's

    def write_result(self, result: RunResult) -> None:
        """Write result.json, then remove the checkpoints."""
        self.write_json(self.result_json, dataclasses.asdict(result))
        self.remove_checkpoints()

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of a network, then their folder if it is empty."""
        self.check()
        for name in (f"{slot}{suffix}" for slot in SLOTS for suffix in SUFFIXES):
            (self.checkpoint / name).unlink(missing_ok=True)
            remove_temporaries(self.checkpoint / name)
        with contextlib.suppress(OSError):
            self.checkpoint.rmdir()

    def check(self) -> None:
        """Raise LeaseLost if this process held the lease of the run and has lost it."""
        self.leases.check(self.path)

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path, and rename it to `path` if this process still holds the run."""
        with self.leases.replacing(path) as temporary:
            yield temporary

    def write_json(self, path: Path, value: object) -> None:
        """Write a JSON file into the folder, but only if this process still holds the run."""
        self.leases.write_json(path, value)


def seconds_since_1970(text: object) -> float:
    """Convert an ISO time to seconds since 1970; infinity for any other text."""
    try:
        return datetime.fromisoformat(text).timestamp()  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("inf")


def names_in(folder: Path | str) -> frozenset[str]:
    """List the names in a folder with one system call; empty if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
