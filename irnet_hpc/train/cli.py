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
rows are normalised in fixed groups. Exit status: 0 done, 2 a user's mistake, 75 preempted with a checkpoint, 76 another
process trains the run, 1 otherwise.
"""

import argparse
import contextlib
import functools
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from irnet_hpc.console import CommandParser, ExitStatus, command_parser, json_answer
from irnet_hpc.distributed.engines import (
    DEVICES,
    ENGINES,
    Comm,
    PeerLost,
    from_root,
    leave_at_once,
    start,
    together,
)
from irnet_hpc.distributed.processes import keep_freed_memory
from irnet_hpc.errors import UserError, check_choice, os_error_message
from irnet_hpc.files import read_json
from irnet_hpc.models.architectures import MODELS
from irnet_hpc.pack.store import Pack, open_pack
from irnet_hpc.runs import lease as holding
from irnet_hpc.runs.grids import GRID, GRIDS
from irnet_hpc.runs.lease import RunIsHeld
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.spec import PROTOCOLS, RunSpec, run_folder
from irnet_hpc.train import classical
from irnet_hpc.train import run_writer as folder
from irnet_hpc.train.dataset import PLACES
from irnet_hpc.train.options import Asked, seeds, specify, talks_once_a_step
from irnet_hpc.train.session import failure_is_noted, train_together
from irnet_hpc.train.staging import stage
from irnet_hpc.train.stream import Unreadable

# The words of a sweep's ledger, the worst of several cells first. running: by another process, which holds the run.
STATES = ("failed", "preempted", "running", "done")
OF_RESULT = (  # errors in `unit`, on the test rows unless the name says otherwise
    *(
        "unit",
        "test_mae",
        "test_rmse",
        "test_r2",
        "val_mae",
        "baseline_mae",
        "selected_on",
        "epochs",
        "best_epoch",
    ),
    *("n_train", "n_val", "n_test", "n_parameters", "per_property"),
)


def outcome_of(
    runs: Sequence[tuple[RunSpec, str, Path]],
    new: Collection[Path],
    elsewhere: Mapping[Path, str],
    seconds: float,
    next_step: str,
) -> dict:
    """`runs`: specification, key and folder of each cell. `new`: those that this command trained; `elsewhere`: the sentence
    for each that another process has."""
    found = [_run(spec, key, path, path in new, elsewhere.get(path)) for spec, key, path in runs]
    state = next(state for state in STATES if any(run["state"] == state for run in found))
    return {"state": state, "seconds": round(seconds, 3), "next": next_step, "runs": found}


def _run(spec: RunSpec, key: str, path: Path, is_new: bool, refused: str | None) -> dict:
    result = _result(path, key)
    error = refused or (None if result else _error(path))
    state = "done" if result else "running" if refused else "failed" if error else "preempted"
    of_result = {name: result and getattr(result, name) for name in OF_RESULT}
    return {
        "folder": str(path),
        "state": state,
        "trained_now": is_new and state == "done",
        "error": error,
        "pack": spec.pack,
        "property": spec.property,
        "model": spec.model,
        "recipe": spec.recipe,
        "protocol": spec.protocol,
        "seed": spec.seed,
        **of_result,
        "seconds": result and result.wall_time_s,
    }


def _result(path: Path, key: str) -> RunResult | None:
    with contextlib.suppress(UserError, OSError):
        found = read_result(path / "result.json")
        return found if found.key == key else None
    return None


def _error(path: Path) -> str | None:
    with contextlib.suppress(UserError, OSError):
        return str(read_json(path / "error.json").get("error"))
    return None


PREEMPTED = ExitStatus.PREEMPTED


def run_cells(arguments: argparse.Namespace, comm: Comm, answer: Callable[[object], None]) -> int:
    """The command, on every rank alike; rank 0 alone reads and writes the run folders, and gives the answer."""
    began = time.monotonic()
    asked = together(comm, lambda: specify(arguments))
    with contextlib.ExitStack() as packs:
        pack = packs.enter_context(together(comm, lambda: open_pack(asked[0].pack_file)))
        for name in {name for one in asked for name in one.spec.properties}:
            together(
                comm,
                lambda name=name: check_choice(
                    f"property of pack {asked[0].spec.pack}", name, pack.units
                ),
            )
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
        except UserError as error:
            if not elsewhere or isinstance(error, Unreadable):
                raise
            # A sweep takes a cell without a result or an error as held only where the status says so.
            raise RunIsHeld(f"{error}; {next(iter(elsewhere.values()))}") from error
        finally:
            if comm.rank == 0:
                runs = [(one.spec, key, path) for one, key, path in cells]
                new = [path for _, _, path in left]
                answer(
                    outcome_of(runs, new, elsewhere, time.monotonic() - began, next_step(arguments))
                )
    if elsewhere and status == 0:
        several = (
            f"{len(elsewhere)} of {len(asked)} cells were left out: " if len(asked) > 1 else ""
        )
        raise RunIsHeld(several + next(iter(elsewhere.values())))
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
    with failure_is_noted([path for _, _, path in cells], comm):
        read_from, instead = together(comm, lambda: stage(pack, arguments.stage_dir))
        if instead and comm.local_rank == 0:
            print(instead, file=sys.stderr, flush=True)
        if is_staged := read_from != pack.path:
            pack = packs.enter_context(together(comm, lambda: open_pack(read_from)))
    if cells[0][0].spec.is_classical:
        return _in_turn(cells, pack, comm, arguments.results)
    of_copy = " from a copy on the node" * is_staged
    return (
        0
        if train_together(cells, pack, comm, arguments, of_copy, next_step(arguments))
        else PREEMPTED
    )


def _in_turn(cells: list[tuple[Asked, str, Path]], pack: Pack, comm: Comm, results: str) -> int:
    """Fit classical cells one after the other."""
    for one, key, path in cells:
        with failure_is_noted([path], comm):
            if not classical.run(one.spec, one.recipe, key, pack, path, comm, results):
                return PREEMPTED
        holding.release(path)
    return 0


def _take_up(path: Path, key: str, force: bool, comm: Comm) -> tuple[bool, str | None]:
    """Whether a run is now this training's, on all its ranks; and, where it is another process's, the sentence that says so."""

    def take() -> tuple[str | None, str | None]:
        try:
            return (holding.token_of(path) if folder.take_up(path, key, force) else None), None
        except RunIsHeld as error:
            return None, str(error)

    token, refused = from_root(comm, take)
    if token and comm.rank != 0:
        holding.share(path, token)
    return token is not None, refused


def parser() -> CommandParser:
    parser = command_parser("train", __doc__)
    add = parser.add_argument
    add("--pack", required=True, help="name of a pack, or a path to one")
    add(
        "--property",
        required=True,
        help="name, or several joined by commas for one network with an output each",
    )
    add("--architecture", help=f"{', '.join(MODELS)}; or without a depth {', '.join(GRIDS)}")
    add("--depth", type=int)
    add("--layers", help="a layer string instead, e.g. 256BARx4-64BARx2-1")
    add(
        "--recipe",
        help=f"{', '.join(RECIPES)}, or an inline one (default: onecycle; of a classical model {GRID})",
    )
    add("--protocol", default="honest", help=f"{' or '.join(PROTOCOLS)} (default: %(default)s)")
    add(
        "--seed",
        type=seeds,
        default=[0],
        help="or several joined by commas, trained together (default: 0)",
    )
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
    add(
        "--init",
        metavar="RUN",
        help="folder of a finished run of the same model, whose weights to start from",
    )
    add("--results", default="results", help="default: %(default)s")
    add("--pack-dir", help="default: $IRNET_PACKS, else packs")
    add(
        "--data",
        default="auto",
        help=f"{', '.join(PLACES)}: where features are; auto streams what memory cannot hold",
    )
    add(
        "--stage-dir",
        metavar="DIR",
        help="read a copy on a disk of the node; auto: in $SLURM_TMPDIR, else $TMPDIR",
    )
    add("--engine", default="auto", help=f"{', '.join(ENGINES)} (default: %(default)s)")
    add(
        "--device",
        default="auto",
        help=f"{', '.join(DEVICES)} (default: %(default)s, a GPU where there is one)",
    )
    add("--force", action="store_true", help="replace a stale result")
    add(
        "--json",
        action="store_true",
        help="one object at the end, for a program to read; lines for people to stderr",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    keep_freed_memory()
    is_rare = functools.partial(talks_once_a_step, arguments)
    comm = start(arguments.engine, Path(arguments.results) / ".rendezvous", is_rare)
    try:
        with json_answer(arguments.json) as answer, holding.released_after():
            status = run_cells(arguments, comm, answer)
    except Unreadable as error:
        if comm.size == 1:
            raise
        print(f"error: rank {comm.rank}: {error}", file=sys.stderr)
        leave_at_once(2)  # the others have not met it, and would wait
    except UserError as error:
        if comm.rank == 0:
            raise
        status = error.exit_status  # rank 0 says why
    except PeerLost as error:
        print(f"error: rank {comm.rank}: {error}", file=sys.stderr)
        leave_at_once(1)
    except (
        OSError
    ) as error:  # a disk that is full, or no longer there, which this rank alone has met
        if comm.size == 1 or error.strerror is None:
            raise
        print(f"error: rank {comm.rank}: {os_error_message(error)}", file=sys.stderr)
        leave_at_once(2)
    except BaseException:
        if comm.size == 1:
            raise
        sys.excepthook(*sys.exc_info())
        leave_at_once(1)  # the others would wait for this rank
    comm.close()
    return status
