"""Fetch the raw tables that packs of a matrix need, before jobs that may have no network need them.

Only tables that wheels contain are fetched, which takes seconds. A table of a service or of
matminer may take hours, so it is left to the job that makes the pack, or to the user.
"""

import logging
from collections.abc import Iterable

from irnet_hpc.data.download.obtain import by_wheel, ensure
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.sweep.matrix.packs import MatrixPack

log = logging.getLogger(__name__)


def fetch_tables(packs: Iterable[MatrixPack]) -> list[str]:
    """Fetch the missing tables of packs that are still to be built.

    Args:
        packs: The packs of a matrix.

    Returns:
        The sources that were fetched.

    Raises:
        UserError: A wheel cannot be fetched, as on a machine without a network.
    """
    sources = {
        pack.options[pack.options.index("--source") + 1]
        for pack in packs
        if not pack.exists and not pack.impossible and pack.options and "--source" in pack.options
    }
    fetched = []
    for source in sorted(sources):
        resolved = resolve_source(source)
        if resolved.download and by_wheel(resolved.download) and not resolved.table_path():
            log.info("fetching the table of %s now, since jobs may have no network", source)
            ensure(resolved)
            fetched.append(source)
    return fetched
