"""Go through the files of a folder or an archive, one by one, within limits.

Nothing is unpacked to disk. An archive may be made to unpack to much more than the memory, so its
members, their bytes and the ratio to its own size are limited. Names that lead out of an archive
and links are refused, though nothing would be written there.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from irnet_hpc.data.raw_table import ALWAYS_UNPACKED, MAX_UNPACKED_RATIO
from irnet_hpc.data.structures.formats import MAX_NAME, archive_ending, printable
from irnet_hpc.data.xz import open_xz
from irnet_hpc.errors import UserError

MAX_MEMBERS = 2_000_000
MAX_HEADERS = 2**21  # bytes of a tar archive between two members
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, gzip.BadGzipFile, zlib.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError),
)


class Member(NamedTuple):
    """A file of a folder or an archive."""

    name: str  # below the folder, with / between its parts
    open: Callable[[], IO[bytes]]  # to be read before the next member
    fault: tuple[str, str] | None = None  # reason and detail why it must not be opened


def members(path: Path) -> Iterator[Member]:
    """Yield the files of a folder or an archive; those of a folder and of a .zip sorted by name.

    A path of a single file is a folder with this file alone. Hidden files are left out.

    Raises:
        UserError: If an archive is damaged or implausibly large.
    """
    if path.is_dir():
        yield from _folder(path)
    elif ending := archive_ending(path.name):
        with _whole(path):
            yield from _zip(path) if ending == ".zip" else _tar(path, ending)
    else:
        yield Member(path.name, lambda: path.open("rb"))


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} cannot be unpacked, because it is damaged, encrypted or of another form than "
            f"its ending says: {text:.150}"
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"{path} cannot be unpacked: {error}") from None  # of bz2


def _folder(folder: Path) -> Iterator[Member]:
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [(Path(place) / name).relative_to(folder).as_posix() for name in files]
        if len(names) > MAX_MEMBERS:
            raise UserError(f"{folder} has more than {MAX_MEMBERS:,} files")
    for name in sorted(names):
        path = folder / name
        # A pipe or a device would be waited for.
        if not _is_hidden(name) and path.is_file():
            yield Member(printable(name), lambda path=path: path.open("rb"))  # type: ignore[misc]


def _zip(path: Path) -> Iterator[Member]:
    # zipfile of Python 3.11 never unpacks a member to more bytes than it declares.
    with zipfile.ZipFile(path) as archive:
        listed = [info for info in archive.infolist() if not info.is_dir()]
        _check_size(path, len(listed), sum(info.file_size for info in listed))
        for info in sorted(listed, key=lambda info: info.filename):
            name = _plain(info.filename)
            if _is_hidden(name):
                continue
            fault = _unsafe(name)
            if info.external_attr >> 28 == 0o12:  # a symbolic link, by the mode of Unix
                fault = "a link in an archive", ""
            elif info.flag_bits & 1:
                fault = "an encrypted file", ""
            yield Member(printable(name), lambda info=info: archive.open(info), fault)  # type: ignore[misc]


def _tar(path: Path, ending: str) -> Iterator[Member]:
    opener: Any = open
    if ending in (".tar.gz", ".tgz"):
        opener = gzip.open
    elif ending in (".tar.bz2", ".tbz2"):
        opener = bz2.open
    elif ending in (".tar.xz", ".txz"):
        opener = open_xz
    with opener(path, "rb") as raw:
        stream = _Limited(raw, path)
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for number, info in enumerate(archive):
                # The stream is read on in advance, by blocks.
                stream.allow(info.size)
                _check_size(path, number + 1, 0)
                name = _plain(info.name)
                archive.members = []  # else tarfile keeps all of them
                if info.isdir() or _is_hidden(name):
                    continue
                fault = _unsafe(name)
                if not info.isfile():
                    is_link = info.issym() or info.islnk()
                    fault = "a link in an archive" if is_link else "no file, but a device", ""
                yield Member(
                    printable(name),
                    lambda archive=archive, info=info: _forward(archive, info),  # type: ignore[misc]
                    fault,
                )


class _Forward(io.RawIOBase):
    """A member of an archive that is read from start to end, as the archive itself is."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _forward(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(info)
    assert stream is not None  # it is a file
    return io.BufferedReader(_Forward(stream))


class _Limited:
    """The unpacked bytes of an archive, which may not be implausibly many.

    tarfile reads headers of any length into memory, so between two members few bytes are allowed.
    """

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream, self.path = stream, path
        self.n_bytes, self.allowed = 0, MAX_HEADERS

    def allow(self, n_bytes: int) -> None:
        """Allow reading a member of so many bytes, and the header of the next."""
        self.allowed = self.n_bytes + n_bytes + MAX_HEADERS

    def read(self, n_bytes: int) -> bytes:
        content = self.stream.read(n_bytes)
        self.n_bytes += len(content)
        if self.n_bytes > self.allowed:
            raise UserError(
                f"{self.path} has a header of more than {MAX_HEADERS / 2**20:.0f} MiB, as no "
                "archive of structures has"
            )
        _check_size(self.path, 0, self.n_bytes)
        return content


def _check_size(path: Path, n_members: int, n_bytes: int) -> None:
    limit = max(ALWAYS_UNPACKED, MAX_UNPACKED_RATIO * path.stat().st_size)
    if n_members > MAX_MEMBERS:
        raise UserError(f"{path} has more than {MAX_MEMBERS:,} files")
    if n_bytes > limit:
        raise UserError(
            f"{path} unpacks to more than {MAX_UNPACKED_RATIO} times its size, as no real archive "
            "does; if you trust it, unpack it yourself and name the folder"
        )


def _plain(name: str) -> str:
    """Return a member's name with / between its parts, without ./ in front."""
    return name.replace("\\", "/").removeprefix("./")


def _unsafe(name: str) -> tuple[str, str] | None:
    """Return reason and detail if a name leads out of the archive, or is too long."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
        return "a name that leads out of the archive", printable(name)
    if len(name) > MAX_NAME:
        return "a name that is too long", f"{len(name):,} characters"
    return None


def _is_hidden(name: str) -> bool:
    """Return True for hidden files, and for the copies of metadata that macOS writes."""
    parts = PurePosixPath(name).parts
    return any(part == "__MACOSX" or (part[0] == "." and part != "..") for part in parts)
