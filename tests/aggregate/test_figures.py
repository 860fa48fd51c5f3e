"""Figures: their lines, axes and labels."""

import pytest

from irnet_hpc.aggregate.figures import depth_figure, rows_figure
from irnet_hpc.aggregate.series import size_series
from tests.aggregate.results import tables_of, write_by_hand, write_run, write_sizes


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
