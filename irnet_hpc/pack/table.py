"""Pack a table from Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.data.splits import RANDOM
from irnet_hpc.errors import UserError
from irnet_hpc.pack.pipeline import PackOptions, pack_source
from irnet_hpc.pack.store import Pack, open_pack

if TYPE_CHECKING:
    import pandas as pd


def pack_table(
    table: "str | Path | pd.DataFrame",
    *,
    name: str | None = None,
    features: str = "magpie",
    properties: str | Sequence[str] | None = None,
    units: Mapping[str, str] | None = None,
    rows: int | None = None,
    split: str = str(RANDOM),
    split_seed: int = 0,
    filters: bool = True,
    data_dir: str | Path | None = None,
    pack_dir: str | Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Pack:
    """Make a pack from a table, or open it if it has been made before.

    It is the pack that `python -m irnet_hpc.pack` makes with the same options, bit for bit. A
    DataFrame gives the pack of the file that `frame.to_csv(index=False)` writes.

    Args:
        table: A path to a table (.csv or .jsonl, also .gz or .xz), the name of a source such as
            `alloys` or `oqmd`, which is downloaded if it is missing, or a DataFrame with a column
            `formula`.
        name: Name of the pack; by default that of the table and the features. It is also the
            recorded source of a DataFrame, which is `table` without it.
        features: Feature sets joined by +, such as `magpie+elements`; `columns` are the table's own
            numeric columns.
        properties: The property or properties to pack; by default all that have a known unit.
        units: Property -> unit, for properties that the package does not know.
        rows: Pack a fixed random sample of this many rows; for `alloys`, make this many.
        split: Which rows are test: `random`, `element:O` or `family:halogens`.
        split_seed: Seed of the split.
        filters: Whether the source's filters drop values.
        data_dir: Folder of raw tables; by default $IRNET_DATA, else data/.
        pack_dir: Folder of packs; by default $IRNET_PACKS, else packs/.
        workers: Processes that compute features; by default the number that is fastest.
        overwrite: Replace another pack of that name.

    Returns:
        The open pack; close it, or use it in a `with` statement.

    Raises:
        UserError: If an argument or the table is wrong, or another pack has the name.
    """
    if isinstance(properties, str):
        properties = [properties]
    if units is not None and not isinstance(units, Mapping):
        raise UserError(f"units must be a mapping such as {{'hardness': 'GPa'}}, got {units!r}")
    if not isinstance(features, str):
        raise UserError(f"features must be a text such as 'magpie+elements', got {features!r}")
    options = PackOptions(
        source=table,
        features=features,
        name=name,
        properties=tuple(properties or ()),
        units=dict(units or {}),
        rows=rows,
        split=split,
        split_seed=split_seed,
        filters=filters,
        data_dir=data_dir,
        pack_dir=pack_dir,
        workers=workers,
        overwrite=overwrite,
    )
    path = pack_source(options)
    # Only other ranks than 0 get none, and this process is the only one.
    assert path is not None
    return open_pack(path)
