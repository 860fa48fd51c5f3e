"""The catalogue: which sources there are, and whether a service is still as its reader expects it.

pack --list                what can be packed, how many rows, which properties, under which licence, and what is here
pack --list matminer       the same of matminer's datasets
pack --probe oqmd          one page of the service, and what differs; status 1 where something does
"""

import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from irnet_hpc.download import (
    DOWNLOADS,
    address,
    described,
    download_of,
    fetching,
    matminer_data,
    matminer_names,
    transfer,
)
from irnet_hpc.download.paging import Service
from irnet_hpc.download.records import Record, Unusable, number
from irnet_hpc.errors import UserError, choose
from irnet_hpc.loading import MATMINER, candidates
from irnet_hpc.properties import PROPERTIES
from irnet_hpc.sources import SOURCES, Source

WIDTH = 100  # characters of a line
N_ROWS = 20  # of the page that is looked at
MOST_UNLIKELY = 0.1  # of a property's values; more outside its plausible range look like another unit


def listing(what: str, data_dir: Path | str | None = None) -> str:
    """Every source in SOURCES, or every dataset of matminer's."""
    if what not in ("", "matminer"):
        choose("catalogue (of --list)", what, ["matminer"])
    if what == "matminer":
        return "\n\n".join(_dataset(name, data_dir) for name in sorted(matminer_names.metadata()) if _usable(name))
    entries = [_entry(name, source, data_dir) for name, source in SOURCES.items()]
    last = f"{MATMINER}NAME\n  any of {sum(map(_usable, matminer_names.metadata()))} datasets: pack --list matminer"
    return "\n\n".join([*entries, last, "PATH\n  a .csv or .jsonl of your own, also .gz or .xz"])


def _entry(name: str, source: Source, data_dir: Path | str | None) -> str:
    is_made = name == "alloys"
    rows = "as many as --rows says (20,000)" if is_made else "as many as its table has"
    if source.rows:
        low, high = source.rows
        rows = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        rows += f" ({source.rows_as_of})"
    lines = {
        "what": source.title,
        "form": "formulas and structures" if source.structures else "formulas",
        "rows": rows,
        "properties": ", ".join(f"{column} ({PROPERTIES[column].unit})" for column in source.properties),
        "licence": source.licence,
        "from": address(name) if name in DOWNLOADS else "computed" if is_made else "a table that is put here by hand",
        "here": "always" if is_made else _here(name, data_dir),
    }
    return "\n".join([name, *(_wrapped(f"  {key:<12}{value}", 14) for key, value in lines.items())])


def _wrapped(line: str, indent: int) -> str:
    """A line as several, none of them wide; a name stays with its unit."""
    lines = textwrap.wrap(
        line.replace(" (", "\0("), WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace("\0(", " (")


def _usable(name: str) -> bool:
    try:
        return bool(matminer_names.dataset(name))
    except UserError:
        return False


def _dataset(name: str, data_dir: Path | str | None) -> str:
    known = matminer_names.dataset(name)
    others = (*matminer_names.STRUCTURES, *matminer_names.FORMULAS, *matminer_names.IDS)
    names = matminer_names.named(name, [column for column in known["columns"] if column not in others])
    columns = []
    for column, given in names.items():
        unit = PROPERTIES[given].unit if given in PROPERTIES else None
        unit = unit or matminer_names.unit_in(column, known["columns"][column])
        columns.append(f"{given} ({unit})" if unit else given)
    form = "formulas and structures" if matminer_names.has_structures(name) else "formulas"
    source = f"{MATMINER}{name}"
    rows = f"  {known['num_entries']:,} rows, {form}; here: {_here(source, data_dir)}"
    return "\n".join([source, rows, _wrapped(f"  columns: {', '.join(columns)}", 4)])


def _here(source: str, data_dir: Path | str | None) -> str:
    return ", ".join(str(path) for path in candidates(source, data_dir) if path.is_file()) or "no"


def probe(source: str, url: str | None = None) -> list[str]:
    """What differs between a service, of which one page is fetched, and what its reader expects."""
    found = download_of(choose("source", source, DOWNLOADS) if not source.startswith(MATMINER) else source)
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
    yield from (f"{field} is missing in {count} of {len(page.rows)} rows" for field, count in missing.items())
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
    yield from (f"{count} of {len(rows)} rows cannot be used: {reason}" for reason, count in unusable.items())
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
