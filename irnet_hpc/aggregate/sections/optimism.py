"""Show by how much the reported MAE is too low because the test rows selected the epoch.

A run of protocol `paper` selects its epoch, or its point of a grid, on the test rows. It also
repeats this selection on a random half of the test rows. Its optimism is the MAE on the other half
minus the MAE on the half that selected. The section also shows the MAE of protocol `honest`.
"""

import dataclasses
from collections.abc import Iterable
from statistics import fmean, stdev

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, missing
from irnet_hpc.aggregate.mae_table import difference_format, row_format, score_text, spread_text
from irnet_hpc.aggregate.scores import Model, ModelScore, Score
from irnet_hpc.aggregate.tables import Row, Table

HEADING = "Optimism of selecting on test"
TEXT = (
    "Protocol paper selects the epoch on the test rows and reports the MAE on the same rows. "
    "optimism: each run repeats its selection on either half of the test rows; optimism is the "
    "MAE on the other half minus the MAE on this half, averaged over the two halves, then mean ± "
    "sd over runs. If it is well above zero and its sd, the reported MAE is too low. A half has "
    "fewer rows than the whole, so chance has a larger effect. honest: the same model, with the "
    "epoch selected on val. It is trained without the rows of val, on which protocol paper "
    "trains, so the two MAEs differ by more than the selection. With several splits, both MAEs are "
    "over the splits that both have."
)


@dataclasses.dataclass(frozen=True)
class Optimism:
    """The optimism of one model on one property, in the property's unit."""

    mean: float  # over the runs
    sd: float | None  # ddof = 1
    n: int  # number of runs that measured the optimism
    percent: float | None  # the mean in per cent of the mean test MAE of these runs
    selected: Score  # selected on test; over the splits of `honest` if that is known
    honest: Score | None
    n_train_honest: int | None


@dataclasses.dataclass(frozen=True)
class OptimismTable:
    """The optimism of each model of a table of protocol `paper`."""

    table: Table
    rows: tuple[tuple[Row, dict[Model, Optimism]], ...]  # rows with at least one optimism


def optimism_tables(tables: Iterable[Table]) -> tuple[OptimismTable, ...]:
    """Compute the optimism for each table of protocol paper whose runs measured it."""
    tables = list(tables)
    honest = {_settings(table): table for table in tables if table.protocol == "honest"}
    optimism = []
    for table in tables:
        if table.protocol == "paper":
            other = honest.get(_settings(table))
            rows = [(row, _row_optimism(table, row, other)) for row in table.rows]
            measured = tuple((row, known) for row, known in rows if known)
            optimism.append(OptimismTable(table, measured))
    return tuple(item for item in optimism if item.rows)


def _settings(table: Table) -> tuple:
    return table.pack, table.recipe_label, table.train_rows, table.start, table.joint


def _row_optimism(table: Table, row: Row, honest: Table | None) -> dict[Model, Optimism]:
    honest_row = next(
        (
            other
            for other in (honest.rows if honest else ())
            if (other.property, other.unit) == (row.property, row.unit)
        ),
        None,
    )
    optimism = {}
    for model, score in zip(table.models, row.scores, strict=True):
        results = [run.result for run in score.runs] if score else []
        known = [result for result in results if result.optimism is not None]
        values = [result.optimism for result in known if result.optimism is not None]
        if not score or not values:
            continue
        mean, mae = fmean(values), fmean(result.test_mae for result in known)
        other = honest.score(honest_row, model) if honest and honest_row else None
        selected, honest_score = _over_common_splits(score, other)
        optimism[model] = Optimism(
            mean=mean,
            sd=stdev(values) if len(values) > 1 else None,
            n=len(values),
            percent=100 * mean / mae if mae else None,
            selected=selected,
            honest=honest_score,
            n_train_honest=honest_row.n_train if honest_row and honest_score else None,
        )
    return optimism


def _over_common_splits(score: ModelScore, other: ModelScore | None) -> tuple[Score, Score | None]:
    """Restrict two scores to their common splits; if there are none, return only the first."""
    if other is None:
        return score, None
    common = {run.split for run in score.runs} & {run.split for run in other.runs}
    if not common:
        return score, None
    first, second = (
        Score.from_runs([run for run in side.runs if run.split in common])
        for side in (score, other)
    )
    return first, second


def section(findings: Findings) -> Section:
    """Make a block for each table of protocol paper whose runs measured their optimism."""
    items = optimism_tables(findings.tables)
    blocks = [TableBlock(item.table.title, item.table.name, _grid(item)) for item in items]
    records = [record for item in items for record in _records(item)]
    return Section("optimism", HEADING, TEXT, blocks, records)


def _grid(item: OptimismTable) -> list[Line]:
    """Show each property's optimism, its percentage of the MAE, and the MAEs of both protocols."""
    table = item.table
    lines = [line_of("property", *map(str, table.models))]
    for row, known in item.rows:
        for name, texts in _row_texts(row, known).items():
            cells = [
                Text(text)
                if (text := texts.get(model))
                else missing(
                    "not measured" if table.score(row, model) else table.missing(row, model)
                )
                for model in table.models
            ]
            lines.append(line_of(name, *cells))
    return lines


def _row_texts(row: Row, known: dict[Model, Optimism]) -> dict[str, dict[Model, str]]:
    """Map the name of each line to the texts of its cells, by model."""
    form = row_format(row)
    values = list(known.values())
    signed = difference_format([value.mean for value in values], [value.sd for value in values])
    shown = {
        f"{row.label}: optimism": {
            model: spread_text(value.mean, value.sd, value.n, signed)
            for model, value in known.items()
        },
        "of the test MAE": {
            model: f"{value.percent:+.1f} %"
            for model, value in known.items()
            if value.percent is not None
        },
        f"MAE selected on test, {row.n_train:,} training rows": {
            model: score_text(value.selected, form) for model, value in known.items()
        },
    }
    if n_train := {value.n_train_honest for value in values if value.n_train_honest is not None}:
        shown[f"MAE honest, {min(n_train):,} training rows"] = {
            model: score_text(value.honest, form) for model, value in known.items() if value.honest
        }
    return shown


def _records(item: OptimismTable) -> list[dict]:
    table = item.table
    return [
        {
            "pack": table.pack,
            "property": row.property,
            "model": str(model),
            "recipe": table.recipe_label,
            "train_rows": table.train_rows,
            "start_from": table.start_from,
            "unit": row.unit,
            "optimism_mean": value.mean,
            "optimism_sd": value.sd,
            "n_runs": value.n,
            "optimism_percent_of_mae": value.percent,
            "selected_on_test_mae_mean": value.selected.mae,
            "selected_on_test_n_train": row.n_train,
            "honest_mae_mean": value.honest and value.honest.mae,
            "honest_n_runs": value.honest and value.honest.n,
            "honest_n_train": value.n_train_honest,
        }
        for row, known in item.rows
        for model, value in known.items()
    ]
