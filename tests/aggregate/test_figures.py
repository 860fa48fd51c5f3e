"""Figures: their lines, axes and labels."""

import functools

import pytest

from irnet_hpc.aggregate.figures import depth_figure, figure_of, rows_figure
from irnet_hpc.aggregate.panels import draw_cost
from irnet_hpc.aggregate.series import size_series
from tests.aggregate.results import findings_of, tables_of, write_by_hand, write_run, write_sizes


def test_the_figure_draws_a_line_an_architecture_against_depth(tmp_path):
    write_by_hand(tmp_path)
    write_run(tmp_path, 0.2, property="band_gap", unit="eV", baseline_mae=0.25)
    (table,) = tables_of(tmp_path)
    energy, gap = depth_figure(table).axes
    lines = {container.get_label(): container.lines[0] for container in energy.containers}
    assert list(lines) == ["plain", "IRNet"]
    assert lines["IRNet"].get_xdata().tolist() == [17, 48]
    assert lines["IRNet"].get_ydata().tolist() == pytest.approx([0.09, 0.15])
    assert energy.get_xticks().tolist() == [17, 48]
    assert energy.get_ylabel() == r"MAE of $E_{\mathrm{f}}$ (eV/atom)"
    assert (
        energy.get_title(loc="right") == "baseline 0.5 ↑"
    )  # three times the largest MAE: written, not drawn
    assert 0.25 in [line.get_ydata()[0] for line in gap.lines]


def test_the_figure_against_rows_is_logarithmic_and_has_a_line_a_model(tmp_path):
    write_sizes(tmp_path)
    series = next(
        series for series in size_series(tables_of(tmp_path)) if series.table.recipe != "grid"
    )
    (panel,) = rows_figure(series).axes
    lines = {container.get_label(): container.lines[0] for container in panel.containers}
    assert list(lines) == ["plain-17", "irnet-17", "best classical"]
    assert lines["irnet-17"].get_xdata().tolist() == [100, 1000]
    assert lines["irnet-17"].get_ydata().tolist() == pytest.approx([0.2, 0.1])
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")


@pytest.mark.parametrize(
    ("changes", "n_left_out"),
    [
        ({}, 0),
        ({"mae": 0.0}, 1),
        ({"baseline_mae": 0.0}, 1),
        ({"mae": 0.0, "baseline_mae": 0.0}, 2),
    ],
)
def test_an_mae_of_zero_is_counted_where_the_axis_cannot_show_it(tmp_path, changes, n_left_out):
    for n, mae in ((100, 0.2), (1000, 0.1)):
        write_run(tmp_path, mae, train_rows=n, n_train=n)
    changes = {"mae": 0.05} | changes
    write_run(tmp_path, changes.pop("mae"), n_train=5000, **changes)
    (series,) = size_series(tables_of(tmp_path))
    (panel,) = rows_figure(series).axes
    words = panel.get_title(loc="right")
    assert words.startswith(f"{n_left_out} MAE") if n_left_out else words == ""
    assert all((line.get_ydata() > 0).all() for line in panel.containers[0].lines[:1])


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("srnet-17", {"mae": 0.0}, "1 of 0"),
        ("srnet-17", {"device_hours": 0.0}, "1 of 0"),
        ("srnet-17", {}, ""),
    ],
)
def test_a_cost_that_cannot_be_drawn_is_counted(tmp_path, model, changes, words):
    write_by_hand(tmp_path)
    changes = {"mae": 0.2} | changes
    write_run(tmp_path, changes.pop("mae"), model, **changes)
    (models,) = findings_of(tmp_path).all_models
    draw = functools.partial(draw_cost, known=models.properties[0])
    (panel,) = figure_of([draw]).axes
    assert panel.get_title(loc="right").startswith(words)
    points = [line for line in panel.lines if line.get_linestyle() == "None"]
    assert len(points) == (4 if words else 5)
    assert all(y > 0 for line in points for y in line.get_ydata())
