"""Download all pages of a service one after another, and write them as a raw table."""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from irnet_hpc.data.download import http
from irnet_hpc.data.download.http import Connection
from irnet_hpc.data.download.records import Lowest, Record, Unusable, write_table
from irnet_hpc.data.download.work_folder import (
    is_sound,
    keep_only,
    kept_pages,
    locked,
    place_table,
    read_page,
    write_page,
)
from irnet_hpc.data.sources import Source
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json

logger = logging.getLogger(__name__)
T = TypeVar("T")
# How often a download may start. It starts again if the service's total changes meanwhile.
MAX_STARTS = 3


class Page(NamedTuple):
    """The rows of one answer."""

    rows: list[dict]
    total: int | None  # rows of all pages, if the service states it


class Service(NamedTuple):
    """A paged service: the addresses of its pages, and the functions that read its answers."""

    # Base address, page (from 0), rows per page -> address of the page.
    query: Callable[[str, int, int], str]
    read: Callable[[bytes], Page]  # raises ValueError unless it is a page
    record: Callable[[dict], Record]  # raises Unusable unless the row is a material
    properties: tuple[str, ...]
    structures: bool
    n_rows: int  # rows to ask for per page
    fields: tuple[str, ...]  # fields that every row has
    numeric: tuple[str, ...]  # fields that hold numbers, perhaps as text
    others: tuple[str, ...] = ()  # other fields that a row may have
    notes: tuple[str, ...] = ()
    # Of the rows with one id, keep the one with the lowest value of this property; "": the first.
    lowest: str = ""


class Plan(NamedTuple):
    """The query that produced the pages of a download."""

    query: str  # address of the first page
    n_rows: int  # rows per page
    total: int | None  # rows of all pages, if the service states it


class TotalChangedError(Exception):
    """Signal that a service states a different total number of rows than for earlier pages."""


class PagedDownload(NamedTuple):
    """A download in progress."""

    service: Service
    url: str  # base address
    work: Path  # folder of the download


def download_pages(service: Service, name: str, url: str, folder: Path, source: Source) -> Path:
    """Download all rows of a paged service into a raw table.

    Args:
        service: the service.
        name: the name of the table.
        url: the base address of the service.
        folder: the folder of raw tables.
        source: the description of the source.

    Returns:
        The path of the table.

    Raises:
        UserError: if the download fails; another call resumes it.
    """
    table = folder / f"{name}{'.jsonl.gz' if service.structures else '.csv.xz'}"
    with locked(folder, name) as work:
        # The process that we waited for may have made the table.
        if table.is_file():
            return table
        download = PagedDownload(service, url, work)
        plan = _download_all(download)
        new = work / table.name
        lowest = _lowest(download)
        written = write_table(new, service.properties, _records(download), lowest)
        if not any(written.n_reported.values()):
            # A later attempt should not start from these pages.
            shutil.rmtree(work)
            raise UserError(
                f"not one row of {url} reports any of {', '.join(service.properties)} "
                f"({'; '.join(written.remarks())}); "
                f"pack --probe {name} lists what differs from what was expected"
            )
        notes = [*service.notes, *unexpected(written.n_rows, source)]
        about = {"source": name, "url": plan.query, "notes": notes, "n_fetched": plan.total}
        place_table(new, table, source, written, about)
    return table


def unexpected(n_rows: int, source: Source) -> list[str]:
    """Return a note if the number of rows is outside the expected range, else an empty list."""
    if source.rows is None or source.rows[0] <= n_rows <= source.rows[1]:
        return []
    low, high = source.rows
    return [f"{n_rows:,} rows, where {low:,} to {high:,} were expected ({source.rows_as_of})"]


def _download_all(download: PagedDownload) -> Plan:
    """Fetch the missing pages. Raises UserError if the service's total keeps changing."""
    with http.connect() as connection:
        return restart_on_change(
            download.url, download.work, lambda: _fetch_missing(download, connection)
        )


def restart_on_change(url: str, work: Path, attempt: Callable[[], T]) -> T:
    """Call `attempt` again if the service's total changes meanwhile.

    Before, all pages are discarded. Otherwise pages from before and after the change would be
    mixed. Rows that moved to another page would then be missing unnoticed.

    Args:
        url: the base address of the service, for messages.
        work: the folder of the download.
        attempt: fetches the missing pages; it raises TotalChangedError for another total.

    Returns:
        What `attempt` returns.

    Raises:
        UserError: if the total keeps changing.
    """
    for start in range(1, MAX_STARTS + 1):
        try:
            return attempt()
        except TotalChangedError as error:
            discard(work)
            change = str(error)
        if start < MAX_STARTS:
            logger.info(
                "%s had %s rows: its content changed, so the pages so far are discarded",
                url,
                change,
            )
    raise UserError(
        f"{url} changed {MAX_STARTS} times while it was downloaded; the last time, it had "
        f"{change} rows; try again later"
    )


def discard(work: Path) -> None:
    """Remove the pages and the plan of a download."""
    for path in kept_pages(work).values():
        path.unlink()
    (work / "plan.json").unlink(missing_ok=True)


def _fetch_missing(download: PagedDownload, connection: Connection) -> Plan:
    plan, kept = _resume(download)
    page_number = n_rows = 0
    previous: list[dict] = []
    plan_path = download.work / "plan.json"
    # disable=None shows the bar only on a terminal.
    with tqdm(total=plan.total, unit=" rows", disable=None) as bar:
        while plan.total is None or n_rows < plan.total:
            if page_number in kept:
                rows = read_page(kept[page_number])
            else:
                rows, plan = _fetch_page(download, connection, page_number, plan, previous)
                if page_number == 0:
                    write_json(plan_path, plan._asdict())
                if rows:
                    write_page(download.work, page_number, rows)
                time.sleep(connection.limits.pause_s)
            bar.total = plan.total
            bar.update(len(rows))
            n_rows += len(rows)
            page_number += 1
            previous = rows
            # If a service does not state its total, a page that is not full is the last.
            if plan.total is None and len(rows) < plan.n_rows:
                plan = plan._replace(total=n_rows)
                write_json(plan_path, plan._asdict())
    return plan


def _resume(download: PagedDownload) -> tuple[Plan, dict[int, Path]]:
    """Read the plan of an earlier download and its undamaged pages; remove all other pages.

    Returns:
        The plan, and page number -> file.
    """
    service = download.service
    new = Plan(service.query(download.url, 0, service.n_rows), service.n_rows, None)
    kept, sound, plan = kept_pages(download.work), {}, new
    with contextlib.suppress(UserError, TypeError, FileNotFoundError):
        plan = Plan(**read_json(download.work / "plan.json"))
        sound = {page: path for page, path in kept.items() if is_sound(path)}
    if plan.query != new.query or 0 not in sound:
        plan, sound = new, {}
    keep_only(sound, kept)
    return plan, sound


def _fetch_page(
    download: PagedDownload, connection: Connection, number: int, plan: Plan, previous: list[dict]
) -> tuple[list[dict], Plan]:
    """Fetch one page.

    Args:
        download: the download.
        connection: from `connect`.
        number: the number of the page, from 0.
        plan: the query, which the first page completes with the total number of rows.
        previous: the rows of the page before.

    Returns:
        The rows of the page, and the plan.

    Raises:
        TotalChangedError: if the service states a different total than before.
        UserError: if the page cannot be fetched.
    """
    service, url = download.service, download.url

    def accept(body: bytes) -> Page:
        page = service.read(body)
        check_fields(service, page.rows, url)
        _check_page(page, number, plan, previous)
        return page

    page = http.get(connection, service.query(url, number, plan.n_rows), accept)
    if number == 0:
        # A service may return fewer rows per page than requested. Later requests then ask for
        # that smaller number.
        is_short = len(page.rows) < _max_rows(page, plan)
        plan = Plan(plan.query, len(page.rows) if is_short else plan.n_rows, page.total)
    elif plan.total is None and len(page.rows) < plan.n_rows:
        _check_end(download, connection, number + 1, plan)
    return page.rows, plan


def _max_rows(page: Page, plan: Plan) -> int:
    return plan.n_rows if page.total is None else min(plan.n_rows, page.total)


def _check_page(page: Page, number: int, plan: Plan, previous: list[dict]) -> None:
    """Check the rows of a page. Raises ValueError if another attempt may help.

    If a service returns the `previous` rows again, it has ignored the number of the page.
    """
    n_rows, ordinal = len(page.rows), number + 1
    if number == 0 and not page.rows:
        raise ValueError("a first page without rows")
    if page.total is not None and plan.total not in (None, page.total):
        raise TotalChangedError(f"{plan.total:,}, then {page.total:,}")
    if plan.total is not None:
        expected = min(plan.n_rows, plan.total - number * plan.n_rows)
        if n_rows != expected:
            raise ValueError(f"page {ordinal} must have {expected:,} rows, got {n_rows:,}")
    if n_rows > (max_rows := _max_rows(page, plan)):
        raise ValueError(f"page {ordinal} must have at most {max_rows:,} rows, got {n_rows:,}")
    if page.rows and page.rows == previous:
        raise ValueError(f"page {ordinal} repeats page {number}")


def _check_end(download: PagedDownload, connection: Connection, number: int, plan: Plan) -> None:
    """Check that an incomplete page is really the last one, if the service states no total.

    Raises:
        UserError: if the next page has rows.
    """
    time.sleep(connection.limits.pause_s)
    url = download.service.query(download.url, number, plan.n_rows)
    if http.get(connection, url, download.service.read).rows:
        raise UserError(
            f"page {number} of {download.url} is incomplete, although page {number + 1} has rows; "
            f"run the same command to request page {number} again"
        )


def check_fields(service: Service, rows: list[dict], url: str) -> None:
    """Raise UserError if a row lacks a required field; another attempt would not help."""
    missing = [field for field in service.fields if any(field not in row for row in rows)]
    if missing:
        raise UserError(
            f"rows of {url} have no {', '.join(missing)}: the service has changed; "
            "pack --probe lists what else differs"
        )


def _records(download: PagedDownload) -> Iterator[Record | Unusable]:
    for path in kept_pages(download.work).values():
        for row in read_page(path):
            try:
                yield download.service.record(row)
            except Unusable as reason:
                yield reason


def _lowest(download: PagedDownload) -> Lowest | None:
    """Find for each id the lowest value of the property `service.lowest`.

    Returns None if the service has no such property.
    """
    name = download.service.lowest
    if not name:
        return None
    values: dict[str, float] = {}
    for record in _records(download):
        if isinstance(record, Record):
            value = record.targets.get(name, math.inf)
            values[record.material_id] = min(value, values.get(record.material_id, math.inf))
    return Lowest(name, values)
