"""Render the report as one HTML file that needs neither the network nor a server.

matplotlib draws the charts, as for the other figures, and they are put into the page as SVG, which
takes a few kB, looks the same in print, and follows the page's dark mode. A few lines of
JavaScript, webpage.js, make tables interactive. On a screen, Bokeh draws the predictions
(interactive.py and charts.js); paper shows their SVG. The Content-Security-Policy contains the
hashes of these scripts, so no other script can run.

Templates escape every text. Each unprintable character becomes a space.
"""

import base64
import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from irnet_hpc.aggregate.document import how_to_read
from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, Text, line_of, missing
from irnet_hpc.aggregate.mae_table import grid, interval_text, percent_text, row_format, score_text
from irnet_hpc.aggregate.model_table import TEXT as MODELS_TEXT
from irnet_hpc.aggregate.model_table import lines_of
from irnet_hpc.aggregate.notes import Note
from irnet_hpc.aggregate.page.cells import PageTable, page_table
from irnet_hpc.aggregate.page.periodic_table import SHADES
from irnet_hpc.aggregate.page.pictures import (
    Chart,
    convergence_charts,
    cost_charts,
    depth_charts,
    importance_charts,
    rank_charts,
    size_charts,
)
from irnet_hpc.aggregate.page.predictions import PagePredictions, page_predictions
from irnet_hpc.aggregate.page.summary import Sentence, count, extent, plural, sentences
from irnet_hpc.aggregate.published import caption, published_grid
from irnet_hpc.aggregate.scores import MIN_RUNS, Model, ModelScore, percent_below
from irnet_hpc.aggregate.sections.mae_intervals import no_interval
from irnet_hpc.aggregate.sections.tasks import best_of_each
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.aggregate.words import in_words, property_words

if TYPE_CHECKING:
    from jinja2 import Environment

    from irnet_hpc.aggregate.report import Report


MAX_UNFOLDED = 3  # if a section has more blocks, they are folded
MAX_NAMED = 3  # names in the page's title


class PageSection(NamedTuple):
    """A section of the report in the form that the page shows."""

    heading: str
    text: str
    blocks: list[tuple[str, PageTable]]  # (title, table)
    folded: bool


class PublishedTable(NamedTuple):
    """A table as in mae.md, and the published numbers beside it."""

    title: str
    table: PageTable
    caption: str
    published: PageTable
    sources: list[str]


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the page in the form that the template shows."""

    name: str  # the heading of the part
    template: str
    extent: str = ""
    text: str = ""
    texts: Sequence[str] = ()
    sentences: Sequence[Sentence] = ()
    charts: Sequence[Chart] = ()
    note: str = ""
    section: PageSection | None = None
    table: PageTable | None = None
    tables: Sequence[PublishedTable] = ()
    predictions: PagePredictions | None = None
    notes: Sequence[Note] = ()

    @property
    def anchor(self) -> str:
        """The id of the part, which links refer to."""
        return self.name.lower().replace(" ", "-")


def render_page(report: "Report") -> str:
    """Render the whole page. The same report gives the same page."""
    findings = report.findings
    style, script = (_package_text(name) for name in ("webpage.css", "webpage.js"))
    parts = list(_parts(report))
    live = next((part.predictions.live for part in parts if part.predictions), None)
    charts = _package_text("charts.js") if live else ""
    may_run = [script, charts, str(live.library)] if live else [script]
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {' '.join(map(_digest, may_run))}; base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template("page.html")
        .render(
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            charts=Markup(charts),
            live=live,
            title=title(findings),
            subtitle=subtitle(findings),
            facts=facts(findings),
            parts=parts,
            shades=[words for _, words in SHADES],
            footer=_footer(findings),
        )
    )


def _digest(script: str) -> str:
    """Return the source expression that lets a script run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _package_text(name: str) -> str:
    return (resources.files("irnet_hpc.aggregate.page") / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> "Environment":
    """Return the environment of the templates, which escapes all text put into them."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(lambda name: _package_text(f"templates/{name}")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def printable(value: object) -> object:
    """Replace each unprintable character with a space. Markup is returned unchanged."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(letter if letter.isprintable() else " " for letter in value)


def title(findings: Findings) -> str:
    """Name the page after its data: the datasets and their properties."""
    named = [(task.dataset, task.property) for task in findings.tasks]
    if not named:  # only runs that no task has, such as those of protocol paper
        named = [(table.pack, row.property) for table in findings.tables for row in table.rows]
    datasets, names = (list(dict.fromkeys(names)) for names in zip(*named, strict=True))
    properties = [property_words(name) for name in names]
    return f"Test errors: {_listed(properties, 'properties')} of {_listed(datasets, 'datasets')}"


def _listed(names: Sequence[str], noun: str) -> str:
    """List names; if there are more than MAX_NAMED, count them."""
    return ", ".join(names) if len(names) <= MAX_NAMED else f"{len(names)} {noun}"


def subtitle(findings: Findings) -> str:
    """Describe the page. If the results record when the newest run started, say so."""
    # No other code checks the attempts, so they may have any type.
    attempts = [
        attempt
        for run in findings.runs
        if isinstance(run.result.attempts, list)
        for attempt in run.result.attempts
        if isinstance(attempt, dict)
    ]
    stamps = [attempt.get("started") for attempt in attempts]
    newest = max((stamp for stamp in stamps if isinstance(stamp, str)), default=None)
    since = f", the newest started {newest[:10]}" if newest else ""
    return f"irnet_hpc: the trained models and their errors on test rows{since}."


def facts(findings: Findings) -> list[tuple[str, str]]:
    """Return the numbers at the top of the page, each with its name."""
    scores = [score for table in findings.tables for _, _, score in table.scored()]
    counts = [
        (plural(len(findings.runs), "finished run"), len(findings.runs)),
        (plural(len(findings.tasks), "task"), len(findings.tasks)),
        (plural(len(findings.models), "model"), len(findings.models)),
        (plural(len(scores), "cell"), len(scores)),
        (
            f"of them with {MIN_RUNS} runs or more",
            sum(score.n_trainings >= MIN_RUNS for score in scores),
        ),
        ("more without a result", len(findings.gaps)),
    ]
    hours = sum(run.result.device_hours for run in findings.runs)
    return [*((name, f"{n:,}") for name, n in counts), ("device-hours", f"{hours:,.3g}")]


def _parts(report: "Report") -> Iterator[Part]:
    """Yield the parts that have something to show, in the order of the page."""
    findings = report.findings
    sections = {section.name: page_section(section) for section in report.sections}
    yield Part(
        "Summary",
        "summary.html",
        extent=extent(findings),
        sentences=[_in_words(sentence, findings) for sentence in sentences(findings)],
        section=page_section(best_of_each(findings)) if findings.tasks else None,
    )
    models = [
        (t.title, page_table(lines_of(t, is_sorted=True, repeats=True)))
        for t in findings.all_models
    ]
    section = PageSection("Models", MODELS_TEXT, models, len(models) > MAX_UNFOLDED)
    yield Part("Models", "charts.html", section=section)
    lines = [line for table in findings.tables for line in _score_lines(table)]
    text = (
        f"{count(len(lines), 'cell')}. Click a heading to sort. Shaded: the best of its row in "
        "its table, and all that do not differ significantly from it. MAEs of different "
        "properties, packs and protocols are not comparable."
    )
    yield Part(
        "All results", "scores.html", text=text, table=page_table([line_of(*HEADER), *lines])
    )
    yield from _chart_parts(findings, sections)
    yield Part("Tables", "tables.html", texts=how_to_read(report.tables), tables=_tables(report))
    if report.notes:
        yield Part("Notes", "notes.html", notes=report.notes)


def _in_words(sentence: Sentence, findings: Findings) -> Sentence:
    """Replace the names of models and properties by words."""
    properties = {run.spec.property for run in findings.runs}
    return Sentence(*(in_words(text, properties) for text in sentence))


def _chart_parts(findings: Findings, sections: Mapping[str, PageSection]) -> Iterator[Part]:
    """Yield the parts between the results and the tables, each with its charts and a section."""
    shown = depth_charts(findings.tables)
    if shown or "depths" in sections:
        yield Part("Depth", "charts.html", charts=shown, section=sections.get("depths"))
    shown, n_left_out = convergence_charts(findings.convergence)
    if shown:
        note = f"{n_left_out} more are files beside the tables." if n_left_out else ""
        yield Part("Convergence", "charts.html", charts=shown, note=note)
    yield Part("Predictions", "predictions.html", predictions=page_predictions(findings))
    tried = [t for t in findings.all_models if t.tables[0].protocol == "honest"]
    charts_of: dict[str, Sequence[Chart]] = {
        "ranks": rank_charts(findings.ranking),
        "size": size_charts(findings.sizes),
        "importance": importance_charts(findings.importance),
        "costs": cost_charts(tried),
    }
    for name, section_name in SECTION_PARTS.items():
        section, charts = sections.get(section_name), charts_of.get(section_name, ())
        if section or charts:
            yield Part(name, "charts.html", charts=charts, section=section)


# Heading on the page -> name of the section below the heading.
SECTION_PARTS = {
    "Folds": "folds",
    "Leaderboards": "leaderboard",
    "Significance": "intervals",
    "Differences": "differences",
    "Ranks": "ranks",
    "Training rows": "size",
    "Representations": "representations",
    "Chemistry": "chemistry",
    "Protocol": "optimism",
    "Ensembles": "ensembles",
    "Importance": "importance",
    "Cost": "costs",
}


def page_section(section: Section) -> PageSection:
    """Prepare a section for the page."""
    blocks = [(block.title, page_table(block.lines)) for block in section.blocks]
    return PageSection(section.heading, section.text, blocks, len(blocks) > MAX_UNFOLDED)


HEADER = (
    *("model", "test MAE", "property", "pack", "95 % interval", "below baseline", "below plain"),
    *("recipe", "protocol", "training rows", "test rows", "parameters", "device-hours"),
    "started from",
)


def _score_lines(table: Table) -> Iterator[Line]:
    """Yield a line for each cell of a table."""
    for row, model, score in table.entries():
        yield _score_line(table, row, model, score)


def _score_line(table: Table, row: Row, model: Model, score: ModelScore | None) -> Line:
    joint = f", one network for {table.joint.replace(',', ', ')}" if table.joint else ""
    settings = (
        table.recipe_label + joint,
        table.protocol + table.selection_words,
        f"{row.n_train:,}",
        f"{row.n_test:,}",
    )
    start = table.start_from or "nothing"
    if score is None:
        why = missing(table.missing(row, model))
        return line_of(
            str(model), why, row.label, table.pack, *[why] * 3, *settings, why, why, start
        )
    form, n_parameters = row_format(row), score.n_parameters
    below = percent_below(score.mae, row.baseline)
    plain = "is plain" if model.architecture == "plain" else "no plain"
    return line_of(
        Text(str(model), score.best),
        Text(score_text(score, form), score.best),
        row.label,
        table.pack,
        interval_text(*score.interval, form) if score.interval else no_interval(score),
        percent_text(below, "baseline is 0"),
        percent_text(score.improvement_over_plain, plain),
        *settings,
        missing("not counted") if n_parameters is None else f"{n_parameters:,}",
        f"{score.device_hours:.3g}",
        start,
    )


def _tables(report: "Report") -> list[PublishedTable]:
    """Prepare the tables as in mae.md."""
    tables = []
    for table in report.tables:
        lines, sources = published_grid(table)
        shown = page_table(grid(table))
        tables.append(
            PublishedTable(table.title, shown, caption(table), page_table(lines), sources)
        )
    return tables


def _footer(findings: Findings) -> str:
    commits = {str(run.result.commit)[:8] for run in findings.runs if run.result.commit}
    trained = f"Trained at commit {', '.join(sorted(commits))}. " if commits else ""
    return (
        f"{trained}Every number is also in mae.json and mae.csv beside the tables, in full "
        "precision."
    )
