"""Resolve what a user names as a source: the only reader of such text.

A source is a name in SOURCES, `matminer:` and the name of a dataset, a path to a table, or a pandas
DataFrame.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.data.download.registry import DOWNLOADS, Download
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.raw_table import OPENERS, ending_of
from irnet_hpc.data.sources import SOURCES, Source
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME

if TYPE_CHECKING:
    import pandas

MATMINER = "matminer:"  # prefix of matminer's datasets
# Tables without structures come first: they are read sooner.
PREFERRED = sorted(OPENERS, key=lambda ending: ending.startswith(".jsonl"))


@dataclasses.dataclass(frozen=True)
class ResolvedSource:
    """A source of materials: where its table is, or how to get it."""

    text: str  # as the user gave it, for messages
    name: str  # the name of its raw table and its packs
    source: Source  # what is known of it without its table
    folder: Path  # where the raw tables of named sources are
    download: Download | None = None  # None: computed, or the user's own table
    path: Path | None = None  # where the user's own table is
    frame: "pandas.DataFrame | None" = None  # the user's own table

    @property
    def is_computed(self) -> bool:
        """Tell whether its rows are computed instead of read."""
        return self.text == "alloys" and self.is_named

    @property
    def is_named(self) -> bool:
        """Tell whether it has a name of its own, unlike a table of the user's."""
        return self.path is None and self.frame is None

    @property
    def identity(self) -> str:
        """Return what a pack records: the source's name, or `file:` and the table's."""
        return self.text if self.is_named else f"file:{self.name}"

    def candidates(self, structures: bool = False) -> list[Path]:
        """List the files that may be its raw table, of which the first that exists counts."""
        endings = [ending for ending in PREFERRED if ending.startswith(".jsonl") or not structures]
        return [self.folder / f"{self.name}{ending}" for ending in endings]

    def table_path(self, structures: bool = False) -> Path | None:
        """Return the path of its raw table, with structures if required; None if there is none."""
        paths = self.candidates(structures) if self.path is None else [self.path]
        return next((path for path in paths if path.is_file()), None)

    def require_table(self, structures: bool = False) -> Path:
        """Return the path of its raw table. Raises UserError if there is none."""
        path = self.table_path(structures)
        if path is not None:
            return path
        if not self.is_named:
            raise UserError(f"there is no raw table {self.text}")
        table = "raw table with structures" if structures else "raw table"
        names = ", ".join(path.name for path in self.candidates(structures))
        raise UserError(
            f"no {table} of {self.text} in {self.folder}/: looked for {names}; "
            "name another folder by --data-dir or $IRNET_DATA"
        )


def resolve_source(
    source: "str | Path | pandas.DataFrame | ResolvedSource",
    data_dir: Path | str | None = None,
    name: str = "table",
) -> ResolvedSource:
    """Resolve a source once; everything later takes the record.

    Args:
        source: a name in SOURCES, `matminer:` and a dataset's name, a path to a table, or a
            DataFrame.
        data_dir: folder of raw tables, else $IRNET_DATA, else `data`.
        name: name of a DataFrame, which has none of its own.

    Raises:
        UserError: if it is none of these. Whether a table exists is checked when it is read.

    Examples:
        >>> names = ("oqmd", "matminer:expt_gap", "my/oxides.csv.xz")
        >>> [resolve_source(name).name for name in names]
        ['oqmd', 'matminer-expt_gap', 'oxides']
    """
    if isinstance(source, ResolvedSource):
        return source
    folder = data_folder(data_dir)
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
                f"the name of a dataset of matminer must be letters, digits and _, got {dataset!r}"
            )
        download = Download("", dataset=dataset)
        return ResolvedSource(text, f"matminer-{dataset}", _own(text), folder, download)
    path = Path(source)
    if "/" in text or path.exists() or path.suffix in (".csv", ".jsonl", ".gz", ".xz"):
        stem = path.name.removesuffix(ending_of(path))
        return ResolvedSource(text, _plain(stem), _own(text), folder, path=path)
    check_choice("source", text, [*SOURCES, f"{MATMINER}NAME", "a path to a table"])
    raise AssertionError("unreachable: the name is unknown")


def data_folder(data_dir: Path | str | None = None) -> Path:
    """Return the folder of raw tables: `data_dir`, else $IRNET_DATA, else `data`."""
    return Path(data_dir or os.environ.get("IRNET_DATA") or "data")


def _own(title: str) -> Source:
    return Source(title, tuple(PROPERTIES))


def _plain(name: str) -> str:
    """Return a name that can be part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", name).strip("_.-=") or "table"
