"""How much selecting on the test rows flatters: protocol `paper` beside its own unseen half, and beside protocol `honest`.

A run of protocol `paper` selects its epoch, or its point of a grid, on the test rows. Within it the selection is made once
more on a fixed random half of them: the MAE on the other half less that on the half selected on is its optimism.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.render import cell_text, difference_format, row_format, spread_text
from irnet_hpc.aggregate.scores import Cell, Measured, mean_and_sd
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.spec import model_name

HEADING = "Optimism of selecting on test"
SAID = (
    "Protocol paper selects on the test rows and reports on them. optimism: within each run, the MAE on the half of the test "
    "rows that did not select less that on the half that did, both ways round, mean ± sd over runs; above zero the reported "
    "MAE flatters. A half is smaller than the whole, and easier to be lucky on. honest: the same model where val selects and "
    "test is touched once. It is trained without the rows of val, which protocol paper trains on, so the two differ by more "
    "than the selection. Of several splits these two are over those that both have."
)


@dataclasses.dataclass(frozen=True)
class Optimism:
    """Of one model on one property, in the property's unit."""

    mean: float  # over the runs
    sd: float | None  # ddof = 1
    n: int  # runs that know theirs
    percent: float | None  # of the mean test MAE of these runs
    selected: Measured  # on test; over the splits that `honest` has, where there is one
    honest: Measured | None
    n_train_honest: int | None


@dataclasses.dataclass(frozen=True)
class OptimismTable:
    of: Table
    rows: tuple[
        tuple[Row, tuple[Optimism | None, ...]], ...
    ]  # those with at least one; one a model of the table


def optimism_tables(tables: Iterable[Table]) -> tuple[OptimismTable, ...]:
    tables = list(tables)
    honest = {_but_for_protocol(table): table for table in tables if table.protocol == "honest"}
    found = []
    for table in tables:
        if table.protocol == "paper":
            other = honest.get(_but_for_protocol(table))
            rows = [(row, _of_row(table, row, other)) for row in table.rows]
            found.append(
                OptimismTable(table, tuple((row, cells) for row, cells in rows if any(cells)))
            )
    return tuple(table for table in found if table.rows)


def _but_for_protocol(table: Table) -> tuple:
    return table.pack, table.recipe, table.train_rows, table.start_from, table.joint


def _of_row(table: Table, row: Row, honest: Table | None) -> tuple[Optimism | None, ...]:
    same = (
        [other for other in honest.rows if (other.property, other.unit) == (row.property, row.unit)]
        if honest
        else []
    )
    found = []
    for model, cell in zip(table.models, row.cells, strict=True):
        runs = [run for run in cell.runs if run.result.optimism is not None] if cell else []
        if not runs:
            found.append(None)
            continue
        values, mae = (
            [run.result.optimism for run in runs],
            fmean(run.result.test_mae for run in runs),
        )
        selected, theirs = _over_common_splits(cell, honest.cell(same[0], *model) if same else None)
        found.append(
            Optimism(
                mean=fmean(values),
                sd=stdev(values) if len(values) > 1 else None,
                n=len(values),
                percent=100 * fmean(values) / mae if mae else None,
                selected=selected,
                honest=theirs,
                n_train_honest=same[0].n_train if theirs else None,
            )
        )
    return tuple(found)


def _over_common_splits(cell: Cell, other: Cell | None) -> tuple[Measured, Measured | None]:
    """Both over the splits that both have; the first as it is where there are none."""
    common = (
        {run.split for run in cell.runs} & {run.split for run in other.runs} if other else set()
    )
    if not common:
        return cell, None
    sides = [tuple(run for run in side.runs if run.split in common) for side in (cell, other)]
    selected, honest = (Measured(runs=runs, **mean_and_sd(runs)) for runs in sides)
    return selected, honest


def optimism_section(tables: Sequence[Table]) -> Section:
    found = optimism_tables(tables)
    blocks = tuple(Block(table.of.title, table.of.name, _grid(table)) for table in found)
    return Section(
        "optimism", HEADING, SAID, blocks, [line for table in found for line in _records(table)]
    )


def _grid(table: OptimismTable) -> list[list[Text]]:
    """Header first: for each property its optimism, what share of the MAE that is, and the MAEs of both protocols."""
    lines = [
        [Text(text) for text in ("property", *(model_name(*model) for model in table.of.models))]
    ]
    for row, cells in table.rows:
        form, known = row_format(row), [one for one in cells if one]
        signed = difference_format([one.mean for one in known], [one.sd for one in known])
        shown = {
            f"{row.property} ({row.unit}): optimism": [
                one and spread_text(one.mean, one.sd, one.n, signed) for one in cells
            ],
            "of the test MAE": [
                one and one.percent is not None and f"{one.percent:+.1f} %" for one in cells
            ],
            f"MAE selected on test, {row.n_train:,} training rows": [
                one and cell_text(one.selected, form) for one in cells
            ],
        }
        if trained := {one.n_train_honest for one in cells if one and one.honest}:
            name = f"MAE honest, {min(trained):,} training rows"
            shown[name] = [one and one.honest and cell_text(one.honest, form) for one in cells]
        for name, texts in shown.items():
            lines.append(
                [Text(name)]
                + [Text(text or why) for text, why in zip(texts, _why(table.of, row), strict=True)]
            )
    return lines


def _why(table: Table, row: Row) -> list[str]:
    """What each model lacks where a line has nothing of it."""
    cells = zip(table.models, row.cells, strict=True)
    return ["not measured" if cell else table.why_missing(row, *model) for model, cell in cells]


def _records(table: OptimismTable) -> list[dict]:
    return [
        {
            "pack": table.of.pack,
            "property": row.property,
            "model": model_name(*model),
            "recipe": table.of.recipe,
            "train_rows": table.of.train_rows,
            "start_from": table.of.start_from,
            "unit": row.unit,
            "optimism_mean": one.mean,
            "optimism_sd": one.sd,
            "n_runs": one.n,
            "optimism_percent_of_mae": one.percent,
            "selected_on_test_mae_mean": one.selected.mae,
            "selected_on_test_n_train": row.n_train,
            "honest_mae_mean": one.honest and one.honest.mae,
            "honest_n_runs": one.honest and one.honest.n,
            "honest_n_train": one.n_train_honest,
        }
        for row, cells in table.rows
        for model, one in zip(table.of.models, cells, strict=True)
        if one
    ]
