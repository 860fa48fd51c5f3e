"""Draw the charts in the page's colours, and lay out the periodic table."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from irnet_hpc.aggregate.curves import Convergence
from irnet_hpc.aggregate.diagnostics import Diagnosis, ElementError
from irnet_hpc.aggregate.error_panels import draw_parity, draw_residuals, is_density
from irnet_hpc.aggregate.figures import figure_of, rank_figure
from irnet_hpc.aggregate.formats import line_of
from irnet_hpc.aggregate.mae_table import row_format
from irnet_hpc.aggregate.page.cells import PageTable, formula, page_table
from irnet_hpc.aggregate.page.summary import count
from irnet_hpc.aggregate.page.svg import inline_svg
from irnet_hpc.aggregate.panels import (
    X_LABELS,
    draw_convergence,
    draw_cost,
    draw_depths,
    draw_rows,
)
from irnet_hpc.aggregate.ranking import Ranking
from irnet_hpc.aggregate.series import Series
from irnet_hpc.aggregate.tables import Table
from irnet_hpc.data.elements import NUMBER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PANEL_SIZE = (3.7, 3.0)  # size of a chart in inches; it is as wide as a telephone
MAX_CURVES = 60  # charts of convergence; those that compare architectures come first
MIN_ROWS = 10  # with fewer test rows, the error of an element is not coloured
# (upper bound, in words) of the ratio of an element's MAE to the MAE of all rows, in the order of
# the colours in the style sheet.
SHADES = (
    (0.5, "at most half"),
    (0.8, "to 0.8"),
    (1.0, "to 1 ×"),
    (1.25, "to 1.25"),
    (2.0, "to 2 ×"),
    (float("inf"), "above 2 ×"),
)
LAST_OF_PERIOD = (2, 10, 18, 36, 54, 86, 118)  # the noble gases
LANTHANUM, ACTINIUM = 57, 89
F_ROW = 8  # lanthanides and actinides are below the table, in rows 8 and 9
N_COLUMNS = 18


class Chart(NamedTuple):
    """A figure of the page."""

    svg: Markup
    caption: str
    wide: bool = False


class ElementTile(NamedTuple):
    """An element in the periodic table of errors."""

    symbol: str
    mae: str
    title: str  # shown when the pointer is on the tile
    classes: str  # classes of the style sheet
    row: int
    column: int


class PageDiagnosis(NamedTuple):
    """The errors of the best model of a task, as the page shows them."""

    title: str
    text: str
    charts: list[Chart]
    elements: list[ElementTile]
    note: str
    element_table: PageTable
    worst: PageTable


def place(symbol: str) -> tuple[int, int]:
    """Return the row (period) and column (group) of an element, counted from 1.

    Lanthanides and actinides, including La and Ac, are in rows 8 and 9, columns 4 to 18.

    >>> place("Fe"), place("He"), place("La"), place("Lr")
    ((4, 8), (1, 18), (8, 4), (9, 18))
    """
    number = NUMBER[symbol]
    for row, first in ((F_ROW, LANTHANUM), (F_ROW + 1, ACTINIUM)):
        if first <= number <= first + 14:
            return row, 4 + number - first
    period = next(row for row, last in enumerate(LAST_OF_PERIOD, start=1) if number <= last)
    before = LAST_OF_PERIOD[period - 2] if period > 1 else 0
    from_left, from_right = number - before, LAST_OF_PERIOD[period - 1] - number
    n_left = 1 if period == 1 else 2
    return period, from_left if from_left <= n_left else N_COLUMNS - from_right


def chart_of(figure: "Figure", name: str, caption: str, wide: bool = False) -> Chart:
    """Make a chart. Its `name` must be unique on the page."""
    return Chart(inline_svg(figure, name, caption), caption, wide)


def panel_chart(
    draw: "Callable[[Axes], None]", name: str, caption: str, x_label: str = ""
) -> Chart:
    """Make a chart of one panel. It fits on a phone; a wide screen shows several side by side."""
    return chart_of(figure_of([draw], x_label=x_label, size=PANEL_SIZE), name, caption)


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


def cost_charts(tables: Iterable[Table]) -> list[Chart]:
    """Draw MAE against device-hours for each property on which several models were trained."""
    words = "numbers are depths; the line joins models that no other model beats in both"
    return [
        panel_chart(
            functools.partial(draw_cost, table=table, row=row),
            f"cost{number}-{row_number}",
            f"{row.property}, {table.title}; {words}",
            "device-hours of a run",
        )
        for number, table in enumerate(tables)
        for row_number, row in enumerate(table.rows)
        if sum(bool(score and score.device_hours and score.mae) for score in row.scores) > 2
    ]


def rank_charts(ranking: Ranking | None) -> list[Chart]:
    """Draw the critical-difference diagram if there is a critical difference."""
    if ranking is None or ranking.critical_difference is None:
        return []
    caption = (
        "Mean ranks, the best on the left; a bar joins models that cannot be told apart "
        "(Nemenyi, 5 %)"
    )
    return [chart_of(rank_figure(ranking), "ranks", caption, wide=True)]


def page_diagnoses(diagnoses: Iterable[Diagnosis]) -> list[PageDiagnosis]:
    """Prepare the parity plot, residuals, errors by element and worst rows of each task."""
    return [_page_diagnosis(number, diagnosis) for number, diagnosis in enumerate(diagnoses)]


def _page_diagnosis(number: int, diagnosis: Diagnosis) -> PageDiagnosis:
    task, result = diagnosis.task, diagnosis.result
    mae = f"MAE {diagnosis.mae:{row_format(result.row)}}"
    n_runs = count(diagnosis.n_runs, "run")
    shown = (
        "density of rows (logarithmic)" if is_density(diagnosis) else "one point per row and run"
    )
    parity = f"Predicted against target, {shown}; {n_runs}; triangles mark points beyond the axes"
    residuals = (
        "Residuals; half of the rows are between the dashed lines, 90 % between the dotted ones"
    )
    unreadable = (
        f" {diagnosis.n_unreadable:,} rows have a formula that cannot be read."
        if diagnosis.n_unreadable
        else ""
    )
    worst = f"the worst {count(diagnosis.n_worst, 'row')} of all"
    n_unread = result.score.n - diagnosis.n_runs
    unread = f" {count(n_unread, 'run')} cannot be shown: no predictions." if n_unread else ""
    return PageDiagnosis(
        title=f"{task.label}: {result.model}, {mae}",
        text=(
            f"{result.model}, {result.training}, {result.features}: {mae} {task.unit} over "
            f"{diagnosis.n_rows:,} test rows. Half of the errors are below {diagnosis.median:.2g}, "
            f"and {worst} cause {diagnosis.worst_share:.0%} of the MAE.{unread}"
        ),
        charts=[
            panel_chart(functools.partial(draw, diagnosis=diagnosis), f"{name}{number}", caption)
            for draw, name, caption in (
                (draw_parity, "parity", parity),
                (draw_residuals, "residual", residuals),
            )
        ],
        elements=[_element_tile(element, diagnosis) for element in diagnosis.elements],
        note=(
            f"Dashed: fewer than {MIN_ROWS} rows. A number is the MAE in {task.unit}.{unreadable}"
        ),
        element_table=_element_table(diagnosis.elements, task.unit),
        worst=_worst_table(diagnosis),
    )


def _element_tile(element: ElementError, diagnosis: Diagnosis) -> ElementTile:
    ratio = element.mae / diagnosis.mae if diagnosis.mae else 1.0
    shade = next(number for number, (bound, _) in enumerate(SHADES) if ratio <= bound)
    title = (
        f"{element.symbol}: MAE {element.mae:.3g} {diagnosis.task.unit} over {element.n:,} rows, "
        f"mean residual {element.bias:+.2g}"
    )
    classes = "few" if element.n < MIN_ROWS else f"e{shade}"
    return ElementTile(element.symbol, f"{element.mae:.2g}", title, classes, *place(element.symbol))


def _element_table(elements: Sequence[ElementError], unit: str) -> PageTable:
    header = ("element", "test rows", f"MAE ({unit})", "mean of prediction minus target")
    lines = [
        line_of(element.symbol, f"{element.n:,}", f"{element.mae:.3g}", f"{element.bias:+.2g}")
        for element in elements
    ]
    return page_table([line_of(*header), *lines])


def _worst_table(diagnosis: Diagnosis) -> PageTable:
    unit = diagnosis.task.unit
    header = ("formula", "material_id", f"target ({unit})", f"predicted ({unit})")
    lines = [line_of(*header, f"absolute error ({unit})")]
    lines += [
        line_of(row.formula, row.material_id, *(f"{value:.4g}" for value in values))
        for row in diagnosis.worst
        for values in [(row.target, row.prediction, row.error)]
    ]
    return page_table(lines, first=formula)
