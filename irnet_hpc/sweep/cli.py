"""Run the commands of `sweep`, and print what they did. `options.py` has the options."""

import argparse
import contextlib
import dataclasses
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from irnet_hpc.console import ExitStatus, log_to_stdout
from irnet_hpc.errors import UserError
from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep.at_work import progress_of
from irnet_hpc.sweep.cell_states import UNDER_WAY, Ledger, read_ledger
from irnet_hpc.sweep.context import SweepContext, SweepOptions, open_sweep
from irnet_hpc.sweep.estimates import FINISHED, Estimate, estimates, fits_here
from irnet_hpc.sweep.init import lay_down
from irnet_hpc.sweep.local import finished_states, run
from irnet_hpc.sweep.matrix.keys import keys_page
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.options import parse_arguments
from irnet_hpc.sweep.plan import plan
from irnet_hpc.sweep.prune import prune, remove
from irnet_hpc.sweep.reconcile import reconcile
from irnet_hpc.sweep.status import as_json, status_table, summary
from irnet_hpc.sweep.submit import slurm_array_size, submit
from irnet_hpc.sweep.watch_page import WatchPage
from irnet_hpc.sweep.worker import work


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of the sweep and return its exit status."""
    return carry_out(parse_arguments(argv))


def carry_out(arguments: argparse.Namespace) -> int:
    """Run the command that was parsed, and return its exit status."""
    with log_to_stdout():
        return COMMANDS[arguments.command](arguments)


def context_of(arguments: argparse.Namespace, path: str | None = None) -> SweepContext:
    """Open the sweep that the options describe."""
    given = {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(SweepOptions)
        if hasattr(arguments, field.name)
    }
    return open_sweep(
        path or arguments.matrix, arguments.results, arguments.pack_dir, SweepOptions(**given)
    )


def start_command(arguments: argparse.Namespace) -> int:
    """Carry out one of the commands run, submit and retry."""
    context, is_retry = context_of(arguments), arguments.command == "retry"
    is_here = arguments.command == "run"
    if is_retry:
        is_here = slurm_array_size(context.options) is None
    if is_retry or context.options.stale:
        # Ask before taking the sweep's lock, since other sweeps wait for the lock.
        state = CellState.FAILED if is_retry else CellState.STALE
        names = names_to_replace(context, state, arguments.yes)
        if names is None:
            print(f"nothing was started\nnext: {call('status', context.matrix, arguments)}")
            return ExitStatus.OK
        if is_retry:
            options = dataclasses.replace(context.options, only=names)
            context = dataclasses.replace(context, options=options)
    return run_command(context, arguments) if is_here else submit_command(context, arguments)


def run_command(context: SweepContext, arguments: argparse.Namespace) -> int:
    """Run the cells on this machine and report the outcome."""
    report, matrix = run(context), context.matrix
    counts = report.ledger.counts()
    has_results = report.n_done or not report.failures or any(counts[s] for s in FINISHED)
    step = tables_call(matrix, arguments) if has_results else call("plan", matrix, arguments)
    next_line = f"next: {step}"
    if not report.started:
        print(f"{matrix.name}: nothing to run ({finished_states(report.ledger)})\n{next_line}")
        return ExitStatus.OK
    text = f"{report.n_done} cells done, {len(report.failures)} failures"
    text += f", {len(report.held)} elsewhere" if report.held else ""
    print(f"{matrix.name}: {text}, in {report.seconds:.0f} s; results in {context.results}")
    print(*report.failures, *report.held, next_line, sep="\n", flush=True)
    if report.stopped:
        return ExitStatus.PREEMPTED
    return ExitStatus.FAILED if report.failures else ExitStatus.OK


def work_command(arguments: argparse.Namespace) -> int:
    """Train cells beside other workers and report the outcome."""
    context = context_of(arguments)
    report, matrix = work(context), context.matrix
    counts = f"{report.n_done} cells done here, {len(report.failures)} failures"
    print(f"{matrix.name}: {counts}, in {report.seconds:.0f} s; results in {context.results}")
    lines = [*report.failures, *filter(None, [report.why_left])]
    if not arguments.token:
        lines.append(f"next: {call('status', matrix, arguments)}")
    print(*lines, sep="\n", end="\n" if lines else "", flush=True)
    if report.stopped:
        return ExitStatus.PREEMPTED
    return ExitStatus.FAILED if report.failures or report.why_left else ExitStatus.OK


def submit_command(context: SweepContext, arguments: argparse.Namespace) -> int:
    """Submit the cells and report the outcome."""
    submission = submit(context)
    if submission.log is None:
        print(f"nothing to submit\nnext: {next_step(context.matrix, submission.ledger, arguments)}")
        return ExitStatus.OK
    if submission.process:
        print(
            f"started {submission.n_cells} cells in the background; "
            f"to stop: kill {submission.process}"
        )
    else:
        print(f"submitted {submission.n_cells} cells to SLURM")
    print(f"the tables will be in {submission.log}")
    print(f"next: {call('status', context.matrix, arguments)} --watch")
    return ExitStatus.OK


def reconcile_command(arguments: argparse.Namespace) -> int:
    """Repeat cells that ran out of memory or time; only SLURM jobs call this."""
    reconcile(context_of(arguments), arguments.token)
    return ExitStatus.OK


def plan_command(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    context = context_of(arguments)
    planned = plan(context)
    if arguments.json:
        print(planned.json())
    else:
        step = next_step(context.matrix, planned.ledger, arguments, planned.estimates)
        print("\n".join([*planned.lines(), f"next: {step}"]))
    return ExitStatus.OK


def status_command(arguments: argparse.Namespace) -> int:
    """Print the states; with --watch repeat it until no cell is queued or running.

    On a terminal, --watch shows a page that is brought up to date, and at the end the states.
    """
    context, watch_s = context_of(arguments), arguments.watch
    ends: dict = {}
    with contextlib.ExitStack() as stack:
        show = None
        if watch_s and sys.stdout.isatty() and not arguments.json:
            show = stack.enter_context(shown_page())
        while True:
            matrix, ledger = context.matrix, read_ledger(context.matrix, context.results, ends)
            estimated = estimates(matrix, ledger)
            now = progress_of(context, ledger, estimated)
            is_under_way = any(status.state in UNDER_WAY for status in ledger.cells)
            is_watched = watch_s and (is_under_way or now.at_work)
            if not is_watched:
                stack.close()  # what follows stays on the terminal
            if arguments.json:
                print(as_json(matrix, ledger, estimated, now=now), flush=True)
            elif show and is_watched:
                show(WatchPage(matrix, ledger, now, watch_s))
            else:
                lines = [*status_table(ledger, now), *summary(matrix, ledger)]
                step = next_step(matrix, ledger, arguments, estimated)
                lines += [] if is_watched else [f"next: {step}"]
                print("\n".join(lines), flush=True)
            if not is_watched:
                return ExitStatus.OK
            time.sleep(watch_s)
            context = context.with_current_packs()


@contextlib.contextmanager
def shown_page() -> Iterator[Callable[[WatchPage], None]]:
    """Show a page on the terminal's second screen until the block ends."""
    # Loading it takes as long as reading the states of a thousand cells.
    from rich.live import Live

    # rich 15 lays the page out anew at each refresh, and so for the present size of the terminal.
    with Live(screen=True, refresh_per_second=2) as live:
        yield live.update


def prune_command(arguments: argparse.Namespace) -> int:
    """List the files that may be removed, ask for consent, and remove them."""
    matrices = [context_of(arguments, path).matrix for path in arguments.matrix]
    results, then = Path(arguments.results), f"next: {call('status', matrices[0], arguments)}"
    waste = prune(results, matrices)
    if not waste:
        print(f"nothing to prune in {results}", then, sep="\n")
        return ExitStatus.OK
    lines = [f"{megabytes(item.size):>12}  {item.kind:30} {item.path}" for item in waste]
    total = megabytes(sum(item.size for item in waste))
    if not agreed(lines, f"remove these {len(waste)}, {total}?", arguments.yes):
        print("nothing was removed", then, sep="\n")
        return ExitStatus.OK
    problems = [problem for item in waste if (problem := remove(item, results))]
    n_removed = len(waste) - len(problems)
    print(f"removed {n_removed} of {len(waste)}", *problems, then, sep="\n")
    return ExitStatus.FAILED if problems else ExitStatus.OK


def init_command(arguments: argparse.Namespace) -> int:
    """Copy the example matrices, SLURM scripts and sites."""
    folder = Path(arguments.folder)
    written, kept = lay_down(folder)
    for path in kept:
        print(f"kept {path}, which already existed")
    print(
        f"wrote {len(written)} files to {folder}; of a table of your own, name the file and its "
        f"properties in {folder / 'jobs/my_table.yaml'}, and run that"
    )
    print(f"next: python -m irnet_hpc.sweep plan {shlex.quote(str(folder / 'jobs/laptop.yaml'))}")
    return ExitStatus.OK


def keys_command(arguments: argparse.Namespace) -> int:
    """Print docs/matrix.md."""
    print(keys_page(), end="")
    return ExitStatus.OK


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "plan": plan_command,
    "run": start_command,
    "work": work_command,
    "submit": start_command,
    "retry": start_command,
    "status": status_command,
    "prune": prune_command,
    "init": init_command,
    "keys": keys_command,
    "reconcile": reconcile_command,
}


# ------------------------------------------------------------------------------------ what is next


def call(verb: str, matrix: Matrix, arguments: argparse.Namespace) -> str:
    """Return a command to type next, with the options that name folders and the site."""
    places = {"--results": arguments.results, "--pack-dir": arguments.pack_dir}
    given = [
        part
        for name, value in places.items()
        if value not in (None, "results")
        for part in (name, value)
    ]
    return shlex.join(["python", "-m", "irnet_hpc.sweep", verb, str(matrix.path), *given])


def tables_call(matrix: Matrix, arguments: argparse.Namespace) -> str:
    """Return the command that makes the tables. The tables also list the missing cells."""
    command = ["python", "-m", "irnet_hpc.aggregate", str(Path(arguments.results))]
    return shlex.join([*command, "--matrix", str(matrix.path)])


def next_step(
    matrix: Matrix,
    ledger: Ledger,
    arguments: argparse.Namespace,
    estimated: Sequence[Estimate] | None = None,
) -> str:
    """Return the command to type next: to wait, to train more cells, or to make tables.

    Cells are submitted if SLURM is here, unless their estimates say that they fit here.
    """
    counts = ledger.counts()
    if any(counts[state] for state in UNDER_WAY):
        return f"{call('status', matrix, arguments)} --watch"
    if counts[CellState.PREEMPTED] or counts[CellState.MISSING]:
        is_small = estimated is not None and fits_here(ledger, estimated)
        submits = shutil.which("sbatch") and not is_small
        return call("submit" if submits else "run", matrix, arguments)
    if counts[CellState.FAILED]:
        return f"{call('retry', matrix, arguments)} --failed"
    return tables_call(matrix, arguments)


# ----------------------------------------------------------------------- what replaces or removes


def names_to_replace(context: SweepContext, state: CellState, yes: bool) -> frozenset[str] | None:
    """List the cells in a state, and ask whether to train them again.

    Returns:
        The names of the cells; None if the user declines.
    """
    ledger = read_ledger(context.matrix, context.results)
    statuses = [status for status in ledger.cells if status.state == state]
    loss = "results that will be replaced"
    if state == CellState.FAILED:
        loss = "reasons that will be removed"
    lines = [f"{state} {status.name}: {status.detail}" for status in statuses]
    question = f"{len(statuses)} {state} cells have {loss}; train them again?"
    if statuses and not agreed(lines, question, yes):
        return None
    return frozenset(status.name for status in statuses)


def megabytes(size: int) -> str:
    """Format a number of bytes as megabytes."""
    return f"{size / 1e6:,.3f} MB"


def agreed(lines: list[str], question: str, yes: bool) -> bool:
    """Show the lines about what will be removed or replaced, and ask for consent.

    Raises UserError if nobody can answer and --yes is missing.
    """
    print("\n".join(lines), flush=True)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(f"{question} There is no terminal on which to answer; add --yes to confirm")
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
