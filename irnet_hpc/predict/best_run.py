"""Choose the model with the lowest val MAE of a property below a folder of results."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from irnet_hpc.data.splits import name_of_folds
from irnet_hpc.errors import UserError
from irnet_hpc.runs.classical_grids import AS_NUMBERS
from irnet_hpc.runs.collect import FinishedRun, collect_runs, one_a_property
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.folds import JoinedRuns, join_folds

logger = logging.getLogger(__name__)


def best_run(results: Path | str, property: str, pack: str | None = None) -> Path:
    """Return the folder of the run with the lowest val MAE of a property, of any kind of model.

    Args:
        results: The folder of results.
        property: The property to predict.
        pack: Consider only runs on the pack of this name; None: consider all runs, which must then
            share their val rows.

    Raises:
        UserError: As `best_runs`; or if the best model was trained on folds, so that it has several
            runs.
    """
    runs = best_runs(results, property, pack, each_seed=True)
    if len(runs) > 1:
        raise UserError(
            f"the best model below {results} has {len(runs)} runs, on the folds of its table, "
            "and one is wanted; name a pack that is not dealt to folds"
        )
    return runs[0]


def best_runs(
    results: Path | str, property: str, pack: str | None = None, each_seed: bool = False
) -> list[Path]:
    """Return the folders of the runs of the model with the lowest val MAE of a property.

    They are several if the best model was trained with several seeds, or on the folds of a table;
    then the mean of their val MAEs counts, and together they predict better than one of them.

    Args:
        results: The folder of results.
        property: The property to predict.
        pack: Consider only runs on the pack of this name, which may be that of all folds of a
            table; None: consider all runs, which must then share their val rows.
        each_seed: True to take each seed of a model for a model of its own.

    Raises:
        UserError: If no run on that property has a val MAE and a kept model, or if the packs of the
            runs differ in source or split. In that case, the lowest val MAE might only mean that
            the val rows are the easiest.
    """
    candidates = _candidates(Path(results), pack, each_seed)
    of_property = [one for one in candidates if one.first.spec.property == property]
    if not of_property:
        known = sorted({one.first.spec.property for one in candidates})
        raise UserError(
            f"no run below {results} predicts {property!r}; "
            f"predicted there: {', '.join(known) or 'nothing'}"
        )
    usable = [one for one in of_property if one.has_val and pack in (None, one.pack)]
    kept = [one for one in usable if one.is_kept]
    if not kept:
        packs = ", ".join(sorted({one.pack for one in of_property}))
        on_pack = f" on pack {pack}" if pack else ""
        raise UserError(
            f"no run on {property} below {results} has both a val MAE and a kept model"
            f"{on_pack}; the packs of the runs on {property}: {packs}"
        )
    if len({_val_rows_key(one.first) for one in kept}) > 1:
        packs = ", ".join(sorted({one.pack for one in kept}))
        raise UserError(
            "val MAEs of different sources or splits cannot be compared; "
            f"name one pack with --pack: {packs}"
        )
    best = min(kept, key=lambda one: one.val_mae)
    kind = "runs" if each_seed and not best.first.folds else "models"
    logger.info(
        f"best of {len(kept)} {kind} by val MAE, {best.val_mae:.4g} {best.first.result.unit}: "
        f"{best.words}"
    )
    better = [one for one in usable if not one.is_kept and one.val_mae < best.val_mae]
    if better:
        rival = min(better, key=lambda one: one.val_mae)
        logger.info(
            f"note: {rival.first.folder} has a lower val MAE, {rival.val_mae:.4g}, but has not "
            "kept its model, so it cannot predict"
        )
    return [run.folder for run in best.runs]


class _Candidate(NamedTuple):
    """A run, or the runs of one model with several seeds or on the folds of a table."""

    pack: str
    first: FinishedRun  # the run; that of the first seed; or the numbers of the first repeat
    runs: tuple[FinishedRun, ...]  # the trainings
    val_maes: tuple[float | None, ...]  # one, or one for each seed or repeat

    @property
    def has_val(self) -> bool:
        return None not in self.val_maes

    @property
    def val_mae(self) -> float:
        """The val MAE, averaged over the seeds or repeats."""
        return fmean(math.inf if mae is None else mae for mae in self.val_maes)

    @property
    def words(self) -> str:
        """The folder, and what else belongs to the model."""
        folder, n_others = self.runs[0].folder, len(self.runs) - 1
        if not n_others:
            return str(folder)
        if self.first.folds:
            return f"{folder} and {n_others} other folds"
        seeds = ", ".join(str(run.spec.seed) for run in self.runs)
        return f"the mean of seeds {seeds} in {folder.parent}"

    @property
    def is_kept(self) -> bool:
        return all(is_kept(run) for run in self.runs)


def _candidates(results: Path, pack: str | None, each_seed: bool) -> list[_Candidate]:
    """Read all runs below a folder; put those of a model's seeds and of a table's folds together.

    If the pack of a single fold is asked for, its runs stay by themselves.
    """
    found = collect_runs(results)[0]
    joined = JoinedRuns(found, [])
    if pack is None or not any(run.spec.pack == pack for run in found):
        joined = join_folds(found)
    for sentence in joined.lacking:
        logger.warning(f"warning: {sentence}")
    alone = [one for run in joined.runs if not run.folds for one in one_a_property(run)]
    sets: dict[object, list[FinishedRun]] = {}
    for run in joined.runs:
        if run.folds:
            base = name_of_folds(run.folds[0].spec.pack)
            key = (dataclasses.replace(run.spec, pack=base), repr(run.result.recipe), run.joint)
            sets.setdefault(key, []).append(run)
    return [
        *(
            _Candidate(runs[0].spec.pack, runs[0], runs, tuple(run.result.val_mae for run in runs))
            for runs in _of_models(alone, each_seed)
        ),
        *(
            _Candidate(
                name_of_folds(repeats[0].folds[0].spec.pack),
                repeats[0],
                tuple(fold for run in repeats for fold in run.folds),
                tuple(run.result.val_mae for run in repeats),
            )
            for repeats in sets.values()
        ),
    ]


def _of_models(runs: Sequence[FinishedRun], each_seed: bool) -> list[tuple[FinishedRun, ...]]:
    """Group the runs of each model by seed; a run that cannot be chosen stays alone."""
    models: dict[object, list[FinishedRun]] = {}
    for number, run in enumerate(runs):
        key: object = number
        if run.uses_seed and not each_seed and is_kept(run) and run.result.val_mae is not None:
            spec = dataclasses.replace(run.spec, seed=0)
            key = (run.folder.parent, spec, repr(run.result.recipe), run.joint)
        models.setdefault(key, []).append(run)
    return [tuple(sorted(of_model, key=lambda run: run.spec.seed)) for of_model in models.values()]


def is_kept(run: FinishedRun) -> bool:
    """Return True if the run has kept its model, as far as its result and its files tell."""
    files = RunFolder(run.folder)
    if not run.spec.is_classical:
        return files.model.exists()
    is_number = run.spec.architecture in AS_NUMBERS
    return run.keeps_model and (files.parameters if is_number else files.estimator).exists()


def _val_rows_key(run: FinishedRun) -> tuple[str, ...]:
    """Return the facts about a run's pack that decide which materials are its val rows."""
    identity = run.result.pack_identity
    return tuple(str(identity.get(name)) for name in ("source", "source_sha256", "split"))
