"""Read the answers of a service that speaks OPTIMADE 1.

    /v1/structures?filter=...&response_fields=...&page_limit=500

    {"data": [{"id": "mp-22862", "type": "structures", "attributes": {"nsites": 2, ...}}, ...],
     "links": {"next": "https://example.org/v1/structures?page_offset=500&..."},
     "meta": {"data_returned": 912, "more_data_available": true, "provider": {...},
              "warnings": [{"detail": "..."}], "request_delay": 0.5}}

    /v1/info/structures

    {"data": {"properties": {"_exmpl_gap": {"unit": "eV", "type": "float", "description": "..."}}}}

A refusal has {"errors": [{"title": "Bad Request", "detail": "..."}]}.

Source: the specification, https://github.com/Materials-Consortia/OPTIMADE, optimade.rst, versions
1.0 to 1.2, sections "JSON Response Schema" and "Entry Listing Info Endpoints". Since 1.2 a property
may be described by a property definition, whose unit is `x-optimade-unit` and whose parts are
described under `properties`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from irnet_hpc.data.download.http import printable_line
from irnet_hpc.data.download.records import number

MAX_TEXT = 300  # characters of a service's text that are shown
NUMERIC = ("float", "integer", "number")
NESTED = ("dictionary", "object")
MAX_DEPTH = 4  # of dictionaries within a property


class Page(NamedTuple):
    """The entries of one answer."""

    entries: list[dict]
    next: str  # address of the next page, as the service gives it; empty: this page is the last
    total: int | None  # entries of all pages, if the service states it
    delay_s: float  # the pause that the service asks for
    warnings: tuple[str, ...]


class OwnProperty(NamedTuple):
    """A property of the provider's own, as the service describes it."""

    name: str  # begins with _, as `_exmpl_gap`
    unit: str  # empty: not stated
    is_numeric: bool  # False: a dictionary, which may hold numbers, or a type that is not stated
    description: str
    part_units: Mapping[str, str]  # parts of a dictionary, `_exmpl_gap.direct` -> unit


def read_page(body: bytes) -> Page:
    """Parse a page of structures. Raises ValueError if it does not have the documented form."""
    answer = _answer(body)
    entries = answer.get("data")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("the answer must have a list of objects named data")
    meta, links = _mapping(answer.get("meta")), _mapping(answer.get("links"))
    following = links.get("next")
    if isinstance(following, Mapping):  # JSON:API allows an object in place of a text
        following = following.get("href")
    if following is not None and not isinstance(following, str):
        raise ValueError(f"links.next must be an address, got {following!r:.80}")
    more = meta.get("more_data_available")
    if not following and more is True:
        raise ValueError("more_data_available is true, but links.next is missing")
    if more is False:  # some services give the address of an empty page after the last
        following = None
    total = meta.get("data_returned")
    delay_s = number(meta.get("request_delay")) or 0.0
    return Page(
        entries,
        following or "",
        total if type(total) is int and total >= 0 else None,
        max(0.0, delay_s),
        tuple(_texts(meta.get("warnings"))),
    )


def read_data(body: bytes) -> dict[str, Any]:
    """Parse an answer about one thing, such as /info: its `data` and its `meta`.

    Raises ValueError if it does not have the documented form.
    """
    answer = _answer(body)
    if not isinstance(answer.get("data"), dict):
        raise ValueError("the answer must have an object named data")
    return {"data": answer["data"], "meta": _mapping(answer.get("meta"))}


def own_properties(data: Mapping[str, Any]) -> list[OwnProperty]:
    """List the provider's own properties that may hold numbers, from `data` of /info/structures.

    Raises ValueError if it does not have the documented form.
    """
    described = data.get("properties", _mapping(data.get("attributes")).get("properties"))
    if not isinstance(described, Mapping):
        raise ValueError("data must have an object named properties")
    return list(_own_properties(described))


def _own_properties(described: Mapping[str, Any]) -> Iterator[OwnProperty]:
    for name, definition in described.items():
        # The standard's own properties, which do not begin with _, hold no property of materials.
        if not name.startswith("_") or not isinstance(definition, Mapping):
            continue
        types = definition.get("x-optimade-type", definition.get("type"))
        known = {types} if isinstance(types, str) else set(map(str, types or ()))
        is_numeric = bool(known & {*NUMERIC})
        # The specification says that a client must accept a type that it does not know.
        if is_numeric or not known or known & {*NESTED}:
            text = definition.get("description")
            description = printable_line(text)[:MAX_TEXT] if isinstance(text, str) else ""
            parts = dict(_part_units(name, definition.get("properties"), MAX_DEPTH))
            yield OwnProperty(name, _unit(definition), is_numeric, description, parts)


def _part_units(name: str, parts: object, depth: int) -> Iterator[tuple[str, str]]:
    if depth:
        for key, definition in _mapping(parts).items():
            if isinstance(definition, Mapping):
                if unit := _unit(definition):
                    yield f"{name}.{key}", unit
                yield from _part_units(f"{name}.{key}", definition.get("properties"), depth - 1)


def _unit(definition: Mapping[str, Any]) -> str:
    unit = definition.get("unit") or definition.get("x-optimade-unit")
    # `inapplicable` is 1.2's unit of a property that has no unit, as a text or a dictionary.
    return printable_line(unit) if isinstance(unit, str) and unit != "inapplicable" else ""


def reason_of(body: bytes) -> str:
    """Return the reason of a refusal in one line; empty if it states none."""
    try:
        return "; ".join(_texts(json.loads(body)["errors"]))[:MAX_TEXT]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""


def _answer(body: bytes) -> dict[str, Any]:
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise ValueError("the answer must be an object")
    if errors := list(_texts(answer.get("errors"))):
        raise ValueError(f"the service reports an error: {'; '.join(errors)[:MAX_TEXT]}")
    return answer


def _texts(errors: object) -> Iterator[str]:
    """Yield the texts of errors or warnings, each as one line."""
    for error in errors if isinstance(errors, list) else ():
        stated = _mapping(error)
        parts = [stated.get("title"), stated.get("detail")]
        line = printable_line(": ".join(part for part in parts if isinstance(part, str) and part))
        if line:
            yield line[:MAX_TEXT]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
