"""List the sources: rows, properties, units, licence, and whether the table is present."""

import textwrap
from pathlib import Path

from irnet_hpc.data.benchmarks import CRABNET, CRABNET_TABLES, MATBENCH, MATBENCH_TASKS
from irnet_hpc.data.download import matminer_columns
from irnet_hpc.data.download.obtain import address
from irnet_hpc.data.download.optimade.query import OPTIMADE, read_query
from irnet_hpc.data.download.optimade.service import describe_properties
from irnet_hpc.data.download.registry import DOWNLOADS
from irnet_hpc.data.download.wheel_tables import wheel_source, wheels_of
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.resolve import MATMINER, resolve_source
from irnet_hpc.data.sources import SOURCES, Source
from irnet_hpc.errors import UserError, check_choice

WIDTH = 100  # characters in a line


def list_sources(catalogue: str, data_dir: Path | str | None = None) -> str:
    """Describe every source in SOURCES, every dataset of matminer, or a service's properties.

    Args:
        catalogue: `matminer`, the name of a source that speaks OPTIMADE, or empty for SOURCES.
        data_dir: folder of raw tables.

    Returns:
        The text to print.
    """
    if catalogue.startswith(OPTIMADE):
        return describe_properties(read_query(catalogue))
    if catalogue:
        check_choice("catalogue (of --list)", catalogue, ["matminer", f"{OPTIMADE}URL"])
        return "\n\n".join(
            _dataset(name, data_dir)
            for name in sorted(matminer_columns.metadata())
            if _is_usable(name)
        )
    entries = [_entry(name, source, data_dir) for name, source in SOURCES.items()]
    n_datasets = sum(map(_is_usable, matminer_columns.metadata()))
    last = f"{MATMINER}NAME\n  any of {n_datasets} datasets: pack --list matminer"
    names = ", ".join(MATBENCH_TASKS)
    tables = _wrapped(f"  tables of CrabNet's benchmark: {', '.join(CRABNET_TABLES)}", 4)
    tasks = _wrapped(f"  tasks of Matbench v0.1, with --fold 0 to 4: {names}", 4)
    published = [f"{CRABNET}NAME\n{tables}", f"{MATBENCH}TASK\n{tasks}"]
    service = _wrapped(
        "  structures and properties of a service that speaks OPTIMADE, or of a provider such as "
        f"oqmd; pack --list {OPTIMADE}URL names its properties",
        4,
    )
    published.append(f"{OPTIMADE}URL\n{service}")
    own = "PATH\n  a .csv or .jsonl of your own, also .gz or .xz"
    return "\n\n".join([*entries, last, *published, own])


def _entry(name: str, source: Source, data_dir: Path | str | None) -> str:
    is_made = name == "alloys"
    rows = "as many as --rows says (20,000)" if is_made else "all rows of its table"
    if source.rows:
        low, high = source.rows
        rows = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        rows += f" ({source.rows_as_of})"
    lines = {
        "what": source.title,
        "form": "formulas and structures" if source.structures else "formulas",
        "rows": rows,
        "properties": ", ".join(
            f"{column} ({PROPERTIES[column].unit})" for column in source.properties
        ),
        "licence": source.licence,
        "from": _origin(name)
        if name in DOWNLOADS
        else "computed"
        if is_made
        else "a table that you put here yourself",
        "here": "always" if is_made else _here(name, data_dir),
    }
    return "\n".join([name, *(_wrapped(f"  {key:<12}{value}", 14) for key, value in lines.items())])


def _origin(name: str) -> str:
    """Return where the table of a source is downloaded from."""
    download = DOWNLOADS[name]
    if not download.has_wheel:
        return address(download)
    names = ", ".join(wheel.requirement for wheel in wheels_of(name))
    n_rows = wheel_source(name, SOURCES[name]).rows
    assert n_rows
    return f"the wheel {names} ({n_rows[0]:,} rows); with --live, {address(download)}"


def _wrapped(line: str, indent: int) -> str:
    """Wrap a line, but never between a name and its unit."""
    lines = textwrap.wrap(
        line.replace(" (", "\0("),
        WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0(", " (")


def _is_usable(name: str) -> bool:
    try:
        return bool(matminer_columns.dataset(name))
    except UserError:
        return False


def _dataset(name: str, data_dir: Path | str | None) -> str:
    known = matminer_columns.dataset(name)
    others = (*matminer_columns.STRUCTURES, *matminer_columns.FORMULAS, *matminer_columns.IDS)
    names = matminer_columns.table_names(
        name, [column for column in known["columns"] if column not in others]
    )
    columns = []
    for column, given in names.items():
        unit = PROPERTIES[given].unit if given in PROPERTIES else None
        unit = unit or matminer_columns.unit_in(column, known["columns"][column])
        columns.append(f"{given} ({unit})" if unit else given)
    form = "formulas and structures" if matminer_columns.has_structures(name) else "formulas"
    source = f"{MATMINER}{name}"
    rows = f"  {known['num_entries']:,} rows, {form}; here: {_here(source, data_dir)}"
    return "\n".join([source, rows, _wrapped(f"  columns: {', '.join(columns)}", 4)])


def _here(source: str, data_dir: Path | str | None) -> str:
    paths = resolve_source(source, data_dir).candidates()
    return ", ".join(str(path) for path in paths if path.is_file()) or "no"
