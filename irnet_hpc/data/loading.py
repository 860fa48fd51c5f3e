"""Load a source: its raw table together with units, licence and citation."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from irnet_hpc.data import alloys
from irnet_hpc.data.benchmarks import N_FOLDS
from irnet_hpc.data.codes import are_codes
from irnet_hpc.data.download.optimade.query import OPTIMADE
from irnet_hpc.data.faults import CellRules
from irnet_hpc.data.headings import (
    Headings,
    name_columns,
    plain_headings,
    provider_headings,
)
from irnet_hpc.data.properties import PROPERTIES, unit_of
from irnet_hpc.data.raw_csv import (
    frame_text,
    read_csv_header,
    read_csv_table,
    require_formula,
    sniff,
)
from irnet_hpc.data.raw_files import foreign_text, records_text
from irnet_hpc.data.raw_jsonl import are_cells, read_jsonl_header, read_jsonl_table
from irnet_hpc.data.raw_table import (
    FOREIGN,
    RESERVED,
    RawTable,
    TableText,
    about_path,
    file_text,
    form_of,
    read_about,
)
from irnet_hpc.data.reading import Reading
from irnet_hpc.data.resolve import ResolvedSource
from irnet_hpc.data.sources import Source
from irnet_hpc.data.splits import sample
from irnet_hpc.data.structures.documents import holds_structures, lines_hold_records
from irnet_hpc.data.structures.finding import find_records
from irnet_hpc.data.structures.frames import frame_structures
from irnet_hpc.data.structures.listing import Listed, list_found, list_structures
from irnet_hpc.data.units import convert
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME

# Endings of files that hold a table, or the structures of another library.
RECORDS = (".json", ".jsonl", ".jsonl.gz", ".jsonl.xz")
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
    headings: Headings | None = None  # the columns of the user's own table


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
    headings, notes = None, tuple[str, ...]()
    if resolved.is_computed:
        known, table, targets = _computed(resolved, n_rows, properties, units or {})
    else:
        known, table, targets, headings = _read(
            resolved, properties, units or {}, columns, structures
        )
        notes = _notes_of(resolved, structures)
        properties = [headings.name_of(name) for name in properties]
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
    return Loaded(resolved.identity, known, table, targets, n_available, notes, headings)


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
) -> tuple[Source, RawTable, dict[str, str], Headings]:
    """Read the raw table.

    Returns:
        The source's description, the rows, property -> unit, and the columns.
    """
    listed = _structures_of(resolved)
    if listed:
        about, text, form, reading = dict[str, Any](), listed.text, "jsonl", listed.reading
    else:
        about, text, form = _text_of(resolved, structures)
        reading = resolved.reading
    path = resolved.table_path(structures)
    read_header, read_table = READERS[form]
    given = read_header(text)
    if listed:
        if given == ["formula"]:
            raise UserError(
                f"{text.name} has structures and no properties; name a table of them with "
                "--properties-table FILE, whose rows name structures by their files or ids"
            )
        given.append("material_id")  # each structure has one, so no other column holds the ids
    headings = plain_headings(given)
    if not resolved.is_named:
        wanted = {*properties, *units}
        headings = name_columns(text.name, given, reading, wanted, features=columns)
    elif resolved.text.startswith(OPTIMADE):
        known_units = {**units, **about.get("units", {})}
        headings = provider_headings(text.name, given, reading.rename, known_units)
    require_formula(text.name, headings)
    properties = [headings.name_of(name) for name in properties]
    units = {headings.name_of(name): unit for name, unit in units.items()}
    stated = about.get("units", {})
    in_header = {
        name: unit
        for name, unit in headings.units.items()
        if name not in PROPERTIES and name not in {*units, *stated}
    }
    header = [name for name in headings.names if name]
    targets = _targets(properties, header, stated | in_header, units, f"property of {text.name}")
    if not targets:
        others = ", ".join(column for column in header if column not in RESERVED)
        raise UserError(
            f"{text.name} has no column named like a property ({', '.join(PROPERTIES)}) or with a "
            "unit, as in Eg (eV); "
            f"name a column to predict and its unit with --unit NAME=UNIT, "
            f"where NAME is one of {others or 'its columns'}"
        )
    # Properties that are not packed decide which of the rows of one composition is packed. Features
    # of the table's own columns describe each row, so there no row is chosen.
    unpacked = [name for name in header if name in PROPERTIES and name not in targets]
    read = [*targets, *([] if columns else unpacked)]
    has_folds = resolved.source.has_folds
    rules = _rules(headings, targets, reading, properties)
    if resolved.is_named:
        # A downloaded table has no such cells, unless it is damaged.
        rules = dataclasses.replace(rules, strict=True)
    table = read_table(
        text,
        resolved.name,
        read,
        lambda column: (columns and column not in PROPERTIES) or (has_folds and column == FOLD),
        headings,
        rules,
    )
    if has_folds:
        table = _with_folds(table, text.name)
    if path and about.get("sha256", table.sha256) != table.sha256:
        raise UserError(
            f"{about_path(path)} describes a different table than {path}: "
            f"it states the sha256 {about['sha256']}, but the table's text has {table.sha256}; "
            "remove both files and download the table again, or remove only the description"
        )
    targets = {name: unit for name, unit in targets.items() if name in table.targets}
    if not targets:
        raise UserError(f"no column of {text.name} that has a unit holds numbers")
    table = _in_units(table, headings, targets)
    if listed:
        table = dataclasses.replace(table, notes=(*listed.notes, *table.notes))
    known = {key: about[key] for key in ("title", "licence", "citation") if about.get(key)}
    return resolved.source._replace(**known), table, targets, headings


def _notes_of(resolved: ResolvedSource, structures: bool) -> tuple[str, ...]:
    """Return the remarks of the description of a table."""
    path = None if resolved.has_files else resolved.table_path(structures)
    return tuple(map(str, read_about(path).get("notes", ()))) if path else ()


def _with_folds(table: RawTable, name: str) -> RawTable:
    """Take the column `fold` of a table as the folds in which its rows are tested."""
    columns = dict(table.columns)
    folds = columns.pop(FOLD, None)
    if folds is None or not np.isin(folds, range(N_FOLDS)).all():
        raise UserError(f"{name} must have a column {FOLD} with numbers from 0 to {N_FOLDS - 1}")
    return dataclasses.replace(table, columns=columns, fold=folds.astype(np.int64))


def _structures_of(resolved: ResolvedSource) -> Listed | None:
    """List the structures of a source of another library's structures; None for other sources."""
    reading = resolved.reading
    if resolved.frame is not None and (found := frame_structures(resolved.frame, resolved.name)):
        return list_found(resolved.name, found, reading)
    path = resolved.path
    if path is not None and path.is_file() and path.name.endswith(RECORDS):
        if path.name.endswith(".json") and holds_structures(path):
            return list_structures(path, reading)
        if ".jsonl" in path.name and lines_hold_records(text := file_text(path)):
            return list_found(str(path), find_records(text), reading)
    if resolved.has_files:
        assert path is not None
        return list_structures(path, reading)
    if reading.properties_table:
        raise UserError(f"--properties-table is for structures, but {resolved.text} is a table")
    return None


def _text_of(resolved: ResolvedSource, structures: bool) -> tuple[dict[str, Any], TableText, str]:
    """Return the description of a table, its text, and its form, `csv` or `jsonl`."""
    reading = resolved.reading
    if resolved.frame is not None:
        return {}, frame_text(resolved.frame, resolved.name, reading.formula_column), "csv"
    path = resolved.require_table(structures)
    about = read_about(path)
    if path.name.endswith(FOREIGN):
        return about, foreign_text(path, reading.sheet), "csv"
    if reading.sheet:
        raise UserError(f"--sheet names a sheet of an Excel workbook, but {path} is none")
    text, form = file_text(path), form_of(path)
    if resolved.is_named:
        return about, text, form
    if form == "csv":
        return about, sniff(text, reading.formula_column), form
    return (about, records_text(text), "csv") if are_cells(text) else (about, text, form)


def _rules(
    headings: Headings, targets: Mapping[str, str], reading: Reading, properties: Sequence[str]
) -> CellRules:
    return CellRules(
        missing=tuple(text.strip() for text in reading.missing),
        # A cell may carry the unit of its column, which is that of the header if there is one.
        units={**targets, **headings.units},
        guessed=headings.guessed - set(properties),
        headers={
            name: given
            for given, name in zip(headings.given, headings.names, strict=True)
            if name and given
        },
        strict=reading.strict,
    )


def _in_units(table: RawTable, headings: Headings, units: Mapping[str, str]) -> RawTable:
    """Convert the columns whose header states another unit than that of the property."""
    values, notes = dict(table.targets), list(table.notes)
    for name, given in headings.units.items():
        unit = units.get(name) or (PROPERTIES[name].unit if name in PROPERTIES else "")
        if name in values and unit:
            try:
                values[name] = convert(values[name], given, unit)
            except UserError as error:
                raise UserError(f"column {_header_of(headings, name)}: {error}") from None
            if values[name] is not table.targets[name]:
                _refuse_codes(_header_of(headings, name), table.targets[name])
                notes.append(f"{name} is converted from {given} to {unit}")
    return dataclasses.replace(table, targets=values, notes=tuple(notes))


def _refuse_codes(column: str, values: np.ndarray) -> None:
    """Raise UserError if a column to be converted has codes, which would look like values then."""
    codes = values[are_codes(values)]
    if len(codes):
        raise UserError(
            f"{len(codes):,} values of column {column} look like a code for a value that is not "
            f"reported, such as {codes[0]:g}; state it with --missing {codes[0]:g}, or convert the "
            "column yourself"
        )


def _header_of(headings: Headings, name: str) -> str:
    return repr(headings.given[headings.names.index(name)])


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
