"""Fit one classical cell: every point of its grid on the training rows, the best by the rows that select kept.

    python -m irnet_hpc.train --pack oqmd-magpie --property formation_energy --architecture random_forest

It is `train` that is typed, and the run folder is that of a network. A signal ends it, within a fit as soon as the library
comes back to Python (SVR's only at the end of one); how each point did is remembered, and the same command goes on with the
next, also after SIGKILL. No fitted model is kept for prediction, since scikit-learn's are pickles, and loading a pickle
runs what is in it; the coefficients of the linear ones and the weights of TabM, which are plain numbers, are left in
parameters.safetensors. The only sklearn import.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.distributed.engines import Comm, device_of
from irnet_hpc.distributed.slurm import OUT_OF_TIME, end_of_job, stop_by
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.grids import Grid, point_text
from irnet_hpc.runs.lease import check, replacing, write_json
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train import run_writer as folder
from irnet_hpc.train.checkpoint import NEVER
from irnet_hpc.train.dataset import Dataset, Part, load
from irnet_hpc.train.evaluation import optimism, select_halves
from irnet_hpc.train.model_file import facts as facts_of
from irnet_hpc.train.model_file import write_tensors
from irnet_hpc.train.tabm import TabM


def makers(seed: int, n_jobs: int) -> dict[str, Callable]:
    """Row of GRIDS -> parameters -> what has fit(x, y) and predict(x), x (n_rows, n_features) and y (n_rows,)."""
    from sklearn import ensemble, linear_model, svm, tree

    seeded, parallel = {"random_state": seed}, {"random_state": seed, "n_jobs": n_jobs}

    def adaboost(max_depth: int, **parameters) -> object:
        weak = tree.DecisionTreeRegressor(max_depth=max_depth, **seeded)
        return ensemble.AdaBoostRegressor(weak, **seeded, **parameters)

    return {
        "linear": linear_model.LinearRegression,
        "ridge": linear_model.Ridge,
        "elastic_net": linear_model.ElasticNet,
        "sgd": partial(linear_model.SGDRegressor, **seeded),
        "svr": svm.SVR,
        "decision_tree": partial(tree.DecisionTreeRegressor, **seeded),
        "adaboost": adaboost,
        "bagging": partial(ensemble.BaggingRegressor, **parallel),
        "extra_trees": partial(ensemble.ExtraTreesRegressor, **parallel),
        "random_forest": partial(ensemble.RandomForestRegressor, **parallel),
        "boosted_trees": partial(ensemble.HistGradientBoostingRegressor, **seeded),
        "tabm": lambda **parameters: TabM(
            seed, device_of(0), **parameters
        ),  # no other touches a GPU
    }


LINEAR = ("linear", "ridge", "elastic_net", "sgd")


class Stopped(BaseException):
    """A signal has asked this process to end. Not an Exception: no library may take it for an error of its own."""


@dataclasses.dataclass
class Search:
    """How far a grid has come: all that is remembered of it, as JSON, between two attempts."""

    # {point, mae, seconds} in the grid's order; mae None: not finite
    tried: list = dataclasses.field(default_factory=list)
    halves: list = dataclasses.field(
        default_factory=lambda: [[NEVER, 0.0], [NEVER, 0.0]]
    )  # see select_halves
    refit_s: float = 0.0

    @property
    def best(self) -> dict | None:
        """The first of least MAE; None before any is finite."""
        return min(
            (one for one in self.tried if one["mae"] is not None),
            key=lambda one: one["mae"],
            default=None,
        )

    @property
    def wall_s(self) -> float:
        return sum(one["seconds"] for one in self.tried) + self.refit_s


def run(
    spec: RunSpec, grid: Grid, key: str, pack: Pack, path: Path, comm: Comm, results: Path | str
) -> bool:
    """Fit the cell and write its folder `path`; False where a signal ended it, and the same command goes on."""
    if comm.size > 1:
        raise UserError(
            f"{spec.architecture} is fitted by one rank, however: {comm.size}; start it without a launcher"
        )
    device = torch.device("cpu")
    data = load(pack, spec, grid, device, torch.float64)
    attempts = folder.begin(path, spec, grid, key, pack.identity, comm)
    unit, n_fitted = pack.units[spec.property], grid.fitted_rows(len(data.train))
    fewer = f", fitted on the first {n_fitted:,}" if n_fitted < len(data.train) else ""
    n_threads = torch.get_num_threads()
    print(
        f"{spec.model} on {spec.property} ({unit}) of {spec.pack}: {len(data.train):,} train{fewer}, {len(data.val):,} "
        f"val, {len(data.test):,} test rows; {len(grid.points)} points of its grid, {n_threads} thread{'s'[: n_threads > 1]}",
        flush=True,
    )
    try:
        with _stopping(until := stop_by(end_of_job())):
            estimator, found = search(spec, grid, key, data, path)
            prediction = predictions(estimator, data, data.test)
            machine = folder.Machine.of(comm, getattr(estimator, "device", device))
            result = finish(
                path, spec, grid, key, pack, data, estimator, found, prediction, attempts, machine
            )
    except Stopped:
        is_late = time.time() >= until
        why = f"{OUT_OF_TIME}: stopped" if is_late else "stopped by a signal"
        print(
            f"{why}; the same command goes on with the point of the grid that it was at", flush=True
        )
        if is_late:
            folder.failed(path, f"{OUT_OF_TIME}; the same command goes on")
        return False
    print(
        f"test MAE {result.test_mae:.4g} {unit} (baseline {result.baseline_mae:.4g}), {point_text(result.chosen['point'])} "
        f"selected on {result.selected_on}, in {result.wall_time_s:.0f} s\n"
        f"wrote {path / 'result.json'}\nnext: {shlex.join(['python', '-m', 'irnet_hpc.aggregate', str(results)])}"
    )
    return True


def search(spec: RunSpec, grid: Grid, key: str, data: Dataset, path: Path) -> tuple[object, Search]:
    """Fit every point of the grid that an earlier attempt has not; returns the best one, fitted, and all that was tried."""
    notes = path / "checkpoint" / "grid.json"
    found, points, best = _resume(notes, key), grid.points, None
    selection, role = (data.val, "val") if spec.protocol == "honest" else (data.test, "test")
    for i in range(len(found.tried), len(points)):
        began, estimator = time.monotonic(), fitted(spec, grid, points[i], data)
        errors = np.abs(predictions(estimator, data, selection) - selection.target)
        mae, seconds = float(errors.mean()), time.monotonic() - began
        if np.isfinite(mae) and spec.protocol == "paper":
            select_halves(found.halves, errors, spec.seed)
        found.tried.append(
            {"point": points[i], "mae": mae if np.isfinite(mae) else None, "seconds": seconds}
        )
        if found.best is found.tried[-1]:
            best = estimator
        so_far = dataclasses.asdict(found)
        write_json(notes, {"sha256": _digest(so_far), "key": key, "search": so_far})
        print(
            f"{i + 1}/{len(points)}  {point_text(points[i])}: MAE {role} {mae:.4g} in {seconds:.1f} s, least "
            f"{found.best['mae'] if found.best else float('nan'):.4g}",
            flush=True,
        )
    if found.best is None:
        raise UserError(
            f"the error of {spec.model} on {spec.property} is not finite at any point of its grid"
        )
    if best is None:  # an earlier attempt found it, and only its numbers were kept
        began = time.monotonic()
        best = fitted(spec, grid, found.best["point"], data)
        found.refit_s += time.monotonic() - began
    return best, found


def fitted(spec: RunSpec, grid: Grid, point: dict, data: Dataset) -> object:
    """The model of one point, fitted on the first rows that it can take, with no more threads than this process may use."""
    from threadpoolctl import threadpool_limits

    n_rows, n_jobs = grid.fitted_rows(len(data.train)), torch.get_num_threads()
    estimator = makers(spec.seed % 2**32, n_jobs)[grid.architecture](**grid.fixed, **point)
    # TabM's own library has counted its threads already, and would not count again
    limits = contextlib.nullcontext() if isinstance(estimator, TabM) else threadpool_limits(n_jobs)
    with limits:
        return estimator.fit(data.train.x[:n_rows].numpy(), data.train.y[:n_rows].numpy())


def predictions(estimator: object, data: Dataset, rows: Part) -> np.ndarray:
    """(n_rows,) float64 in the property's unit."""
    scaled = np.asarray(estimator.predict(rows.x.numpy()), np.float64)
    return scaled * data.scaling.target_scale + data.scaling.target_mean


def finish(
    path: Path,
    spec: RunSpec,
    grid: Grid,
    key: str,
    pack: Pack,
    data: Dataset,
    estimator: object,
    found: Search,
    prediction: np.ndarray,
    attempts: list,
    machine: folder.Machine,
) -> RunResult:
    """Write the parameters where they are plain numbers, the predictions (n_test,) and, last, the result."""
    tensors = parameters(spec, estimator)
    check(path)
    (path / "parameters.safetensors").unlink(missing_ok=True)
    if tensors:
        scaling = data.scaling
        kept = tensors | {
            n: torch.from_numpy(getattr(scaling, n)) for n in ("feature_mean", "feature_scale")
        }
        facts = facts_of(spec, grid, key, pack, data) | {"point": found.best["point"]}
        with replacing(path / "parameters.safetensors") as temporary:
            write_tensors(temporary, kept, facts)
    result = folder.conclude(
        path,
        spec,
        grid,
        key,
        pack,
        data,
        prediction,
        attempts,
        machine,
        val_mae=found.best["mae"] if spec.protocol == "honest" else None,
        optimism=optimism(found.halves) if spec.protocol == "paper" else None,
        best_epoch=None,
        epochs=None,
        n_parameters=sum(tensor.numel() for tensor in tensors.values()) or None,
        wall_time_s=found.wall_s,
        device_hours=found.wall_s / 3600,
        samples_per_s=None,
        precision="bf16" if isinstance(estimator, TabM) else "fp64",
        fitted_rows=grid.fitted_rows(len(data.train)),
        chosen={"point": found.best["point"], "tried": found.tried},
    )
    (path / "checkpoint" / "grid.json").unlink(missing_ok=True)
    folder.remove(path)
    return result


def parameters(spec: RunSpec, estimator: object) -> dict[str, Tensor]:
    """What a model has learnt, where it is plain numbers: coef (n_features,) and intercept (1,) of scaled features, or
    TabM's weights. Trees and support vectors are not kept."""
    if isinstance(estimator, TabM):
        return {
            f"network.{n}": t.detach().cpu().contiguous()
            for n, t in estimator.network.state_dict().items()
        }
    if spec.architecture not in LINEAR:
        return {}
    return {
        "coef": torch.from_numpy(np.array(estimator.coef_, np.float64)),
        "intercept": torch.from_numpy(np.array(estimator.intercept_, np.float64).reshape(1)),
    }


def _resume(notes: Path, key: str) -> Search:
    """What an earlier attempt at this very cell has found; nothing where that is damaged."""
    with contextlib.suppress(FileNotFoundError, UserError):
        value = read_json(notes)
        if value.get("key") == key and value.get("sha256") == _digest(value.get("search")):
            found = Search(**value["search"])
            print(f"resuming after {len(found.tried)} points of the grid", flush=True)
            return found
        print(
            f"warning: {notes} is of another run or damaged; the grid begins anew", file=sys.stderr
        )
    return Search()


def _digest(search: object) -> str:
    """One digit of an error would choose another point."""
    return hashlib.sha256(json.dumps(search, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _stopping(until: float) -> Iterator[None]:
    """Raise Stopped at a signal that asks for the end, or `until`, in s since the epoch: a fit looks at no flag and no clock, but an
    exception ends it, once in Python."""

    def stop(*_: object) -> None:
        raise Stopped

    before = {}
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        if (
            signal.getsignal(number) == signal.SIG_DFL
        ):  # only where nobody else handles it, as in train
            with contextlib.suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, stop)
    is_timed = signal.SIGALRM in before and until < math.inf
    if is_timed:
        signal.setitimer(signal.ITIMER_REAL, max(0.001, until - time.time()))
    try:
        yield
    finally:
        if is_timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
