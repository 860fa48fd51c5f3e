"""List structures as JSON lines, in an order that does not depend on how they are packed.

A folder and an archive of the same files give the same lines, and so the same pack. Each line also
says which file and block it comes from; one that cannot be read has a reason in place of a
structure. The lines are kept in a temporary file without a name, since they are read several times.
"""

import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from irnet_hpc.data.raw_table import FOREIGN, OPENERS, TableText
from irnet_hpc.data.reading import Reading
from irnet_hpc.data.splits import ROLES
from irnet_hpc.data.structures.finding import BESIDE, Found, OtherFiles, find_structures
from irnet_hpc.data.structures.formats import ENDINGS, PACKED, printable
from irnet_hpc.data.structures.joining import Joined, Named, Properties, join, read_properties
from irnet_hpc.errors import UserError

N_EXAMPLES = 3
IN_MEMORY = 2**26  # bytes of lines; more are on disk
# Endings of tables that are looked for in a folder of structures; a .txt may be anything.
TABLES = tuple(
    ending for ending in (*OPENERS, *FOREIGN) if not ending.startswith((".txt", ".json"))
)


class Listed(NamedTuple):
    """The lines of structures, and what a user should know about them."""

    text: TableText
    reading: Reading  # without what concerns the column of names
    notes: tuple[str, ...]


class _Kept(NamedTuple):
    """A structure, whose object is in the temporary file."""

    start: int
    n_bytes: int
    found: Found  # without its object


def list_structures(path: Path, reading: Reading) -> Listed:
    """List the structures of a folder, an archive or a file of structures.

    Args:
        path: The folder, archive or file.
        reading: How they are to be read, and which table has their properties.

    Raises:
        UserError: If there is no structure, or an archive or a table is damaged.
    """
    others = OtherFiles()
    listed = list_found(str(path), find_structures(path, others), reading, path)
    others -= Counter({ending: n for ending, n in others.items() if ending in TABLES})
    if others:
        counts = ", ".join(f"{n:,} {ending}" for ending, n in sorted(others.items()))
        listed = listed._replace(notes=(*listed.notes, f"other files are not read: {counts}"))
    return listed


def list_found(
    name: str, structures: Iterable[Found], reading: Reading, path: Path | None = None
) -> Listed:
    """List structures that have been found.

    Args:
        name: The name of their source, for messages.
        structures: The structures; those of one file are in the order of their blocks.
        reading: How they are to be read, and which table has their properties.
        path: The folder, archive or file; None: another source.

    Raises:
        UserError: If there is no structure, or a table is damaged.
    """
    if reading.formula_column:
        raise UserError(
            f"--formula-column is for tables of cells; the formulas of {name} are those of its "
            "structures"
        )
    spool = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115, as long as the lines are read
    kept = _keep(spool, structures, reading.strict, name)
    n_read = sum(not one.found.fault for one in kept)
    if not n_read:
        raise UserError(_no_structure(name, kept))
    kept = _with_ids(sorted(kept, key=lambda one: one.found.file))
    n_files = len({one.found.file for one in kept})
    notes = [f"{n_read:,} structures in {n_files:,} file{'s' * (n_files != 1)}"]
    faults = Counter(one.found.fault[0] for one in kept if one.found.fault)
    notes += [f"{n:,} not read: {reason}" for reason, n in faults.most_common()]
    properties, joined, of_table = _join(kept, reading, path)

    def lines(digest: Any = None) -> Iterator[str]:
        for line in _lines(spool, kept, properties, joined):
            if digest:
                digest.update(line.encode())
            yield line

    text = TableText(name, lines, unit="structure")
    return Listed(text, _without_key(reading), (*notes, *of_table))


def line_of(found: Found) -> str:
    """Return the JSON line of a structure that has been found, with its own properties."""
    return _line(found, found.entry, {})


def _keep(spool: IO[bytes], structures: Iterable[Found], strict: bool, name: str) -> list[_Kept]:
    """Write the objects of structures into a file, and keep where they are."""
    kept = []
    start = 0
    for found in structures:
        if found.fault and strict and found.fault[0] != BESIDE:
            raise UserError(f"{name}: {_describe(found)}")
        n_bytes = spool.write(found.entry.encode())
        kept.append(_Kept(start, n_bytes, found._replace(entry="")))
        start += n_bytes
    return kept


def _describe(found: Found) -> str:
    assert found.fault
    block = f", block {found.block}" if found.block else ""
    return f"{found.file}{block}: {': '.join(filter(None, found.fault))}"


def _no_structure(name: str, kept: Sequence[_Kept]) -> str:
    if kept:
        first = _describe(kept[0].found)
        return f"no structure of {name} can be read, of {len(kept):,}; the first is {first}"
    known = ", ".join((*ENDINGS, "POSCAR, CONTCAR"))
    return (
        f"{name} has no files of structures; their names must end in or be {known}, also with "
        f"{', '.join(PACKED)}"
    )


def _with_ids(kept: Sequence[_Kept]) -> list[_Kept]:
    """Give each structure an id of its own, unless its file states one.

    It is the name of the file; with the folder and the ending, if several files have this name.
    """

    def again(kept: Sequence[_Kept], other: Any) -> list[_Kept]:
        counts = Counter(one.found.id for one in kept if not one.found.fault)
        seen = Counter[str]()
        renamed = []
        for one in kept:
            found = one.found
            if counts[found.id] > (0 if found.fault else 1) and not found.is_stated:
                seen[found.id] += 1
                found = found._replace(id=other(found, seen[found.id]))
            renamed.append(one._replace(found=found))
        return renamed

    def of_file(found: Found, n: int) -> str:
        block = f":{found.block}"
        return found.file + (block if found.block and found.id.endswith(block) else "")

    kept = again(kept, of_file)
    return again(kept, lambda found, n: f"{found.id}#{n}")


def _join(
    kept: Sequence[_Kept], reading: Reading, path: Path | None
) -> tuple[Properties | None, Joined, list[str]]:
    """Join the table of properties, if there is one, and describe what came of it."""
    table = Path(reading.properties_table) if reading.properties_table else _table_beside(path)
    if table is None:
        return None, Joined({}, []), []
    named = [Named(one.found.file, one.found.block, one.found.id) for one in kept]
    try:
        properties = read_properties(table, reading, named)
    except UserError as error:
        if reading.properties_table:
            raise
        return None, Joined({}, []), [f"{table} is not read: {error}"]
    joined = join(properties, named)
    lacking = [
        one.found.id for n, one in enumerate(kept) if n not in joined.rows and not one.found.fault
    ]
    surplus = [name for name, _ in joined.without]
    notes = [f"properties are those of {table}, whose column {properties.key!r} names structures"]
    if lacking:
        notes.append(f"{len(lacking):,} structures have no row in {table}: {_first(lacking)}")
    if surplus:
        notes.append(
            f"{len(surplus):,} rows of {table} have no structure, or several: {_first(surplus)}"
        )
    return properties, joined, notes


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:N_EXAMPLES]) + (", ..." if len(names) > N_EXAMPLES else "")


def _table_beside(path: Path | None) -> Path | None:
    """Return the table of cells in a folder of structures; None if there is not exactly one."""
    if path is None or not path.is_dir():
        return None
    tables = [
        file
        for file in sorted(path.iterdir())
        if file.name.endswith(TABLES) and not file.name.startswith((".", "~")) and file.is_file()
    ]
    return tables[0] if len(tables) == 1 else None


def _without_key(reading: Reading) -> Reading:
    """Return how the columns are read, without the renaming of the column of names."""
    rename = {old: new for old, new in reading.rename.items() if new != "material_id"}
    return dataclasses.replace(reading, rename=rename, sheet="")


def _lines(
    spool: IO[bytes], kept: Sequence[_Kept], properties: Properties | None, joined: Joined
) -> Iterator[str]:
    columns = properties.columns if properties else []
    # A structure without a row reports what its own file does. Every line must have a split.
    no_row = {"split": ""} if "split" in columns else {}
    for number, one in enumerate(kept):
        spool.seek(one.start)
        entry = spool.read(one.n_bytes).decode()
        for cells in joined.rows.get(number, [None]):
            texts = no_row if cells is None else dict(zip(columns, cells, strict=True))
            yield _line(one.found, entry, texts)
    for name, fault in joined.without:
        yield _line(Found("", "", printable(name), False, "", fault), "", no_row)


def _line(found: Found, entry: str, cells: dict[str, str]) -> str:
    source: dict[str, Any] = {"file": found.file, "block": found.block}
    if found.fault:
        source["reason"], source["detail"] = found.fault
    merged = {**(found.cells or {}), **{name: cell for name, cell in cells.items() if name}}
    head: dict[str, Any] = {"material_id": found.id}
    if "split" in merged:
        head["split"] = merged.pop("split") or ROLES[0]
    source["cells"] = merged
    head["read_from"] = source
    if not entry:
        return json.dumps(head | {"formula": ""}) + "\n"
    return f"{json.dumps(head)[:-1]}, {entry[1:]}\n"
