"""The report: one HTML file that needs nothing else, no network and no server. `aggregate --html` writes it.

Charts are matplotlib's, as SVG within the page: it draws the other figures already, a chart is a few kB against the 4.5 MB of
an interactive library, prints as it looks, and takes the page's colours in the dark. What is interactive is the tables, by
the few lines of webpage.js, which a Content-Security-Policy lets run by its hash and nothing else.
"""

import base64
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from irnet_hpc.aggregate.curves import Convergence
from irnet_hpc.aggregate.diagnostics import Diagnosis
from irnet_hpc.aggregate.document import Note, how_to_read
from irnet_hpc.aggregate.formats import Section, Text
from irnet_hpc.aggregate.page.html import Markup, element, joined, table
from irnet_hpc.aggregate.page.pictures import (
    charts_or,
    convergence_charts,
    cost_charts,
    depth_charts,
    grid,
    predictions_of,
    rank_chart,
    size_charts,
)
from irnet_hpc.aggregate.page.summary import summary
from irnet_hpc.aggregate.published import published_grid
from irnet_hpc.aggregate.render import cell_text, row_format
from irnet_hpc.aggregate.render import grid as table_grid
from irnet_hpc.aggregate.scores import Cell
from irnet_hpc.aggregate.sections.differences import FEWEST
from irnet_hpc.aggregate.sections.ranks import Ranking
from irnet_hpc.aggregate.sections.series import Series
from irnet_hpc.aggregate.sections.tasks import Task, percent_below, tasks_section
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.collect import FinishedRun, Gap
from irnet_hpc.runs.spec import model_name


def subtitle(runs: Sequence[FinishedRun]) -> str:
    attempts = [
        run.result.attempts for run in runs if isinstance(run.result.attempts, list)
    ]  # which nothing else reads
    stamps = [one.get("started") for of_run in attempts for one in of_run if isinstance(one, dict)]
    newest = max((stamp for stamp in stamps if isinstance(stamp, str)), default=None)
    since = f", the newest started {newest[:10]}" if newest else ""
    return (
        f"irnet_hpc: what was trained, and how well it predicts rows that it has not seen{since}."
    )


def facts(
    runs: Sequence[FinishedRun], tables: Sequence[Table], n_tasks: int, n_gaps: int
) -> Markup:
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
    return element(
        "ul", *(element("li", element("b", n), name) for name, n in shown.items()), class_="facts"
    )


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
        [
            Text(text)
            for text in (
                *header,
                "training rows",
                "test rows",
                "parameters",
                "device-hours",
                "started from",
            )
        ]
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
    return joined(
        [element("p", said, class_="said"), field, table(lines, name="everything", tall=True)]
    )


def _line(one: Table, row: Row, model: tuple[str, int | None], cell: Cell | None) -> list[Text]:
    form, why = row_format(row), None if cell else one.why_missing(row, *model)
    below = percent_below(cell.mae, row.baseline) if cell else None
    protocol = one.protocol + (" (selected on test)" if one.selected_on == "test" else "")
    plain = "is plain" if model[0] == "plain" else "no plain"
    texts = [
        model_name(*model),
        why or cell_text(cell, form),
        f"{row.property} ({row.unit})",
        one.pack,
    ]
    texts += [
        why
        or (
            f"{cell.interval[0]:{form}} to {cell.interval[1]:{form}}"
            if cell.interval
            else _no_interval(cell)
        )
    ]
    texts += [why or ("baseline is 0" if below is None else f"{below:+.1f} %")]
    texts += [why or (plain if cell.improvement is None else f"{cell.improvement:+.1f} %")]
    texts += [
        one.recipe + (f", one network for {one.joint.replace(',', ', ')}" if one.joint else ""),
        protocol,
    ]
    texts += [f"{row.n_train:,}", f"{row.n_test:,}"]
    texts += [why or ("not counted" if cell.n_parameters is None else f"{cell.n_parameters:,}")]
    texts += [why or f"{cell.device_hours:.3g}", one.start_from or "nothing"]
    return [Text(text, bool(cell and cell.best and place < 2)) for place, text in enumerate(texts)]


def _no_interval(cell: Cell) -> str:
    return f"n < {FEWEST}" if cell.n < FEWEST else "no predictions"


FOLDED = 3  # blocks of a section, above which they are folded


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the report shows."""

    runs: Sequence[FinishedRun]
    gaps: Mapping[Path, Gap]
    tables: Sequence[Table]
    sections: Sequence[Section]
    tasks: Sequence[Task]
    ranking: Ranking | None
    sizes: Sequence[Series]
    trainings: Sequence[Convergence]
    diagnoses: Sequence[Diagnosis]
    notes: Sequence[Note]


def webpage(found: Findings) -> str:
    """The whole page. The same findings give the same page."""
    folder = Path(__file__).parent
    style, script = (
        (folder / f"webpage.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    parts = {name: part for name, part in _parts(found).items() if part}
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", "irnet_hpc: test errors"),
        element("style", Markup(style)),
    )
    links = [element("a", name, href=f"#{_anchor(name)}") for name in parts]
    body = element(
        "body",
        element(
            "header",
            element("h1", "Test errors"),
            element("p", subtitle(found.runs), class_="said"),
            facts(found.runs, found.tables, len(found.tasks), len(found.gaps)),
        ),
        element("nav", element("div", *links), aria_label="sections"),
        element("main", *(_part(name, part) for name, part in parts.items())),
        element("footer", element("p", *_footer(found), class_="note")),
        element("script", Markup(script)),
    )
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"


def _parts(found: Findings) -> dict[str, Markup | None]:
    """Heading -> what stands below it; None: nothing is said of it."""
    by_name = {section.name: section for section in found.sections}
    curves, left_out = convergence_charts(found.trainings)
    more = f"{left_out} more are files beside the tables." if left_out else None
    tried = [table for table in found.tables if table.protocol == "honest"]
    return {
        "Summary": _summary(found),
        "All results": everything(found.tables),
        "Depth": _with_section(
            charts_or(depth_charts(found.tables), "No table has several depths yet."),
            by_name.get("depths"),
        ),
        "Convergence": joined(
            [
                charts_or(curves, "No plain, SRNet or IRNet run has a history yet."),
                element("p", more) if more else "",
            ]
        ),
        "Predictions": _predictions(found.diagnoses),
        "Significance": _with_section(None, by_name.get("intervals")),
        "Differences": _with_section(None, by_name.get("differences"), "Differences"),
        "Ranks": _with_section(rank_chart(found.ranking), by_name.get("ranks")),
        "Training rows": _with_section(grid(size_charts(found.sizes)), by_name.get("size")),
        "Representations": _with_section(None, by_name.get("representations"), "Representations"),
        "Chemistry": _with_section(None, by_name.get("chemistry")),
        "Protocol": _with_section(None, by_name.get("optimism")),
        "Ensembles": _with_section(None, by_name.get("ensembles")),
        "Cost": _with_section(grid(cost_charts(tried)), by_name.get("costs"), "Cost"),
        "Tables": _tables(found.tables),
        "Notes": _notes(found.notes),
    }


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _part(name: str, part: Markup) -> Markup:
    return element("section", element("h2", name), part, id=_anchor(name))


def _summary(found: Findings) -> Markup:
    best = _section(tasks_section(found.tasks)) if found.tasks else ""
    first, *rest = summary(found.runs, found.tables, found.tasks, found.ranking, found.gaps)
    words = [element("li", element("b", sentence.about), ": ", sentence.text) for sentence in rest]
    return joined([element("p", first.text), element("ul", *words, class_="words"), best])


def _predictions(found: Sequence[Diagnosis]) -> Markup:
    if not found:
        return element("p", "No predictions of the best models can be read.", class_="note")
    said = "Of the best model of each task, chosen by val: over all its runs, on test rows."
    return joined(
        [
            element("p", said, class_="said"),
            *(predictions_of(number, one) for number, one in enumerate(found)),
        ]
    )


def _section(section: Section, below: str = "") -> Markup:
    """Its blocks, folded where they are many; its heading, unless it stands `below` the same one."""
    folded = len(section.blocks) > FOLDED
    blocks = [
        _folded(block.title, table(block.lines))
        if folded
        else joined([element("h3", block.title), table(block.lines)])
        for block in section.blocks
    ]
    heading = element("h3", section.heading) if section.heading != below else ""
    return joined([heading, element("p", section.said, class_="said"), *blocks])


def _with_section(charts: Markup | None, section: Section | None, below: str = "") -> Markup | None:
    """None where there is nothing of either."""
    return (
        joined([charts or "", _section(section, below) if section else ""])
        if charts or section
        else None
    )


def _folded(title: str, *inside: Markup | None) -> Markup:
    return element("details", element("summary", title), *inside)


def _tables(tables: Sequence[Table]) -> Markup:
    """The tables as mae.md has them, each with what is published beside it."""
    parts = [element("p", text, class_="said") for text in how_to_read(tables)]
    for one in tables:
        beside, sources = published_grid(one)
        published = [
            element(
                "p",
                f"Published on {one.source}, of other rows, splits and selection than ours:",
                class_="said",
            ),
            table(beside),
            element("ol", *(element("li", source) for source in sources), class_="note"),
        ]
        parts.append(_folded(one.title, table(table_grid(one)), *(published if sources else [])))
    return joined(parts)


def _notes(notes: Sequence[Note]) -> Markup | None:
    if not notes:
        return None
    parts = []
    for note in notes:
        lines = element("ul", *(element("li", line) for line in note.lines))
        parts.append(
            _folded(f"{note.heading} ({len(note.lines)})", lines)
            if note.lines
            else element("p", note.heading)
        )
    return joined(parts)


def _footer(found: Findings) -> list[str]:
    commits = sorted({str(run.result.commit)[:8] for run in found.runs if run.result.commit})
    said = f"Trained at commit {', '.join(commits)}. " if commits else ""
    return [
        f"{said}Every number is also in mae.json and mae.csv beside the tables, in full precision."
    ]
