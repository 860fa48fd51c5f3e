"""Show architectures against depths, as the papers do, in one table for each property."""

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, missing
from irnet_hpc.aggregate.mae_table import BEST, score_cell
from irnet_hpc.aggregate.scores import Model
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.models.architectures import MODELS

# With at most this many networks, the main table is as easy to read.
MAX_READABLE = 6
TEXT = "Test MAE as in the tables, with a line for each architecture and a column for each depth."


def section(findings: Findings) -> Section:
    """Make a block for each property of each table with many networks, from the MAEs in mae.csv."""
    blocks = [
        TableBlock(f"{row.label}, {table.title}", f"{row.property}-{table.name}", _grid(table, row))
        for table in findings.tables
        if len(table.depths) > 1 and len(_networks(table)) > MAX_READABLE
        for row in table.rows
    ]
    return Section("depths", "Architecture × depth", TEXT, blocks, bold=BEST)


def _networks(table: Table) -> list[Model]:
    return [model for model in table.models if model.depth]


def _grid(table: Table, row: Row) -> list[Line]:
    lines = [line_of("architecture", *(f"{depth} layers" for depth in table.depths))]
    for name in dict.fromkeys(model.architecture for model in _networks(table)):
        cells = [_cell(table, row, Model(name, depth)) for depth in table.depths]
        lines.append(line_of(name, *cells))
    return lines


def _cell(table: Table, row: Row, model: Model) -> Text:
    exists = model.depth in MODELS.get(model.architecture, (model.depth,))
    if not exists and table.score(row, model) is None:
        return missing("does not exist")
    return score_cell(table, row, model)
