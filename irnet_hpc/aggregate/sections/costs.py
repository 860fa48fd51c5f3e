"""Show the cost of each MAE: the model's parameters and device-hours."""

from collections.abc import Iterable

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, line_of, missing
from irnet_hpc.aggregate.mae_table import row_format, score_text
from irnet_hpc.aggregate.scores import Model, ModelScore
from irnet_hpc.aggregate.tables import Row, Table

TEXT = (
    "device-hours: the wall time of a training times its number of ranks, averaged over the runs "
    "of a model (a network of several properties counts in equal shares for each). best buy: no "
    "other model has both a lower MAE and fewer device-hours. Do not compare hours of different "
    "devices or of different numbers of ranks; result.json states them."
)


def section(findings: Findings) -> Section:
    """Make a block for each table that has several models. Their numbers are also in mae.csv."""
    blocks = [
        TableBlock(table.title, table.name, _grid(table))
        for table in findings.tables
        if len(table.models) > 1
    ]
    return Section("costs", "Cost", TEXT, blocks)


def on_front(score: ModelScore, others: Iterable[ModelScore]) -> bool:
    """Return True if a score is on the Pareto front of MAE and device-hours.

    That is, no other score is at least as good in both and better in one of them.
    """
    own = (score.mae, score.hours)
    rivals = [(other.mae, other.hours) for other in others if other is not score]
    return not any(
        mae <= own[0] and hours <= own[1] and (mae, hours) != own for mae, hours in rivals
    )


def _grid(table: Table) -> list[Line]:
    header = ("model", "property", "parameters", "device-hours a run", "runs", "test MAE")
    return [line_of(*header, "best buy"), *(_line(table, *entry) for entry in table.entries())]


def _line(table: Table, row: Row, model: Model, score: ModelScore | None) -> Line:
    if score is None:
        return line_of(str(model), row.label, *[missing(table.missing(row, model))] * 5)
    front = on_front(score, [other for other in row.scores if other])
    known = score.n_parameters is not None
    return line_of(
        str(model),
        row.label,
        f"{score.n_parameters:,}" if known else missing("not counted"),
        f"{score.hours:.3g}",
        str(score.n),
        score_text(score, row_format(row)),
        "yes" if front else "no",
    )
