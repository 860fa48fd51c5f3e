"""Files appear whole or not at all: write to a temporary name beside the target, fsync, rename."""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from irnet_hpc.errors import UserError

# What may become the name of a file or a folder: never a path, never hidden.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")
LARGEST_JSON = 2**26  # bytes; a hundred thousand epochs of a training are a sixth of it


@contextlib.contextmanager
def replacing(
    path: Path | str, sync: bool = True, allowed: Callable[[], None] | None = None
) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it is synced and renamed onto `path`, else removed.

    `allowed` is called last before the renaming, which an exception of its prevents.

    The temporary name starts with a dot, ends like the target, and is unlike any other writer's. Without `sync` a machine
    that loses its power may leave a file that is not whole.
    """
    path = Path(path)
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
    except OSError as error:  # a write that fails, as on a full disk, does not say of what
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(path: Path) -> None:
    """Remove what writers of `path` left that were killed. Nobody else may be writing it."""
    theirs = re.compile(rf"\.{re.escape(path.stem)}\.[0-9a-f]{{8}}\.tmp{re.escape(path.suffix)}")
    for file in path.parent.glob(".*"):
        if theirs.fullmatch(file.name):
            file.unlink(missing_ok=True)


def lock(file: IO, wait: bool = False) -> bool:
    """Lock an open file until it is closed or the process ends; False where another process has it.

    True as well where a shared file system has no locks: then two processes must not start at one moment.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
    return True


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path | str, value: object) -> None:
    """Write JSON atomically; NaN and infinity are refused, since JSON has none."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path | str, largest: int = LARGEST_JSON) -> dict:
    """Read a JSON object. Raises UserError where the file is not one (cut short, foreign), or has more than `largest` bytes."""
    # Where somebody has put a pipe that nobody writes to, opening it as a file would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} must be a file, but is a folder, a pipe or a device")
        if found.st_size > largest:
            raise UserError(
                f"{path} must have at most {largest / 2**20:,.0f} MiB, however: {found.st_size / 2**20:,.0f}"
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
        raise UserError(f"{path} is not JSON of ours: brackets in it are too deep") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, but holds a {type(value).__name__}")
    return value
