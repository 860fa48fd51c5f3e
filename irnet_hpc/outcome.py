"""What came of the cells that a command was to train, for a program: read from the run folders, where it is on record."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs import RunResult, RunSpec, read_result

# The words of a sweep's ledger, the worst of several cells first. running: by another process, which holds the run.
STATES = ("failed", "preempted", "running", "done")
OF_RESULT = (  # errors in `unit`, on the test rows unless the name says otherwise
    *("unit", "test_mae", "test_rmse", "test_r2", "val_mae", "baseline_mae", "selected_on", "epochs", "best_epoch"),
    *("n_train", "n_val", "n_test", "n_parameters", "per_property"),
)


def outcome_of(
    runs: Sequence[tuple[RunSpec, str, Path]],
    new: Collection[Path],
    elsewhere: Mapping[Path, str],
    seconds: float,
    next_step: str,
) -> dict:
    """`runs`: specification, key and folder of each cell. `new`: those that this command trained; `elsewhere`: the sentence
    for each that another process has."""
    found = [_run(spec, key, path, path in new, elsewhere.get(path)) for spec, key, path in runs]
    state = next(state for state in STATES if any(run["state"] == state for run in found))
    return {"state": state, "seconds": round(seconds, 3), "next": next_step, "runs": found}


def _run(spec: RunSpec, key: str, path: Path, is_new: bool, refused: str | None) -> dict:
    result = _result(path, key)
    error = refused or (None if result else _error(path))
    state = "done" if result else "running" if refused else "failed" if error else "preempted"
    of_result = {name: result and getattr(result, name) for name in OF_RESULT}
    return {
        "folder": str(path),
        "state": state,
        "trained_now": is_new and state == "done",
        "error": error,
        "pack": spec.pack,
        "property": spec.property,
        "model": spec.model,
        "recipe": spec.recipe,
        "protocol": spec.protocol,
        "seed": spec.seed,
        **of_result,
        "seconds": result and result.wall_time_s,
    }


def _result(path: Path, key: str) -> RunResult | None:
    with contextlib.suppress(UserError, OSError):
        found = read_result(path / "result.json")
        return found if found.key == key else None
    return None


def _error(path: Path) -> str | None:
    with contextlib.suppress(UserError, OSError):
        return str(read_json(path / "error.json").get("error"))
    return None
