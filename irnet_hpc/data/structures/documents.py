"""Read the structures of JSON documents: of pymatgen, ASE, JARVIS and the Materials Project.

A document is one structure, a list of structures or of records that have one (`structure` or
`atoms`), or an object of them: names and structures, or the rows of `ase.db`. Records also have
properties, which are read like the cells of a table.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from irnet_hpc.data.crystals import Unsuitable
from irnet_hpc.data.json_stream import list_objects, read_start
from irnet_hpc.data.raw_table import TableText, one_sentence
from irnet_hpc.data.structures.entries import entry_of_dict, is_structure
from irnet_hpc.data.structures.formats import PACKED, printable
from irnet_hpc.errors import UserError

Cells = dict[str, Any]
STRUCTURES = ("structure", "atoms", "final_structure")
IDS = ("material_id", "jid", "mp_id", "task_id", "id", "unique_id")
MAX_DOCUMENT = 2**26  # characters of a document that is not a list
# The names of our properties, where meaning and unit are the same. Total energies, and moduli that
# are not averages of Voigt's and Reuss's, keep their names.
OF_JARVIS = {  # JARVIS-DFT's jdft_3d, Choudhary et al., npj Comput. Mater. 6, 173 (2020)
    "formation_energy_peratom": "formation_energy",
    "optb88vdw_bandgap": "band_gap",
    "mbj_bandgap": "band_gap_mbj",
    "ehull": "energy_above_hull",
}
OF_MP = {"formation_energy_per_atom": "formation_energy"}  # `SummaryDoc` of mp-api 0.4x


class Record(NamedTuple):
    """A structure of a document."""

    id: str  # as the document states it; empty: it states none
    structure: dict[str, Any] | Unsuitable  # as an object of raw_jsonl.py, or why there is none
    cells: Cells  # property -> value


def document_records(stream: IO[bytes], name: str) -> Iterator[Record]:
    """Yield the structures of a document.

    Args:
        stream: The bytes of the document.
        name: The name of the document, for messages.

    Raises:
        UserError: If it is not JSON, or no document of structures.
    """
    with one_sentence(name):
        text = io.TextIOWrapper(stream, encoding="utf-8-sig")
        start = read_start(text)
        if start.startswith("["):
            for value in list_objects(text, start, name):
                yield record_of(value)
            return
        whole = start + text.read(MAX_DOCUMENT - len(start) + 1)
    if len(whole) > MAX_DOCUMENT:
        raise UserError(
            f"{name} is one JSON object of more than {MAX_DOCUMENT / 2**20:.0f} MiB; save its "
            "structures as a list or in files of their own"
        )
    try:
        value = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not JSON: {error}") from None
    yield from _object_records(value, name)


def _object_records(value: Any, name: str) -> Iterator[Record]:
    if not isinstance(value, dict):
        raise UserError(f"{name} must be a structure or a list of them, got {value!r:.50}")
    if is_structure(value) or _structure_key(value):
        yield record_of(value)
    elif isinstance(value.get("ids"), list):
        for number in value["ids"]:
            row = value.get(str(number))
            if not isinstance(row, dict):
                raise UserError(f"{name} lists the row {number!r:.50} of ase.db, but lacks it")
            yield record_of(row)
    elif value and all(
        isinstance(entry, dict) and (is_structure(entry) or _structure_key(entry))
        for entry in value.values()
    ):
        for key, entry in value.items():
            record = record_of(entry)
            yield record._replace(id=record.id or printable(key))
    else:
        raise UserError(f"{name} has no structures of pymatgen, ASE, JARVIS or Materials Project")


def _structure_key(value: Mapping[str, Any]) -> str:
    return next((key for key in STRUCTURES if is_structure(value.get(key))), "")


def is_record(value: object) -> bool:
    """Return True for an object that has a structure, or is one."""
    return isinstance(value, Mapping) and (is_structure(value) or bool(_structure_key(value)))


def record_of(value: Mapping[str, Any]) -> Record:
    """Make the record of an object that has a structure, or is one."""
    key = _structure_key(value)
    structure = value[key] if key else value
    ids = [value[name] for name in IDS if isinstance(value.get(name), str) and value[name]]
    try:
        entry: dict[str, Any] | Unsuitable = entry_of_dict(structure)
    except Unsuitable as error:
        entry = error
    return Record(printable(ids[0]) if ids else "", entry, _cells(value, key))


def _cells(value: Mapping[str, Any], key: str) -> Cells:
    """Return the values of a record that may be properties, by our names where we have one."""
    if not key:
        pairs = value.get("key_value_pairs")  # of a row of ase.db
        value = pairs if isinstance(pairs, Mapping) else {}
    ours = OF_JARVIS if "jid" in value else OF_MP
    cells: Cells = {}
    for name, cell in value.items():
        if isinstance(cell, Mapping) and name in ("bulk_modulus", "shear_modulus"):
            cell = cell.get("vrh")
        name = ours.get(name, name)
        if name in (*IDS, "formula", "split") or isinstance(cell, bool) or not name:
            continue
        if isinstance(cell, float) and not math.isfinite(cell):
            cell = repr(cell)  # JSON has no such numbers
        if isinstance(cell, str | int | float):
            cells.setdefault(printable(name), printable(cell) if isinstance(cell, str) else cell)
    return cells


def holds_structures(path: Path) -> bool:
    """Return True if a JSON document begins like one of structures, not like a table of cells.

    Of a file that cannot be read, reading it as a table says what is wrong.
    """
    opener = next((PACKED[ending] for ending in PACKED if path.name.endswith(ending)), open)
    try:
        with one_sentence(path), opener(path, "rb") as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig")
            start = read_start(text)
            if start.startswith("["):
                return is_record(next(list_objects(text, start, str(path)), None))
            value = json.loads(start + text.read(MAX_DOCUMENT))
            return next(_object_records(value, str(path)), None) is not None
    except (ValueError, RecursionError, UserError):
        return False


def lines_hold_records(table: TableText) -> bool:
    """Return True if the first of JSON lines is a record of another library.

    Of lines that cannot be read, reading them one by one says what is wrong.
    """
    try:
        with one_sentence(table.name):
            return is_record(json.loads(next(filter(str.strip, table.lines()), "")))
    except (ValueError, RecursionError, UserError):
        return False
