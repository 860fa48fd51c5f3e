"""Tables -> figures. matplotlib is imported when a figure is drawn, so that tables need none."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.files import replacing
from irnet_hpc.properties import PROPERTIES
from irnet_hpc.tables import Row, Table
from irnet_hpc.typeset import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# architecture -> colour of Okabe and Ito's palette, which the colour-blind can tell apart; the marker says it once more
STYLES = {"plain": ("#D55E00", "s"), "srnet": ("#E69F00", "^"), "irnet": ("#0072B2", "o")}
OTHERS = (("#009E73", "D"), ("#CC79A7", "v"), ("#56B4E9", "P"), ("#000000", "X"))
NAMES = {"plain": "plain", "srnet": "SRNet", "irnet": "IRNet", "brnet": "BRNet", "elemnet": "ElemNet"}

BASELINE_AT_MOST = (
    1.5  # times the largest MAE: a baseline far above would press the lines together, and is written instead
)
BASELINE = "baseline (train median)"
FORMATS = (".png", ".pdf")  # for a screen and for a paper


def write_figures(tables: Iterable[Table], folder: Path) -> list[Path]:
    """Draw each table that has more than one depth as `<folder>/mae_vs_depth-<table>.png` and `.pdf`."""
    written = []
    for table in tables:
        if len({depth for _, depth in table.models}) < 2:
            continue
        figure = mae_against_depth(table)
        for suffix in FORMATS:
            path = folder / f"mae_vs_depth-{table.name}{suffix}"
            with replacing(path) as temporary:  # without dates inside, the same results give the same file
                undated = {"CreationDate": None} if suffix == ".pdf" else None
                figure.savefig(temporary, dpi=200, bbox_inches="tight", metadata=undated)
            written.append(path)
    return written


def mae_against_depth(table: Table) -> "Figure":
    """Test MAE against depth as in Jha et al. 2019: a line an architecture, a panel a property, bars of one sd over seeds."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_columns = 2 if len(table.rows) == 4 else min(3, len(table.rows))
    n_rows = -(-len(table.rows) // n_columns)
    with rc_context({"font.size": 9, "axes.titlesize": 10, "pdf.fonttype": 42, "savefig.facecolor": "white"}):
        figure = Figure(figsize=(3.4 * n_columns, 2.9 * n_rows), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for panel, row in zip(panels, table.rows, strict=False):
            _draw(panel, table, row)
        for panel in panels[len(table.rows) :]:
            panel.set_visible(False)
        for panel in panels[: len(table.rows)][-n_columns:]:  # with nothing below
            panel.set_xlabel("depth (fully connected layers)")
        handles = {
            label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        labels = sorted(handles, key=lambda label: label == BASELINE)  # last
        place = {"loc": "outside upper center", "ncols": 2 if n_columns == 1 else 4, "frameon": False}
        figure.legend([handles[label] for label in labels], labels, **place)
        figure.suptitle(table.title, fontsize=8, color="0.35", x=0.01, ha="left", y=-0.01, va="top")
    return figure


def _draw(panel: "Axes", table: Table, row: Row) -> None:
    architectures = list(dict.fromkeys(architecture for architecture, _ in table.models))
    others = iter(OTHERS * len(architectures))
    styles = {architecture: STYLES.get(architecture) or next(others) for architecture in architectures}
    top = 0.0
    for architecture in architectures:
        points = [
            (depth, cell.mae, cell.sd or 0.0)
            for (other, depth), cell in zip(table.models, row.cells, strict=True)
            if cell and other == architecture
        ]
        if not points:
            continue
        depths, maes, sds = zip(*points, strict=True)
        colour, marker = styles[architecture]
        panel.errorbar(
            depths,
            maes,
            yerr=sds if any(sds) else None,
            label=NAMES.get(architecture, architecture),
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.5,
            elinewidth=1,
            capsize=2.5,
        )
        top = max(top, *(mae + sd for mae, sd in zip(maes, sds, strict=True)))
    _draw_baseline(panel, row, top)
    panel.set_title(row.property.replace("_", " "), loc="left")
    panel.set_ylabel(f"MAE of {_symbol(row.property)} ({_plain(row.unit)})")
    panel.set_xticks(sorted({depth for _, depth in table.models}))
    panel.grid(axis="y", color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_baseline(panel: "Axes", row: Row, top: float) -> None:
    if row.baseline <= BASELINE_AT_MOST * top:
        panel.axhline(row.baseline, color="0.4", linestyle="--", linewidth=1, label=BASELINE)
    else:
        panel.set_title(f"baseline {row.baseline:.3g} ↑", loc="right", color="0.4", fontsize=8)


def _symbol(name: str) -> str:
    """A property's symbol in matplotlib's mathematics: E_hull is an italic letter and an upright subscript."""
    if name not in PROPERTIES:
        return _plain(name.replace("_", " "))
    letter, slash, per = PROPERTIES[name].symbol.partition("/")
    letter, _, subscript = letter.partition("_")
    return f"${letter}" + (rf"_{{\mathrm{{{subscript}}}}}" if subscript else "") + f"${slash}{per}"


def _plain(text: str) -> str:
    """Text in which matplotlib sees no mathematics."""
    return one_line(text).replace("$", r"\$")
