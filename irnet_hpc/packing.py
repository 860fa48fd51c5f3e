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
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from irnet_hpc import __version__, features, parts, store
from irnet_hpc.accounting import reasons
from irnet_hpc.errors import UserError
from irnet_hpc.files import write_text
from irnet_hpc.materials import Materials, Rejected
from irnet_hpc.ranks import Ranks
from irnet_hpc.selection import reject, reported
from irnet_hpc.splits import SPLITS

VERSIONS = ("numpy", "h5py", "matminer", "pymatgen")


class Share(NamedTuple):
    """What a rank has to compute. The blocks follow, one by one: all at once may be more than a message can hold."""

    names: tuple[str, ...]  # of feature sets
    folder: Path  # of parts
    workers: int | None
    n_rows: int
    numbers: list[int]  # of blocks


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
    labels = features.labels(names, materials)
    n_rows = features.block_rows(names)
    rows = [np.arange(start, min(start + n_rows, len(materials))) for start in range(0, len(materials), n_rows)]
    shapes = [(len(block), len(labels)) for block in rows]
    versions = {name: importlib.metadata.version(name) for name in VERSIONS} | {"irnet_hpc": __version__}
    with store.create(path, labels, len(materials)) as new:
        plan = {**identity, "versions": versions, "labels": labels, "block_rows": n_rows, "rows": _hash(materials.line)}
        there, said = parts.resume(path, plan, shapes)
        if said:
            print(said, flush=True)
        _compute_all(
            path, names, materials, [place for place in enumerate(rows) if place[0] not in there], workers, ranks
        )
        kept, unsuited = [], []
        for number, shape in enumerate(shapes):
            block = parts.get(parts.folder_of(path), number, shape)
            if block is None:
                raise UserError(
                    f"block {number} is not in {parts.folder_of(path)}, which every rank must see and write to"
                )
            suited = ~np.isin(np.arange(len(block.x)), list(block.unsuited))
            unsuited += [reject(materials, len(kept) + row, *why) for row, why in block.unsuited.items()]
            kept.extend(suited)
            new.append(block.x[suited])
        rejected = rejected + unsuited
        materials = materials.take(np.array(kept))
        if not len(materials):
            parts.remove(path)
            raise UserError(f"not one of {len(rejected):,} rows is left to pack: {reasons(rejected)}")
        attrs = attrs | {
            "n_rejected": len(rejected),
            "rejected": dict(Counter(row.reason for row in rejected)),
            "reported": reported(materials),
            "versions": versions,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        counts = {split: int((materials.split == split).sum()) for split in SPLITS}
        new.finish(list(materials.formula), list(materials.material_id), materials.targets, counts, identity, attrs)
        write_rejected(parts.rejected_path(path), rejected)
    parts.remove(path)


def _compute_all(
    path: Path,
    names: tuple[str, ...],
    materials: Materials,
    missing: list[tuple[int, np.ndarray]],
    workers: int | None,
    ranks: Ranks,
) -> None:
    """Deal the missing blocks, (number, rows) each, to the ranks in turn; compute this one's share; wait for the others."""
    shares = [missing[rank :: ranks.size] for rank in range(ranks.size)]
    jobs = [
        Share(
            names, parts.folder_of(path), workers, sum(len(rows) for _, rows in share), [number for number, _ in share]
        )
        for share in shares
    ]
    for rank in range(1, ranks.size):
        ranks.send(jobs[rank], rank)
        for _, rows in shares[rank]:
            ranks.send(materials.take(rows), rank)
    n_workers = _workers(jobs[0], ranks)
    print(
        f"featurising {sum(len(rows) for _, rows in missing):,} materials: {'+'.join(names)}, "
        f"{len(features.labels(names, materials))} features, {n_workers} worker{'s' if n_workers > 1 else ''}"
        + (f" on each of {ranks.size} ranks" if ranks.size > 1 else ""),
        flush=True,
    )
    _compute(jobs[0], (materials.take(rows) for _, rows in shares[0]), ranks)
    for rank in range(1, ranks.size):
        ranks.receive(rank)


def assist(ranks: Ranks) -> None:
    """Compute what rank 0 sends until it sends None. On all other ranks."""
    while (share := ranks.receive(0)) is not None:
        batches = [ranks.receive(0) for _ in share.numbers]
        if not share.folder.is_dir():
            raise UserError(f"every rank must see {share.folder}, however: rank {ranks.rank} does not; see --pack-dir")
        _compute(share, batches, ranks)
        ranks.send("done", 0)


def dismiss(ranks: Ranks) -> None:
    """Let the other ranks go. On rank 0."""
    for rank in range(1, ranks.size):
        ranks.send(None, rank)


def _compute(share: Share, batches, ranks: Ranks) -> None:
    with tqdm(
        total=share.n_rows, unit=" materials", disable=True if ranks.rank else None
    ) as bar:  # None: on a terminal
        found = features.blocks(share.names, batches, min(_workers(share, ranks), max(1, len(share.numbers))))
        for number, block in zip(share.numbers, found, strict=True):
            parts.put(share.folder, number, block)
            bar.update(len(block.x))


def _workers(share: Share, ranks: Ranks) -> int:
    return share.workers or features.worthwhile_workers(share.names, share.n_rows, ranks.cores)


def _hash(line: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(line, "<i8")).hexdigest()


def write_rejected(path: Path, rejected: list[Rejected]) -> None:
    """Every rejected row, in the order of the source, with its reason."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Rejected._fields)
    writer.writerows(sorted(rejected))
    write_text(path, text.getvalue())
