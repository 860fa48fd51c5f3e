"""Networks: cells of one shape, trained as one stack on every rank, and each one's result as soon as it has ended."""

import argparse
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from irnet_hpc.distributed.engines import Comm, PeerLost, device_of, from_root, together
from irnet_hpc.distributed.processes import StopSignals
from irnet_hpc.distributed.slurm import OUT_OF_TIME, end_of_job, stop_by
from irnet_hpc.errors import UserError, one_line
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs import lease as holding
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train import run_writer as folder
from irnet_hpc.train.dataset import place_of
from irnet_hpc.train.evaluation import predict
from irnet_hpc.train.loop import Ended, trained
from irnet_hpc.train.options import Asked
from irnet_hpc.train.stack import Replica, load_each
from irnet_hpc.train.stream import Unreadable
from irnet_hpc.train.warm_start import check_features, describe, in_words


@dataclasses.dataclass(frozen=True)
class Begun:
    """What a cell's result says of how it began."""

    attempts: list
    start: dict | None  # of the run that it starts from


def train_together(
    cells: list[tuple[Asked, str, Path]],
    pack: Pack,
    comm: Comm,
    arguments: argparse.Namespace,
    of_copy: str,
    next_step: str,
) -> bool:
    """Train networks of one shape and write each one's result as soon as it has ended; then its run is free again.

    False where a signal or the job's end came first: those without a result have saved themselves. `arguments` are train's;
    `of_copy` says where the pack is read, where that is a copy. Raises UserError where a cell failed, when all have ended.
    """
    began, unfinished, errors = time.monotonic(), [path for _, _, path in cells], []
    (first, _, _), specs, begun = cells[0], [one.spec for one, _, _ in cells], {}
    with failure_is_noted(unfinished, comm):
        device = together(comm, lambda: device_of(comm.local_rank, arguments.device))
        together(comm, lambda: check_features(first.origin, pack))
        scaling = first.origin and first.origin.scaling
        data = together(
            comm, lambda: load_each(pack, specs, first.recipe, device, scaling, arguments.data)
        )
        place = place_of(data[0], comm) + of_copy
        if first.recipe.batch % comm.size:
            raise UserError(
                f"the batch must divide over the ranks, however: batch {first.recipe.batch} (recipe {first.recipe.name}) and "
                f"{comm.size} ranks"
            )
        replicas = [
            Replica(one.spec, one.recipe, key, of_one, path, one.origin)
            for (one, key, path), of_one in zip(cells, data, strict=True)
        ]
        for replica in replicas:
            begun[replica.path] = _begin(replica, pack, comm, device, arguments.pack_dir, place)
        # One rank's clock decides for all, as one rank's signal does.
        stop = StopSignals(stop_by(end_of_job()) if comm.rank == 0 else math.inf)
        for ended in trained(replicas, comm, device, stop, arguments.micro_batch):
            path, error = ended.replica.path, ended.error
            if error is None:
                error = _conclude(ended, begun[path], pack, comm, device)
            if error is not None:
                errors.append(error)
                if comm.rank == 0:
                    folder.failed(path, error)
                    if len(cells) > 1:  # at once; the others go on
                        print(f"failed {path}: {error}", flush=True)
            unfinished.remove(path)
            holding.release(path)
        if unfinished:
            if comm.rank == 0:
                # Cells of other rows, whose turn had not come, have nothing to save.
                saved = [
                    str(path / "checkpoint")
                    for path in unfinished
                    if (path / "checkpoint").exists()
                ]
                where = f" and saved in {', '.join(saved)}" if saved else ""
                why = f"{OUT_OF_TIME}: stopped" if stop.is_late else "stopped by a signal"
                print(f"{why}{where}; the same command goes on", flush=True)
                for path in (
                    unfinished if stop.is_late else []
                ):  # for a sweep, which may give it more
                    folder.failed(path, f"{OUT_OF_TIME}; the same command goes on")
            return False
        if comm.rank == 0 and len(errors) < len(cells):
            print(f"in {time.monotonic() - began:.0f} s\nnext: {next_step}")
        if errors:
            raise UserError(
                errors[0]
                if len(cells) == 1
                else f"{len(errors)} of {len(cells)} cells failed: {errors[0]}"
            )
    return True


def _begin(
    replica: Replica, pack: Pack, comm: Comm, device: torch.device, pack_dir: str | None, place: str
) -> Begun:
    spec, recipe, data, origin = replica.spec, replica.recipe, replica.data, replica.origin
    start_facts = from_root(comm, lambda: origin and describe(origin, pack, data, pack_dir))
    attempts = from_root(
        comm,
        lambda: folder.begin(
            replica.path, spec, recipe, replica.key, pack.identity, comm, start_facts, place
        ),
    )
    if comm.rank == 0:
        seed = f", seed {spec.seed}" if spec.seed else ""
        print(
            f"{spec.model} on {spec.property} ({_unit(spec, pack)}) of {spec.pack}: {len(data.train):,} train, "
            f"{len(data.val):,} val, {len(data.test):,} test rows; recipe {recipe.name}{seed}; ranks: {comm.size}, engine: "
            f"{comm.name}, device: {device.type}, data: {place}{in_words(start_facts, recipe, spec)}",
            flush=True,
        )
    return Begun(attempts, start_facts)


def _unit(spec: RunSpec, pack: Pack) -> str:
    return ", ".join(pack.units[name] for name in spec.properties)


def _conclude(
    ended: Ended, begun: Begun, pack: Pack, comm: Comm, device: torch.device
) -> str | None:
    """Predict, and leave the result; the sentence of rank 0 where another process has taken the run over meanwhile."""
    replica, state, network = ended.replica, ended.state, ended.network
    spec, recipe, data = replica.spec, replica.recipe, replica.data
    prediction = predict(network, data.test, data, recipe, comm)
    several = len(spec.properties) > 1 and len(data.val)
    of_val = predict(network, data.val, data, recipe, comm) if several else None
    machine = folder.Machine.of(comm, device)
    if comm.rank != 0:
        return None
    try:
        result = folder.finish(
            replica.path,
            spec,
            recipe,
            replica.key,
            pack,
            data,
            network,
            state,
            prediction,
            begun.attempts,
            machine,
            of_val=of_val,
            origin=begun.start,
            bundle_size=ended.bundle_size,
        )
    except RunIsHeld as error:
        return str(error)
    for name, of in (result.per_property or {}).items():
        print(
            f"{name}: test MAE {of['test_mae']:.4g} {of['unit']} (baseline {of['baseline_mae']:.4g})"
        )
    print(
        f"test MAE {result.test_mae:.4g} {result.unit} (baseline {result.baseline_mae:.4g}), selected on "
        f"{result.selected_on}, {result.epochs} epochs in {result.wall_time_s:.0f} s\nwrote {replica.path / 'result.json'}",
        flush=True,
    )
    return None


@contextlib.contextmanager
def failure_is_noted(unfinished: list[Path], comm: Comm) -> Iterator[None]:
    """What ends the command is left, in one line, in the folder of every cell that has not finished by then."""
    try:
        yield
    except Exception as error:
        for path in unfinished:
            # Another rank may have left already, and said why.
            is_said = isinstance(error, PeerLost) and (path / "error.json").exists()
            if (comm.rank == 0 and not is_said) or isinstance(error, Unreadable):
                with contextlib.suppress(OSError):  # the very disk may be full
                    folder.failed(path, one_line(error))
        raise
