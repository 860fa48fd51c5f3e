"""Tables -> figures as files. matplotlib is imported when a figure is drawn, so that tables need none."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.charts import critical_difference, draw_depths, draw_rows, draw_training, figure_of
from irnet_hpc.curves import Convergence
from irnet_hpc.files import replacing
from irnet_hpc.rankings import Ranking
from irnet_hpc.series import Series
from irnet_hpc.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf")  # for a screen and for a paper


def write_figures(
    tables: Iterable[Table],
    folder: Path,
    sizes: Iterable[Series] = (),
    trainings: Iterable[Convergence] = (),
    ranking: Ranking | None = None,
) -> list[Path]:
    """Draw each table that has more than one depth, each series and each training as `<folder>/<what>-<name>.png` and .pdf,
    and the critical difference of the ranks where there is one."""
    several = [table for table in tables if len({depth for _, depth in table.models}) > 1]
    todo = [(f"mae_vs_depth-{table.name}", mae_against_depth, table) for table in several]
    todo += [(f"mae_vs_rows-{series.name}", mae_against_rows, series) for series in sizes]
    todo += [(f"convergence-{training.name}", convergence_curves, training) for training in trainings]
    todo += [("critical_difference", critical_difference, ranking)] if ranking and ranking.critical_difference else []
    written = []
    for name, draw, what in todo:
        figure = draw(what)
        for suffix in FORMATS:
            path = folder / f"{name}{suffix}"
            with replacing(path) as temporary:  # without dates inside, the same results give the same file
                undated = {"CreationDate": None} if suffix == ".pdf" else None
                figure.savefig(temporary, dpi=200, bbox_inches="tight", metadata=undated)
            written.append(path)
    return written


def mae_against_depth(table: Table) -> "Figure":
    """Test MAE against depth as in Jha et al. 2019: a line an architecture, a panel a property, bars of one sd over seeds."""
    draw = [functools.partial(draw_depths, table=table, row=row) for row in table.rows]
    return figure_of(table.title, "depth (fully connected layers)", draw)


def mae_against_rows(series: Series) -> "Figure":
    """Test MAE against training rows, both logarithmic: a line a model, bars of one sd over the runs."""
    return figure_of(series.title, "training rows", [functools.partial(draw_rows, series=series)], (5.6, 3.9))


def convergence_curves(training: Convergence) -> "Figure":
    """MAE on the rows that select against the epoch: a line an architecture, a panel a depth."""
    draw = [
        functools.partial(draw_training, training=training, depth=depth, curves=curves)
        for depth, curves in training.panels
    ]
    return figure_of(f"{training.row.property}, {training.table.title}", "epoch", draw)
