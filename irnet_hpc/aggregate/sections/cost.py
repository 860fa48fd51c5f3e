"""What a MAE costs: parameters and device-hours beside it."""

from collections.abc import Iterable, Sequence

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.render import cell_text, row_format
from irnet_hpc.aggregate.scores import Cell
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.spec import model_name

SAID = (
    "device-hours: wall time of a training times its ranks, mean over the runs of a cell (a network of several properties "
    "shares them out equally). In bold: no other model of the property has both a lower MAE and fewer device-hours. Numbers of "
    "different devices and numbers of ranks are not comparable; result.json says which."
)


def costs_section(tables: Sequence[Table]) -> Section:
    """One block a table of several models; mae.csv has the numbers."""
    several = [table for table in tables if len(table.models) > 1]
    return Section(
        "costs",
        "Cost",
        SAID,
        tuple(Block(table.title, table.name, _grid(table)) for table in several),
        [],
    )


def hours(cell: Cell) -> float:
    """Device-hours of one training."""
    return cell.device_hours / cell.n


def on_front(cell: Cell, others: Iterable[Cell]) -> bool:
    """Whether nothing is as cheap and as good, and in one of them better."""
    ours = (cell.mae, hours(cell))
    theirs = [(other.mae, hours(other)) for other in others if other is not cell]
    return not any(
        mae <= ours[0] and cost <= ours[1] and (mae, cost) != ours for mae, cost in theirs
    )


def _grid(table: Table) -> list[list[Text]]:
    header = ("model", "property", "parameters", "device-hours a run", "runs", "test MAE")
    lines = [[Text(text) for text in header]]
    for row in table.rows:
        found = [cell for cell in row.cells if cell]
        lines += [
            _line(table, row, model, cell, cell and on_front(cell, found))
            for model, cell in zip(table.models, row.cells, strict=True)
        ]
    return lines


def _line(
    table: Table, row: Row, model: tuple[str, int | None], cell: Cell | None, front: bool
) -> list[Text]:
    name, target = model_name(*model), f"{row.property} ({row.unit})"
    if cell is None:
        why = table.why_missing(row, *model)
        return [Text(name), Text(target), *[Text(why)] * 4]
    parameters = f"{cell.n_parameters:,}" if cell.n_parameters is not None else "not counted"
    texts = [
        name,
        target,
        parameters,
        f"{hours(cell):.3g}",
        str(cell.n),
        cell_text(cell, row_format(row)),
    ]
    return [Text(text, bool(front) and place in (3, 5)) for place, text in enumerate(texts)]
