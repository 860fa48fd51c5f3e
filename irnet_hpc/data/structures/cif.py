"""Read the structures of a CIF by pymatgen, block by block, and refuse those that it would guess.

Seen in pymatgen-core 2026.10.16, in `CifParser`, each with a warning or without:

- a site of `OH` is left out, and of `NO3` the oxygen; `Vac` becomes V and `Dum` deuterium;
- an occupancy of `.`, which stands for the default of 1, is read as 0, and the site is left out; so
  is a coordinate of `.`, read as 0;
- without operations and with a space group that it does not know, the symmetry is P1;
- a space group that has two origins, or is given by its number, is read in one setting;
- the last of several blocks of one name is the only one that is read.

Where such a guess could change the crystal, the block has no structure but a reason.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from irnet_hpc.data.crystals import MIN_DISTANCE, Unsuitable
from irnet_hpc.data.elements import NUMBER
from irnet_hpc.data.formulas import InvalidFormula, parse_formula
from irnet_hpc.data.structures.entries import (
    ISOTOPES,
    NO_ELEMENT,
    NOT_READABLE,
    entry_of_pymatgen,
)

NO_ATOMS = "a CIF without atoms"
SYMMETRY = "symmetry not understood"
OPEN_SETTING = "a space group whose setting is not stated"
DISAGREE = "formula and structure disagree"
MAX_OCCUPANCY = 1.02  # as in raw_jsonl.py
# Sites of the CIF times operations. pymatgen compares each image with all sites so far.
MAX_IMAGES = 50_000
MAX_BLOCK = 2**22  # characters; pymatgen takes some 100 times their memory
MAX_TEXT_LINES = 10  # that are kept of a text field
MAX_ROWS = 10_000  # sites of the CIF
MAX_COMPARED = 500  # sites whose distances are compared, all with all
# Atomic fractions of the stated formula and of the sites may differ by rounding.
MAX_FRACTION_ERROR = 0.005
OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
SYMBOLS = (
    *("_symmetry_space_group_name_h-m", "_symmetry_space_group_name_h_m"),
    *("_space_group_name_h-m_alt", "_space_group_name_h-m_full", "_space_group_name_h-m_ref"),
)
HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
# International Tables for Crystallography A: groups with two choices of the origin, and groups with
# rhombohedral and hexagonal axes.
TWO_ORIGINS = {
    *(48, 50, 59, 68, 70, 85, 86, 88, 125, 126, 129, 130, 133, 134, 137, 138, 141, 142),
    *(201, 203, 222, 224, 227, 228),
}
TWO_AXES = {146, 148, 155, 160, 161, 166, 167}
SEVERAL_AXES = set(range(3, 75))  # monoclinic and orthorhombic groups, by their numbers alone
UNITS = ("_cell_formula_units_z",)
MAX_OPERATIONS = 192  # of a space group
BLOCK = re.compile(r"^\s*data_(\S*)", re.I)
# The element of a type symbol (Fe, Fe3+) is all of its letters, of a label (Fe1A) the first ones.
TYPE = re.compile(r"([A-Za-z]{1,2})(?:[0-9]*\.?[0-9]*[+-]?|[+-][0-9]*)")
LABEL = re.compile(r"([A-Z][a-z]?)(?![a-z])")


class Block(NamedTuple):
    """A block of a CIF: its name and text, from `data_NAME` to the next block."""

    name: str
    text: str


def cif_entries(text: str) -> list[tuple[str, dict[str, Any] | Unsuitable]]:
    """Read the blocks of a CIF.

    Args:
        text: The file.

    Returns:
        The name of each block with atoms, and its structure as an object of raw_jsonl.py, or the
        reason why there is none. If no block has atoms, there is one reason, without a name.
    """
    blocks = [block for block in split_blocks(text) if _has_atoms(block)]
    if not blocks:
        return [("", Unsuitable(NO_ATOMS, _why_empty(text)))]
    entries: list[tuple[str, dict[str, Any] | Unsuitable]] = []
    for block in blocks:
        try:
            entries.append((block.name, _entry(block)))
        except Unsuitable as error:
            entries.append((block.name, error))
    return entries


def _why_empty(text: str) -> str:
    if not text.strip():
        return "the file is empty"
    is_cif = any(BLOCK.match(line) for line in text.splitlines())
    return (
        "no block has a list of sites" if is_cif else "it is no CIF, since no line begins a block"
    )


def split_blocks(text: str) -> list[Block]:
    """Split a CIF into its blocks; lines in text fields, between semicolons, begin none."""
    blocks: list[tuple[str, list[str]]] = []
    is_text, n_lines = False, 0  # of a text field
    for line in text.splitlines():
        match = BLOCK.match(line)
        if line.startswith(";"):
            is_text, n_lines = not is_text, 0
        elif is_text:
            n_lines += 1
            if match or n_lines > MAX_TEXT_LINES:
                continue  # pymatgen would begin a block here; long texts are reflections
        elif match:
            blocks.append((match[1], [f"data_{match[1]}"]))
            line = line[match.end() :]
        if blocks:
            blocks[-1][1].append(line)
    return [Block(name, "\n".join(lines) + "\n") for name, lines in blocks]


def _has_atoms(block: Block) -> bool:
    return "_atom_site_fract_x" in block.text.lower()


def _entry(block: Block) -> dict[str, Any]:
    """Read the structure of a block. Raises Unsuitable with the reason if there is none."""
    from pymatgen.io.cif import CifParser

    if len(block.text) > MAX_BLOCK:
        detail = f"more than {MAX_BLOCK / 2**20:.0f} MiB beside its texts"
        raise Unsuitable("a file that is too large", detail)
    # The name in the file may be empty, and `powder_pattern` in a name hides the block.
    text = f"data_block\n{block.text.partition(chr(10))[2]}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parser = CifParser.from_str(text, occupancy_tolerance=MAX_OCCUPANCY, check_cif=False)
            data = next(iter(parser.as_dict().values()))
            _check_sites(data)
            structure = parser.parse_structures(primitive=False, on_error="raise")[0]
        except Unsuitable:
            raise
        except Exception as error:  # the parser raises whatever a damaged file leads to
            raise Unsuitable(NOT_READABLE, _reason(error)) from None
        operations = parser.symmetry_operations
    fields = {key.lower(): value for key, value in data.items()}
    _check_symmetry(fields, len(operations), structure)
    entry = entry_of_pymatgen(structure)
    _check_formula(fields, structure)
    if "implicit_hydrogens" in structure.site_properties or (
        _attached(fields) and not _formula(fields) and "H" not in entry["species"]
    ):
        raise Unsuitable(DISAGREE, "hydrogen atoms have no sites of their own")
    if structure.is_ordered and 1 < len(structure) <= MAX_COMPARED:
        distances = structure.distance_matrix
        distances[range(len(structure)), range(len(structure))] = MIN_DISTANCE
        if distances.min() < MIN_DISTANCE:
            raise Unsuitable("sites on one another", f"two sites, {distances.min():.3g} Å apart")
    return entry


def _reason(error: Exception) -> str:
    text = " ".join(str(error).replace("No structure parsed for section 1 in CIF.", "").split())
    return f"pymatgen: {type(error).__name__}: {text:.150}" if text else type(error).__name__


def _listed(data: Mapping[str, Any], key: str) -> list[str]:
    """Return a column of a loop; a value without a loop is a column of one."""
    value = data.get(key, [])
    return list(value) if isinstance(value, list | tuple) else [value]


def _check_sites(data: Mapping[str, Any]) -> None:
    """Raise Unsuitable if the sites are too many, or if one is not stated in full."""
    labels = _listed(data, "_atom_site_label")
    types = _listed(data, "_atom_site_type_symbol")
    operations = [_listed(data, key) for name in OPERATIONS for key in (name, f"{name}_")]
    n_operations = max(map(len, operations))
    if not n_operations:
        fields = {key.lower(): value for key, value in data.items()}
        has_group = bool(_stated(fields, (*SYMBOLS, *HALL, *NUMBERS)))
        n_operations = MAX_OPERATIONS if has_group and len(labels) < MAX_OPERATIONS else 1
    n_images = len(labels) * n_operations
    if len(labels) > MAX_ROWS or n_images > MAX_IMAGES:
        raise Unsuitable("crystal too large", f"{len(labels):,} sites, {n_images:,} images")
    if not isinstance(data.get("_atom_site_label", []), list):
        # pymatgen would take each letter of the label for a site.
        raise Unsuitable(NOT_READABLE, "its sites are not in a loop")
    for key in ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z"):
        if any(text.strip() in (".", "?") for text in _listed(data, key)):
            raise Unsuitable(NOT_READABLE, "a site has no coordinates")
    if any(text.strip() in (".", "?") for text in _listed(data, "_atom_site_occupancy")):
        raise Unsuitable(NOT_READABLE, "the occupancy of a site is not stated")
    # `_fixN` is what pymatgen makes of the sites of the Pauling File.
    for text in types or labels:
        symbol = _symbol(text, bool(types))
        if symbol not in NUMBER:
            raise Unsuitable(NO_ELEMENT, f"{text!r:.50}")


def _symbol(text: str, is_type: bool) -> str:
    """Return the element of a site; another text if it has none."""
    text = text.strip()
    match = TYPE.fullmatch(text) if is_type else LABEL.match(text)
    if not match:
        return text
    symbol = match[1].title() if is_type else match[1]
    return ISOTOPES.get(symbol, symbol)


def _stated(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the first value of these fields that says something."""
    for name in names:
        for key in (name, f"{name}_"):
            for text in _listed(fields, key):
                if str(text).strip(" '\"") not in ("", ".", "?"):
                    return str(text).strip(" '\"")
    return ""


def _attached(fields: Mapping[str, Any]) -> bool:
    """Return True if hydrogen atoms are stated with the atoms that they are attached to."""
    return any(text.strip(" 0.?") for text in _listed(fields, "_atom_site_attached_hydrogens"))


def _check_symmetry(fields: Mapping[str, Any], n_operations: int, structure: Any) -> None:
    """Raise Unsuitable unless the operations are stated, or follow from the space group alone."""
    symbol, hall, number = (_stated(fields, names) for names in (SYMBOLS, HALL, NUMBERS))
    if _stated(fields, OPERATIONS):
        if n_operations == 1 and not _are_identity(fields):
            raise Unsuitable(SYMMETRY, "its operations cannot be read")
        return
    if not (symbol or hall or number):
        # Without a word about symmetry, the sites are all sites, unless the file says otherwise.
        if _stated(fields, UNITS) and _formula(fields) and not _fills_cell(fields, structure):
            raise Unsuitable(SYMMETRY, "none is stated, and the sites do not fill the cell")
        return
    if re.sub(r"\s", "", symbol or hall).upper() in ("P1", "") and number in ("1", ""):
        return
    if n_operations == 1:
        raise Unsuitable(SYMMETRY, f"its space group {symbol or hall or number!r:.40} is not known")
    if _has_one_setting(symbol, number) or _fills_cell(fields, structure):
        return
    raise Unsuitable(
        OPEN_SETTING,
        f"{symbol or hall or number!r:.40} has several settings, and no operations state one; "
        "_chemical_formula_sum and _cell_formula_units_Z would confirm one",
    )


def _are_identity(fields: Mapping[str, Any]) -> bool:
    texts = [text for name in OPERATIONS for text in _listed(fields, name)]
    texts += [text for name in OPERATIONS for text in _listed(fields, f"{name}_")]
    return {re.sub(r"[\s'\"+]", "", str(text)).lower() for text in texts} == {"x,y,z"}


def _has_one_setting(symbol: str, number: str) -> bool:
    """Return True if a space group, as pymatgen reads it, has one setting.

    `CifParser.get_symops` ignores blanks and underscores. It does not know symbols with an origin
    or axes, such as `F d -3 m :2`, and takes those of the group's number then.
    """
    from pymatgen.symmetry.groups import SpaceGroup

    plain = re.sub(r"[\s_]", "", symbol)
    numbers = {re.sub("_", "", key): of["int_number"] for key, of in SpaceGroup.sg_encoding.items()}
    numbers |= {of["hermann_mauguin"]: of["number"] for of in SpaceGroup.SYMM_OPS}
    if plain in numbers:
        return int(numbers[plain]) not in TWO_ORIGINS | TWO_AXES
    return number.isdigit() and int(number) not in SEVERAL_AXES | TWO_ORIGINS | TWO_AXES


def _fills_cell(fields: Mapping[str, Any], structure: Any) -> bool:
    """Return True if the cell has the stated formula as often as stated."""
    composition = _formula(fields)
    units = _stated(fields, UNITS)
    try:
        expected = float(units) * sum(composition.values())
    except ValueError:
        return False
    n_atoms = structure.composition.num_atoms
    return expected > 0 and abs(n_atoms - expected) <= MAX_FRACTION_ERROR * expected


def _formula(fields: Mapping[str, Any]) -> dict[str, float]:
    """Return the amounts of the stated formula; empty if none is stated or it cannot be read."""
    text = re.sub(r"\b[DT](?![a-z])", "H", _stated(fields, ("_chemical_formula_sum",)))
    try:
        return dict(parse_formula(text.replace(" ", ""))) if text else {}
    except InvalidFormula:
        return {}


def _check_formula(fields: Mapping[str, Any], structure: Any) -> None:
    """Raise Unsuitable if the sites are not those of the stated formula, such as without H."""
    stated = _formula(fields)
    if not stated:
        return
    found: dict[str, float] = {}
    for kind, amount in structure.composition.items():
        symbol = ISOTOPES.get(kind.symbol, kind.symbol)
        found[symbol] = found.get(symbol, 0) + amount
    total, n_found = sum(stated.values()), sum(found.values())
    differ = {
        symbol
        for symbol in {*stated, *found}
        if (symbol in stated) != (symbol in found)
        or abs(stated[symbol] / total - found[symbol] / n_found) > MAX_FRACTION_ERROR
    }
    if differ:
        sites = "".join(f"{symbol}{amount:g}" for symbol, amount in found.items())
        raise Unsuitable(
            DISAGREE,
            f"_chemical_formula_sum is {_stated(fields, ('_chemical_formula_sum',))}, the sites "
            f"are {sites}; they differ in {', '.join(sorted(differ))}",
        )
