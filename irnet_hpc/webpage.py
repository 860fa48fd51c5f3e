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

from irnet_hpc.curves import Convergence
from irnet_hpc.diagnostics import Diagnosis
from irnet_hpc.document import Note, how_to_read
from irnet_hpc.illustrations import (
    charts_or,
    convergence_charts,
    cost_charts,
    depth_charts,
    grid,
    predictions_of,
    rank_chart,
    size_charts,
)
from irnet_hpc.markup import Markup, element, joined, table
from irnet_hpc.overview import everything, facts, subtitle
from irnet_hpc.published import published_grid
from irnet_hpc.rankings import Ranking
from irnet_hpc.rendering import grid as table_grid
from irnet_hpc.results import Gap, Run
from irnet_hpc.series import Series
from irnet_hpc.summary import summary
from irnet_hpc.tables import Table
from irnet_hpc.tasks import Task, tasks_section
from irnet_hpc.typeset import Section

FOLDED = 3  # blocks of a section, above which they are folded


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the report shows."""

    runs: Sequence[Run]
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
    style, script = ((folder / f"webpage.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
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
            charts_or(depth_charts(found.tables), "No table has several depths yet."), by_name.get("depths")
        ),
        "Convergence": joined(
            [charts_or(curves, "No plain, SRNet or IRNet run has a history yet."), element("p", more) if more else ""]
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
        [element("p", said, class_="said"), *(predictions_of(number, one) for number, one in enumerate(found))]
    )


def _section(section: Section, below: str = "") -> Markup:
    """Its blocks, folded where they are many; its heading, unless it stands `below` the same one."""
    folded = len(section.blocks) > FOLDED
    blocks = [
        _folded(block.title, table(block.lines)) if folded else joined([element("h3", block.title), table(block.lines)])
        for block in section.blocks
    ]
    heading = element("h3", section.heading) if section.heading != below else ""
    return joined([heading, element("p", section.said, class_="said"), *blocks])


def _with_section(charts: Markup | None, section: Section | None, below: str = "") -> Markup | None:
    """None where there is nothing of either."""
    return joined([charts or "", _section(section, below) if section else ""]) if charts or section else None


def _folded(title: str, *inside: Markup | None) -> Markup:
    return element("details", element("summary", title), *inside)


def _tables(tables: Sequence[Table]) -> Markup:
    """The tables as mae.md has them, each with what is published beside it."""
    parts = [element("p", text, class_="said") for text in how_to_read(tables)]
    for one in tables:
        beside, sources = published_grid(one)
        published = [
            element("p", f"Published on {one.source}, of other rows, splits and selection than ours:", class_="said"),
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
            _folded(f"{note.heading} ({len(note.lines)})", lines) if note.lines else element("p", note.heading)
        )
    return joined(parts)


def _footer(found: Findings) -> list[str]:
    commits = sorted({str(run.result.commit)[:8] for run in found.runs if run.result.commit})
    said = f"Trained at commit {', '.join(commits)}. " if commits else ""
    return [f"{said}Every number is also in mae.json and mae.csv beside the tables, in full precision."]
