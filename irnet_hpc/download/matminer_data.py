"""matminer's datasets as raw tables: mp and jarvis among them, and any other with formulas or structures.

matminer's metadata says where a dataset lies, and its loader reads the file; the transfer between the two is ours
(fetching.py), and the names and units of columns are in matminer_names.py. The datasets are described in
https://hackingmaterials.lbl.gov/matminer/dataset_summary.html.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irnet_hpc.download import fetching, transfer
from irnet_hpc.download.folder import alone
from irnet_hpc.download.matminer_names import FORMULAS, IDS, STRUCTURES, dataset, has_structures, named, unit_in
from irnet_hpc.download.paging import finish
from irnet_hpc.download.records import Cell, Record, Unusable, number, write_csv, write_jsonl
from irnet_hpc.errors import UserError
from irnet_hpc.properties import PROPERTIES
from irnet_hpc.sources import Source

if TYPE_CHECKING:
    import pandas

LARGEST_FILE = 4 * 2**30  # bytes; the largest of matminer's is below one GiB
ABSENT = ("", "na", "nan", "None")  # how a number that is not reported is written where numbers are text
DERIVED = ("volume", "volume_per_atom", "density")  # Å³/cell, Å³/atom, g/cm³, computed from the structure
WITH_DERIVED = ("mp_all_20181018", "jarvis_dft_3d")


def collect(name: str, table_name: str, url: str | None, folder: Path, source: Source | None) -> Path:
    """Download a dataset into the raw table `table_name` of a data folder. Returns its path; raises UserError.

    With a column of structures it becomes JSON lines, else CSV. `url` is the address of a folder that has the dataset's file
    under its own name; without it the file comes from where matminer's metadata says.
    """
    known = dataset(name)
    table = folder / f"{table_name}{'.jsonl.gz' if has_structures(name) else '.csv.xz'}"
    source = source or described(name, known)
    with alone(folder, table_name) as work:
        if table.is_file():  # made by the process we waited for
            return table
        address = address_of(name, known, url)
        frame = _load(name, _home(name, known, address, work))
        if len(frame) != known["num_entries"]:
            raise UserError(
                f"{address} has {len(frame):,} rows, though matminer's metadata says {known['num_entries']:,}"
            )
        columns = _numeric(frame)
        names = named(name, list(columns))
        units = {names[column]: unit_in(column, known["columns"].get(column, "")) for column in columns}
        units = {column: unit for column, unit in units.items() if unit and column not in PROPERTIES}
        properties = list(names.values())
        properties += [column for column in DERIVED if name in WITH_DERIVED and column not in properties]
        write = write_jsonl if has_structures(name) else write_csv
        written = write(
            work / table.name, properties, _records(name, frame, {names[key]: columns[key] for key in columns})
        )
        if not written.n_rows:
            raise UserError(f"not one row of matminer's {name} is a material: {written.remarks()}")
        finish(
            work / table.name, table, written, address, table_name, source,
            units=units, dataset=name, file_sha256=known["hash"], bibtex=known["bibtex_refs"],
            columns={names[column]: column for column in columns},
        )  # fmt: skip
    return table


def described(name: str, known: dict[str, Any]) -> Source:
    """A dataset that is not in SOURCES, as one that is."""
    return Source(
        f"matminer's {name}",
        tuple(PROPERTIES),
        "as its authors state, see the citation; distributed with matminer's datasets",
        " ".join(known["reference"].split()),
    )


def address_of(name: str, known: dict[str, Any], url: str | None) -> str:
    return f"{url.rstrip('/')}/{name}.{known['file_type']}" if url else known["url"]


def own_file(name: str) -> Path | None:
    """The dataset's file as matminer itself has kept it in $MATMINER_DATA, if it is there and has the right hash."""
    known, own = dataset(name), os.environ.get("MATMINER_DATA")
    path = Path(own or "/nowhere").expanduser() / f"{name}.{known['file_type']}"
    return path if path.is_file() and transfer.file_hash(path) == known["hash"] else None


def _home(name: str, known: dict[str, Any], address: str, work: Path) -> Path:
    """The folder where the dataset's file lies: matminer's own, where it is there already, else the download's."""
    if own := own_file(name):
        return own.parent
    path = work / f"{name}.{known['file_type']}"
    if not path.is_file():  # it has this name only if it is whole
        with fetching.connect() as connection:
            transfer.save(connection, address, path, known["hash"], LARGEST_FILE)
    return work


def _load(name: str, home: Path) -> "pandas.DataFrame":
    from matminer.datasets import load_dataset

    fetching.say(
        f"reading {name} with matminer's loader, which takes minutes and gigabytes where there are many structures"
    )
    return load_dataset(name, data_home=str(home), download_if_missing=False)


def _numeric(frame: "pandas.DataFrame") -> dict[str, list[float | None]]:
    """The columns of a dataset that are numbers, None where not reported; truth values are not."""
    found = {}
    for column in frame.columns:
        if column in (*STRUCTURES, *FORMULAS, *IDS) or frame[column].dtype == bool:
            continue
        given = frame[column].tolist()
        values = [number(value) for value in given]
        wordless = all(
            value is None
            or read is not None
            or (isinstance(value, str) and value in ABSENT)
            or isinstance(value, float)
            for value, read in zip(given, values, strict=True)
        )
        if wordless and not any(isinstance(value, bool) for value in given) and any(v is not None for v in values):
            found[str(column)] = values
    return found


def _records(
    name: str, frame: "pandas.DataFrame", columns: dict[str, list[float | None]]
) -> Iterator[Record | Unusable]:
    """The rows of a dataset as materials, those that are none as the reason why."""
    formulas, structures = (
        next((frame[column].tolist() for column in known if column in frame.columns), [None] * len(frame))
        for known in (FORMULAS, STRUCTURES)
    )
    ids = _ids(name, frame)
    for row, (formula, structure) in enumerate(zip(formulas, structures, strict=True)):
        targets = {column: values[row] for column, values in columns.items() if values[row] is not None}
        try:
            if structure is not None and hasattr(structure, "lattice"):
                if name in WITH_DERIVED:
                    targets = _derived(structure) | targets
                yield Record(ids[row], None, targets, cell_of(structure))
            elif (text := formula_of(formula)) is not None:
                yield Record(ids[row], text, targets)
            else:
                raise Unusable("no structure and no formula" if has_structures(name) else "no formula")
        except Unusable as reason:
            yield reason


def _ids(name: str, frame: "pandas.DataFrame") -> list[str]:
    """The dataset's own names of its rows, where it has such and they differ, else `<dataset>-<row>`."""
    for column in IDS:
        if column in frame.columns:
            given = frame[column].tolist()
            if all(isinstance(value, str) and value for value in given) and len(set(given)) == len(given):
                return given
    return [f"{name}-{row}" for row in range(1, len(frame) + 1)]


def formula_of(value: object) -> str | None:
    """A formula as text, from text or from one of pymatgen's compositions.

    Amounts keep all their digits, and elements their order.
    """
    if isinstance(value, str):
        return value.strip() or None
    if not hasattr(value, "get_el_amt_dict"):
        return None
    amounts = value.get_el_amt_dict()
    return "".join(f"{symbol}{'' if amount == 1 else f'{amount:.10g}'}" for symbol, amount in amounts.items()) or None


def cell_of(structure: Any) -> Cell:
    """A structure of pymatgen's as a raw table has it: elements without oxidation states, disordered sites as occupancies."""
    species: list[str | dict[str, float]] = []
    for site in structure:
        amounts: dict[str, float] = {}
        for specie, amount in site.species.items():
            symbol = getattr(specie, "symbol", str(specie))
            amounts[symbol] = amounts.get(symbol, 0.0) + float(amount)
        species.append(next(iter(amounts)) if len(amounts) == 1 and abs(sum(amounts.values()) - 1) < 1e-8 else amounts)
    return Cell(structure.lattice.matrix.tolist(), species, structure.frac_coords.tolist())


def _derived(structure: Any) -> dict[str, float]:
    """Å³/cell, Å³/atom, g/cm³."""
    volume = float(structure.volume)
    return {"volume": volume, "volume_per_atom": volume / len(structure), "density": float(structure.density)}
