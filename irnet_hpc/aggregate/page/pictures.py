"""Draw the charts in the page's colours."""

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from irnet_hpc.aggregate.all_models import AllModels
from irnet_hpc.aggregate.curves import Convergence
from irnet_hpc.aggregate.figures import figure_of, rank_figure
from irnet_hpc.aggregate.importance import ModelImportance
from irnet_hpc.aggregate.page.svg import inline_svg
from irnet_hpc.aggregate.panels import (
    X_LABELS,
    draw_convergence,
    draw_cost,
    draw_depths,
    draw_importance,
    draw_rows,
)
from irnet_hpc.aggregate.ranking import Ranking
from irnet_hpc.aggregate.sections.importance import N_SHOWN, rises
from irnet_hpc.aggregate.series import Series
from irnet_hpc.aggregate.tables import Table
from irnet_hpc.aggregate.words import model_words, property_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PANEL_SIZE = (3.7, 3.0)  # size of a chart in inches; it is as wide as a telephone
WIDE_LABELS = (4.4, 3.6)  # inches, of a chart with names along its side
MAX_CURVES = 60  # charts of convergence; those that compare architectures come first


class Chart(NamedTuple):
    """A figure of the page."""

    svg: Markup
    caption: str
    wide: bool = False


def chart_of(figure: "Figure", name: str, caption: str, wide: bool = False) -> Chart:
    """Make a chart. Its `name` must be unique on the page."""
    return Chart(inline_svg(figure, name, caption), caption, wide)


def panel_chart(
    draw: "Callable[[Axes], None]",
    name: str,
    caption: str,
    x_label: str = "",
    size: tuple[float, float] = PANEL_SIZE,
) -> Chart:
    """Make a chart of one panel. It fits on a phone; a wide screen shows several side by side."""
    return chart_of(figure_of([draw], x_label=x_label, size=size), name, caption)


def depth_charts(tables: Iterable[Table]) -> list[Chart]:
    """Draw MAE against depth, as the papers do, for each property with several depths."""
    return [
        panel_chart(
            functools.partial(draw_depths, table=table, row=row),
            f"depth{number}-{row_number}",
            f"{row.property}, {table.title}; bars are one sd over runs",
            X_LABELS["depth"],
        )
        for number, table in enumerate(tables)
        if len(table.depths) > 1
        for row_number, row in enumerate(table.rows)
    ]


def size_charts(sizes: Iterable[Series]) -> list[Chart]:
    """Draw MAE against training rows."""
    return [
        panel_chart(
            functools.partial(draw_rows, series=series),
            f"rows{number}",
            series.title,
            X_LABELS["size"],
        )
        for number, series in enumerate(sizes)
    ]


def convergence_charts(convergence: Iterable[Convergence]) -> tuple[list[Chart], int]:
    """Draw a chart for each depth; the charts that compare architectures come first.

    Returns:
        At most MAX_CURVES charts, and the number of charts that were left out.
    """
    panels = [(item, depth, curves) for item in convergence for depth, curves in item.panels]
    panels.sort(key=lambda panel: -len(panel[2]))
    charts = [
        panel_chart(
            functools.partial(draw_convergence, convergence=item, depth=depth, curves=curves),
            f"epochs{number}",
            f"{item.row.property}, {item.table.title}",
            X_LABELS["convergence"],
        )
        for number, (item, depth, curves) in enumerate(panels[:MAX_CURVES])
    ]
    return charts, len(panels) - len(charts)


def cost_charts(tables: Iterable[AllModels]) -> list[Chart]:
    """Draw MAE against device-hours for each property on which several models were trained."""
    words = "numbers are depths; the line joins models that no other model beats in both"
    return [
        panel_chart(
            functools.partial(draw_cost, known=known),
            f"cost{number}-{place}",
            f"{known.property}, {models.title}; {words}",
            "device-hours of a run",
        )
        for number, models in enumerate(tables)
        for place, known in enumerate(models.properties)
        if sum(bool(line.score.device_hours and line.score.mae) for line in known.lines) > 2
    ]


def importance_charts(measured: Iterable[ModelImportance]) -> list[Chart]:
    """Draw the importance of the groups of features of each measured model."""
    charts = []
    for number, model in enumerate(measured):
        shown = rises(model, "group", "test")[:N_SHOWN]
        if len(shown) < 2:  # one group is all that the model has
            continue
        draw = functools.partial(draw_importance, rises=shown, unit=model.task.unit)
        name = f"{property_words(model.task.property)}, {model.task.dataset}"
        caption = f"{name}, {model_words(model.result.model)}: groups of features, by shuffling"
        charts.append(panel_chart(draw, f"importance{number}", caption, size=WIDE_LABELS))
    return charts


def rank_charts(ranking: Ranking | None) -> list[Chart]:
    """Draw the critical-difference diagram if there is a critical difference."""
    if ranking is None or ranking.critical_difference is None:
        return []
    caption = (
        "Mean ranks, the best on the left; a bar joins models that cannot be told apart "
        "(Nemenyi, 5 %)"
    )
    return [chart_of(rank_figure(ranking), "ranks", caption, wide=True)]
