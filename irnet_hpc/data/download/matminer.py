"""matminer's datasets as raw tables: mp and jarvis among them, and any other with formulas or structures.

matminer's metadata says where a dataset lies, and its loader reads the file; the transfer between the two is ours
(fetching.py), and the names and units of columns are in matminer_names.py. The datasets are described in
https://hackingmaterials.lbl.gov/matminer/dataset_summary.html.
"""

import importlib.util
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irnet_hpc.data.download import http as fetching
from irnet_hpc.data.download import http as transfer
from irnet_hpc.data.download.paged import alone, finish
from irnet_hpc.data.download.records import (
    Record,
    UnitCell,
    Unusable,
    number,
    write_csv,
    write_jsonl,
)
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.sources import Source
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME

if TYPE_CHECKING:
    import pandas


STRUCTURES = ("structure", "final_structure")
FORMULAS = ("formula", "composition", "pretty_formula")
IDS = ("jid", "material_id", "mpid")

# dataset -> column -> property, where meaning and unit are those of PROPERTIES. What is not here keeps its own name: mu_b
# is per formula unit in some datasets, e_form per cell in castelli_perovskites, log10(K_VRH) is no modulus. Units that the
# metadata leaves open: moduli of JARVIS and of de Jong et al. 2015 are GPa; e_form of matbench is eV/atom (Dunn et al., npj
# Comput. Mater. 6, 138 (2020), table 2); energies of wolverton_oxides are "eV", but in the authors' own table "[eV/atom]"
# (Emery and Wolverton, Sci. Data 4, 170153 (2017)).
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

# Columns of jarvis_ml_dft_training whose unit the metadata state, but may not have right: JARVIS itself, and the other
# datasets made of it, give exfoliation energies in meV/atom (https://github.com/hackingmaterials/matminer/issues/366).
DOUBTFUL = ("e_exfol",)

# How units are written in the metadata -> the unit. Not among them is the uW/cm2.K of boltztrap_mp, which a power factor
# cannot be in.
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
    """What matminer knows of each dataset: url, hash, num_entries, columns, reference, ..."""
    found = importlib.util.find_spec("matminer")
    if found is None:
        raise UserError("matminer is not installed; pip install matminer")
    path = Path(found.submodule_search_locations[0]) / "datasets" / "dataset_metadata.json"
    return json.loads(path.read_text(encoding="utf-8"))


def dataset(name: str) -> dict[str, Any]:
    """What matminer knows of a dataset. Raises UserError where it has none of that name, or no material could be told."""
    known = metadata()
    found = known[check_choice("dataset of matminer's", name, known)]
    if not {*STRUCTURES, *FORMULAS} & found["columns"].keys():
        raise UserError(
            f"matminer's {name} has no column of {', '.join((*FORMULAS, *STRUCTURES))}, so no materials"
        )
    return found


def has_structures(name: str) -> bool:
    return bool(set(STRUCTURES) & dataset(name)["columns"].keys())


def unit_in(column: str, description: str) -> str | None:
    """The unit that a column's name or else its description states; None where none or more than one is stated.

    >>> unit_in("Tc", "Experimental superconducting temperature, in K."), unit_in("e_form", "energy per atom (eV)")
    ('K', None)
    """
    if column in DOUBTFUL:
        return None
    if stated := IN_NAME.search(column):
        return UNITS[stated[1]]
    found = {UNITS[unit] for unit in IN_TEXT.findall(description)}
    if len(found) != 1 or (found == {"eV"} and "per atom" in description):
        return None
    return f"log10({found.pop()})" if column.startswith("log10(") else found.pop()


def plain(column: str) -> str:
    """A column's name as a property's may be: without blanks, its unit in brackets, and letters that are not ASCII.

    >>> plain("gap pbe"), plain("κₑ.p [W/K/m/s]"), plain("log10(K_VRH)")
    ('gap_pbe', 'kappae.p', 'log10_K_VRH')
    """
    letters = []
    for letter in unicodedata.normalize("NFKC", IN_NAME.sub("", column)):
        greek = re.match(r"GREEK \w+ LETTER (\w+)", unicodedata.name(letter, ""))
        letters.append(
            (greek[1].lower() if letter.islower() else greek[1].title()) if greek else letter
        )
    text = "".join(
        letter
        for letter in unicodedata.normalize("NFKD", "".join(letters))
        if letter.isascii() or letter == " "
    )
    text = re.sub(r"[^A-Za-z0-9_.+=-]+", "_", text).strip("_.-=+")
    assert NAME.fullmatch(text), column
    return text


def named(name: str, columns: list[str]) -> dict[str, str]:
    """Column -> its name in the raw table: that of a property where it is one, else its own, plainly, and unlike any other's."""
    canonical = CANONICAL.get(name, {})
    found: dict[str, str] = {column: canonical[column] for column in columns if column in canonical}
    for column in columns:
        if column not in found:
            given = plain(column)
            # A name that means a property elsewhere may have another meaning or unit here: it is not taken for one.
            given = f"{given}_of_{name}" if given in PROPERTIES else given
            same = sum(other == given or other.startswith(f"{given}_v") for other in found.values())
            found[column] = f"{given}_v{same + 1}" if same else given
    return found


LARGEST_FILE = 4 * 2**30  # bytes; the largest of matminer's is below one GiB
ABSENT = (
    "",
    "na",
    "nan",
    "None",
)  # how a number that is not reported is written where numbers are text
DERIVED = (
    "volume",
    "volume_per_atom",
    "density",
)  # Å³/cell, Å³/atom, g/cm³, computed from the structure
WITH_DERIVED = ("mp_all_20181018", "jarvis_dft_3d")


def collect(
    name: str, table_name: str, url: str | None, folder: Path, source: Source | None
) -> Path:
    """Download a dataset into the raw table `table_name` of a data folder. Returns its path; raises UserError.

    With a column of structures it becomes JSON lines, else CSV. `url` is the address of a folder that has the dataset's file
    under its own name; without it the file comes from where matminer's metadata says.
    """
    known = dataset(name)
    table = folder / f"{table_name}{'.jsonl.gz' if has_structures(name) else '.csv.xz'}"
    source = source or described(name, known)
    with alone(folder, table_name) as work:
        if table.is_file():  # made by the process we waited for
            return table
        address = address_of(name, known, url)
        frame = _load(name, _home(name, known, address, work))
        if len(frame) != known["num_entries"]:
            raise UserError(
                f"{address} has {len(frame):,} rows, though matminer's metadata says {known['num_entries']:,}"
            )
        columns = _numeric(frame)
        names = named(name, list(columns))
        units = {
            names[column]: unit_in(column, known["columns"].get(column, "")) for column in columns
        }
        units = {
            column: unit for column, unit in units.items() if unit and column not in PROPERTIES
        }
        properties = list(names.values())
        properties += [
            column for column in DERIVED if name in WITH_DERIVED and column not in properties
        ]
        write = write_jsonl if has_structures(name) else write_csv
        written = write(
            work / table.name,
            properties,
            _records(name, frame, {names[key]: columns[key] for key in columns}),
        )
        if not written.n_rows:
            raise UserError(f"not one row of matminer's {name} is a material: {written.remarks()}")
        finish(
            work / table.name, table, written, address, table_name, source,
            units=units, dataset=name, file_sha256=known["hash"], bibtex=known["bibtex_refs"],
            columns={names[column]: column for column in columns},
        )  # fmt: skip
    return table


def described(name: str, known: dict[str, Any]) -> Source:
    """A dataset that is not in SOURCES, as one that is."""
    return Source(
        f"matminer's {name}",
        tuple(PROPERTIES),
        "as its authors state, see the citation; distributed with matminer's datasets",
        " ".join(known["reference"].split()),
    )


def address_of(name: str, known: dict[str, Any], url: str | None) -> str:
    return f"{url.rstrip('/')}/{name}.{known['file_type']}" if url else known["url"]


def own_file(name: str) -> Path | None:
    """The dataset's file as matminer itself has kept it in $MATMINER_DATA, if it is there and has the right hash."""
    known, own = dataset(name), os.environ.get("MATMINER_DATA")
    path = Path(own or "/nowhere").expanduser() / f"{name}.{known['file_type']}"
    return path if path.is_file() and transfer.file_hash(path) == known["hash"] else None


def _home(name: str, known: dict[str, Any], address: str, work: Path) -> Path:
    """The folder where the dataset's file lies: matminer's own, where it is there already, else the download's."""
    if own := own_file(name):
        return own.parent
    path = work / f"{name}.{known['file_type']}"
    if not path.is_file():  # it has this name only if it is whole
        with fetching.connect() as connection:
            transfer.save(connection, address, path, known["hash"], LARGEST_FILE)
    return work


def _load(name: str, home: Path) -> "pandas.DataFrame":
    from matminer.datasets import load_dataset

    fetching.say(
        f"reading {name} with matminer's loader, which takes minutes and gigabytes where there are many structures"
    )
    return load_dataset(name, data_home=str(home), download_if_missing=False)


def _numeric(frame: "pandas.DataFrame") -> dict[str, list[float | None]]:
    """The columns of a dataset that are numbers, None where not reported; truth values are not."""
    found = {}
    for column in frame.columns:
        if column in (*STRUCTURES, *FORMULAS, *IDS) or frame[column].dtype == bool:
            continue
        given = frame[column].tolist()
        values = [number(value) for value in given]
        wordless = all(
            value is None
            or read is not None
            or (isinstance(value, str) and value in ABSENT)
            or isinstance(value, float)
            for value, read in zip(given, values, strict=True)
        )
        if (
            wordless
            and not any(isinstance(value, bool) for value in given)
            and any(v is not None for v in values)
        ):
            found[str(column)] = values
    return found


def _records(
    name: str, frame: "pandas.DataFrame", columns: dict[str, list[float | None]]
) -> Iterator[Record | Unusable]:
    """The rows of a dataset as materials, those that are none as the reason why."""
    formulas, structures = (
        next(
            (frame[column].tolist() for column in known if column in frame.columns),
            [None] * len(frame),
        )
        for known in (FORMULAS, STRUCTURES)
    )
    ids = _ids(name, frame)
    for row, (formula, structure) in enumerate(zip(formulas, structures, strict=True)):
        targets = {
            column: values[row] for column, values in columns.items() if values[row] is not None
        }
        try:
            if structure is not None and hasattr(structure, "lattice"):
                if name in WITH_DERIVED:
                    targets = _derived(structure) | targets
                yield Record(ids[row], None, targets, cell_of(structure))
            elif (text := formula_of(formula)) is not None:
                yield Record(ids[row], text, targets)
            else:
                raise Unusable(
                    "no structure and no formula" if has_structures(name) else "no formula"
                )
        except Unusable as reason:
            yield reason


def _ids(name: str, frame: "pandas.DataFrame") -> list[str]:
    """The dataset's own names of its rows, where it has such and they differ, else `<dataset>-<row>`."""
    for column in IDS:
        if column in frame.columns:
            given = frame[column].tolist()
            if all(isinstance(value, str) and value for value in given) and len(set(given)) == len(
                given
            ):
                return given
    return [f"{name}-{row}" for row in range(1, len(frame) + 1)]


def formula_of(value: object) -> str | None:
    """A formula as text, from text or from one of pymatgen's compositions.

    Amounts keep all their digits, and elements their order.
    """
    if isinstance(value, str):
        return value.strip() or None
    if not hasattr(value, "get_el_amt_dict"):
        return None
    amounts = value.get_el_amt_dict()
    return (
        "".join(
            f"{symbol}{'' if amount == 1 else f'{amount:.10g}'}"
            for symbol, amount in amounts.items()
        )
        or None
    )


def cell_of(structure: Any) -> UnitCell:
    """A structure of pymatgen's as a raw table has it: elements without oxidation states, disordered sites as occupancies."""
    species: list[str | dict[str, float]] = []
    for site in structure:
        amounts: dict[str, float] = {}
        for specie, amount in site.species.items():
            symbol = getattr(specie, "symbol", str(specie))
            amounts[symbol] = amounts.get(symbol, 0.0) + float(amount)
        species.append(
            next(iter(amounts))
            if len(amounts) == 1 and abs(sum(amounts.values()) - 1) < 1e-8
            else amounts
        )
    return UnitCell(structure.lattice.matrix.tolist(), species, structure.frac_coords.tolist())


def _derived(structure: Any) -> dict[str, float]:
    """Å³/cell, Å³/atom, g/cm³."""
    volume = float(structure.volume)
    return {
        "volume": volume,
        "volume_per_atom": volume / len(structure),
        "density": float(structure.density),
    }
