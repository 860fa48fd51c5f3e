"""Write a figure as SVG that has the page's colours and needs no other file."""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Colour of the figures -> colour of the page's style sheet, which changes in dark mode.
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
# Text is not drawn as paths, so that files are small and text can be searched and has the page's
# colour. Ids follow from the content, so that the same results give the same page.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "irnet",
    "text.color": "black",
    "axes.edgecolor": "0.4",
}
PIXELS_A_POINT = 1.25
PICTURE_DPI = 200  # of the parts of a figure that are pictures, such as thousands of points
FONT = "'DejaVu Sans'"
# Attributes whose numbers are coordinates, which are rounded to hundredths of a point.
PLACES = {"d", "x", "y", "width", "height", "points", "transform"}
DROPPED = {"metadata", "style"}


def inline_svg(figure: "Figure", name: str, description: str) -> Markup:
    """Return a figure as an `<svg>` element.

    Args:
        figure: a figure of matplotlib.
        name: the prefix of the figure's ids, which must be unique on the page.
        description: the text that a screen reader speaks.
    """
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(
            text,
            format="svg",
            transparent=True,
            dpi=PICTURE_DPI,
            metadata={"Date": None, "Creator": None},
        )
    root = ElementTree.fromstring(text.getvalue())  # comments are left out
    width, height = root.attrib["viewBox"].split()[2:]
    elements = list(root.iter())
    references = {reference for element in elements for reference in _references(element)}
    for element in elements:
        _drop_children(element)
        element.tag = _local_name(element.tag)
        element.attrib = dict(_attributes(element, name, references))
        element.text, element.tail = _without_indent(element.text), _without_indent(element.tail)
    root.attrib = {
        "viewBox": f"0 0 {float(width):g} {float(height):g}",
        "role": "img",
        "aria-label": description,
        "style": f"max-width:{PIXELS_A_POINT * float(width):.0f}px",
    }
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _local_name(name: str) -> str:
    """Remove the namespace of a tag or attribute, since SVG within HTML needs none."""
    return name.rpartition("}")[2]


def _references(element: ElementTree.Element) -> list[str]:
    """List the ids that an element refers to, as `#id` or `url(#id)`."""
    values = [value.strip() for value in element.attrib.values()]
    direct = [value[1:] for value in values if value.startswith("#")]
    return direct + [
        part.partition(")")[0] for value in values for part in value.split("url(#")[1:]
    ]


def _drop_children(element: ElementTree.Element) -> None:
    for child in list(element):
        if _local_name(child.tag) in DROPPED:
            element.remove(child)


def _attributes(
    element: ElementTree.Element, name: str, references: set[str]
) -> Iterator[tuple[str, str]]:
    """Yield the attributes of an element, rewritten for the page."""
    for key, value in element.attrib.items():
        key = _local_name(key)
        if key == "id":
            if value in references:
                yield key, f"{name}-{value}"
        elif key == "href" and value.startswith("#"):
            yield key, f"#{name}-{value[1:]}"
        elif key == "style":
            yield key, "; ".join(_declaration(part, name) for part in value.split(";"))
        elif key in PLACES:
            yield key, re.sub(r"(\.\d\d)\d+", r"\1", value)
        else:
            yield key, COLOURS.get(value, value.replace("url(#", f"url(#{name}-"))


def _declaration(text: str, name: str) -> str:
    """Rewrite a style declaration: its colour, font and reference."""
    key, _, value = (part.strip() for part in text.partition(":"))
    if key == "font":
        value = f"{value.partition(FONT)[0]}var(--font)"
    value = COLOURS.get(value, value.replace("url(#", f"url(#{name}-"))
    return f"{key}: {value}" if value else key


def _without_indent(text: str | None) -> str | None:
    """Return the text, or None if it is only white space between elements."""
    return text if text and text.strip() else None
