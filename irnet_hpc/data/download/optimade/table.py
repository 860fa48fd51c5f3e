"""Download what a query of OPTIMADE names as a raw table."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from irnet_hpc.data.download import http
from irnet_hpc.data.download.optimade.entries import record_of
from irnet_hpc.data.download.optimade.pages import Pages, fetch_pages
from irnet_hpc.data.download.optimade.query import OPTIMADE, Query
from irnet_hpc.data.download.optimade.service import Service, open_service
from irnet_hpc.data.download.paged import restart_on_change
from irnet_hpc.data.download.records import Record, Unusable, write_table
from irnet_hpc.data.download.work_folder import kept_pages, locked, place_table, read_page
from irnet_hpc.data.sources import Source
from irnet_hpc.errors import UserError

logger = logging.getLogger(__name__)


def download_optimade(query: Query, folder: Path, source: Source, url: str | None = None) -> Path:
    """Download the structures and properties that a query names.

    Args:
        query: The service and the filter.
        folder: The folder of raw tables.
        source: The description of the source.
        url: Another base address of the service, such as a mirror's.

    Returns:
        The path of the table.

    Raises:
        UserError: If the download fails; another call resumes it.
    """
    table = folder / f"{query.name}.jsonl.gz"
    with locked(folder, query.name) as work:
        # The process that we waited for may have made the table.
        if table.is_file():
            return table
        with http.connect() as connection:
            service = open_service(connection, query, url)
            logger.info(_announcement(query, service))
            pages = Pages(query, service, work, {})
            plan = restart_on_change(service.base, work, lambda: fetch_pages(pages, connection))
        new = work / table.name
        faults = Counter[str]()
        written = write_table(new, (), _records(pages, faults))
        if not any(written.n_reported.values()):
            # A later attempt should not start from these pages.
            shutil.rmtree(work)
            raise UserError(_nothing(pages, written.n_rows, written.remarks()))
        notes = [f"filter: {query.filter}"] if query.filter else []
        notes += [f"the service warns: {warning}" for warning in pages.warnings]
        notes += [f"{n:,} rows have no crystal: {why}" for why, n in faults.most_common()]
        reported = written.n_reported
        about = {
            "source": query.text,
            "url": plan.query,
            "title": service.title,
            "licence": service.licence or "none stated by the service",
            "citation": service.provider.get("homepage") or service.base,
            "provider": dict(service.provider),
            "database": dict(service.database),
            "units": {name: unit for name, unit in service.units.items() if name in reported},
            "notes": notes,
            "n_fetched": plan.total,
        }
        place_table(new, table, source, written, about)
    return table


def _records(pages: Pages, faults: Counter[str]) -> Iterator[Record | Unusable]:
    """Yield the rows of all pages; count in `faults` why structures cannot be used."""
    names = [one.name for one in pages.service.properties]
    for path in kept_pages(pages.work).values():
        for entry in read_page(path)["entries"]:
            try:
                record = record_of(entry, names)
            except Unusable as reason:
                yield reason
                continue
            if record.fault:
                faults[record.fault[0]] += 1
            yield record


def _announcement(query: Query, service: Service) -> str:
    names = ", ".join(
        f"{one.name} ({one.unit})" if one.unit else one.name for one in service.properties
    )
    return (
        f"downloading {service.title}, from {service.base}"
        + (f", filter {query.filter}" if query.filter else "")
        + f"\nlicence: {service.licence or 'none stated by the service'}"
        + f"\nits own properties that may hold numbers: {names}"
    )


def _nothing(pages: Pages, n_rows: int, remarks: list[str]) -> str:
    base, query = pages.service.base, pages.query
    if not n_rows and not remarks:
        asked = f"matches the filter {query.filter!r}" if query.filter else "is there"
        warned = "; ".join(pages.warnings)
        return f"not one entry of {base} {asked}" + (warned and f" ({warned})")
    names = ", ".join(one.name for one in pages.service.properties)
    return (
        f"not one entry of {base} reports a number in {names}"
        + (f" ({'; '.join(remarks)})" if remarks else "")
        + f"; pack --list {OPTIMADE}... describes them"
    )
