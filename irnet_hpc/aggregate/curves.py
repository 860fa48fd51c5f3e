"""Read histories of trainings, and average them over the runs of each model."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from irnet_hpc.aggregate.scores import Model
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.folder import RunFolder

ARCHITECTURES = ("plain", "srnet", "irnet")  # the comparison of the papers


@dataclasses.dataclass(frozen=True)
class Curve:
    """The mean history of one model's runs."""

    architecture: str
    epochs: tuple[int, ...]  # the epochs that every run has
    # MAE on the rows that select the epoch, mean over the runs; not finite if one of them is not.
    maes: tuple[float, ...]
    n: int  # number of runs


@dataclasses.dataclass(frozen=True)
class Convergence:
    """The curves of one property of a table, with a panel for each depth."""

    table: Table
    row: Row
    panels: tuple[tuple[int, tuple[Curve, ...]], ...]  # (depth, its curves)

    @property
    def name(self) -> str:
        """The name of the curves in file names."""
        return f"{self.row.property}_{self.table.name}"


def convergence_of(
    tables: Iterable[Table],
) -> tuple[tuple[Convergence, ...], dict[Path, str]]:
    """Read the histories of plain, SRNet and IRNet runs.

    Joint tables are left out: their histories contain the relative error of all properties.

    Returns:
        The curves of each property and table that has histories, and path -> reason for the
        histories that cannot be read.
    """
    problems: dict[Path, str] = {}
    curves = tuple(
        Convergence(table, row, tuple(panels))
        for table in tables
        if table.joint is None
        for row in table.rows
        if (panels := list(_panels(table, row, problems)))
    )
    return curves, problems


def _panels(
    table: Table, row: Row, problems: dict[Path, str]
) -> Iterator[tuple[int, tuple[Curve, ...]]]:
    for depth in table.depths:
        models = [Model(architecture, depth) for architecture in ARCHITECTURES]
        scores = [(model, table.score(row, model)) for model in models]
        curves = [
            _curve(model.architecture, score.runs, problems) for model, score in scores if score
        ]
        if kept := tuple(curve for curve in curves if curve):
            yield depth, kept


def _curve(
    architecture: str, runs: Sequence[FinishedRun], problems: dict[Path, str]
) -> Curve | None:
    histories = []
    trainings = [one for run in runs for one in run.folds or (run,)]
    for run in trainings:
        folder = RunFolder(run.folder)
        try:
            histories.append(_maes(folder))
        except UserError as error:
            problems[folder.history_csv] = str(error)
    histories = [history for history in histories if history]
    epochs = sorted(set.intersection(*map(set, histories))) if histories else []
    if not epochs:
        return None
    maes = tuple(fmean(history[epoch] for history in histories) for epoch in epochs)
    if not any(map(math.isfinite, maes)):
        return None
    return Curve(architecture, tuple(epochs), maes, len(histories))


def _maes(folder: RunFolder) -> dict[int, float]:
    """Map each epoch to the MAE on the rows that select the epoch.

    Raises UserError if the history cannot be read.
    """
    try:
        return {int(line["epoch"]): float(line["val_mae"]) for line in folder.history()}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder.history_csv} cannot be read: {error}") from None
