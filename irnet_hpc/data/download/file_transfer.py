"""Download a file over HTTP, resume if the service supports it, and check the file's hash."""

import hashlib
import os
from pathlib import Path

from tqdm import tqdm

from irnet_hpc.data.download.http import (
    Connection,
    TransientError,
    body_chunks,
    open_response,
    printable_line,
    retry,
    status_of,
)
from irnet_hpc.errors import UserError


def read_start(connection: Connection, url: str, n_bytes: int) -> tuple[bytes, int | None]:
    """Read the first bytes of a file. Returns them and the file's size, or None if not stated."""

    def attempt() -> tuple[bytes, int | None]:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes=0-{n_bytes - 1}"}
        with open_response(connection, url, headers) as response:
            body = next(response.iter_content(n_bytes), b"")
            header = "Content-Range" if response.status_code == 206 else "Content-Length"
            size = response.headers.get(header, "").rpartition("/")[2]
            return body, int(size) if size.isdigit() else None

    return retry(connection, url, attempt)


def save(connection: Connection, url: str, path: Path, sha256: str, max_bytes: int) -> None:
    """Download a file. It gets its name only when it is complete and has the right hash.

    Until then it is called `<name>.part`. A later call completes this part if the service supports
    ranges (RFC 9110, section 14).

    Args:
        connection: from `connect`.
        url: the address of the file.
        path: where to save the file.
        sha256: the hash that the file must have, in hex.
        max_bytes: the largest size allowed.

    Raises:
        UserError: if the download fails, or if the file has another hash.
    """
    part = path.with_name(f"{path.name}.part")
    was_resumed = part.exists()
    retry(connection, url, lambda: _append(connection, url, part, max_bytes))
    digest = sha256_of(part)
    if digest != sha256 and was_resumed:
        # The part came from another version of the file, or was damaged.
        part.unlink()
        retry(connection, url, lambda: _append(connection, url, part, max_bytes))
        digest = sha256_of(part)
    if digest != sha256:
        part.unlink()
        raise UserError(
            f"{url} is not the file that was expected: its sha256 must be {sha256}, got {digest}; "
            "the file has changed, or the mirror has a different one"
        )
    part.replace(path)


def _append(connection: Connection, url: str, part: Path, max_bytes: int) -> None:
    """Download the missing rest of a file."""
    n_kept = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={n_kept}-"} if n_kept else {})
    with open_response(connection, url, headers) as response:
        # The server has no more bytes: our file is complete, or belongs to another version.
        if response.status_code == 416:
            return
        if response.status_code not in (200, 206):
            raise TransientError(f"answers {status_of(response)}")
        resumes = response.status_code == 206
        content_range = response.headers.get("Content-Range", "")
        if resumes and not content_range.startswith(f"bytes {n_kept}-"):
            part.unlink()
            raise TransientError(
                f"sends a different range than requested: {printable_line(content_range)!r}"
            )
        n_kept = n_kept if resumes else 0
        stated = response.headers.get("Content-Length", "")
        total = n_kept + int(stated) if stated.isdigit() else None
        # disable=None shows the bar only on a terminal.
        bar = tqdm(total=total, initial=n_kept, unit="B", unit_scale=True, disable=None)
        with part.open("ab" if resumes else "wb") as file, bar:
            for chunk in body_chunks(connection, response, url, max_bytes - n_kept):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
