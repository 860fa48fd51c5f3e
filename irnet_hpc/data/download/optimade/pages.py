"""Fetch all pages of a query, each from the address that the page before it gives.

The pages are kept in the folder of the download, each with the address of the next one, so that a
download that was killed resumes at the page where it stopped.

The client of the package optimade 1.5.0 is not used, for these reasons (client/client.py):
- It keeps all entries in memory, and begins anew if it was interrupted.
- It counts attempts anew for each request, so its `max_attempts` never acts, and waits one second
  whatever `Retry-After` says.
- It follows `links.next` to any host.
- It puts the filter into the address as it is, so a `+`, `&` or `#` of a filter becomes something
  else.
"""

import contextlib
import logging
import time
import urllib.parse
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from irnet_hpc.data.download.http import Connection, RefusedError
from irnet_hpc.data.download.optimade import answers
from irnet_hpc.data.download.optimade.answers import Page
from irnet_hpc.data.download.optimade.entries import FIELDS
from irnet_hpc.data.download.optimade.query import Query
from irnet_hpc.data.download.optimade.service import Service, get
from irnet_hpc.data.download.paged import TotalChangedError
from irnet_hpc.data.download.work_folder import (
    is_sound,
    keep_only,
    kept_pages,
    read_page,
    write_page,
)
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json

logger = logging.getLogger(__name__)
# Entries to ask for per page, in turn, until the service accepts it; 0: as many as it likes. By the
# specification a service refuses (403) a page that is too large, and others call it a bad request.
PAGE_LIMITS = (500, 100, 0)
REFUSALS = (400, 403, 413, 422)
# Servers and proxies refuse longer addresses; nginx, for example, allows 8 KiB by default.
MAX_ADDRESS = 7500
# No database has so many structures; a service that states no total could go on for ever.
MAX_ENTRIES = 50_000_000


class Plan(NamedTuple):
    """The query that the pages of a download belong to."""

    query: str  # address of the first page, without the number of entries per page
    total: int | None  # entries of all pages, if the service states it


class Pages(NamedTuple):
    """A download in progress."""

    query: Query
    service: Service
    work: Path  # folder of the download
    warnings: dict[str, None]  # of the service, in the order in which they came


def first_address(query: Query, service: Service) -> str:
    """Return the address of the first page. Raises UserError if it would be too long."""
    names = [*FIELDS, *(one.name for one in service.properties)]
    asked = {"filter": query.filter, "response_fields": ",".join(names)}
    text = urllib.parse.urlencode(
        {key: value for key, value in asked.items() if value},
        safe=",",
        quote_via=urllib.parse.quote,
    )
    address = f"{service.base}/v1/structures?{text}"
    if len(address) > MAX_ADDRESS:
        raise UserError(
            f"{service.base} has {len(service.properties):,} properties of its own and a filter of "
            f"{len(query.filter):,} characters, which do not fit into an address of at most "
            f"{MAX_ADDRESS:,} characters"
        )
    return address


def fetch_pages(pages: Pages, connection: Connection) -> Plan:
    """Fetch the pages that are missing.

    Raises:
        TotalChangedError: If the service states another total than before.
        UserError: If a page cannot be fetched, or the pages cannot be the whole answer.
    """
    plan, kept = _resume(pages)
    walk = _Walk(pages, connection, plan)
    # disable=None shows the bar only on a terminal.
    with tqdm(total=plan.total, unit=" rows", disable=None) as bar:
        while walk.address:
            if walk.number in kept:
                page = Page(**read_page(kept[walk.number]))
            else:
                page = walk.fetch()
            walk.accept(page)
            bar.total = walk.plan.total
            bar.update(len(page.entries))
    total = walk.plan.total
    if total is not None and walk.n_entries != total:
        # Its last page is asked for again, since the chain may go on from there by now.
        for path in list(kept_pages(pages.work).values())[-1:]:
            path.unlink()
        raise UserError(
            f"{pages.service.base} ends after {walk.n_entries:,} of {total:,} entries; run the "
            "same command to request the last page again"
        )
    return walk.plan


def _resume(pages: Pages) -> tuple[Plan, dict[int, Path]]:
    """Read the plan of an earlier download and its pages up to the first damaged one.

    All other pages are removed, since nothing says where they belong. Returns the plan, and page
    number -> file.
    """
    new = Plan(first_address(pages.query, pages.service), None)
    kept, sound, plan = kept_pages(pages.work), dict[int, Path](), new
    with contextlib.suppress(UserError, TypeError, FileNotFoundError):
        plan = Plan(**read_json(pages.work / "plan.json"))
        for number in range(len(kept)):
            if number not in kept or not is_sound(kept[number]):
                break
            sound[number] = kept[number]
    if plan.query != new.query or not sound:
        plan, sound = new, {}
    keep_only(sound, kept)
    return plan, sound


class _Walk:
    """The way from page to page, and what has been seen on it."""

    def __init__(self, pages: Pages, connection: Connection, plan: Plan) -> None:
        self.pages, self.connection, self.plan = pages, connection, plan
        self.address = plan.query  # of the next page; empty: there is none
        self.number = self.n_entries = 0
        self.addresses = {plan.query}
        self.ids: set[int] = set()  # hashes of the ids so far

    def fetch(self) -> Page:
        """Fetch the next page and save it."""
        page = self._first() if self.number == 0 else self._get(self.address)
        if self.number == 0:
            self._start(page)
        self.follow(page)  # raises before the page is saved
        write_page(self.pages.work, self.number, page._asdict())
        limits = self.connection.limits
        time.sleep(max(limits.pause_s, min(page.delay_s, limits.max_wait_s)))
        return page

    def _start(self, page: Page) -> None:
        """Write the plan, once its first page has come."""
        total = page.total
        if total is not None and page.next and total <= len(page.entries):
            # Some services count the entries of the page and not of the query.
            logger.info("%s does not state how many entries there are", self.pages.service.base)
            total = None
        self.plan = self.plan._replace(total=total)
        write_json(self.pages.work / "plan.json", self.plan._asdict())

    def _first(self) -> Page:
        """Fetch the first page, with as many entries as the service accepts."""
        for limit in PAGE_LIMITS:
            address = self.plan.query + (f"&page_limit={limit}" if limit else "")
            try:
                return self._get(address)
            except RefusedError as error:
                if error.status not in REFUSALS or not limit:
                    asked = f" to the filter {self.pages.query.filter!r}"
                    reason = error.reason or "no reason is given"
                    raise UserError(
                        f"{self.pages.service.base} answers {error.status}"
                        f"{asked if self.pages.query.filter else ''}: {reason}"
                    ) from None
            time.sleep(self.connection.limits.pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _get(self, address: str) -> Page:
        def accept(body: bytes) -> Page:
            page = answers.read_page(body)
            self._check(page)
            return page

        try:
            return get(self.connection, address, accept)
        except RefusedError as error:
            if self.number:
                raise UserError(
                    f"{error}; the {self.number:,} pages so far are in {self.pages.work}: remove "
                    "that folder to begin again"
                ) from None
            raise

    def _check(self, page: Page) -> None:
        """Check a page that has come. Raises ValueError if another attempt may help."""
        total, ordinal = self.plan.total, self.number + 1
        if total is not None and page.total not in (None, total):
            raise TotalChangedError(f"{total:,}, then {page.total:,}")
        if page.next and not page.entries:
            raise ValueError(f"page {ordinal} has no entries, but a next page")
        ids = _ids(page)
        if self.number and ids and ids <= self.ids:
            raise ValueError(f"page {ordinal} repeats entries of earlier pages and has no others")

    def accept(self, page: Page) -> None:
        """Count a page, and go on to the next."""
        self.pages.warnings.update(dict.fromkeys(page.warnings))
        self.address = self.follow(page)
        self.addresses.add(self.address)
        self.ids |= _ids(page)
        self.n_entries += len(page.entries)
        self.number += 1

    def follow(self, page: Page) -> str:
        """Return the address of the page after this one; empty if it is the last.

        Raises:
            UserError: If the address cannot be followed, or pages come without end.
        """
        base, n_entries = self.pages.service.base, self.n_entries + len(page.entries)
        most = MAX_ENTRIES if self.plan.total is None else self.plan.total
        if n_entries > most or (n_entries == most and page.next):
            raise UserError(
                f"{base} sends more entries than {most:,}, "
                + ("as no database has" if self.plan.total is None else "which it says there are")
            )
        if not page.next:
            return ""
        address = same_host(base, urllib.parse.urljoin(self.address, page.next))
        if not address:
            raise UserError(
                f"{base} gives as the next page {page.next[:200]!r}, which is on another host; "
                "only the host that was named is asked"
            )
        if address in self.addresses:
            raise UserError(f"{base} gives as the next page one that was fetched before: {address}")
        return address


def _ids(page: Page) -> set[int]:
    return {hash(str(entry.get("id"))) for entry in page.entries}


def same_host(base: str, address: str) -> str:
    """Return an address on the host of a base address; empty if it is on another host.

    A service behind a proxy may give http in its own addresses, though it is asked by https; then
    https is kept.

    >>> same_host("https://a.org/optimade", "http://a.org/optimade/v1/structures?page=2")
    'https://a.org/optimade/v1/structures?page=2'
    >>> same_host("https://a.org", "https://b.org/v1/structures?page=2")
    ''
    """
    ours = urllib.parse.urlsplit(base)
    try:
        theirs = urllib.parse.urlsplit(address)
        ports = theirs.port, ours.port
    except ValueError:
        return ""
    is_same = theirs.scheme == ours.scheme and ports[0] == ports[1]
    is_upgrade = (theirs.scheme, ours.scheme) == ("http", "https") and (
        ports[0] in (None, 80) and ports[1] in (None, 443)
    )
    if theirs.hostname != ours.hostname or not (is_same or is_upgrade):
        return ""
    return theirs._replace(scheme=ours.scheme, netloc=ours.netloc, fragment="").geturl()
