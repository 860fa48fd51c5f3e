"""One property across several tables: MAE against training rows, and on random test rows beside held-out chemistry."""

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.groups import short, unseeded_identity
from irnet_hpc.aggregate.render import cell_text, row_format
from irnet_hpc.aggregate.scores import Cell
from irnet_hpc.aggregate.tables import Row, Table, model_order
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.spec import model_name

SIZE_SAID = (
    "The same test rows, and the first so many of the training rows. best classical is chosen by val anew for each number of "
    "rows. The best of a row is in bold."
)
CHEMISTRY_SAID = (
    "random: a hash of the formula decides what is test, so that test formulas resemble training ones. element, family: test "
    "is every material that contains the element, or one of the family, and training has none. Rows of this table have other "
    "test rows: compare an MAE with the baseline and the other models of its own row."
)
RANDOM = "random"


@dataclasses.dataclass(frozen=True)
class Point:
    table: Table
    row: Row
    test: str | None = None  # what the test rows are; None: the same at every point

    def cell(self, model: tuple[str, int | None]) -> Cell | None:
        return self.table.cell(self.row, *model)


@dataclasses.dataclass(frozen=True)
class Series:
    of: Table  # whose name and protocol it has: the one of most training rows, or of random test rows
    property: str
    unit: str
    models: tuple[tuple[str, int | None], ...]  # that one of the tables has
    points: tuple[Point, ...]

    @property
    def train_rows(self) -> int | None:
        """What all points were trained on the first so many rows of; None: all rows, or a series of several numbers."""
        asked = {point.table.train_rows for point in self.points}
        return asked.pop() if len(asked) == 1 else None

    @property
    def title(self) -> str:
        on_test = " (selected on test)" if self.of.selected_on == "test" else ""
        rows = f", first {self.train_rows:,} training rows" if self.train_rows else ""
        start = f", started from {self.of.start_from}" if self.of.start_from else ""
        start += f", one network for {self.of.joint.replace(',', ', ')}" if self.of.joint else ""
        return f"{self.property}, {self.of.pack}, recipe {self.of.recipe}, protocol {self.of.protocol}{rows}{start}{on_test}"

    @property
    def name(self) -> str:
        start, joint = (
            short("start", self.of.start_from),
            short("joint", self.of.joint and f"joint-{self.of.joint}"),
        )
        rows = self.train_rows and f"n{self.train_rows}"
        parts = (self.property, self.of.pack, self.of.recipe, self.of.protocol, rows, start, joint)
        return "_".join(
            re.sub(r"[^A-Za-z0-9_.+=-]+", "-", part).strip("-") for part in parts if part
        )

    @property
    def has_classical(self) -> bool:
        return any(point.row.best_classical for point in self.points)


def size_series(tables: Iterable[Table]) -> tuple[Series, ...]:
    """Where several numbers of training rows are there for one pack, property, recipe, protocol and start."""
    alike = defaultdict(list)
    for table in tables:
        for row in table.rows:
            names = (
                table.pack,
                table.recipe,
                table.protocol,
                table.start_from,
                table.joint,
                row.property,
                row.unit,
            )
            alike[names].append(Point(table, row))
    found = [sorted(points, key=lambda point: point.row.n_train) for points in alike.values()]
    return tuple(_series(points, points[-1].table) for points in found if len(points) > 1)


def chemistry_series(tables: Iterable[Table]) -> tuple[Series, ...]:
    """Where packs are the same but for what their split goes by, and one of them holds out an element or a family."""
    alike = defaultdict(list)
    for table in tables:
        identity = unseeded_identity(_first_run(table))
        split = identity.pop("split", {})
        if split.get("by") not in ("reduced formula", "element", "family"):
            continue
        same = json.dumps(identity, sort_keys=True)
        for row in table.rows:
            names = (
                same,
                table.recipe,
                table.protocol,
                table.train_rows,
                table.start_from,
                table.joint,
            )
            names += (row.property, row.unit)
            alike[names].append(Point(table, row, _split_label(split)))
    found = [
        sorted(points, key=lambda point: (point.test != RANDOM, point.test))
        for points in alike.values()
    ]
    return tuple(
        _series(points, points[0].table)
        for points in found
        if len(points) > 1 and points[-1].test != RANDOM
    )


def _first_run(table: Table) -> FinishedRun:
    return next(cell for row in table.rows for cell in row.cells if cell).runs[0]


def _split_label(split: dict) -> str:
    """In words, e.g. `element O`, `family halogens`."""
    if split["by"] == "reduced formula":
        return RANDOM
    elements = split.get("elements", [])
    return f"{split['by']} {split.get('family') or '+'.join(map(str, elements if isinstance(elements, list) else []))}"


def _series(points: Sequence[Point], of: Table) -> Series:
    models = {
        model
        for point in points
        for model, cell in zip(point.table.models, point.row.cells, strict=True)
        if cell is not None
    }
    row = points[0].row
    return Series(of, row.property, row.unit, tuple(sorted(models, key=model_order)), tuple(points))


def size_section(series: Sequence[Series]) -> Section:
    blocks = tuple(Block(one.title, one.name, _grid(one)) for one in series)
    return Section("size", "MAE against training rows", SIZE_SAID, blocks, _records(series))


def chemistry_section(series: Sequence[Series]) -> Section:
    blocks = tuple(Block(one.title, one.name, _grid(one)) for one in series)
    return Section("chemistry", "Held-out chemistry", CHEMISTRY_SAID, blocks, _records(series))


def _grid(series: Series) -> list[list[Text]]:
    """Header first: what the point is, baseline, best classical, a column a model; MAEs in the property's unit."""
    unlike = any(point.test for point in series.points)
    header = ["test", "training rows", "test rows"] if unlike else ["training rows"]
    header += [f"baseline ({series.unit})"] + (["best classical"] if series.has_classical else [])
    lines = [[Text(text) for text in (*header, *(model_name(*model) for model in series.models))]]
    for point in series.points:
        row, form = point.row, row_format(point.row)
        shown = [point.test or "", f"{row.n_train:,}", f"{row.n_test:,}"]
        line = [Text(text) for text in (shown if unlike else shown[1:2])]
        line.append(Text(f"{row.baseline:{form}}", row.baseline_best))
        if series.has_classical:
            theirs = row.best_classical
            line.append(
                Text(f"{theirs.model} {cell_text(theirs, form)}", theirs.best)
                if theirs
                else Text("not run")
            )
        for model in series.models:
            cell = point.cell(model)
            line.append(
                Text(cell_text(cell, form), cell.best)
                if cell
                else Text(point.table.why_missing(row, *model))
            )
        lines.append(line)
    return lines


def _records(series: Sequence[Series]) -> list[dict]:
    """A line a model and point, the best classical model's among them."""
    return [
        {
            "pack": point.table.pack,
            "property": one.property,
            "model": name,
            "best_classical": int(cell is point.row.best_classical),
            "recipe": one.of.recipe,
            "protocol": one.of.protocol,
            "selected_on": one.of.selected_on,
            "train_rows": point.table.train_rows,
            "start_from": one.of.start_from,
            "joint": one.of.joint,
            "test": point.test,
            "n_train": point.row.n_train,
            "n_test": point.row.n_test,
            "unit": one.unit,
            "test_mae_mean": cell.mae,
            "test_mae_sd": cell.sd,
            "n_runs": cell.n,
            "baseline_mae": point.row.baseline,
        }
        for one in series
        for point in one.points
        for name, cell in (
            *((model_name(*model), point.cell(model)) for model in one.models),
            (point.row.best_classical and point.row.best_classical.model, point.row.best_classical),
        )
        if cell
    ]
