"""DOWNLOADS: the service or dataset from which each source is downloaded."""

from typing import NamedTuple

from irnet_hpc.data.download import aflow, oqmd
from irnet_hpc.data.download.paged import Service


class Download(NamedTuple):
    """The origin of a source's table: the pages of a service, or a dataset of matminer."""

    url: str  # base address of the service; unused for a dataset
    service: Service | None = None
    dataset: str = ""  # name in matminer's metadata, which state the address


DOWNLOADS = {
    "oqmd": Download(oqmd.URL, service=oqmd.COMPOSITIONS),
    "oqmd-sc": Download(oqmd.URL, service=oqmd.STRUCTURES),
    "aflow": Download(aflow.URL, service=aflow.ENTRIES),
    "mp": Download("", dataset="mp_all_20181018"),
    "jarvis": Download("", dataset="jarvis_dft_3d"),
}
