"""Save and resume trainings: tensors as safetensors, the rest as JSON, in two slots.

    checkpoint/{a,b}.safetensors
    checkpoint/{a,b}.json           written afterwards, with the hash of both files' content

With two slots a torn write costs one checkpoint, not the run. Stack.tensors in train/stack.py lists
the tensors that are saved. Classical models save the results of their finished fits instead, in
checkpoint/grid.json (train/classical.py).
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from irnet_hpc.distributed.engines import Comm, from_root
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, remove_temporaries
from irnet_hpc.runs.folder import SLOTS, SUFFIXES, RunFolder
from irnet_hpc.train.model_file import write_tensors

# The best MAE before the first evaluation. It is not infinity, which JSON lacks.
NEVER = sys.float_info.max

logger = logging.getLogger(__name__)


def no_halves() -> list[list[float]]:
    """Return the initial value of State.halves, before any epoch."""
    return [[NEVER, 0.0], [NEVER, 0.0]]


@dataclasses.dataclass
class State:
    """The progress of a training: all that a checkpoint stores besides the tensors."""

    epoch: int = 0
    step: int = 0  # over all epochs
    error_sum: float = 0.0  # sum of |error| of the scaled target over this epoch's rows so far
    best_mae: float = NEVER
    best_epoch: int = -1
    stopped: bool = False  # True if it ended early, since its patience ran out
    history: list = dataclasses.field(default_factory=list)  # rows of history.csv
    wall_s: float = 0.0  # at the end of the last epoch
    training_s: float = 0.0  # without evaluation
    device_s: float = 0.0  # sum over attempts of wall time times number of ranks
    halves: list = dataclasses.field(default_factory=no_halves)  # see evaluation.select_halves

    def spend(self, seconds: float, size: int) -> None:
        """Add `seconds` during which `size` ranks have worked on this run."""
        self.wall_s += seconds
        self.device_s += seconds * size


class _Slot(NamedTuple):
    name: str  # one of SLOTS
    state: dict[str, Any]  # fields of State


def save(folder: RunFolder, key: str, tensors: dict[str, Tensor], state: State, comm: Comm) -> None:
    """Write a checkpoint on rank 0, over the older of the two slots.

    Raises:
        LeaseLost: If another process has taken the run over.
    """
    if comm.rank != 0:
        return
    path = folder.checkpoint
    newest = max(_slots(path, key), default=(0, "b"))[1]
    slot = SLOTS[1 - SLOTS.index(newest)]
    folder.check()
    (path / f"{slot}.json").unlink(missing_ok=True)
    for suffix in SUFFIXES:  # left by a process that was killed while writing
        remove_temporaries(path / f"{slot}{suffix}")
    with folder.replacing(path / f"{slot}.safetensors") as temporary:
        write_tensors(temporary, {name: tensor.detach().cpu() for name, tensor in tensors.items()})
        content = json.loads(
            json.dumps(dataclasses.asdict(state))
        )  # the same values as after reading
        digest = _digest(temporary, content)
    folder.write_json(path / f"{slot}.json", {"sha256": digest, "key": key, "state": content})


def resume(folder: RunFolder, key: str, tensors: dict[str, Tensor], comm: Comm) -> State:
    """Fill the tensors from the newest checkpoint of this run, on every rank.

    Returns:
        The state of the checkpoint. If there is no checkpoint, a new state; then every rank gets
        the tensors of rank 0.
    """
    path = folder.checkpoint
    newest = from_root(comm, lambda: _newest(path, key))
    if comm.rank == 0:
        _forget_newer(folder, key, newest.state["step"] if newest else -1)
    if newest is None:
        for tensor in tensors.values():
            comm.broadcast_(tensor)
        return State()
    stored = load_file(path / f"{newest.name}.safetensors") if comm.rank == 0 else {}
    for name, tensor in tensors.items():
        if comm.rank == 0:
            tensor.copy_(stored[name])
        comm.broadcast_(tensor)
    state = State(**newest.state)
    if comm.rank == 0:
        logger.info(f"resuming at epoch {state.epoch + 1}, step {state.step}")
    return state


def resume_point(folder: RunFolder, key: str, comm: Comm) -> tuple[int, int]:
    """Return the (epoch, step) at which `resume` would continue; (0, 0) without a checkpoint."""
    newest = from_root(comm, lambda: _newest(folder.checkpoint, key))
    return (newest.state["epoch"], newest.state["step"]) if newest else (0, 0)


def _newest(path: Path, key: str) -> _Slot | None:
    """Find the newest checkpoint of this key whose content matches its hash."""
    for _, slot in sorted(_slots(path, key), reverse=True):
        value, tensors = read_json(path / f"{slot}.json"), path / f"{slot}.safetensors"
        if tensors.exists() and _digest(tensors, value["state"]) == value.get("sha256"):
            return _Slot(slot, value["state"])
        logger.warning(
            f"warning: {tensors} does not match its checksum; trying the previous checkpoint"
        )
    return None


def _forget_newer(folder: RunFolder, key: str, step: int) -> None:
    """Remove a checkpoint whose step is later than `step`; since it was not used, it is damaged.

    Otherwise `save` would take it for the newest checkpoint, and overwrite the intact one.
    """
    path = folder.checkpoint
    for other, slot in _slots(path, key):
        if other > step:
            folder.check()
            (path / f"{slot}.json").unlink(missing_ok=True)


def _slots(path: Path, key: str) -> list[tuple[int, str]]:
    """List (step, slot) of the slots that hold a checkpoint of this key."""
    slots = []
    for slot in SLOTS:
        with contextlib.suppress(FileNotFoundError, UserError, KeyError, TypeError, ValueError):
            value = read_json(path / f"{slot}.json")
            if value["key"] == key and isinstance(step := value["state"]["step"], int):
                slots.append((step, slot))
    return slots


def _digest(path: Path, state: dict) -> str:
    """Hash the tensors and the state, so that a flipped bit in either is noticed."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(state, sort_keys=True).encode())
    return digest.hexdigest()
