"""Find the address of a provider's service through the consortium's list of providers.

    https://providers.optimade.org/v1/links
    {"data": [{"id": "oqmd", "type": "links", "attributes": {"name": "...", "link_type": "external",
               "base_url": "https://providers.optimade.org/index-metadbs/oqmd"}}, ...]}

That is the address of the provider's index, whose own /v1/links lists its databases with the
`link_type` `child`. Source: the specification, optimade.rst 1.2, section "Links Endpoint".

The package optimade 1.5.0 can do this, too (`get_all_databases`). It takes a provider without an
answer for one without databases, so it cannot say what is wrong.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from irnet_hpc.data.download import http
from irnet_hpc.data.download.http import Connection
from irnet_hpc.data.download.optimade.query import OPTIMADE, Query
from irnet_hpc.errors import UserError, check_choice

logger = logging.getLogger(__name__)
PROVIDERS = "https://providers.optimade.org/v1/links"


def base_address(connection: Connection, query: Query) -> str:
    """Return the base address of the service of a query, without the version of the API.

    Raises:
        UserError: If the provider is unknown, or it or the list cannot be reached.
    """
    if query.is_address:
        return query.place
    provider, _, database = query.place.partition("/")
    advice = f"name the service by its address, {OPTIMADE}https://..."
    try:
        indexes = _links(connection, PROVIDERS)
        check_choice("provider of OPTIMADE", provider, [*indexes])
        if not (index := indexes[provider].get("base_url")):
            raise UserError(f"the provider {provider} has no index of its databases")
        children = {
            name: str(link["base_url"]).rstrip("/")
            for name, link in _links(connection, f"{index.rstrip('/')}/v1/links").items()
            if link.get("link_type") == "child" and link.get("base_url")
        }
    except UserError as error:
        raise UserError(f"{error}; {advice}") from None
    if not children:
        raise UserError(f"the provider {provider} lists no database; {advice}")
    if not database and len(children) > 1:
        names = ", ".join(f"{OPTIMADE}{provider}/{name}" for name in sorted(children))
        raise UserError(f"{OPTIMADE}{provider} has several databases; choose one of {names}")
    name = check_choice(f"database of {provider}", database or next(iter(children)), children)
    http.check_url(children[name], f"the address of {provider}/{name} in the list of providers")
    logger.info("%s is at %s", query.text, children[name])
    return children[name]


def _links(connection: Connection, url: str) -> dict[str, Mapping[str, Any]]:
    """Return id -> attributes of the links at an address."""

    def read(body: bytes) -> dict[str, Mapping[str, Any]]:
        answer = json.loads(body)
        links = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(links, list):
            raise ValueError("the answer must have a list named data")
        known: dict[str, Mapping[str, Any]] = {}
        for link in links:
            if isinstance(link, dict) and isinstance(link.get("id"), str):
                attributes = link.get("attributes", link)
                if isinstance(attributes, dict):
                    known[link["id"]] = attributes | {"base_url": _href(attributes)}
        return known

    return http.get(connection, url, read)


def _href(attributes: Mapping[str, Any]) -> str:
    """Return the base address of a link, which JSON:API allows to be an object; "" for null."""
    address = attributes.get("base_url")
    address = address.get("href") if isinstance(address, Mapping) else address
    return address if isinstance(address, str) else ""
