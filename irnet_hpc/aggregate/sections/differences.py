"""Show whether one model is better than another: the mean difference of their errors.

IRNet is compared with the plain network of the same depth and with the row's best classical model.
A run that starts from the weights of another run is compared with the same model trained from
scratch, and with the best classical model. Both errors are on the same test rows, and each
difference has a 95 % interval.
"""

import builtins
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from irnet_hpc.aggregate.few_rows import HalfRows, half_of_difference
from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, line_of, missing
from irnet_hpc.aggregate.mae_table import (
    difference_format,
    interval_text,
    percent_text,
    settings_of,
)
from irnet_hpc.aggregate.scores import MIN_RUNS, Model, ModelScore, Score
from irnet_hpc.aggregate.significance import averaged_if_joined, formulas_of
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.predictions import Predictions, Splits, pool_splits, readable_runs

TEXT = (
    "difference: the model's MAE minus that of the model it is compared with, on the same test "
    "rows, over the splits that both have; below zero the model is better. interval: 95 % of a "
    "bootstrap that redraws splits, seeds and test rows (by formula), widened if runs are few "
    "(irnet_hpc/aggregate/statistics.py). Where it contains zero, the two may be equally good. "
    f"With fewer than {MIN_RUNS} runs of a network there is no interval. Each line stands "
    "alone: one interval in twenty is expected to miss the true difference. half of it from: the "
    "fewest test rows that cause half of the difference."
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """The MAE of one model minus the MAE of another model, in the property's unit."""

    property: str
    unit: str
    model: str
    against: str
    mean: float  # over splits, seeds and test rows
    percent: float | None  # in per cent of the other model's MAE; None if that MAE is 0
    low: float | None  # None: fewer than MIN_RUNS runs
    high: float | None
    n_splits: int
    n_runs: int  # number of runs of the model
    n_runs_against: int
    half: HalfRows | None  # the rows that cause half of it; None: the difference is 0
    n_test: int  # number of test rows of all splits; a row of several splits counts once

    @builtins.property
    def excludes_zero(self) -> bool | None:
        """Return True if the interval excludes zero; None if there is no interval."""
        return None if self.interval is None else self.interval[0] > 0 or self.interval[1] < 0

    @builtins.property
    def interval(self) -> tuple[float, float] | None:
        """The interval; None if there are too few runs."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two scores that are compared."""

    model: Model
    score: ModelScore
    against: str
    other: Score


def differences_of(
    tables: Sequence[Table], predictions: Predictions
) -> list[tuple[Table, tuple[Difference, ...]]]:
    """Compute the differences for each table that has models to compare with each other."""
    compared = []
    for table in tables:
        scratch = _tables_from_scratch(table, tables) if table.start else []
        differences = []
        for row in table.rows:
            pairs = list(_pairs(table, row, scratch))
            scores = [score for pair in pairs for score in (pair.score, pair.other)]
            runs = {run.folder: run for score in scores for run in score.runs}
            splits = predictions.by_split(runs.values())
            differences += [_difference(row, pair, splits) for pair in pairs]
        if known := tuple(difference for difference in differences if difference):
            compared.append((table, known))
    return compared


def _tables_from_scratch(table: Table, tables: Iterable[Table]) -> list[tuple[str, Table]]:
    """List the tables that differ from a table in that their runs start from random weights.

    A recipe for continuing a training has few epochs at a low learning rate, so training from
    scratch with this recipe gives too weak a rival. Therefore tables of other recipes are listed,
    too.

    Returns:
        (words, table), where the words name the table in a comparison.
    """
    alike = [
        other for other in tables if other.start is None and _settings(other) == _settings(table)
    ]
    recipe = table.recipe_label
    same = [("from scratch", other) for other in alike if other.recipe_label == recipe]
    return same + [
        (f"from scratch, recipe {other.recipe}", other)
        for other in alike
        if other.recipe_label != recipe and not other.stale
    ]


def _settings(table: Table) -> tuple:
    return table.pack, table.protocol, table.train_rows, table.joint


def _pairs(table: Table, row: Row, scratch: Iterable[tuple[str, Table]]) -> Iterator[Pair]:
    for model, score in zip(table.models, row.scores, strict=True):
        if score is None:
            continue
        for words, other_table in scratch:
            for other_row in other_table.rows:
                other = other_table.score(other_row, model)
                if other and (other_row.property, other_row.unit) == (row.property, row.unit):
                    yield Pair(model, score, words, other)
        is_irnet, plain = model.architecture == "irnet", Model("plain", model.depth)
        if is_irnet and (other := table.score(row, plain)):
            yield Pair(model, score, str(plain), other)
        if row.best_classical and (table.start or is_irnet):
            yield Pair(model, score, row.best_classical.model, row.best_classical)


def compare(row: Row, pair: Pair, predictions: Predictions) -> Difference | None:
    """Compare two scores of a row on common test rows; None if no split has both predictions."""
    runs = {run.folder: run for score in (pair.score, pair.other) for run in score.runs}
    return _difference(row, pair, predictions.by_split(runs.values()))


def _difference(row: Row, pair: Pair, splits: Splits) -> Difference | None:
    """Compare a pair of scores; None if no split has predictions of both models."""
    # Imported here, since tables without predictions need no numpy.
    import numpy as np

    from irnet_hpc.aggregate.statistics import paired_interval

    sides = [readable_runs(score.runs, splits) for score in (pair.score, pair.other)]
    common = [split for split in sides[0] if split in sides[1]]
    if not common:
        return None
    pools = pool_splits(common, splits)
    errors, other_errors = (
        [np.concatenate([splits[split].errors(side[split]) for split in pool]) for pool in pools]
        for side in sides
    )
    n_runs, n_others = sum(map(len, errors)), sum(map(len, other_errors))
    errors = averaged_if_joined(errors, pair.score.runs)
    other_errors = averaged_if_joined(other_errors, pair.other.runs)
    interval = paired_interval(errors, other_errors, formulas_of(pools, splits))
    n_trained, n_others_trained = (
        sum(run.n_trainings for split in common for run in side[split]) for side in sides
    )
    # A classical model is often the same for every seed, so it is often run with one seed only.
    is_classical = pair.other.runs[0].spec.is_classical
    enough = n_trained >= MIN_RUNS and (is_classical or n_others_trained >= MIN_RUNS)
    mae = sum(float(pool.mean()) for pool in other_errors) / len(other_errors)
    return Difference(
        property=row.property,
        unit=row.unit,
        model=str(pair.model),
        against=pair.against,
        mean=interval.mean,
        percent=100 * interval.mean / mae if mae else None,
        low=interval.low if enough else None,
        high=interval.high if enough else None,
        n_splits=len(common),
        n_runs=n_runs,
        n_runs_against=n_others,
        half=half_of_difference(
            [
                own.mean(axis=0) - others.mean(axis=0)
                for own, others in zip(errors, other_errors, strict=True)
            ],
            [splits[pool[0]].rows.formula for pool in pools],
        ),
        n_test=sum(pool.shape[1] for pool in errors),
    )


def section(findings: Findings) -> Section:
    """Make a block for each table that has models to compare."""
    compared = differences_of(findings.tables, findings.predictions)
    blocks = [TableBlock(table.title, table.name, _grid(known)) for table, known in compared]
    records = [_record(table, difference) for table, known in compared for difference in known]
    return Section("differences", "Differences", TEXT, blocks, records)


def _grid(differences: Iterable[Difference]) -> list[Line]:
    header = ("property", "model", "against", "difference", "%", "95 % interval", "excludes zero")
    lines = [line_of(*header, "splits × seeds", "of the other", "test rows", "half of it from")]
    for difference in differences:
        interval, few = difference.interval, missing(f"n < {MIN_RUNS}")
        spread = [(interval[1] - interval[0]) / 4] if interval else []
        form = difference_format([difference.mean], spread)
        lines.append(
            line_of(
                f"{difference.property} ({difference.unit})",
                difference.model,
                difference.against,
                f"{difference.mean:{form}}",
                percent_text(difference.percent, "of zero"),
                interval_text(*interval, form) if interval else few,
                ("yes" if difference.excludes_zero else "no") if interval else few,
                _runs_text(difference.n_splits, difference.n_runs),
                _runs_text(difference.n_splits, difference.n_runs_against),
                f"{difference.n_test:,}",
                f"{difference.half.n:,} rows" if difference.half else missing("it is 0"),
            )
        )
    return lines


def _runs_text(n_splits: int, n_runs: int) -> str:
    """Show the runs as `splits × seeds`, or as `splits, runs` if the numbers of seeds differ."""
    whole, rest = divmod(n_runs, n_splits)
    return f"{n_splits} ({n_runs} runs)" if rest else f"{n_splits} × {whole}"


def _record(table: Table, difference: Difference) -> dict:
    excludes, half = difference.excludes_zero, difference.half
    numbers = dataclasses.asdict(difference) | {
        "n_rows_of_half": half and half.n,
        "mean_without_them": half and half.mae_without,
    }
    del numbers["half"]
    return {
        **settings_of(table),
        **numbers,
        "excludes_zero": None if excludes is None else int(excludes),
    }
