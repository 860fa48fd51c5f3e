"""Train networks of one shape together, and write the result of each network when it ends."""

import logging
import time
from typing import NamedTuple

import torch

from irnet_hpc.distributed.engines import Comm, from_root, together
from irnet_hpc.distributed.gpus import check_own_gpus, device_of, has_driver, why_none
from irnet_hpc.distributed.slurm_commands import OUT_OF_TIME
from irnet_hpc.errors import UserError
from irnet_hpc.models.network import n_parameters
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.recipes import (
    DEFAULT_RECIPE,
    MIN_ROWS,
    RECIPES,
    Recipe,
    fitted_to,
    fitting_batch,
)
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.train.causes import cause_of
from irnet_hpc.train.dataset import Dataset, place_of
from irnet_hpc.train.evaluation import optimism, predict
from irnet_hpc.train.finish import (
    Predictions,
    begin,
    warn_above_baseline,
    write_result,
)
from irnet_hpc.train.loop import Ended, train_all
from irnet_hpc.train.model_file import write_model
from irnet_hpc.train.provenance import provenance
from irnet_hpc.train.run import Run, TrainOptions
from irnet_hpc.train.stack import Replica, load_each
from irnet_hpc.train.stopping import StopRequest, stop_request
from irnet_hpc.train.threads import threads_of
from irnet_hpc.train.warm_start import check_features, describe, in_words

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """Facts about the start of a run that are repeated in its result."""

    attempts: list[dict]
    origin: dict | None  # facts of the run that the initial weights are from


def train_networks(
    unfinished: list[Run], pack: Pack, options: TrainOptions, comm: Comm, is_copy: bool = False
) -> bool:
    """Train networks of one shape and write their results.

    Args:
        unfinished: The runs, which this process has claimed. Each run is removed from the list and
            released as soon as it has ended.
        pack: The pack of all runs.
        options: The options that do not change a result, such as the device.
        comm: The ranks that train.
        is_copy: True if `pack` is a copy on a disk of the node.

    Returns:
        False if a signal or the end of the job stopped the training; the checkpoints of the runs
        that are left in `unfinished` have been saved.

    Raises:
        UserError: If a run failed; the error is raised after all runs have ended.
    """
    began, n_runs, errors = time.monotonic(), len(unfinished), []
    device = together(comm, lambda: device_of(comm.local_rank, options.device))
    check_own_gpus(comm, device)
    if comm.rank == 0 and device.type == "cpu" and options.device == "auto" and has_driver():
        logger.warning("warning: trains on the processor, since %s", why_none())
    replicas = _load(unfinished, pack, options, comm, device)
    place = place_of(replicas[0].data, comm) + " from a copy on the node" * is_copy
    starts, n_threads = {}, threads_of(replicas[0], comm, device)
    for replica in replicas:
        start = _begin(replica, pack, options, comm, {"data": place, "threads": n_threads})
        starts[replica.run.key] = start
        if comm.rank == 0:
            _log_start(replica, pack, comm, device, place, start)
    stop = stop_request(options, comm)
    for ended in train_all(replicas, comm, device, stop, options):
        run, error = ended.replica.run, ended.error
        if error is None:
            error = _write_result(ended, starts[run.key], pack, comm, device)
        if error is not None:
            errors.append(error)
            if comm.rank == 0:
                run.folder.write_error(str(error), cause_of(error))
                if n_runs > 1:  # now, since the other runs continue
                    logger.info("failed %s: %s", run.folder, error)
        unfinished.remove(run)
        run.folder.release()
    if unfinished:
        if comm.rank == 0:
            _note_stop(unfinished, stop)
        return False
    if comm.rank == 0 and len(errors) < n_runs:
        logger.info("in %.0f s", time.monotonic() - began)
    if len(errors) == 1 and n_runs == 1:
        raise errors[0]
    if errors:
        raise UserError(f"{len(errors)} of {n_runs} cells failed: {errors[0]}")
    return True


def _load(
    runs: list[Run], pack: Pack, options: TrainOptions, comm: Comm, device: torch.device
) -> list[Replica]:
    """Load the rows of every run.

    If training on them is impossible, raise UserError on all ranks.
    """
    origin, recipe = runs[0].origin, runs[0].recipe
    assert isinstance(recipe, Recipe)  # since the runs are of networks
    scaling = origin.scaling if origin else None
    specs = [run.spec for run in runs]
    together(comm, lambda: check_features(origin, pack))
    data = together(comm, lambda: load_each(pack, specs, recipe, device, scaling, options.data))
    replicas = [
        Replica(run, rows, fit_to_rows(run, rows)) for run, rows in zip(runs, data, strict=True)
    ]
    for replica in replicas:
        if replica.recipe.batch % comm.size:
            raise UserError(
                "the batch must be a multiple of the number of ranks, got batch "
                f"{replica.recipe.batch} (recipe {recipe.name}) and {comm.size} ranks"
            )
    return replicas


def fit_to_rows(run: Run, data: Dataset) -> Recipe | None:
    """Fit the recipe of a run to its training rows, if they are fewer than a batch.

    Any other number of rows is left to the recipe as it is, so that results of such runs stay
    valid.

    Returns:
        The recipe to train by; None if the run's recipe is used as it is.

    Raises:
        UserError: If the rows are fewer than a batch that the recipe states, or if the table has
            fewer than MIN_ROWS rows.
    """
    recipe, n_train = run.recipe, len(data.train)
    assert isinstance(recipe, Recipe)
    if n_train >= recipe.batch:
        return None
    fits = fitting_batch(n_train)
    base = recipe.name if recipe.name in RECIPES else DEFAULT_RECIPE
    stated = f"--recipe '{{name: small, base: {base}, batch: {fits}, norm_group: {fits}}}'"
    if run.keeps_batch:
        raise UserError(
            f"batch of recipe {recipe.name} must be at most the {n_train} training rows of "
            f"{run.spec.property}, got {recipe.batch}; leave batch and norm_group out, so that "
            f"they are fitted to the rows, or state smaller ones, e.g. {stated}"
        )
    n_rows = n_train + len(data.val) + len(data.test)
    if n_rows < MIN_ROWS:
        raise UserError(
            f"a network needs a table of at least {MIN_ROWS} rows, got {n_rows} rows of "
            f"{run.spec.property}; a classical model such as --architecture ridge takes fewer, "
            f"and so does a recipe that states its batch: {stated}"
        )
    return fitted_to(recipe, n_train)


def _begin(
    replica: Replica,
    pack: Pack,
    options: TrainOptions,
    comm: Comm,
    facts: dict[str, object],
) -> Start:
    """Write run.json on rank 0, and return the facts about the start on every rank.

    `facts` are those of this attempt that all replicas share.
    """
    run = replica.run

    def begin_run() -> Start:
        origin = None
        if run.origin:
            origin = describe(run.origin, pack, replica.data, options.pack_dir)
        attempt: dict = {"size": comm.size, "engine": comm.name, **facts}
        if replica.fitted:
            attempt["fitted_recipe"] = replica.fitted_fields
            earlier = run.folder.earlier_attempts(run.key)
            if earlier and earlier[-1].get("fitted_recipe") != replica.fitted_fields:
                run.folder.remove_checkpoints()  # since its steps had another batch
        return Start(begin(run, pack, attempt, origin), origin)

    return from_root(comm, begin_run)


def _log_start(
    replica: Replica, pack: Pack, comm: Comm, device: torch.device, place: str, start: Start
) -> None:
    spec, recipe, data = replica.spec, replica.recipe, replica.data
    unit = ", ".join(pack.units[name] for name in spec.properties)
    seed = f", seed {spec.seed}" if spec.seed else ""
    if replica.fitted:
        logger.info(
            f"recipe {recipe.name} is fitted to {len(data.train)} training rows: batch "
            f"{recipe.batch} and norm_group {recipe.norm_group}"
        )
    logger.info(
        f"{spec.model} on {spec.property} ({unit}) of {spec.pack}: {len(data.train):,} train, "
        f"{len(data.val):,} val, {len(data.test):,} test rows; recipe {recipe.name}{seed}; "
        f"ranks: {comm.size}, engine: {comm.name}, device: {device.type}, data: {place}"
        f"{in_words(start.origin, recipe, spec)}"
    )


def _write_result(
    ended: Ended, start: Start, pack: Pack, comm: Comm, device: torch.device
) -> UserError | None:
    """Predict the test rows, and write the result of a replica that has ended.

    Returns:
        An error if another process has taken the run over, else None. Only rank 0 writes, so only
        rank 0 can notice this.
    """
    run, state, data = ended.replica.run, ended.state, ended.replica.data
    network, recipe = ended.network, ended.replica.recipe
    assert network is not None  # since there is no error
    test, val = predict(network, data.test, data, recipe, comm), None
    if len(run.spec.properties) > 1 and len(data.val):
        val = predict(network, data.val, data, recipe, comm)
    machine = provenance(comm, device)
    if comm.rank != 0:
        return None
    honest = run.spec.protocol == "honest"
    try:
        write_model(run, pack, data, network)
        result = write_result(
            run,
            pack,
            data,
            Predictions(test, val),
            val_mae=state.best_mae if honest else None,
            optimism=None if honest else optimism(state.halves),
            best_epoch=state.best_epoch,
            epochs=state.epoch,
            n_parameters=n_parameters(network),
            wall_time_s=state.wall_s,
            device_hours=state.device_s / 3600,
            samples_per_s=state.step * recipe.batch / state.training_s,
            precision=recipe.precision,
            attempts=start.attempts,
            origin=start.origin,
            bundle_size=ended.bundle_size,
            fitted_recipe=ended.replica.fitted_fields,
            **machine,
        )
    except RunIsHeld as error:
        return error
    _log_result(run, result)
    return None


def _log_result(run: Run, result: RunResult) -> None:
    for name, errors in (result.per_property or {}).items():
        logger.info(
            f"{name}: test MAE {errors['test_mae']:.4g} {errors['unit']} "
            f"(baseline {errors['baseline_mae']:.4g})"
        )
    logger.info(
        f"test MAE {result.test_mae:.4g} {result.unit} (baseline {result.baseline_mae:.4g}), "
        f"selected on {result.selected_on}, {result.epochs} epochs in {result.wall_time_s:.0f} s\n"
        f"wrote {run.folder.result_json}"
    )
    warn_above_baseline(run, result)


def _note_stop(unfinished: list[Run], stop: StopRequest) -> None:
    """Log that the runs were stopped.

    If the job is about to end, also write that into error.json.
    """
    # A run whose stack has not been started yet has no checkpoint.
    saved = [str(run.folder.checkpoint) for run in unfinished if run.folder.checkpoint.exists()]
    where = f" and saved in {', '.join(saved)}" if saved else ""
    why = f"{OUT_OF_TIME}: stopped" if stop.is_late else "stopped by a signal"
    logger.info(f"{why}{where}; the same command continues")
    if stop.is_late:
        for run in unfinished:
            run.folder.write_error(f"{OUT_OF_TIME}; the same command continues", Cause.TIME)
