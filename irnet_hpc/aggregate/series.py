"""Collect the scores of one property from tables that differ only in their rows.

There are two kinds of series. In one, the tables differ in the number of training rows; in the
other, in the chemistry that is held out as test rows.
"""

import builtins
import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from irnet_hpc.aggregate.groups import file_name, unseeded_identity
from irnet_hpc.aggregate.scores import Model, ModelScore
from irnet_hpc.aggregate.tables import Row, Table

RANDOM = "random"


@dataclasses.dataclass(frozen=True)
class Point:
    """One row of one table, as a part of a series."""

    table: Table
    row: Row
    test: str | None = None  # what the test rows are; None: the same at every point

    def score(self, model: Model) -> ModelScore | None:
        """Return the score of a model; None if it has none."""
        return self.table.score(self.row, model)


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of one property that differ only in the training rows, or only in the test rows."""

    table: Table  # the table that names the series: that with most training or random test rows
    property: str
    unit: str
    models: tuple[Model, ...]  # the models that have a score at a point
    points: tuple[Point, ...]

    @builtins.property
    def train_rows(self) -> int | None:
        """The setting `train_rows` of all points; None if it is `all rows` or the points differ."""
        numbers = {point.table.train_rows for point in self.points}
        return numbers.pop() if len(numbers) == 1 else None

    @builtins.property
    def title(self) -> str:
        """The settings that the points share, in words."""
        table = self.table
        rows = f", first {self.train_rows:,} training rows" if self.train_rows else ""
        return (
            f"{self.property}, {table.pack}, recipe {table.recipe_label}, protocol "
            f"{table.protocol}{rows}{table.origin_words}{table.selection_words}"
        )

    @builtins.property
    def name(self) -> str:
        """The name of the series in file names and labels."""
        table, rows = self.table, self.train_rows and f"n{self.train_rows}"
        settings = (table.pack, table.recipe_label, table.protocol, rows, *table.origin_parts)
        return file_name((self.property, *settings))

    @builtins.property
    def has_classical(self) -> bool:
        """Return True if a point has a best classical model."""
        return any(point.row.best_classical for point in self.points)


def size_series(tables: Iterable[Table]) -> tuple[Series, ...]:
    """Find tables that differ only in the number of training rows, and make series of them."""
    alike = defaultdict(list)
    for table in tables:
        settings = table.pack, table.recipe_label, table.protocol, table.start, table.joint
        for row in table.rows:
            alike[*settings, row.property, row.unit].append(Point(table, row))
    sorted_points = [
        sorted(points, key=lambda point: point.row.n_train) for points in alike.values()
    ]
    return tuple(_series(points, points[-1].table) for points in sorted_points if len(points) > 1)


def chemistry_series(tables: Iterable[Table]) -> tuple[Series, ...]:
    """Find packs that differ only in the held-out chemistry, and make series of their tables.

    At least one pack of a series holds out an element or a family.
    """
    alike = defaultdict(list)
    for table in tables:
        _, _, score = next(table.scored())
        identity = unseeded_identity(score.runs[0])
        split = identity.pop("split", {})
        if split.get("by") not in ("reduced formula", "element", "family"):
            continue
        rest = json.dumps(identity, sort_keys=True)
        settings = table.recipe_label, table.protocol, table.train_rows, table.start, table.joint
        for row in table.rows:
            point = Point(table, row, _split_label(split))
            alike[rest, *settings, row.property, row.unit].append(point)
    sorted_points = [
        sorted(points, key=lambda point: (point.test != RANDOM, point.test))
        for points in alike.values()
    ]
    return tuple(
        _series(points, points[0].table)
        for points in sorted_points
        if len(points) > 1 and points[-1].test != RANDOM
    )


def _split_label(split: dict) -> str:
    """Return the name of the chemistry that a split holds out, e.g. `element O`, or `random`."""
    if split["by"] == "reduced formula":
        return RANDOM
    elements = split.get("elements")
    listed = "+".join(map(str, elements if isinstance(elements, list) else []))
    return f"{split['by']} {split.get('family') or listed}"


def _series(points: Sequence[Point], table: Table) -> Series:
    models = {
        model for point in points for model in point.table.models if point.score(model) is not None
    }
    row = points[0].row
    in_order = tuple(sorted(models, key=lambda model: model.order))
    return Series(table, row.property, row.unit, in_order, tuple(points))
