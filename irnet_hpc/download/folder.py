"""A download's folder: the pages that are there, held by one process at a time.

data/.oqmd.download/lock                       held by the one process that downloads this table
data/.oqmd.download/plan.json                  what is asked for, in pages of how many rows, of how many in all
data/.oqmd.download/000017-<hash>.json.gz      a page; its name holds the hash of its bytes
"""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from irnet_hpc.download import fetching
from irnet_hpc.files import lock, replacing


def tidy(folder: Path, name: str) -> None:
    """Remove what is left of a download that was killed when all was done but this: pages without a plan."""
    work = folder / f".{name}.download"
    if kept(work) and not (work / "plan.json").exists():
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[Path]:
    """The folder of a download, once no other process is at it."""
    work = folder / f".{name}.download"
    with _locked(work, name):
        try:
            yield work
        finally:
            with contextlib.suppress(FileNotFoundError):
                if [path.name for path in work.iterdir()] == ["lock"]:  # nothing to go on from
                    shutil.rmtree(work)


def _locked(work: Path, name: str) -> IO[str]:
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            file = (work / "lock").open("a")
        except FileNotFoundError:  # whoever had the folder removes it at this moment
            continue
        if not lock(file):
            fetching.say(f"another process downloads {name}; waiting for it")
            lock(file, wait=True)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), (work / "lock").stat()):
                return file
        file.close()  # whoever had it finished and removed the folder: what is locked here is a file that is gone


def kept(work: Path) -> dict[int, Path]:
    """Page -> its file, in order."""
    return {int(path.name[:6]): path for path in sorted(work.glob("[0-9]*-*.json.gz"))}


def is_sound(path: Path) -> bool:
    """Whether a page is as it was written."""
    return hashlib.sha256(path.read_bytes()).hexdigest() == path.name[7:71]


def write_page(work: Path, page: int, rows: list[dict]) -> None:
    packed = gzip.compress(json.dumps(rows, separators=(",", ":")).encode(), compresslevel=4, mtime=0)
    with replacing(work / f"{page:06d}-{hashlib.sha256(packed).hexdigest()}.json.gz") as temporary:
        temporary.write_bytes(packed)


def read_page(path: Path) -> list[dict]:
    return json.loads(gzip.decompress(path.read_bytes()))
