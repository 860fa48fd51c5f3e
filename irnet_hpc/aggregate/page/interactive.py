"""Put the predictions of all models into the page, for charts that the reader can ask.

Bokeh draws them: its script (1.27 MB in version 3.9.2) is the smallest of the three libraries that
would do. Plotly's is 4.8 MB (7.1.0). The HTML that Altair inlines leaves `</script>` within data
unescaped, and its Vega-Lite comes in a wheel of 34 MB (vl-convert 1.9.0). Bokeh's script is text on
the page until a chart comes into view, when charts.js starts it. Without Bokeh the page has the
plain figures alone.

The page states how many rows it holds: at most MAX_ROWS of a task, the same for all of its models,
and at most MAX_NUMBERS predictions in all.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from irnet_hpc.aggregate.error_panels import residual_edge, shown_range
from irnet_hpc.aggregate.predicted import ModelPoints, TaskPoints
from irnet_hpc.aggregate.words import property_words

if TYPE_CHECKING:
    import numpy as np

MAX_ROWS = 2000  # of each task
MAX_NUMBERS = 500_000  # predictions in the page, about 3 MB
MIN_ROWS = 50  # a task with fewer rows than its own is not worth a chart
N_WORST = 12  # the rows of largest error of the first model are always among the drawn ones
MAX_TEXT = 80  # characters of a formula or an id
SEED = 0
# What the chart knows of each point.
COLUMNS = ("x", "y", "colour", "marker", "model", "formula", "id", "target", "predicted", "error")


class Drawn(NamedTuple):
    """The rows that the chart of a task shows."""

    words: str
    is_sample: bool


class Live(NamedTuple):
    """Hold the data and the script of the interactive charts."""

    library: Markup  # Bokeh's script
    data: Markup  # JSON
    drawn: list[Drawn | None]  # for each task; None: it has no chart


def live_charts(tasks: Sequence[TaskPoints]) -> Live | None:
    """Make interactive charts of tasks; None if Bokeh is not installed or there is no task."""
    if not tasks:
        return None
    try:
        library, figure = _library(), _figure()
    except ImportError:
        return None
    n_rows = rows_of_each(tasks)
    data = {
        "figure": figure,
        "tasks": [_task(task, n) if n else None for task, n in zip(tasks, n_rows, strict=True)],
    }
    drawn = [_drawn(task, n) if n else None for task, n in zip(tasks, n_rows, strict=True)]
    return Live(library, inert_json(data), drawn)


def rows_of_each(tasks: Sequence[TaskPoints]) -> list[int]:
    """Return how many rows of each task the page holds; 0: none, since there are too many models.

    Each prediction of a model and, if it has several runs, each error counts as a number.
    """
    sizes = [sum(2 if model.n_runs > 1 else 1 for model in task.models) for task in tasks]
    left, rows = MAX_NUMBERS, []
    for number, (task, size) in enumerate(zip(tasks, sizes, strict=True)):
        share = left // (sum(sizes[number:]) or 1)  # what a task leaves is shared by the next
        n = min(len(task.target), MAX_ROWS, share)
        rows.append(n if n >= min(MIN_ROWS, len(task.target)) else 0)
        left -= rows[-1] * size
    return rows


def inert_json(value: object) -> Markup:
    r"""Write JSON that cannot end a script element: `<`, `>` and `&` become `\u003c` and so on."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _library() -> Markup:
    """Return Bokeh's script."""
    from bokeh.resources import Resources

    # With this one component, js_raw of 3.9.2 is bokeh.min.js and a line that sets the log level.
    script = Resources(mode="inline", minified=True, components=["bokeh"]).js_raw[0]
    # A page's script ends at the first of these words, and its line ends are read as \n.
    if "</script" in script.lower() or "<!--" in script or "\r" in script:
        raise ImportError("this version of Bokeh cannot stand within a page")
    return Markup(script)


def _figure() -> dict[str, Any]:
    """Describe the empty chart that charts.js fills, as Bokeh's JSON."""
    from bokeh.embed import json_item
    from bokeh.models import ColumnDataSource, HoverTool, Range1d
    from bokeh.models.annotations import Slope
    from bokeh.plotting import figure

    plot = figure(
        name="plot",
        height=440,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,tap",
        toolbar_location="above",
        background_fill_color=None,
        border_fill_color=None,  # charts.js sets the page's colour; white would leave an edge
        active_drag=None,  # a finger that scrolls the page must not move the chart
        x_range=Range1d(start=0, end=1, name="x"),
        y_range=Range1d(start=0, end=1, name="y"),
    )
    plot.toolbar.logo = None
    source = ColumnDataSource({column: [] for column in COLUMNS}, name="source")
    points = plot.scatter(
        "x",
        "y",
        source=source,
        size=7,
        marker="marker",
        fill_color="colour",
        line_color="colour",
        fill_alpha=0.55,
        line_alpha=0.9,
        nonselection_fill_alpha=0.25,
        nonselection_line_alpha=0.3,
        name="points",
    )
    # Bokeh escapes what stands for @column, unless {safe} is behind it.
    tooltips = [
        *(("material", "@formula (@id)"), ("target", "@target"), ("predicted", "@predicted")),
        *(("absolute error", "@error"), ("model", "@model")),
    ]
    plot.add_tools(HoverTool(renderers=[points], tooltips=tooltips, limit=3))
    plot.add_layout(Slope(gradient=1, y_intercept=0, line_width=1, name="line"))
    for axis in (plot.xaxis[0], plot.yaxis[0]):
        axis.axis_label_text_font_style = "normal"
    return _numbered(json_item(plot))


def _numbered(item: Any) -> Any:
    """Number the ids of Bokeh's models anew, so that the same results give the same page.

    Bokeh 3.9.2 counts ids over all models that a process has made: `p1001`, ...
    """
    names: dict[str, str] = {}

    def rename(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: rename(part, name) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [rename(part) for part in value]
        if key in ("id", "root_id") and isinstance(value, str):
            return names.setdefault(value, f"m{len(names)}")
        return value

    return rename(dict(item))


def _task(task: TaskPoints, n: int) -> dict[str, Any]:
    rows, is_drawn = drawn_rows(task, n)
    first = task.models[0].result
    return {
        "property": property_words(first.row.property),
        "unit": first.row.unit,
        "ids": [_short(text) for text in task.material_id[rows]],
        "formulas": [_short(text) for text in task.formula[rows]],
        "elements": _elements(task.formula[rows]),
        # The rows that are there because of their errors, and so enter no MAE.
        "worst": [place for place, drawn in enumerate(is_drawn.tolist()) if not drawn],
        "target": _floats(task.target[rows]),
        "models": [_model(task, model, rows) for model in task.models],
    }


def _model(task: TaskPoints, model: ModelPoints, rows: "np.ndarray") -> dict[str, Any]:
    import numpy as np

    known = np.isfinite(model.prediction)
    target, prediction = task.target[known], model.prediction[known]
    parity = shown_range(np.concatenate([target, prediction])).widened()
    return {
        "name": _short(model.name),
        "prediction": _floats(model.prediction[rows]),
        "error": _floats(model.error[rows]) if model.n_runs > 1 else None,
        # Where the axes end, so that a few values do not squeeze the others together.
        "parity": list(parity),
        "targets": list(shown_range(target).widened()),
        "edge": residual_edge(prediction - target) * 1.03 or 0.5,
    }


def drawn_rows(task: TaskPoints, n: int) -> "tuple[np.ndarray, np.ndarray]":
    """Draw n rows: all, or a random sample and the worst rows of the first model.

    Returns:
        The places of the rows (n,), ascending, and which of them were drawn at random (n,) bool.
        The others are there because their errors are large, so they must not enter a mean.
    """
    import numpy as np

    n_rows = len(task.target)
    if n >= n_rows:
        return np.arange(n_rows), np.ones(n_rows, bool)
    errors = np.nan_to_num(task.models[0].error, nan=-1.0)
    n_worst = min(N_WORST, n // 2)
    is_drawn, is_worst = np.zeros(n_rows, bool), np.zeros(n_rows, bool)
    order = np.random.Generator(np.random.Philox(SEED)).permutation(n_rows)
    is_drawn[order[: n - n_worst]] = True
    is_worst[np.argsort(-errors, kind="stable")[:n_worst]] = True
    rows = np.flatnonzero(is_drawn | is_worst)
    return rows, is_drawn[rows]


def _drawn(task: TaskPoints, n: int) -> Drawn:
    n_rows = len(task.target)
    if n >= n_rows:
        return Drawn(f"A point for each of {n_rows:,} test rows", is_sample=False)
    n_drawn = n - min(N_WORST, n // 2)
    words = (
        f"{n_drawn:,} of {n_rows:,} test rows, drawn at random (seed {SEED}), and the "
        f"{n - n_drawn} worst of {task.models[0].name}, which do not enter the MAEs below"
    )
    return Drawn(words, is_sample=True)


def _elements(formulas: Iterable[str]) -> list[str]:
    """Return the symbols of each formula, joined by blanks; empty if it cannot be read."""
    from irnet_hpc.data.formulas import InvalidFormula, parse_formula

    found = []
    for formula in formulas:
        try:
            found.append(" ".join(parse_formula(str(formula))))
        except InvalidFormula:
            found.append("")
    return found


def _floats(values: "np.ndarray") -> str:
    """Write numbers (n,) as the base64 of little-endian float32, which have seven digits."""
    import numpy as np

    with np.errstate(over="ignore"):
        return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _short(text: object) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
