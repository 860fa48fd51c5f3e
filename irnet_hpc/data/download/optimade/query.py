"""Read the text that names a source of OPTIMADE: a service or a provider, and a filter.

    optimade:https://optimade.example.org?filter=elements HAS "Si" AND nelements=2
    optimade:oqmd
    optimade:alexandria/alexandria-pbe

The filter is OPTIMADE's own, and is sent as it is. It is part of the source's name, so it is also
part of the name of its raw table and of the identity of its packs.
"""

import hashlib
import re
from typing import NamedTuple

from irnet_hpc.data.download.http import check_url
from irnet_hpc.errors import UserError

OPTIMADE = "optimade:"  # prefix of these sources
FILTER = "?filter="
# A provider of the consortium's list, perhaps with the id of one of its databases.
PROVIDER = re.compile(r"[a-z0-9][a-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
RULE = f"{OPTIMADE} must be followed by the address of a service, such as https://..., or by a provider, such as oqmd or alexandria/alexandria-pbe"  # noqa: E501


class Query(NamedTuple):
    """The structures of a service that a source consists of."""

    place: str  # the base address of the service, or a provider as in PROVIDER
    filter: str  # in OPTIMADE's language of filters; empty: all structures

    @property
    def text(self) -> str:
        """Return the name of the source, without spellings that mean the same."""
        return f"{OPTIMADE}{self.place}" + (f"{FILTER}{self.filter}" if self.filter else "")

    @property
    def is_address(self) -> bool:
        """Return True if the service is named by its address."""
        return "://" in self.place

    @property
    def name(self) -> str:
        """Return the name of the source's raw table.

        Two sources never share one: where letters are left out of the name, it ends with a hash.
        """
        short = re.sub(r"[^A-Za-z0-9_.-]+", "_", self.place.partition("://")[2] or self.place)
        if short == self.place and not self.filter:
            return f"optimade-{short}"
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:8]
        return f"optimade-{short}-{digest}"


def read_query(text: str) -> Query:
    """Read the name of a source that begins with `optimade:`.

    Raises:
        UserError: If no service is named so.

    >>> read_query("optimade:https://example.org/v1/?filter=nelements=2").text
    'optimade:https://example.org?filter=nelements=2'
    """
    place, _, query = text.removeprefix(OPTIMADE).strip().partition(FILTER)
    place = place.strip().rstrip("/")
    if "://" not in place:
        if not PROVIDER.fullmatch(place):
            raise UserError(f"{RULE}, got {place!r}")
        return Query(place, query.strip())
    check_url(place, f"the address after {OPTIMADE}")
    place = re.sub(r"/v[0-9]+(\.[0-9]+)*$", "", place)
    if place.endswith(("/structures", "/info", "/links")):
        raise UserError(
            f"the address after {OPTIMADE} must be the base address of a service, without "
            f"/{place.rpartition('/')[2]}, got {place!r}"
        )
    return Query(place, query.strip())


def with_filter(source: str, text: str) -> str:
    """Add a filter to the name of a source.

    Raises:
        UserError: If the source is none of OPTIMADE, or has a filter already.
    """
    if not source.startswith(OPTIMADE):
        raise UserError(f"--filter is for {OPTIMADE}URL and {OPTIMADE}PROVIDER, got {source!r}")
    if FILTER in source:
        raise UserError(f"--filter may be given once, but the source has one already: {source!r}")
    if not text.strip():
        raise UserError("--filter must be a filter of OPTIMADE, such as nelements=2, got none")
    return f"{source}{FILTER}{text}"
