"""Fit a classical model at every point of its grid, and keep the one with the lowest selection MAE.

    python -m irnet_hpc.train --pack oqmd-magpie --property band_gap --architecture ridge

The command and the run folder are the same as for a network. A signal ends a fit as soon as the
library returns to Python (for SVR, only at the end of a fit). The error of each point is saved, so
the same command continues with the next point, even after SIGKILL.

classical_file.py keeps the fitted model in the run folder.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.distributed.gpus import device_of
from irnet_hpc.distributed.slurm_commands import OUT_OF_TIME
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.classical_grids import Grid, point_text
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.train.checkpoint import no_halves
from irnet_hpc.train.classical_file import write_classical
from irnet_hpc.train.dataset import Dataset, Part, load
from irnet_hpc.train.evaluation import optimism, select_halves
from irnet_hpc.train.finish import (
    Predictions,
    begin,
    warn_above_baseline,
    write_result,
)
from irnet_hpc.train.provenance import provenance
from irnet_hpc.train.run import Run, TrainOptions
from irnet_hpc.train.stopping import Stopped, stopped_by_exception
from irnet_hpc.train.tabm import TabM

logger = logging.getLogger(__name__)


def makers(seed: int, n_jobs: int, device: str = "auto") -> dict[str, Callable]:
    """Map each model of GRIDS to a function that makes an estimator from its parameters.

    Args:
        seed: The seed, for models that draw random numbers.
        n_jobs: The number of threads, for models that use several.
        device: One of distributed.launch.DEVICES, for a model that can use a GPU.

    Returns:
        Model -> function. The estimators have fit(x, y) and predict(x), with x (n_rows, n_features)
        and y (n_rows,).
    """
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
        # The only one that uses a GPU.
        "tabm": lambda **parameters: TabM(seed, device_of(0, device), **parameters),
    }


@dataclasses.dataclass
class Search:
    """The points of a grid that have been fitted so far, saved as JSON between attempts."""

    # {point, mae, seconds} in the grid's order; mae is None if it is not finite.
    tried: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    halves: list[list[float]] = dataclasses.field(default_factory=no_halves)  # see select_halves
    refit_s: float = 0.0

    @property
    def best(self) -> dict[str, Any] | None:
        """The first of the points with the lowest MAE; None if no point has a finite MAE yet."""
        finite = (tried for tried in self.tried if tried["mae"] is not None)
        return min(finite, key=lambda tried: tried["mae"], default=None)

    @property
    def wall_s(self) -> float:
        """The time of all fits, in s."""
        return sum(tried["seconds"] for tried in self.tried) + self.refit_s


def fit_run(run: Run, pack: Pack, options: TrainOptions, comm: Comm) -> bool:
    """Fit a classical model and write its run folder.

    Returns:
        False if a signal or the end of the job stopped the fit; the same call continues it.

    Raises:
        UserError: If there are several ranks, or no point of the grid has a finite error.
    """
    spec, grid = run.spec, _grid_of(run)
    if comm.size > 1:
        raise UserError(
            f"{spec.architecture} is fitted by one rank, got {comm.size} ranks; "
            "start the command without a launcher"
        )
    data = load(pack, spec, grid, torch.device("cpu"))
    attempt = {"size": comm.size, "engine": comm.name, "threads": torch.get_num_threads()}
    attempts = begin(run, pack, attempt)
    _log_start(spec, grid, pack, data)
    until = math.inf
    try:
        with stopped_by_exception(options) as until:
            fit = search(run, data, options.device)
            machine = provenance(comm, getattr(fit[0], "device", torch.device("cpu")))
            facts = {"attempts": attempts, **machine}
            result = _write(run, pack, data, fit, facts, options.keep_model)
    except Stopped:
        is_late = time.time() >= until
        why = f"{OUT_OF_TIME}: stopped" if is_late else "stopped by a signal"
        logger.info(f"{why}; the same command continues with the current point of the grid")
        if is_late:
            run.folder.write_error(f"{OUT_OF_TIME}; the same command continues", Cause.TIME)
        return False
    assert result.chosen is not None
    logger.info(
        f"test MAE {result.test_mae:.4g} {result.unit} (baseline {result.baseline_mae:.4g}), "
        f"{point_text(result.chosen['point'])} selected on {result.selected_on}, in "
        f"{result.wall_time_s:.0f} s\nwrote {run.folder.result_json}"
    )
    warn_above_baseline(run, result)
    return True


def _grid_of(run: Run) -> Grid:
    assert isinstance(run.recipe, Grid)
    return run.recipe


def _log_start(spec: RunSpec, grid: Grid, pack: Pack, data: Dataset) -> None:
    n_fitted, n_threads = grid.fitted_rows(len(data.train)), torch.get_num_threads()
    fewer = f", fitted on the first {n_fitted:,}" if n_fitted < len(data.train) else ""
    logger.info(
        f"{spec.model} on {spec.property} ({pack.units[spec.property]}) of {spec.pack}: "
        f"{len(data.train):,} train{fewer}, {len(data.val):,} val, {len(data.test):,} test rows; "
        f"{len(grid.points)} points of its grid, {n_threads} thread{'s'[: n_threads > 1]}"
    )
    if spec.seed and not grid.uses_seed(n_fitted):
        logger.warning(
            f"warning: {spec.architecture} gives the same result for every seed, so seed "
            f"{spec.seed} repeats seed 0; a spread over its seeds says nothing"
        )


def search(run: Run, data: Dataset, device: str = "auto") -> tuple[Any, Search]:
    """Fit the points of the grid that no earlier attempt has fitted.

    Args:
        run: The run, whose folder keeps the progress.
        data: The rows.
        device: One of distributed.launch.DEVICES, for a model that can use a GPU.

    Returns:
        The estimator of the best point, and the progress with all points that were tried.

    Raises:
        UserError: If no point has a finite error.
    """
    spec, grid = run.spec, _grid_of(run)
    progress, points, best = _resume(run), grid.points, None
    selection, role = (data.val, "val") if spec.protocol == "honest" else (data.test, "test")
    for i in range(len(progress.tried), len(points)):
        began, estimator = time.monotonic(), fitted(spec, grid, points[i], data, device)
        errors = np.abs(predictions(estimator, data, selection) - selection.target)
        mae, seconds = float(errors.mean()), time.monotonic() - began
        if np.isfinite(mae) and spec.protocol == "paper":
            select_halves(progress.halves, errors, spec.seed)
        progress.tried.append(
            {"point": points[i], "mae": mae if np.isfinite(mae) else None, "seconds": seconds}
        )
        if progress.best is progress.tried[-1]:
            best = estimator
        so_far = dataclasses.asdict(progress)
        content = {"sha256": _digest(so_far), "key": run.key, "search": so_far}
        run.folder.write_json(_notes(run), content)
        least = progress.best["mae"] if progress.best else math.nan
        logger.info(
            f"{i + 1}/{len(points)}  {point_text(points[i])}: MAE {role} {mae:.4g} in "
            f"{seconds:.1f} s, lowest so far {least:.4g}"
        )
    if progress.best is None:
        raise UserError(
            f"the error of {spec.model} on {spec.property} is not finite at any point of its grid"
        )
    if best is None:
        # An earlier attempt has fitted the best point and saved only its error: fit it again.
        began = time.monotonic()
        best = fitted(spec, grid, progress.best["point"], data, device)
        progress.refit_s += time.monotonic() - began
    return best, progress


def fitted(
    spec: RunSpec, grid: Grid, point: dict[str, Any], data: Dataset, device: str = "auto"
) -> Any:
    """Fit the model with one point's parameters, on at most `grid.max_rows` training rows."""
    from threadpoolctl import threadpool_limits

    n_rows, n_jobs = grid.fitted_rows(len(data.train)), torch.get_num_threads()
    maker = makers(spec.seed % 2**32, n_jobs, device)[grid.architecture]
    estimator = maker(**grid.fixed, **point)
    # No limit for TabM: its library has set its number of threads already, and would ignore one.
    limits = contextlib.nullcontext() if isinstance(estimator, TabM) else threadpool_limits(n_jobs)
    with limits:
        return estimator.fit(data.train.resident[:n_rows].numpy(), data.train.y[:n_rows].numpy())


def predictions(estimator: Any, data: Dataset, rows: Part) -> np.ndarray:
    """Return the predictions for rows, (n_rows,) float64 in the property's unit."""
    scaled = np.asarray(estimator.predict(rows.resident.numpy()), np.float64)
    return data.scaling.in_unit(scaled)


def _write(
    run: Run, pack: Pack, data: Dataset, fit: tuple[Any, Search], facts: dict[str, Any], keep: str
) -> RunResult:
    """Write the model, then the predictions and the result.

    Args:
        run: The run.
        pack: Its pack.
        data: The rows of the training.
        fit: The estimator of the best point, and the progress with all points that were tried.
        facts: Further fields of RunResult.
        keep: One of KEEPING.
    """
    estimator, progress = fit
    assert progress.best is not None
    prediction = predictions(estimator, data, data.test)
    point = progress.best["point"]
    n_learnt, sha256 = write_classical(run, pack, data, estimator, {"point": point}, keep)
    honest = run.spec.protocol == "honest"
    result = write_result(
        run,
        pack,
        data,
        Predictions(prediction),
        bundle_size=1,
        val_mae=progress.best["mae"] if honest else None,
        optimism=None if honest else optimism(progress.halves),
        best_epoch=None,
        epochs=None,
        n_parameters=n_learnt or None,
        wall_time_s=progress.wall_s,
        device_hours=progress.wall_s / 3600,
        samples_per_s=None,
        precision="bf16" if isinstance(estimator, TabM) else "fp64",
        fitted_rows=_grid_of(run).fitted_rows(len(data.train)),
        chosen={"point": point, "tried": progress.tried},
        estimator_sha256=sha256,
        **facts,
    )
    _notes(run).unlink(missing_ok=True)
    run.folder.remove_checkpoints()
    return result


def _notes(run: Run) -> Path:
    return run.folder.checkpoint / "grid.json"


def _resume(run: Run) -> Search:
    """Read the progress of an earlier attempt at this run; start anew if the file is damaged."""
    notes = _notes(run)
    with contextlib.suppress(FileNotFoundError, UserError):
        value = read_json(notes)
        if value.get("key") == run.key and value.get("sha256") == _digest(value.get("search")):
            progress = Search(**value["search"])
            logger.info(f"resuming after {len(progress.tried)} points of the grid")
            return progress
        logger.warning(
            f"warning: {notes} is damaged or belongs to another run; the grid starts from its "
            "first point"
        )
    return Search()


def _digest(search: object) -> str:
    """Hash the progress. A changed digit in an error could otherwise select another point."""
    return hashlib.sha256(json.dumps(search, sort_keys=True).encode()).hexdigest()
