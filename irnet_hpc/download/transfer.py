"""Transfer: whole files over HTTP, checked by their hash; what is there of one is not fetched again."""

import hashlib
import os
from pathlib import Path

from tqdm import tqdm

from irnet_hpc.download import fetching
from irnet_hpc.download.fetching import Connection
from irnet_hpc.errors import UserError


def beginning(connection: Connection, url: str, n_bytes: int) -> tuple[bytes, int | None]:
    """The first bytes of a file, and its size where the service says it."""

    def attempt() -> tuple[bytes, int | None]:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes=0-{n_bytes - 1}"}
        with fetching.answer(connection, url, headers) as response:
            body = next(response.iter_content(n_bytes), b"")
            size = response.headers.get("Content-Range" if response.status_code == 206 else "Content-Length", "")
            size = size.rpartition("/")[2]
            return body, int(size) if size.isdigit() else None

    return fetching.persistently(connection, url, attempt)


def save(connection: Connection, url: str, path: Path, sha256: str, largest: int) -> None:
    """Fetch a file. It appears under its name when it is whole and has this hash; until then it is `<name>.part`.

    What is there of it is not fetched again where the service offers ranges (RFC 9110, section 14). Raises UserError.
    """
    part = path.with_name(f"{path.name}.part")

    def attempt() -> None:
        there = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
        with fetching.answer(connection, url, headers) as response:
            if response.status_code == 416:  # there is nothing behind what is there: it is whole, or not of this file
                return
            if response.status_code not in (200, 206):
                raise fetching.Passing(f"answers {fetching.status_of(response)}")
            goes_on = response.status_code == 206
            if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
                part.unlink()
                raise fetching.Passing(
                    f"answers another range than asked for: {fetching.plain(response.headers.get('Content-Range', ''))!r}"
                )
            there = there if goes_on else 0
            stated = response.headers.get("Content-Length", "")
            total = there + int(stated) if stated.isdigit() else None
            bar = tqdm(total=total, initial=there, unit="B", unit_scale=True, disable=None)  # None: only on a terminal
            with part.open("ab" if goes_on else "wb") as file, bar:
                for chunk in fetching.chunks(connection, response, url, largest - there):
                    file.write(chunk)
                    bar.update(len(chunk))
                file.flush()
                os.fsync(file.fileno())

    resumed = part.exists()
    fetching.persistently(connection, url, attempt)
    found = file_hash(part)
    if found != sha256 and resumed:  # the beginning was of another file, or went bad
        part.unlink()
        fetching.persistently(connection, url, attempt)
        found = file_hash(part)
    if found != sha256:
        part.unlink()
        raise UserError(
            f"{url} is not the file that was expected: its sha256 is {found}, not {sha256}; it has changed, or a mirror is wrong"
        )
    part.replace(path)


def file_hash(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
