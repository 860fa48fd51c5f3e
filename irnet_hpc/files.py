"""Write files completely or not at all, read JSON within limits, and lock files.

A file is written under a temporary name beside its target, synced, and renamed.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import stat
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from irnet_hpc.errors import UserError

# What may become the name of a file or a folder: never a path, never hidden.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")
MAX_JSON = 2**26  # bytes; the history of a hundred thousand epochs takes a sixth of it


@contextlib.contextmanager
def replacing(
    path: Path | str, sync: bool = True, allowed: Callable[[], None] | None = None
) -> Iterator[Path]:
    """Yield a temporary path in the target's folder. After the block, rename it to the target.

    The temporary name starts with a dot, ends like the target, and is different for each writer. If
    the block fails, the temporary file is removed.

    Args:
        path: The target; its folder is created if it is missing.
        sync: True to sync before renaming. Otherwise the file may be incomplete after a power
            failure.
        allowed: Called just before renaming; an exception that it raises prevents the renaming.

    Yields:
        The temporary path, to which the caller writes.

    Raises:
        UserError: If the target is a pipe or a device.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        # As root, /dev/null itself would become a file; the reader of a pipe would wait for ever.
        raise UserError(f"{path} must be a file, got a pipe or a device")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        if sync:
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if allowed:
            allowed()
        temporary.replace(path)
    except OSError as error:
        # A write that fails, as on a full disk, does not name the file.
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def at_home(text: str) -> str:
    """Replace ~ or ~USER at the beginning of a path, as a shell does; return other text as it is.

    >>> at_home("a~/b")
    'a~/b'
    """
    # Path.expanduser raises if there is no such user.
    return os.path.expanduser(text) if re.match(r"~[^/\s]*/", text) else text  # noqa: PTH111


def followed(path: Path | str) -> Path:
    """Return the target of a symbolic link; return any other path unchanged.

    This is used for files that a user names for writing. Otherwise the link itself would be
    replaced, and programs that read the target would get an old file. In folders where others may
    write, links are not followed.
    """
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def remove_temporaries(path: Path) -> None:
    """Remove the temporary files of killed writers of `path`.

    No other process may be writing it.
    """
    temporary = re.compile(rf"\.{re.escape(path.stem)}\.[0-9a-f]{{8}}\.tmp{re.escape(path.suffix)}")
    for file in path.parent.glob(".*"):
        if temporary.fullmatch(file.name):
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(
    path: Path, on_wait: Callable[[str], object] | None = None, remove: bool = False
) -> Iterator[None]:
    """Hold a lock file; wait for it if another process holds it.

    The kernel releases the lock of a killed process. A holder may remove the lock file, or its
    folder, before it releases the lock. The next process then finds that it has locked a removed
    file, and tries again with a new one. On a shared file system without locks, two processes must
    not start at the same moment.

    Args:
        path: The lock file; the file and its folder are created if they are missing.
        on_wait: Called once if another process holds the lock, with the text by which that process
            describes itself (empty if it has not written the text yet). It may raise an exception
            instead of letting this process wait.
        remove: True to remove the file at the end.
    """
    has_waited = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+")
        except FileNotFoundError:  # its holder is removing the folder
            continue
        with file:
            if not lock(file):
                if on_wait and not has_waited:
                    file.seek(0)
                    on_wait(file.read(200))
                has_waited = True
                lock(file, wait=True)
            try:
                is_current = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                is_current = False
            if not is_current:
                continue
            with contextlib.suppress(OSError):  # a full disk only hides the holder's name
                file.truncate(0)
                file.write(
                    f"process {os.getpid()} on {socket.gethostname()} since "
                    f"{datetime.now():%Y-%m-%d %H:%M:%S}"
                )
                file.flush()
            try:
                yield
            finally:
                if remove:
                    path.unlink(missing_ok=True)
            return


def lock(file: IO, wait: bool = False) -> bool:
    """Lock an open file until it is closed or the process ends.

    Returns:
        False if another process holds the lock. True if the file is locked, or if a shared file
        system does not support locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
    return True


def file_system_type(path: Path, mountinfo: str | None = None) -> str:
    """Return the type of the file system that contains a path, such as ext4 or nfs4."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    longest, file_system = "", "unknown"
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split()[4].encode().decode("unicode_escape")
        # If two file systems are mounted on one folder, the later one hides the earlier one.
        if path.is_relative_to(mount) and len(mount) >= len(longest):
            longest, file_system = mount, after.split()[0]
    return file_system


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path | str, value: object) -> None:
    """Write JSON atomically. NaN and infinity raise ValueError, since JSON does not have them."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """Format a value as JSON, with a newline at the end."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path | str, max_bytes: int = MAX_JSON) -> dict:
    """Read a JSON object.

    Raises:
        UserError: If the file is not a JSON object, e.g. cut short, or is larger than `max_bytes`.
        OSError: If it cannot be read.
    """
    # Opening a pipe that nobody writes to as a file would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} must be a file, got a folder, a pipe or a device")
        if status.st_size > max_bytes:
            raise UserError(
                f"{path} must have at most {max_bytes / 2**20:,.0f} MiB, "
                f"got {status.st_size / 2**20:,.0f}"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            text = file.read()
    finally:
        os.close(descriptor)
    try:
        value = json.loads(text.decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    except RecursionError:
        raise UserError(
            f"{path} is not JSON that this program wrote: brackets are nested too deeply"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, got a {type(value).__name__}")
    return value
