"""Find out which columns of matminer's datasets are properties, and in which units they are.

The datasets are described in https://hackingmaterials.lbl.gov/matminer/dataset_summary.html.
"""

import importlib.util
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME

STRUCTURES = ("structure", "final_structure")
FORMULAS = ("formula", "composition", "pretty_formula")
IDS = ("jid", "material_id", "mpid")

# dataset -> column -> property, where meaning and unit are those of PROPERTIES. Other columns keep
# their names: mu_b is per formula unit in some datasets, e_form per cell in castelli_perovskites,
# log10(K_VRH) is no modulus. Units that the metadata leaves open: moduli of JARVIS and of de Jong
# et al. 2015 are GPa; e_form of matbench is eV/atom (Dunn et al., npj Comput. Mater. 6, 138 (2020),
# table 2); energies of wolverton_oxides are "eV", but in the authors' own table "[eV/atom]" (Emery
# and Wolverton, Sci. Data 4, 170153 (2017)).
_MP = {
    "e_form": "formation_energy",
    "gap pbe": "band_gap",
    "e_hull": "energy_above_hull",
    "mu_b": "total_magnetization",  # "of the unit cell"
    "bulk modulus": "bulk_modulus",
    "shear modulus": "shear_modulus",
}
_JARVIS = {
    "e_form": "formation_energy",
    "gap opt": "band_gap",
    "gap tbmbj": "band_gap_mbj",
    "bulk modulus": "bulk_modulus",
    "shear modulus": "shear_modulus",
}
CANONICAL: dict[str, dict[str, str]] = {
    "mp_all_20181018": _MP,
    "mp_nostruct_20181018": _MP,
    "jarvis_dft_3d": _JARVIS,
    "jarvis_dft_2d": {
        "e_form": "formation_energy",
        "gap opt": "band_gap",
        "gap tbmbj": "band_gap_mbj",
    },
    "jarvis_ml_dft_training": _JARVIS,
    "matbench_mp_gap": {"gap pbe": "band_gap"},
    "matbench_mp_e_form": {"e_form": "formation_energy"},
    "matbench_expt_gap": {"gap expt": "band_gap"},
    "expt_gap": {"gap expt": "band_gap"},
    "expt_gap_kingsbury": {"expt_gap": "band_gap"},
    "flla": {"e_above_hull": "energy_above_hull", "formation_energy_per_atom": "formation_energy"},
    "brgoch_superhard_training": {"bulk_modulus": "bulk_modulus", "shear_modulus": "shear_modulus"},
    "elastic_tensor_2015": {"K_VRH": "bulk_modulus", "G_VRH": "shear_modulus", "volume": "volume"},
    "dielectric_constant": {"band_gap": "band_gap", "volume": "volume"},
    "piezoelectric_tensor": {"volume": "volume"},
    "heusler_magnetic": {"e_form": "formation_energy"},
    "m2ax": {"bulk modulus": "bulk_modulus", "shear modulus": "shear_modulus"},
    "wolverton_oxides": {
        "e_form": "formation_energy",
        "e_hull": "energy_above_hull",
        "gap pbe": "band_gap",
        "vpa": "volume_per_atom",
    },
    "tholander_nitrides": {"E_vasp_per_atom": "energy_per_atom"},
}

# Columns of jarvis_ml_dft_training whose unit in the metadata may be wrong: JARVIS itself, and the
# other datasets made of it, give exfoliation energies in meV/atom
# (https://github.com/hackingmaterials/matminer/issues/366).
DOUBTFUL = ("e_exfol",)

# Spelling in the metadata -> unit. The uW/cm2.K of boltztrap_mp is left out, since a power factor
# cannot have this unit.
UNITS = {
    **dict.fromkeys(("meV/atom",), "meV/atom"),
    **dict.fromkeys(("eV/atom", "eV per atom"), "eV/atom"),
    **dict.fromkeys(("A^3/atom",), "Å³/atom"),
    **dict.fromkeys(("A (angstrom)", "angstrom"), "Å"),
    **dict.fromkeys(("Å³", "cubic angstroms"), "Å³"),
    **dict.fromkeys(("µW/cm/K²/s",), "µW/cm/K²/s"),
    **dict.fromkeys(("micro Volts per Kelvin", "µV/K", "muV/K", "microVolts/K"), "µV/K"),
    **dict.fromkeys(("W/m.K", "W/mK"), "W/(m·K)"),
    **dict.fromkeys(("W/mK^2",), "W/(m·K²)"),
    **dict.fromkeys(("W/K/m/s",), "W/K/m/s"),
    **dict.fromkeys(("1/Ω/m/s",), "1/Ω/m/s"),
    **dict.fromkeys(("S/cm", "Siemens/cm"), "S/cm"),
    **dict.fromkeys(("ohm.cm",), "Ω·cm"),
    **dict.fromkeys(("cm⁻³", "cm^-3"), "cm⁻³"),
    **dict.fromkeys(("1/cm",), "1/cm"),
    **dict.fromkeys(("emu/cc",), "emu/cm³"),
    **dict.fromkeys(("MPa",), "MPa"),
    **dict.fromkeys(("GPa",), "GPa"),
    **dict.fromkeys(("eV",), "eV"),
    **dict.fromkeys(("K", "Kelvin"), "K"),
    **dict.fromkeys(("degrees",), "degree"),
    **dict.fromkeys(("mₑ",), "mₑ"),
    **dict.fromkeys(("%",), "%"),
}
_SPELLED = "|".join(re.escape(spelling) for spelling in sorted(UNITS, key=len, reverse=True))
IN_NAME = re.compile(rf"[\[(]({_SPELLED})[\])]$")  # rho (ohm.cm), T [K]
IN_TEXT = re.compile(
    rf"(?:\b[Ii]n (?:units of |SI units of )?[\[(]?|[\[(]|Units: )({_SPELLED})(?![\w/^·.]*[\w/^])"
)


def metadata() -> dict[str, dict[str, Any]]:
    """Read matminer's metadata: dataset -> url, hash, num_entries, columns, reference and more."""
    spec = importlib.util.find_spec("matminer")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("matminer is not installed; pip install matminer")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "dataset_metadata.json"
    return json.loads(path.read_text(encoding="utf-8"))


def dataset(name: str) -> dict[str, Any]:
    """Return the metadata of a dataset. Raises UserError if it is unknown or has no materials."""
    known = metadata()
    entry = known[check_choice("dataset of matminer", name, known)]
    if not {*STRUCTURES, *FORMULAS} & entry["columns"].keys():
        raise UserError(
            f"matminer's {name} has no column of {', '.join((*FORMULAS, *STRUCTURES))}, "
            "so it contains no materials"
        )
    return entry


def has_structures(name: str) -> bool:
    """Tell whether a dataset has a column of structures."""
    return bool(set(STRUCTURES) & dataset(name)["columns"].keys())


def unit_in(column: str, description: str) -> str | None:
    """Return the unit stated by a column's name or, if the name has none, by its description.

    Returns None if no unit is stated, or several.

    >>> unit_in("Tc", "Experimental superconducting temperature, in K.")
    'K'
    >>> unit_in("e_form", "energy per atom (eV)")
    """
    if column in DOUBTFUL:
        return None
    if stated := IN_NAME.search(column):
        return UNITS[stated[1]]
    units = {UNITS[unit] for unit in IN_TEXT.findall(description)}
    if len(units) != 1 or (units == {"eV"} and "per atom" in description):
        return None
    unit = units.pop()
    return f"log10({unit})" if column.startswith("log10(") else unit


def plain_name(column: str) -> str:
    """Convert a column's name to the form of a property's name.

    The result is ASCII, without blanks and without a unit in brackets.

    >>> plain_name("gap pbe"), plain_name("κₑ.p [W/K/m/s]"), plain_name("log10(K_VRH)")
    ('gap_pbe', 'kappae.p', 'log10_K_VRH')
    """
    letters = []
    for letter in unicodedata.normalize("NFKC", IN_NAME.sub("", column)):
        greek = re.match(r"GREEK \w+ LETTER (\w+)", unicodedata.name(letter, ""))
        if greek:
            letter = greek[1].lower() if letter.islower() else greek[1].title()
        letters.append(letter)
    latin = unicodedata.normalize("NFKD", "".join(letters))
    text = "".join(letter for letter in latin if letter.isascii())
    text = re.sub(r"[^A-Za-z0-9_.+=-]+", "_", text).strip("_.-=+")
    assert NAME.fullmatch(text), column
    return text


def table_names(name: str, columns: list[str]) -> dict[str, str]:
    """Map each column to its name in the raw table: a known property's name, or else its own.

    A number is added to names that would repeat.
    """
    canonical = CANONICAL.get(name, {})
    names = {column: canonical[column] for column in columns if column in canonical}
    for column in columns:
        if column not in names:
            plain = plain_name(column)
            # The name of a property may have another meaning or unit here.
            plain = f"{plain}_of_{name}" if plain in PROPERTIES else plain
            n_same = sum(
                other == plain or other.startswith(f"{plain}_v") for other in names.values()
            )
            names[column] = f"{plain}_v{n_same + 1}" if n_same else plain
    return names
