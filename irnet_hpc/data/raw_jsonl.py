"""Read raw tables with structures: JSON lines, one material per line.

    {"material_id": "mp-22862", "lattice": [[5.69, 0, 0], [0, 5.69, 0], [0, 0, 5.69]],
     "species": ["Na", "Cl", ...], "frac_coords": [[0, 0, 0], [0.5, 0, 0], ...],
     "targets": {"formation_energy": -2.1}, "split": "train"}

Each row of `lattice` is a vector in Å. A site with several species is an object such as
{"Fe": 0.5, "Co": 0.5}. `formula`, `material_id` and `split` may be left out, and so may properties
that are not reported and structures that are unknown. Further keys with numbers are the user's own
features, like further columns of a CSV. Lines without `species` and `targets` in the whole file are
rows of cells, as pandas writes them, and are read like a CSV.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from irnet_hpc.data.cells import ColumnReader
from irnet_hpc.data.crystals import Crystal, Unsuitable, stack_crystals
from irnet_hpc.data.elements import NUMBER
from irnet_hpc.data.faults import CellRules, settle
from irnet_hpc.data.formulas import InvalidFormula, parse_formula, reduced_formula
from irnet_hpc.data.headings import Headings
from irnet_hpc.data.identifying import identifying_name, leave_out_row_numbers
from irnet_hpc.data.raw_table import (
    RESERVED,
    Place,
    RawTable,
    TableText,
    check_text,
    number_rows,
    one_sentence,
)
from irnet_hpc.errors import UserError

KEYS = ("material_id", "formula", "split", "lattice", "species", "frac_coords", "targets")
# An object that lines of structures/listing.py have: file and block of the structure; reason and
# detail if there is none; and cells, column -> text or number, which are read like those of a CSV.
SOURCE = "read_from"
# An element, with or without an oxidation state, which is ignored.
SYMBOL = re.compile(r"([A-Z][a-z]?)(?:[0-9]*\.?[0-9]*[+-])?")
# Fractional coordinates lie in the cell or beside it; those of 8,779 structures of the Materials
# Project are from -0.03 to 1.03. Coordinates in Å, read as fractions, would be another crystal.
MIN_FRACTION, MAX_FRACTION = -1, 2
# Rounded occupancies, such as 0.34 and 0.67, may add up to this much.
MAX_OCCUPANCY = 1.02
FULL = 1e-6  # a site whose occupancy differs less from 1 is full; the sums of floats have errors
# The JSON escape of a surrogate: half of a character that needs more than 16 bits.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_jsonl_header(table: TableText) -> list[str]:
    """Return `formula` and each property that any line reports. Raises UserError for a bad line."""
    names: dict[str, None] = {}
    for _, entry in _entries(table):
        names |= dict.fromkeys(entry["targets"])
        if source := source_of(entry):
            names |= {name: None for name in source["cells"] if name not in RESERVED}
    return ["formula", *names]


def read_jsonl_table(
    table: TableText,
    name: str,
    targets: Collection[str],
    is_feature: Callable[[str], bool],
    headings: Headings | None = None,
    rules: CellRules | None = None,
) -> RawTable:
    """Read a table of JSON lines.

    A row with an invalid structure has no crystal. It is rejected later, and only if structures
    are needed.

    Args:
        table: the text of the table.
        name: the name of the table; a row without a material_id gets the id `<name>-<row>`.
        targets: properties to predict.
        is_feature: tells whether a further key becomes a feature if it holds numbers.
        headings: the names of the properties; None: as the table has them.
        rules: how values are read; None: by the defaults.

    Raises:
        UserError: if a line is malformed; the message names the line.
    """
    rules = rules or CellRules()
    named = dict(zip(headings.given, headings.names, strict=True)) if headings else {}
    digest = hashlib.sha256()
    lines: list[int] = []
    crystals: list[Crystal | Unsuitable] = []
    ignored: set[str] = set()
    places: dict[int, Place] = {}
    text: dict[str, list[str]] = {"formula": [], "material_id": [], "split": []}
    readers = {
        target: ColumnReader(rules.units.get(target, ""), rules.missing) for target in targets
    }
    for line, entry in _entries(table, digest):
        crystal, formula = parse_structure(entry)
        row = len(lines)
        crystals.append(crystal)
        lines.append(line)
        text["formula"].append(formula)
        text["material_id"].append(entry.get("material_id") or "")
        if "split" in entry:
            text["split"].append(entry["split"])
        for given, value in entry["targets"].items():
            target = named.get(given, given)
            if target in targets:
                readers[target].put(row, value)
            else:
                ignored.add(given)
        source = source_of(entry)
        if source:
            places[line] = Place(source.get("file", ""), source.get("block", ""))
        for given, value in source.get("cells", {}).items():
            column = named.get(given, given)
            is_number = column in targets or (is_feature(column) and not identifying_name(column))
            if column and is_number and given not in RESERVED:
                readers.setdefault(column, ColumnReader(missing=rules.missing)).put(row, value)
            else:
                ignored.add(given)
        for key in entry.keys() - KEYS - ignored - {SOURCE}:
            if not is_feature(key) or identifying_name(key):
                ignored.add(key)
            elif key not in targets:
                readers.setdefault(key, ColumnReader(missing=rules.missing)).put(row, entry[key])
    if len(text["split"]) not in (0, len(lines)):
        raise UserError(
            f"only some lines of {table.name} have a split ({len(text['split'])} of {len(lines)}); "
            "give one to every line or to none"
        )
    check_text(table, {key: values for key, values in text.items() if values}, lines)
    ids, has_id = number_rows(text["material_id"], name)
    for reader in readers.values():
        reader.pad(len(lines))
    readers = {key: readers[key] for key in (*targets, *sorted(readers.keys() - set(targets)))}
    settled = settle(table, readers, targets, lines, rules)
    further = {key: values for key, values in settled.columns.items() if key not in targets}
    ignored |= readers.keys() - settled.columns.keys()
    left_out = {key: why for key in ignored if is_feature(key) and (why := identifying_name(key))}
    left_out |= leave_out_row_numbers(further)
    names = {*ignored, *left_out}
    return RawTable(
        line=np.array(lines, np.int64),
        formula=text["formula"],
        material_id=ids,
        has_id=has_id,
        role=text["split"] or None,
        targets={key: values for key, values in settled.columns.items() if key in targets},
        columns=further,
        ignored=tuple(
            sorted(f"{key} ({left_out[key]})" if key in left_out else key for key in names)
        ),
        sha256=digest.hexdigest(),
        crystals=stack_crystals(crystals),
        faults=settled.faults,
        notes=settled.notes,
        places=places,
    )


def _entries(table: TableText, digest: Any = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each line that is not blank, after checking its targets."""
    number = 0
    with one_sentence(table.name):
        for number, line in enumerate(table.lines(digest), start=1):
            if line.strip():
                entry = parse_json_line(table.place(number), line)
                entry["targets"] = _targets(table.place(number), entry.get("targets", {}))
                yield number, entry
    if not number:
        raise UserError(
            f"{table.name} is empty; each line must be an object with keys {', '.join(KEYS)}"
        )


def are_cells(table: TableText) -> bool:
    """Return True if no line has a structure or targets, so that each is a row of cells."""
    with one_sentence(table.name):
        for number, line in enumerate(table.lines(), start=1):
            if line.strip():
                # A row of cells may call its formula otherwise.
                entry = parse_json_object(table.place(number), line)
                if not entry.keys().isdisjoint(("species", "lattice", "targets")):
                    return False
    return True


def parse_json_line(place: str, line: str) -> dict[str, Any]:
    """Parse the object of a line; `place` names the line in messages.

    Raises:
        UserError: if the line is not JSON, or not an object that describes a material.
    """
    entry = parse_json_object(place, line)
    if not entry.keys() & {"formula", "species"}:
        raise UserError(
            f"{place} is not an object with species or a formula; known keys: {', '.join(KEYS)}"
        )
    for key in ("material_id", "formula", "split"):
        if not isinstance(entry.get(key, ""), str):
            raise UserError(f"{place}: {key} must be text, got {entry[key]!r}")
    return entry


def parse_json_object(place: str, line: str, numbers: Callable | None = None) -> dict[str, Any]:
    """Parse the object of a line, of any keys.

    Args:
        place: The name of the line, for messages.
        line: The line.
        numbers: Converts the text of each number; None: to a number.

    Raises:
        UserError: if the line is not a JSON object.
    """
    try:
        entry = json.loads(
            line,
            object_pairs_hook=_once_each,
            parse_constant=_no_number,
            parse_float=numbers,
            parse_int=numbers,
        )
        # Half of a character is not text, and encoding it raises a ValueError.
        if SURROGATE.search(line):
            json.dumps(entry, ensure_ascii=False).encode()
    except RecursionError:
        raise UserError(f"{place} is not a JSON object: brackets are nested too deeply") from None
    except ValueError as error:
        cut = "" if line.endswith("\n") else "; it is the last line: is the file incomplete?"
        raise UserError(f"{place} is not a JSON object: {error}{cut}") from None
    if not isinstance(entry, dict):
        raise UserError(
            f"{place} is not an object with species or a formula; known keys: {', '.join(KEYS)}"
        )
    return entry


def _once_each(pairs: list[tuple[str, object]]) -> dict:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice")
    return entry


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number; leave out values that are not reported")


def _targets(place: str, targets: object) -> dict[str, Any]:
    if not isinstance(targets, dict):
        raise UserError(f"{place}: targets must map properties to numbers, got {targets!r}")
    return {name: value for name, value in targets.items() if value is not None}


def parse_structure(entry: dict) -> tuple[Crystal | Unsuitable, str]:
    """Convert the structure of a line.

    Returns:
        The crystal, or the reason why there is none; and the formula.
    """
    formula = entry.get("formula", "")
    if "reason" in (source := source_of(entry)):
        return Unsuitable(source["reason"], source.get("detail", "")), formula
    if "species" not in entry:
        return Unsuitable("no structure" if formula else "formula is empty", ""), formula
    try:
        sites = _sites(entry["species"])
        amounts: dict[str, float] = {}
        for symbol, occupancy in (pair for site in sites for pair in site.items()):
            amounts[symbol] = amounts.get(symbol, 0) + occupancy
        formula = formula or "".join(
            f"{symbol}{n:g}" if n != 1 else symbol for symbol, n in amounts.items()
        )
        return _crystal(entry, sites, amounts), formula
    except Unsuitable as error:
        return error, formula


def source_of(entry: dict) -> dict[str, Any]:
    """Return where the structure of a line comes from; empty for lines of another origin."""
    source = entry.get(SOURCE)
    if not isinstance(source, dict) or not isinstance(source.get("cells"), dict):
        return {}
    texts = [source.get(key, "") for key in ("file", "block", "reason", "detail")]
    return source if all(isinstance(text, str) for text in texts) else {}


def _sites(species: object) -> list[dict[str, float]]:
    """Return symbol -> occupancy for each site. The symbols need not be elements."""
    if not isinstance(species, list) or not species:
        raise Unsuitable("structure not readable", "species must be a list of symbols")
    sites = []
    for site in species:
        occupancies = {site: 1} if isinstance(site, str) else site
        if not isinstance(occupancies, dict) or not occupancies:
            raise Unsuitable("structure not readable", f"a site's species is {site!r}")
        symbols: dict[str, float] = {}
        for label, n in occupancies.items():
            match = SYMBOL.fullmatch(label)
            is_number = isinstance(n, int | float) and not isinstance(n, bool)
            if match is None or not is_number or not 0 < n <= MAX_OCCUPANCY:
                raise Unsuitable("structure not readable", f"a site's species is {site!r}")
            # One element may be on a site in several oxidation states.
            symbols[match[1]] = symbols.get(match[1], 0) + n
        total = sum(symbols.values())
        if total > MAX_OCCUPANCY:
            raise Unsuitable(
                "structure not readable",
                f"the occupancies of a site must add up to at most 1, got {total:g} in {site!r}",
            )
        if len(symbols) == 1 and abs(total - 1) < FULL:
            symbols = dict.fromkeys(symbols, 1)
        sites.append(symbols)
    return sites


def _crystal(entry: dict, sites: list[dict[str, float]], amounts: dict[str, float]) -> Crystal:
    """Return the crystal. Raises Unsuitable unless each site is fully occupied by one element.

    The distances between sites are not checked here but by the feature sets.
    """
    if mixed := [site for site in sites if list(site.values()) != [1]]:
        raise Unsuitable("disordered site", json.dumps(mixed[0]))
    if foreign := sorted(amounts.keys() - NUMBER.keys()):
        raise Unsuitable("structure not readable", f"unknown elements: {', '.join(foreign)}")
    if entry.get("formula") and _reduced(entry["formula"]) != reduced_formula(amounts):
        raise Unsuitable("formula and structure disagree", reduced_formula(amounts))
    lattice = _array(entry, "lattice", (3, 3))
    position = _array(entry, "frac_coords", (len(sites), 3))
    if (far := (position < MIN_FRACTION) | (position > MAX_FRACTION)).any():
        raise Unsuitable(
            "coordinates not fractional",
            f"frac_coords must be from {MIN_FRACTION} to {MAX_FRACTION} lattice vectors, got "
            f"{position[far][0]:g}; are they in Å?",
        )
    return Crystal(
        lattice, np.array([NUMBER[symbol] for site in sites for symbol in site], np.int16), position
    )


def _array(entry: dict, key: str, shape: tuple[int, int]) -> np.ndarray:
    try:
        array = np.array(entry.get(key), np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise Unsuitable("structure not readable", f"{key} must be {shape[0]} × {shape[1]} numbers")
    return array


def _reduced(formula: str) -> str:
    """Return the reduced formula; empty if the formula is invalid."""
    try:
        return reduced_formula(parse_formula(formula))
    except InvalidFormula:
        return ""
