"""Build a pack: compute its features block by block, with worker processes and MPI ranks.

Rank 0 alone reads the source, holds the pack's name, logs and writes. Every rank, rank 0 too,
computes its share of the blocks and writes them to a folder that all ranks see. So a rank needs
memory only for its share, the source is read once, and ranks cannot disagree about the rows.
"""

import csv
import datetime
import hashlib
import importlib.metadata
import io
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from irnet_hpc import __version__
from irnet_hpc.data.materials import LostValue, Materials, Rejected, reject
from irnet_hpc.data.splits import ROLES
from irnet_hpc.distributed.mpi import Ranks
from irnet_hpc.errors import UserError
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import Described
from irnet_hpc.files import write_text
from irnet_hpc.pack import blocks
from irnet_hpc.pack.select import KnownFeatures, Selection, count_reported
from irnet_hpc.pack.summary import reasons
from irnet_hpc.pack.writer import Writer, create_pack

logger = logging.getLogger(__name__)

# Libraries that every pack depends on; pymatgen reads formulas that our own parser cannot.
LIBRARIES = ("numpy", "h5py", "pymatgen")


class Share(NamedTuple):
    """The blocks that one rank computes.

    The materials of each block are sent in a separate message, since together they may be too large
    for one message.
    """

    feature_sets: tuple[str, ...]
    folder: Path  # where finished blocks are written
    numbers: list[int]  # the numbers of the blocks
    n_rows: int
    workers: int | None

    def n_workers(self, ranks: Ranks) -> int:
        """Return the number of worker processes; by default the number that is fastest."""
        return self.workers or features.worthwhile_workers(
            self.feature_sets, self.n_rows, ranks.cores
        )


def write_pack(
    path: Path,
    selection: Selection,
    identity: dict,
    attrs: dict,
    ranks: Ranks,
    workers: int | None = None,
) -> None:
    """Compute the features of the selected materials and write the pack. Call this on rank 0 only.

    Args:
        path: The pack; the rejected rows are listed beside it.
        selection: The materials to pack, with their split and in the order of the pack, and the
            rows rejected so far. Rows whose features cannot be computed are rejected as well.
        identity: Everything that decides the content (store.IDENTITY), without format and hash.
        attrs: Attributes that only describe the pack.
        ranks: The MPI ranks that compute.
        workers: The number of worker processes per rank; None: the number that is fastest.

    Raises:
        UserError: If no row is left to pack, or a file cannot be written.
    """
    materials = selection.materials
    if not len(materials):
        raise _nothing_left(selection.rejected)
    feature_sets = tuple(identity["feature_versions"])
    labels = features.feature_labels(feature_sets, materials)
    block_rows = features.block_rows(feature_sets)
    rows_of_block = [
        np.arange(start, min(start + block_rows, len(materials)))
        for start in range(0, len(materials), block_rows)
    ]
    shapes = [(len(rows), len(labels)) for rows in rows_of_block]
    versions = _versions(feature_sets)
    plan = {
        **identity,
        "versions": versions,
        "labels": labels,
        "block_rows": block_rows,
        "rows": hashlib.sha256(np.ascontiguousarray(materials.line, "<i8").data).hexdigest(),
    }
    folder = blocks.blocks_folder(path)
    with create_pack(path, labels, len(materials)) as writer:
        finished, message = blocks.resume(path, plan, shapes)
        if message:
            logger.info(message)
        missing = {n: rows for n, rows in enumerate(rows_of_block) if n not in finished}
        missing = _write_known(folder, missing, materials.line, selection.known or {})
        if missing:
            shares = _deal(missing, Share(feature_sets, folder, [], 0, workers), ranks)
            _log_shares(shares, len(labels), ranks)
            _compute_on_all(ranks, shares, materials, missing)
        kept, unsuited = _collect(writer, folder, materials, shapes, selection.known)
        rejected, materials = selection.rejected + unsuited, materials.take(kept)
        if not len(materials):
            blocks.remove_blocks(path)
            raise _nothing_left(rejected)
        attrs = attrs | {
            "n_rejected": len(rejected),
            "rejected": dict(Counter(row.reason for row in rejected)),
            "reported": count_reported(materials),
            "versions": versions,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        counts = {split: int(np.sum(materials.role == split)) for split in ROLES}
        formulas, ids = list(materials.formula), list(materials.material_id)
        writer.finish(formulas, ids, materials.targets, counts, identity, attrs)
        places = selection.places
        rejected = [
            row._replace(**places[row.line]._asdict()) if row.line in places else row
            for row in rejected
        ]
        write_records(blocks.rejected_path(path), Rejected, rejected)
        if selection.lost:
            write_records(blocks.lost_path(path), LostValue, selection.lost)
        else:
            blocks.lost_path(path).unlink(missing_ok=True)
    blocks.remove_blocks(path)


def _write_known(
    folder: Path,
    missing: dict[int, np.ndarray],
    line: np.ndarray,
    known: dict[int, KnownFeatures],
) -> dict[int, np.ndarray]:
    """Write the blocks whose features are all known. Returns the other blocks.

    Args:
        folder: The folder of blocks.
        missing: The number of a block -> its rows.
        line: (n_rows,) the lines of the rows in the source.
        known: Line -> features.
    """
    left = {}
    for number, rows in missing.items():
        found = [known.get(int(line[row])) for row in rows]
        features_of_rows = [one for one in found if one is not None]
        if len(features_of_rows) < len(found):
            left[number] = rows
            continue
        unsuited = {
            place: one.unsuited for place, one in enumerate(features_of_rows) if one.unsuited
        }
        x = np.stack([one.x for one in features_of_rows])
        blocks.write_block(folder, number, Described(x, unsuited))
    return left


def _nothing_left(rejected: list[Rejected]) -> UserError:
    return UserError(
        f"no row is left to pack, since all {len(rejected):,} were rejected: {reasons(rejected)}"
    )


def _versions(feature_sets: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of this package and of the libraries that the features depend on."""
    libraries = dict.fromkeys(LIBRARIES)
    for name in feature_sets:
        libraries |= dict.fromkeys(features.FEATURE_SETS[name].libraries)
    return {name: importlib.metadata.version(name) for name in libraries} | {
        "irnet_hpc": __version__
    }


def _deal(missing: dict[int, np.ndarray], template: Share, ranks: Ranks) -> list[Share]:
    """Distribute the missing blocks (number -> rows) among the ranks, one block at a time.

    Rows are in random order, so each block takes about the same time.
    """
    shares = []
    for rank in range(ranks.size):
        numbers = list(missing)[rank :: ranks.size]
        n_rows = sum(len(missing[number]) for number in numbers)
        shares.append(template._replace(numbers=numbers, n_rows=n_rows))
    return shares


def _log_shares(shares: list[Share], n_features: int, ranks: Ranks) -> None:
    n_rows, n_workers = sum(share.n_rows for share in shares), shares[0].n_workers(ranks)
    logger.info(
        f"featurising {n_rows:,} materials: {'+'.join(shares[0].feature_sets)}, "
        f"{n_features} features, {n_workers} worker{'s' if n_workers > 1 else ''}"
        + (f" on each of {ranks.size} ranks" if ranks.size > 1 else "")
    )


def _compute_on_all(
    ranks: Ranks, shares: list[Share], materials: Materials, missing: dict[int, np.ndarray]
) -> None:
    """Send the other ranks their shares, compute rank 0's own share, and wait for the others."""
    for rank in range(1, ranks.size):
        ranks.send(shares[rank], rank)
        for number in shares[rank].numbers:
            ranks.send(materials.take(missing[number]), rank)
    _compute(ranks, shares[0], (materials.take(missing[number]) for number in shares[0].numbers))
    for rank in range(1, ranks.size):
        ranks.receive(rank)


def assist(ranks: Ranks) -> None:
    """Compute each share that rank 0 sends, until it sends None. Call this on all other ranks.

    Raises:
        UserError: If this rank does not see the folder of blocks.
    """
    while (share := ranks.receive(0)) is not None:
        batches = [ranks.receive(0) for _ in share.numbers]
        if not share.folder.is_dir():
            raise UserError(
                f"every rank must see the folder of packs, but rank {ranks.rank} lacks "
                f"{share.folder}"
            )
        _compute(ranks, share, batches)
        ranks.send("done", 0)


def dismiss(ranks: Ranks) -> None:
    """Tell the other ranks that there is nothing left to compute. Call this on rank 0 only."""
    for rank in range(1, ranks.size):
        ranks.send(None, rank)


def _compute(ranks: Ranks, share: Share, batches: Iterable[Materials]) -> None:
    n_workers = max(1, min(share.n_workers(ranks), len(share.numbers)))
    # None: tqdm shows the bar if stderr is a terminal.
    disable = True if ranks.rank else None
    with tqdm(total=share.n_rows, unit=" materials", disable=disable) as bar:
        computed = features.describe_batches(share.feature_sets, batches, n_workers)
        for number, block in zip(share.numbers, computed, strict=True):
            blocks.write_block(share.folder, number, block)
            bar.update(len(block.x))


def _collect(
    writer: Writer,
    folder: Path,
    materials: Materials,
    shapes: list[tuple[int, int]],
    known: dict[int, KnownFeatures] | None = None,
) -> tuple[np.ndarray, list[Rejected]]:
    """Append the features of all blocks to the pack, and add them to `known`, if that is given.

    Returns:
        A mask of the rows that have features, (n_rows,) bool, and the records of all other rows.
    """
    kept, rejected = np.ones(len(materials), bool), []
    start = 0
    for number, shape in enumerate(shapes):
        block = blocks.read_block(folder, number, shape)
        if block is None:
            raise UserError(
                f"block {number} in {folder} is missing or damaged; every rank must see this "
                "folder; run the same command again to compute the block"
            )
        rows = np.array(sorted(block.unsuited), np.int64)
        kept[start + rows] = False
        if known is not None:
            for place, number_of_line in enumerate(materials.line[start : start + shape[0]]):
                features_of_row = KnownFeatures(block.x[place], block.unsuited.get(place))
                known.setdefault(int(number_of_line), features_of_row)
        rejected += [reject(materials, start + row, *block.unsuited[row]) for row in rows.tolist()]
        writer.append(block.x[kept[start : start + shape[0]]])
        start += shape[0]
    return kept, rejected


def write_records(
    path: Path, kind: type[Rejected] | type[LostValue], records: Sequence[tuple]
) -> None:
    """Write the rows or values left out, with their reasons, as CSV in the order of the source."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kind._fields)
    writer.writerows(sorted(records))
    write_text(path, text.getvalue())
