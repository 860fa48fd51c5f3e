"""Join the properties of a table to structures, by the names of their files or by their ids."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from irnet_hpc.data.headings import plain_name
from irnet_hpc.data.identifying import identifying_name
from irnet_hpc.data.raw_csv import LENGTH, read_csv_header, sniff
from irnet_hpc.data.raw_files import foreign_text, records_text
from irnet_hpc.data.raw_table import FOREIGN, TableText, ending_of, file_text, form_of, one_sentence
from irnet_hpc.data.reading import Reading
from irnet_hpc.data.structures.formats import stem_of, without_packing
from irnet_hpc.errors import UserError, check_choice

# Names by which people call the column of files; identifying_name knows those of ids.
FILES = {"file", "files", "filename", "name", "cif", "ciffile", "structure", "path", "material"}
NO_FILE = "no structure of this name"
SEVERAL = "several structures of this name"
N_EXAMPLES = 3


class Properties(NamedTuple):
    """A table of properties, whose rows name structures."""

    name: str
    columns: list[str]  # without the column of names
    rows: list[tuple[str, list[str]]]  # the name, and the cells; another number: a faulty row
    key: str  # the column of names


class Named(NamedTuple):
    """A structure, as the rows of a table may call it."""

    file: str
    block: str
    id: str


class Joined(NamedTuple):
    """The rows that belong to each structure, and those that belong to none."""

    rows: dict[int, list[list[str]]]  # structure -> the cells of its rows
    without: list[tuple[str, tuple[str, str]]]  # name in the table, and why it has no structure


def read_properties(path: Path, reading: Reading, structures: Sequence[Named]) -> Properties:
    """Read a table of properties, and find its column of names.

    That is `material_id`, or the column that the user renames to it, or else the one in which most
    names of structures are.

    Args:
        path: The table, of any form that packing reads.
        reading: How the table is to be read.
        structures: The structures.

    Raises:
        UserError: If the table cannot be read, or no column names a structure.
    """
    if not path.is_file():
        raise UserError(f"the table of properties {path} does not exist, or is no file")
    text = _text(path, reading)
    header = read_csv_header(text)
    with one_sentence(text.name):
        reader = csv.reader(text.lines(), delimiter=text.delimiter, strict=True)
        rows = [[cell.strip() for cell in row] for row in reader if any(row)][1:]
    known = _names(structures)
    if any(_key(name) in known for name in header):
        raise UserError(
            f"{path} must name its columns in the first line, which has the name of a structure"
        )
    place = _key_place(path, header, rows, known, reading)
    names = [row[place] if place < len(row) else "" for row in rows]
    cells = [row[:place] + row[place + 1 :] for row in rows]
    columns = header[:place] + header[place + 1 :]
    return Properties(str(path), columns, list(zip(names, cells, strict=True)), header[place])


def _text(path: Path, reading: Reading) -> TableText:
    ending_of(path)  # raises
    if path.name.endswith(FOREIGN):
        return foreign_text(path, reading.sheet)
    if reading.sheet:
        raise UserError(f"--sheet names a sheet of an Excel workbook, but {path} is none")
    text = file_text(path)
    return records_text(text) if form_of(path) == "jsonl" else sniff(text)


def _key_place(
    path: Path,
    header: list[str],
    rows: list[list[str]],
    known: Mapping[str, set[int]],
    reading: Reading,
) -> int:
    stated = next((old for old, new in reading.rename.items() if new == "material_id"), "")
    if stated:
        check_choice(f"column of {path} (of --rename)", stated, filter(None, header))
        return header.index(stated)
    matches = Counter[int]()
    for row in rows:
        matches.update(place for place, cell in enumerate(row) if cell and _key(cell) in known)
    fitting = [place for place in matches if place < len(header)]
    if "material_id" in header:
        fitting = [place for place in fitting if header[place] == "material_id"]
    if not fitting:
        raise UserError(
            f"no column of {path} names the structures: {_examples(known)}; its columns: "
            f"{', '.join(filter(None, header))}"
        )
    return max(fitting, key=lambda place: (_is_name(header[place]), matches[place], -place))


def _examples(known: Mapping[str, set[int]]) -> str:
    first = list(known)[:N_EXAMPLES]
    return ", ".join(map(repr, first)) + (", ..." if len(known) > N_EXAMPLES else "")


def _is_name(header: str) -> bool:
    return plain_name(header) in FILES or identifying_name(header) == "an id"


def join(properties: Properties, structures: Sequence[Named]) -> Joined:
    """Find the structures of the rows of a table.

    Several rows of one structure are several measurements of it.
    """
    known = _names(structures)
    rows: dict[int, list[list[str]]] = {}
    without: list[tuple[str, tuple[str, str]]] = []
    for name, cells in properties.rows:
        of_name = known.get(_key(name), set())
        if len(cells) != len(properties.columns):
            detail = f"must have {len(properties.columns) + 1} fields, got {len(cells) + 1}"
            without.append((name, (LENGTH, detail)))
        elif len(of_name) == 1:
            rows.setdefault(next(iter(of_name)), []).append(cells)
        elif of_name:
            ids = ", ".join(structures[number].id for number in sorted(of_name)[:N_EXAMPLES])
            without.append((name, (SEVERAL, f"{len(of_name)}; name one by its id: {ids}")))
        else:
            without.append((name, (NO_FILE, properties.name)))
    return Joined(rows, without)


def _key(name: str) -> str:
    return name.strip().removeprefix("./")


def _names(structures: Sequence[Named]) -> dict[str, set[int]]:
    """Return each name by which a structure may be called, and the structures that have it."""
    known: dict[str, set[int]] = {}
    by_id: dict[str, set[int]] = {}
    for number, structure in enumerate(structures):
        by_id.setdefault(structure.id, set()).add(number)
        for name in _names_of(structure):
            known.setdefault(name, set()).add(number)
    # A name that is the id of one structure means this one.
    return known | {name: numbers for name, numbers in by_id.items() if len(numbers) == 1}


def _names_of(structure: Named) -> Iterator[str]:
    """Yield the names by which a structure may be called, some of them several times."""
    yield structure.id
    if not structure.file:
        return
    path = PurePosixPath(structure.file)
    bare = without_packing(structure.file)
    yield from (structure.file, path.name, bare, PurePosixPath(bare).name, stem_of(bare))
    if path.suffix:
        yield str(PurePosixPath(bare).with_suffix(""))
    if path.parent.name:
        yield path.parent.name  # of a folder with one structure
    if structure.block and not structure.block.isdigit():  # no number of a frame
        yield structure.block
