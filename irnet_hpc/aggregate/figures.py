"""What is drawn within a panel, and panels as figures. matplotlib is imported when a figure is drawn, so that tables need none."""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.curves import Convergence, Curve
from irnet_hpc.aggregate.diagnostics import Diagnosis
from irnet_hpc.aggregate.formats import one_line
from irnet_hpc.aggregate.sections.cost import hours, on_front
from irnet_hpc.aggregate.sections.ranks import Ranking
from irnet_hpc.aggregate.sections.series import Series
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.files import replacing
from irnet_hpc.runs.spec import model_name

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


# architecture -> colour of Okabe and Ito's palette, which the colour-blind can tell apart; the marker says it once more
STYLES = {"plain": ("#D55E00", "s"), "srnet": ("#E69F00", "^"), "irnet": ("#0072B2", "o")}
OTHERS = (("#009E73", "D"), ("#CC79A7", "v"), ("#56B4E9", "P"), ("#000000", "X"))
OTHERS += (
    ("#882255", "<"),
    ("#999933", ">"),
    ("#332288", "p"),
    ("#44AA99", "h"),
)  # of Paul Tol's, for the same eyes
NAMES = {
    "plain": "plain",
    "srnet": "SRNet",
    "irnet": "IRNet",
    "brnet": "BRNet",
    "elemnet": "ElemNet",
}

CLASSICAL = ("best classical", ("0.2", "X"), "--")
LINES = ("-", "--", "-.", ":")  # of depths, the least first

BASELINE_AT_MOST = 1.5  # times the largest MAE: a baseline far above would press the lines together, and is written instead
BASELINE = "baseline (train median)"
CENTRAL = (
    0.001,
    0.999,
)  # of the rows, what a parity plot spans: one far outlier must not press all others together
PIXELS = 90  # a side of a density


def figure_of(
    title: str,
    below: str,
    draw: "Sequence[Callable[[Axes], None]]",
    size: tuple[float, float] = (3.4, 2.9),
) -> "Figure":
    """Panels of a `size` in inches, of which each is drawn by one of `draw`, with one legend above; `below` is what the horizontal axes say."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_columns = 2 if len(draw) == 4 else min(3, len(draw))
    n_rows = -(-len(draw) // n_columns)
    with rc_context(
        {"font.size": 9, "axes.titlesize": 10, "pdf.fonttype": 42, "savefig.facecolor": "white"}
    ):
        figure = Figure(figsize=(size[0] * n_columns, size[1] * n_rows), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for panel, draw_one in zip(panels, draw, strict=False):
            draw_one(panel)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
        for panel in panels[len(draw) :]:
            panel.set_visible(False)
        for panel in panels[: len(draw)][-n_columns:]:  # with nothing below
            panel.set_xlabel(below or panel.get_xlabel())
        handles = {
            label: line
            for panel in panels
            for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        labels = sorted(handles, key=lambda label: label == BASELINE)  # last
        place = {
            "loc": "outside upper center",
            "ncols": min(4, int(size[0] * n_columns / 1.7)),
            "frameon": False,
        }
        figure.legend([handles[label] for label in labels], labels, **place)
        if title:
            figure.suptitle(title, fontsize=8, color="0.35", x=0.01, ha="left", y=-0.01, va="top")
    return figure


def draw_depths(panel: "Axes", table: Table, row: Row) -> None:
    styles = styles_of(architecture for architecture, _ in table.models)
    top = 0.0
    for architecture, style in styles.items():
        points = [
            (depth, cell.mae, cell.sd or 0.0)
            for (other, depth), cell in zip(table.models, row.cells, strict=True)
            if cell and other == architecture
        ]
        if not points:
            continue
        depths, maes, sds = zip(*points, strict=True)
        draw_line(panel, depths, maes, sds, NAMES.get(architecture, architecture), style)
        top = max(top, *(mae + sd for mae, sd in zip(maes, sds, strict=True)))
    _draw_baseline(panel, row, top)
    panel.set_title(row.property.replace("_", " "), loc="left")
    panel.set_ylabel(f"MAE of {symbol(row.property)} ({plain(row.unit)})")
    panel.set_xticks(sorted({depth for _, depth in table.models}))
    panel.grid(axis="y", color="0.9", linewidth=0.8)


def styles_of(architectures: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Architecture -> colour and marker, in the order given."""
    known = list(dict.fromkeys(architectures))
    others = iter(OTHERS * len(known))
    return {architecture: STYLES.get(architecture) or next(others) for architecture in known}


def draw_line(
    panel: "Axes",
    places: Sequence[float],
    maes: Sequence[float],
    sds: Sequence[float],
    label: str,
    style: tuple[str, str],
    line: str = "-",
) -> None:
    panel.errorbar(
        places,
        maes,
        yerr=sds if any(sds) else None,
        label=plain(label),
        color=style[0],
        marker=style[1],
        linestyle=line,
        markersize=5,
        linewidth=1.5,
        elinewidth=1,
        capsize=2.5,
    )


def draw_rows(panel: "Axes", series: Series) -> None:
    styles = styles_of(architecture for architecture, _ in series.models)
    depths = sorted({depth for _, depth in series.models if depth})
    lines = [(model_name(*model), styles[model[0]], model) for model in series.models]
    for label, style, (architecture, depth) in lines:
        cells = [(point.row.n_train, point.cell((architecture, depth))) for point in series.points]
        line = LINES[depths.index(depth) % len(LINES)] if depth else "-"
        _draw_cells(panel, cells, label, style, line)
    _draw_cells(
        panel, [(one.row.n_train, one.row.best_classical) for one in series.points], *CLASSICAL
    )
    rows = [point.row for point in series.points]
    panel.plot(
        [row.n_train for row in rows],
        [row.baseline for row in rows],
        color="0.4",
        linestyle=":",
        label=BASELINE,
    )
    panel.set(xscale="log", yscale="log")
    plain_ticks(panel.yaxis)
    panel.grid(which="both", color="0.92", linewidth=0.6)
    panel.set_title(series.property.replace("_", " "), loc="left")
    panel.set_ylabel(f"MAE of {symbol(series.property)} ({plain(series.unit)})")


def _draw_cells(
    panel: "Axes", cells: Iterable, label: str, style: tuple[str, str], line: str
) -> None:
    """A line through those (rows, cell) that there are."""
    if points := [(n_rows, cell.mae, cell.sd or 0.0) for n_rows, cell in cells if cell]:
        draw_line(panel, *zip(*points, strict=True), label, style, line)


def draw_training(
    panel: "Axes", training: Convergence, depth: int, curves: Iterable[Curve]
) -> None:
    for curve in curves:
        colour, _ = STYLES[curve.architecture]
        epochs = [
            epoch + 1 for epoch in curve.epochs
        ]  # as the log and the bar of a training count them
        panel.plot(epochs, curve.maes, color=colour, linewidth=1.2, label=NAMES[curve.architecture])
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set_yscale("log")
    plain_ticks(panel.yaxis)
    panel.grid(axis="y", which="both", color="0.92", linewidth=0.6)
    runs = ", ".join(str(n) for n in sorted({curve.n for curve in curves}))
    panel.set_title(f"depth {depth}", loc="left")
    panel.set_title(f"n={runs}", loc="right", color="0.4", fontsize=8)
    row = training.row
    panel.set_ylabel(
        f"MAE on {training.table.selected_on} of {symbol(row.property)} ({plain(row.unit)})"
    )


def plain_ticks(axis: "Axis") -> None:
    """Errors on a logarithmic axis as they stand in the tables, 0.12 and not 1.2 x 10^-1, at about five round numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), numticks=50))
    low, high = axis.get_view_interval()
    shown = [
        tick for tick in axis.get_major_locator().tick_values(low, high) if low <= tick <= high
    ]
    kept = set(shown[:: max(1, round(len(shown) / 5))])
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.4g}" if value in kept else "")
    )
    axis.set_minor_locator(NullLocator())


def _draw_baseline(panel: "Axes", row: Row, top: float) -> None:
    if row.baseline <= BASELINE_AT_MOST * top:
        panel.axhline(row.baseline, color="0.4", linestyle="--", linewidth=1, label=BASELINE)
    else:
        panel.set_title(f"baseline {row.baseline:.3g} ↑", loc="right", color="0.4", fontsize=8)


def symbol(name: str) -> str:
    """A property's symbol in matplotlib's mathematics: E_hull is an italic letter and an upright subscript."""
    if name not in PROPERTIES:
        return plain(name.replace("_", " "))
    letter, slash, per = PROPERTIES[name].symbol.partition("/")
    letter, _, subscript = letter.partition("_")
    return f"${letter}" + (rf"_{{\mathrm{{{subscript}}}}}" if subscript else "") + f"${slash}{per}"


def plain(text: str) -> str:
    """Text in which matplotlib sees no mathematics."""
    return one_line(text).replace("$", r"\$")


def critical_difference(ranking: Ranking) -> "Figure":
    """Mean ranks on one axis, the best on the left; bars join what is not distinguishable (Demsar 2006, figure 1)."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_models, cliques = len(ranking.models), ranking.cliques
    top = 1.4 + 0.35 * len(cliques)
    with rc_context({"font.size": 9, "pdf.fonttype": 42, "savefig.facecolor": "white"}):
        figure = Figure(
            figsize=(6.8, 0.9 + 0.24 * (-(-n_models // 2)) + 0.1 * len(cliques)),
            layout="constrained",
        )
        FigureCanvasAgg(figure)
        panel = figure.subplots()
        half = -(-n_models // 2)
        for place, (model, rank) in enumerate(zip(ranking.models, ranking.ranks, strict=True)):
            left = (
                place < half
            )  # the better half is named on the left, the worse on the right, from outside inwards
            depth = top + (place if left else n_models - 1 - place)
            edge = 0.9 if left else n_models + 0.1
            panel.plot([rank, rank, edge], [0, depth, depth], color="0.4", linewidth=0.8)
            panel.text(
                edge,
                depth,
                f" {rank:.2f}  {plain(model)} ",
                ha="right" if left else "left",
                va="center",
            )
        for number, (first, last) in enumerate(cliques):
            ends = [ranking.ranks[first] - 0.04, ranking.ranks[last] + 0.04]
            panel.plot(ends, [0.55 + 0.35 * number] * 2, color=STYLES["irnet"][0], linewidth=3.5)
        panel.plot(
            [1, 1 + ranking.critical_difference], [-1.1] * 2, color="0.2", linewidth=1.2, marker="|"
        )
        panel.text(
            1 + ranking.critical_difference / 2,
            -1.25,
            f"critical difference {ranking.critical_difference:.2f}",
            ha="center",
            va="bottom",
        )
        panel.set(
            ylim=(top + half - 0.4, -1.9),
            xlim=(0.9, n_models + 0.1),
            xticks=range(1, n_models + 1),
            yticks=[],
        )
        panel.xaxis.tick_top()
        panel.spines["top"].set_position(("data", 0))
        panel.spines[["left", "right", "bottom"]].set_visible(False)
    return figure


def draw_parity(panel: "Axes", found: Diagnosis) -> None:
    """Predictions against targets as a density of rows; on the line they are equal."""
    import numpy as np

    low, high = (
        float(limit)
        for limit in np.quantile(np.concatenate([found.target, found.prediction]), CENTRAL)
    )
    _density(panel, found.target, found.prediction, (low, high), (low, high))
    panel.axline((low, low), slope=1, color="0.4", linewidth=0.9)
    unit = plain(found.task.unit)
    panel.set(xlabel=f"{symbol(found.task.property)} ({unit})", ylabel=f"predicted ({unit})")


def draw_residuals(panel: "Axes", found: Diagnosis) -> None:
    """Prediction less target against the target, as a density; lines hold half of the rows and 90 % of them."""
    import numpy as np

    residual = found.prediction - found.target
    low, high = (float(limit) for limit in np.quantile(found.target, CENTRAL))
    edge = float(np.quantile(np.abs(residual), 0.99)) or 1.0
    _density(panel, found.target, residual, (low, high), (-edge, edge))
    panel.axhline(0, color="0.4", linewidth=0.9)
    for part, line in ((0.5, "--"), (0.9, ":")):
        for quantile in np.quantile(residual, [(1 - part) / 2, (1 + part) / 2]):
            panel.axhline(quantile, color="0.4", linewidth=0.8, linestyle=line)
    unit = plain(found.task.unit)
    panel.set(
        xlabel=f"{symbol(found.task.property)} ({unit})", ylabel=f"predicted less target ({unit})"
    )


def _density(
    panel: "Axes",
    x: "np.ndarray",
    y: "np.ndarray",
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
) -> None:
    """Rows a pixel, logarithmic, as the opacity of one colour: legible on a dark page and on a light one. What lies beyond the
    limits is drawn at the edge, and not lost."""
    import numpy as np

    (x_low, x_high), (y_low, y_high) = (_wider(limits) for limits in (x_limits, y_limits))
    counts, _, _ = np.histogram2d(
        np.clip(x, x_low, x_high),
        np.clip(y, y_low, y_high),
        PIXELS,
        [[x_low, x_high], [y_low, y_high]],
    )
    image = np.zeros((PIXELS, PIXELS, 4))
    image[..., :3] = np.array([0x3F, 0x93, 0xDC]) / 255
    opacity = np.log1p(counts.T) / np.log1p(counts.max())
    image[..., 3] = np.where(counts.T > 0, 0.35 + 0.65 * opacity, 0)
    panel.imshow(
        image,
        origin="lower",
        extent=(x_low, x_high, y_low, y_high),
        aspect="auto",
        interpolation="nearest",
    )
    panel.set(xlim=(x_low, x_high), ylim=(y_low, y_high))


def _wider(limits: tuple[float, float]) -> tuple[float, float]:
    margin = 0.03 * (limits[1] - limits[0]) or 0.5
    return limits[0] - margin, limits[1] + margin


def draw_cost(panel: "Axes", table: Table, row: Row) -> None:
    """Test MAE against device-hours of a run, both logarithmic: a point a model, the cheapest and best of them joined."""
    styles = styles_of(architecture for architecture, _ in table.models)
    found = [
        (model, cell)
        for model, cell in zip(table.models, row.cells, strict=True)
        if cell and cell.device_hours
    ]
    for (architecture, depth), cell in found:
        colour, marker = styles[architecture]
        label = NAMES.get(architecture, architecture)
        panel.plot(
            [hours(cell)],
            [cell.mae],
            color=colour,
            marker=marker,
            linestyle="none",
            label=plain(label),
        )
        if depth:
            panel.annotate(
                str(depth),
                (hours(cell), cell.mae),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=7,
            )
    front = sorted(
        (hours(cell), cell.mae)
        for _, cell in found
        if on_front(cell, [other for _, other in found])
    )
    panel.plot(*zip(*front, strict=True), color="0.4", linewidth=0.8, linestyle="--", zorder=1)
    panel.set(xscale="log", yscale="log")
    plain_ticks(panel.xaxis)
    plain_ticks(panel.yaxis)
    panel.grid(which="both", color="0.92", linewidth=0.6)
    panel.set_title(row.property.replace("_", " "), loc="left")
    panel.set_ylabel(f"MAE of {symbol(row.property)} ({plain(row.unit)})")


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
    todo += [
        (f"convergence-{training.name}", convergence_curves, training) for training in trainings
    ]
    todo += (
        [("critical_difference", critical_difference, ranking)]
        if ranking and ranking.critical_difference
        else []
    )
    written = []
    for name, draw, what in todo:
        figure = draw(what)
        for suffix in FORMATS:
            path = folder / f"{name}{suffix}"
            with replacing(
                path
            ) as temporary:  # without dates inside, the same results give the same file
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
    return figure_of(
        series.title, "training rows", [functools.partial(draw_rows, series=series)], (5.6, 3.9)
    )


def convergence_curves(training: Convergence) -> "Figure":
    """MAE on the rows that select against the epoch: a line an architecture, a panel a depth."""
    draw = [
        functools.partial(draw_training, training=training, depth=depth, curves=curves)
        for depth, curves in training.panels
    ]
    return figure_of(f"{training.row.property}, {training.table.title}", "epoch", draw)
