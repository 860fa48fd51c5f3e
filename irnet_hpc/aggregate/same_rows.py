"""Group tables and scores by the rows on which their models were trained and tested.

Models are compared with each other only within such a group: in the table of all models, in the
p-values of every table, and in what a report calls best.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from irnet_hpc.aggregate.scores import Model, ModelScore
from irnet_hpc.aggregate.tables import Row, Table


class Entry(NamedTuple):
    """The score of one model, with its place."""

    table: Table
    row: Row
    model: Model
    score: ModelScore


class SameRows(NamedTuple):
    """All models that were tested on the same rows of one property."""

    property: str
    unit: str
    n_test: int
    entries: tuple[Entry, ...]  # networks by architecture and depth, then classical models
    baseline: float  # MAE of the baseline
    lowest: ModelScore | None  # the score with the lowest MAE; None: the baseline's is lower


def has_seen_test(table: Table) -> bool:
    """Return True if the models start from one that was trained on test formulas."""
    return table.start is not None and table.start.has_seen_test


def groups_of(tables: Iterable[Table]) -> list[list[Table]]:
    """Group tables by pack, protocol and number of training rows.

    Stale results, and results whose start has seen test formulas, are apart from the others.
    """
    groups: dict[tuple, list[Table]] = defaultdict(list)
    for table in tables:
        key = table.pack, table.protocol, table.train_rows, table.stale, has_seen_test(table)
        groups[key].append(table)
    return list(groups.values())


def same_rows(group: Sequence[Table]) -> list[SameRows]:
    """List the models of each property, in the order in which the tables have the properties.

    Args:
        group: the tables of one group of `groups_of`.
    """
    entries: dict[tuple, list[Entry]] = defaultdict(list)
    for table in group:
        for row, model, score in table.scored():
            entries[row.property, row.unit, row.n_test].append(Entry(table, row, model, score))
    found = []
    for (name, unit, n_test), known in entries.items():
        # Python's sort is stable: the tables' order decides between recipes.
        known.sort(key=lambda entry: (entry.score.runs[0].spec.is_classical, entry.model.order))
        # The baseline of a network for one property; that of a joint one is of other training rows.
        row = next((entry.row for entry in known if not entry.table.joint), known[0].row)
        scores = [entry.score for entry in known]
        n_splits = max(len(score.splits) for score in scores)
        complete = [score for score in scores if len(score.splits) == n_splits]
        lowest = min(complete, key=lambda score: score.mae)
        is_lowest = row.baseline > lowest.mae
        entry = SameRows(name, unit, n_test, tuple(known), row.baseline, lowest)
        found.append(entry if is_lowest else entry._replace(lowest=None))
    return found
