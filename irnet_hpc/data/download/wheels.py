"""Fetch wheels of the Python package index that contain data, with pip, and read them as archives.

pip knows the site's index, mirror, proxy and certificates, which a download of our own would not.
Nothing of a wheel is installed, imported or run:

    python -m pip download --no-deps --only-binary=:all: --ignore-requires-python crabnet==2.0.8

Wheels are kept in `$XDG_CACHE_HOME/irnet_hpc/wheels/`, by default below ~/.cache. Each must have
the sha256 that is recorded here, wherever it comes from.
"""

import errno
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.data.download.file_transfer import sha256_of
from irnet_hpc.data.download.http import is_offline, printable_line
from irnet_hpc.errors import UserError
from irnet_hpc.files import exclusive

logger = logging.getLogger(__name__)
# Messages of pip are followed to their end; it retries by itself, so this is not a wait for data.
PIP_LIMIT_S = 3600
# A full disk, a used-up quota, and a limit of the size of files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
            f"another folder with XDG_CACHE_HOME, or fetch the wheel elsewhere and {_by_hand()}"
        ) from None
    return path


def _fetch(wheel: Wheel, folder: Path) -> None:
    """Let pip fetch a wheel, check its hash, and put it into the folder."""
    if is_offline():
        raise UserError(f"IRNET_OFFLINE forbids fetching {wheel.requirement}; {_by_hand()}")
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"pip is needed to fetch {wheel.requirement}, but {sys.executable} has none; "
            f"`python -m ensurepip` installs it; or fetch the wheel elsewhere and {_by_hand()}"
        )
    logger.info(
        f"fetching {wheel.requirement} with pip ({wheel.n_bytes / 1e6:.0f} MB); the wheel is read "
        "as an archive, and nothing of it is installed or run"
    )
    with tempfile.TemporaryDirectory(prefix=f".{wheel.project}.", dir=folder) as temporary:
        _pip_download(wheel, Path(temporary))
        found = sorted(Path(temporary).glob("*.whl"))
        if len(found) != 1:
            raise UserError(
                f"pip must fetch one wheel of {wheel.requirement}, got {len(found)}; {_by_hand()}"
            )
        _check(wheel, found[0])
        found[0].replace(folder / wheel.file_name)


def _pip_download(wheel: Wheel, folder: Path) -> None:
    # Seen with pip 23.2.1: with --no-deps it saves the wheel as it is and runs nothing of it. Its
    # cache would keep the wheel a second time. Its temporary folder must be on the disk that
    # messages name.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar=off", "--dest", str(folder), wheel.requirement]
    environment = {**os.environ, "TMPDIR": str(folder)}
    retries = environment.get("PIP_RETRIES", "")
    # With a retry, pip says that it reaches no index; without one, only that it finds no release.
    environment["PIP_RETRIES"] = str(max(1, int(retries) if retries.isdigit() else 2))
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"pip did not fetch {wheel.requirement} within an hour; {_by_hand()}"
        ) from None
    if done.returncode:
        raise _failure(wheel, f"{done.stdout}\n{done.stderr}", folder)


def _failure(wheel: Wheel, output: str, folder: Path) -> UserError:
    """Turn the output of a pip that failed into one sentence."""
    free = shutil.disk_usage(folder).free
    if any(os.strerror(number) in output for number in FULL) or free < wheel.n_bytes:
        return UserError(
            f"there is no room in {folder.parent} for {wheel.requirement}, which needs "
            f"{2 * wheel.n_bytes / 1e6:.0f} MB; name another folder with XDG_CACHE_HOME"
        )
    last = [line for line in output.splitlines() if line.startswith("ERROR:")][-1:]
    problem = printable_line(last[0].removeprefix("ERROR:").strip()) if last else "pip failed"
    # Words of pip 23.2.1. If they change, the sentence below is less exact, and still true.
    reaches_index = "connection broken" not in output
    if "No matching distribution found" in output and reaches_index:
        problem = (
            f"the index that pip uses lacks {wheel.requirement}; `pip config list` and the "
            "variables PIP_INDEX_URL and PIP_EXTRA_INDEX_URL say which it is"
        )
    elif re.search(r"Wheel .* is invalid|incomplete download|IncompleteRead", output):
        problem = "it came damaged or cut short; the same command fetches it again"
    elif not reaches_index:
        problem = "pip reaches no index"
    return UserError(f"{wheel.requirement} was not fetched: {problem}{_on_node()}; {_by_hand()}")


def _on_node(environment: Mapping[str, str] = os.environ) -> str:
    if "SLURM_JOB_ID" not in environment:
        return ""
    return (
        "; this is a job, and compute nodes often have no network: run the same command "
        "on the login node first (`sweep submit` does so by itself)"
    )


def _by_hand() -> str:
    return "name a file of it with --wheel FILE"


def _check(wheel: Wheel, path: Path) -> None:
    if (digest := sha256_of(path)) != wheel.sha256:
        raise UserError(
            f"{wheel.requirement} is not the wheel that was expected: its sha256 must be "
            f"{wheel.sha256}, got {digest}; the index has another file under this name"
        )
