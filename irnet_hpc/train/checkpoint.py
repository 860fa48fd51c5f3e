"""Checkpoints: tensors as safetensors, the rest as JSON, in two slots, so that a torn write costs one checkpoint, not the run.

checkpoint/{a,b}.safetensors   checkpoint/{a,b}.json: written after it, with the hash of both

Models are files of the same kind, with a hash of their own: a bit that flips on a disk is a sentence, not another prediction.
"""

import contextlib
import dataclasses
import hashlib
import json
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from irnet_hpc.distributed.engines import Comm, from_root
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, remove_temporaries
from irnet_hpc.runs.lease import check, replacing, write_json
from irnet_hpc.train.model_file import write_tensors

SLOTS = ("a", "b")
SUFFIXES = (".json", ".safetensors")
NEVER = sys.float_info.max  # an error before the first evaluation: JSON has no infinity


@dataclasses.dataclass
class State:
    """Where training stands: with the tensors, all that a checkpoint holds."""

    epoch: int = 0
    step: int = 0  # over all epochs
    error_sum: float = 0.0  # of |error| of the scaled target over the rows of this epoch so far
    best_mae: float = NEVER
    best_epoch: int = -1
    stopped: bool = False  # early
    history: list = dataclasses.field(default_factory=list)  # rows of history.csv
    wall_s: float = 0.0  # at the end of the last epoch
    training_s: float = 0.0  # evaluation left out
    device_s: float = 0.0  # wall_s times the ranks of each attempt
    halves: list = dataclasses.field(
        default_factory=lambda: [[NEVER, 0.0], [NEVER, 0.0]]
    )  # see select_halves

    def spend(self, seconds: float, size: int) -> None:
        self.wall_s += seconds
        self.device_s += seconds * size


def save(folder: Path, key: str, tensors: dict[str, Tensor], state: State, comm: Comm) -> None:
    """Rank 0 writes the slot that is not the newest of this key."""
    if comm.rank != 0:
        return
    path = folder / "checkpoint"
    newest = max(_slots(path, key), default=(0, "b"))[1]
    slot = SLOTS[1 - SLOTS.index(newest)]
    check(folder)
    (path / f"{slot}.json").unlink(missing_ok=True)
    for suffix in SUFFIXES:  # of a process that was killed as it wrote
        remove_temporaries(path / f"{slot}{suffix}")
    with replacing(path / f"{slot}.safetensors") as temporary:
        write_tensors(temporary, {name: tensor.detach().cpu() for name, tensor in tensors.items()})
        of_state = json.loads(json.dumps(dataclasses.asdict(state)))  # as it comes back
        digest = _digest(temporary, of_state)
    write_json(path / f"{slot}.json", {"sha256": digest, "key": key, "state": of_state})


def resume(folder: Path, key: str, tensors: dict[str, Tensor], comm: Comm) -> State:
    """Fill the tensors from the newest checkpoint of this key, on every rank; a fresh State where there is none."""
    found = from_root(comm, lambda: _newest(folder / "checkpoint", key))
    if comm.rank == 0:
        _forget_newer(folder, key, found[1]["step"] if found else -1)
    if found is None:
        for tensor in tensors.values():
            comm.broadcast_(tensor)
        return State()
    slot, state = found
    stored = load_file(folder / "checkpoint" / f"{slot}.safetensors") if comm.rank == 0 else {}
    for name, tensor in tensors.items():
        if comm.rank == 0:
            tensor.copy_(stored[name])
        comm.broadcast_(tensor)
    if comm.rank == 0:
        print(f"resuming at epoch {state['epoch'] + 1}, step {state['step']}", flush=True)
    return State(**state)


def place(folder: Path, key: str, comm: Comm) -> tuple[int, int]:
    """(epoch, step) at which `resume` would go on; (0, 0) where there is no checkpoint of this key."""
    found = from_root(comm, lambda: _newest(folder / "checkpoint", key))
    return (found[1]["epoch"], found[1]["step"]) if found else (0, 0)


def remove(folder: Path) -> None:
    check(folder)
    for slot in SLOTS:
        for suffix in SUFFIXES:
            (folder / "checkpoint" / f"{slot}{suffix}").unlink(missing_ok=True)
            remove_temporaries(folder / "checkpoint" / f"{slot}{suffix}")
    with contextlib.suppress(OSError):
        (folder / "checkpoint").rmdir()


def _newest(path: Path, key: str) -> tuple[str, dict] | None:
    """Slot and state of the newest checkpoint of this key that is whole."""
    for _, slot in sorted(_slots(path, key), reverse=True):
        value, tensors = read_json(path / f"{slot}.json"), path / f"{slot}.safetensors"
        if tensors.exists() and _digest(tensors, value["state"]) == value.get("sha256"):
            return slot, value["state"]
        print(
            f"warning: {tensors} does not match its checksum; trying the checkpoint before it",
            file=sys.stderr,
        )
    return None


def _forget_newer(folder: Path, key: str, step: int) -> None:
    """Drop what says that it is newer than the checkpoint that was taken, and so is damaged: `save` would take it for the newest
    for ever, and write each time over the one that is whole."""
    for other, slot in _slots(folder / "checkpoint", key):
        if other > step:
            check(folder)
            (folder / "checkpoint" / f"{slot}.json").unlink(missing_ok=True)


def _slots(path: Path, key: str) -> list[tuple[int, str]]:
    """(step, slot) of the slots that hold a checkpoint of this key."""
    found = []
    for slot in SLOTS:
        with contextlib.suppress(FileNotFoundError, UserError, KeyError, TypeError, ValueError):
            value = read_json(path / f"{slot}.json")
            if value["key"] == key and isinstance(step := value["state"]["step"], int):
                found.append((step, slot))
    return found


def _digest(path: Path, state: dict) -> str:
    """Of the tensors and the state: one bit of either would be another training."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(state, sort_keys=True).encode())
    return digest.hexdigest()
