"""The mean of the seeds' predictions: a model of its own, whose MAE is never part of the mean of theirs."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.render import row_format
from irnet_hpc.aggregate.scores import Cell
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.predictions import read_rows
from irnet_hpc.runs.spec import model_name

SAID = (
    "Test MAE of the mean of the predictions that the seeds of one split make, and by how many per cent it is below the mean "
    "of their MAEs, which the tables above show; of several splits their mean. It costs as many trainings as it has seeds, "
    "and enters no mean, no best and no improvement. Only where the predictions of all runs of a cell can be read."
)


def with_ensembles(tables: Sequence[Table], problems: dict[Path, str]) -> tuple[Table, ...]:
    """The tables with `ensemble_mae` in every cell whose runs' predictions are all there."""
    return tuple(
        dataclasses.replace(table, rows=tuple(_with_ensembles(row, problems) for row in table.rows))
        for table in tables
    )


def _with_ensembles(row: Row, problems: dict[Path, str]) -> Row:
    cells = [
        cell and dataclasses.replace(cell, ensemble_mae=ensemble_mae(cell.runs, problems))
        for cell in row.cells
    ]
    return dataclasses.replace(row, cells=tuple(cells))


def ensemble_mae(runs: Sequence[FinishedRun], problems: dict[Path, str]) -> float | None:
    """MAE of the mean of the seeds' predictions, over several splits the mean of theirs; None where a split has fewer than
    two seeds, or the predictions of a run are not there."""
    of_split = defaultdict(list)
    for run in runs:
        of_split[run.split].append(run)
    if min(map(len, of_split.values())) < 2:
        return None
    import numpy as np

    rows = read_rows(runs, problems)
    if sum(len(one.predictions) for one in rows.values()) < len(runs):
        return None
    maes = [
        np.abs(np.mean(list(one.predictions.values()), axis=0) - one.target).mean()
        for one in rows.values()
    ]
    return float(np.mean(maes))


def ensembles_section(tables: Sequence[Table]) -> Section:
    """One block a table, in whose cells are the ensemble's MAE and its gain; their numbers are in mae.csv."""
    found = [
        table
        for table in tables
        if any(cell and cell.ensemble_mae for row in table.rows for cell in row.cells)
    ]
    blocks = tuple(Block(table.title, table.name, _grid(table)) for table in found)
    return Section("ensembles", "Mean of the seeds' predictions", SAID, blocks, [])


def _grid(table: Table) -> list[list[Text]]:
    lines = [[Text(text) for text in ("property", *(model_name(*model) for model in table.models))]]
    for row in table.rows:
        form = row_format(row)
        texts = [_text(cell, form) for cell in row.cells]
        if any(texts):
            why = [
                _why(cell) if cell else table.why_missing(row, *model)
                for model, cell in zip(table.models, row.cells, strict=True)
            ]
            shown = [text or reason for text, reason in zip(texts, why, strict=True)]
            lines.append([Text(text) for text in (f"{row.property} ({row.unit})", *shown)])
    return lines


def _why(cell: Cell) -> str:
    return "one seed a split" if cell.n <= max(1, len(cell.splits)) else "no predictions"


def _text(cell: Cell | None, form: str) -> str:
    if cell is None or cell.ensemble_mae is None:
        return ""
    gain = f", {100 * (cell.mae - cell.ensemble_mae) / cell.mae:+.1f} %" if cell.mae else ""
    n_splits = max(1, len(cell.splits))
    whole, rest = divmod(cell.n, n_splits)
    of = f"of {whole}" + (f", {n_splits} splits" if n_splits > 1 else "")
    if rest:  # splits have unlike numbers of seeds
        of = f"of {cell.n} in {n_splits} splits"
    return f"{cell.ensemble_mae:{form}} ({of}{gain})"
