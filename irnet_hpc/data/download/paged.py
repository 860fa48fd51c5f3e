"""Downloads: a service's pages, fetched one after another and kept, until they are a raw table.

A page appears whole or not at all, so a download that was killed goes on where it stopped, and no page is fetched twice. At
the end the table appears, beside it what it is, and the folder goes.
"""

import contextlib
import gzip
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from irnet_hpc.data.download import http as fetching
from irnet_hpc.data.download.http import Connection
from irnet_hpc.data.download.records import (
    Lowest,
    Record,
    Unusable,
    WrittenTable,
    write_about,
    write_csv,
    write_jsonl,
)
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.sources import Source
from irnet_hpc.errors import UserError
from irnet_hpc.files import lock, read_json, replacing, write_json


def tidy(folder: Path, name: str) -> None:
    """Remove what is left of a download that was killed when all was done but this: pages without a plan."""
    work = folder / f".{name}.download"
    if kept(work) and not (work / "plan.json").exists():
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[Path]:
    """The folder of a download, once no other process is at it."""
    work = folder / f".{name}.download"
    with _locked(work, name):
        try:
            yield work
        finally:
            with contextlib.suppress(FileNotFoundError):
                if [path.name for path in work.iterdir()] == ["lock"]:  # nothing to go on from
                    shutil.rmtree(work)


def _locked(work: Path, name: str) -> IO[str]:
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            file = (work / "lock").open("a")
        except FileNotFoundError:  # whoever had the folder removes it at this moment
            continue
        if not lock(file):
            fetching.say(f"another process downloads {name}; waiting for it")
            lock(file, wait=True)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), (work / "lock").stat()):
                return file
        file.close()  # whoever had it finished and removed the folder: what is locked here is a file that is gone


def kept(work: Path) -> dict[int, Path]:
    """Page -> its file, in order."""
    return {int(path.name[:6]): path for path in sorted(work.glob("[0-9]*-*.json.gz"))}


def is_sound(path: Path) -> bool:
    """Whether a page is as it was written."""
    return hashlib.sha256(path.read_bytes()).hexdigest() == path.name[7:71]


def write_page(work: Path, page: int, rows: list[dict]) -> None:
    packed = gzip.compress(
        json.dumps(rows, separators=(",", ":")).encode(), compresslevel=4, mtime=0
    )
    with replacing(work / f"{page:06d}-{hashlib.sha256(packed).hexdigest()}.json.gz") as temporary:
        temporary.write_bytes(packed)


def read_page(path: Path) -> list[dict]:
    return json.loads(gzip.decompress(path.read_bytes()))


MOST_STARTS = 3  # of one download, where the service's total changes while its pages are fetched


class Page(NamedTuple):
    rows: list[dict]
    total: int | None  # rows of all pages, where the service says it


class Service(NamedTuple):
    """What is asked of a paged service, and what its answers mean."""

    query: Callable[
        [str, int, int], str
    ]  # base address, page (from 0), rows a page -> address of a page
    read: Callable[[bytes], Page]  # ValueError where it is no page
    record: Callable[[dict], Record]  # Unusable where a row is no material
    properties: tuple[str, ...]
    structures: bool
    n_rows: int  # asked for in a page
    fields: tuple[str, ...]  # that every row has
    numeric: tuple[
        str, ...
    ]  # of them and of others, those that hold numbers, which may be written as text
    others: tuple[str, ...] = ()  # that a row may have besides
    notes: tuple[str, ...] = ()
    lowest: str = (
        ""  # property: of rows with one id, the one lowest in it is kept; without it the first
    )


class Plan(NamedTuple):
    """What the pages of a folder are pages of."""

    query: str  # the first page's address
    n_rows: int  # a page
    total: int | None  # rows of all pages, where the service says it


class TotalChanged(Exception):
    pass


def collect(service: Service, name: str, url: str, folder: Path, source: Source) -> Path:
    """Download a paged service's rows into the raw table `name` of a data folder. Returns its path; raises UserError."""
    table = folder / f"{name}{'.jsonl.gz' if service.structures else '.csv.xz'}"
    with alone(folder, name) as work:
        if table.is_file():  # made by the process we waited for
            return table
        plan = _all_pages(service, url, work)
        write = write_jsonl if service.structures else write_csv
        written = write(
            work / table.name, service.properties, _records(service, work), _lowest(service, work)
        )
        if not any(written.n_reported.values()):
            shutil.rmtree(work)  # another attempt should not begin with these pages
            raise UserError(
                f"not one of the rows of {url} reports any of {', '.join(service.properties)} "
                f"({'; '.join(written.remarks())}); pack --probe {name} says what differs from what was expected"
            )
        notes = [*service.notes, *unexpected(written.n_rows, source)]
        finish(
            work / table.name,
            table,
            written,
            plan.query,
            name,
            source,
            notes=notes,
            n_fetched=plan.total,
        )
    return table


def unexpected(n_rows: int, source: Source) -> list[str]:
    """What is worth saying of a number of rows."""
    low, high = source.rows
    if low <= n_rows <= high:
        return []
    return [f"{n_rows:,} rows, where {low:,} to {high:,} were expected ({source.rows_as_of})"]


def finish(
    made: Path,
    table: Path,
    written: WrittenTable,
    url: str,
    name: str,
    source: Source,
    **what: object,
) -> None:
    """Give a table that was made in the download's folder its place, with what it is beside it, and remove the folder."""
    units = {
        column: PROPERTIES[column].unit for column in written.n_reported if column in PROPERTIES
    }
    units |= what.pop("units", {})
    about = {
        "source": name,
        "title": source.title,
        "licence": source.licence,
        "citation": source.citation,
        **what,
    }
    write_about(table, written, url, units, **about)
    made.replace(table)
    (made.parent / "plan.json").unlink(
        missing_ok=True
    )  # from now on the pages are nothing to go on from
    shutil.rmtree(made.parent, ignore_errors=True)  # whoever comes now may be removing it as well
    fetching.say(f"wrote {table}: {written.n_rows:,} rows, {table.stat().st_size / 2**20:,.1f} MiB")
    for note in [*about.get("notes", ()), *written.remarks()]:
        fetching.say(f"note: {note}")


def _all_pages(service: Service, url: str, work: Path) -> Plan:
    """Fetch what is not there of the pages. Raises UserError where the service's total does not keep still.

    Pages of two states of a service are not mixed: rows that move between pages as others come or go would be missing
    without any count to show it. So a new total discards the pages, and the download starts again.
    """
    with fetching.connect() as connection:
        for start in range(1, MOST_STARTS + 1):
            try:
                return _pages(service, url, work, connection)
            except TotalChanged as change:
                for path in kept(work).values():
                    path.unlink()
                (work / "plan.json").unlink(missing_ok=True)
                if start < MOST_STARTS:
                    fetching.say(
                        f"{url} had {change} rows: its content changed, so the pages so far are discarded"
                    )
                else:
                    raise UserError(
                        f"{url} changed {MOST_STARTS} times while it was downloaded, the last time it had {change} rows; "
                        "try again when it keeps still"
                    ) from None
    raise AssertionError("unreachable")


def _pages(service: Service, url: str, work: Path, connection: Connection) -> Plan:
    plan, there = _resumed(service, url, work)
    page = n_rows = 0
    last: list[dict] = []  # rows of the page before
    with tqdm(total=plan.total, unit=" rows", disable=None) as bar:  # None: only on a terminal
        while plan.total is None or n_rows < plan.total:
            if page in there:
                found = Page(read_page(there[page]), None)
            else:
                found, plan = _fetch_page(service, url, page, plan, connection, last)
                if page == 0:
                    write_json(work / "plan.json", plan._asdict())
                if found.rows:
                    write_page(work, page, found.rows)
                time.sleep(connection.manners.pause_s)
            bar.total = plan.total
            bar.update(len(found.rows))
            n_rows += len(found.rows)
            page += 1
            last = found.rows
            if (
                plan.total is None and len(found.rows) < plan.n_rows
            ):  # the end, where a service does not say its total
                plan = plan._replace(total=n_rows)
                write_json(work / "plan.json", plan._asdict())
    return plan


def _resumed(service: Service, url: str, work: Path) -> tuple[Plan, dict[int, Path]]:
    """What is there of an earlier download: its plan, and its pages by number. Those that went bad are removed."""
    plan = new = Plan(service.query(url, 0, service.n_rows), service.n_rows, None)
    there, sound = kept(work), {}
    with contextlib.suppress(UserError, TypeError, FileNotFoundError):
        plan = Plan(**read_json(work / "plan.json"))
        sound = {page: path for page, path in there.items() if is_sound(path)}
    if plan.query != new.query or 0 not in sound:
        plan, sound = new, {}
    for path in set(there.values()) - set(sound.values()):
        path.unlink()
    if there:
        fetching.say(
            f"{len(sound):,} of {len(there):,} pages of an earlier download are sound and kept"
        )
    return plan, sound


def _fetch_page(
    service: Service, url: str, page: int, plan: Plan, connection: Connection, last: list[dict]
) -> tuple[Page, Plan]:
    """A page of as many rows as there should be, and the plan, which the first page completes. Raises TotalChanged.

    `last` are the rows of the page before: a service that gives them again does not look at what page it is asked for.
    """

    def accept(body: bytes) -> Page:
        found = service.read(body)
        check_fields(service, found.rows, url)
        if page == 0 and not found.rows:
            raise ValueError("a first page without rows")
        if found.total is not None and plan.total not in (None, found.total):
            raise TotalChanged(f"{plan.total:,}, then {found.total:,}")
        if plan.total is not None:
            expected = min(plan.n_rows, plan.total - page * plan.n_rows)
            if len(found.rows) != expected:
                raise ValueError(f"page {page + 1} has {len(found.rows):,} of {expected:,} rows")
        if len(found.rows) > (
            most := plan.n_rows if found.total is None else min(plan.n_rows, found.total)
        ):
            raise ValueError(
                f"page {page + 1} has {len(found.rows):,} rows, though there should be at most {most:,}"
            )
        if found.rows and found.rows == last:
            raise ValueError(f"page {page + 1} is page {page} again")
        return found

    found = fetching.get(connection, service.query(url, page, plan.n_rows), accept)
    if page == 0:
        # A service may give fewer rows a page than it is asked for; then that is how many are asked for from here on.
        fewer = len(found.rows) < (
            plan.n_rows if found.total is None else min(plan.n_rows, found.total)
        )
        plan = Plan(plan.query, len(found.rows) if fewer else plan.n_rows, found.total)
    elif plan.total is None and len(found.rows) < plan.n_rows:
        _check_end(service, url, page + 1, plan, connection)
    return found, plan


def _check_end(service: Service, url: str, page: int, plan: Plan, connection: Connection) -> None:
    """Raises UserError where a service that does not say its total has rows behind a page that is not full."""
    time.sleep(connection.manners.pause_s)
    behind = fetching.get(connection, service.query(url, page, plan.n_rows), service.read)
    if behind.rows:
        raise UserError(
            f"page {page} of {url} is not full, though page {page + 1} has rows; the same command asks for it again"
        )


def check_fields(service: Service, rows: list[dict], url: str) -> None:
    """Raises UserError where rows lack a field that all of them should have: another attempt would not help."""
    lacking = [field for field in service.fields if any(field not in row for row in rows)]
    if lacking:
        raise UserError(
            f"rows of {url} have no {', '.join(lacking)}: the service is not as it was; pack --probe says what else differs"
        )


def _records(service: Service, work: Path) -> Iterator[Record | Unusable]:
    for path in kept(work).values():
        for row in read_page(path):
            try:
                yield service.record(row)
            except Unusable as reason:
                yield reason


def _lowest(service: Service, work: Path) -> Lowest | None:
    """Which of the rows of one id is kept, where a property decides it."""
    if not service.lowest:
        return None
    found: dict[str, float] = {}
    for record in _records(service, work):
        if isinstance(record, Record):
            value = record.targets.get(service.lowest, math.inf)
            found[record.material_id] = min(value, found.get(record.material_id, math.inf))
    return Lowest(service.lowest, found)
