"""Find the structures of a pandas DataFrame that has a column of them."""

import csv
import json
from collections.abc import Iterator
from typing import Any

from irnet_hpc.data.crystals import Unsuitable
from irnet_hpc.data.identifying import identifying_name
from irnet_hpc.data.raw_csv import frame_text, with_named_index
from irnet_hpc.data.structures.documents import STRUCTURES, is_record
from irnet_hpc.data.structures.entries import NOT_READABLE, entry_of_object
from irnet_hpc.data.structures.finding import Found
from irnet_hpc.data.structures.formats import printable


def structure_column(frame: Any) -> str:
    """Return the column of a DataFrame that holds structures; empty if there is none.

    It is called `structure`, `atoms` or `final_structure`, and its values are structures of
    pymatgen, ASE or JARVIS, or dictionaries of them.
    """
    if frame.columns.nlevels > 1 or not frame.columns.is_unique:
        return ""
    for name in STRUCTURES:
        if name in frame.columns:
            first = next((value for value in frame[name] if _is_given(value)), None)
            if is_record(first) or hasattr(first, "sites") or hasattr(first, "cell"):
                return name
            if hasattr(first, "lattice_mat"):
                return name
    return ""


def frame_structures(frame: Any, name: str) -> Iterator[Found] | None:
    """Return the structures of a DataFrame, with the cells of their rows; None if it has none.

    Args:
        frame: The DataFrame.
        name: Its name; a row without an id is called by it and the number of the row.
    """
    frame = with_named_index(frame)
    column = structure_column(frame)
    return _found(frame, column, name) if column else None


def _found(frame: Any, column: str, name: str) -> Iterator[Found]:
    text = frame_text(frame.drop(columns=column), name)
    rows = csv.reader(text.lines(), strict=True)
    header = [cell.strip() for cell in next(rows)]
    ids = [place for place, cell in enumerate(header) if cell == "material_id"]
    ids = ids or [n for n, cell in enumerate(header) if identifying_name(cell) == "an id"]
    place = ids[0] if len(ids) == 1 else None
    for number, value in enumerate(frame[column], start=1):
        # pandas writes a row of a column without a value as an empty line.
        row = next(rows, []) or [""] * len(header)
        own = printable(row[place]) if place is not None else ""
        cells = {
            name: cell
            for n, (name, cell) in enumerate(zip(header, row, strict=False))
            if n != place and name
        }
        identity = ("", str(number), own or f"{name}-{number}", bool(own))
        entry = entry_of_value(value)
        if isinstance(entry, Unsuitable):
            yield Found(*identity, "", (str(entry.args[0]), str(entry.args[1])), cells)
        else:
            yield Found(*identity, json.dumps(entry), None, cells)


def entry_of_value(value: Any) -> dict[str, Any] | Unsuitable:
    """Return the structure of a cell of a DataFrame, or the reason why there is none."""
    if not _is_given(value):
        return Unsuitable("no structure", "")
    try:
        return entry_of_object(value)
    except Unsuitable as error:
        return error
    except (AttributeError, TypeError, ValueError) as error:
        return Unsuitable(NOT_READABLE, f"{type(error).__name__}: {error}"[:200])


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and value != value)
