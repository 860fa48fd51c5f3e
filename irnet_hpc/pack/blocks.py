"""Keep the finished blocks of an unfinished pack, so that packing can resume after a kill.

    packs/.<name>.lock                locked by the one process (of all ranks) that makes the pack
    packs/.<name>.parts/plan.json     source, versions and rows of the pack, and rows per block
    packs/.<name>.parts/000012.part   a finished block: SHA-256, rows without features, then x

A block is written under a temporary name and renamed, but not synced: syncing would take longer
than computing the block. If the machine crashes, a torn block fails its hash and is computed again.
The folder of blocks is removed once the pack is complete and has its name.
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
    """Lock the name of a pack, and remove the temporary files of a process that was killed.

    If a process is killed, the kernel releases its lock.

    Raises:
        UserError: If another process makes a pack of that name.
    """
    # No lock can be made in a folder that is read-only, and none is needed if the pack exists.
    if path.exists() and not os.access(path.parent, os.W_OK):
        yield
        return

    def refuse(holder: str) -> None:
        raise UserError(
            f"{path} is being made by {holder or 'another process'}; "
            "wait for it, or give another name"
        )

    with exclusive(path.with_name(f".{path.stem}.lock"), refuse, remove=True):
        for target in (path, rejected_path(path), lost_path(path), kept_path(path)):
            remove_temporaries(target)
        yield


def rejected_path(path: Path) -> Path:
    """Return the path of the CSV file that lists the rows rejected from a pack."""
    return path.with_name(f"{path.stem}.rejected.csv")


def lost_path(path: Path) -> Path:
    """Return the path of the CSV file that lists the values left out of a pack, if any are."""
    return path.with_name(f"{path.stem}.values.csv")


def kept_path(path: Path) -> Path:
    """Return the path of the CSV file that lists what our rules would have left out of a pack."""
    return path.with_name(f"{path.stem}.kept.csv")


def blocks_folder(path: Path) -> Path:
    """Return the folder of the finished blocks of a pack."""
    return path.with_name(f".{path.stem}.parts")


def resume(path: Path, plan: dict, shapes: list[tuple[int, int]]) -> tuple[set[int], str]:
    """Prepare the folder of blocks, and keep intact blocks of an earlier attempt at the same pack.

    Args:
        path: The pack.
        plan: Everything that decides the content of the blocks. Blocks of another plan are removed.
        shapes: (n_rows, n_features) of each block.

    Returns:
        The numbers of the blocks that are intact, and a message for the user ("" for none).
    """
    folder = blocks_folder(path)
    plan = json.loads(
        json.dumps(plan)
    )  # turns tuples into lists, as in the plan read from the file
    previous = _read_plan(folder)
    if previous != plan:
        remove_blocks(path)
        write_json(folder / "plan.json", plan)
        if previous is None:
            return set(), ""
        differing = ", ".join(name for name in plan if previous.get(name) != plan[name])
        return (
            set(),
            f"blocks of an earlier attempt at this pack are removed: they differ in {differing}",
        )
    kept = {
        number
        for number, shape in enumerate(shapes)
        if read_block(folder, number, shape) is not None
    }
    n_damaged = sum(_block_path(folder, n).exists() for n in range(len(shapes))) - len(kept)
    if not kept and not n_damaged:
        return kept, ""
    damaged = f"; {n_damaged} damaged ones are computed again" if n_damaged else ""
    return kept, f"resuming: {len(kept):,} of {len(shapes):,} blocks are finished{damaged}"


def _read_plan(folder: Path) -> dict | None:
    """Read the plan of an earlier attempt. Returns None if there is none, {} if it is damaged."""
    if not (folder / "plan.json").exists():
        return None
    try:
        return read_json(folder / "plan.json", max_bytes=MAX_PLAN_BYTES)
    except UserError:
        return {}


def write_block(folder: Path, number: int, block: Described) -> None:
    """Write a finished block: features, (n_rows, n_features) float32, and rows without features.

    Raises:
        UserError: If the file cannot be written, for example because the disk is full.
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
        raise UserError(f"cannot write block {number} into {folder}: {error.strerror}") from None


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
    # Cannot fail, since the plan and the hash have been checked.
    assert head["number"] == number and x.size == shape[0] * shape[1]
    return Described(x.reshape(shape), {row: tuple(reason) for row, reason in head["unsuited"]})


def remove_blocks(path: Path) -> None:
    """Remove all blocks of a pack."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(blocks_folder(path))


def _block_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.part"
