"""RunFolder: the names of a run folder's files, and how they are written.

    run.json  history.csv  checkpoint/  model.safetensors  test_predictions.npz  error.json  result.json

`run.json` is written first and `result.json` last, atomically: nothing else means done.
"""

import contextlib
import csv
import dataclasses
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, remove_temporaries
from irnet_hpc.runs.lease import Leases, RunIsHeld
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.states import Cause

if TYPE_CHECKING:
    import numpy as np

# Columns of history.csv; val_mae is that of the rows that select, also where those are test rows.
HISTORY = ("epoch", "step", "lr", "train_mae", "val_mae", "seconds")
# Checkpoints alternate between two slots, so that a torn write costs one of them, not the run.
SLOTS = ("a", "b")
SUFFIXES = (".json", ".safetensors")


class RunFolder:
    """The folder of one run.

    Args:
        path: Where it is, or will be.
        leases: The leases of this process, which every write asks. Whoever only reads needs none.
    """

    def __init__(self, path: Path | str, leases: Leases | None = None) -> None:
        self.path = Path(path)
        self.leases = leases or Leases()

    def __str__(self) -> str:
        return str(self.path)

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def result_json(self) -> Path:
        return self.path / "result.json"

    @property
    def error_json(self) -> Path:
        return self.path / "error.json"

    @property
    def history_csv(self) -> Path:
        return self.path / "history.csv"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def parameters(self) -> Path:
        """The numbers that a classical model has learnt, if they can be kept as numbers."""
        return self.path / "parameters.safetensors"

    @property
    def test_predictions(self) -> Path:
        return self.path / "test_predictions.npz"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    # ------------------------------------------------------------------------------------ writing

    def is_done(self, key: str, force: bool = False) -> bool:
        """Return True if the folder holds the result of the run with this key.

        Raises:
            UserError: If it holds that of another recipe, pack or version, unless `force`.
        """
        if not self.result_json.exists():
            return False
        try:
            if read_result(self.result_json).key == key:
                return True
            problem = (
                f"{self.result_json} is stale: its recipe, pack or version differs from this run's"
            )
        except UserError as error:
            problem = str(error)
        if not force:
            raise UserError(f"{problem}; --force replaces it")
        return False

    def claim(self, key: str, force: bool = False) -> bool:
        """Acquire the lease of the run; return False if the run is done.

        Raises:
            RunIsHeld: If another process trains the run.
            UserError: As `is_done` does.
        """
        if self.is_done(key, force):
            return False
        self.leases.acquire(self.path)
        # Whoever held the lease until now may have finished.
        if self.is_done(key, force):
            self.release()
            return False
        return True

    def release(self) -> None:
        """Give the run back."""
        self.leases.release(self.path)

    def begin(self, facts: Mapping[str, object], attempt: Mapping[str, object]) -> list[dict]:
        """Write run.json, and remove what another run has left.

        Args:
            facts: The content but for the attempts; `key` tells this run from another.
            attempt: What is noted of this attempt, beside when it started.

        Returns:
            All attempts so far; the last is this one.
        """
        self.leases.acquire(self.path)  # unless `claim` has
        self.error_json.unlink(missing_ok=True)
        attempts = self._earlier_attempts(facts["key"])
        if not attempts:
            self.remove_checkpoints()
        self.result_json.unlink(missing_ok=True)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        attempts.append({"started": started, **attempt})
        self.write_json(self.run_json, {**facts, "attempts": attempts})
        return attempts

    def _earlier_attempts(self, key: object) -> list[dict]:
        """Read the attempts in run.json; none if it is another run's, or has no list of them."""
        with contextlib.suppress(FileNotFoundError, UserError, KeyError):
            earlier = read_json(self.run_json)
            if earlier["key"] == key:
                attempts = earlier["attempts"]
                if isinstance(attempts, list) and all(isinstance(a, dict) for a in attempts):
                    return attempts
        return []

    def write_error(self, message: str, cause: Cause = Cause.OTHER) -> None:
        """Write error.json, unless another process holds the run by now."""
        with contextlib.suppress(RunIsHeld):
            is_new = self.leases.acquire(self.path)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.write_json(self.error_json, {"error": message, "cause": cause, "time": now})
            if is_new:
                self.release()

    def write_history(self, rows: list[list]) -> None:
        """Start history.csv again with the rows that a checkpoint remembers."""
        with self.replacing(self.history_csv) as temporary:
            with temporary.open("w", newline="") as file:
                csv.writer(file).writerows([HISTORY, *rows])

    def append_history(self, row: list) -> None:
        """Append the row of an epoch to history.csv."""
        self.check()
        with self.history_csv.open("a", newline="") as file:
            csv.writer(file).writerow(row)

    def write_predictions(self, arrays: "Mapping[str, np.ndarray]") -> None:
        """Write test_predictions.npz: plain arrays, no pickle."""
        import numpy as np

        with self.replacing(self.test_predictions) as temporary:
            np.savez(temporary, **arrays)

    def write_result(self, result: RunResult) -> None:
        """Write result.json, then remove the checkpoints."""
        self.write_json(self.result_json, dataclasses.asdict(result))
        self.remove_checkpoints()

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of a network, and their folder once it is empty."""
        self.check()
        for name in (f"{slot}{suffix}" for slot in SLOTS for suffix in SUFFIXES):
            (self.checkpoint / name).unlink(missing_ok=True)
            remove_temporaries(self.checkpoint / name)
        with contextlib.suppress(OSError):
            self.checkpoint.rmdir()

    def check(self) -> None:
        """Raise LeaseLost if this process has held the run and lost it."""
        self.leases.check(self.path)

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Replace a file of the folder as files.replacing does, while the run is this process's."""
        with self.leases.replacing(path) as temporary:
            yield temporary

    def write_json(self, path: Path, value: object) -> None:
        """Write a JSON file of the folder, while the run is this process's."""
        self.leases.write_json(path, value)
