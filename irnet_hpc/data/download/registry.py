"""DOWNLOADS: the service, dataset or wheel from which each source is downloaded."""

from typing import NamedTuple

from irnet_hpc.data.download import aflow, oqmd
from irnet_hpc.data.download.optimade.query import Query
from irnet_hpc.data.download.paged import Service


class Download(NamedTuple):
    """The origin of a source's table: a wheel, the pages of a service, or a dataset of matminer.

    A service that speaks OPTIMADE is named by its query.

    A source that has a wheel and a service comes from the wheel, unless the user asks for `--live`.
    """

    url: str  # base address of the service; unused for a dataset
    service: Service | None = None
    dataset: str = ""  # name in matminer's metadata, which state the address
    has_wheel: bool = False  # whether wheel_tables.py makes the table
    query: Query | None = None  # what is asked of a service that speaks OPTIMADE


DOWNLOADS = {
    "oqmd": Download(oqmd.URL, service=oqmd.COMPOSITIONS, has_wheel=True),
    "oqmd-sc": Download(oqmd.URL, service=oqmd.STRUCTURES),
    "aflow": Download(aflow.URL, service=aflow.ENTRIES),
    "mp": Download("", dataset="mp_all_20181018"),
    "jarvis": Download("", dataset="jarvis_dft_3d"),
}
