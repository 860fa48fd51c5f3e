"""Fetch wheels of the Python package index that contain data, with pip, and read them as archives.

pip knows the site's index, mirror, proxy and certificates, which a download of our own would not.
Nothing of a wheel is installed, imported or run:

    python -m pip download --no-deps --only-binary=:all: --ignore-requires-python crabnet==2.0.8

Wheels are kept in `$XDG_CACHE_HOME/irnet_hpc/wheels/`, by default below ~/.cache. Each must have
the sha256 that is recorded here, wherever it comes from.
"""

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.data.download.file_transfer import sha256_of
from irnet_hpc.data.download.pip import Errand, run_pip
from irnet_hpc.errors import UserError
from irnet_hpc.files import exclusive

logger = logging.getLogger(__name__)


class Wheel(NamedTuple):
    """A release of a package whose wheel contains data."""

    project: str
    version: str
    sha256: str
    n_bytes: int

    @property
    def requirement(self) -> str:
        """Return the release as pip names it, such as `crabnet==2.0.8`."""
        return f"{self.project}=={self.version}"

    @property
    def file_name(self) -> str:
        """Return the name of the wheel's file."""
        return f"{self.project}-{self.version}-py3-none-any.whl"


CRABNET = Wheel(
    "crabnet",
    "2.0.8",
    "4901565abaa5b4cd1a7841b9de647a3906df21676b226a7abf972d113f92054a",
    34_739_062,
)
MATBENCH = Wheel(
    "matbench",
    "0.6",
    "90b131032c3c2afe37c57b8891efefca05efe2d14296ae1f22445f7ddfb14c01",
    9_855_934,
)


def obtain_wheels(needed: Sequence[Wheel], given: Sequence[Path | str] = ()) -> dict[Wheel, Path]:
    """Return the files of wheels: those that are given, else those in the cache, else pip's.

    Args:
        needed: the wheels.
        given: files of some of the wheels; their names do not matter.

    Raises:
        UserError: if a given file is none of these wheels, or a wheel cannot be fetched.
    """
    files = _given(needed, given)
    return {wheel: files.get(wheel) or _cached(wheel) for wheel in needed}


def cache_folder() -> Path:
    """Return the folder where wheels are kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "irnet_hpc" / "wheels"


def is_cached(wheel: Wheel) -> bool:
    """Return True if a wheel is in the cache, undamaged."""
    path = cache_folder() / wheel.file_name
    return path.is_file() and sha256_of(path) == wheel.sha256


def _given(needed: Sequence[Wheel], given: Sequence[Path | str]) -> dict[Wheel, Path]:
    by_hash = {wheel.sha256: wheel for wheel in needed}
    files = {}
    for path in map(Path, given):
        if not path.is_file():
            raise UserError(f"the wheel {path} does not exist, or is not a file")
        digest = sha256_of(path)
        if digest not in by_hash:
            known = ", ".join(f"{one.file_name} (sha256 {one.sha256})" for one in needed)
            raise UserError(f"{path} must be {known}, got a file with the sha256 {digest}")
        files[by_hash[digest]] = path
    return files


def _cached(wheel: Wheel) -> Path:
    """Return the wheel in the cache, after fetching it if it is missing or damaged."""
    folder = cache_folder()
    path = folder / wheel.file_name

    def say_waiting(_: str) -> None:
        logger.info("another process is fetching %s; waiting until it ends", wheel.requirement)

    try:
        if is_cached(wheel):
            return path
        with exclusive(folder / f".{wheel.file_name}.lock", say_waiting, remove=True):
            # The process that we waited for may have fetched it.
            if not is_cached(wheel):
                if path.exists():
                    logger.info("%s is damaged; it is fetched again", path)
                _fetch(wheel, folder)
    except OSError as error:
        raise UserError(
            f"{wheel.requirement} cannot be kept in {folder}: {error.strerror or error}; name "
            f"another folder with XDG_CACHE_HOME; {_by_hand()}"
        ) from None
    return path


def _fetch(wheel: Wheel, folder: Path) -> None:
    """Let pip fetch a wheel, check its hash, and put it into the folder."""
    logger.info(
        f"fetching {wheel.requirement} with pip ({wheel.n_bytes / 1e6:.0f} MB); the wheel is read "
        "as an archive, and nothing of it is installed or run"
    )
    with tempfile.TemporaryDirectory(prefix=f".{wheel.project}.", dir=folder) as temporary:
        # Seen with pip 23.2.1: with --no-deps it saves the wheel as it is and runs nothing of it.
        # Its cache would keep the wheel a second time.
        command = ["download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        command += ["--no-cache-dir", "--progress-bar=off", "--dest", temporary, wheel.requirement]
        room = 2 * wheel.n_bytes
        run_pip(command, Errand(wheel.requirement, Path(temporary), room, folder, _by_hand()))
        found = sorted(Path(temporary).glob("*.whl"))
        if len(found) != 1:
            raise UserError(
                f"pip must fetch one wheel of {wheel.requirement}, got {len(found)}; {_by_hand()}"
            )
        _check(wheel, found[0])
        found[0].replace(folder / wheel.file_name)


def _by_hand() -> str:
    return "you can also fetch the wheel elsewhere and name its file with --wheel FILE"


def _check(wheel: Wheel, path: Path) -> None:
    if (digest := sha256_of(path)) != wheel.sha256:
        raise UserError(
            f"{wheel.requirement} is not the wheel that was expected: its sha256 must be "
            f"{wheel.sha256}, got {digest}; the index has another file under this name; "
            f"{_by_hand()}"
        )
