"""Download the raw table of a source if it is missing."""

import logging
from pathlib import Path

from irnet_hpc.data.download import matminer_columns
from irnet_hpc.data.download.http import check_url, is_offline
from irnet_hpc.data.download.matminer import (
    address_of,
    dataset_source,
    download_dataset,
    own_file,
)
from irnet_hpc.data.download.paged import download_pages
from irnet_hpc.data.download.registry import DOWNLOADS, Download
from irnet_hpc.data.download.work_folder import tidy
from irnet_hpc.data.resolve import MATMINER, ResolvedSource
from irnet_hpc.data.sources import SOURCES, Source
from irnet_hpc.errors import UserError

logger = logging.getLogger(__name__)


def ensure(
    resolved: ResolvedSource, url: str | None = None, structures: bool = False
) -> Path | None:
    """Download a source's raw table if it is missing.

    Args:
        resolved: the source.
        url: another base address, such as a mirror's.
        structures: True if crystal structures are required.

    Returns:
        The path of the table if it was downloaded, else None.

    Raises:
        UserError: if it cannot be downloaded; the same call resumes where this one stopped.
    """
    download = resolved.download
    if download is None or resolved.table_path(structures):
        if url:
            state = "here already" if download else "no source to download"
            logger.info("--url is not needed: %s is %s", resolved.text, state)
        if download:
            tidy(resolved.folder, resolved.name)
        return None
    check_structures(resolved, structures)
    if is_offline() and (download.service or own_file(download.dataset) is None):
        try:
            return resolved.require_table(structures)
        except UserError as error:
            raise UserError(f"{error}; IRNET_OFFLINE forbids downloading it") from None
    return fetch(resolved, url, structures)


def fetch(resolved: ResolvedSource, url: str | None = None, structures: bool = False) -> Path:
    """Download a source's raw table. Its address, number of rows and licence are logged first.

    Arguments and errors are those of `ensure`. Returns the path of the table.
    """
    download = resolved.download
    if download is None:
        raise UserError(
            f"{resolved.text} cannot be downloaded; those that can: "
            f"{', '.join(DOWNLOADS)}, {MATMINER}NAME"
        )
    check_structures(resolved, structures)
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
