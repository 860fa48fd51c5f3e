"""Compare one page of a service with the answer that its reader expects."""

from collections import Counter
from collections.abc import Iterator

from irnet_hpc.data.download import http, matminer_columns
from irnet_hpc.data.download.file_transfer import read_start
from irnet_hpc.data.download.matminer import MAX_FILE_BYTES
from irnet_hpc.data.download.obtain import address, expected
from irnet_hpc.data.download.optimade.query import OPTIMADE
from irnet_hpc.data.download.paged import Service
from irnet_hpc.data.download.records import Record, Unusable, number
from irnet_hpc.data.download.registry import DOWNLOADS
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.resolve import MATMINER, resolve_source
from irnet_hpc.data.sources import Source
from irnet_hpc.errors import UserError, check_choice

N_ROWS = 20  # rows of the page that is fetched
# If more of a property's values lie outside the plausible range, the unit is probably another one.
MAX_UNLIKELY_SHARE = 0.1


def probe_source(name: str, url: str | None = None) -> list[str]:
    """Fetch one page of a source, and list its differences from the answer that is expected.

    Args:
        name: a name in DOWNLOADS, or `matminer:` and a dataset's name.
        url: another base address, such as a mirror's.
    """
    if name.startswith(OPTIMADE):
        raise UserError(
            "--probe is for services whose tables have a fixed form; what a service of OPTIMADE "
            f"has, pack --list says, got {name!r}"
        )
    if not name.startswith(MATMINER):
        check_choice("source", name, DOWNLOADS)
    resolved = resolve_source(name)
    download, source = resolved.download, expected(resolved)
    assert download
    if download.service:
        return list(_service_differences(download.service, source, address(download, url)))
    return list(_dataset_differences(download.dataset, source, address(download, url)))


def _service_differences(service: Service, source: Source, url: str) -> Iterator[str]:
    with http.connect() as connection:
        body = http.get(connection, service.query(url, 0, N_ROWS), bytes)
    try:
        page = service.read(body)
    except (ValueError, RecursionError) as error:
        yield f"not an answer as documented: {error}; it begins {body[:80]!r}"
        return
    if len(page.rows) != N_ROWS:
        yield f"{len(page.rows)} rows in a page, though {N_ROWS} were requested"
    assert source.rows
    low, high = source.rows
    if page.total is not None and not low <= page.total <= high:
        expected_rows = f"{low:,} to {high:,} were expected ({source.rows_as_of})"
        yield f"{page.total:,} rows in all, though {expected_rows}"
    missing = Counter(field for row in page.rows for field in service.fields if field not in row)
    yield from (
        f"{field} is missing in {count} of {len(page.rows)} rows"
        for field, count in missing.items()
    )
    known = {*service.fields, *service.others}
    extra = sorted({field for row in page.rows for field in row} - known)
    if extra:
        yield f"fields that were not expected: {http.printable_line(', '.join(extra))}"
    for field in service.numeric:
        values = [row[field] for row in page.rows if row.get(field) not in (None, "")]
        if other := [value for value in values if number(value) is None]:
            yield f"{field} is not a number in {len(other)} rows, e.g. {other[0]!r}"
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
        if n_unlikely > MAX_UNLIKELY_SHARE * len(values):
            yield (
                f"{n_unlikely} of {len(values)} values of {name} are not between "
                f"{low:g} and {high:g} {unit}: another unit?"
            )


def _dataset_differences(name: str, source: Source, url: str) -> Iterator[str]:
    known = matminer_columns.dataset(name)
    if missing := sorted(set(matminer_columns.CANONICAL.get(name, {})) - set(known["columns"])):
        yield f"matminer's metadata have no columns {', '.join(missing)}"
    assert source.rows
    low, high = source.rows
    if not low <= known["num_entries"] <= high:
        yield (
            f"matminer's metadata say {known['num_entries']:,} rows, "
            f"though {low:,} to {high:,} were expected"
        )
    with http.connect() as connection:
        body, size = read_start(connection, url, 1024)
    if not body.startswith(b"\x1f\x8b"):
        yield f"the file at {url} is not packed by gzip: it begins {body[:40]!r}"
    if size is not None and size > MAX_FILE_BYTES:
        yield f"the file at {url} has {size:,} bytes, more than {MAX_FILE_BYTES:,}"
