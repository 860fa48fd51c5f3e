"""Train models on a pack; each training writes a run folder with a result.json.

    python -m irnet_hpc.train --pack mine-magpie --property hardness --architecture irnet --depth 17
    horovodrun -np 2 python -m irnet_hpc.train ...                (or mpirun -np 2, or srun)
    python -m irnet_hpc.train ... --recipe '{name: mine, base: paper, batch: 64}'
    python -m irnet_hpc.train --pack mine-magpie --property hardness --architecture random_forest
    python -m irnet_hpc.train --pack mine-magpie-folds5 ...       (on each fold of pack --folds 5)
    python -m irnet_hpc.train ... --property hardness,density     (one network with two outputs)
    python -m irnet_hpc.train ... --init RUN                      (from a finished run's weights)
    python -m irnet_hpc.train ... --seed 0,1,2                    (three runs, trained as one stack)
    python -m irnet_hpc.train ... --bundle '[{seed: 0}, {seed: 0, recipe: paper}]'
    python -m irnet_hpc.train ... --data stream --stage-dir /local/scratch   (a pack beyond memory)
    python -m irnet_hpc.train ... --json | jq '.runs[0].test_mae' (one object; all lines to stderr)

The result does not depend on the number of ranks: the batch is divided among the ranks, the order
of rows depends only on seed and epoch, and rows are normalised in fixed groups. Exit status: 0
done, 2 a user's mistake, 75 preempted with a checkpoint, 76 another process trains the run, 1 any
other failure.
"""

import argparse
import functools
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irnet_hpc.console import CommandParser, ExitStatus, command_parser, json_answer
from irnet_hpc.distributed.launch import DEVICES, ENGINES
from irnet_hpc.distributed.processes import handlers_restored
from irnet_hpc.errors import PeerLost, UserError, os_error_message
from irnet_hpc.models.architectures import MODELS
from irnet_hpc.runs.classical_grids import GRID, GRIDS
from irnet_hpc.runs.recipes import DEFAULT_RECIPE, RECIPES, Recipe
from irnet_hpc.runs.spec import PROTOCOLS
from irnet_hpc.runs.state_names import CellState
from irnet_hpc.train.options import read_options, read_request, seed_list
from irnet_hpc.train.request import one_collective_per_step
from irnet_hpc.train.run import KEEPING, PLACES, Run

if TYPE_CHECKING:
    from irnet_hpc.distributed.engines import Comm
    from irnet_hpc.runs.lease import Leases
    from irnet_hpc.train.session import Claims

# The states that --json can report. For several runs, it reports the first state in this list that
# any of them has.
STATES = (CellState.FAILED, CellState.PREEMPTED, CellState.RUNNING, CellState.DONE)
# The fields of RunResult that --json repeats. Errors are in `unit`, and on the test rows unless the
# name says otherwise.
RESULT_FIELDS = (
    *("unit", "test_mae", "test_rmse", "test_r2", "val_mae", "baseline_mae", "selected_on"),
    *("epochs", "best_epoch", "n_train", "n_val", "n_test", "n_parameters", "per_property"),
)


def parser() -> CommandParser:
    """Make the parser of the command."""
    parser = command_parser("train", __doc__)
    add = parser.add_argument
    for field in Recipe.__dataclass_fields__:
        parser.hints[field] = (
            f"{field} is a key of a recipe: "
            f"--recipe '{{name: mine, base: {DEFAULT_RECIPE}, {field}: ...}}'"
        )
    add(
        "--pack",
        required=True,
        help="name of a pack, or a path to one; NAME-foldsN: each fold of `pack --folds N`",
    )
    add(
        "--property",
        required=True,
        help="a property, or several joined by commas for one network with several outputs",
    )
    add("--architecture", help=f"{', '.join(MODELS)}; or, without --depth, {', '.join(GRIDS)}")
    add("--depth", type=int, help="number of layers of the network")
    add("--layers", help="a layer string in place of both, e.g. 256BARx4-64BARx2-1")
    add(
        "--recipe",
        help=f"{', '.join(RECIPES)}, or an inline one (default: {DEFAULT_RECIPE}, or {GRID})",
    )
    add("--protocol", default="honest", help=f"{' or '.join(PROTOCOLS)} (default: %(default)s)")
    add(
        "--seed",
        type=seed_list,
        default=[0],
        help="one seed, or several joined by commas, trained together (default: 0)",
    )
    add(
        "--bundle",
        metavar="CELLS",
        help="runs to train together: a YAML list of {property: , recipe: , seed: }, or a file "
        "that holds one",
    )
    add("--train-rows", type=int, metavar="ROWS", help="train on the first ROWS rows only")
    add(
        "--micro-batch",
        type=int,
        metavar="ROWS",
        help="split each rank's batch into pieces of at most ROWS rows: needs less memory",
    )
    add(
        "--init",
        metavar="RUN",
        help="start from the weights of this finished run of the same model (its folder), or of a "
        "network in the package: pretrained:oqmd",
    )
    add("--results", default="results", help="folder of all runs (default: %(default)s)")
    add("--pack-dir", help="folder of packs (default: $IRNET_PACKS, else packs)")
    add(
        "--data",
        default="auto",
        help=f"{', '.join(PLACES)}: where to keep features; auto streams them if memory is short",
    )
    add(
        "--stage-dir",
        metavar="DIR",
        help="copy the pack to this disk of the node; auto: $SLURM_TMPDIR, else $TMPDIR",
    )
    add("--engine", default="auto", help=f"{', '.join(ENGINES)} (default: %(default)s)")
    add(
        "--device",
        default="auto",
        help=f"{', '.join(DEVICES)} (default: %(default)s, a GPU if there is one)",
    )
    add(
        "--keep-model",
        default="auto",
        metavar="WHEN",
        help=f"{', '.join(KEEPING)}: keep a fitted classical model in the run folder, to predict "
        "with it; auto keeps one that takes at most 2 GiB of memory (default: %(default)s)",
    )
    add("--force", action="store_true", help="replace a stale result")
    add(
        "--json",
        action="store_true",
        help="print one JSON object at the end, and all other lines to stderr",
    )
    return parser


@handlers_restored
def main(argv: list[str] | None = None) -> int:
    """Run the command on this rank and return the exit status. Every rank calls it."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(argv)
    # Imported here because it imports torch, which --help does not need.
    from irnet_hpc.distributed.engines import start
    from irnet_hpc.distributed.processes import keep_freed_memory
    from irnet_hpc.runs.lease import Leases

    keep_freed_memory()
    is_rare = functools.partial(collectives_are_rare, arguments)
    comm = start(arguments.engine, Path(arguments.results) / ".rendezvous", is_rare)
    try:
        with json_answer(arguments.json) as answer, Leases() as leases:
            status = _run(arguments, argv, comm, leases, answer)
    except BaseException as error:
        status = _end_rank(error, comm)
    comm.close()
    return status


def collectives_are_rare(arguments: argparse.Namespace, size: int) -> bool:
    """Return True if `size` ranks communicate only once per step.

    For invalid options return False.
    """
    try:
        recipes = [cell.recipe for cell in read_request(arguments).cells]
    except (UserError, OSError):
        return False  # the error is raised again, and reported, once the ranks have met
    return one_collective_per_step(recipes, size)


def _run(
    arguments: argparse.Namespace,
    argv: list[str],
    comm: "Comm",
    leases: "Leases",
    answer: Callable[[object], None],
) -> int:
    """Train the requested runs, on every fold in turn.

    Rank 0 prints the outcome, even if a training fails.
    """
    from irnet_hpc.distributed.engines import together
    from irnet_hpc.train.folds import over_folds, put_together
    from irnet_hpc.train.session import Claims, claim_runs, open_runs, train_claimed

    began = time.monotonic()
    request, options = together(comm, lambda: read_request(arguments)), read_options(arguments)
    folds = together(comm, lambda: over_folds(request, arguments.pack_dir))
    runs: list[Run] = []
    claims, is_finished = Claims([], [], []), True
    try:
        for fold in folds:
            with open_runs(fold, options, comm, leases) as (pack, of_fold):
                claimed = claim_runs(of_fold, options, comm)
                runs += of_fold
                claims = claims.joined(claimed)
                is_finished = train_claimed(claimed, pack, options, comm)
            if not is_finished:
                break
        if len(folds) > 1 and is_finished and comm.rank == 0:
            print("\n".join(put_together(runs)), flush=True)
    finally:
        if comm.rank == 0 and runs:
            next_step = shlex.join(["python", "-m", "irnet_hpc.aggregate", arguments.results])
            outcome = command_outcome(runs, claims, time.monotonic() - began, next_step)
            if any(run["state"] == CellState.DONE for run in outcome["runs"]):
                print(f"next: {next_step}", flush=True)
            answer(outcome)
    if is_finished:
        return ExitStatus.OK
    if comm.size == 1:
        command = ["python", "-m", "irnet_hpc.train", *argv]
        print(f"next: {shlex.join(command)}", flush=True)
    return ExitStatus.PREEMPTED


def command_outcome(
    runs: list[Run], claims: "Claims", seconds: float, next_step: str
) -> dict[str, Any]:
    """Describe the outcome of all runs, as --json prints it.

    Args:
        runs: All runs that were requested.
        claims: Which runs this command had to train, and which another process holds.
        seconds: How long the command has taken, in s.
        next_step: The command to type next.
    """
    held = {run.key: str(error) for run, error in claims.held}
    claimed = {run.key for run in claims.to_train}
    described = [_run_outcome(run, run.key in claimed, held.get(run.key)) for run in runs]
    state = next(state for state in STATES if any(run["state"] == state for run in described))
    return {"state": state, "seconds": round(seconds, 3), "next": next_step, "runs": described}


def _run_outcome(run: Run, is_claimed: bool, held: str | None) -> dict[str, Any]:
    try:
        result = run.folder.result()
    except (UserError, OSError):
        result = None
    if result and (result.key != run.key or result.has_earlier_fit):
        result = None
    message = held
    if not result and not held and (error := run.folder.error()):
        message = error.message
    if result:
        state = CellState.DONE
    elif held:
        state = CellState.RUNNING
    else:
        state = CellState.FAILED if message else CellState.PREEMPTED
    return {
        "folder": str(run.folder),
        "state": state,
        "trained_now": is_claimed and state == CellState.DONE,
        "error": message,
        "pack": run.spec.pack,
        "property": run.spec.property,
        "model": run.spec.model,
        "recipe": run.spec.recipe,
        "protocol": run.spec.protocol,
        "seed": run.spec.seed,
        **{name: result and getattr(result, name) for name in RESULT_FIELDS},
        "seconds": result and result.wall_time_s,
    }


def _end_rank(error: BaseException, comm: "Comm") -> int:
    """End this rank after an error, so that no other rank waits for it.

    If all ranks have the same error, rank 0 raises it and prints it, and the other ranks return its
    exit status. If only this rank has the error, this function ends the process at once.

    Returns:
        The exit status, on ranks other than 0.
    """
    from irnet_hpc.distributed.processes import leave_at_once
    from irnet_hpc.train.stream import PackUnreadable

    if comm.size == 1:
        raise error
    if isinstance(error, UserError) and not isinstance(error, PackUnreadable):
        if comm.rank == 0:
            raise error
        return error.exit_status  # rank 0 gives the reason
    # The other ranks have not met the error and would wait for this rank.
    message, status = "", ExitStatus.USER_ERROR
    if isinstance(error, PackUnreadable):
        message = str(error)
    elif isinstance(error, PeerLost):
        message, status = str(error), ExitStatus.FAILED
    elif isinstance(error, OSError) and error.strerror is not None:
        message = os_error_message(error)
    else:
        sys.excepthook(type(error), error, error.__traceback__)
        status = ExitStatus.FAILED
    if message:
        print(f"error: rank {comm.rank}: {message}", file=sys.stderr)
    leave_at_once(status)
    raise AssertionError("unreachable")
