"""Read a pack's rows during training: while one window is in use, a thread reads the next.

This is for packs that are larger than the memory of the device or the host. The batches are the
same, bit for bit, as if the pack were in memory. Memory holds at most two windows, each of
WINDOW_PIECES * SHUFFLED_ROWS rows. It also holds about 40 bytes for each row of the pack: its
number, its targets and its position in the order.
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

# Training shuffles the order of pieces of SHUFFLED_ROWS rows, then the rows within each window of
# WINDOW_PIECES pieces (65,536 rows). Both numbers decide the order of an epoch and so the results.
# The chunks of the HDF5 file (pack/writer.py) have the same size as a piece, so that each chunk is
# read once, but their size does not change the results.
SHUFFLED_ROWS = 4096
WINDOW_PIECES = 16


class PackUnreadable(UserError):
    """Signal that a pack can no longer be read. Other ranks may still be able to read it."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """The features of some rows of a pack, which are read when they are needed."""

    pack: Pack  # open; h5py lets one thread read at a time
    row: np.ndarray  # (n_rows,) int64, their numbers in the pack, ascending
    scaling: Scaling
    device: torch.device
    dtype: torch.dtype

    @property
    def n_features(self) -> int:
        """The number of features of a row."""
        return self.pack.n_features


def slabs(pack: Pack, row: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Read the features of ascending rows, chunk after chunk.

    Whole chunks are read into memory that is reused. Reading single rows would take 40 times as
    long, and allocating memory for each chunk would take twice as long.

    Yields:
        The positions of the next rows in `row`, and their features, (n, n_features) float32. The
        features are overwritten when the next ones are read.
    """
    held = np.empty((min(SHUFFLED_ROWS, pack.n_rows), pack.n_features), np.float32)
    begin = 0
    while begin < len(row):
        first = int(row[begin])
        stop = min((first // SHUFFLED_ROWS + 1) * SHUFFLED_ROWS, pack.n_rows)
        end = begin + int(np.searchsorted(row[begin:], stop))
        x = pack.x_into(held, slice(first, int(row[end - 1]) + 1))
        places = row[begin:end] - first
        yield slice(begin, end), x if np.array_equal(places, np.arange(len(x))) else x[places]
        begin = end


def windows(row: np.ndarray, order: np.ndarray) -> Iterator[slice]:
    """Split an order into windows that touch at most WINDOW_PIECES chunks each.

    If `order` comes from `epoch_order`, the windows are those within which it shuffled the rows.
    Any other order may give more windows.

    Args:
        row: The numbers of the rows in the pack, ascending.
        order: (n,), positions in `row`.

    Yields:
        Consecutive slices of `order`.
    """
    chunk, begin = row[order] // SHUFFLED_ROWS, 0
    while begin < len(order):
        ahead = chunk[begin : begin + WINDOW_PIECES * SHUFFLED_ROWS]
        # The place of the first row of each chunk.
        new = np.sort(np.unique(ahead, return_index=True)[1])
        end = begin + (int(new[WINDOW_PIECES]) if len(new) > WINDOW_PIECES else len(ahead))
        yield slice(begin, end)
        begin = end


def batches(stream: Stream, order: np.ndarray, n: int) -> Iterator[Tensor]:
    """Yield the features of the rows at `order` (n_rows,), n rows at a time, on the device.

    Yields:
        Features, (n, n_features); the last batch may have fewer rows.

    Raises:
        PackUnreadable: If the pack can no longer be read.
    """
    todo = list(windows(stream.row, order))
    longest = max((places.stop - places.start for places in todo), default=0)
    held = [
        torch.empty(longest, stream.n_features, pin_memory=stream.device.type == "cuda")
        for _ in todo[:2]
    ]
    pieces, n_missing = [], n
    with ThreadPoolExecutor(1, "stream") as reader:

        def ask(i: int) -> Future[Tensor]:
            # This overwrites the window before the one in use, which has been copied to batches.
            return reader.submit(_read, stream, order[todo[i]], held[i % 2])

        coming = [ask(0)] if todo else []
        for i in range(len(todo)):
            window = coming.pop().result()
            if i + 1 < len(todo):
                coming.append(ask(i + 1))
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
    """Read and scale the rows of a window, in the order in which training uses them."""
    out = held[: len(order)]
    x, by_row = out.numpy(), np.argsort(order, kind="stable")
    try:
        for places, block in slabs(stream.pack, stream.row[order[by_row]]):
            x[by_row[places]] = stream.scaling.features(block)
    except UserError as error:
        raise PackUnreadable(str(error)) from None
    # For a GPU, this thread moves the whole window to the device, on the CUDA stream of the steps,
    # so that earlier steps have finished with the memory that is reused.
    return out if stream.device.type == "cpu" else out.to(stream.device)
