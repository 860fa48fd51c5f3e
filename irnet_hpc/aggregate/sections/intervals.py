"""How far MAEs can be trusted: an interval for each, and which of a row cannot be told from its best.

The best of a row is compared with every other model of the row on the test rows, splits and seeds that both have; Holm's
correction goes over these comparisons. What is not distinguishable from the best is marked as it is. Below FEWEST runs of a
network nothing is claimed, so nothing but the least MAE is marked.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.render import cell_text, row_format
from irnet_hpc.aggregate.scores import Measured
from irnet_hpc.aggregate.sections.differences import FEWEST
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.predictions import SplitRows, by_split, pools_of, read_rows
from irnet_hpc.runs.spec import model_name

LEVEL = 0.05
SAID = (
    "interval: 95 % of a bootstrap of the MAE that draws splits, seeds and test rows (by formula) again. against the best: the "
    "probability of so large a difference from the row's best where there is none, of paired differences of absolute errors "
    "on the test rows, splits and seeds that both have, adjusted by Holm over the row; what is at least "
    f"{LEVEL} is bold with the best. Below {FEWEST} runs of a network there is neither. The baseline, which has no "
    "predictions of its own, is compared by its MAE alone."
)


class Pair(NamedTuple):
    """Runs of two models on one split, to be compared."""

    runs: Sequence[FinishedRun]
    others: Sequence[FinishedRun]
    averaged: bool  # whether each of `runs` is compared with the mean of `others`: seeds of a classical model mean another
    # thing than a network's, and are often one; else with the one of its seed


def with_significance(tables: Sequence[Table], problems: dict[Path, str]) -> tuple[Table, ...]:
    """The tables with intervals, and with `best` in every cell that cannot be told from its row's best. `problems` gets a
    sentence for each run whose predictions are not there."""
    return tuple(
        dataclasses.replace(table, rows=tuple(_judged(row, problems) for row in table.rows))
        for table in tables
    )


def _judged(row: Row, problems: dict[Path, str]) -> Row:
    shown = [cell for cell in (*row.cells, row.best_classical) if cell]
    if max(cell.n for cell in shown) < FEWEST:
        return row
    rows = read_rows({run.folder: run for cell in shown for run in cell.runs}.values(), problems)
    least = next((cell for cell in shown if cell.best), None)  # None: the baseline
    found = [
        _compared(cell, least, rows) if least and cell is not least else None for cell in shown
    ]
    from irnet_hpc.aggregate.statistics import holm

    adjusted = iter(holm([p for p in found if p is not None]))
    judged = []
    for cell, p in zip(shown, found, strict=True):
        p = p if p is None else next(adjusted)
        best = cell.best or (p is not None and p >= LEVEL)
        judged.append(
            dataclasses.replace(cell, interval=_interval(cell, rows), p_against_best=p, best=best)
        )
    done = iter(judged)
    cells = tuple(next(done) if cell else None for cell in row.cells)
    return dataclasses.replace(row, cells=cells, best_classical=next(done, None))


def _interval(cell: Measured, rows: dict[int | None, SplitRows]) -> tuple[float, float] | None:
    """None where runs are too few, or the predictions of one are not there: it would be of another mean than the cell's."""
    if cell.n < FEWEST:
        return None
    import numpy as np

    from irnet_hpc.aggregate.statistics import mean_interval

    found = by_split(cell.runs, rows)
    if sum(map(len, found.values())) < cell.n:
        return None
    pools = pools_of(found, rows)
    errors = [
        np.concatenate([rows[split].errors(found[split]) for split in pool]) for pool in pools
    ]
    interval = mean_interval(errors, [rows[pool[0]].formula for pool in pools])
    centre = (
        cell.mae - interval.mean
    )  # a cell's mean is over runs, which splits may have unlike numbers of
    return interval.low + centre, interval.high + centre


def _compared(cell: Measured, best: Measured, rows: dict[int | None, SplitRows]) -> float | None:
    """Probability that the two differ by chance; None where too few runs or rows are common."""
    import numpy as np

    from irnet_hpc.aggregate.statistics import paired_p

    ours, theirs = by_split(cell.runs, rows), by_split(best.runs, rows)
    differences, n_runs = {}, 0
    for split in ours:
        if split in theirs and (pair := _in_pairs(ours[split], theirs[split])):
            a, b = (rows[split].errors(side) for side in (pair.runs, pair.others))
            differences[split] = a - (b.mean(axis=0) if pair.averaged else b)
            n_runs += len(a)
    if n_runs < FEWEST:
        return None
    pools = pools_of(differences, rows)
    stacked = [np.concatenate([differences[split] for split in pool]) for pool in pools]
    return paired_p(stacked, [rows[pool[0]].formula for pool in pools])


def _in_pairs(ours: Sequence[FinishedRun], theirs: Sequence[FinishedRun]) -> Pair | None:
    """None where no seed is common to two networks."""
    if ours[0].spec.is_classical or theirs[0].spec.is_classical:
        runs, others = sorted(
            (ours, theirs), key=lambda side: (side[0].spec.is_classical, -len(side))
        )
        return Pair(runs, others, averaged=True)
    common = sorted({run.spec.seed for run in ours} & {run.spec.seed for run in theirs})
    runs, others = (
        [run for seed in common for run in side if run.spec.seed == seed] for side in (ours, theirs)
    )
    return Pair(runs, others, averaged=False) if common else None


def significance_section(tables: Sequence[Table]) -> Section:
    """A block a table that has an interval, with a line a cell; its numbers are in mae.csv."""
    found = [
        table
        for table in tables
        if any(cell.interval or cell.p_against_best is not None for _, _, cell in _cells(table))
    ]
    blocks = tuple(Block(table.title, table.name, _grid(table)) for table in found)
    return Section(
        "intervals", "Intervals of the MAE, and what cannot be told from the best", SAID, blocks, []
    )


def _cells(table: Table) -> Iterable[tuple[Row, str, Measured]]:
    for row in table.rows:
        for model, cell in zip(table.models, row.cells, strict=True):
            if cell:
                yield row, model_name(*model), cell
        if row.best_classical:
            yield row, f"best classical: {row.best_classical.model}", row.best_classical


def _grid(table: Table) -> list[list[Text]]:
    lines = [
        [
            Text(text)
            for text in ("property", "model", "test MAE", "95 % interval", "against the best")
        ]
    ]
    for row, name, cell in _cells(table):
        form = row_format(row)
        few = f"n < {FEWEST}" if cell.n < FEWEST else "no predictions"
        interval = (
            f"{cell.interval[0]:{form}} to {cell.interval[1]:{form}}" if cell.interval else few
        )
        least = cell.best and cell.p_against_best is None
        tested = "is the best" if least else few if cell.n < FEWEST else "not compared"
        if cell.p_against_best is not None:
            tested = (
                "p < 0.001" if cell.p_against_best < 0.001 else f"p = {cell.p_against_best:.2g}"
            )
        texts = [f"{row.property} ({row.unit})", name, cell_text(cell, form), interval, tested]
        lines.append(
            [Text(text, cell.best and 1 <= place <= 2) for place, text in enumerate(texts)]
        )
    return lines
