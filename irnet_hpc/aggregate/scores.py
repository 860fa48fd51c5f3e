"""Summarise the runs of a model on one property: their mean MAE, its spread and improvements."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple, Self

from irnet_hpc.aggregate.few_rows import HalfRows
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.spec import ARCHITECTURES, RunSpec, model_name

# The names of architectures in text and figures; others keep their names in the matrix.
NAMES = {
    "plain": "plain",
    "srnet": "SRNet",
    "irnet": "IRNet",
    "brnet": "BRNet",
    "elemnet": "ElemNet",
}

# With fewer runs of a model that uses a seed, no interval and no difference is claimed.
MIN_RUNS = 3


class Model(NamedTuple):
    """An architecture and a depth, e.g. irnet-17: a column of a table."""

    architecture: str
    depth: int | None = None  # None: a classical model

    def __str__(self) -> str:
        return model_name(*self)

    @property
    def order(self) -> tuple[int, str, int]:
        """The sort key of columns: plain, srnet, irnet, then other models, each by depth."""
        names = ARCHITECTURES
        known = self.architecture in names
        place = names.index(self.architecture) if known else len(names)
        return place, self.architecture, self.depth or 0


def model_of(spec: RunSpec) -> Model:
    """Return the model that a specification trains."""
    return Model(spec.architecture, spec.depth)


def mean_mae(runs: Iterable[FinishedRun]) -> float:
    """Return the mean test MAE of runs."""
    return fmean(run.result.test_mae for run in runs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """The test MAEs of one model's runs on one property, in the property's unit."""

    mae: float  # mean over the runs: one for each seed and, if there are several, each split
    sd: float | None  # standard deviation over the runs, ddof = 1; None: a single run
    runs: tuple[FinishedRun, ...] = dataclasses.field(repr=False)  # ordered by split and seed
    # True if the MAE is the lowest of its row, baseline included, or does not differ significantly
    # from the lowest.
    best: bool = False
    # The 95 % interval, from resampled seeds and test rows; None: too few runs, or predictions are
    # missing.
    interval: tuple[float, float] | None = None
    # The probability of this difference from the best of the row if the two were equally good,
    # adjusted by Holm's method over the comparisons; None: not tested, or this is the lowest MAE.
    p_against_best: float | None = None
    # The same against the lowest MAE of all models that were tested on the same rows (same_rows).
    p_among_all: float | None = None
    # The fewest test rows that make half of the MAE; None: as half_rows() of few_rows.py says.
    half: HalfRows | None = None

    @classmethod
    def from_runs(cls, runs: Sequence[FinishedRun], **fields: Any) -> Self:
        """Compute the score of runs.

        `fields` are the fields of the class besides mae, sd and runs.
        """
        maes = [run.result.test_mae for run in runs]
        sd = stdev(maes) if len(maes) > 1 else None
        return cls(mae=mean_mae(runs), sd=sd, runs=tuple(runs), **fields)

    @property
    def n(self) -> int:
        """Number of runs."""
        return len(self.runs)

    def mean(self, field: str) -> float | None:
        """Return the mean of a number of the results, such as test_rmse; None if a run lacks it."""
        values = [getattr(run.result, field) for run in self.runs]
        return None if None in values else fmean(values)

    def sd_of(self, field: str) -> float | None:
        """Return the standard deviation (ddof = 1) of a number of the results.

        It is None if there is a single run, or if a run lacks the number.
        """
        values = [getattr(run.result, field) for run in self.runs]
        return None if None in values or len(values) < 2 else stdev(values)

    @property
    def uses_seed(self) -> bool:
        """Return False if the model gives one result for all seeds, once for each split."""
        return any(run.uses_seed for run in self.runs) or self.n > max(1, len(self.splits))

    @property
    def has_enough_runs(self) -> bool:
        """Return True if there are MIN_RUNS trainings, or all that a model without a seed has."""
        return self.n_trainings >= MIN_RUNS or not self.uses_seed

    @property
    def n_trainings(self) -> int:
        """Number of trainings: a run that puts folds together stands for one of each fold."""
        return sum(run.n_trainings for run in self.runs)

    @property
    def far_above_baseline(self) -> tuple[FinishedRun, ...]:
        """The runs whose MAE on val or test is far above the baseline's."""
        return tuple(run for run in self.runs if run.result.is_far_above_baseline)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The facts and warnings that must be shown together with the MAE."""
        n_far = len(self.far_above_baseline)
        of = f"{n_far} of them " if 0 < n_far < self.n else ""
        n_folds = max(len(run.folds) for run in self.runs)
        remarks = [f"{n_folds} folds each"] if n_folds else []
        remarks += [] if self.uses_seed else ["no seed"]
        remarks += [f"{of}far above the baseline"] if n_far else []
        if self.half and self.half.are_few:
            rows = "row makes" if self.half.n == 1 else "rows make"
            remarks.append(f"{self.half.n} {rows} {100 * self.half.share:.0f} %")
        return tuple(remarks)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the trainings, each once."""
        return tuple(sorted({run.spec.seed for run in self.runs}))

    @property
    def splits(self) -> tuple[int, ...]:
        """Seeds of the packs' splits; empty if the splits have no seed."""
        return tuple(sorted({run.split for run in self.runs if run.split is not None}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestClassical(Score):
    """The classical model with the lowest MAE on val, and its test MAE."""

    model: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelScore(Score):
    """The score of one model of a table on one property.

    An improvement is the percentage by which the MAE is below the MAE of the other model. It
    compares only the splits and seeds that both have (against a classical model: only the splits
    that both have). None means that the two have nothing in common.
    """

    improvement_over_plain: float | None  # over the plain network of the same depth
    improvement_over_classical: float | None  # over the row's best classical model
    improvement_over_single: float | None  # joint table: over a network for this property alone
    n_parameters: int | None
    device_hours: float  # sum over the runs
    # The MAE of the mean of the seeds' predictions. It is never part of `mae`, and None in the
    # cases that significance.ensemble_mae() states.
    ensemble_mae: float | None = None
    # The median of the absolute errors of the test rows, averaged over runs; None: a run has no
    # predictions.
    median_error: float | None = None

    @property
    def hours(self) -> float:
        """Mean device-hours of a run."""
        return self.device_hours / self.n


def score_model(
    runs: Sequence[FinishedRun],
    plain: Sequence[FinishedRun],
    single: Sequence[FinishedRun],
    classical: BestClassical | None,
    best: bool,
) -> ModelScore:
    """Score a model from its runs and from the runs with which it is compared.

    Args:
        runs: the runs of the model on one property, at least one.
        plain: the runs of the plain network of the same depth.
        single: for a joint table, the runs of the same model on this property alone.
        classical: the best classical model of the row.
        best: True if no other MAE of the row is lower.
    """
    is_plain = runs[0].spec.architecture == "plain"
    return ModelScore.from_runs(
        runs,
        best=best,
        improvement_over_plain=None if is_plain else _improvement(runs, plain),
        improvement_over_classical=_improvement_over_splits(runs, classical.runs)
        if classical
        else None,
        improvement_over_single=_improvement(runs, single),
        n_parameters=runs[0].result.n_parameters,
        device_hours=math.fsum(run.result.device_hours for run in runs),
    )


def percent_below(mae: float, other: float | None) -> float | None:
    """Return the percentage by which `mae` is below `other`; None if `other` is 0 or None."""
    return 100 * (other - mae) / other if other else None


def _improvement(runs: Sequence[FinishedRun], others: Sequence[FinishedRun]) -> float | None:
    """Return the improvement over the splits and seeds that both have; None if there are none."""
    common = {run.repetition for run in runs} & {run.repetition for run in others}
    if not common:
        return None
    mae, other = (
        fmean(run.result.test_mae for run in side if run.repetition in common)
        for side in (runs, others)
    )
    return percent_below(mae, other)


def _improvement_over_splits(
    runs: Sequence[FinishedRun], others: Sequence[FinishedRun]
) -> float | None:
    """Return the improvement over a classical model, over the splits that both have.

    The seeds of a classical model have nothing to do with the seeds of a network.
    """
    common = {run.split for run in runs} & {run.split for run in others}
    if not common:
        return None
    mae, other = (
        mean_over_splits([run for run in side if run.split in common], "test_mae")
        for side in (runs, others)
    )
    return percent_below(mae, other)


def best_classical(runs: Sequence[FinishedRun], name: str, protocol: str) -> BestClassical | None:
    """Choose the classical model with the lowest MAE on val over all splits.

    Protocol `paper` trains on val; then the val MAEs of the honest runs of the same models are
    used. A model that was fitted on fewer splits than another is left out, since its splits may be
    easier.

    Args:
        runs: the runs of classical models.
        name: the property.
        protocol: the protocol whose test MAE is reported.
    """
    val: dict[str, list[FinishedRun]] = defaultdict(list)
    test: dict[str, dict[tuple[int, int], FinishedRun]] = defaultdict(dict)
    for run in (run for run in runs if run.spec.property == name):
        if run.spec.protocol == "honest" and run.result.val_mae is not None:
            val[run.spec.model].append(run)
        if run.spec.protocol == protocol:
            test[run.spec.model][run.repetition] = run  # a run that was copied counts once
    n_splits = {
        model: min(len({run.split for run in side}) for side in (val[model], test[model].values()))
        for model in val
        if model in test
    }
    complete = [model for model in n_splits if n_splits[model] == max(n_splits.values())]
    if not complete:
        return None
    model = min(sorted(complete), key=lambda model: mean_over_splits(val[model], "val_mae"))
    return BestClassical.from_runs([run for _, run in sorted(test[model].items())], model=model)


def mean_over_splits(runs: Sequence[FinishedRun], field: str) -> float:
    """Average a field over seeds, then over splits, so that all splits have equal weight."""
    values = defaultdict(list)
    for run in runs:
        values[run.split].append(getattr(run.result, field))
    return fmean(map(fmean, values.values()))
