"""A figure as SVG within a page: in the page's colours, dark or light, and without anything that reaches beyond it."""

import html
import io
import re
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.page.html import Markup, element

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# colours of the figures -> what the page's style sheet says of them
COLOURS = {
    "#000000": "currentColor",
    "#262626": "currentColor",
    "#333333": "var(--ink)",
    "#595959": "var(--muted)",
    "#666666": "var(--muted)",
    "#e6e6e6": "var(--grid)",
    "#ebebeb": "var(--grid)",
    "#0072b2": "var(--blue)",
    "#d55e00": "var(--red)",
    "#e69f00": "var(--orange)",
    "#009e73": "var(--green)",
    "#cc79a7": "var(--pink)",
    "#56b4e9": "var(--sky)",
    "#882255": "var(--wine)",
    "#999933": "var(--olive)",
    "#332288": "var(--indigo)",
    "#44aa99": "var(--teal)",
}
# Text stays text (small, searchable, in the page's colour); ids follow from the content, so the same results give the same page.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "irnet",
    "text.color": "black",
    "axes.edgecolor": "0.4",
}
PIXELS_A_POINT = 1.25
# Hundredths of a point are enough for a place; numbers that are text keep all their digits.
PLACES = re.compile(r' (?:d|x|y|width|height|points|transform)="[^"]*"')


def inline_svg(figure: "Figure", name: str, said: str) -> Markup:
    """`name` is unlike that of every other figure of the page; `said` is what a reader hears who does not see it."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(
            text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    body = text.getvalue()
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body).groups())
    body = body[body.index(">", body.index("<svg")) + 1 : body.rindex("</svg>")]
    body = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL
    )
    referred = set(re.findall(r"#([\w-]+)[\")]", body))
    body = re.sub(
        r' id="([^"]*)"',
        lambda found: f' id="{name}-{found[1]}"' if found[1] in referred else "",
        body,
    )
    body = re.sub(r"(url\(#|href=\"#)([\w-]+)", rf"\g<1>{name}-\g<2>", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda found: COLOURS.get(found[0], found[0]), body)
    body = re.sub(r"font: ([^'\"]*)'DejaVu Sans'[^;\"]*", r"font: \1 var(--font)", body)
    body = PLACES.sub(lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)
    body = re.sub(r">\s+<", "><", body)
    svg = Markup(
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(said)}" '
        f'style="max-width:{PIXELS_A_POINT * width:.0f}px">{body}</svg>'
    )
    return element("div", svg, class_="chart")
