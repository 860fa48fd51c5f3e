"""irnet_hpc/data/download/probe.py"""

from collections import Counter
from collections.abc import Iterator

from irnet_hpc.data.catalogue import MOST_UNLIKELY, N_ROWS
from irnet_hpc.data.download import DOWNLOADS, address, described, download_of
from irnet_hpc.data.download import http as fetching
from irnet_hpc.data.download import http as transfer
from irnet_hpc.data.download import matminer as matminer_data
from irnet_hpc.data.download import matminer as matminer_names
from irnet_hpc.data.download.paged import Service
from irnet_hpc.data.download.records import Record, Unusable, number
from irnet_hpc.data.loading import MATMINER
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.sources import Source
from irnet_hpc.errors import check_choice


def probe(source: str, url: str | None = None) -> list[str]:
    """What differs between a service, of which one page is fetched, and what its reader expects."""
    found = download_of(
        check_choice("source", source, DOWNLOADS) if not source.startswith(MATMINER) else source
    )
    if found.service:
        return list(_service_differences(found.service, described(source), address(source, url)))
    return list(_dataset_differences(found.dataset, described(source), address(source, url)))


def _service_differences(service: Service, source: Source, url: str) -> Iterator[str]:
    with fetching.connect() as connection:
        body = fetching.get(connection, service.query(url, 0, N_ROWS), bytes)
    try:
        page = service.read(body)
    except (ValueError, RecursionError) as error:
        yield f"not an answer as documented: {error}; it begins {body[:80]!r}"
        return
    if len(page.rows) != N_ROWS:
        yield f"{len(page.rows)} rows in a page, though {N_ROWS} were asked for"
    low, high = source.rows
    if page.total is not None and not low <= page.total <= high:
        yield f"{page.total:,} rows in all, though {low:,} to {high:,} were expected ({source.rows_as_of})"
    missing = Counter(field for row in page.rows for field in service.fields if field not in row)
    yield from (
        f"{field} is missing in {count} of {len(page.rows)} rows"
        for field, count in missing.items()
    )
    known = {*service.fields, *service.others}
    extra = sorted({field for row in page.rows for field in row} - known)
    if extra:
        yield f"fields that were not expected: {fetching.plain(', '.join(extra))}"
    for field in service.numeric:
        values = [row[field] for row in page.rows if row.get(field) not in (None, "")]
        if other := [value for value in values if number(value) is None]:
            yield f"{field} is no number in {len(other)} rows, but {other[0]!r}"
    if not missing:
        yield from _record_differences(service, page.rows)


def _record_differences(service: Service, rows: list[dict]) -> Iterator[str]:
    records: list[Record] = []
    unusable: Counter[str] = Counter()
    for row in rows:
        try:
            records.append(service.record(row))
        except Unusable as reason:
            unusable[str(reason)] += 1
    yield from (
        f"{count} of {len(rows)} rows cannot be used: {reason}"
        for reason, count in unusable.items()
    )
    for name in service.properties:
        values = [record.targets[name] for record in records if name in record.targets]
        low, high, unit = PROPERTIES[name].low, PROPERTIES[name].high, PROPERTIES[name].unit
        n_unlikely = sum(not low <= value <= high for value in values)
        if n_unlikely > MOST_UNLIKELY * len(values):
            yield f"{n_unlikely} of {len(values)} values of {name} are not between {low:g} and {high:g} {unit}: another unit?"


def _dataset_differences(name: str, source: Source, url: str) -> Iterator[str]:
    known = matminer_names.dataset(name)
    if missing := sorted(set(matminer_names.CANONICAL.get(name, {})) - set(known["columns"])):
        yield f"matminer's metadata have no columns {', '.join(missing)}"
    low, high = source.rows
    if not low <= known["num_entries"] <= high:
        yield f"matminer's metadata say {known['num_entries']:,} rows, though {low:,} to {high:,} were expected"
    with fetching.connect() as connection:
        body, size = transfer.beginning(connection, url, 1024)
    if not body.startswith(b"\x1f\x8b"):
        yield f"the file at {url} is not packed by gzip: it begins {body[:40]!r}"
    if size is not None and size > matminer_data.LARGEST_FILE:
        yield f"the file at {url} has {size:,} bytes, more than {matminer_data.LARGEST_FILE:,}"
