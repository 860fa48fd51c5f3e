"""Packing: materials -> blocks of features, over workers and ranks -> parts -> a pack. What makes `pack` fast and resumable.

Rank 0 alone reads the source, holds the pack's name, speaks and writes; every rank, it too, computes its share of the
blocks and puts them where all see them. So a rank holds its share of the materials and no more, a source is read once, and
no two ranks can come to different rows.
"""

import csv
import datetime
import hashlib
import importlib.metadata
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from irnet_hpc import __version__
from irnet_hpc.data.materials import Materials, Rejected
from irnet_hpc.data.splits import ROLES
from irnet_hpc.distributed.mpi import Ranks
from irnet_hpc.errors import UserError
from irnet_hpc.features import sets as features
from irnet_hpc.files import write_text
from irnet_hpc.pack import blocks as parts
from irnet_hpc.pack import store
from irnet_hpc.pack.select import reject, reported
from irnet_hpc.pack.summary import reasons

VERSIONS = ("numpy", "h5py", "pymatgen")  # formulas are read by the last


class Share(NamedTuple):
    """What a rank has to compute. The blocks follow, one by one: all at once may be more than a message can hold."""

    names: tuple[str, ...]  # of feature sets
    folder: Path  # of parts
    numbers: list[int]  # of blocks
    n_rows: int
    workers: int | None

    def n_workers(self, ranks: Ranks) -> int:
        return self.workers or features.worthwhile_workers(self.names, self.n_rows, ranks.cores)


def write(
    path: Path,
    materials: Materials,
    rejected: list[Rejected],
    identity: dict,
    attrs: dict,
    workers: int | None,
    ranks: Ranks,
) -> None:
    """Featurise the materials into a pack; rows that have no features are rejected on the way. On rank 0."""
    if not len(materials):
        raise UserError(f"not one of {len(rejected):,} rows is left to pack: {reasons(rejected)}")
    names = tuple(identity["feature_versions"])
    labels = features.feature_labels(names, materials)
    size = features.block_rows(names)
    blocks = [
        np.arange(start, min(start + size, len(materials)))
        for start in range(0, len(materials), size)
    ]
    shapes = [(len(rows), len(labels)) for rows in blocks]
    libraries = dict.fromkeys(
        VERSIONS + sum((features.FEATURE_SETS[name].libraries for name in names), ())
    )
    versions = {name: importlib.metadata.version(name) for name in libraries} | {
        "irnet_hpc": __version__
    }
    order = hashlib.sha256(np.ascontiguousarray(materials.line, "<i8")).hexdigest()
    plan = {**identity, "versions": versions, "labels": labels, "block_rows": size, "rows": order}
    with store.create(path, labels, len(materials)) as new:
        there, said = parts.resume(path, plan, shapes)
        if said:
            print(said, flush=True)
        missing = {number: rows for number, rows in enumerate(blocks) if number not in there}
        if missing:
            _compute_on_all(ranks, names, parts.folder_of(path), materials, missing, workers)
        kept, unsuited = _collect(new, parts.folder_of(path), materials, shapes)
        rejected, materials = rejected + unsuited, materials.take(kept)
        if not len(materials):
            parts.remove(path)
            raise UserError(
                f"not one of {len(rejected):,} rows is left to pack: {reasons(rejected)}"
            )
        attrs = attrs | {
            "n_rejected": len(rejected),
            "rejected": dict(Counter(row.reason for row in rejected)),
            "reported": reported(materials),
            "versions": versions,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        counts = {split: int((materials.role == split).sum()) for split in ROLES}
        new.finish(
            list(materials.formula),
            list(materials.material_id),
            materials.targets,
            counts,
            identity,
            attrs,
        )
        write_rejected(parts.rejected_path(path), rejected)
    parts.remove(path)


def _compute_on_all(
    ranks: Ranks,
    names: tuple[str, ...],
    folder: Path,
    materials: Materials,
    missing: dict[int, np.ndarray],
    workers: int | None,
) -> None:
    """Deal the missing blocks (number -> rows) to the ranks in turn, compute this one's, and wait for the others.

    Rows are in random order, so blocks take about equally long, and nobody need ask for the next.
    """
    shares = []
    for rank in range(ranks.size):
        numbers = list(missing)[rank :: ranks.size]
        shares.append(
            Share(names, folder, numbers, sum(len(missing[number]) for number in numbers), workers)
        )
    n_workers = shares[0].n_workers(ranks)
    print(
        f"featurising {sum(share.n_rows for share in shares):,} materials: {'+'.join(names)}, "
        f"{len(features.feature_labels(names, materials))} features, {n_workers} worker{'s' if n_workers > 1 else ''}"
        + (f" on each of {ranks.size} ranks" if ranks.size > 1 else ""),
        flush=True,
    )
    for rank in range(1, ranks.size):
        ranks.send(shares[rank], rank)
        for number in shares[rank].numbers:
            ranks.send(materials.take(missing[number]), rank)
    _compute(ranks, shares[0], (materials.take(missing[number]) for number in shares[0].numbers))
    for rank in range(1, ranks.size):
        ranks.receive(rank)


def assist(ranks: Ranks) -> None:
    """Compute what rank 0 sends, until it sends None. On all other ranks."""
    while (share := ranks.receive(0)) is not None:
        batches = [ranks.receive(0) for _ in share.numbers]
        if not share.folder.is_dir():
            raise UserError(
                f"every rank must see {share.folder}, however: rank {ranks.rank} does not; see --pack-dir"
            )
        _compute(ranks, share, batches)
        ranks.send("done", 0)


def dismiss(ranks: Ranks) -> None:
    """Let the other ranks go. On rank 0."""
    for rank in range(1, ranks.size):
        ranks.send(None, rank)


def _compute(ranks: Ranks, share: Share, batches: Iterable[Materials]) -> None:
    n_workers = max(1, min(share.n_workers(ranks), len(share.numbers)))
    silent = True if ranks.rank else None  # None: unless on a terminal
    with tqdm(total=share.n_rows, unit=" materials", disable=silent) as bar:
        found = features.describe_batches(share.names, batches, n_workers)
        for number, block in zip(share.numbers, found, strict=True):
            parts.put(share.folder, number, block)
            bar.update(len(block.x))


def _collect(
    new: store.Writer, folder: Path, materials: Materials, shapes: list[tuple[int, int]]
) -> tuple[np.ndarray, list[Rejected]]:
    """Append all blocks to the pack. Returns which rows have features, (n_rows,) bool, and why the others have none."""
    kept, unsuited = np.ones(len(materials), bool), []
    start = 0
    for number, shape in enumerate(shapes):
        block = parts.get(folder, number, shape)
        if block is None:
            raise UserError(
                f"block {number} is not whole in {folder}, which every rank must see; the same command mends it"
            )
        rows = np.array(sorted(block.unsuited), np.int64)
        kept[start + rows] = False
        unsuited += [reject(materials, start + row, *block.unsuited[row]) for row in rows.tolist()]
        new.append(block.x[kept[start : start + shape[0]]])
        start += shape[0]
    return kept, unsuited


def write_rejected(path: Path, rejected: list[Rejected]) -> None:
    """Every rejected row, in the order of the source, with its reason."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Rejected._fields)
    writer.writerows(sorted(rejected))
    write_text(path, text.getvalue())
