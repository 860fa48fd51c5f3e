"""Arrange panels in figures, and write the figures for a screen (PNG) and for a paper (PDF).

matplotlib is imported only when a figure is drawn, since tables do not need it.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irnet_hpc.aggregate.curves import Convergence
from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.panels import (
    BASELINE,
    STYLES,
    X_LABELS,
    draw_convergence,
    draw_depths,
    draw_rows,
    plain_text,
)
from irnet_hpc.aggregate.ranking import Ranking
from irnet_hpc.aggregate.series import Series
from irnet_hpc.aggregate.tables import Table
from irnet_hpc.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SUFFIXES = (".png", ".pdf")
# Sizes are in inches, text sizes in points. Fonts are embedded so that a PDF can be edited.
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "pdf.fonttype": 42,
    "savefig.facecolor": "white",
}


def figure_of(
    draw: "Sequence[Callable[[Axes], None]]",
    title: str = "",
    x_label: str = "",
    size: tuple[float, float] = (3.4, 2.9),
) -> "Figure":
    """Draw panels side by side, with one legend above.

    Args:
        draw: one function for each panel, which draws in the panel's axes.
        title: the title of the figure, below the panels; empty: none.
        x_label: the label of all horizontal axes; empty: each panel keeps its own.
        size: width and height of a panel in inches.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_columns = 2 if len(draw) == 4 else min(3, len(draw))
    n_rows = -(-len(draw) // n_columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(size[0] * n_columns, size[1] * n_rows), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for panel, draw_panel in zip(panels, draw, strict=False):
            draw_panel(panel)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
        for panel in panels[len(draw) :]:
            panel.set_visible(False)
        for panel in panels[: len(draw)][-n_columns:]:  # the lowest panel of each column
            panel.set_xlabel(x_label or panel.get_xlabel())
        _add_legend(figure, panels, max_columns=min(4, int(size[0] * n_columns / 1.7)))
        if title:
            figure.suptitle(title, fontsize=8, color="0.35", x=0.01, ha="left", y=-0.01, va="top")
    return figure


def _add_legend(figure: "Figure", panels: "Iterable[Axes]", max_columns: int) -> None:
    """Add one legend for all panels, the baseline last."""
    handles = {
        label: line
        for panel in panels
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    labels = sorted(handles, key=lambda label: label == BASELINE)
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside upper center",
        ncols=max_columns,
        frameon=False,
    )


def depth_figure(table: Table) -> "Figure":
    """Draw MAE against depth as Jha et al. 2019 do, with a panel for each property."""
    draw = [functools.partial(draw_depths, table=table, row=row) for row in table.rows]
    return figure_of(draw, table.title, X_LABELS["depth"])


def rows_figure(series: Series) -> "Figure":
    """Draw MAE against training rows."""
    draw = [functools.partial(draw_rows, series=series)]
    return figure_of(draw, series.title, X_LABELS["size"], (5.6, 3.9))


def convergence_figure(convergence: Convergence) -> "Figure":
    """Draw MAE against epoch on the rows that select the epoch, with a panel for each depth."""
    draw = [
        functools.partial(draw_convergence, convergence=convergence, depth=depth, curves=curves)
        for depth, curves in convergence.panels
    ]
    title = f"{convergence.row.property}, {convergence.table.title}"
    return figure_of(draw, title, X_LABELS["convergence"])


def rank_figure(ranking: Ranking) -> "Figure":
    """Draw mean ranks on one axis, the best on the left (Demsar 2006, figure 1).

    Bars join models whose ranks do not differ significantly.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_models, n_cliques = len(ranking.models), len(ranking.cliques)
    n_left = -(-n_models // 2)
    with rc_context(STYLE):
        height = 0.9 + 0.24 * n_left + 0.1 * n_cliques
        figure = Figure(figsize=(6.8, height), layout="constrained")
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        top = 1.4 + 0.35 * n_cliques
        _draw_names(panel, ranking, top)
        for number, (first, last) in enumerate(ranking.cliques):
            ends = [ranking.ranks[first] - 0.04, ranking.ranks[last] + 0.04]
            panel.plot(ends, [0.55 + 0.35 * number] * 2, color=STYLES["irnet"][0], linewidth=3.5)
        if difference := ranking.critical_difference:
            scale = [1, 1 + difference]
            panel.plot(scale, [-1.1] * 2, color="0.2", linewidth=1.2, marker="|")
            words = f"critical difference {difference:.2f}"
            words += "" if ranking.any_differ else ", but Friedman's test finds none"
            panel.text(1 + difference / 2, -1.25, words, ha="center", va="bottom")
        panel.set(
            ylim=(top + n_left - 0.4, -1.9),
            xlim=(0.9, n_models + 0.1),
            xticks=range(1, n_models + 1),
            yticks=[],
        )
        panel.xaxis.tick_top()
        panel.spines["top"].set_position(("data", 0))
        panel.spines[["left", "right", "bottom"]].set_visible(False)
    return figure


def _draw_names(panel: "Axes", ranking: Ranking, top: float) -> None:
    """Write the names of the better half of the models on the left, the others on the right."""
    n_models = len(ranking.models)
    for place, (model, rank) in enumerate(zip(ranking.models, ranking.ranks, strict=True)):
        is_left = place < -(-n_models // 2)
        height = top + (place if is_left else n_models - 1 - place)
        edge = 0.9 if is_left else n_models + 0.1
        panel.plot([rank, rank, edge], [0, height, height], color="0.4", linewidth=0.8)
        words = f" {rank:.2f}  {plain_text(model)} "
        panel.text(edge, height, words, ha="right" if is_left else "left", va="center")


def figures_of(findings: Findings) -> "Iterator[tuple[str, Figure]]":
    """Draw all figures. Yields each figure and its file name, without a suffix."""
    for table in findings.tables:
        if len(table.depths) > 1:
            yield f"mae_vs_depth-{table.name}", depth_figure(table)
    for series in findings.sizes:
        yield f"mae_vs_rows-{series.name}", rows_figure(series)
    for convergence in findings.convergence:
        yield f"convergence-{convergence.name}", convergence_figure(convergence)
    if findings.ranking and findings.ranking.critical_difference:
        yield "critical_difference", rank_figure(findings.ranking)


def write_figures(findings: Findings, folder: Path) -> list[Path]:
    """Write every figure as PNG and as PDF, and return the files."""
    written = []
    for name, figure in figures_of(findings):
        for suffix in SUFFIXES:
            path = folder / f"{name}{suffix}"
            # Files contain no dates, so that the same results give the same files.
            undated = {"CreationDate": None} if suffix == ".pdf" else None
            with replacing(path) as temporary:
                figure.savefig(temporary, dpi=200, bbox_inches="tight", metadata=undated)
            written.append(path)
    return written
