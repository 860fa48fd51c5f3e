"""Parity and residuals: no point stands where its value is not."""

import functools

import numpy as np
import pytest

from irnet_hpc.aggregate.diagnostics import Points
from irnet_hpc.aggregate.error_panels import draw_parity, draw_residuals, shown_range
from irnet_hpc.aggregate.figures import figure_of
from irnet_hpc.aggregate.page.svg import inline_svg

TRIANGLES = ("^", "v", "<", ">")


def panel_of(draw, target, prediction):
    points = Points("band_gap", "eV", np.array(target, float), np.array(prediction, float))
    figure = figure_of([functools.partial(draw, points=points)])
    return figure, figure.axes[0]


def points_in(panel):
    (line,) = [line for line in panel.lines if line.get_marker() == "o"]
    return sorted(zip(*map(np.ndarray.tolist, line.get_data()), strict=True))


def triangles_in(panel):
    """Return marker -> the coordinates of its triangles along the frame."""
    return {
        line.get_marker(): list(line.get_ydata() if line.get_marker() in "<>" else line.get_xdata())
        for line in panel.lines
        if line.get_marker() in TRIANGLES
    }


def n_beyond(panel):
    words = panel.get_title(loc="right")
    return int(words.split()[0]) if words else 0


NORMAL = np.linspace(1, 4, 138)  # targets; each is predicted 0.1 higher


@pytest.mark.parametrize(
    ("target", "prediction", "triangles"),
    [
        (9.33, 5.96, {}),  # in a range of 1 to 9.33 nobody is squeezed
        (26, 453, {}),  # beyond both axes: only counted
        (2.0, 453.0, {"^": [2.0]}),
        (2.0, -453.0, {"v": [2.0]}),
        (453.0, 2.0, {">": [2.0]}),
        (-453.0, 2.0, {"<": [2.0]}),
        (3.0, 1e15, {"^": [3.0]}),
    ],
)
def test_a_parity_plot_shows_points_at_their_values_and_marks_the_others(
    target, prediction, triangles
):
    _, panel = panel_of(draw_parity, [*NORMAL, target], [*NORMAL + 0.1, prediction])
    is_beyond = abs(target) > 20 or abs(prediction) > 20
    own = [] if is_beyond else [(target, prediction)]
    assert points_in(panel) == sorted([*zip(NORMAL, NORMAL + 0.1, strict=True), *own])
    assert (n_beyond(panel), triangles_in(panel)) == (int(is_beyond), triangles)
    low, high = panel.get_xlim()
    assert (panel.get_ylim(), high > 4.1) == ((low, high), True)


@pytest.mark.parametrize(("error", "marker"), [(40.0, "^"), (-40.0, "v"), (-3.37, None)])
def test_a_residual_stands_at_its_value_or_is_marked(error, marker):
    """The residuals of the others are -2 to 2; 40 is far, and -3.37 is shown where it is."""
    residuals = np.linspace(-2, 2, 138)
    _, panel = panel_of(draw_residuals, [*NORMAL, 3.0], [*NORMAL + residuals, 3.0 + error])
    known = points_in(panel)
    assert len(known) == (138 if marker else 139)
    assert triangles_in(panel) == ({marker: [3.0]} if marker else {})
    if not marker:
        assert min(known, key=lambda point: point[1]) == (3.0, pytest.approx(-3.37))
    low, high = panel.get_ylim()
    assert low == -high and all(low < y < high for _, y in known)


def test_a_density_counts_each_row_in_its_pixel_and_none_at_the_edge():
    """Of 6,000 rows on a line, 30 are predicted as 900: no pixel of the upper edge is filled."""
    target = np.linspace(0, 1, 6000)
    prediction = np.where(np.arange(6000) % 200 == 7, 900.0, target)
    _, panel = panel_of(draw_parity, target, prediction)
    opacity = np.asarray(panel.images[0].get_array())[..., 3]
    assert n_beyond(panel) == 30
    assert triangles_in(panel)["^"] == pytest.approx(target[np.arange(6000) % 200 == 7])
    assert (
        np.flatnonzero(opacity.sum(axis=0)).tolist() == np.flatnonzero(opacity.diagonal()).tolist()
    )
    assert opacity[-1].sum() == 0 and np.count_nonzero(opacity - np.diag(opacity.diagonal())) == 0


def test_many_failures_are_shown_and_not_cut_off():
    """Three of 200 values are more than one in a hundred: the axis goes as far as they do."""
    target = np.linspace(0, 1, 100)
    _, panel = panel_of(draw_parity, target, [*target[:97], 50.0, 55.0, 60.0])
    assert (n_beyond(panel), len(points_in(panel)), panel.get_ylim()[1] > 60) == (0, 100, True)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0] * 100, (0, 0)),
        ([0.0] * 99 + [5.0], (0, 5)),  # without the outlier nothing would be left of the axis
        ([*range(10), 1000], (0, 1000)),  # of few points each is shown
        ([*range(100), 1000], (0, 99)),
        ([*range(100), 280], (0, 280)),  # less than three times as long
        ([*range(100), -1000], (0, 99)),
        ([*range(300), 2000, -2000, 3000], (0, 299)),  # 3 of 303
    ],
)
def test_an_axis_ends_before_a_few_values_that_would_squeeze_the_others(values, shown):
    assert tuple(shown_range(np.array(values, float))) == shown


def test_triangles_stand_outside_of_the_frame_and_inside_of_the_picture():
    figure, panel = panel_of(draw_parity, [*NORMAL, 2.0], [*NORMAL, 453.0])
    figure.canvas.draw()
    (line,) = [line for line in panel.lines if line.get_marker() == "^"]
    _, y = line.get_transform().transform([2.0, line.get_ydata()[0]])
    assert panel.bbox.y1 < y < figure.bbox.y1
    svg = inline_svg(figure, "parity", "parity")
    assert "1 of 139 points beyond the axes" in svg
