"""The page: its parts, names that must never become code, and what a real browser makes of it."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import re
import shutil
import subprocess

import pytest

from irnet_hpc.aggregate.findings import find
from irnet_hpc.aggregate.page.cells import number_of
from irnet_hpc.aggregate.page.page import render_page, subtitle
from irnet_hpc.aggregate.report import Report, make_tables
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.runs.collect import collect_runs
from tests.aggregate.browser import CHROMIUM, DRIVER, Browser
from tests.aggregate.results import (
    EVIL,
    PAGE_FORMULAS,
    aggregate,
    findings_of,
    write_everything,
    write_predictions,
    write_run,
)

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium and chromedriver are not installed (apt-get install chromium chromium-driver)",
)


@pytest.mark.parametrize(
    "attempts", [None, 0, ["yesterday"], [{"started": 5}], [{"started": "2026-11-25T10:00:00"}]]
)
def test_when_runs_started_is_said_where_their_results_say_it(attempts, tmp_path):
    write_run(tmp_path, 0.3, "irnet-17", attempts=attempts)
    assert ("the newest started 2026-11-25." in subtitle(findings_of(tmp_path))) == (
        isinstance(attempts, list) and "T" in str(attempts)
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Path of a page that the command has written."""
    folder = tmp_path_factory.mktemp("page")
    write_everything(folder / "results")
    done = aggregate("results", "--html", "report.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^wrote report.html \(\d+\.\d MB\)$", done.stdout, re.MULTILINE)
    # Nothing is half-written.
    assert {path.name for path in folder.iterdir()} == {"results", "report.html"}
    return folder / "report.html"


class Tags(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its scripts: their attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self._in = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._in = tag
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append([dict(attributes), ""])

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1][1] += data

    def handle_endtag(self, tag):
        self._in = ""


def digest_of(script):
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def test_nothing_in_the_page_reaches_beyond_it_and_only_its_scripts_may_run(page):
    text = page.read_text()
    found = Tags(text)
    assert [attributes for attributes, _ in found.scripts] == [
        {},
        {"type": "text/plain", "id": "bokeh"},
        {"type": "application/json", "id": "points"},
        {},
    ]
    tables, library, data, charts = (script for _, script in found.scripts)
    json.loads(data)
    (policy,) = [
        attributes["content"]
        for _, attributes in found.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    allowed = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    digests = " ".join(map(digest_of, (tables, charts, library)))
    assert f"{allowed}; script-src {digests};" in policy
    assert not {"link", "iframe", "base", "object", "embed", "form"} & {
        tag for tag, _ in found.tags
    }
    targets = [
        attributes[name]
        for _, attributes in found.tags
        for name in ("href", "src", "xlink:href", "action")
        if attributes.get(name)
    ]
    assert targets and all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    assert not [
        name for _, attributes in found.tags for name in attributes if name.startswith("on")
    ]
    assert not re.search(r"url\((?!#)", text.replace(library, ""))


def test_text_of_the_users_is_never_code(page):
    text = page.read_text()
    assert EVIL not in text
    assert text.count("&lt;script&gt;document.title=") > 5  # unit, source, formula, material, error


def test_templates_escape_names_and_replace_what_does_not_print(tmp_path):
    """Wherever a name may stand: in a cell, a heading, a title, an attribute, a chart."""
    name = f'{EVIL}"><b>\x1b[31m'
    for model in ("irnet-17", "irnet-48", "plain-17"):
        write_run(tmp_path, 0.1, model, unit=name, identity={"source": name, "features": name})
    text = render_page(make_tables(tmp_path))
    assert "\x1b" not in text and EVIL not in text and "<b>\x1b" not in text
    tags = Tags(text).tags
    assert [tag for tag, _ in tags].count("script") == 1  # without predictions there is no chart
    assert (
        "&lt;script&gt;document.title=&#39;mine&#39;&lt;/script&gt;&#34;&gt;&lt;b&gt; [31m" in text
    )


def test_the_page_has_what_was_asked_for(page):
    text = page.read_text()
    headings = re.findall(r"<h2>([^<]*)</h2>", text)
    first = ["Summary", "Models", "All results", "Depth", "Convergence", "Predictions"]
    assert headings[:6] == first
    assert {"Significance", "Cost", "Tables", "Notes"} <= set(headings)
    for words in (
        "plain",
        "IRNet",
        "baseline 0.5 ↑",
        "Error by element",
        "The worst predictions",
        "device-hours of a run",
    ):
        assert words in text
    assert ">failed</td>" in text  # irnet-24
    assert (
        'name="viewport"' in text
        and "prefers-color-scheme: dark" in text
        and "@media print" in text
    )


def test_the_same_results_give_the_same_page(page, tmp_path):
    write_everything(tmp_path / "results")
    assert aggregate("results", "--html", "report.html", cwd=tmp_path).returncode == 0
    assert (tmp_path / "report.html").read_text() == page.read_text()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_all_of_the_latex_compiles_whatever_the_names(page):
    folder = page.parent / "results" / "tables"
    body = (folder / "mae.tex").read_text()
    assert body.count(r"\begin{table}") > 4 and "<script>" not in body
    # More floats than LaTeX keeps without clearing the page.
    body = body.replace(r"\end{table}", "\\end{table}\n\\clearpage")
    (folder / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        + body
        + "\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


def number_of_elements(selector):
    return f"return document.querySelectorAll('{selector}').length"


def texts_of(rows, cell):
    """A script that returns the text of one cell of each row."""
    found = f"Array.from(document.querySelectorAll('{rows}'))"
    return f"return {found}.map(row => row.cells[{cell}].textContent)"


@needs_browser
def test_a_browser_opens_it_without_complaint_asks_for_nothing_and_sorts(page, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)
        assert browser.console() == []
        assert {url.partition(":")[0] for url in browser.requests()} <= {"file", "data", "chrome"}
        # No name has become code.
        assert browser.run("return document.title") == (
            "Test errors: Mine, Formation energy of evil-magpie, oqmd-magpie"
        )
        column = texts_of("#everything tbody tr", cell=1)
        press = "document.querySelectorAll('#everything thead button')[1].click()"
        browser.run(press)
        numbers = [number_of(text) for text in browser.run(column)]
        # The failed cell is last.
        assert numbers[:-1] == sorted(numbers[:-1]) and numbers[-1] is None and len(numbers) > 6
        browser.run(press)
        numbers = [number_of(text) for text in browser.run(column)]
        assert numbers[:-1] == sorted(numbers[:-1], reverse=True) and numbers[-1] is None
        assert browser.run(number_of_elements("#everything th[aria-sort=descending]")) == 1
        browser.run(
            "const field = document.querySelector('input'); field.value = 'PLAIN-48 honest'; "
            "field.dispatchEvent(new Event('input'))"
        )
        assert browser.run(texts_of("#everything tbody tr:not([hidden])", cell=0)) == ["plain-48"]
        assert browser.console() == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_and_a_desk_in_both_colour_schemes(page, tmp_path, scheme):
    with Browser(tmp_path / "profile") as browser:
        browser.colours(scheme)
        for width in (390, 1280):
            browser.size(width, 844)
            browser.open(page)
            assert browser.run("return document.documentElement.scrollWidth") <= width
            background, ink = browser.run(
                "const style = getComputedStyle(document.body); "
                "return [style.backgroundColor, style.color].map("
                "text => text.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b))"
            )
            assert (ink - background > 300) is (scheme == "dark") and abs(ink - background) > 300
            chart = browser.run(
                "return document.querySelector('.chart svg').getBoundingClientRect().width"
            )
            assert 250 < chart < width
        assert browser.console() == []


@needs_browser
def test_paper_shows_what_is_folded(page, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)
        pdf = base64.b64decode(browser.developer("Page.printToPDF", printBackground=True)["data"])
        assert pdf.startswith(b"%PDF")
        browser.run("dispatchEvent(new Event('beforeprint'))")
        assert browser.run(number_of_elements("details:not(.screen):not([open])")) == 0
        assert browser.console() == []


@needs_browser
def test_a_thousand_cells_open_in_under_three_seconds(tmp_path):
    """The one test that measures time, since the page promises it: 500 properties of two models.

    Counted is the processor time of the page's own thread, whatever else the machine does.
    """
    write_run(tmp_path / "one", 0.1, "irnet-17")
    write_run(tmp_path / "one", 0.2, "plain-17")
    two, _ = collect_runs(tmp_path / "one")
    runs = [
        run._replace(folder=run.folder / name, spec=dataclasses.replace(run.spec, property=name))
        for name in (f"p{number}" for number in range(500))
        for run in two
    ]
    text = render_page(Report(find(runs, tables=tabulate(runs)), (), ()))
    (tmp_path / "report.html").write_text(text)
    assert len(text) < 8e6
    with Browser(tmp_path / "profile") as browser:
        browser.developer("Performance.enable", timeDomain="threadTicks")
        browser.open(tmp_path / "report.html")  # returns when the page has loaded
        metrics = {
            metric["name"]: metric["value"]
            for metric in browser.developer("Performance.getMetrics")["metrics"]
        }
        assert 0 < metrics["TaskDuration"] < 3
        assert browser.run(number_of_elements("#everything tbody tr")) == 1000
        assert browser.console() == []


def see_charts(browser, page):
    """Open a page, go to its predictions, and wait until the charts of the first task are drawn."""
    browser.open(page)
    browser.run("document.getElementById('predictions').scrollIntoView()")
    browser.wait("return document.querySelector('.interactive[data-drawn]') !== null")


SOURCE = "Bokeh.documents[0].get_model_by_name('source')"


def shown(browser, *names):
    """The columns of the chart."""
    return browser.run(f"const {{data}} = {SOURCE}; return arguments[0].map(n => data[n])", names)


@needs_browser
def test_charts_draw_every_model_and_a_click_on_an_element_keeps_its_materials(page, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        see_charts(browser, page)
        assert browser.run("return typeof Bokeh.version") == "string"
        formulas, ids, xs, ys = shown(browser, "formula", "id", "x", "y")
        assert formulas == PAGE_FORMULAS and ids == ["a", "b", EVIL, "d", "=cmd()"]
        assert xs == [1, 2, 3, 4, 5] and ys == pytest.approx([1.1, 1.8, 3.3, 4.4, 5.5])
        browser.run("document.querySelector('[data-element=Fe]').click()")
        (formulas,) = shown(browser, "formula")
        assert formulas == ["Fe2O3", "Fe2O3"]
        said = browser.run("return document.querySelector('.shown').textContent")
        assert "Fe" in said and "0.250" in said  # (0.1 + 0.4) / 2
        browser.run("document.querySelector('[data-element=Fe]').click()")
        browser.run("document.querySelector('[value=residual]').click()")
        (ys,) = shown(browser, "y")
        assert ys == pytest.approx([0.1, -0.2, 0.3, 0.4, 0.5])
        assert browser.console() == []


@needs_browser
def test_models_are_laid_over_each_other_in_colours_of_their_own(tmp_path):
    for seed in range(2):
        write_predictions(write_run, tmp_path / "results", [0.1, 0.2, -0.3, 0.1], seed=seed)
    write_predictions(write_run, tmp_path / "results", [9.0, 0.1, 0.1, 0.1], "random_forest")
    (tmp_path / "report.html").write_text(render_page(make_tables(tmp_path / "results")))
    with Browser(tmp_path / "profile") as browser:
        see_charts(browser, tmp_path / "report.html")
        assert browser.run(number_of_elements("input[name=model]")) == 2
        assert set(shown(browser, "model")[0]) == {"IRNet-17"}
        browser.run("document.querySelectorAll('input[name=model]')[1].click()")
        models, colours, ys = shown(browser, "model", "colour", "y")
        assert len(models) == 8 and len(set(zip(models, colours, strict=True))) == 2
        assert len(set(colours)) == 2 and ys[4:] == pytest.approx([10, 2.1, 3.1, 4.1])
        assert browser.console() == []


@needs_browser
def test_pointing_at_a_point_names_the_material_as_text(page, tmp_path):
    """The third material's id is a script, which the tooltip shows as it is spelled."""
    with Browser(tmp_path / "profile") as browser:
        see_charts(browser, page)
        tooltip = (
            "const seen = []; const visit = (node) => { if (node.classList?.contains('bk-tooltip') "
            "|| String(node.className).includes('bk-Tooltip')) seen.push("
            "(node.shadowRoot ?? node).textContent); if (node.shadowRoot) visit(node.shadowRoot); "
            "for (const child of node.children ?? []) visit(child); }; visit(document.body); "
            "return seen.join(' ')"
        )
        x, y = browser.run(
            "const plot = Bokeh.documents[0].get_model_by_name('plot'); "
            "const view = Bokeh.index.find_one(plot) ?? Bokeh.index.get_by_id(plot.id); "
            "const box = view.el.getBoundingClientRect(), frame = view.frame; "
            "return [box.x + frame.x_scale.compute(3), box.y + frame.y_scale.compute(3.3)]"
        )
        for step in (3, 0):
            browser.developer("Input.dispatchMouseEvent", type="mouseMoved", x=x + step, y=y + step)
        browser.wait(f"{tooltip.replace('return seen', 'const text = seen')}; return text !== ''")
        text = browser.run(tooltip)
        assert EVIL in text and "MgO" in text and "3.3" in text
        assert browser.run("return document.title") != "mine"
        assert browser.console() == []


@needs_browser
def test_paper_has_the_plain_figures_and_a_screen_the_interactive_ones(page, tmp_path):
    state = (
        "const width = (name) => document.querySelector(name).getBoundingClientRect().width; "
        "return [width('.interactive') > 0, width('.plain .chart') > 0]"
    )
    with Browser(tmp_path / "profile") as browser:
        see_charts(browser, page)
        assert browser.run(state) == [True, False]
        browser.developer("Emulation.setEmulatedMedia", media="print")
        assert browser.run(state) == [False, True]
        assert browser.console() == []
