"""A pack's rows read while they are trained on: a window is in use, the next one is read by a thread.

For packs that are larger than the device or the host. What comes out is what a resident pack gives, bit for bit; memory
holds two windows at most, of WINDOW_CHUNKS * CHUNK_ROWS rows, and some 40 bytes a row for its number, targets and place in the order.
"""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import Pack
from irnet_hpc.train.scaling import Scaling

# The order of training is shuffled by chunks, then by rows within a window of chunks. 65,536 rows a window.
CHUNK_ROWS = 4096
WINDOW_CHUNKS = 16


class Unreadable(UserError):
    """A pack that was sound no longer is: met by one rank, while the others train on and know nothing of it."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """Features of ascending rows of a pack, which stay there until they are wanted."""

    pack: Pack  # open; h5py lets one thread read at a time
    row: np.ndarray  # (n_rows,) int64, their numbers in the pack, ascending
    scaling: Scaling
    device: torch.device
    dtype: torch.dtype

    @property
    def n_features(self) -> int:
        return self.pack.n_features


def slabs(pack: Pack, row: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Features of ascending rows, chunk after chunk: their places in `row` and (n, n_features) float32, good until the next.

    Whole chunks into memory that is there already: single rows take 40 times as long, new memory twice.
    """
    held = np.empty((min(CHUNK_ROWS, pack.n_rows), pack.n_features), np.float32)
    begin = 0
    while begin < len(row):
        first = int(row[begin])
        stop = min((first // CHUNK_ROWS + 1) * CHUNK_ROWS, pack.n_rows)
        end = begin + int(np.searchsorted(row[begin:], stop))
        x = pack.x_into(held, slice(first, int(row[end - 1]) + 1))
        places = row[begin:end] - first
        yield slice(begin, end), x if np.array_equal(places, np.arange(len(x))) else x[places]
        begin = end


def windows(row: np.ndarray, order: np.ndarray) -> Iterator[slice]:
    """Places in `order` (n,), positions in `row`, that can be read at once: of WINDOW_CHUNKS chunks at most.

    Of an epoch's order these are its windows. Of any other they are right as well, only more of them.
    """
    chunk, begin = row[order] // CHUNK_ROWS, 0
    while begin < len(order):
        ahead = chunk[begin : begin + WINDOW_CHUNKS * CHUNK_ROWS]
        new = np.sort(np.unique(ahead, return_index=True)[1])  # where each chunk is first wanted
        end = begin + (int(new[WINDOW_CHUNKS]) if len(new) > WINDOW_CHUNKS else len(ahead))
        yield slice(begin, end)
        begin = end


def batches(stream: Stream, order: np.ndarray, n: int) -> Iterator[Tensor]:
    """Features (n, n_features) of the rows at `order` (n_rows,), n after n, the last of what remains, on the device.

    Raises Unreadable where the pack can no longer be read.
    """
    todo = list(windows(stream.row, order))
    longest = max((places.stop - places.start for places in todo), default=0)
    held = [
        torch.empty(longest, stream.n_features, pin_memory=stream.device.type == "cuda")
        for _ in todo[:2]
    ]
    pieces, n_missing = [], n
    with ThreadPoolExecutor(1, "stream") as reader:

        def ask(
            i: int,
        ) -> Future[
            Tensor
        ]:  # into the memory of the window before the one in use, which has been copied
            return reader.submit(_read, stream, order[todo[i]], held[i % 2])

        coming = ask(0) if todo else None
        for i in range(len(todo)):
            window = coming.result()
            coming = ask(i + 1) if i + 1 < len(todo) else None
            begin = 0
            while begin < len(window):
                end = min(begin + n_missing, len(window))
                pieces.append(window[begin:end].to(stream.dtype, copy=True))
                begin, n_missing = end, n_missing - (end - begin)
                if not n_missing:
                    yield pieces[0] if len(pieces) == 1 else torch.cat(pieces)
                    pieces, n_missing = [], n
            del window
    if pieces:
        yield pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _read(stream: Stream, order: np.ndarray, held: Tensor) -> Tensor:
    """The rows of a window, scaled, in the order in which they are wanted: batches are then slices."""
    out = held[: len(order)]
    x, by_row = out.numpy(), np.argsort(order, kind="stable")
    try:
        for places, block in slabs(stream.pack, stream.row[order[by_row]]):
            x[by_row[places]] = stream.scaling.features(block)
    except UserError as error:
        raise Unreadable(str(error)) from None
    # On a GPU the window moves there as a whole, in this thread, on the stream of the steps: what it replaces is done with.
    return out if stream.device.type == "cpu" else out.to(stream.device)
