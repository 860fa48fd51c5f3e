"""What a run leaves in its folder: run.json first, then history, model, test predictions and, last of all, the result."""

import contextlib
import csv
import dataclasses
import os
import platform
import resource
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.models.network import Network, n_parameters
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs import lease
from irnet_hpc.runs import lease as holding
from irnet_hpc.runs.grids import Grid
from irnet_hpc.runs.lease import replacing, write_json
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train.checkpoint import State, remove
from irnet_hpc.train.dataset import Dataset
from irnet_hpc.train.evaluation import measure, measure_several, optimism
from irnet_hpc.train.model_file import write_model

HISTORY = (
    "epoch",
    "step",
    "lr",
    "train_mae",
    "val_mae",
    "seconds",
)  # val_mae: on the rows that select
VERSIONS = ("torch", "horovod", "numpy", "h5py", "safetensors", "scikit-learn", "tabm", "irnet_hpc")


def is_done(folder: Path, key: str, force: bool) -> bool:
    """Whether this very run has its result. Raises UserError where the folder has another's, unless `force`."""
    path = folder / "result.json"
    if not path.exists():
        return False
    try:
        if read_result(path).key == key:
            return True
        problem = f"{path} is stale: its recipe, pack or version differs from this run's"
    except UserError as error:
        problem = str(error)
    if not force:
        raise UserError(f"{problem}; --force replaces it")
    return False


def take_up(folder: Path, key: str, force: bool) -> bool:
    """Take the lease of a run, unless it has its result: then False. Raises UserError where is_done() does, and where
    another process trains it."""
    if is_done(folder, key, force):
        return False
    holding.take(folder)
    if is_done(folder, key, force):  # by who held the lease until now
        holding.release(folder)
        return False
    return True


def begin(
    folder: Path,
    spec: RunSpec,
    recipe: Recipe | Grid,
    key: str,
    identity: dict,
    comm: Comm,
    origin: dict | None = None,
    data: str | None = None,
) -> list:
    """Write run.json and return the attempts so far, this one included. `origin`: what is said of the run it starts from;
    `data`: where the features are while it trains."""
    holding.take(folder)  # where take_up() has not
    (folder / "error.json").unlink(missing_ok=True)
    path, attempts = folder / "run.json", []
    with contextlib.suppress(FileNotFoundError, UserError, KeyError):
        attempts = _attempts(earlier) if (earlier := read_json(path))["key"] == key else []
    if not attempts:  # what lies here is another run's
        remove(folder)
    (folder / "result.json").unlink(missing_ok=True)
    attempts.append(
        {"started": _now(), "size": comm.size, "engine": comm.name}
        | ({"data": data} if data else {})
    )
    write_json(
        path,
        {
            "spec": dataclasses.asdict(spec),
            "recipe": dataclasses.asdict(recipe),
            "key": key,
            "pack_identity": identity,
            "origin": origin,
            "attempts": attempts,
        },
    )
    return attempts


def _attempts(earlier: dict) -> list:
    """Those that run.json names; nothing where it does not hold a list of them."""
    attempts = earlier["attempts"]
    return (
        attempts
        if isinstance(attempts, list) and all(isinstance(one, dict) for one in attempts)
        else []
    )


def failed(folder: Path, sentence: str) -> None:
    """Leave the reason for which there is no result; not where another process has the run by now."""
    with contextlib.suppress(lease.RunIsHeld):
        not_yet_ours = holding.take(folder)
        write_json(folder / "error.json", {"error": sentence, "time": _now()})
        if not_yet_ours:
            holding.release(folder)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a result says of the machine; the same on every rank."""

    engine: str
    size: int
    device: str
    peak_memory_gb: float  # the largest rank's: of the GPU where there is one, else of the process

    @classmethod
    def of(cls, comm: Comm, device: torch.device) -> "Machine":
        if device.type == "cuda":
            name, peak = (
                torch.cuda.get_device_name(device),
                torch.cuda.max_memory_allocated(device) / 2**30,
            )
        else:
            name, peak = _processor(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return cls(comm.name, comm.size, name, max(comm.gather(peak)))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "cpu"
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu"
    )


def write_history(folder: Path, rows: list) -> None:
    """Start history.csv again with what a checkpoint remembers."""
    with replacing(folder / "history.csv") as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([HISTORY, *rows])


def append_history(folder: Path, row: list) -> None:
    holding.check(folder)
    with (folder / "history.csv").open("a", newline="") as file:
        csv.writer(file).writerow(row)


def finish(
    folder: Path,
    spec: RunSpec,
    recipe: Recipe,
    key: str,
    pack: Pack,
    data: Dataset,
    network: Network,
    state: State,
    prediction: np.ndarray,
    attempts: list,
    machine: Machine,
    of_val: np.ndarray | None = None,
    origin: dict | None = None,
    bundle_size: int = 1,
) -> RunResult:
    """Write the model, the predictions (n_test,) and the result, in this order; then the checkpoints go.

    Of several properties predictions are (n_test, n_properties), and `of_val` are those of the val rows.
    """
    write_model(folder / "model.safetensors", spec, recipe, key, pack, data, network)
    honest = spec.protocol == "honest"
    return conclude(
        folder,
        spec,
        recipe,
        key,
        pack,
        data,
        prediction,
        attempts,
        machine,
        of_val,
        val_mae=state.best_mae if honest else None,
        optimism=None if honest else optimism(state.halves),
        best_epoch=state.best_epoch,
        epochs=state.epoch,
        n_parameters=n_parameters(network),
        wall_time_s=state.wall_s,
        device_hours=state.device_s / 3600,
        samples_per_s=state.step * recipe.batch / state.training_s,
        precision=recipe.precision,
        origin=origin,
        bundle_size=bundle_size,
    )


def conclude(
    folder: Path,
    spec: RunSpec,
    recipe: Recipe | Grid,
    key: str,
    pack: Pack,
    data: Dataset,
    prediction: np.ndarray,
    attempts: list,
    machine: Machine,
    of_val: np.ndarray | None = None,
    bundle_size: int = 1,
    **of_the_model: object,
) -> RunResult:
    """Write the predictions (n_test,) and the result; then the checkpoints go. `of_the_model`: RunResult's other fields."""
    write_predictions(folder / "test_predictions.npz", spec, pack, data, prediction)
    if len(spec.properties) == 1:
        measured = measure(
            pack.units[spec.property], data.train.target, data.test.target, prediction
        )
    else:
        measured = measure_several(spec, pack, data, prediction, of_val)
    result = RunResult(
        spec=dataclasses.asdict(spec),
        key=key,
        recipe=dataclasses.asdict(recipe),
        selected_on="val" if spec.protocol == "honest" else "test",
        n_train=len(data.train),
        n_val=len(data.val),
        n_test=len(data.test),
        peak_memory_gb=machine.peak_memory_gb,
        bundle_size=bundle_size,
        attempts=attempts,
        engine=machine.engine,
        device=machine.device,
        pack_identity=pack.identity,
        versions={"python": platform.python_version()} | _versions(),
        commit=_commit(),
        **measured,
        **of_the_model,
    )
    write_json(folder / "result.json", dataclasses.asdict(result))
    remove(folder)
    return result


def write_predictions(
    path: Path, spec: RunSpec, pack: Pack, data: Dataset, prediction: np.ndarray
) -> None:
    """Arrays of the test rows: material_id, formula, target, prediction. Plain arrays, no pickle.

    Of several properties target and prediction are (n_test, n_properties), NaN where not reported, and `property` has the
    names of the columns.
    """
    rows, local = pack.rows("test"), data.test.row - pack.rows("test").start
    several = len(spec.properties) > 1
    with replacing(path) as temporary:
        np.savez(
            temporary,
            material_id=np.array(pack.material_ids(rows), dtype=np.str_)[local],
            formula=np.array(pack.formulas(rows), dtype=np.str_)[local],
            target=data.test.target,
            prediction=np.where(np.isnan(data.test.target), np.nan, prediction)
            if several
            else prediction,
            **({"property": np.array(spec.properties)} if several else {}),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the source tree that this package was imported from, where it is one."""
    tree = Path(__file__).parents[2]
    if not (tree / ".git").exists():
        return None
    done = subprocess.run(
        ["git", "-C", str(tree), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    return done.stdout.strip() or None
