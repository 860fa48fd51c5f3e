"""What the report opens with: how much there is, and every cell as a line that can be sorted and searched."""

from collections.abc import Sequence

from irnet_hpc.cells import Cell
from irnet_hpc.differences import FEWEST
from irnet_hpc.markup import Markup, element, joined, table
from irnet_hpc.rendering import cell_text, row_format
from irnet_hpc.results import Run
from irnet_hpc.runs import model_name
from irnet_hpc.tables import Row, Table
from irnet_hpc.tasks import percent_below
from irnet_hpc.typeset import Text


def subtitle(runs: Sequence[Run]) -> str:
    attempts = [
        run.result.attempts for run in runs if isinstance(run.result.attempts, list)
    ]  # which nothing else reads
    stamps = [one.get("started") for of_run in attempts for one in of_run if isinstance(one, dict)]
    newest = max((stamp for stamp in stamps if isinstance(stamp, str)), default=None)
    since = f", the newest started {newest[:10]}" if newest else ""
    return f"irnet_hpc: what was trained, and how well it predicts rows that it has not seen{since}."


def facts(runs: Sequence[Run], tables: Sequence[Table], n_tasks: int, n_gaps: int) -> Markup:
    cells = [cell for one in tables for row in one.rows for cell in row.cells if cell]
    n_models = len({model for one in tables for model in one.models})
    counted = {
        "finished run" + "s" * (len(runs) != 1): len(runs),
        "task" + "s" * (n_tasks != 1): n_tasks,
        "model" + "s" * (n_models != 1): n_models,
        "cell" + "s" * (len(cells) != 1): len(cells),
        f"of {FEWEST} runs or more": sum(cell.n >= FEWEST for cell in cells),
        "without a result": n_gaps,
    }
    hours = sum(run.result.device_hours for run in runs)
    shown = {name: f"{n:,}" for name, n in counted.items()} | {"device-hours": f"{hours:,.3g}"}
    return element("ul", *(element("li", element("b", n), name) for name, n in shown.items()), class_="facts")


def everything(tables: Sequence[Table]) -> Markup:
    """Every cell as a line, to be sorted and searched."""
    header = (
        "model",
        "test MAE",
        "property",
        "pack",
        "95 % interval",
        "below baseline",
        "below plain",
        "recipe",
        "protocol",
    )
    lines = [
        [Text(text) for text in (*header, "training rows", "test rows", "parameters", "device-hours", "started from")]
    ]
    for one in tables:
        for row in one.rows:
            for model, cell in zip(one.models, row.cells, strict=True):
                lines.append(_line(one, row, model, cell))
    said = (
        f"{len(lines) - 1:,} cells. Click a heading to sort. Shaded: the best of its row in its table, and whatever cannot be "
        "told from it; MAEs of different properties, packs and protocols are not comparable."
    )
    field = element(
        "input",
        type="search",
        placeholder="Filter: words that a line must hold",
        aria_label="filter",
        data_filters="everything",
    )
    return joined([element("p", said, class_="said"), field, table(lines, name="everything", tall=True)])


def _line(one: Table, row: Row, model: tuple[str, int | None], cell: Cell | None) -> list[Text]:
    form, why = row_format(row), None if cell else one.why_missing(row, *model)
    below = percent_below(cell.mae, row.baseline) if cell else None
    protocol = one.protocol + (" (selected on test)" if one.selected_on == "test" else "")
    plain = "is plain" if model[0] == "plain" else "no plain"
    texts = [model_name(*model), why or cell_text(cell, form), f"{row.property} ({row.unit})", one.pack]
    texts += [
        why or (f"{cell.interval[0]:{form}} to {cell.interval[1]:{form}}" if cell.interval else _no_interval(cell))
    ]
    texts += [why or ("baseline is 0" if below is None else f"{below:+.1f} %")]
    texts += [why or (plain if cell.improvement is None else f"{cell.improvement:+.1f} %")]
    texts += [one.recipe + (f", one network for {one.joint.replace(',', ', ')}" if one.joint else ""), protocol]
    texts += [f"{row.n_train:,}", f"{row.n_test:,}"]
    texts += [why or ("not counted" if cell.n_parameters is None else f"{cell.n_parameters:,}")]
    texts += [why or f"{cell.device_hours:.3g}", one.start_from or "nothing"]
    return [Text(text, bool(cell and cell.best and place < 2)) for place, text in enumerate(texts)]


def _no_interval(cell: Cell) -> str:
    return f"n < {FEWEST}" if cell.n < FEWEST else "no predictions"
