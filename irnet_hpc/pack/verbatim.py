"""List what our rules would have left out of a table that is packed as it was published."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from irnet_hpc.data.benchmarks import CRABNET
from irnet_hpc.data.loading import Loaded
from irnet_hpc.data.materials import LostValue
from irnet_hpc.data.sources import ENERGY, FORMATION, MODULI, hard_limits
from irnet_hpc.pack.blocks import kept_path
from irnet_hpc.pack.build import write_records
from irnet_hpc.pack.select import select

logger = logging.getLogger(__name__)


def list_kept(path: Path, loaded: Loaded, feature_sets: Sequence[str]) -> list[LostValue]:
    """List the rows and values of a published table that our rules would have left out.

    The rules are those of our own sources: hard limits, filters of energies and moduli, one row of
    each composition, and no pure elements of OQMD.

    Args:
        path: The pack; the list is written beside it, if anything is in it.
        loaded: The table as it was read.
        feature_sets: The feature sets of the pack.

    Returns:
        A record for each row, without a property, and for each value.
    """
    rules = [*hard_limits(loaded.units), *FORMATION, *ENERGY, *MODULI]
    rules = [rule for rule in rules if rule.property in loaded.units]
    usual = loaded.source._replace(
        polymorphs=False, pure_elements=not loaded.identity.startswith(f"{CRABNET}OQMD")
    )
    table = dataclasses.replace(loaded.table, role=None, fold=None)
    would_be = select(table, feature_sets, usual, rules, tuple(loaded.units))
    kept = [
        LostValue(*row[:3], "", math.nan, f"{row.reason} {row.detail}".strip())
        for row in would_be.rejected
    ]
    kept += would_be.lost
    if kept:
        write_records(kept_path(path), LostValue, kept)
        logger.info(
            f"packed as published: our rules would have left out {len(would_be.rejected):,} rows "
            f"and {len(would_be.lost):,} values, which are listed in {kept_path(path)}"
        )
    else:
        kept_path(path).unlink(missing_ok=True)
    return kept
