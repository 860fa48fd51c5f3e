"""Tell by its name what a file of structures is, and how it may be packed."""

import bz2
import gzip
import lzma
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from irnet_hpc.data.raw_table import FOREIGN, OPENERS

CIF, POSCAR, XYZ, JSON = "cif", "poscar", "xyz", "json"
ENDINGS = {
    ".cif": CIF,
    ".vasp": POSCAR,
    ".poscar": POSCAR,
    ".contcar": POSCAR,
    ".xyz": XYZ,
    ".extxyz": XYZ,
    ".json": JSON,
}
# VASP's own names, also POSCAR_NaCl and POSCAR.mp-22862.
OF_VASP = re.compile(r"(POSCAR|CONTCAR)(?:[._-].*)?")
MAX_NAME = 300  # characters of a file's name or an id
CELLS = (".csv", ".tsv", ".jsonl", *FOREIGN)
PACKED: dict[str, Callable] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
ARCHIVES = (
    *(".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
)  # fmt: skip
# Endings of single files of structures; .json is also a table.
SINGLE = tuple(
    f"{ending}{packing}" for ending in ENDINGS for packing in ("", *PACKED) if ending != ".json"
) + tuple(f".json{packing}" for packing in PACKED)


def kind_of(name: str) -> str:
    """Return the format of a file of structures; empty for any other file.

    >>> kind_of("a/NaCl.cif.gz"), kind_of("mp-1/POSCAR"), kind_of("notes.txt")
    ('cif', 'poscar', '')
    """
    base = without_packing(PurePosixPath(name).name)
    ending = PurePosixPath(base).suffix.lower()
    if ending in ENDINGS:
        return ENDINGS[ending]
    return POSCAR if OF_VASP.fullmatch(base) and not base.endswith(CELLS) else ""


def without_packing(name: str) -> str:
    """Remove .gz, .bz2 or .xz from a name."""
    ending = next((ending for ending in PACKED if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def stem_of(name: str) -> str:
    """Return the name of a file of structures without folder and ending.

    A file that has a name of VASP is called by its folder.

    >>> stem_of("a/NaCl.cif.gz"), stem_of("mp-1/POSCAR"), stem_of("POSCAR_MgO")
    ('NaCl', 'mp-1', 'MgO')
    """
    path = PurePosixPath(without_packing(name))
    if path.suffix.lower() in ENDINGS:
        stem = path.name[: -len(path.suffix)]
        return stem if not OF_VASP.fullmatch(stem) else _of_vasp(path, stem)
    return _of_vasp(path, path.name) if OF_VASP.fullmatch(path.name) else path.name


def _of_vasp(path: PurePosixPath, name: str) -> str:
    return re.sub(r"^(POSCAR|CONTCAR)[._-]?", "", name) or path.parent.name or name


def archive_ending(name: str) -> str:
    """Return the ending of an archive's name; empty if it is none."""
    fitting = [ending for ending in ARCHIVES if name.lower().endswith(ending)]
    return max(fitting, key=len, default="")


def printable(name: str) -> str:
    """Return a name that can be stored: UTF-8 without control characters, and not too long."""
    text = name.encode("utf-8", "replace").decode("utf-8")
    return "".join(char if char.isprintable() else "?" for char in text)[:MAX_NAME]


def may_hold_structures(path: Path) -> bool:
    """Return True for a folder, an archive, or a single file of structures.

    A .json or .jsonl may also be a table of cells; see documents.py.
    """
    if path.is_dir():
        return True
    name = path.name
    is_table = name.endswith((*OPENERS, *FOREIGN))
    return bool(archive_ending(name)) or (bool(kind_of(name)) and not is_table)


def source_name(path: Path) -> str:
    """Return the name of a source of structures, without its ending."""
    if path.is_dir():
        return path.resolve().name
    ending = archive_ending(path.name)
    return path.name[: len(path.name) - len(ending)] if ending else stem_of(path.name)
