"""Run pip, and turn its failures into one sentence.

pip knows the site's index, mirror, proxy and certificates, which a download of our own would not.
"""

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.data.download.http import is_offline, printable_line
from irnet_hpc.errors import UserError

# Messages of pip are followed to their end; it retries by itself, so this is not a wait for data.
LIMIT_S = 3600
# A full disk, a used-up quota, and a limit of the size of files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Errand(NamedTuple):
    """State what pip is run for, in the words of its errors."""

    subject: str  # such as `crabnet==2.0.8`
    folder: Path  # where it is put; temporary files are put there, too
    n_bytes: int  # about the room that it needs
    place: Path  # the folder as the user knows it
    otherwise: str = ""  # what the user can do without pip, beginning with a verb


def run_pip(arguments: Sequence[str], errand: Errand) -> None:
    """Run a command of pip, such as `["download", "--dest", "folder", "crabnet==2.0.8"]`.

    Args:
        arguments: the arguments of pip.
        errand: what it is run for.

    Raises:
        UserError: if there is no pip, IRNET_OFFLINE forbids it, or pip fails.
    """
    if is_offline():
        raise UserError(_joined(f"IRNET_OFFLINE forbids fetching {errand.subject}", errand))
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            _joined(
                f"pip is needed to fetch {errand.subject}, but {sys.executable} has none; `python "
                "-m ensurepip` installs it",
                errand,
            )
        )
    command = [sys.executable, "-m", "pip", *arguments]
    command += ["--disable-pip-version-check", "--no-input"]
    # pip's temporary folder must be on the disk that messages name.
    environment = {**os.environ, "TMPDIR": str(errand.folder)}
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
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            _joined(f"pip did not fetch {errand.subject} within an hour", errand)
        ) from None
    if done.returncode:
        raise _failure(f"{done.stdout}\n{done.stderr}", errand)


def _failure(output: str, errand: Errand) -> UserError:
    """Turn the output of a pip that failed into one sentence."""
    free = shutil.disk_usage(errand.folder).free
    if any(os.strerror(number) in output for number in FULL) or free < errand.n_bytes:
        return UserError(
            f"there is no room in {errand.place} for {errand.subject}, which needs "
            f"{errand.n_bytes / 1e6:.0f} MB; name another folder with XDG_CACHE_HOME"
        )
    last = [line for line in output.splitlines() if line.startswith("ERROR:")][-1:]
    problem = printable_line(last[0].removeprefix("ERROR:").strip()) if last else "pip failed"
    # Words of pip 23.2.1. If they change, the sentence below is less exact, and still true.
    reaches_index = "connection broken" not in output
    lacks = re.search(r"No matching distribution found for (\S+)", output)
    if lacks and reaches_index:
        problem = (
            f"the index that pip uses lacks {lacks[1]}; `pip config list` and the "
            "variables PIP_INDEX_URL and PIP_EXTRA_INDEX_URL say which it is"
        )
    elif re.search(r"Wheel .* is invalid|incomplete download|IncompleteRead", output):
        problem = "it came damaged or cut short; the same command fetches it again"
    elif not reaches_index:
        problem = "pip reaches no index"
    return UserError(_joined(f"{errand.subject} was not fetched: {problem}{_on_node()}", errand))


def _on_node(environment: Mapping[str, str] = os.environ) -> str:
    if "SLURM_JOB_ID" not in environment:
        return ""
    return (
        "; this is a job, and compute nodes often have no network: run the same command "
        "on the login node first (`sweep submit` does so by itself)"
    )


def _joined(problem: str, errand: Errand) -> str:
    return f"{problem}; {errand.otherwise}" if errand.otherwise else problem
