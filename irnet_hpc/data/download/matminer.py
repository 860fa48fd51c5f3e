"""Download matminer's datasets (mp, jarvis and any with formulas or structures) as raw tables.

matminer's metadata state the address of a dataset's file, and matminer's loader reads the file. We
download it ourselves (file_transfer.py).
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irnet_hpc.data.download import http
from irnet_hpc.data.download.file_transfer import save, sha256_of
from irnet_hpc.data.download.matminer_columns import (
    FORMULAS,
    IDS,
    STRUCTURES,
    dataset,
    has_structures,
    table_names,
    unit_in,
)
from irnet_hpc.data.download.records import Record, UnitCell, Unusable, number, write_table
from irnet_hpc.data.download.work_folder import locked, place_table
from irnet_hpc.data.formulas import formula_text
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.sources import Source
from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)
MAX_FILE_BYTES = 4 * 2**30  # matminer's largest file has less than one GiB
# Texts that stand for a number that is not reported, in columns that hold numbers as text.
ABSENT = ("", "na", "nan", "None")
# In Å³/cell, Å³/atom and g/cm³; in the datasets WITH_DERIVED, computed from the structure.
DERIVED = ("volume", "volume_per_atom", "density")
WITH_DERIVED = ("mp_all_20181018", "jarvis_dft_3d")


def download_dataset(
    name: str, table_name: str, url: str | None, folder: Path, source: Source | None
) -> Path:
    """Download a dataset into a raw table: JSON lines if it has structures, else CSV.

    Args:
        name: the name of the dataset.
        table_name: the name of the raw table.
        url: the address of a folder that contains the dataset's file; None: the address in
            matminer's metadata is used.
        folder: the folder of raw tables.
        source: the description of the source; None: it is taken from matminer's metadata.

    Returns:
        The path of the table.

    Raises:
        UserError: if the download fails, or the file is not what the metadata describe.
    """
    known = dataset(name)
    table = folder / f"{table_name}{'.jsonl.gz' if has_structures(name) else '.csv.xz'}"
    with locked(folder, table_name) as work:
        # The process that we waited for may have made the table.
        if table.is_file():
            return table
        address = address_of(name, known, url)
        frame = _load(name, _file_folder(name, known, address, work))
        if len(frame) != known["num_entries"]:
            raise UserError(
                f"{address} must have {known['num_entries']:,} rows, as matminer's metadata say, "
                f"got {len(frame):,}"
            )
        columns = _numeric_columns(frame)
        names = table_names(name, list(columns))
        properties = list(names.values())
        if name in WITH_DERIVED:
            properties += [column for column in DERIVED if column not in properties]
        records = _records(name, frame, {names[key]: columns[key] for key in columns})
        written = write_table(work / table.name, properties, records)
        if not written.n_rows:
            raise UserError(f"not one row of matminer's {name} is a material: {written.remarks()}")
        about = {
            "source": table_name,
            "url": address,
            "units": _stated_units(known, names),
            "dataset": name,
            "file_sha256": known["hash"],
            "bibtex": known["bibtex_refs"],
            "columns": {names[column]: column for column in columns},
        }
        source = source or dataset_source(name, known)
        place_table(work / table.name, table, source, written, about)
    return table


def dataset_source(name: str, known: dict[str, Any]) -> Source:
    """Describe a dataset that is not in SOURCES."""
    return Source(
        f"matminer's {name}",
        tuple(PROPERTIES),
        "as its authors state, see the citation; distributed with matminer's datasets",
        " ".join(known["reference"].split()),
    )


def address_of(name: str, known: dict[str, Any], url: str | None) -> str:
    """Return the address of a dataset's file."""
    return f"{url.rstrip('/')}/{name}.{known['file_type']}" if url else known["url"]


def own_file(name: str) -> Path | None:
    """Return the file that matminer itself saved in $MATMINER_DATA, if its hash is right."""
    known, home = dataset(name), os.environ.get("MATMINER_DATA")
    path = Path(home or "/nowhere").expanduser() / f"{name}.{known['file_type']}"
    return path if path.is_file() and sha256_of(path) == known["hash"] else None


def _stated_units(known: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    """Return name -> unit for columns that are not in PROPERTIES but whose unit is stated."""
    units = {}
    for column, name in names.items():
        unit = unit_in(column, known["columns"].get(column, ""))
        if unit and name not in PROPERTIES:
            units[name] = unit
    return units


def _file_folder(name: str, known: dict[str, Any], address: str, work: Path) -> Path:
    """Return the folder that contains the dataset's file, after downloading it if necessary.

    The folder is $MATMINER_DATA if matminer saved the file there, else `work`.
    """
    if own := own_file(name):
        return own.parent
    path = work / f"{name}.{known['file_type']}"
    # The file has this name only if it is complete.
    if not path.is_file():
        with http.connect() as connection:
            save(connection, address, path, known["hash"], MAX_FILE_BYTES)
    return work


def _load(name: str, home: Path) -> "pandas.DataFrame":
    from matminer.datasets import load_dataset

    logger.info(
        "reading %s with matminer's loader, "
        "which takes minutes and gigabytes where there are many structures",
        name,
    )
    return load_dataset(name, data_home=str(home), download_if_missing=False)


def _numeric_columns(frame: "pandas.DataFrame") -> dict[str, list[float | None]]:
    """Return the numeric columns, with None for values that are not reported.

    Boolean columns do not count as numeric.
    """
    columns = {}
    for column in frame.columns:
        if column in (*STRUCTURES, *FORMULAS, *IDS) or frame[column].dtype == bool:
            continue
        values = frame[column].tolist()
        numbers = [number(value) for value in values]
        if any(n is not None for n in numbers) and all(map(_is_numeric, values, numbers)):
            columns[str(column)] = numbers
    return columns


def _is_numeric(value: object, parsed: float | None) -> bool:
    """Return True if a value is a number, or marks a number that is not reported."""
    if isinstance(value, bool):
        return False
    is_absent = value is None or (isinstance(value, str) and value in ABSENT)
    return is_absent or parsed is not None or isinstance(value, float)


def _records(
    name: str, frame: "pandas.DataFrame", columns: dict[str, list[float | None]]
) -> Iterator[Record | Unusable]:
    """Yield a material for each row of a dataset, or the reason why the row is unusable."""
    formulas, structures = (_first_column(frame, known) for known in (FORMULAS, STRUCTURES))
    missing = "no structure and no formula" if has_structures(name) else "no formula"
    rows = zip(_ids(name, frame), formulas, structures, strict=True)
    for row, (material_id, formula, structure) in enumerate(rows):
        values = {column: values[row] for column, values in columns.items()}
        targets = {column: value for column, value in values.items() if value is not None}
        if structure is not None and hasattr(structure, "lattice"):
            if name in WITH_DERIVED:
                targets = _derived(structure) | targets
            yield Record(material_id, None, targets, unit_cell(structure))
        elif text := formula_text(formula):
            yield Record(material_id, text, targets)
        else:
            yield Unusable(missing)


def _first_column(frame: "pandas.DataFrame", names: tuple[str, ...]) -> list[Any]:
    name = next((name for name in names if name in frame.columns), None)
    return [None] * len(frame) if name is None else frame[name].tolist()


def _ids(name: str, frame: "pandas.DataFrame") -> list[str]:
    """Return the dataset's own ids if they are unique, else `<dataset>-<row>`."""
    for column in IDS:
        if column in frame.columns:
            ids = frame[column].tolist()
            if all(isinstance(i, str) and i for i in ids) and len(set(ids)) == len(ids):
                return ids
    return [f"{name}-{row}" for row in range(1, len(frame) + 1)]


def unit_cell(structure: Any) -> UnitCell:
    """Convert a pymatgen Structure to a UnitCell, without its oxidation states."""
    species: list[str | dict[str, float]] = []
    for site in structure:
        amounts: dict[str, float] = {}
        for specie, amount in site.species.items():
            symbol = getattr(specie, "symbol", str(specie))
            amounts[symbol] = amounts.get(symbol, 0.0) + float(amount)
        is_full = len(amounts) == 1 and abs(sum(amounts.values()) - 1) < 1e-8
        species.append(next(iter(amounts)) if is_full else amounts)
    return UnitCell(structure.lattice.matrix.tolist(), species, structure.frac_coords.tolist())


def _derived(structure: Any) -> dict[str, float]:
    """Compute the DERIVED properties: volume, volume per atom and density."""
    volume = float(structure.volume)
    return {
        "volume": volume,
        "volume_per_atom": volume / len(structure),
        "density": float(structure.density),
    }
