"""Keep the finished blocks of a pack in the making, so that a killed process can be resumed.

    packs/.<name>.lock                held by the one process (of all ranks) that makes the pack
    packs/.<name>.parts/plan.json     source, versions and rows of the pack, and rows of a block
    packs/.<name>.parts/000012.part   a finished block: SHA-256, rows without features, then float32

Blocks get their names by renaming but are not synced, which would take longer than computing them.
A block that a crash of the machine left torn fails its hash and is computed again. The folder is
removed once the pack has its name.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from irnet_hpc.errors import UserError
from irnet_hpc.features.sets import Described
from irnet_hpc.files import exclusive, read_json, remove_temporaries, replacing, write_json

# A plan holds the number of every row, so it may be larger than other JSON files.
MAX_PLAN_BYTES = 2**40


@contextlib.contextmanager
def hold_name(path: Path) -> Iterator[None]:
    """Hold the name of a pack, and remove what a killed holder left unfinished.

    The kernel releases the lock of a process that is killed.

    Raises:
        UserError: If another process makes a pack of that name.
    """
    # Nothing can be made in such a folder, but the pack may be there already.
    if path.exists() and not os.access(path.parent, os.W_OK):
        yield
        return

    def refuse(holder: str) -> None:
        raise UserError(
            f"{path} is being made by {holder or 'another process'}; "
            "wait for it, or give another name"
        )

    with exclusive(path.with_name(f".{path.stem}.lock"), refuse, remove=True):
        for target in (path, rejected_path(path)):
            remove_temporaries(target)
        yield


def rejected_path(path: Path) -> Path:
    """Return the path of the list of rows that are not in a pack."""
    return path.with_name(f"{path.stem}.rejected.csv")


def blocks_folder(path: Path) -> Path:
    """Return the folder of the finished blocks of a pack."""
    return path.with_name(f".{path.stem}.parts")


def resume(path: Path, plan: dict, shapes: list[tuple[int, int]]) -> tuple[set[int], str]:
    """Prepare the folder of blocks; keep the blocks of an earlier attempt at the same pack.

    Args:
        path: The pack.
        plan: Everything that decides the blocks; blocks of another plan are removed.
        shapes: (n_rows, n_features) of each block.

    Returns:
        The numbers of the blocks that are present and intact, and a message for people, or "".
    """
    folder = blocks_folder(path)
    plan = json.loads(json.dumps(plan))  # tuples as lists, as they come back from the file
    previous = _read_plan(folder)
    if previous != plan:
        remove_blocks(path)
        write_json(folder / "plan.json", plan)
        if previous is None:
            return set(), ""
        differing = ", ".join(name for name in plan if previous.get(name) != plan[name])
        return set(), f"blocks of another attempt at this pack are removed: its {differing} differ"
    kept = {
        number
        for number, shape in enumerate(shapes)
        if read_block(folder, number, shape) is not None
    }
    n_damaged = sum(_block_path(folder, n).exists() for n in range(len(shapes))) - len(kept)
    if not kept and not n_damaged:
        return kept, ""
    damaged = f"; {n_damaged} damaged, to be computed again" if n_damaged else ""
    return kept, f"resuming: {len(kept):,} of {len(shapes):,} blocks are there{damaged}"


def _read_plan(folder: Path) -> dict | None:
    """Read the plan of an earlier attempt: None if there is none, empty if it is damaged."""
    if not (folder / "plan.json").exists():
        return None
    try:
        return read_json(folder / "plan.json", max_bytes=MAX_PLAN_BYTES)
    except UserError:
        return {}


def write_block(folder: Path, number: int, block: Described) -> None:
    """Write a finished block: float32 (n_rows, n_features), and its rows that have no features.

    Raises:
        UserError: If it cannot be written, for example on a full disk.
    """
    x = np.ascontiguousarray(block.x, "<f4")
    head = json.dumps({"number": number, "unsuited": sorted(block.unsuited.items())})
    encoded = head.encode() + b"\n"
    digest = hashlib.sha256(encoded)
    digest.update(x.data)
    try:
        with (
            replacing(_block_path(folder, number), sync=False) as temporary,
            temporary.open("wb") as file,
        ):
            file.write(digest.digest() + encoded)
            file.write(x.data)
    except OSError as error:
        raise UserError(f"{folder} cannot take block {number}: {error.strerror}") from None


def read_block(folder: Path, number: int, shape: tuple[int, int]) -> Described | None:
    """Read a block of a known shape (n_rows, n_features); None if it is missing or damaged."""
    try:
        content = _block_path(folder, number).read_bytes()
    except FileNotFoundError:
        return None
    digest, body = content[:32], memoryview(content)[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    end = content.index(b"\n", 32) + 1
    head = json.loads(content[32:end])
    x = np.frombuffer(content, "<f4", offset=end)
    # Cannot fail: the plan is the same and so is the hash.
    assert head["number"] == number and x.size == shape[0] * shape[1]
    return Described(x.reshape(shape), {row: tuple(reason) for row, reason in head["unsuited"]})


def remove_blocks(path: Path) -> None:
    """Remove all blocks of a pack."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(blocks_folder(path))


def _block_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.part"
