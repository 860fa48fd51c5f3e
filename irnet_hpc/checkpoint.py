"""Checkpoints: tensors as safetensors, the rest as JSON, in two slots, so that a torn write costs one checkpoint, not the run.

checkpoint/{a,b}.safetensors   checkpoint/{a,b}.json: written after it, with its hash
"""

import contextlib
import dataclasses
import hashlib
import sys
from pathlib import Path

import safetensors.torch
from torch import Tensor

from irnet_hpc.comm import Comm
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, replacing, write_json

SLOTS = ("a", "b")
NEVER = sys.float_info.max  # an error before the first evaluation: JSON has no infinity


@dataclasses.dataclass
class State:
    """Where training stands: with the tensors, all that a checkpoint holds."""

    epoch: int = 0
    step: int = 0  # over all epochs
    error_sum: float = 0.0  # of |error| over the rows of this epoch so far, in the property's unit
    best_mae: float = NEVER
    best_epoch: int = -1
    stopped: bool = False  # early
    history: list = dataclasses.field(default_factory=list)  # rows of history.csv
    wall_s: float = 0.0  # at the end of the last epoch
    training_s: float = 0.0  # evaluation left out
    halves: list = dataclasses.field(default_factory=lambda: [[NEVER, 0.0], [NEVER, 0.0]])  # see select_halves


def save(folder: Path, key: str, tensors: dict[str, Tensor], state: State, comm: Comm) -> None:
    if comm.rank == 0:
        cpu = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        _write(folder / "checkpoint", cpu, {"key": key, **dataclasses.asdict(state)})


def resume(folder: Path, key: str, tensors: dict[str, Tensor], comm: Comm) -> State:
    """Fill the tensors from the newest checkpoint of this key, on every rank; a fresh State where there is none."""
    found = _newest(folder / "checkpoint") if comm.rank == 0 else None
    if found and found[1].pop("key") != key:
        found = None
    state = comm.gather(found[1] if found else None)[0]
    for name, tensor in tensors.items():
        if found:
            tensor.copy_(found[0][name])
        comm.broadcast_(tensor)
    if state is None:
        return State()
    if comm.rank == 0:
        print(f"resuming at epoch {state['epoch'] + 1}, step {state['step']}", flush=True)
    return State(**state)


def _write(folder: Path, tensors: dict[str, Tensor], state: dict) -> None:
    """Write the slot that is not the newest. `state` is JSON-able; its `step` orders the slots."""
    newest = max(_states(folder), key=lambda slot: slot[1]["state"]["step"], default=("b", None))[0]
    slot = SLOTS[1 - SLOTS.index(newest)]
    (folder / f"{slot}.json").unlink(missing_ok=True)
    with replacing(folder / f"{slot}.safetensors") as temporary:
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        digest = _digest(temporary)
    write_json(folder / f"{slot}.json", {"sha256": digest, "state": state})


def _newest(folder: Path) -> tuple[dict[str, Tensor], dict] | None:
    """The newest checkpoint that is whole, as (tensors on the CPU, state); None where there is none."""
    for slot, value in sorted(_states(folder), key=lambda slot: -slot[1]["state"]["step"]):
        path = folder / f"{slot}.safetensors"
        if path.exists() and _digest(path) == value["sha256"]:
            return safetensors.torch.load_file(path), value["state"]
        print(f"warning: {path} does not match its checksum; trying the checkpoint before it", file=sys.stderr)
    return None


def remove(folder: Path) -> None:
    for slot in SLOTS:
        for suffix in (".json", ".safetensors"):
            (folder / f"{slot}{suffix}").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _states(folder: Path) -> list[tuple[str, dict]]:
    found = []
    for slot in SLOTS:
        with contextlib.suppress(FileNotFoundError, UserError, KeyError, TypeError):
            value = read_json(folder / f"{slot}.json")
            int(value["state"]["step"]), str(value["sha256"])
            found.append((slot, value))
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
