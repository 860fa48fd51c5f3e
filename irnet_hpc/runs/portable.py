"""Find the portable models: those that the package ships, and those in folders.

    irnet_hpc/pretrained/oqmd/result.json              the result of the run
    irnet_hpc/pretrained/oqmd/model.safetensors        its network, with weights in bf16
    irnet_hpc/pretrained/oqmd/evidence.safetensors     what its pack would have told about it
    irnet_hpc/pretrained/oqmd/card.md                  data, licence, errors, limits, origin

A portable model is the folder of a run that needs no pack. `python -m irnet_hpc.export RUN FOLDER
--portable` writes such folders. A shipped model is given as `pretrained:NAME` wherever the folder
of a run is. This module imports neither torch nor safetensors.
"""

import functools
import hashlib
from pathlib import Path

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.runs.result import RunResult, read_result

PREFIX = "pretrained:"
EVIDENCE = "evidence.safetensors"
CARD = "card.md"
SHIPPED_IN = Path(__file__).parents[1] / "pretrained"

# Name of a shipped model -> the sha256 of each file that is read.
SHIPPED: dict[str, dict[str, str]] = {
    "oqmd": {
        "result.json": "b3e74b4ef4079d51279062c225e050fd293621258eb8d70a7ba79d2777350f84",
        "model.safetensors": "ab69dbfbf5f82cdf6fc03a5d24c7396c59d90395ed6f92f09bcb5dd9a51ad71e",
        EVIDENCE: "ade1e664738fe7ee9de6011788a40b176b7b526763356f64940a32dfcdbc0dd2",
    },
}


def is_shipped(run: Path | str) -> bool:
    """Return True if a run is given as `pretrained:NAME`."""
    return str(run).startswith(PREFIX)


def is_portable(folder: Path | str) -> bool:
    """Return True if a folder holds a portable model."""
    return Path(folder, EVIDENCE).is_file()


def folder_of(run: Path | str) -> Path:
    """Return the folder of a run that is given by its folder or as `pretrained:NAME`.

    Raises:
        UserError: If no model of that name ships with the package, or its files are damaged.
    """
    return shipped_folder(str(run).removeprefix(PREFIX)) if is_shipped(run) else Path(run)


@functools.cache
def shipped_folder(name: str) -> Path:
    """Return the folder of a model that ships with the package, once its files are checked.

    Raises:
        UserError: If there is no such model, or a file is missing or is not the shipped one.
    """
    folder = SHIPPED_IN / check_choice("pretrained model", name, SHIPPED)
    for file, sha256 in SHIPPED[name].items():
        path = folder / file
        try:
            found = file_sha256(path)
        except OSError as error:
            raise UserError(
                f"{PREFIX}{name} must have its file {path}: {error.strerror}; install the package "
                "again"
            ) from None
        if found != sha256:
            raise UserError(
                f"{path} must be the file of {PREFIX}{name} with sha256 {sha256[:16]}..., got "
                f"{found[:16]}...; install the package again"
            )
    return folder


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shipped_result(name: str) -> RunResult:
    """Return the result of the run whose model ships under a name.

    Raises:
        UserError: As `shipped_folder`.
    """
    return read_result(shipped_folder(name) / "result.json")


def name_of(folder: Path) -> str:
    """Return `pretrained:NAME` for the folder of a shipped model; for any other folder its path."""
    return f"{PREFIX}{folder.name}" if folder.parent == SHIPPED_IN else str(folder)
