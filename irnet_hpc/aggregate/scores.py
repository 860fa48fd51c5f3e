"""Runs of one model on one property -> a cell: mean, spread, improvement over others; and the best classical model."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, stdev

from irnet_hpc.runs.collect import FinishedRun


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Runs of one model on one property: their test MAEs, in the property's unit."""

    mae: float  # mean over the runs: seeds, and seeds of splits where the pack has several
    sd: float | None  # standard deviation over the runs, ddof = 1; None where there is one
    runs: tuple[FinishedRun, ...] = dataclasses.field(repr=False)  # by split and seed
    best: bool = (
        False  # of its row, the baseline included; or not distinguishable from it (significance.py)
    )
    interval: tuple[float, float] | None = (
        None  # 95 %, seeds and test rows drawn again; None: too few runs, no predictions
    )
    p_against_best: float | None = (
        None  # adjusted by Holm over the row; None: not tested, or itself the best
    )

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({run.spec.seed for run in self.runs}))

    @property
    def splits(self) -> tuple[int, ...]:
        """Seeds of the packs' splits; empty where the packs have none."""
        return tuple(sorted({run.split for run in self.runs if run.split is not None}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestClassical(Measured):
    """The classical model of least MAE on val, which no test row has chosen, and its test MAE under the table's protocol."""

    model: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell(Measured):
    """One model of a table on one property."""

    improvement: (
        float | None
    )  # per cent by which the MAE is below plain's at the same depth, over the runs both have
    improvement_over_classical: (
        float | None
    )  # the same for the row's best classical, over the splits both have
    improvement_over_single: (
        float | None
    )  # of a joint table: below that of a network for this property alone
    n_parameters: int | None
    device_hours: float  # over all runs
    ensemble_mae: float | None = (
        None  # of the mean of the seeds' predictions (ensembles.py); never part of `mae`
    )


def cell_of(
    runs: list[FinishedRun],
    plain: list[FinishedRun],
    best: bool,
    classical: BestClassical | None,
    single: list[FinishedRun],
) -> Cell:
    return Cell(
        **mean_and_sd(runs),
        runs=tuple(runs),
        best=best,
        improvement=_improvement(runs, plain) if runs[0].spec.architecture != "plain" else None,
        improvement_over_classical=_improvement_over_splits(runs, classical.runs)
        if classical
        else None,
        improvement_over_single=_improvement(runs, single),
        n_parameters=runs[0].result.n_parameters,
        device_hours=math.fsum(run.result.device_hours for run in runs),
    )


def _improvement(runs: list[FinishedRun], others: list[FinishedRun]) -> float | None:
    """Per cent by which the MAE is below the others' over the splits and seeds both have; None where they share none."""
    common = {run.repetition for run in runs} & {run.repetition for run in others}
    if not common:
        return None
    ours, theirs = (
        fmean(run.result.test_mae for run in side if run.repetition in common)
        for side in (runs, others)
    )
    return 100 * (theirs - ours) / theirs if theirs else None


def _improvement_over_splits(
    runs: Sequence[FinishedRun], others: Sequence[FinishedRun]
) -> float | None:
    """The same for a model whose seeds mean something else, and may be one where the other has three: over the splits."""
    common = {run.split for run in runs} & {run.split for run in others}
    if not common:
        return None
    ours, theirs = (
        _mean_over_splits([run for run in side if run.split in common], "test_mae")
        for side in (runs, others)
    )
    return 100 * (theirs - ours) / theirs if theirs else None


def best_classical(runs: list[FinishedRun], name: str, protocol: str) -> BestClassical | None:
    """Chosen by val over all splits, whatever the protocol: under `paper`, which trains on val, by the same model's honest
    cells. A model that was fitted on fewer of the splits is not compared with the others: its splits may be the easy ones."""
    val, test = defaultdict(list), defaultdict(dict)
    for run in runs:
        if (
            run.spec.property == name
            and run.spec.protocol == "honest"
            and run.result.val_mae is not None
        ):
            val[run.spec.model].append(run)
        if run.spec.property == name and run.spec.protocol == protocol:
            test[run.spec.model][run.repetition] = run  # a copied run counts once
    known = [model for model in val if model in test]
    if not known:
        return None
    n_splits = {
        model: min(
            len({run.split for run in found}) for found in (val[model], test[model].values())
        )
        for model in known
    }
    known = [model for model in known if n_splits[model] == max(n_splits.values())]
    model = min(sorted(known), key=lambda model: _mean_over_splits(val[model], "val_mae"))
    found = tuple(run for _, run in sorted(test[model].items()))
    return BestClassical(model=model, runs=found, **mean_and_sd(found))


def mean_and_sd(runs: Sequence[FinishedRun]) -> dict[str, float | None]:
    maes = [run.result.test_mae for run in runs]
    return {"mae": fmean(maes), "sd": stdev(maes) if len(maes) > 1 else None}


def _mean_over_splits(runs: Sequence[FinishedRun], field: str) -> float:
    """A field's mean over splits of its mean over seeds: a split with more seeds counts no more than the others."""
    of_split = defaultdict(list)
    for run in runs:
        of_split[run.split].append(getattr(run.result, field))
    return fmean(map(fmean, of_split.values()))
