"""Spoil files and archives of structures."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

from irnet_hpc.data.reading import Reading
from irnet_hpc.data.structures.listing import list_structures
from tests.data.structures.files import JARVIS, POSCAR, PYMATGEN, XYZ, ase_atoms, cif
from tests.robustness import mutants
from tests.robustness.kinds import Kind, make_nothing

MIXED = ("Na1 Na 0 0 0 0.5", "K1 K 0 0 0 0.5", "Cl1 Cl 0.5 0.5 0.5 1")
GROUP = "_symmetry_space_group_name_H-M 'F m -3 m'\n"
FILES = {
    "a.cif": cif() + cif(*MIXED, name="b", symmetry=GROUP),
    "POSCAR": POSCAR,
    "a.xyz": XYZ * 2,
    "a.json": json.dumps([{"jid": "J-1", "atoms": JARVIS, "ehull": 0.1}]),
    "b.json": json.dumps(PYMATGEN),
    "c.json": json.dumps({"1": ase_atoms(), "ids": [1], "nextid": 2}),
}


def packed_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in FILES.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return stream.getvalue()


def packed_tar(mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, text in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return stream.getvalue()


ARCHIVES = {"t.zip": packed_zip(), "t.tar": packed_tar("w"), "t.tar.xz": packed_tar("w:xz")}
ALL = (*FILES, *ARCHIVES)


def spoil(folder: Path, number: int) -> None:
    """Spoil the text of a file or the bytes of an archive, of each kind in turn."""
    for name in ALL:
        (folder / name).unlink(missing_ok=True)
    name = ALL[number % len(ALL)]
    if name in ARCHIVES:
        (folder / name).write_bytes(mutants.spoil_bytes(ARCHIVES[name], number))
    else:
        (folder / name).write_bytes(mutants.spoil_text(FILES[name], number))


def read(folder: Path) -> object:
    for path in (folder / name for name in ALL):
        if path.exists():
            list(list_structures(path, Reading()).text.lines())
    return None


KINDS = {"structures": Kind(make_nothing, spoil, read, False)}
