"""The pictures of the report: charts in the page's colours, the periodic table, the worst predictions."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.curves import Convergence
from irnet_hpc.aggregate.diagnostics import WORST_PART, Diagnosis, ElementError
from irnet_hpc.aggregate.figures import (
    critical_difference,
    draw_cost,
    draw_depths,
    draw_parity,
    draw_residuals,
    draw_rows,
    draw_training,
    figure_of,
)
from irnet_hpc.aggregate.formats import Text
from irnet_hpc.aggregate.page.html import Markup, element, formula, joined, table
from irnet_hpc.aggregate.page.svg import inline_svg
from irnet_hpc.aggregate.render import row_format
from irnet_hpc.aggregate.sections.depths import depths_of
from irnet_hpc.aggregate.sections.ranks import Ranking
from irnet_hpc.aggregate.sections.series import Series
from irnet_hpc.aggregate.tables import Table
from irnet_hpc.data.elements import NUMBER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NOBLE = (2, 10, 18, 36, 54, 86, 118)  # the last element of each period
LANTHANUM, ACTINIUM = 57, 89
F_ROW = 8  # lanthanides and actinides stand below the table, in rows of their own: 8 and 9
N_COLUMNS, N_ROWS = 18, 9


def place(symbol: str) -> tuple[int, int]:
    """(row, column) from 1: period and group; of lanthanides and actinides, La and Ac included, F_ROW or the next and 4 to 18.

    >>> place("Fe"), place("He"), place("La"), place("Lr")
    ((4, 8), (1, 18), (8, 4), (9, 18))
    """
    number = NUMBER[symbol]
    for row, first in ((F_ROW, LANTHANUM), (F_ROW + 1, ACTINIUM)):
        if first <= number <= first + 14:
            return row, 4 + number - first
    period = next(period for period, last in enumerate(NOBLE, start=1) if number <= last)
    before = NOBLE[period - 2] if period > 1 else 0
    from_left, from_right = number - before, NOBLE[period - 1] - number
    n_left = 1 if period == 1 else 2
    return period, from_left if from_left <= n_left else N_COLUMNS - from_right


SIZE = (3.7, 3.0)  # inches of a panel: the width of a telephone
MOST_CURVES = 60  # charts of convergence; those of several architectures first
FEWEST_ROWS = 10  # of an element, below which its error is not coloured
# (upper bound of an element's MAE over the MAE of all rows, in words); the place is the colour in the style sheet
SHADES = (
    (0.5, "at most half"),
    (0.8, "to 0.8"),
    (1.0, "to 1 ×"),
    (1.25, "to 1.25"),
    (2.0, "to 2 ×"),
    (float("inf"), "above 2 ×"),
)


def captioned(figure: "Figure", name: str, caption: str, wide: bool = False) -> Markup:
    chart = inline_svg(figure, name, caption)
    return element("figure", chart, element("figcaption", caption), class_="wide" if wide else None)


def panel(draw: "Callable[[Axes], None]", below: str, name: str, caption: str) -> Markup:
    """One panel alone, so that it fits a telephone and several stand side by side on a desk."""
    return captioned(figure_of("", below, [draw], SIZE), name, caption)


def grid(charts: Iterable[Markup]) -> Markup | None:
    charts = list(charts)
    return element("div", *charts, class_="charts") if charts else None


def depth_charts(tables: Iterable[Table]) -> list[Markup]:
    """MAE against depth, the papers' figure: a chart a property of each table with several depths."""
    return [
        panel(
            functools.partial(draw_depths, table=table, row=row),
            "depth (fully connected layers)",
            f"depth{number}-{place}",
            f"{row.property}, {table.title}; bars are one sd over runs",
        )
        for number, table in enumerate(tables)
        if len(depths_of(table)) > 1
        for place, row in enumerate(table.rows)
    ]


def size_charts(sizes: Iterable[Series]) -> list[Markup]:
    return [
        panel(functools.partial(draw_rows, series=one), "training rows", f"rows{number}", one.title)
        for number, one in enumerate(sizes)
    ]


def convergence_charts(trainings: Iterable[Convergence]) -> tuple[list[Markup], int]:
    """A chart a depth, those that compare architectures first; and how many are left out, for a page has its limits."""
    panels = [
        (len(curves), training, depth, curves)
        for training in trainings
        for depth, curves in training.panels
    ]
    panels.sort(key=lambda panel: -panel[0])
    shown = [
        panel(
            functools.partial(draw_training, training=training, depth=depth, curves=curves),
            "epoch",
            f"epochs{number}",
            f"{training.row.property}, {training.table.title}",
        )
        for number, (_, training, depth, curves) in enumerate(panels[:MOST_CURVES])
    ]
    return shown, len(panels) - len(shown)


def cost_charts(tables: Iterable[Table]) -> list[Markup]:
    return [
        panel(
            functools.partial(draw_cost, table=table, row=row),
            "device-hours of a run",
            f"cost{number}-{place}",
            f"{row.property}, {table.title}; numbers are depths, the line joins what nothing beats in both",
        )
        for number, table in enumerate(tables)
        for place, row in enumerate(table.rows)
        if sum(bool(cell and cell.device_hours and cell.mae) for cell in row.cells) > 2
    ]


def rank_chart(ranking: Ranking | None) -> Markup | None:
    if ranking is None or ranking.critical_difference is None:
        return None
    said = "Mean ranks, the best on the left; a bar joins models that are not distinguishable (Nemenyi, 5 %)"
    return captioned(critical_difference(ranking), "ranks", said, wide=True)


def predictions_of(number: int, found: Diagnosis) -> Markup:
    """Parity, residuals, errors by element and the worst rows of one task."""
    task, form = found.task, row_format(found.entry.row)
    runs = f"{found.n_runs} run" + ("" if found.n_runs == 1 else "s")
    parity, residuals = (
        panel(functools.partial(draw, found=found), None, f"{name}{number}", caption)
        for draw, name, caption in (
            (
                draw_parity,
                "parity",
                f"Predicted against target, density of rows (logarithmic); {runs}",
            ),
            (
                draw_residuals,
                "residual",
                "Residuals; dashed lines hold half of the rows, dotted ones 90 %",
            ),
        )
    )
    said = (
        f"{found.entry.name}, {found.entry.how}, {found.entry.features}: MAE {found.mae:{form}} {task.unit} over "
        f"{found.n_rows:,} test rows; half of them are within {found.median:.2g}, and the worst {100 * WORST_PART:.0f} % "
        f"make {100 * found.worst_part:.0f} % of it."
    )
    return element(
        "details",
        element(
            "summary", f"{task.name} ({task.unit}): {found.entry.name}, MAE {found.mae:{form}}"
        ),
        element("p", said, class_="said"),
        grid([parity, residuals]),
        element("h3", "Error by element"),
        elements(found),
        element("h3", "The worst predictions"),
        worst(found),
        open=number == 0,
    )


def elements(found: Diagnosis) -> Markup:
    """The periodic table: the MAE over the test rows that hold an element, by the MAE of all."""
    unit = found.task.unit
    key = [
        element("span", element("i", class_=f"e{shade}"), words)
        for shade, (_, words) in enumerate(SHADES)
    ]
    unread = (
        f" {found.n_unreadable:,} rows have a formula that cannot be read."
        if found.n_unreadable
        else ""
    )
    few = f"Dashed: fewer than {FEWEST_ROWS} rows. A number is the MAE in {unit}.{unread}"
    lines = [
        [
            Text(text)
            for text in ("element", "test rows", f"MAE ({unit})", "mean of prediction less target")
        ]
    ]
    lines += [
        [Text(text) for text in (one.symbol, f"{one.n:,}", f"{one.mae:.3g}", f"{one.bias:+.2g}")]
        for one in found.elements
    ]
    return joined(
        (
            element("div", *(_element(one, found) for one in found.elements), class_="elements"),
            element("p", "Times the MAE of all rows: ", *key, class_="key"),
            element("p", few, class_="note"),
            element(
                "details", element("summary", "The same as a table"), table(lines), class_="screen"
            ),
        )
    )


def _element(one: ElementError, found: Diagnosis) -> Markup:
    ratio = one.mae / found.mae if found.mae else 1.0
    shade = next(shade for shade, (bound, _) in enumerate(SHADES) if ratio <= bound)
    row, column = place(one.symbol)
    said = f"{one.symbol}: MAE {one.mae:.3g} {found.task.unit} over {one.n:,} rows, mean residual {one.bias:+.2g}"
    kind = "few" if one.n < FEWEST_ROWS else f"e{shade}"
    return element(
        "span",
        one.symbol,
        element("small", f"{one.mae:.2g}"),
        class_=kind,
        title=said,
        style=f"grid-area:{row}/{column}",
    )


def worst(found: Diagnosis) -> Markup:
    unit = found.task.unit
    header = (
        "formula",
        "material_id",
        f"target ({unit})",
        f"predicted ({unit})",
        f"absolute error ({unit})",
    )
    lines = [[Text(text) for text in header]]
    lines += [
        [
            Text(text)
            for text in (
                one.formula,
                one.material_id,
                f"{one.target:.4g}",
                f"{one.prediction:.4g}",
                f"{one.error:.4g}",
            )
        ]
        for one in found.worst
    ]
    return table(lines, first=formula)


def charts_or(charts: Sequence[Markup], why: str) -> Markup:
    """The charts, or why there are none."""
    return grid(charts) or element("p", why, class_="note")
