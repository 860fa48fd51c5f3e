"""What the page holds for its interactive charts: how much, which rows, and that it is inert."""

import base64
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from irnet_hpc.aggregate.page.interactive import (
    MAX_NUMBERS,
    MAX_ROWS,
    N_WORST,
    drawn_rows,
    inert_json,
    live_charts,
    rows_of_each,
)
from irnet_hpc.aggregate.page.page import render_page
from irnet_hpc.aggregate.predicted import ModelPoints, TaskPoints
from irnet_hpc.aggregate.report import make_tables
from tests.aggregate.results import EVIL, findings_of, write_predicted, write_predictions, write_run


def task_of(n_rows, n_models, n_runs=1):
    """Points of a task whose row k is predicted k / n_rows too high."""
    target, error = np.zeros(n_rows), np.arange(n_rows) / n_rows
    result = SimpleNamespace(row=SimpleNamespace(property="band_gap", unit="eV"))
    models = tuple(
        ModelPoints(f"model {number}", result, n_runs, target + error, error)
        for number in range(n_models)
    )
    text = np.array([f"Fe{row + 1}O" for row in range(n_rows)])
    return TaskPoints(None, text, text, target, models, ())


@pytest.mark.parametrize("n_runs", [1, 3])
@pytest.mark.parametrize("sizes", [[(120_000, 50)], [(120_000, 50)] * 8, [(40, 3), (10**5, 400)]])
def test_the_page_holds_no_more_than_its_rule_allows(sizes, n_runs):
    tasks = [task_of(*size, n_runs) for size in sizes]
    rows = rows_of_each(tasks)
    numbers = sum(n * len(task.models) for n, task in zip(rows, tasks, strict=True))
    assert numbers * min(n_runs, 2) <= MAX_NUMBERS and max(rows) <= MAX_ROWS
    assert all(0 < n <= len(task.target) for n, task in zip(rows, tasks, strict=True))
    live = live_charts(tasks)
    assert len(live.data) < 5e6
    for n, drawn, task in zip(rows, live.drawn, tasks, strict=True):
        assert drawn.is_sample == (n < len(task.target))
        assert ("drawn at random" in drawn.words) == drawn.is_sample


def test_a_task_whose_models_are_too_many_has_no_chart_and_takes_nothing():
    tasks = [task_of(100, MAX_NUMBERS // 20), task_of(100, 2)]
    assert rows_of_each(tasks) == [0, 100]
    live = live_charts(tasks)
    assert live.drawn[0] is None and json.loads(live.data)["tasks"][0] is None


def test_a_sample_is_drawn_once_and_the_worst_rows_enter_no_mean():
    """Row k of 10,000 has the error k / 10,000: the mean over the drawn rows is near 0.5."""
    task = task_of(10_000, 1)
    rows, is_drawn = drawn_rows(task, 500)
    assert 488 <= len(rows) <= 500 and is_drawn.sum() == 488
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert set(range(10_000 - N_WORST, 10_000)) <= set(rows.tolist())
    assert set(rows[~is_drawn].tolist()) <= set(range(10_000 - N_WORST, 10_000))
    assert task.models[0].error[rows[is_drawn]].mean() == pytest.approx(0.5, abs=0.05)
    assert rows.tolist() == drawn_rows(task, 500)[0].tolist()
    (data,) = json.loads(live_charts([task]).data)["tasks"]
    worst = {int(data["ids"][place].strip("FeO")) - 1 for place in data["worst"]}
    assert worst <= set(range(10_000 - N_WORST, 10_000))


def test_numbers_arrive_as_they_are(tmp_path):
    for seed, errors in enumerate(([0.1, 0.2], [-0.3, 0.2])):
        write_predictions(write_run, tmp_path, errors, seed=seed)
    (task,) = json.loads(live_charts(findings_of(tmp_path).points).data)["tasks"]
    (model,) = task["models"]
    known = [task["target"], model["prediction"], model["error"]]
    arrays = [np.frombuffer(base64.b64decode(text), "<f4") for text in known]
    assert np.array(arrays) == pytest.approx(np.array([[1, 2], [0.9, 2.2], [0.2, 0.2]]))
    assert (task["formulas"], task["elements"]) == (["Fe2O3", "Fe2O3"], ["Fe O", "Fe O"])
    assert task["ids"] == ["m0-0", "m0-1"]


@pytest.mark.parametrize(
    "text", [EVIL, "</script><script>", "<!--", "]]>", "&lt;", "\u2028", '"\\']
)
def test_no_text_ends_the_element_that_holds_the_data(text):
    written = inert_json({text: [text]})
    assert not set("<>&\u2028") & set(written)
    assert json.loads(written) == {text: [text]}


def test_two_pages_of_one_process_are_equal(tmp_path):
    """Bokeh numbers its models over the whole process."""
    write_predicted(tmp_path, 0)
    first, second = (render_page(make_tables(tmp_path)) for _ in range(2))
    assert first == second


def test_without_bokeh_the_page_has_plain_figures_and_says_so(tmp_path, monkeypatch):
    write_predicted(tmp_path, 0)
    with_bokeh = render_page(make_tables(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "bokeh"] or ["bokeh"]:
        monkeypatch.setitem(sys.modules, name, None)
    without = render_page(make_tables(tmp_path))
    assert len(with_bokeh) - len(without) > 1e6
    assert "irnet_hpc[charts]" in without and "irnet_hpc[charts]" not in with_bokeh
    assert 'class="interactive"' not in without and 'data-element="Fe"' not in without
    figure = '<div class="chart">'
    assert without.count(figure) == with_bokeh.count(figure) > 1
