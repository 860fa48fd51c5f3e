"""Files of structures, as their programs write them, with what a test wants to differ."""

import json
from pathlib import Path

CELL = """_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
"""
IDENTITY = "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n"
HEADER = "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n"
HEADER += "_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
ROCK_SALT = ("Na1 Na 0 0 0 1", "Cl1 Cl 0.5 0.5 0.5 1")
POSCAR = """NaCl
1.0
3.4 0 0
0 3.4 0
0 0 3.4
Na Cl
1 1
Direct
0 0 0
0.5 0.5 0.5
"""
XYZ = """2
Lattice="3.4 0 0 0 3.4 0 0 0 3.4" Properties=species:S:1:pos:R:3 pbc="T T T"
Na 0 0 0
Cl 1.7 1.7 1.7
"""
PYMATGEN = {
    "@module": "pymatgen.core.structure",
    "@class": "Structure",
    "lattice": {"matrix": [[3.4, 0, 0], [0, 3.4, 0], [0, 0, 3.4]]},
    "sites": [
        {"species": [{"element": "Na", "occu": 1}], "abc": [0, 0, 0]},
        {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5]},
    ],
}
JARVIS = {
    "lattice_mat": [[3.4, 0, 0], [0, 3.4, 0], [0, 0, 3.4]],
    "coords": [[0, 0, 0], [1.7, 1.7, 1.7]],
    "elements": ["Na", "Cl"],
    "cartesian": True,
}


def ase_atoms(periodic: bool = True) -> dict:
    """Return atoms as `ase.io.jsonio` writes them."""
    cell = [3.4, 0.0, 0.0, 0.0, 3.4, 0.0, 0.0, 0.0, 3.4]
    return {
        "numbers": {"__ndarray__": [[2], "int64", [11, 17]]},
        "positions": {"__ndarray__": [[2, 3], "float64", [0, 0, 0, 1.7, 1.7, 1.7]]},
        "cell": {
            "array": {"__ndarray__": [[3, 3], "float64", cell]},
            "__ase_objtype__": "cell",
        },
        "pbc": {"__ndarray__": [[3], "bool", [periodic] * 3]},
    }


def cif(*sites: str, symmetry: str = IDENTITY, more: str = "", name: str = "x") -> str:
    """Return a block of a CIF: a cubic cell of 5.64 Å with these sites."""
    rows = "\n".join(sites or ROCK_SALT)
    return f"data_{name}\n{CELL}{more}{symmetry}{HEADER}{rows}\n"


def folder(path: Path, files: dict[str, str]) -> Path:
    """Write a folder of files."""
    for name, text in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return path


def dumped(value: object) -> bytes:
    """Return a JSON document."""
    return json.dumps(value).encode()
