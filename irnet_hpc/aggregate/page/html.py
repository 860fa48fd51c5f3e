"""HTML in which text is always text: names come from tables and matrices, and must never become code.

Only what `element` returns is markup; every other string is escaped where it is put into one.
"""

import html
import re
from collections.abc import Callable, Iterable, Sequence

from irnet_hpc.aggregate.formats import Text, one_line

VOID = {"meta", "input", "br"}
NUMBER = re.compile(r"(?:p [<=] )?([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?: .*)?")
NAMED = re.compile(r"[\w.+-]+ (\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?) (?:± \S+ )?\(n=\d+\)")
# What stands in a cell that holds no number, beside names
WHY = re.compile(
    r"not run|failed|unreadable|stale|running|unfinished|queued|no .*|n < \d+|one seed a split|not (?:measured|counted|compared"
    r"|stated|one of ours)|none known|tasks missing|does not exist|is one|baseline is 0|of zero"
)


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Markup:
    """`<name attributes>children</name>`. Of attributes a `_` at the end is dropped, others become `-`; None and False leave
    one out.

    >>> element("td", "<b>", element("sub", "2"), class_="x")
    '<td class="x">&lt;b&gt;<sub>2</sub></td>'
    """
    stated = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inner = "".join(escaped(child) for child in children if child is not None)
    return Markup(f"<{name}{stated}>" + ("" if name in VOID else f"{inner}</{name}>"))


def escaped(child: str) -> Markup:
    """Markup as it is; of text, what does not print becomes a space, and nothing in it is code."""
    if isinstance(child, Markup):
        return child
    return Markup(html.escape("".join(letter if letter.isprintable() else " " for letter in child)))


def joined(children: Iterable[str]) -> Markup:
    return Markup("".join(map(escaped, children)))


def number_of(text: str) -> float | None:
    """What a cell sorts by: its first number, or the one behind a model's name; None: it is a text."""
    found = NUMBER.fullmatch(text) or NAMED.fullmatch(text)
    return float(found[1].replace(",", "")) if found else None


LONG = 44  # letters, beyond which a cell may break


def table(
    lines: Sequence[Sequence[Text]],
    name: str | None = None,
    tall: bool = False,
    first: Callable[[str], Markup] = escaped,
) -> Markup:
    """Lines of text, header first, as a table that the page's script can sort by any column. `first` makes markup of the
    first column's cells; a `tall` table scrolls within itself."""
    header, *body = lines
    numbers = [[number_of(one_line(cell.text)) for cell in line] for line in body]
    right = [
        sum(line[column] is not None for line in numbers) * 2 > len(body) and column > 0
        for column in range(len(header))
    ]
    head = [
        element(
            "th",
            element("button", cell.text, type="button"),
            class_="n" if right[column] else None,
            scope="col",
        )
        for column, cell in enumerate(header)
    ]
    rows = [
        element(
            "tr",
            element(
                "th",
                first(line[0].text),
                scope="row",
                class_="best" if line[0].bold else None,
                data_v=values[0],
            ),
            *(_cell(*entry) for entry in zip(line[1:], values[1:], right[1:], strict=True)),
        )
        for line, values in zip(body, numbers, strict=True)
    ]
    shown = element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", *rows),
        class_="sortable",
        id=name,
    )
    kind = "scroll tall" if tall else "scroll"
    return element("div", shown, class_=kind, tabindex=0, role="region", aria_label="table")


def _cell(cell: Text, value: float | None, right: bool) -> Markup:
    classes = ["n"] if right else []
    classes += ["best"] if cell.bold else []
    classes += ["why"] if value is None and WHY.fullmatch(cell.text) else []
    classes += ["long"] if len(cell.text) > LONG else []
    return element("td", cell.text, class_=" ".join(classes) or None, data_v=value)


def formula(text: str) -> Markup:
    """A formula with its amounts as subscripts."""
    parts = re.split(r"(?<=[A-Za-z)\]])(\d+(?:\.\d+)?)", one_line(text))
    return joined(element("sub", part) if place % 2 else part for place, part in enumerate(parts))
