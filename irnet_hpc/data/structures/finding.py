"""Find the structures of a folder, an archive or a file, in parallel, and yield them one by one."""

import itertools
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from irnet_hpc.data.crystals import Unsuitable
from irnet_hpc.data.raw_jsonl import parse_json_object
from irnet_hpc.data.raw_table import TableText
from irnet_hpc.data.structures.cif import cif_entries
from irnet_hpc.data.structures.coordinates import poscar_entries, xyz_entries
from irnet_hpc.data.structures.documents import Cells, Record, document_records, record_of
from irnet_hpc.data.structures.entries import NOT_READABLE
from irnet_hpc.data.structures.formats import (
    CIF,
    JSON,
    PACKED,
    POSCAR,
    XYZ,
    kind_of,
    printable,
    stem_of,
    without_packing,
)
from irnet_hpc.data.structures.members import DAMAGED, Member, members
from irnet_hpc.distributed.worker_pool import LeftOut, available_cores, in_order
from irnet_hpc.errors import UserError

MAX_FILE_BYTES = 2**24  # unpacked, of one file that is not JSON
BESIDE = "the CONTCAR beside it is read"
BATCH_FILES, BATCH_BYTES = 32, 2**21
# Files that take less time than starting worker processes, which load pymatgen first.
N_ALONE = 256
MAX_AHEAD = 16  # batches that are read before it is known whether there are so many
MAX_READ = 512  # structures of a JSON document in a batch
READERS = {CIF: cif_entries, POSCAR: poscar_entries, XYZ: xyz_entries}


class Found(NamedTuple):
    """A structure, or a file or block without one."""

    file: str
    block: str
    id: str  # as the file states it, or made of the names of file and block
    is_stated: bool  # whether the file states the id
    entry: str  # the object of a JSON line; empty if there is a fault
    fault: tuple[str, str] | None = None  # reason and detail
    cells: Cells | None = None  # property -> value, as the file states them


class Text(NamedTuple):
    """A file for a worker."""

    file: str
    kind: str
    content: bytes


class _Batch(NamedTuple):
    """Files for a worker, or structures that have been read already."""

    texts: list[Text]
    found: list[Found]


OtherFiles = Counter[str]  # ending -> number of files that are no structures


def find_structures(path: Path, others: OtherFiles | None = None) -> Iterator[Found]:
    """Yield the structures of a folder, an archive or a file, in the order of its files.

    Args:
        path: The folder, archive or file.
        others: Counts the files that are no structures.

    Raises:
        UserError: If the archive is damaged or implausibly large.
    """
    ready: dict[int, list[Found]] = {}
    numbers = itertools.count()

    def texts(batches: Iterable[_Batch]) -> Iterator[list[Text]]:
        for batch in batches:
            ready[next(numbers)] = batch.found
            yield batch.texts

    batches = _batches(path, OtherFiles() if others is None else others)
    first: list[_Batch] = []
    n_texts = 0
    for batch in batches:
        first.append(batch)
        n_texts += len(batch.texts)
        if n_texts > N_ALONE or len(first) > MAX_AHEAD:
            break
    workers = available_cores() if n_texts > N_ALONE else 1
    results = in_order(read_texts, texts(itertools.chain(first, batches)), workers)
    for number, found in enumerate(results):
        yield from found
        yield from ready.pop(number)


def find_records(table: TableText) -> Iterator[Found]:
    """Yield the structures of JSON lines, each of which is a record of another library.

    Raises:
        UserError: If a line is not a JSON object.
    """
    for number, line in enumerate(table.lines(), start=1):
        if line.strip():
            value = parse_json_object(table.place(number), line)
            yield _found_record(Path(table.name).name, str(number), record_of(value))


def _batches(path: Path, others: OtherFiles) -> Iterator[_Batch]:
    texts: list[Text] = []
    n_bytes = 0
    relaxed: set[str] = set()  # folders with a CONTCAR
    for member in members(path):
        kind = kind_of(member.name)
        if not kind:
            others[PurePosixPath(member.name).suffix.lower() or "without an ending"] += 1
            continue
        base = PurePosixPath(without_packing(member.name)).name
        folder = str(PurePosixPath(member.name).parent)
        if base == "CONTCAR":
            relaxed.add(folder)
        elif base == "POSCAR" and folder in relaxed and not member.fault:
            member = member._replace(fault=(BESIDE, ""))
        if member.fault is None and kind == JSON:
            # A member must be read before the next one is opened, and many may be read ahead.
            documents = _documents(member)
            while read := list(itertools.islice(documents, MAX_READ)):
                yield _Batch(texts, read)
                texts, n_bytes = [], 0
            continue
        text = _content(member, kind) if member.fault is None else member.fault
        if not isinstance(text, Text):
            yield _Batch(texts, [_fault(member.name, *text)])
            texts, n_bytes = [], 0
            continue
        texts.append(text)
        n_bytes += len(text.content)
        if len(texts) == BATCH_FILES or n_bytes > BATCH_BYTES:
            yield _Batch(texts, [])
            texts, n_bytes = [], 0
    yield _Batch(texts, [])


def _fault(file: str, reason: str, detail: str = "") -> Found:
    return Found(file, "", printable(stem_of(file)), False, "", (reason, detail))


def _unpacked(member: Member) -> Any:
    stream = member.open()
    ending = next((end for end in PACKED if member.name.lower().endswith(end)), "")
    return PACKED[ending](stream, "rb") if ending else stream


def _content(member: Member, kind: str) -> Text | tuple[str, str]:
    """Return the content of a file, or reason and detail why it is not read."""
    try:
        with _unpacked(member) as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (*DAMAGED, OSError, lzma.LZMAError, zlib.error) as error:
        return NOT_READABLE, f"{type(error).__name__}: {error}"[:200]
    if len(content) > MAX_FILE_BYTES:
        return "a file that is too large", f"more than {MAX_FILE_BYTES / 2**20:.0f} MiB"
    return Text(member.name, kind, content)


def _documents(member: Member) -> Iterator[Found]:
    """Yield the structures of a JSON document, while its archive is at this member."""
    number = 0
    try:
        with _unpacked(member) as stream:
            records = document_records(stream, member.name)
            first = list(itertools.islice(records, 2))
            for number, record in enumerate(itertools.chain(first, records), start=1):
                block = str(number) if len(first) > 1 else ""
                yield _found_record(member.name, block, record)
    except UserError as error:
        yield _fault(member.name, NOT_READABLE, str(error))
    except (*DAMAGED, OSError) as error:
        yield _fault(member.name, NOT_READABLE, f"{type(error).__name__}: {error}"[:200])
    else:
        if not number:
            yield _fault(member.name, "a structure without atoms", "an empty list")


def _found_record(file: str, block: str, record: Record) -> Found:
    made = printable(stem_of(file)) + (f":{block}" if block else "")
    place = (file, block, record.id or made, bool(record.id))
    if isinstance(record.structure, Unsuitable):
        return Found(*place, "", _reason(record.structure), record.cells)
    return Found(*place, json.dumps(record.structure), None, record.cells)


def _reason(error: Unsuitable) -> tuple[str, str]:
    return str(error.args[0]), str(error.args[1])


def read_texts(texts: list[Text], left_out: LeftOut) -> list[Found]:
    """Read the structures of files; workers run this."""
    found: list[Found] = []
    for text in texts:
        stem = printable(stem_of(text.file))
        # CIF is ASCII, and other characters are in comments and names alone.
        entries = READERS[text.kind](text.content.decode("utf-8", "replace"))
        for number, (name, entry) in enumerate(entries, start=1):
            block = printable(name)
            own = stem if len(entries) == 1 else f"{stem}:{block or number}"
            if isinstance(entry, Unsuitable):
                found.append(Found(text.file, block, own, False, "", _reason(entry)))
            else:
                found.append(Found(text.file, block, own, False, json.dumps(entry)))
    return found
