"""Read predictions, and add intervals, significance and ensembles to the tables.

The best model of a row is compared with every other model of the row, on the test rows, splits and
seeds that both have; Holm's correction covers these comparisons, or, if the best of the row is the
lowest of all models on these rows, the comparisons with all of them. A model that does not differ
significantly from the best is marked as best, too. If a network has fewer than MIN_RUNS runs, no
difference is claimed, and only the lowest MAE is marked. A model without a seed has no other runs:
two of them are compared by the test rows alone.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from irnet_hpc.aggregate.few_rows import half_rows
from irnet_hpc.aggregate.same_rows import groups_of, same_rows
from irnet_hpc.aggregate.scores import MIN_RUNS, Score
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.predictions import (
    Predictions,
    Splits,
    has_predictions,
    pool_splits,
    readable_runs,
)

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.05
AnyScore = TypeVar("AnyScore", bound=Score)


class RunPairs(NamedTuple):
    """The runs of two models on one split, paired for a comparison."""

    runs: Sequence[FinishedRun]
    others: Sequence[FinishedRun]
    # Whether each of `runs` is compared with the mean of `others`, instead of seed by seed. The
    # seed of a classical model has another meaning than a network's, and often there is only one.
    averaged: bool


def judge(tables: Sequence[Table], predictions: Predictions) -> tuple[Table, ...]:
    """Add to the tables all numbers that need predictions, and mark the scores as good as the best.

    A model has one p-value against the same other model in all outputs: if the best of a row is
    the lowest of all models on these rows, the test of all of them stands in the row, too.

    Returns:
        The new tables.
    """
    tables = [
        dataclasses.replace(table, rows=tuple(_with_rows(row, predictions) for row in table.rows))
        for table in tables
    ]
    tests = _tests_among_all(tables, predictions)
    among_all = {name: p for test in tests.values() for name, p in test.items()}
    return tuple(
        dataclasses.replace(
            table, rows=tuple(_judged(row, predictions, tests, among_all) for row in table.rows)
        )
        for table in tables
    )


class Named(NamedTuple):
    """The name of a score that stays the same in all tables: its property and its runs."""

    property: str
    folders: frozenset[Path]


# Score with the lowest MAE on some rows -> score on these rows -> its p; None: not tested.
Tests = Mapping[Named, Mapping[Named, float | None]]


def _named(row: Row, score: Score) -> Named:
    return Named(row.property, frozenset(run.folder for run in score.runs))


def _tests_among_all(tables: Sequence[Table], predictions: Predictions) -> Tests:
    """Test all models on the same rows against the one with the lowest MAE."""
    tests = {}
    for known in itertools.chain.from_iterable(map(same_rows, groups_of(tables))):
        if known.lowest:
            scores = [entry.score for entry in known.entries]
            p = p_against(known.lowest, scores, predictions)
            names = {id(entry.score): _named(entry.row, entry.score) for entry in known.entries}
            tests[names[id(known.lowest)]] = {name: p.get(number) for number, name in names.items()}
    return tests


def _with_rows(row: Row, predictions: Predictions) -> Row:
    """Add ensembles, and the rows that make half of each MAE."""
    scores = tuple(
        score
        and dataclasses.replace(
            score,
            ensemble_mae=ensemble_mae(score.runs, predictions),
            half=half_rows(score.runs, predictions),
            median_error=median_error(score.runs, predictions),
        )
        for score in row.scores
    )
    classical = row.best_classical
    if classical:
        half = half_rows(classical.runs, predictions)
        classical = dataclasses.replace(classical, half=half)
    return dataclasses.replace(row, scores=scores, best_classical=classical)


def ensemble_mae(runs: Sequence[FinishedRun], predictions: Predictions) -> float | None:
    """Return the MAE of the mean of the seeds' predictions, averaged over splits.

    The result is None if a split has fewer than two seeds, or if a run's predictions cannot be
    read.
    """
    if min(Counter(run.split for run in runs).values()) < 2:
        return None
    splits = predictions.by_split(runs)
    if sum(len(split.predictions) for split in splits.values()) < len(runs):
        return None
    # Imported here and below, since tables of runs without predictions need no numpy.
    import numpy as np

    maes = [
        np.abs(np.mean(list(split.predictions.values()), axis=0) - split.rows.target).mean()
        for split in splits.values()
    ]
    return float(np.mean(maes))


def median_error(runs: Sequence[FinishedRun], predictions: Predictions) -> float | None:
    """Return the median of the absolute errors of the test rows, averaged over the runs.

    The result is None if a run has no predictions, or if they cannot be read.
    """
    if not all(map(has_predictions, runs)):
        return None
    splits = predictions.by_split(runs)
    readable = readable_runs(runs, splits)
    if sum(map(len, readable.values())) < len(runs):
        return None
    import numpy as np

    medians = [np.median(splits[split].errors(side), axis=1) for split, side in readable.items()]
    return float(np.concatenate(medians).mean())


def _judged(
    row: Row, predictions: Predictions, tests: Tests, among_all: Mapping[Named, float | None]
) -> Row:
    """Add intervals and p-values to a row, and mark the scores that are as good as the best."""
    shown: list[Score] = [score for score in (*row.scores, row.best_classical) if score]
    adjusted: dict[int, float | None] = {}
    splits: Splits | None = None  # None: too few runs for intervals and p-values in this row
    if any(score.has_enough_runs for score in shown):
        runs = {run.folder: run for score in shown for run in score.runs}
        splits = predictions.by_split(runs.values())
        lowest = next((score for score in shown if score.best), None)  # None: baseline is lowest
        of_all = tests.get(_named(row, lowest), {}) if lowest else {}
        if lowest and all(_named(row, score) in of_all for score in shown):
            adjusted = {id(score): of_all[_named(row, score)] for score in shown}
        elif lowest:
            adjusted = _adjusted(shown, lowest, splits)

    def mark(score: AnyScore) -> AnyScore:
        marked = score if splits is None else _mark(score, adjusted.get(id(score)), splits)
        return dataclasses.replace(marked, p_among_all=among_all.get(_named(row, score)))

    return dataclasses.replace(
        row,
        scores=tuple(score and mark(score) for score in row.scores),
        best_classical=row.best_classical and mark(row.best_classical),
    )


def p_against(
    lowest: Score, scores: Sequence[Score], predictions: Predictions
) -> dict[int, float | None]:
    """Test if models differ from the one with the lowest MAE, with Holm's correction.

    Args:
        lowest: the score with the lowest MAE.
        scores: all scores on the same test rows; `lowest` may be among them.
        predictions: the reader of their predictions.

    Returns:
        The id() of a score -> its p; those that cannot be tested are left out.
    """
    if not any(score.has_enough_runs for score in scores):
        return {}
    runs = {run.folder: run for score in scores for run in score.runs}
    return _adjusted(scores, lowest, predictions.by_split(runs.values()))


def _adjusted(scores: Sequence[Score], lowest: Score, splits: Splits) -> dict[int, float | None]:
    probabilities = {
        id(score): p
        for score in scores
        if score is not lowest and (p := _probability(score, lowest, splits)) is not None
    }
    if not probabilities:
        return {}
    from irnet_hpc.aggregate.statistics import holm

    return dict(zip(probabilities, holm(list(probabilities.values())), strict=True))


def _mark(score: AnyScore, p: float | None, splits: Splits) -> AnyScore:
    best = score.best or (p is not None and p >= LEVEL)
    interval = _interval(score, splits)
    return dataclasses.replace(score, interval=interval, p_against_best=p, best=best)


def interval_of(score: Score, predictions: Predictions) -> tuple[float, float] | None:
    """Return the 95 % interval of a MAE; None if there are too few runs or predictions."""
    return _interval(score, predictions.by_split(score.runs))


def _interval(score: Score, splits: Splits) -> tuple[float, float] | None:
    """Return the 95 % interval of a MAE; None if there are too few runs or predictions."""
    if not score.has_enough_runs:
        return None
    runs = readable_runs(score.runs, splits)
    if sum(map(len, runs.values())) < score.n:
        return None
    import numpy as np

    from irnet_hpc.aggregate.statistics import mean_interval

    pools = pool_splits(runs, splits)
    errors = [
        np.concatenate([splits[split].errors(runs[split]) for split in pool]) for pool in pools
    ]
    errors = averaged_if_joined(errors, score.runs)
    interval = mean_interval(errors, formulas_of(pools, splits))
    # The mean of a score is over runs, and splits may have different numbers of runs.
    shift = score.mae - interval.mean
    return interval.low + shift, interval.high + shift


def averaged_if_joined(
    errors: "list[np.ndarray]", runs: Iterable[FinishedRun]
) -> "list[np.ndarray]":
    """Average errors (n_runs, n_rows) over runs, to (1, n_rows), if the runs put folds together.

    Each of these runs consists of several trainings already, and the few repeats and seeds would
    tell little of their spread. So only rows, by formula, make the interval.
    """
    if not any(run.folds for run in runs):
        return errors
    return [draw.mean(axis=0, keepdims=True) for draw in errors]


def formulas_of(pools: Iterable[Sequence[int | None]], splits: Splits) -> list:
    """Return numbers that identify the formulas of test rows (n_rows,), for each pool of splits.

    The splits of a pool have the same test rows.
    """
    return [splits[pool[0]].rows.formula_number for pool in pools]


def _probability(score: Score, best: Score, splits: Splits) -> float | None:
    """Return the p-value of the difference of two models; None if they share too few runs."""
    runs, best_runs = readable_runs(score.runs, splits), readable_runs(best.runs, splits)
    differences, n_runs = {}, 0
    for split in runs:
        if split in best_runs and (pair := _pair(runs[split], best_runs[split])):
            errors, others = (splits[split].errors(side) for side in (pair.runs, pair.others))
            differences[split] = errors - (others.mean(axis=0) if pair.averaged else others)
            n_runs += sum(run.n_trainings for run in pair.runs)
    if not n_runs or (n_runs < MIN_RUNS and (score.uses_seed or best.uses_seed)):
        return None
    import numpy as np

    from irnet_hpc.aggregate.statistics import paired_p

    pools = pool_splits(differences, splits)
    stacked = [np.concatenate([differences[split] for split in pool]) for pool in pools]
    return paired_p(averaged_if_joined(stacked, score.runs), formulas_of(pools, splits))


def _pair(runs: Sequence[FinishedRun], others: Sequence[FinishedRun]) -> RunPairs | None:
    """Pair the runs of two models; None if two networks have no seed in common.

    Networks are paired by seed. A classical model has no matching seeds, so the mean of its errors
    is compared with each run of the other model.
    """
    if runs[0].spec.is_classical or others[0].spec.is_classical:
        first, second = sorted(
            (runs, others), key=lambda side: (side[0].spec.is_classical, -len(side))
        )
        return RunPairs(first, second, averaged=True)
    common = sorted({run.spec.seed for run in runs} & {run.spec.seed for run in others})
    first, second = (
        [run for seed in common for run in side if run.spec.seed == seed] for side in (runs, others)
    )
    return RunPairs(first, second, averaged=False) if common else None
