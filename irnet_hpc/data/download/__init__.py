"""DOWNLOADS: source -> where its raw table comes from and how. What is missing is downloaded; what is there is left alone."""

from pathlib import Path
from typing import NamedTuple

from irnet_hpc.data.download import aflow, oqmd
from irnet_hpc.data.download import http as fetching
from irnet_hpc.data.download import matminer as matminer_data
from irnet_hpc.data.download import matminer as matminer_names
from irnet_hpc.data.download import paged as folder
from irnet_hpc.data.download import paged as paging
from irnet_hpc.data.download.paged import Service
from irnet_hpc.data.loading import MATMINER, candidates, find_table, folder_of, name_of
from irnet_hpc.data.sources import SOURCES, Source
from irnet_hpc.errors import UserError


class Download(NamedTuple):
    """Where a source's table comes from: pages of a service, or one of matminer's datasets."""

    url: str  # base address of the service, or what says where the dataset is
    service: Service | None = None
    dataset: str = ""


DOWNLOADS = {
    "oqmd": Download(oqmd.URL, service=oqmd.COMPOSITIONS),
    "oqmd-sc": Download(oqmd.URL, service=oqmd.STRUCTURES),
    "aflow": Download(aflow.URL, service=aflow.ENTRIES),
    "mp": Download("where matminer's metadata says", dataset="mp_all_20181018"),
    "jarvis": Download("where matminer's metadata says", dataset="jarvis_dft_3d"),
}


def download_of(source: str) -> Download | None:
    """How a source is downloaded; None for what is computed, or the user's own."""
    if source.startswith(MATMINER):
        return Download("where matminer's metadata says", dataset=source.removeprefix(MATMINER))
    return DOWNLOADS.get(source)


def ensure(
    source: str,
    data_dir: Path | str | None = None,
    url: str | None = None,
    structures: bool = False,
) -> Path | None:
    """Download a source whose raw table, with structures where they are needed, is missing. Returns what was downloaded."""
    found = download_of(source)
    if found is None or any(path.is_file() for path in candidates(source, data_dir, structures)):
        if url:
            fetching.say(
                f"--url is not needed: {source} is {'here already' if found else 'no source to download'}"
            )
        if found:
            folder.tidy(folder_of(data_dir), name_of(source))
        return None
    check_structures(source, structures)
    if fetching.forbidden() and (found.service or matminer_data.own_file(found.dataset) is None):
        try:
            return find_table(source, data_dir, structures)
        except UserError as error:
            raise UserError(f"{error}; IRNET_OFFLINE forbids to download it") from None
    return fetch(source, data_dir, url, structures)


def fetch(
    source: str,
    data_dir: Path | str | None = None,
    url: str | None = None,
    structures: bool = False,
) -> Path:
    """Download a source's raw table into the data folder, having said from where, how many rows, under which licence.

    `url` is another base address, as of a mirror. Raises UserError; the same call goes on where this one stopped.
    """
    found = download_of(source)
    if found is None:
        raise UserError(
            f"{source} cannot be downloaded; those that can: {', '.join(DOWNLOADS)}, {MATMINER}NAME"
        )
    check_structures(source, structures)
    where, name = folder_of(data_dir), name_of(source)
    fetching.say(announcement(source, url, where))
    if found.service:
        return paging.collect(found.service, name, address(source, url), where, SOURCES[source])
    return matminer_data.collect(found.dataset, name, url, where, SOURCES.get(source))


def check_structures(source: str, structures: bool) -> None:
    """Raises UserError where structures are needed that a source does not have."""
    if structures and not has_structures(source):
        known = ", ".join(name for name in DOWNLOADS if has_structures(name))
        raise UserError(
            f"structures are needed, but {source} has formulas only; those that have them: {known}"
        )


def has_structures(source: str) -> bool:
    """Whether a source's table has structures once it is downloaded."""
    found = download_of(source)
    return (
        found.service.structures if found.service else matminer_names.has_structures(found.dataset)
    )


def described(source: str) -> Source:
    """A source that can be downloaded, as SOURCES has it or matminer's metadata."""
    if source in SOURCES:
        return SOURCES[source]
    dataset = source.removeprefix(MATMINER)
    known = matminer_names.dataset(dataset)
    rows = (known["num_entries"], known["num_entries"])
    return matminer_data.described(dataset, known)._replace(
        rows=rows, rows_as_of="matminer's metadata"
    )


def address(source: str, url: str | None = None) -> str:
    """Where a source is downloaded from."""
    found = download_of(source)
    if url is not None:
        fetching.check_url(url)
    if not found.dataset:
        return found.url if url is None else url
    return matminer_data.address_of(found.dataset, matminer_names.dataset(found.dataset), url)


def announcement(source: str, url: str | None, where: Path) -> str:
    what = described(source)
    low, high = what.rows
    n_rows = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return (
        f"downloading {what.title} from {address(source, url)} to {where}/: {n_rows} rows ({what.rows_as_of})\n"
        f"licence: {what.licence}\nplease cite: {what.citation}"
    )
