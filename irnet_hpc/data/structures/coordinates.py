"""Read POSCAR files by pymatgen and extended XYZ files by ASE, and refuse what they would guess."""

import io
import re
import warnings
from typing import Any

from irnet_hpc.data.crystals import Unsuitable
from irnet_hpc.data.structures.entries import (
    MAX_SITES,
    NO_CELL,
    NO_ELEMENT,
    NOT_READABLE,
    entry_of_atoms,
    entry_of_pymatgen,
)

Found = list[tuple[str, dict[str, Any] | Unsuitable]]
COUNTS = re.compile(r"\s*[0-9]+(?:\s+[0-9]+)*\s*(?:[!#].*)?")
N_HEAD = 45  # lines of a POSCAR in which the numbers of atoms may be


def poscar_entries(text: str) -> Found:
    """Read a POSCAR or CONTCAR of VASP; it is one structure, without a name.

    pymatgen-core 2026.10 calls the elements H, He, Li, ... if a POSCAR of VASP 4 does not name
    them (`true_names` is False then), and makes as many atoms as the file says it has.
    """
    from pymatgen.io.vasp import Poscar

    lines = text.splitlines()
    counts = [line for line in lines[5:N_HEAD] if COUNTS.fullmatch(line)]
    n_sites = sum(int(n) for line in counts for n in re.findall(r"[0-9]{1,12}", line))
    if n_sites > MAX_SITES or n_sites > len(lines):
        return [("", Unsuitable(NOT_READABLE, f"it has fewer lines than the {n_sites:,} atoms"))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            poscar = Poscar.from_str(text, read_velocities=False)
        if not poscar.true_names:
            return [("", Unsuitable(NO_ELEMENT, "a POSCAR of VASP 4 that does not name them"))]
        return [("", entry_of_pymatgen(poscar.structure))]
    except Unsuitable as error:
        return [("", error)]
    except Exception as error:  # the parser raises whatever a damaged file leads to
        text = " ".join(str(error).split())
        detail = f"pymatgen: {type(error).__name__}: {text:.150}"
        return [("", Unsuitable(NOT_READABLE, detail))]


def xyz_entries(text: str) -> Found:
    """Read the frames of an extended XYZ file, whose names are their numbers.

    A frame whose second line states no `Lattice` is a molecule, which has no cell.
    """
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    frames: Found = []
    start = 0
    while start < len(lines):
        name = str(len(frames) + 1)
        count = lines[start].strip()
        stop = start + 2 + int(count) if re.fullmatch("[0-9]{1,8}", count) else 0
        if not start + 2 < stop <= len(lines):
            fault = "the number of its atoms must be followed by a line and one for each atom"
            frames.append((name, Unsuitable(NOT_READABLE, fault)))
            break
        frames.append((name, _frame(lines[start:stop])))
        start = stop
    if not frames:
        frames.append(("", Unsuitable("a structure without atoms", "")))
    return [("", found) for _, found in frames] if len(frames) == 1 else frames


def _frame(lines: list[str]) -> dict[str, Any] | Unsuitable:
    from ase.io import read

    if not re.search(r"\bLattice\s*=", lines[1], re.I):
        return Unsuitable(NO_CELL, "its second line states no Lattice")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms: Any = read(io.StringIO("\n".join(lines) + "\n"), format="extxyz")
        return entry_of_atoms(atoms.cell.array, atoms.numbers, atoms.positions, atoms.pbc)
    except Unsuitable as error:
        return error
    except Exception as error:  # the parser raises whatever a damaged file leads to
        text = " ".join(str(error).split())
        return Unsuitable(NOT_READABLE, f"ase: {type(error).__name__}: {text:.150}")
