"""Loading: a source's raw table, or a file of the user's own, found and read, with its units, licence and citation."""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from irnet_hpc.data import alloys
from irnet_hpc.data import raw_csv as raw_table
from irnet_hpc.data import raw_jsonl as raw_structures
from irnet_hpc.data.properties import PROPERTIES, unit_of
from irnet_hpc.data.raw_csv import OPENERS, RESERVED, RawTable, ending_of
from irnet_hpc.data.sources import SOURCES, Source
from irnet_hpc.data.splits import sample
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME, read_json

DEFAULT_ROWS = 20_000  # of alloys
MATMINER = "matminer:"  # what the names of matminer's own datasets start with
PREFERRED = sorted(
    OPENERS, key=lambda ending: ending.startswith(".jsonl")
)  # tables without structures are read sooner


class Loaded(NamedTuple):
    identity: str  # its name in SOURCES, `matminer:` and the dataset's, or `file:` and the name of the user's own file
    source: Source
    table: RawTable
    units: dict[str, str]  # property -> unit, of the properties to pack
    n_available: int  # rows of the source, of which `table` may be a sample


def load(
    source: str,
    data_dir: Path | str | None = None,
    n_rows: int | None = None,
    properties: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    columns: bool = False,
    structures: bool = False,
) -> Loaded:
    """Read a source: a name from SOURCES, `matminer:` and a dataset's name, or a path to a table.

    `n_rows` limits the rows to a fixed random sample (alloys: how many are made). `properties` are the targets, if not all
    columns whose unit is known or given; `units` those of properties that are not in PROPERTIES. With `columns`, numeric columns
    that are no property are read as features; with `structures`, the table must have them. Raises UserError.
    """
    units = units or {}
    name = name_of(source)
    if source == "alloys":
        known = SOURCES[source]
        targets = _targets(properties, known.properties, {}, units, f"property of {name}")
        table = alloys.read(n_rows or DEFAULT_ROWS)
    else:
        path = find_table(source, data_dir, structures)
        about = read_about(path)
        known = described(source, about)
        reader = raw_structures if form_of(path) == "jsonl" else raw_table
        header = reader.read_header(path)
        targets = _targets(properties, header, about.get("units", {}), units, f"property of {path}")
        if not targets:
            raise UserError(
                f"{path} has no column named like a property ({', '.join(PROPERTIES)}); name what to predict by its unit, "
                f"--unit NAME=UNIT, one of {', '.join(name for name in header if name not in RESERVED) or 'its columns'}"
            )
        table = reader.read(
            path, name, targets, lambda column: columns and column not in PROPERTIES
        )
        if about.get("sha256", table.sha256) != table.sha256:
            raise UserError(
                f"{about_path(path)} is not of {path}: it says that the sha256 of the table's text is {about['sha256']}, "
                f"however: {table.sha256}; remove both and download the table again, or remove the former"
            )
    if structures and table.crystals is None:
        raise UserError(
            f"structures are needed, but {source} has formulas only; a table with structures ends in .jsonl"
        )
    empty = [target for target in targets if np.isnan(table.targets[target]).all()]
    for target in empty:
        if target in properties or len(empty) == len(targets):
            raise UserError(
                f"property {target!r} has no values in {source}: every row leaves it empty"
            )
        del targets[target]
    n_available = len(table)
    if n_rows and n_rows < n_available:
        table = table.take(sample(n_available, n_rows))
    table = dataclasses.replace(
        table, targets={target: table.targets[target] for target in targets}
    )
    return Loaded(source if named(source) else f"file:{name}", known, table, targets, n_available)


def named(source: str) -> bool:
    """Whether it is the name of a source, rather than a path."""
    return source in SOURCES or source.startswith(MATMINER)


def name_of(source: str) -> str:
    """The name of a source: its own, or that of the table's file without its ending. Raises UserError where it is neither.

    >>> name_of("oqmd"), name_of("matminer:expt_gap"), name_of("my/oxides.csv.xz")
    ('oqmd', 'matminer-expt_gap', 'oxides')
    """
    if source in SOURCES:
        return source
    if source.startswith(MATMINER):
        dataset = source.removeprefix(MATMINER)
        if not NAME.fullmatch(dataset):
            raise UserError(
                f"a dataset of matminer's is named by letters, digits and _, however: {dataset!r}"
            )
        return f"matminer-{dataset}"
    path = Path(source)
    if "/" in source or path.exists() or path.suffix in (".csv", ".jsonl", ".gz", ".xz"):
        stem = path.name.removesuffix(ending_of(path))
        return re.sub(r"[^A-Za-z0-9_.=-]+", "_", stem).strip("_.-=") or "table"
    return check_choice("source", source, [*SOURCES, f"{MATMINER}NAME", "a path to a table"])


def folder_of(data_dir: Path | str | None = None) -> Path:
    """Where raw tables are: `data_dir`, else $IRNET_DATA, else data/."""
    return Path(data_dir or os.environ.get("IRNET_DATA") or "data")


def candidates(
    source: str, data_dir: Path | str | None = None, structures: bool = False
) -> list[Path]:
    """The files that may be a source's raw table, the first of which that is there counts."""
    endings = [ending for ending in PREFERRED if ending.startswith(".jsonl") or not structures]
    return [folder_of(data_dir) / f"{name_of(source)}{ending}" for ending in endings]


def find_table(source: str, data_dir: Path | str | None = None, structures: bool = False) -> Path:
    """The raw table of a source, one with structures where they are needed. Raises UserError where there is none."""
    if not named(source):
        if not Path(source).is_file():
            raise UserError(f"there is no raw table {source}")
        return Path(source)
    looked_for = candidates(source, data_dir, structures)
    found = next((path for path in looked_for if path.is_file()), None)
    if found is None:
        kind = "raw table with structures" if structures else "raw table"
        raise UserError(
            f"no {kind} of {source} in {folder_of(data_dir)}/: looked for {', '.join(path.name for path in looked_for)}; "
            "another folder is given by --data-dir or $IRNET_DATA"
        )
    return found


def about_path(table: Path) -> Path:
    """Where it is written what a raw table is, beside it."""
    return table.with_name(f"{table.name.removesuffix(ending_of(table))}.about.json")


def form_of(table: Path) -> str:
    """csv or jsonl."""
    return ending_of(table).split(".")[1]


def read_about(table: Path) -> dict:
    """What a raw table is, as whoever made it wrote: title, licence, citation, units; nothing where nothing is written.

    A table with structures and one without may have one name, and then what is written says of which it is.
    """
    path = about_path(table)
    about = read_json(path) if path.is_file() else {}
    if not isinstance(about.get("units", {}), dict):
        raise UserError(
            f"{path}: units must be an object, property -> unit, however: {about['units']!r}"
        )
    return about if about.get("form", form_of(table)) == form_of(table) else {}


def described(source: str, about: dict) -> Source:
    """A source as SOURCES has it, or as what lies beside its table says."""
    found = SOURCES.get(source) or Source(
        source, tuple(PROPERTIES)
    )  # a path is the user's own, whatever its name
    return found._replace(
        **{key: about[key] for key in ("title", "licence", "citation") if about.get(key)}
    )


def _targets(
    wanted: Sequence[str],
    columns: Iterable[str],
    stated: Mapping[str, str],
    units: Mapping[str, str],
    kind: str,
) -> dict[str, str]:
    """Property -> unit of the columns to predict; `stated` are units that came with the table."""
    columns = [column for column in columns if column not in RESERVED]
    for name in wanted:
        check_choice(kind, name, columns)
    known = {*PROPERTIES, *stated, *units}
    targets = list(dict.fromkeys(wanted)) or [column for column in columns if column in known]
    for name in targets:  # a dataset of the pack, a folder of the results; names come with a table as well as from its user
        if not NAME.fullmatch(name):
            raise UserError(
                f"a property's name must be letters, digits and _.+=-, however: {name!r}; rename the column"
            )
    for name in units:
        check_choice("property (of --unit)", name, targets if wanted else columns)
        if stated.get(name, units[name]) != units[name]:
            raise UserError(
                f"{name} is in {stated[name]}, as came with its table, but --unit says {units[name]!r}"
            )
    return {name: unit_of(name, units.get(name, stated.get(name))) for name in targets}
