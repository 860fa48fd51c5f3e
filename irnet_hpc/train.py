"""Train one cell: a RunSpec and a pack -> a run folder with result.json.

    python -m irnet_hpc.train --pack alloys-magpie --property mixing_enthalpy --architecture irnet --depth 17
    horovodrun -np 2 python -m irnet_hpc.train ...      (or mpirun -np 2, or srun, with MPI or without)
    python -m irnet_hpc.train ... --recipe '{name: mine, base: paper, batch: 64}'
    python -m irnet_hpc.train --pack alloys-magpie --property mixing_enthalpy --architecture random_forest
    python -m irnet_hpc.train ... --property mixing_enthalpy,size_mismatch      (one network, an output each)
    python -m irnet_hpc.train --pack mine --property band_gap ... --init RUN     (start from the weights of a finished run)
    python -m irnet_hpc.train ... --seed 0,1,2                                   (three cells, trained as one stack)
    python -m irnet_hpc.train ... --bundle '[{seed: 0}, {seed: 0, recipe: {name: slow, base: paper, learning_rate: 1e-5}}]'
    python -m irnet_hpc.train ... --data stream --stage-dir /local/scratch       (a pack beyond memory, copied to the node)
    python -m irnet_hpc.train ... --json | jq '.runs[0].test_mae'                (one object at the end; the lines to stderr)

The experiment does not depend on how many ranks run it: the batch is global, its order a function of (seed, epoch), and
rows are normalised in fixed groups. Exit status: 0 done, 2 a user's mistake, 75 preempted with a checkpoint, 1 otherwise.
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from irnet_hpc import classical, folder, holding
from irnet_hpc.answering import answering
from irnet_hpc.architectures import MODELS
from irnet_hpc.comm import DEVICES, ENGINES, Comm, PeerLost, device_of, from_root, leave_at_once, start, together
from irnet_hpc.data import PLACES, place_of
from irnet_hpc.deadline import OUT_OF_TIME, end_of_job, stop_by
from irnet_hpc.errors import UserError, choose, exit_status, in_one_line, said
from irnet_hpc.evaluation import predict
from irnet_hpc.grids import GRID, GRIDS
from irnet_hpc.lease import Elsewhere
from irnet_hpc.origin import check_features, describe, in_words
from irnet_hpc.outcome import outcome_of
from irnet_hpc.process import StopSignals, keep_freed_memory
from irnet_hpc.recipes import RECIPES
from irnet_hpc.replicas import Replica, load_each
from irnet_hpc.runs import PROTOCOLS, RunSpec, run_folder
from irnet_hpc.specification import Asked, seeds, specify, talks_once_a_step
from irnet_hpc.staging import stage
from irnet_hpc.store import Pack, open_pack
from irnet_hpc.stream import Unreadable
from irnet_hpc.training import Ended, trained

PREEMPTED = 75  # EX_TEMPFAIL: saved, to be started again


@dataclasses.dataclass(frozen=True)
class Begun:
    """What a cell's result says of how it began."""

    attempts: list
    start: dict | None  # of the run that it starts from


def run_cells(arguments: argparse.Namespace, comm: Comm, answer: Callable[[object], None]) -> int:
    """The command, on every rank alike; rank 0 alone reads and writes the run folders, and gives the answer."""
    began = time.monotonic()
    asked = together(comm, lambda: specify(arguments))
    with contextlib.ExitStack() as packs:
        pack = packs.enter_context(together(comm, lambda: open_pack(asked[0].pack_file)))
        for name in {name for one in asked for name in one.spec.properties}:
            together(comm, lambda name=name: choose(f"property of pack {asked[0].spec.pack}", name, pack.units))
        cells = [(one, one.key_for(pack), run_folder(arguments.results, one.spec)) for one in asked]
        left, elsewhere = [], {}
        for one, key, path in cells:
            is_ours, refused = _take_up(path, key, arguments.force, comm)
            if is_ours:
                left.append((one, key, path))
            elif refused:
                elsewhere[path] = refused
                if comm.rank == 0 and len(asked) > 1:  # at once; the others go on
                    print(f"left out: {refused}", flush=True)
            elif comm.rank == 0:
                print(f"already done: {path / 'result.json'}")
        if comm.rank == 0 and not left and not elsewhere:
            print(f"next: {next_step(arguments)}")
        try:
            status = _train(left, pack, packs, comm, arguments) if left else 0
        finally:
            if comm.rank == 0:
                runs = [(one.spec, key, path) for one, key, path in cells]
                new = [path for _, _, path in left]
                answer(outcome_of(runs, new, elsewhere, time.monotonic() - began, next_step(arguments)))
    if elsewhere and status == 0:
        several = f"{len(elsewhere)} of {len(asked)} cells were left out: " if len(asked) > 1 else ""
        raise UserError(several + next(iter(elsewhere.values())))
    return status


def next_step(arguments: argparse.Namespace) -> str:
    """What to do with a result."""
    return shlex.join(["python", "-m", "irnet_hpc.aggregate", arguments.results])


def _train(
    cells: list[tuple[Asked, str, Path]],
    pack: Pack,
    packs: contextlib.ExitStack,
    comm: Comm,
    arguments: argparse.Namespace,
) -> int:
    """Train what has been taken up, from the node's copy of the pack where one is wanted."""
    with _failure_is_noted([path for _, _, path in cells], comm):
        read_from, instead = together(comm, lambda: stage(pack, arguments.stage_dir))
        if instead and comm.local_rank == 0:
            print(instead, file=sys.stderr, flush=True)
        if is_staged := read_from != pack.path:
            pack = packs.enter_context(together(comm, lambda: open_pack(read_from)))
    if cells[0][0].spec.is_classical:
        return _in_turn(cells, pack, comm, arguments.results)
    return _together(cells, pack, comm, arguments, " from a copy on the node" * is_staged)


def _in_turn(cells: list[tuple[Asked, str, Path]], pack: Pack, comm: Comm, results: str) -> int:
    """Fit classical cells one after the other."""
    for one, key, path in cells:
        with _failure_is_noted([path], comm):
            if not classical.run(one.spec, one.recipe, key, pack, path, comm, results):
                return PREEMPTED
        holding.release(path)
    return 0


def _take_up(path: Path, key: str, force: bool, comm: Comm) -> tuple[bool, str | None]:
    """Whether a run is now this training's, on all its ranks; and, where it is another process's, the sentence that says so."""

    def take() -> tuple[str | None, str | None]:
        try:
            return (holding.token_of(path) if folder.take_up(path, key, force) else None), None
        except Elsewhere as error:
            return None, str(error)

    token, refused = from_root(comm, take)
    if token and comm.rank != 0:
        holding.share(path, token)
    return token is not None, refused


@contextlib.contextmanager
def _failure_is_noted(unfinished: list[Path], comm: Comm) -> Iterator[None]:
    """What ends the command is left, in one line, in the folder of every cell that has not finished by then."""
    try:
        yield
    except Exception as error:
        for path in unfinished:
            # Another rank may have left already, and said why.
            is_said = isinstance(error, PeerLost) and (path / "error.json").exists()
            if (comm.rank == 0 and not is_said) or isinstance(error, Unreadable):
                with contextlib.suppress(OSError):  # the very disk may be full
                    folder.failed(path, in_one_line(error))
        raise


def _together(
    cells: list[tuple[Asked, str, Path]], pack: Pack, comm: Comm, arguments: argparse.Namespace, of_copy: str
) -> int:
    """Train networks of one shape and write each one's result as soon as it has ended; then its run is free again."""
    began, unfinished, errors = time.monotonic(), [path for _, _, path in cells], []
    (first, _, _), specs, begun = cells[0], [one.spec for one, _, _ in cells], {}
    with _failure_is_noted(unfinished, comm):
        device = together(comm, lambda: device_of(comm.local_rank, arguments.device))
        together(comm, lambda: check_features(first.origin, pack))
        scaling = first.origin and first.origin.scaling
        data = together(comm, lambda: load_each(pack, specs, first.recipe, device, scaling, arguments.data))
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
                saved = [str(path / "checkpoint") for path in unfinished if (path / "checkpoint").exists()]
                where = f" and saved in {', '.join(saved)}" if saved else ""
                why = f"{OUT_OF_TIME}: stopped" if stop.is_late else "stopped by a signal"
                print(f"{why}{where}; the same command goes on", flush=True)
                for path in unfinished if stop.is_late else []:  # for a sweep, which may give it more
                    folder.failed(path, f"{OUT_OF_TIME}; the same command goes on")
            return PREEMPTED
        if comm.rank == 0 and len(errors) < len(cells):
            print(f"in {time.monotonic() - began:.0f} s\nnext: {next_step(arguments)}")
        if errors:
            raise UserError(
                errors[0] if len(cells) == 1 else f"{len(errors)} of {len(cells)} cells failed: {errors[0]}"
            )
    return 0


def _begin(replica: Replica, pack: Pack, comm: Comm, device: torch.device, pack_dir: str | None, place: str) -> Begun:
    spec, recipe, data, origin = replica.spec, replica.recipe, replica.data, replica.origin
    start_facts = from_root(comm, lambda: origin and describe(origin, pack, data, pack_dir))
    attempts = from_root(
        comm, lambda: folder.begin(replica.path, spec, recipe, replica.key, pack.identity, comm, start_facts, place)
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


def _conclude(ended: Ended, begun: Begun, pack: Pack, comm: Comm, device: torch.device) -> str | None:
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
    except Elsewhere as error:
        return str(error)
    for name, of in (result.per_property or {}).items():
        print(f"{name}: test MAE {of['test_mae']:.4g} {of['unit']} (baseline {of['baseline_mae']:.4g})")
    print(
        f"test MAE {result.test_mae:.4g} {result.unit} (baseline {result.baseline_mae:.4g}), selected on "
        f"{result.selected_on}, {result.epochs} epochs in {result.wall_time_s:.0f} s\nwrote {replica.path / 'result.json'}",
        flush=True,
    )
    return None


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m irnet_hpc.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pack", required=True, help="name of a pack, or a path to one")
    add("--property", required=True, help="name, or several joined by commas for one network with an output each")
    add("--architecture", help=f"{', '.join(MODELS)}; or without a depth {', '.join(GRIDS)}")
    add("--depth", type=int)
    add("--layers", help="a layer string instead, e.g. 256BARx4-64BARx2-1")
    add("--recipe", help=f"{', '.join(RECIPES)}, or an inline one (default: onecycle; of a classical model {GRID})")
    add("--protocol", default="honest", help=f"{' or '.join(PROTOCOLS)} (default: %(default)s)")
    add("--seed", type=seeds, default=[0], help="or several joined by commas, trained together (default: 0)")
    add(
        "--bundle",
        metavar="CELLS",
        help="cells to train together: a YAML list of {property: , recipe: , seed: }, or its file",
    )
    add("--train-rows", type=int, help="train on the first so many rows only")
    add(
        "--micro-batch",
        type=int,
        metavar="ROWS",
        help="at most so many rows of a rank at once: the same, in less memory",
    )
    add("--init", metavar="RUN", help="folder of a finished run of the same model, whose weights to start from")
    add("--results", default="results", help="default: %(default)s")
    add("--pack-dir", help="default: $IRNET_PACKS, else packs")
    add("--data", default="auto", help=f"{', '.join(PLACES)}: where features are; auto streams what memory cannot hold")
    add("--stage-dir", metavar="DIR", help="read a copy on a disk of the node; auto: in $SLURM_TMPDIR, else $TMPDIR")
    add("--engine", default="auto", help=f"{', '.join(ENGINES)} (default: %(default)s)")
    add("--device", default="auto", help=f"{', '.join(DEVICES)} (default: %(default)s, a GPU where there is one)")
    add("--force", action="store_true", help="replace a stale result")
    add("--json", action="store_true", help="one object at the end, for a program to read; lines for people to stderr")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    keep_freed_memory()
    is_rare = functools.partial(talks_once_a_step, arguments)
    comm = start(arguments.engine, Path(arguments.results) / ".rendezvous", is_rare)
    try:
        with answering(arguments.json) as answer, holding.released_after():
            status = run_cells(arguments, comm, answer)
    except Unreadable as error:
        if comm.size == 1:
            raise
        print(f"error: rank {comm.rank}: {error}", file=sys.stderr)
        leave_at_once(2)  # the others have not met it, and would wait
    except UserError:
        if comm.rank == 0:
            raise
        status = 2  # rank 0 says why
    except PeerLost as error:
        print(f"error: rank {comm.rank}: {error}", file=sys.stderr)
        leave_at_once(1)
    except OSError as error:  # a disk that is full, or no longer there, which this rank alone has met
        if comm.size == 1 or error.strerror is None:
            raise
        print(f"error: rank {comm.rank}: {said(error)}", file=sys.stderr)
        leave_at_once(2)
    except BaseException:
        if comm.size == 1:
            raise
        sys.excepthook(*sys.exc_info())
        leave_at_once(1)  # the others would wait for this rank
    comm.close()
    return status


if __name__ == "__main__":
    sys.exit(exit_status(main))
