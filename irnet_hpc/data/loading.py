"""Load a source: its raw table together with units, licence and citation."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from irnet_hpc.data import alloys
from irnet_hpc.data.benchmarks import N_FOLDS
from irnet_hpc.data.properties import PROPERTIES, unit_of
from irnet_hpc.data.raw_csv import frame_text, read_csv_header, read_csv_table
from irnet_hpc.data.raw_jsonl import read_jsonl_header, read_jsonl_table
from irnet_hpc.data.raw_table import (
    RESERVED,
    RawTable,
    about_path,
    file_text,
    form_of,
    read_about,
)
from irnet_hpc.data.resolve import ResolvedSource
from irnet_hpc.data.sources import Source
from irnet_hpc.data.splits import sample
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME

FOLD = "fold"  # the column of a source with folds
DEFAULT_ROWS = 20_000  # default number of alloys
# form of a table -> the functions that read the header and the rows
READERS = {
    "csv": (read_csv_header, read_csv_table),
    "jsonl": (read_jsonl_header, read_jsonl_table),
}


class Loaded(NamedTuple):
    """A source that has been read: its rows, units and description."""

    identity: str  # as in ResolvedSource
    source: Source
    # All rows of the source, or a sample. Its targets include properties that are not packed.
    table: RawTable
    units: dict[str, str]  # property -> unit, for the properties to pack
    n_available: int  # number of rows in the source
    notes: tuple[str, ...] = ()  # remarks of the table's description, such as its release


def load_source(
    resolved: ResolvedSource,
    n_rows: int | None = None,
    properties: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    columns: bool = False,
    structures: bool = False,
) -> Loaded:
    """Read a source.

    Args:
        resolved: the source.
        n_rows: the size of the fixed random sample to read; None: all rows. For `alloys`, the
            number of rows to compute.
        properties: the targets; if empty, all columns whose unit is known.
        units: property -> unit, for properties that are not in PROPERTIES.
        columns: True to read also the numeric columns that are not properties, as features.
        structures: True if crystal structures are required.

    Raises:
        UserError: if the table is missing or malformed.
    """
    known, table, targets, notes = (
        (*_computed(resolved, n_rows, properties, units or {}), ())
        if resolved.is_computed
        else _read(resolved, properties, units or {}, columns, structures)
    )
    if structures and table.crystals is None:
        raise UserError(
            f"structures are needed, but {resolved.text} has only formulas; "
            "the name of a table with structures ends in .jsonl"
        )
    empty = [target for target in targets if np.isnan(table.targets[target]).all()]
    for target in empty:
        if target in properties or len(empty) == len(targets):
            raise UserError(f"property {target!r} has no value in any row of {resolved.text}")
        del targets[target], table.targets[target]
    n_available = len(table)
    if n_rows and n_rows < n_available:
        table = table.take(sample(n_available, n_rows))
    return Loaded(resolved.identity, known, table, targets, n_available, notes)


def _computed(
    resolved: ResolvedSource,
    n_rows: int | None,
    properties: Sequence[str],
    units: Mapping[str, str],
) -> tuple[Source, RawTable, dict[str, str]]:
    known = resolved.source
    targets = _targets(properties, known.properties, {}, units, f"property of {resolved.name}")
    return known, alloys.compute_alloys(n_rows or DEFAULT_ROWS), targets


def _read(
    resolved: ResolvedSource,
    properties: Sequence[str],
    units: Mapping[str, str],
    columns: bool,
    structures: bool,
) -> tuple[Source, RawTable, dict[str, str], tuple[str, ...]]:
    """Read the raw table. Returns the source's description, rows, property -> unit, and notes."""
    about: dict[str, Any] = {}
    if resolved.frame is None:
        path = resolved.require_table(structures)
        about, text, form = read_about(path), file_text(path), form_of(path)
    else:
        text, form = frame_text(resolved.frame, resolved.name), "csv"
    read_header, read_table = READERS[form]
    header = read_header(text)
    stated = about.get("units", {})
    targets = _targets(properties, header, stated, units, f"property of {text.name}")
    if not targets:
        others = ", ".join(column for column in header if column not in RESERVED)
        raise UserError(
            f"{text.name} has no column named like a property ({', '.join(PROPERTIES)}); "
            f"name a column to predict and its unit with --unit NAME=UNIT, "
            f"where NAME is one of {others or 'its columns'}"
        )
    # Properties that are not packed decide which of the rows of one composition is packed. Features
    # of the table's own columns describe each row, so there no row is chosen.
    unpacked = [name for name in header if name in PROPERTIES and name not in targets]
    has_folds = resolved.source.has_folds
    table = read_table(
        text,
        resolved.name,
        [*targets, *([] if columns else unpacked)],
        lambda column: (columns and column not in PROPERTIES) or (has_folds and column == FOLD),
    )
    if has_folds:
        table = _with_folds(table, text.name)
    if about.get("sha256", table.sha256) != table.sha256:
        raise UserError(
            f"{about_path(path)} describes a different table than {path}: "
            f"it states the sha256 {about['sha256']}, but the table's text has {table.sha256}; "
            "remove both files and download the table again, or remove only the description"
        )
    known = {key: about[key] for key in ("title", "licence", "citation") if about.get(key)}
    return (
        resolved.source._replace(**known),
        table,
        targets,
        tuple(map(str, about.get("notes", ()))),
    )


def _with_folds(table: RawTable, name: str) -> RawTable:
    """Take the column `fold` of a table as the folds in which its rows are tested."""
    columns = dict(table.columns)
    folds = columns.pop(FOLD, None)
    if folds is None or not np.isin(folds, range(N_FOLDS)).all():
        raise UserError(f"{name} must have a column {FOLD} with numbers from 0 to {N_FOLDS - 1}")
    return dataclasses.replace(table, columns=columns, fold=folds.astype(np.int64))


def _targets(
    wanted: Sequence[str],
    header: Iterable[str],
    stated: Mapping[str, str],
    units: Mapping[str, str],
    kind: str,
) -> dict[str, str]:
    """Find the columns to predict, and return property -> unit.

    Args:
        wanted: the requested properties; if empty, all columns whose unit is known.
        header: the names of the table's columns.
        stated: property -> unit, from the description of the table.
        units: property -> unit, from the user.
        kind: the words for such a column in a message.
    """
    columns = [column for column in header if column not in RESERVED]
    for name in wanted:
        check_choice(kind, name, columns)
    known = {*PROPERTIES, *stated, *units}
    targets = list(dict.fromkeys(wanted)) or [column for column in columns if column in known]
    # A property's name becomes the name of a dataset in the pack and of a folder in the results.
    for name in targets:
        if not NAME.fullmatch(name):
            raise UserError(
                f"a property's name must be letters, digits and _.+=-, got {name!r}; "
                "rename the column"
            )
    for name in units:
        check_choice("property (of --unit)", name, targets if wanted else columns)
        if stated.get(name, units[name]) != units[name]:
            raise UserError(
                f"{name} is in {stated[name]} according to its table, but --unit says "
                f"{units[name]!r}"
            )
    return {name: unit_of(name, units.get(name, stated.get(name))) for name in targets}
