"""Resolve the text by which a user names a source. No other file interprets that text.

A source is a name in SOURCES, `matminer:` followed by the name of a dataset, `crabnet:` or
`matbench:` followed by the name of a benchmark, `optimade:` followed by a service, a path to a
table, or a pandas DataFrame.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.data.benchmarks import (
    CRABNET,
    MATBENCH,
    benchmark_source,
    task_of,
)
from irnet_hpc.data.download.optimade.query import OPTIMADE, read_query
from irnet_hpc.data.download.registry import DOWNLOADS, Download
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.raw_table import FOREIGN, OPENERS, ending_of
from irnet_hpc.data.reading import Reading
from irnet_hpc.data.sources import SOURCES, Source
from irnet_hpc.data.structures.formats import may_hold_structures, source_name
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME

if TYPE_CHECKING:
    import pandas

MATMINER = "matminer:"  # prefix of matminer's datasets
# The endings of tables of named sources. Those without structures come first, because they are
# faster to read.
PREFERRED = [ending for form in (".csv", ".jsonl") for ending in OPENERS if ending.startswith(form)]
# A text with such an ending is the path of a table, even if there is no such file.
ENDINGS = (*OPENERS, *FOREIGN, ".gz", ".xz", ".xls", ".ods")


AS_IT_IS = Reading()


@dataclasses.dataclass(frozen=True)
class ResolvedSource:
    """A source of materials: where its table is, or how to make or download it."""

    text: str  # the source as the user named it, for messages
    name: str  # the name of the source's raw table and packs
    source: Source  # what is known about the source before its table is read
    folder: Path  # the folder with the raw tables of named sources
    download: Download | None = None  # None: computed, or the user's own table
    path: Path | None = None  # path of the user's own table
    frame: "pandas.DataFrame | None" = None  # the user's own table as a DataFrame
    reading: Reading = AS_IT_IS  # how the user wants the table to be read

    @property
    def is_computed(self) -> bool:
        """Return True if the rows of the source are computed and not read."""
        return self.text == "alloys" and self.is_named

    @property
    def is_named(self) -> bool:
        """Return True if the source has a known name; a user's own table has none."""
        return self.path is None and self.frame is None

    @property
    def identity(self) -> str:
        """Return the source's entry in a pack: its name, or `file:` and the name of the table."""
        return self.text if self.is_named else f"file:{self.name}"

    @property
    def has_files(self) -> bool:
        """Return True for a folder, an archive or a file of structures that exists."""
        return self.path is not None and self.path.exists() and may_hold_structures(self.path)

    def candidates(self, structures: bool = False) -> list[Path]:
        """List the files that may be the raw table. The first one that exists is used."""
        endings = [ending for ending in PREFERRED if ending.startswith(".jsonl") or not structures]
        return [self.folder / f"{self.name}{ending}" for ending in endings]

    def table_path(self, structures: bool = False) -> Path | None:
        """Return the path of the raw table, with structures if required; None if none exists."""
        paths = self.candidates(structures) if self.path is None else [self.path]
        return next((path for path in paths if path.is_file() or self.has_files), None)

    def require_table(self, structures: bool = False) -> Path:
        """Return the path of the raw table. Raises UserError if none exists."""
        path = self.table_path(structures)
        if path is not None:
            return path
        if not self.is_named:
            is_there = self.path is not None and self.path.exists()
            why = "is not a file" if is_there else "does not exist"
            raise UserError(f"the raw table {self.text} {why}")
        table = "raw table with structures" if structures else "raw table"
        names = ", ".join(path.name for path in self.candidates(structures))
        raise UserError(
            f"no {table} of {self.text} was found in {self.folder}/ (looked for {names}); "
            "name another folder with --data-dir or $IRNET_DATA"
        )


def resolve_source(
    source: "str | Path | pandas.DataFrame | ResolvedSource",
    data_dir: Path | str | None = None,
    name: str = "table",
    reading: Reading | None = None,
) -> ResolvedSource:
    """Resolve a source once; all later steps take the returned record.

    Args:
        source: a name in SOURCES, `matminer:` followed by a dataset's name, `crabnet:` or
            `matbench:` followed by a benchmark's, `optimade:` followed by a service, a path to a
            table, or a DataFrame.
        data_dir: folder of raw tables; default: $IRNET_DATA, else `data`.
        name: name to give to a DataFrame, which has no name of its own.
        reading: how the user wants the user's own table to be read; None: as it is.

    Raises:
        UserError: if `source` is none of these, or if `reading` is for a named source. A missing
            table is reported only on reading.

    Examples:
        >>> names = ("oqmd", "matminer:expt_gap", "my/oxides.csv.xz")
        >>> [resolve_source(name).name for name in names]
        ['oqmd', 'matminer-expt_gap', 'oxides']
    """
    if isinstance(source, ResolvedSource):
        return source
    resolved = _resolve(source, data_folder(data_dir), name)
    if reading is None:
        return resolved
    stated = reading.settings()
    if resolved.text.startswith(OPTIMADE) and resolved.is_named:
        stated.pop("rename", None)  # its columns have the names of the provider
    if resolved.is_named and stated:
        raise UserError(
            f"{', '.join(stated)} can be stated for a table of your own, but {resolved.text} is a "
            "named source, whose columns have the names of this package"
        )
    return dataclasses.replace(resolved, reading=reading)


def _resolve(source: "str | Path | pandas.DataFrame", folder: Path, name: str) -> ResolvedSource:
    if not isinstance(source, str | Path):
        if not all(hasattr(source, name) for name in ("to_csv", "columns")):
            raise UserError(
                f"a source must be a name, a path or a DataFrame, got {type(source).__name__}"
            )
        return ResolvedSource(name, _plain(name), _own(name), folder, frame=source)
    text = str(source)
    if isinstance(source, str) and text in SOURCES:
        return ResolvedSource(text, text, SOURCES[text], folder, DOWNLOADS.get(text))
    if text.startswith(MATMINER):
        dataset = text.removeprefix(MATMINER)
        if not NAME.fullmatch(dataset):
            raise UserError(
                f"the name of a matminer dataset must be letters, digits and _, got {dataset!r}"
            )
        download = Download("", dataset=dataset)
        return ResolvedSource(text, f"matminer-{dataset}", _own(text), folder, download)
    if text.startswith((CRABNET, MATBENCH)):
        known = benchmark_source(text)
        if text.startswith(MATBENCH):
            text = f"{MATBENCH}{task_of(text)}"
        name = text.replace(":", "-")
        return ResolvedSource(text, name, known, folder, Download("", has_wheel=True))
    if isinstance(source, str) and text.startswith(OPTIMADE):
        query = read_query(text)
        known = _own(query.text)._replace(structures=True)
        return ResolvedSource(query.text, query.name, known, folder, Download("", query=query))
    path = Path(source)
    holds = may_hold_structures(path)
    if "/" in text or path.exists() or holds or text.endswith(ENDINGS):
        stem = source_name(path) if holds else path.name.removesuffix(ending_of(path))
        return ResolvedSource(text, _plain(stem), _own(text), folder, path=path)
    prefixed = [f"{MATMINER}NAME", f"{CRABNET}NAME", f"{MATBENCH}TASK"]
    prefixed.append(f"{OPTIMADE}URL")
    check_choice("source", text, [*SOURCES, *prefixed, "a path to a table"])
    raise AssertionError("unreachable: the name is unknown")


def data_folder(data_dir: Path | str | None = None) -> Path:
    """Return the folder of raw tables: `data_dir`, else $IRNET_DATA, else `data`."""
    return Path(data_dir or os.environ.get("IRNET_DATA") or "data")


def _own(title: str) -> Source:
    return Source(title, tuple(PROPERTIES))


def _plain(name: str) -> str:
    """Replace characters of a name so that it can be part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", name).strip("_.-=") or "table"
