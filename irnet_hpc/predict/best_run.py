"""Choose the model with the lowest val MAE of a property below a folder of results."""

import logging
import math
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.runs.classical_grids import AS_NUMBERS
from irnet_hpc.runs.collect import FinishedRun, collect_runs, one_a_property
from irnet_hpc.runs.folder import RunFolder

logger = logging.getLogger(__name__)


def best_run(results: Path | str, property: str, pack: str | None = None) -> Path:
    """Return the folder of the run with the lowest val MAE of a property, of any kind of model.

    Args:
        results: The folder of results.
        property: The property to predict.
        pack: Consider only runs on the pack of this name; None: consider all runs, which must then
            share their val rows.

    Raises:
        UserError: If no run on that property has a val MAE and a kept model, or if the packs of the
            runs differ in source or split. In that case, the lowest val MAE might only mean that
            the val rows are the easiest.
    """
    runs = [run for joint in collect_runs(Path(results))[0] for run in one_a_property(joint)]
    of_property = [run for run in runs if run.spec.property == property]
    if not of_property:
        known = sorted({run.spec.property for run in runs})
        raise UserError(
            f"no run below {results} predicts {property!r}; "
            f"predicted there: {', '.join(known) or 'nothing'}"
        )
    usable = [
        run
        for run in of_property
        if run.result.val_mae is not None and pack in (None, run.spec.pack)
    ]
    kept = [run for run in usable if is_kept(run)]
    if not kept:
        packs = ", ".join(sorted({run.spec.pack for run in of_property}))
        on_pack = f" on pack {pack}" if pack else ""
        raise UserError(
            f"no run on {property} below {results} has both a val MAE and a kept model"
            f"{on_pack}; the packs of the runs on {property}: {packs}"
        )
    if len({_val_rows_key(run) for run in kept}) > 1:
        packs = ", ".join(sorted({run.spec.pack for run in kept}))
        raise UserError(
            "val MAEs of different sources or splits cannot be compared; "
            f"name one pack with --pack: {packs}"
        )
    best = min(kept, key=_val_mae)
    logger.info(
        f"best of {len(kept)} runs by val MAE, "
        f"{_val_mae(best):.4g} {best.result.unit}: {best.folder}"
    )
    better = [run for run in usable if not is_kept(run) and _val_mae(run) < _val_mae(best)]
    if better:
        rival = min(better, key=_val_mae)
        logger.info(
            f"note: {rival.folder} has a lower val MAE, {_val_mae(rival):.4g}, but has not kept "
            "its model, so it cannot predict"
        )
    seeds = [run for run in kept if run.folder.parent == best.folder.parent]
    if len(seeds) > 1 and best.uses_seed:
        logger.info(
            f"note: the mean of this model's {len(seeds)} seeds is usually better: instead of "
            f"--best, give the folders {best.folder.parent}/seed*"
        )
    return best.folder


def is_kept(run: FinishedRun) -> bool:
    """Return True if the run has kept its model, as far as its result and its files tell."""
    files = RunFolder(run.folder)
    if not run.spec.is_classical:
        return files.model.exists()
    is_number = run.spec.architecture in AS_NUMBERS
    return run.keeps_model and (files.parameters if is_number else files.estimator).exists()


def _val_mae(run: FinishedRun) -> float:
    return math.inf if run.result.val_mae is None else run.result.val_mae


def _val_rows_key(run: FinishedRun) -> tuple[str, ...]:
    """Return the facts about a run's pack that decide which materials are its val rows."""
    identity = run.result.pack_identity
    return tuple(str(identity.get(name)) for name in ("source", "source_sha256", "split"))
