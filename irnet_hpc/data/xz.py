"""Read .xz files to their last byte, as `xz -dc` does.

An .xz file is one or more streams with padding of zero bytes after each of them, in multiples of
four. If `lzma.open` of Python 3.11.7 cannot read the bytes after the first stream, it silently ends
there, so streams after padding or after a damaged head are lost. XZ Utils 5.4.1 reads them, or
refuses the file.
"""

import io
import lzma
from pathlib import Path
from typing import Any

BLOCK_BYTES = 2**16
PADDING = 4  # bytes; the length of padding is a multiple of it


def open_xz(path: Path | str, mode: str = "rb") -> io.BufferedReader:
    """Open an .xz file for reading bytes.

    Args:
        path: the file.
        mode: "rb", the only mode.

    Returns:
        The unpacked bytes. Reading raises EOFError if the file is cut short, and LZMAError if
        anything in it is neither a stream nor padding.
    """
    assert mode == "rb"
    return io.BufferedReader(_XzFile(path), BLOCK_BYTES)


class _XzFile(io.RawIOBase):
    """The unpacked bytes of all streams of a file."""

    def __init__(self, path: Path | str) -> None:
        self._file = io.FileIO(path)
        self._decompressor: lzma.LZMADecompressor | None = None
        self._packed = b""  # read from the file and not yet given to a decompressor
        self._has_stream = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with unpacked bytes; return their number, 0 at the end of the file."""
        while True:
            if self._decompressor is None and not self._begin_stream():
                return 0
            stream = self._decompressor
            assert stream
            if stream.needs_input and not self._packed:
                self._packed = self._file.read(BLOCK_BYTES)
                if not self._packed:
                    raise EOFError("its last stream is cut short")
            given, self._packed = self._packed, b""
            unpacked = stream.decompress(given, len(buffer))
            if stream.eof:
                self._packed, self._decompressor = stream.unused_data, None
            if unpacked:
                buffer[: len(unpacked)] = unpacked
                return len(unpacked)

    def _begin_stream(self) -> bool:
        """Skip padding and begin the next stream; return False at the end of the file."""
        n_zeros = 0
        while True:
            if self._has_stream:
                rest = self._packed.lstrip(b"\0")
                n_zeros += len(self._packed) - len(rest)
                self._packed = rest
            if self._packed:
                break
            self._packed = self._file.read(BLOCK_BYTES)
            if not self._packed:
                break
        if n_zeros % PADDING:
            raise lzma.LZMAError(
                f"padding must be a multiple of {PADDING} zero bytes, got {n_zeros}"
            )
        if not self._packed:
            if not self._has_stream:
                raise EOFError("it is empty")
            return False
        # A first stream may have the older form .lzma; only .xz can be followed by another stream.
        form = lzma.FORMAT_XZ if self._has_stream else lzma.FORMAT_AUTO
        self._decompressor, self._has_stream = lzma.LZMADecompressor(form), True
        return True
