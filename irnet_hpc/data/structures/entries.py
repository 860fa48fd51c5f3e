"""Turn the structure of another library into the object of a JSON line, as raw_jsonl.py reads it.

Numbers and symbols are taken from dictionaries one by one. No class that a file names is loaded:
pymatgen 2026.10's `PeriodicSite.from_dict` gives the properties of a site to monty's MontyDecoder,
which imports the module that `@module` names, so dictionaries are not given to it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irnet_hpc.data.crystals import MIN_VOLUME, Unsuitable
from irnet_hpc.data.elements import NUMBER, SYMBOLS

NOT_READABLE = "structure not readable"
NO_CELL = "a molecule without a cell"
NO_ELEMENT = "a site on no element"
MAX_SITES = 100_000
# Names of pymatgen and of ASE for isotopes of hydrogen.
ISOTOPES = {"D": "H", "T": "H"}
LABEL = re.compile(r"([A-Z][a-z]?)(?:[0-9]*\.?[0-9]*[+-])?")

Site = str | dict[str, float]


def entry_of(lattice: Any, species: Sequence[Site], positions: Any) -> dict[str, Any]:
    """Make the object of a structure.

    Args:
        lattice: (3, 3) in Å, one vector per row.
        species: (n_sites,) the symbol of each site, or its symbols and occupancies.
        positions: (n_sites, 3) fractional; they are brought into the cell.

    Raises:
        Unsuitable: If the numbers are not finite or their shapes do not fit.
    """
    matrix = _numbers(lattice, "its lattice", (3, 3))
    if not len(species):
        raise Unsuitable("a structure without atoms", "")
    if len(species) > MAX_SITES:
        raise Unsuitable("crystal too large", f"{len(species):,} sites, more than {MAX_SITES:,}")
    fractional = _numbers(positions, "its coordinates", (len(species), 3)) % 1
    # The remainder of a number just below 0 rounds to 1.
    fractional[fractional == 1] = 0
    return {
        "lattice": matrix.tolist(),
        "species": list(species),
        "frac_coords": fractional.tolist(),
    }


def fractional(lattice: Any, cartesian: Any) -> np.ndarray:
    """Convert positions in Å, (n_sites, 3), to fractional ones.

    Raises:
        Unsuitable: If the lattice has no volume, as that of a molecule.
    """
    matrix = _numbers(lattice, "its lattice", (3, 3))
    if not abs(np.linalg.det(matrix)) > MIN_VOLUME:
        raise Unsuitable(NO_CELL, "")
    points = np.array(cartesian, np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise Unsuitable(NOT_READABLE, "its coordinates must be three numbers for each site")
    return np.linalg.solve(matrix.T, points.T).T


def symbol_of(number: Any) -> str:
    """Return the symbol of an atomic number. Raises Unsuitable if there is no such element."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise Unsuitable(NO_ELEMENT, f"atomic number {number!r:.50}")
    if not 1 <= number <= len(SYMBOLS):
        raise Unsuitable(NO_ELEMENT, f"atomic number {number}")
    return SYMBOLS[int(number) - 1]


def plain_symbol(label: Any) -> str:
    """Return the element of a symbol, with or without a charge. Raises Unsuitable for others."""
    match = LABEL.fullmatch(label.strip()) if isinstance(label, str) else None
    symbol = ISOTOPES.get(match[1], match[1]) if match else ""
    if symbol not in NUMBER:
        raise Unsuitable(NO_ELEMENT, f"{label!r:.50}")
    return symbol


def entry_of_object(structure: Any) -> dict[str, Any]:
    """Make the object of a structure of pymatgen, ASE or JARVIS, or of a dictionary of theirs.

    Raises:
        Unsuitable: If it is no structure, or one that cannot be read.
    """
    if isinstance(structure, Mapping):
        return entry_of_dict(structure)
    if hasattr(structure, "lattice_mat") and hasattr(structure, "frac_coords"):  # jarvis-tools
        symbols = [plain_symbol(label) for label in structure.elements]
        return entry_of(structure.lattice_mat, symbols, structure.frac_coords)
    if hasattr(structure, "lattice") and hasattr(structure, "sites"):  # pymatgen
        return entry_of_pymatgen(structure)
    if hasattr(structure, "sites"):
        raise Unsuitable(NO_CELL, "")
    if hasattr(structure, "numbers") and hasattr(structure, "cell"):  # ASE
        return entry_of_atoms(
            np.array(structure.cell), structure.numbers, structure.positions, structure.pbc
        )
    raise Unsuitable(NOT_READABLE, f"no structure, but {type(structure).__name__}")


def entry_of_pymatgen(structure: Any) -> dict[str, Any]:
    """Make the object of a structure of pymatgen."""
    species: list[Site] = []
    for site in structure:
        occupancies: dict[str, float] = {}
        for kind, occupancy in site.species.items():
            # A DummySpecies has an atomic number, too, which is made of its name.
            label = getattr(kind, "symbol", str(kind))
            symbol = plain_symbol(label)
            occupancies[symbol] = occupancies.get(symbol, 0.0) + float(occupancy)
        species.append(_site(occupancies))
    return entry_of(structure.lattice.matrix, species, structure.frac_coords)


def entry_of_atoms(cell: Any, numbers: Any, positions: Any, periodic: Any) -> dict[str, Any]:
    """Make the object of ASE's atoms.

    Args:
        cell: (3, 3) in Å.
        numbers: (n_sites,) atomic numbers.
        positions: (n_sites, 3) in Å.
        periodic: Whether the directions of the cell are periodic, three or one.
    """
    if not np.any(periodic):
        raise Unsuitable(NO_CELL, "")
    symbols = [symbol_of(number) for number in np.array(numbers).tolist()]
    return entry_of(cell, symbols, fractional(cell, positions))


def entry_of_dict(structure: Mapping[str, Any]) -> dict[str, Any]:
    """Make the object of a dictionary of pymatgen, ASE or JARVIS.

    Raises:
        Unsuitable: If it is none of these.
    """
    try:
        if "lattice_mat" in structure:
            return _jarvis(structure)
        if "sites" in structure:
            return _pymatgen(structure)
        if "numbers" in structure and "positions" in structure:
            cell = _array(structure.get("cell", np.zeros((3, 3))))
            periodic = _array(structure.get("pbc", False))
            return entry_of_atoms(
                cell, _array(structure["numbers"]), _array(structure["positions"]), periodic
            )
        if {"species", "lattice", "frac_coords"} <= structure.keys():
            species = [
                plain_symbol(site)
                if isinstance(site, str)
                else _site({plain_symbol(label): float(n) for label, n in site.items()})
                for site in structure["species"]
            ]
            return entry_of(structure["lattice"], species, structure["frac_coords"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, Unsuitable):
            raise
        text = f"{type(error).__name__}: {error}"
        raise Unsuitable(NOT_READABLE, f"not as its library writes it ({text:.100})") from None
    raise Unsuitable(NOT_READABLE, "no structure of pymatgen, ASE or JARVIS")


def is_structure(value: object) -> bool:
    """Return True for a dictionary that looks like a structure of entry_of_dict."""
    return isinstance(value, Mapping) and any(
        all(isinstance(value.get(key), list | Mapping) for key in keys)
        for keys in (("lattice_mat", "coords", "elements"), ("sites",), ("numbers", "positions"))
    )


def _jarvis(structure: Mapping[str, Any]) -> dict[str, Any]:
    lattice, points = structure["lattice_mat"], structure["coords"]
    symbols = [plain_symbol(label) for label in structure["elements"]]
    is_cartesian = structure.get("cartesian", False)
    return entry_of(lattice, symbols, fractional(lattice, points) if is_cartesian else points)


def _pymatgen(structure: Mapping[str, Any]) -> dict[str, Any]:
    if "lattice" not in structure:
        raise Unsuitable(NO_CELL, "")
    species, points = [], []
    for site in structure["sites"]:
        occupancies: dict[str, float] = {}
        for kind in site["species"]:
            symbol = plain_symbol(kind["element"])
            occupancies[symbol] = occupancies.get(symbol, 0.0) + float(kind.get("occu", 1))
        species.append(_site(occupancies))
        points.append(site["abc"])
    return entry_of(structure["lattice"]["matrix"], species, points)


def _site(occupancies: dict[str, float]) -> Site:
    """Return the symbol of a full site, else its symbols and occupancies."""
    if not occupancies:
        raise Unsuitable(NO_ELEMENT, "a site has no species")
    if not all(0 < occupancy < math.inf for occupancy in occupancies.values()):
        raise Unsuitable(NOT_READABLE, f"occupancies must be above 0, got {occupancies}")
    return next(iter(occupancies)) if list(occupancies.values()) == [1] else occupancies


def _array(value: Any) -> np.ndarray:
    """Return an array as ASE 3 writes it in JSON: a list, or `__ndarray__` with its shape."""
    if isinstance(value, Mapping) and "array" in value:  # a cell
        value = value["array"]
    if isinstance(value, Mapping) and "__ndarray__" in value:
        shape, _, flat = value["__ndarray__"]
        return np.array(flat).reshape(shape)
    array = np.array(value)
    return array.reshape(3, 3) if array.shape == (9,) else array


def _numbers(values: Any, kind: str, shape: tuple[int, int]) -> np.ndarray:
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise Unsuitable(NOT_READABLE, f"{kind} must be {shape[0]} × {shape[1]} finite numbers")
    return array
