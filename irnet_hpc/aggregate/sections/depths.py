"""Architecture x depth: the papers' table, one a property."""

from collections.abc import Sequence

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.render import cell_text, row_format
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.models.architectures import MODELS

FEWEST = 6  # networks, up to which a table's own line of them is read as easily
SAID = "Test MAE, as in the tables: a line an architecture, a column a depth."


def depths_section(tables: Sequence[Table]) -> Section:
    """A block a property of each table of many networks; mae.csv has the numbers."""
    blocks = [
        Block(
            f"{row.property} ({row.unit}), {table.title}",
            f"{row.property}-{table.name}",
            _grid(table, row),
        )
        for table in tables
        if len(depths_of(table)) > 1 and sum(bool(depth) for _, depth in table.models) > FEWEST
        for row in table.rows
    ]
    return Section("depths", "Architecture × depth", SAID, tuple(blocks), [])


def depths_of(table: Table) -> list[int]:
    return sorted({depth for _, depth in table.models if depth})


def _grid(table: Table, row: Row) -> list[list[Text]]:
    form, depths = row_format(row), depths_of(table)
    lines = [[Text("architecture"), *(Text(f"{depth} layers") for depth in depths)]]
    for architecture in dict.fromkeys(
        architecture for architecture, depth in table.models if depth
    ):
        line = [Text(architecture)]
        for depth in depths:
            cell = table.cell(row, architecture, depth)
            line.append(
                Text(cell_text(cell, form), cell.best)
                if cell
                else Text(_why(table, row, architecture, depth))
            )
        lines.append(line)
    return lines


def _why(table: Table, row: Row, architecture: str, depth: int) -> str:
    return (
        "does not exist"
        if depth not in MODELS.get(architecture, (depth,))
        else table.why_missing(row, architecture, depth)
    )
