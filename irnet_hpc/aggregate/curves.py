"""How errors fall during training: the histories of runs, as means over the runs of a model."""

import csv
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.collect import FinishedRun

ARCHITECTURES = ("plain", "srnet", "irnet")  # the comparison of the papers


@dataclasses.dataclass(frozen=True)
class Curve:
    architecture: str
    epochs: tuple[int, ...]  # those that every run has seen
    maes: tuple[float, ...]  # on the rows that select, mean over the runs
    n: int  # runs


@dataclasses.dataclass(frozen=True)
class Convergence:
    """Of one property of a table: a panel a depth."""

    table: Table
    row: Row
    panels: tuple[tuple[int, tuple[Curve, ...]], ...]  # (depth, its curves)

    @property
    def name(self) -> str:
        return f"{self.row.property}_{self.table.name}"


def convergence(tables: Iterable[Table], problems: dict[Path, str]) -> tuple[Convergence, ...]:
    """One a property and table whose plain, SRNet or IRNet runs have histories. `problems` gets a sentence for each history
    that is there and cannot be read."""
    found = [
        Convergence(table, row, tuple(panels))
        for table in tables
        for row in table.rows
        if table.joint is None  # whose histories are of the relative error of all properties
        if (panels := list(_panels(table, row, problems)))
    ]
    return tuple(found)


def _panels(
    table: Table, row: Row, problems: dict[Path, str]
) -> Iterator[tuple[int, tuple[Curve, ...]]]:
    for depth in sorted(
        {depth for architecture, depth in table.models if architecture in ARCHITECTURES}
    ):
        cells = [
            (architecture, table.cell(row, architecture, depth)) for architecture in ARCHITECTURES
        ]
        curves = [_curve(architecture, cell.runs, problems) for architecture, cell in cells if cell]
        if kept := tuple(curve for curve in curves if curve):
            yield depth, kept


def _curve(
    architecture: str, runs: Sequence[FinishedRun], problems: dict[Path, str]
) -> Curve | None:
    histories = [
        history for run in runs if (history := read_history(run.folder / "history.csv", problems))
    ]
    epochs = sorted(set.intersection(*map(set, histories))) if histories else []
    if not epochs:
        return None
    maes = tuple(fmean(history[epoch] for history in histories) for epoch in epochs)
    return Curve(architecture, tuple(epochs), maes, len(histories))


def read_history(path: Path, problems: dict[Path, str]) -> dict[int, float]:
    """Epoch -> MAE on the rows that select, without those at which it was not finite; empty where there is no history."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            history = {int(line["epoch"]): float(line["val_mae"]) for line in csv.DictReader(file)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        problems[path] = f"{path} cannot be read: {error}"
        return {}
    return {epoch: mae for epoch, mae in history.items() if math.isfinite(mae)}
