"""Draw predictions and residuals against targets.

Every point is drawn at its true position. If a few rows would squeeze all others together, the axes
end before these rows; triangles outside the frame mark them, and the title states their number.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from irnet_hpc.aggregate.diagnostics import Points
from irnet_hpc.aggregate.panels import plain_text, symbol

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes


# At most this fraction of the points, and at least one, may lie beyond the axes, and only if the
# axes are then more than SQUEEZED times shorter.
BEYOND = 0.01
SQUEEZED = 3.0
REACH = 0.5  # of the length that 99 % of the points take, on both sides
MIN_POINTS = 20  # fewer points are all shown
MAX_SCATTER = 5000  # of more points a density is drawn
MAX_VECTORS = 400  # more points become pixels of a picture, which is smaller
DENSITY_PIXELS = 90  # along each side of a density
COLOUR = "#3F93DC"
MARK = 1.02  # where triangles stand, in lengths of the axis, just outside of the frame


class Range(NamedTuple):
    """The part of an axis that is shown."""

    low: float
    high: float

    def widened(self) -> "Range":
        """Add a margin to a range, so that no point is drawn on the frame."""
        margin = 0.03 * (self.high - self.low) or 0.5
        return Range(self.low - margin, self.high + margin)


def shown_range(values: "np.ndarray") -> Range:
    """Return the range of the values without outliers, which would squeeze the others together."""
    import numpy as np

    whole = Range(float(values.min()), float(values.max()))
    if len(values) < MIN_POINTS:
        return whole
    order = np.argsort(np.abs(values - np.median(values)), kind="stable")
    central = values[order[: len(values) - max(1, int(BEYOND * len(values)))]]
    low, high = float(central.min()), float(central.max())
    # The rows that are hardly farther away are shown, too.
    reach = REACH * (high - low)
    near = values[(values >= low - reach) & (values <= high + reach)]
    kept = Range(float(near.min()), float(near.max()))
    length = kept.high - kept.low
    return kept if 0 < length < (whole.high - whole.low) / SQUEEZED else whole


def draw_parity(panel: "Axes", points: Points) -> None:
    """Draw predictions against targets, with the line of equality."""
    import numpy as np

    both = shown_range(np.concatenate([points.target, points.prediction])).widened()
    _draw_points(panel, points.target, points.prediction, both, both)
    panel.axline((both.low, both.low), slope=1, color="0.4", linewidth=0.9)
    unit = plain_text(points.unit)
    panel.set(xlabel=f"{symbol(points.property)} ({unit})", ylabel=f"predicted ({unit})")


def draw_residuals(panel: "Axes", points: Points) -> None:
    """Draw residuals against targets, with lines around 50 % and 90 % of the rows."""
    import numpy as np

    residual = points.prediction - points.target
    targets, edge = shown_range(points.target), residual_edge(residual)
    _draw_points(panel, points.target, residual, targets.widened(), Range(-edge, edge).widened())
    panel.axhline(0, color="0.4", linewidth=0.9)
    for share, line in ((0.5, "--"), (0.9, ":")):
        for quantile in np.quantile(residual, [(1 - share) / 2, (1 + share) / 2]):
            panel.axhline(quantile, color="0.4", linewidth=0.8, linestyle=line)
    unit = plain_text(points.unit)
    panel.set(
        xlabel=f"{symbol(points.property)} ({unit})", ylabel=f"predicted minus target ({unit})"
    )


def residual_edge(residual: "np.ndarray") -> float:
    """Return where an axis of residuals (n,) ends, on both sides of 0."""
    shown = shown_range(residual)
    return max(-shown.low, shown.high)


def is_density(points: Points) -> bool:
    """Return True if there are so many points that they are drawn as a density."""
    return len(points.target) > MAX_SCATTER


def _draw_points(
    panel: "Axes", x: "np.ndarray", y: "np.ndarray", x_range: Range, y_range: Range
) -> None:
    """Draw the points within the ranges. Mark and count the points outside."""
    inside = _within(x, x_range) & _within(y, y_range)
    if len(x) > MAX_SCATTER:
        _draw_density(panel, x[inside], y[inside], x_range, y_range)
    else:
        panel.plot(
            *(x[inside], y[inside]),
            color=COLOUR,
            marker="o",
            markersize=3,
            markeredgewidth=0,
            alpha=0.6,
            linestyle="none",
            rasterized=len(x) > MAX_VECTORS,
        )
    panel.set(xlim=x_range, ylim=y_range)
    if n_beyond := int((~inside).sum()):
        _mark(panel, x, y, x_range, y_range)
        words = f"{n_beyond:,} of {len(x):,} points beyond the axes"
        panel.set_title(words, loc="right", color="0.4", fontsize=8, pad=9)


def _within(values: "np.ndarray", shown: Range) -> "np.ndarray":
    return (values >= shown.low) & (values <= shown.high)


def _mark(panel: "Axes", x: "np.ndarray", y: "np.ndarray", x_range: Range, y_range: Range) -> None:
    """Draw triangles outside the frame for points that are beyond one of the axes.

    A point that is beyond both axes is only counted.
    """
    in_x, in_y = _within(x, x_range), _within(y, y_range)
    above, below = y > y_range.high, y < y_range.low
    right, left = x > x_range.high, x < x_range.low
    by_x, by_y = panel.get_xaxis_transform(), panel.get_yaxis_transform()
    style: dict[str, Any] = {
        "color": "#D55E00",
        "linestyle": "none",
        "markersize": 4,
        "clip_on": False,
    }
    for beyond, marker, edge in ((above, "^", MARK), (below, "v", 1 - MARK)):
        places = x[beyond & in_x]
        if len(places):
            panel.plot(places, [edge] * len(places), marker=marker, transform=by_x, **style)
    for beyond, marker, edge in ((right, ">", MARK), (left, "<", 1 - MARK)):
        places = y[beyond & in_y]
        if len(places):
            panel.plot([edge] * len(places), places, marker=marker, transform=by_y, **style)


def _draw_density(
    panel: "Axes", x: "np.ndarray", y: "np.ndarray", x_range: Range, y_range: Range
) -> None:
    """Draw the number of points per pixel, on a logarithmic scale, as the opacity of one colour.

    The colour is legible on dark and on light pages.
    """
    import numpy as np
    from matplotlib.colors import to_rgb

    counts, _, _ = np.histogram2d(x, y, DENSITY_PIXELS, [x_range, y_range])
    image = np.zeros((DENSITY_PIXELS, DENSITY_PIXELS, 4))
    image[..., :3] = to_rgb(COLOUR)
    opacity = np.log1p(counts.T) / np.log1p(counts.max())
    image[..., 3] = np.where(counts.T > 0, 0.35 + 0.65 * opacity, 0)
    panel.imshow(
        image,
        origin="lower",
        extent=(*x_range, *y_range),
        aspect="auto",
        interpolation="nearest",
    )
