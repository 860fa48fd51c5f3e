"""Ask a service what it is, and which properties of its own it has."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from irnet_hpc.data.download import http
from irnet_hpc.data.download.http import Connection, RefusedError, printable_line
from irnet_hpc.data.download.optimade import answers
from irnet_hpc.data.download.optimade.answers import OwnProperty
from irnet_hpc.data.download.optimade.providers import base_address
from irnet_hpc.data.download.optimade.query import Query
from irnet_hpc.errors import UserError


class Service(NamedTuple):
    """A service, and what it says about itself."""

    base: str  # its address, without the version of the API
    properties: tuple[OwnProperty, ...]
    title: str
    licence: str
    provider: Mapping[str, Any]  # `meta.provider` of its answers
    database: Mapping[str, Any]  # `meta.database`, since version 1.2

    @property
    def units(self) -> dict[str, str]:
        """Return the name of each number whose unit the service states -> its unit."""
        known = {one.name: one.unit for one in self.properties if one.unit}
        for one in self.properties:
            known |= one.part_units
        return known


def open_service(connection: Connection, query: Query, url: str | None = None) -> Service:
    """Ask a service what it is.

    Args:
        connection: From `connect`.
        query: What is to be downloaded.
        url: Another base address, such as a mirror's.

    Raises:
        UserError: If the service cannot be reached, or has no numbers of its own.
    """
    if url is not None:
        http.check_url(url)
    base = url.rstrip("/") if url else base_address(connection, query)

    def read_properties(body: bytes) -> tuple[list[OwnProperty], Mapping[str, Any]]:
        answer = answers.read_data(body)
        return answers.own_properties(answer["data"]), answer["meta"]

    properties, meta = get(connection, f"{base}/v1/info/structures", read_properties)
    if not properties:
        raise UserError(
            f"{base} lists no property of its own that may hold numbers, so there is nothing to "
            "train on; /v1/info/structures names what it has"
        )
    provider, database = _facts(meta.get("provider")), _facts(meta.get("database"))
    title = " ".join(filter(None, [provider.get("name", ""), database.get("name", "")]))
    return Service(
        base,
        tuple(properties),
        f"{title or base}, through OPTIMADE",
        _licence(connection, base),
        provider,
        database,
    )


def get(connection: Connection, url: str, accept: Any) -> Any:
    """Request an address as `http.get` does; a refusal has the reason that the service states."""
    return http.get(connection, url, accept, explain=answers.reason_of)


def describe_properties(query: Query) -> str:
    """List the properties of a service that `pack` can take, with their units, for people."""
    with http.connect() as connection:
        service = open_service(connection, query)
    return f"{query.text}: {service.title}\n" + "\n".join(_lines(service.properties))


def _lines(properties: Sequence[OwnProperty]) -> list[str]:
    lines = []
    for one in properties:
        kind = one.unit or ("no unit stated" if one.is_numeric else "parts are called NAME.PART")
        lines.append(f"  {one.name} ({kind}){': ' if one.description else ''}{one.description}")
        lines += [f"    {name} ({unit})" for name, unit in one.part_units.items()]
    return lines


def _licence(connection: Connection, base: str) -> str:
    """Return the licence that /info states; empty if none."""
    try:
        data = get(connection, f"{base}/v1/info", answers.read_data)["data"]
    except RefusedError:  # a service without /info has stated none
        return ""
    attributes = data.get("attributes")
    if not isinstance(attributes, dict):
        return ""
    link, names = attributes.get("license"), attributes.get("available_licenses")
    link = link.get("href") if isinstance(link, dict) else link
    texts = [link, *(names if isinstance(names, list) else [])]
    return printable_line(", ".join(text for text in texts if isinstance(text, str)))[:500]


def _facts(stated: object) -> dict[str, str]:
    """Return the texts of an object of `meta`."""
    pairs = stated.items() if isinstance(stated, Mapping) else ()
    return {key: printable_line(text)[:500] for key, text in pairs if isinstance(text, str)}
