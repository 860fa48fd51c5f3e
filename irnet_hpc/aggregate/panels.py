"""Draw the panels of figures. A panel is one pair of axes with its content.

matplotlib is imported only when a panel is drawn, since tables do not need it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from irnet_hpc.aggregate.all_models import PropertyLines
from irnet_hpc.aggregate.curves import Convergence, Curve
from irnet_hpc.aggregate.formats import one_line
from irnet_hpc.aggregate.scores import NAMES, Model, Score
from irnet_hpc.aggregate.sections.costs import on_front
from irnet_hpc.aggregate.series import Series
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.data.properties import PROPERTIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


Style = tuple[str, str]  # colour and marker

# Okabe and Ito's palette, whose colours colour-blind readers can distinguish; each architecture
# also has its own marker.
STYLES: dict[str, Style] = {
    "plain": ("#D55E00", "s"),
    "srnet": ("#E69F00", "^"),
    "irnet": ("#0072B2", "o"),
}
# Styles of other architectures; the last four colours are from Paul Tol's colour-blind palette.
OTHER_STYLES: tuple[Style, ...] = (
    *(("#009E73", "D"), ("#CC79A7", "v"), ("#56B4E9", "P"), ("#000000", "X")),
    *(("#882255", "<"), ("#999933", ">"), ("#332288", "p"), ("#44AA99", "h")),
)
BEST_CLASSICAL = ("best classical", ("0.2", "X"), "--")  # label, style, line
LINES = ("-", "--", "-.", ":")  # for depths, the lowest first
BASELINE = "baseline (train median)"
# A baseline above this many times the largest MAE would squeeze the lines together. Such a baseline
# is written as a number and not drawn.
MAX_BASELINE = 1.5
BESIDE: dict[str, Any] = {"loc": "right", "color": "0.4", "fontsize": 8}  # small, above the panel

# The labels of horizontal axes, in the files and on the page; vertical axes are labelled below.
X_LABELS = {
    "depth": "depth (fully connected layers)",
    "size": "training rows",
    "convergence": "epoch",
}


def draw_depths(panel: "Axes", table: Table, row: Row) -> None:
    """Draw MAE against depth with a line for each architecture."""
    styles = styles_of(model.architecture for model in table.models)
    top = 0.0
    for architecture, style in styles.items():
        points = [
            (float(model.depth or 0), score)
            for model, score in zip(table.models, row.scores, strict=True)
            if score and model.architecture == architecture
        ]
        if points:
            _draw_scores(panel, points, NAMES.get(architecture, architecture), style)
            top = max(top, *(score.mae + (score.sd or 0.0) for _, score in points))
    if row.baseline <= MAX_BASELINE * top:
        panel.axhline(row.baseline, color="0.4", linestyle="--", linewidth=1, label=BASELINE)
    else:
        panel.set_title(f"baseline {row.baseline:.3g} ↑", **BESIDE)
    _name_panel(panel, row.property, row.unit)
    panel.set_xticks(table.depths)
    panel.grid(axis="y", color="0.9", linewidth=0.8)


def _name_panel(panel: "Axes", name: str, unit: str) -> None:
    panel.set_title(name.replace("_", " "), loc="left")
    panel.set_ylabel(f"MAE of {symbol(name)} ({plain_text(unit)})")


def styles_of(architectures: Iterable[str]) -> dict[str, Style]:
    """Map architectures, in the given order, to their colours and markers."""
    known = list(dict.fromkeys(architectures))
    others = iter(OTHER_STYLES * len(known))
    return {architecture: STYLES.get(architecture) or next(others) for architecture in known}


def _draw_scores(
    panel: "Axes",
    points: Sequence[tuple[float, Score]],
    label: str,
    style: Style,
    line: str = "-",
) -> None:
    """Draw a line through (x, score) points, with error bars of one sd."""
    sds = [score.sd or 0.0 for _, score in points]
    panel.errorbar(
        [place for place, _ in points],
        [score.mae for _, score in points],
        yerr=sds if any(sds) else None,
        label=plain_text(label),
        color=style[0],
        marker=style[1],
        linestyle=line,
        markersize=5,
        linewidth=1.5,
        elinewidth=1,
        capsize=2.5,
    )


def _draw_positive(
    panel: "Axes",
    points: Sequence[tuple[float, Score]],
    label: str,
    style: Style,
    line: str = "-",
) -> int:
    """Draw the scores that a logarithmic axis can show. Returns the number of all other scores."""
    shown = [(place, score) for place, score in points if _is_on_log_axis(score.mae)]
    if shown:
        _draw_scores(panel, shown, label, style, line)
    return len(points) - len(shown)


def _is_on_log_axis(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _left_out(n: int, noun: str) -> str:
    """Say how many values a logarithmic axis cannot show; empty if it shows all."""
    return f"{n:,} {noun}{'' if n == 1 else 's'} of 0 or ∞ not drawn" if n else ""


def draw_rows(panel: "Axes", series: Series) -> None:
    """Draw MAE against training rows on logarithmic axes, with a line for each model."""
    styles = styles_of(model.architecture for model in series.models)
    depths = sorted({model.depth for model in series.models if model.depth})
    rows = [point.row for point in series.points]
    n_zero = 0
    for model in series.models:
        line = LINES[depths.index(model.depth) % len(LINES)] if model.depth else "-"
        scores = [(point.row.n_train, point.score(model)) for point in series.points]
        known = [(float(n), score) for n, score in scores if score]
        n_zero += _draw_positive(panel, known, str(model), styles[model.architecture], line)
    best = [(float(row.n_train), row.best_classical) for row in rows if row.best_classical]
    n_zero += _draw_positive(panel, best, *BEST_CLASSICAL)
    baselines = [(row.n_train, row.baseline) for row in rows if _is_on_log_axis(row.baseline)]
    n_zero += len(rows) - len(baselines)
    if baselines:
        panel.plot(*zip(*baselines, strict=True), color="0.4", linestyle=":", label=BASELINE)
    panel.set_title(_left_out(n_zero, "MAE"), **BESIDE)
    panel.set(xscale="log", yscale="log")
    round_ticks(panel.yaxis)
    panel.grid(which="both", color="0.92", linewidth=0.6)
    _name_panel(panel, series.property, series.unit)


def draw_convergence(
    panel: "Axes", convergence: Convergence, depth: int, curves: Sequence[Curve]
) -> None:
    """Draw MAE against epoch, on the rows that select the best epoch."""
    n_left_out = 0
    for curve in curves:
        # Epochs are counted from 1, as in the log and the progress bar of a training.
        epochs = [epoch + 1 for epoch in curve.epochs]
        colour, _ = STYLES[curve.architecture]
        maes = [mae if _is_on_log_axis(mae) else math.nan for mae in curve.maes]
        gaps = sum(map(math.isnan, maes))
        n_left_out += gaps
        panel.plot(
            epochs,
            maes,
            color=colour,
            linewidth=1.2,
            # The line has gaps, and an epoch between two of them is a point.
            marker="." if gaps else "",
            label=NAMES[curve.architecture],
        )
    # The type stub of Locator lacks the options of MaxNLocator.
    panel.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    panel.set_yscale("log")
    round_ticks(panel.yaxis)
    panel.grid(axis="y", which="both", color="0.92", linewidth=0.6)
    n_runs = ", ".join(str(n) for n in sorted({curve.n for curve in curves}))
    panel.set_title(f"depth {depth}", loc="left")
    left_out = _left_out(n_left_out, "epoch")
    panel.set_title(f"n={n_runs}{', ' * bool(left_out)}{left_out}", **BESIDE)
    table, row = convergence.table, convergence.row
    of = f"{symbol(row.property)} ({plain_text(row.unit)})"
    panel.set_ylabel(f"MAE on {table.selected_on} of {of}")


def round_ticks(axis: "Axis") -> None:
    """Label a logarithmic axis with about five round numbers, such as 0.12 and not 1.2 x 10^-1."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), numticks=50))
    low, high = axis.get_view_interval()
    ticks = [
        tick for tick in axis.get_major_locator().tick_values(low, high) if low <= tick <= high
    ]
    labelled = set(ticks[:: max(1, round(len(ticks) / 5))])
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.4g}" if value in labelled else "")
    )
    axis.set_minor_locator(NullLocator())


def symbol(name: str) -> str:
    """Return a property's symbol in matplotlib's math notation, with an upright subscript."""
    if name not in PROPERTIES:
        return plain_text(name.replace("_", " "))
    letter, slash, per = PROPERTIES[name].symbol.partition("/")
    letter, _, subscript = letter.partition("_")
    return f"${letter}" + (rf"_{{\mathrm{{{subscript}}}}}" if subscript else "") + f"${slash}{per}"


def plain_text(text: str) -> str:
    """Escape text so that matplotlib does not read it as math."""
    return one_line(text).replace("$", r"\$")


def draw_importance(panel: "Axes", rises: Sequence[tuple[str, float, float]], unit: str) -> None:
    """Draw the rise of the MAE for each set of features, the largest on top, with bars of one sd.

    Args:
        panel: the axes.
        rises: (name, mean over the shuffles, standard deviation) of each set, the largest first.
        unit: the unit of the rises.
    """
    names, means, sds = zip(*rises, strict=True)
    heights = range(len(names), 0, -1)
    panel.barh(
        heights,
        means,
        xerr=sds,
        color=STYLES["irnet"][0],
        height=0.7,
        error_kw={"ecolor": "0.2", "elinewidth": 1},
    )
    panel.axvline(0, color="0.4", linewidth=0.8)
    panel.set_yticks(heights, map(plain_text, names))
    panel.grid(axis="x", color="0.9", linewidth=0.8)
    panel.set_xlabel(f"rise of the test MAE ({plain_text(unit)})")


def draw_cost(panel: "Axes", known: PropertyLines) -> None:
    """Draw MAE against the device-hours of a run, with a line along the Pareto front."""
    styles = styles_of(line.model.architecture for line in known.lines)
    lines = [
        line
        for line in known.lines
        if _is_on_log_axis(line.score.hours) and _is_on_log_axis(line.score.mae)
    ]
    n_left_out = len(known.lines) - len(lines)
    panel.set_title(f"{n_left_out} of 0 not drawn" if n_left_out else "", **BESIDE)
    for line in lines:
        place = line.score.hours, line.score.mae
        _draw_point(panel, line.model, place, styles[line.model.architecture])
    scores = [line.score for line in lines]
    front = sorted((score.hours, score.mae) for score in scores if on_front(score, scores))
    panel.plot(*zip(*front, strict=True), color="0.4", linewidth=0.8, linestyle="--", zorder=1)
    panel.set(xscale="log", yscale="log")
    round_ticks(panel.xaxis)
    round_ticks(panel.yaxis)
    panel.grid(which="both", color="0.92", linewidth=0.6)
    _name_panel(panel, known.property, known.unit)


def _draw_point(panel: "Axes", model: Model, place: tuple[float, float], style: Style) -> None:
    """Draw a model as a point, with its depth beside it."""
    label = plain_text(NAMES.get(model.architecture, model.architecture))
    x, y = place
    panel.plot([x], [y], color=style[0], marker=style[1], linestyle="none", label=label)
    if model.depth:
        panel.annotate(
            str(model.depth), place, xytext=(4, 3), textcoords="offset points", fontsize=7
        )
