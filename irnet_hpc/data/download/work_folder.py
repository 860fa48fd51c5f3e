"""Keep the folder of a download in progress, and move the finished table to its place.

The folder holds a lock, and either the plan and the pages so far, or the downloaded part of a file.
Each page is saved completely or not at all, so a killed download can resume without fetching a page
twice. At the end the table and its description are put in place, and the folder is removed.
"""

import contextlib
import gzip
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from irnet_hpc.data.download.records import WrittenTable, write_about
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.sources import Source
from irnet_hpc.files import exclusive, replacing

logger = logging.getLogger(__name__)


def folder_of(folder: Path, name: str) -> Path:
    """Return the folder in which table `name` is downloaded, inside a data folder."""
    return folder / f".{name}.download"


def tidy(folder: Path, name: str) -> None:
    """Remove the pages of a finished download that was killed before it removed them itself."""
    work = folder_of(folder, name)
    if kept_pages(work) and not (work / "plan.json").exists():
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[Path]:
    """Wait until no other process uses the folder of a download, then lock and yield it."""
    work = folder_of(folder, name)

    def say_waiting(_: str) -> None:
        logger.info("another process is downloading %s; waiting until it ends", name)

    with exclusive(work / "lock", say_waiting):
        try:
            yield work
        finally:
            with contextlib.suppress(FileNotFoundError):
                if [path.name for path in work.iterdir()] == ["lock"]:
                    shutil.rmtree(work)


def kept_pages(work: Path) -> dict[int, Path]:
    """Return page number -> file for all pages saved so far, in order."""
    return {int(path.name[:6]): path for path in sorted(work.glob("[0-9]*-*.json.gz"))}


def keep_only(sound: Mapping[int, Path], kept: Mapping[int, Path]) -> None:
    """Remove the pages of an earlier download that cannot be used, and say how many can.

    Args:
        sound: page number -> file of each page that is used.
        kept: page number -> file of all pages that the folder had.
    """
    for path in set(kept.values()) - set(sound.values()):
        path.unlink()
    if kept:
        logger.info(
            "%s of %s pages of an earlier download are sound and kept",
            f"{len(sound):,}",
            f"{len(kept):,}",
        )


def is_sound(path: Path) -> bool:
    """Return True if a saved page is undamaged, according to the hash in its name."""
    return hashlib.sha256(path.read_bytes()).hexdigest() == path.name[7:71]


def write_page(work: Path, page: int, rows: Any) -> None:
    """Save the rows of a page, or another content that JSON can hold."""
    text = json.dumps(rows, separators=(",", ":"))
    packed = gzip.compress(text.encode(), compresslevel=4, mtime=0)
    with replacing(work / f"{page:06d}-{hashlib.sha256(packed).hexdigest()}.json.gz") as temporary:
        temporary.write_bytes(packed)


def read_page(path: Path) -> Any:
    """Read what `write_page` has saved."""
    return json.loads(gzip.decompress(path.read_bytes()))


def place_table(
    new: Path, table: Path, source: Source, written: WrittenTable, about: Mapping[str, Any]
) -> None:
    """Move a table from the download's folder to its final place, and remove the folder.

    Args:
        new: the path of the table in the download's folder.
        table: the final path of the table.
        source: the source, with title, licence and citation.
        written: the outcome of writing the table.
        about: other facts to record beside the table: source, url, and perhaps units and notes.
    """
    units = {name: PROPERTIES[name].unit for name in written.n_reported if name in PROPERTIES}
    known = {"title": source.title, "licence": source.licence, "citation": source.citation}
    write_about(table, written, {**known, **about, "units": units | about.get("units", {})})
    new.replace(table)
    # Without a plan, no later process resumes from these pages.
    (new.parent / "plan.json").unlink(missing_ok=True)
    # Another process may be removing the folder at the same time.
    shutil.rmtree(new.parent, ignore_errors=True)
    size_mb = table.stat().st_size / 2**20
    logger.info("wrote %s: %s rows, %s MiB", table, f"{written.n_rows:,}", f"{size_mb:,.1f}")
    for note in [*about.get("notes", ()), *written.remarks()]:
        logger.info("note: %s", note)
