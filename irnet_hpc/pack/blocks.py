"""Parts: the finished blocks of a pack that is being made, so that one that was killed goes on where it was.

    packs/.<name>.lock                held by the one process (of all ranks) that makes the pack, and says which
    packs/.<name>.parts/plan.json     what is made, of what and by which versions, and how many rows a block has
    packs/.<name>.parts/000012.part   a finished block: its hash, then the rows without features, then float32

Parts appear by a rename but are not synced, which would take longer than computing them: one that a crash of the machine
left torn is found by its hash, and computed again. The folder goes when the pack has its name.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

from irnet_hpc.errors import UserError
from irnet_hpc.features.sets import Described
from irnet_hpc.files import lock, read_json, remove_temporaries, replacing, write_json


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the name of a pack, and remove the unfinished files of a holder that was killed.

    Raises UserError where another process holds it. The kernel lets go of what a killed one held.
    """
    if path.exists() and not os.access(
        path.parent, os.W_OK
    ):  # nothing can be made here, but it may be there already
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.stem}.lock")
    while True:
        ours = False
        with place.open("a+") as file:
            if not lock(file):
                file.seek(0)
                raise UserError(
                    f"{path} is being made by {file.read() or 'another process'}; wait for it, or use --name"
                )
            # Its last holder may have removed the file in between: then others will lock another one.
            with contextlib.suppress(FileNotFoundError):
                ours = place.stat().st_ino == os.fstat(file.fileno()).st_ino
            if not ours:
                continue
            file.truncate(0)
            file.write(
                f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}"
            )
            file.flush()
            for target in (path, rejected_path(path)):
                remove_temporaries(target)
            try:
                yield
            finally:
                place.unlink(missing_ok=True)
            return


def rejected_path(path: Path) -> Path:
    """Where the rows that are not in a pack are listed."""
    return path.with_name(f"{path.stem}.rejected.csv")


def folder_of(path: Path) -> Path:
    return path.with_name(f".{path.stem}.parts")


def resume(path: Path, plan: dict, shapes: list[tuple[int, int]]) -> tuple[set[int], str]:
    """Prepare the folder of parts of a pack; return which blocks, by number, are there and sound, and what to say of it.

    `plan` is all that decides the blocks; parts of another plan are removed. `shapes`: (n_rows, n_features) of each block.
    """
    folder = folder_of(path)
    plan = json.loads(json.dumps(plan))  # as it comes back
    if not (folder / "plan.json").exists():
        remove(path)
        write_json(folder / "plan.json", plan)
        return set(), ""
    try:
        before = read_json(folder / "plan.json", largest=2**40)  # it holds the number of every row
    except UserError:
        before = {}
    if before != plan:
        differing = [name for name in plan if before.get(name) != plan[name]]
        remove(path)
        write_json(folder / "plan.json", plan)
        return (
            set(),
            f"what is left of another attempt at this pack is removed: its {', '.join(differing)} differ",
        )
    kept = {number for number, shape in enumerate(shapes) if get(folder, number, shape) is not None}
    n_damaged = sum(part_path(folder, number).exists() for number in range(len(shapes))) - len(kept)
    damaged = f"; {n_damaged} damaged, to be computed again" if n_damaged else ""
    return (
        kept,
        f"resuming: {len(kept):,} of {len(shapes):,} blocks are there{damaged}"
        if kept or damaged
        else "",
    )


def part_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.part"


def put(folder: Path, number: int, block: Described) -> None:
    """Keep a finished block: float32 (n_rows, n_features), and its unsuited rows with their reasons."""
    x = np.ascontiguousarray(block.x, "<f4")
    head = (
        json.dumps({"number": number, "unsuited": sorted(block.unsuited.items())}).encode() + b"\n"
    )
    digest = hashlib.sha256(head)
    digest.update(x)
    try:
        with (
            replacing(part_path(folder, number), sync=False) as temporary,
            temporary.open("wb") as file,
        ):
            file.write(digest.digest() + head)
            file.write(x)
    except OSError as error:
        raise UserError(f"{folder} cannot take block {number}: {error.strerror}") from None


def get(folder: Path, number: int, shape: tuple[int, int]) -> Described | None:
    """The block of that number and shape; None where it is not there, or not whole."""
    try:
        content = part_path(folder, number).read_bytes()
    except FileNotFoundError:
        return None
    digest, body = content[:32], memoryview(content)[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    end = content.index(b"\n", 32) + 1
    head = json.loads(content[32:end])
    x = np.frombuffer(content, "<f4", offset=end)
    assert (
        head["number"] == number and x.size == shape[0] * shape[1]
    )  # the plan is the same, and so is the hash
    return Described(x.reshape(shape), {row: tuple(why) for row, why in head["unsuited"]})


def remove(path: Path) -> None:
    """Remove all parts of a pack."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder_of(path))
