"""Pack a table from Python."""

import dataclasses
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irnet_hpc.data.reading import Reading
from irnet_hpc.data.splits import RANDOM
from irnet_hpc.errors import UserError, check_whole, python_names
from irnet_hpc.pack.pipeline import PackOptions, pack_source
from irnet_hpc.pack.store import Pack, open_pack

if TYPE_CHECKING:
    import pandas as pd


@python_names(unit="units", limit="limits")
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
    fold: int | None = None,
    filters: bool = True,
    limits: Mapping[str, tuple[float, float]] | None = None,
    data_dir: str | Path | None = None,
    pack_dir: str | Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    formula_column: str | None = None,
    rename: Mapping[str, str] | None = None,
    drop: str | Sequence[str] = (),
    missing: str | Sequence[str] = (),
    sheet: str | None = None,
    strict: bool = False,
    duplicates: str | None = None,
    properties_table: str | Path | None = None,
) -> Pack:
    """Make a pack from a table, or open it if it has been made before.

    The pack is the same, bit for bit, as that of `python -m irnet_hpc.pack` with the same options.
    A DataFrame gives the same pack as the file that `frame.to_csv(index=False)` writes. Levels of
    its index that have names, as after `set_index("material_id")`, are columns like any other.

    Args:
        table: A path to a table (.csv, .tsv or .jsonl, also .gz or .xz; .xlsx, .parquet, .feather
            or .json), or to a folder or archive of structures; the name of a source such as
            `alloys` or `oqmd`, which is downloaded if it is missing; or a DataFrame with a column
            `formula`, or with a column `structure` of structures of pymatgen, ASE or JARVIS.
        name: The name of the pack; by default it is made from the names of the table and the
            features. For a DataFrame the name is also recorded as the source; without a name, the
            recorded source is `table`.
        features: Feature sets joined by +, such as `magpie+elements`. The set `columns` is the
            table's own numeric columns.
        properties: The property or properties to pack; by default all that have a known unit.
        units: Property -> unit, for properties that the package does not know.
        rows: The size of a fixed random sample to pack; for `alloys`, the number of rows to make.
        split: The rule that decides which rows are test, e.g. `random`, `element:O` or
            `family:halogens`.
        split_seed: The seed of the split.
        fold: The official fold that is test, 0 to 4; needed by sources `matbench:TASK`.
        filters: True to let hard limits and the source's filters remove values.
        limits: Property -> lowest and highest value to keep, in its unit, such as
            `{"bulk_modulus": (0, math.inf)}`. Values outside count as not reported.
        data_dir: The folder of raw tables; by default $IRNET_DATA, else data/.
        pack_dir: The folder of packs; by default $IRNET_PACKS, else packs/.
        workers: The number of processes that compute features; by default the fastest number.
        overwrite: True to replace an existing pack of the same name.
        formula_column: The header of the column of formulas; by default it is recognised.
        rename: Header -> the name by which the column is read, such as
            `{"Eg (PBE)": "band_gap"}`.
        drop: The headers of columns that are not read.
        missing: Texts of cells that mean "not reported", such as `["na", "-9999"]`.
        sheet: The sheet of an Excel workbook; by default its only one.
        strict: True to stop at a cell that cannot be read. Otherwise its row is left out and
            listed in `<pack>.rejected.csv`.
        duplicates: The value that stands for several rows of one formula: `lowest-energy`,
            `median`, `mean`, `first`, or `error` to refuse values that differ. By default
            `lowest-energy` for named sources and tables with `material_id` or energies, else
            `median`.
        properties_table: The properties of a folder or archive of structures: a table whose rows
            name their files or ids. By default the only table in the folder.

    Returns:
        The open pack; close it, or use it in a `with` statement.

    Raises:
        UserError: If an argument or the table is wrong, or another pack has this name.
    """
    properties = [properties] if isinstance(properties, str) else properties
    properties = () if properties is None else properties
    units = {} if units is None else units
    limits = {} if limits is None else limits
    if not _are_strings(properties):
        raise UserError(f"properties must be a name or a list of names, got {properties!r}")
    if not isinstance(units, Mapping) or not _are_strings(units.values()):
        raise UserError(f"units must be a mapping such as {{'hardness': 'GPa'}}, got {units!r}")
    if not isinstance(split, str):
        raise UserError(f"split must be a string such as 'element:O', got {split!r}")
    if not isinstance(name, str | None):
        raise UserError(f"name must be a string, got {name!r}")
    if not isinstance(limits, Mapping) or not all(map(_is_limit, limits.values())):
        raise UserError(
            "limits must be a mapping to a lower and a higher number, such as "
            f"{{'band_gap': (0, math.inf)}}, got {limits!r}"
        )
    if sheet is not None and not isinstance(table, str | os.PathLike):
        raise UserError(f"sheet names a sheet of an Excel workbook, got {sheet!r} with a DataFrame")
    reading = _reading(formula_column, rename, drop, missing, sheet, strict)
    if not isinstance(properties_table, str | Path | None):
        raise UserError(f"properties_table must be a path, got {properties_table!r:.100}")
    reading = dataclasses.replace(reading, properties_table=str(properties_table or ""))
    if not isinstance(duplicates, str | None):
        raise UserError(f"duplicates must be a string, got {duplicates!r}")
    options = PackOptions(
        source=table,
        features=features,
        name=name,
        properties=tuple(properties),
        units=dict(units),
        rows=None if rows is None else check_whole("rows", rows),
        split=split,
        split_seed=check_whole("split_seed", split_seed),
        fold=None if fold is None else check_whole("fold", fold),
        filters=filters,
        limits=dict(limits),
        data_dir=data_dir,
        pack_dir=pack_dir,
        workers=None if workers is None else check_whole("workers", workers),
        overwrite=overwrite,
        reading=reading,
        duplicates=duplicates,
    )
    path = pack_source(options)
    # pack_source returns None only on ranks other than 0, and this process is rank 0.
    assert path is not None
    return open_pack(path)


def _reading(
    formula_column: str | None,
    rename: Mapping[str, str] | None,
    drop: str | Sequence[str],
    missing: str | Sequence[str],
    sheet: str | None,
    strict: bool,
) -> Reading:
    """Check the arguments that say how a table is read."""
    for name, text in (("formula_column", formula_column), ("sheet", sheet)):
        if not isinstance(text, str | None):
            raise UserError(f"{name} must be a string, got {text!r}")
    lists = {"drop": drop, "missing": missing}
    for name, texts in lists.items():
        lists[name] = [texts] if isinstance(texts, str) else texts
        if not _are_strings(lists[name]):
            raise UserError(f"{name} must be a string or a list of strings, got {texts!r}")
    rename = {} if rename is None else rename
    if not isinstance(rename, Mapping) or not _are_strings((*rename, *rename.values())):
        raise UserError(f"rename must be a mapping such as {{'Eg': 'band_gap'}}, got {rename!r}")
    return Reading(
        formula_column=(formula_column or "").strip(),
        rename={column.strip(): name for column, name in rename.items()},
        drop=tuple(lists["drop"]),
        missing=tuple(lists["missing"]),
        sheet=sheet or "",
        strict=bool(strict),
    )


def _are_strings(values: object) -> bool:
    return isinstance(values, Iterable) and all(isinstance(value, str) for value in values)


def _is_limit(limit: object) -> bool:
    """Return True for two numbers; which of them is higher is checked when packing."""
    return (
        isinstance(limit, Sequence | np.ndarray)
        and len(limit) == 2
        and all(isinstance(number, numbers.Real) for number in limit)
    )
