"""The report: what it holds, that names never become code in it, and what a real browser makes of it."""

import base64
import dataclasses
import hashlib
import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest
from pymatgen.core import Element

from irnet_hpc.aggregate.diagnostics import diagnoses, errors_by_element
from irnet_hpc.aggregate.figures import draw_depths, figure_of
from irnet_hpc.aggregate.page.html import element, formula, number_of
from irnet_hpc.aggregate.page.page import Findings, subtitle, webpage
from irnet_hpc.aggregate.page.pictures import place
from irnet_hpc.aggregate.page.summary import summary
from irnet_hpc.aggregate.page.svg import inline_svg
from irnet_hpc.aggregate.sections.tasks import tasks_of
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.files import write_json
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.predictions import FILE
from tests.aggregate.browser import CHROMIUM, DRIVER, Browser
from tests.aggregate.test_aggregate import aggregate, write_by_hand, write_run

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium and chromedriver are not installed (apt-get install chromium chromium-driver)",
)
EVIL = "<script>document.title='mine'</script>"
FORMULAS = ["Fe2O3", "NaCl", "MgO", "Fe2O3", f"Fe{EVIL}"]
ERRORS = np.array([0.1, -0.2, 0.3, 0.4, 0.5])


def write_predicted(results, seed, **changes):
    """A run whose absolute errors are ERRORS, MAE 0.3, with formulas from a table that somebody has tampered with."""
    folder = write_run(results, 0.3, "irnet-17", seed=seed, n_test=5, **changes)
    target = np.arange(1.0, 6.0)
    ids = np.array(["a", "b", EVIL, "d", "=cmd()"])
    np.savez(
        folder / FILE,
        material_id=ids,
        formula=np.array(FORMULAS),
        target=target,
        prediction=target + ERRORS,
    )
    (folder / "history.csv").write_text(
        "epoch,step,lr,train_mae,val_mae,seconds\n0,1,1,0.5,0.6,1\n1,2,1,0.4,0.35,2\n"
    )
    return folder


def write_everything(results):
    """Depths, three seeds, predictions, histories, a failed cell, and text that wants to be code wherever text may be."""
    write_by_hand(results)
    for seed in range(3):
        write_predicted(
            results, seed, property="mine", unit=EVIL, pack="evil-magpie", identity={"source": EVIL}
        )
        write_run(
            results,
            0.4,
            "plain-17",
            seed=seed,
            property="mine",
            unit=EVIL,
            pack="evil-magpie",
            n_test=5,
            identity={"source": EVIL},
        )
    failed = write_run(results, 0.1, "irnet-24")
    (failed / "result.json").unlink()
    write_json(failed / "error.json", {"error": f'{EVIL} &amp; " onload=alert(1)'})


@pytest.mark.parametrize(
    "attempts", [None, 0, ["yesterday"], [{"started": 5}], [{"started": "2026-11-25T10:00:00"}]]
)
def test_when_runs_started_is_said_where_their_results_say_it(attempts, tmp_path):
    write_run(tmp_path, 0.3, "irnet-17", attempts=attempts)
    (run,), _ = collect_runs(tmp_path)
    assert ("the newest started 2026-11-25." in subtitle([run])) == (
        isinstance(attempts, list) and "T" in str(attempts)
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Path of a report that the command has written."""
    folder = tmp_path_factory.mktemp("page")
    write_everything(folder / "results")
    done = aggregate("results", "--html", "report.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^wrote report.html \(\d+\.\d MB\)$", done.stdout, re.MULTILINE)
    assert [path.name for path in folder.iterdir() if path.name != "results"] == [
        "report.html"
    ]  # nothing half-written
    return folder / "report.html"


class Tags(html.parser.HTMLParser):
    """Every tag with its attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self._in = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._in = tag
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self._in == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self._in = ""


def test_nothing_in_the_page_reaches_beyond_it_and_one_script_may_run(page):
    text = page.read_text()
    found = Tags(text)
    (script,) = found.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [
        one["content"]
        for tag, one in found.tags
        if one.get("http-equiv") == "Content-Security-Policy"
    ]
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}';"
        in policy
    )
    assert not {"link", "iframe", "base", "object", "embed", "form"} & {
        tag for tag, _ in found.tags
    }
    targets = [
        one[name]
        for _, one in found.tags
        for name in ("href", "src", "xlink:href", "action")
        if one.get(name)
    ]
    assert targets and all(target.startswith(("#", "data:image/png;base64,")) for target in targets)
    assert not [name for _, one in found.tags for name in one if name.startswith("on")]
    assert not re.search(r"url\((?!#)", text)


def test_text_of_the_users_is_never_code(page):
    text = page.read_text()
    assert EVIL not in text
    assert text.count("&lt;script&gt;document.title=") > 5  # unit, source, formula, material, error
    assert element("a", EVIL, title='"><b>') == (
        '<a title="&quot;&gt;&lt;b&gt;">&lt;script&gt;document.title=&#x27;mine&#x27;&lt;/script&gt;</a>'
    )


def test_the_page_has_what_was_asked_for(page):
    text = page.read_text()
    headings = re.findall(r"<h2>([^<]*)</h2>", text)
    assert headings[:5] == ["Summary", "All results", "Depth", "Convergence", "Predictions"]
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
    body = body.replace(
        r"\end{table}", "\\end{table}\n\\clearpage"
    )  # so many floats are more than LaTeX keeps
    (folder / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        + body
        + "\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


def test_without_results_or_of_two_packs_of_one_name_there_is_a_sentence_and_no_page(tmp_path):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "two", 0.1, "irnet-17")
    write_run(tmp_path / "two", 0.1, "irnet-48", identity={"split_seed": 1})
    for results, words in (
        ("empty", "no finished run below empty"),
        ("two", "two packs named 'oqmd-magpie'"),
    ):
        done = aggregate(results, "--html", "report.html", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"error: .*{words}.*\n", done.stderr)
    assert not (tmp_path / "report.html").exists()


def test_where_a_model_errs_is_as_worked_out_by_hand(tmp_path):
    """Fe in rows 0 and 3: (0.1 + 0.4) / 2; O in 0, 2 and 3; the last formula cannot be read."""
    for seed in range(2):
        write_predicted(tmp_path, seed)
    (found,) = diagnoses(tasks_of(tabulate(collect_runs(tmp_path)[0])), {})
    errors = {one.symbol: (one.n, one.mae, one.bias) for one in found.elements}
    assert list(errors) == ["O", "Na", "Mg", "Cl", "Fe"]  # by atomic number
    assert errors["Fe"] == (2, pytest.approx(0.25), pytest.approx(0.25))
    assert errors["O"] == (3, pytest.approx(0.8 / 3), pytest.approx(0.8 / 3))
    assert errors["Na"] == (1, pytest.approx(0.2), pytest.approx(-0.2))
    assert (found.n_unreadable, found.n_rows, len(found.target), found.n_runs) == (1, 5, 10, 2)
    assert (found.mae, found.median, found.worst_part) == tuple(
        map(pytest.approx, (0.3, 0.3, 0.5 / 1.5))
    )
    assert [one.error for one in found.worst] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert (found.worst[1].material_id, found.worst[1].formula, found.worst[1].prediction) == (
        "d",
        "Fe2O3",
        pytest.approx(4.4),
    )


def test_no_readable_formula_is_no_element():
    assert errors_by_element(["?", ""], np.ones(2), np.ones(2)) == ((), 2)


def test_elements_stand_where_pymatgen_has_them():
    for symbol in SYMBOLS:
        row, column = place(symbol)
        if row < 8:
            known = Element(symbol)
            assert (row, column) == (known.row, known.group), symbol
    assert [place(symbol) for symbol in ("La", "Lu", "Ac", "Lr", "Hf")] == [
        (8, 4),
        (8, 18),
        (9, 4),
        (9, 18),
        (6, 4),
    ]
    assert len({place(symbol) for symbol in SYMBOLS}) == len(SYMBOLS)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.2661 (n=1)", 0.2661),
        ("1,234", 1234),
        ("-7.8 %", -7.8),
        ("p < 0.001", 0.001),
        ("random_forest 0.30 ± 0.01 (n=3)", 0.3),
        ("irnet-17", None),
        ("not run", None),
        ("0.1 to 0.2", 0.1),
        ("n < 3", None),
        ("1e-05 (n=1)", 1e-5),
    ],
)
def test_what_a_cell_sorts_by(text, number):
    assert number_of(text) == number


def test_formulas_have_subscripts():
    assert formula("Fe2(SO4)3") == "Fe<sub>2</sub>(SO<sub>4</sub>)<sub>3</sub>"
    assert formula("Ni0.5<b>") == "Ni<sub>0.5</sub>&lt;b&gt;"


def test_a_chart_keeps_the_digits_of_its_numbers_and_takes_the_pages_colours(tmp_path):
    for model, mae in (("irnet-17", 0.17912), ("irnet-48", 0.18131)):
        write_run(tmp_path, mae, model)
    (table,) = tabulate(collect_runs(tmp_path)[0])
    svg = inline_svg(
        figure_of("", "depth", [lambda panel: draw_depths(panel, table, table.rows[0])]), "x", EVIL
    )
    assert re.search(r">0\.1\d{3}<", svg)  # a tick such as 0.1795, not 0.17
    assert "var(--blue)" in svg and "#0072b2" not in svg
    assert not re.search(r"<script|<style|<metadata|<!--|<\?xml|rgb\(", svg)
    assert all(reference.startswith("x-") for reference in re.findall(r"#([\w-]+)[)\"]", svg))


def test_the_summary_says_what_follows_from_the_tables(tmp_path):
    """plain from 0.12 to 0.12, IRNet from 0.09 to 0.15; the best by val of 0.09 is 82 % below 0.5."""
    write_by_hand(tmp_path)
    runs, gaps = collect_runs(tmp_path)
    tables = tabulate(runs)
    said = {
        sentence.about: sentence.text
        for sentence in summary(runs, tables, tasks_of(tables), None, gaps)
    }
    assert said[""] == "8 finished runs of 4 models on 1 task, 8 device-hours together."
    assert (
        "irnet-17, the best of 4 by val, has a test MAE of 0.090 eV/atom from 80 training rows, 82 % below the baseline."
        in (said["oqmd-magpie formation_energy"])
    )
    depth = said["Depth, formation_energy"]
    assert "the plain network goes from 0.120 to 0.120 (+0 %) between 17 and 48 layers" in depth
    assert "IRNet goes from 0.090 to 0.150 (+67 %)" in depth
    assert said["What is claimed"].startswith("2 of 4 cells have 3 runs or more")


@needs_browser
def test_a_browser_opens_it_without_complaint_asks_for_nothing_and_sorts(page, tmp_path):
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)
        assert browser.console() == []
        assert {url.partition(":")[0] for url in browser.requests()} <= {"file", "data", "chrome"}
        assert (
            browser.run("return document.title") == "irnet_hpc: test errors"
        )  # no name has become code
        column = "return Array.from(document.querySelectorAll('#everything tbody tr')).map(row => row.cells[1].textContent)"
        press = "document.querySelectorAll('#everything thead button')[1].click()"
        browser.run(press)
        numbers = [number_of(text) for text in browser.run(column)]
        assert (
            numbers[:-1] == sorted(numbers[:-1]) and numbers[-1] is None and len(numbers) > 6
        )  # the failed cell is last
        browser.run(press)
        numbers = [number_of(text) for text in browser.run(column)]
        assert numbers[:-1] == sorted(numbers[:-1], reverse=True) and numbers[-1] is None
        assert (
            browser.run(
                "return document.querySelectorAll('#everything th[aria-sort=descending]').length"
            )
            == 1
        )
        browser.run(
            "const field = document.querySelector('input'); field.value = 'PLAIN-48 honest'; field.dispatchEvent(new Event('input'))"
        )
        shown = "return Array.from(document.querySelectorAll('#everything tbody tr:not([hidden])')).map(row => row.cells[0].textContent)"
        assert browser.run(shown) == ["plain-48"]
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
                "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color].map("
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
        opened = "dispatchEvent(new Event('beforeprint')); return document.querySelectorAll('details:not(.screen):not([open])').length"
        assert browser.run(opened) == 0
        assert browser.console() == []


@needs_browser
def test_a_thousand_cells_open_in_under_three_seconds(tmp_path):
    """The one test that measures time, since the page promises it: 500 properties of two models. Counted is the processor's
    time of the page's own thread, which whatever else the machine does leaves alone."""
    write_run(tmp_path / "one", 0.1, "irnet-17")
    write_run(tmp_path / "one", 0.2, "plain-17")
    two, _ = collect_runs(tmp_path / "one")
    runs = [
        run._replace(folder=run.folder / name, spec=dataclasses.replace(run.spec, property=name))
        for name in (f"p{number}" for number in range(500))
        for run in two
    ]
    tables = tabulate(runs)
    tasks = tasks_of(tables)
    text = webpage(Findings(runs, {}, tables, (), tasks, None, (), (), (), ()))
    (tmp_path / "report.html").write_text(text)
    assert len(text) < 8e6
    with Browser(tmp_path / "profile") as browser:
        browser.developer("Performance.enable", timeDomain="threadTicks")
        browser.open(tmp_path / "report.html")  # returns when the page has loaded
        metrics = {
            one["name"]: one["value"]
            for one in browser.developer("Performance.getMetrics")["metrics"]
        }
        assert 0 < metrics["TaskDuration"] < 3
        assert (
            browser.run("return document.querySelectorAll('#everything tbody tr').length") == 1000
        )
        assert browser.console() == []
