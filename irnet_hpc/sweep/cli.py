"""Sweeps: a matrix of trainings, of which only what is missing or failed is run.

    python -m irnet_hpc.sweep plan jobs/smoke.yaml      the cells, their states and what they will cost; starts nothing
    python -m irnet_hpc.sweep run jobs/smoke.yaml       missing packs, then cell after cell, here and now
    python -m irnet_hpc.sweep submit jobs/smoke.yaml    the same through SLURM, or in the background where there is none
    python -m irnet_hpc.sweep status jobs/smoke.yaml    how it goes; --watch to look again
    python -m irnet_hpc.sweep retry jobs/smoke.yaml --failed    the failed cells alone, through SLURM where there is one
    python -m irnet_hpc.sweep prune jobs/smoke.yaml     remove runs of no cell of these matrices, and what is left over

Every command may be killed and repeated. What replaces or removes something (`retry`, `prune`, --stale) lists it and asks;
--yes answers. Exit status: 0, 1 if a cell failed in `run`, 2 for a user's mistake.
"""

import argparse
import contextlib
import dataclasses
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from irnet_hpc.console import CommandParser, command_parser
from irnet_hpc.distributed.slurm import max_array_size
from irnet_hpc.errors import UserError
from irnet_hpc.sweep import journal
from irnet_hpc.sweep import local as running
from irnet_hpc.sweep.bundles import AUTO, bundles_of, gpu_gb, gpu_gb_here, of_bundles
from irnet_hpc.sweep.costs import DEVICES
from irnet_hpc.sweep.estimates import estimates, in_words
from irnet_hpc.sweep.ledger import Ledger, read_ledger
from irnet_hpc.sweep.local import run_here
from irnet_hpc.sweep.matrix.matrix import Matrix, read_matrix
from irnet_hpc.sweep.matrix.sites import read_site
from irnet_hpc.sweep.prune import remove, waste
from irnet_hpc.sweep.status import as_json, plan_lines, status_table, summary
from irnet_hpc.sweep.submit import reconcile, to_background, to_slurm

VERBS = {
    "plan": "the cells, their states and what they will cost; starts nothing",
    "run": "missing packs, then cell after cell, here and now",
    "submit": "the same through SLURM, or in the background where there is none",
    "status": "how it goes",
    "retry": "the failed cells alone, through SLURM where there is one",
    "prune": "remove runs of no cell of these matrices, and what is left over",
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    results, command = Path(arguments.results), arguments.command
    pack_dir = Path(arguments.pack_dir) if arguments.pack_dir else None
    if command == "prune":
        return prune([read_matrix(path, pack_dir) for path in arguments.matrix], results, arguments)
    matrix = read_matrix(arguments.matrix, pack_dir)
    if command == "plan":
        return plan(matrix, results, arguments)
    if command == "status":
        return status(matrix, results, pack_dir, arguments)
    if command == "reconcile":
        site, size, token = read_site(arguments.site), max_array_size() or 1, arguments.token
        with journal.alone(results):
            how = {"bundle": arguments.bundle, "at_most": arguments.at_most}
            reconcile(matrix, results, pack_dir, site, size, token, arguments.over_budget, **how)
        return 0
    return start(matrix, results, pack_dir, arguments)


def start(
    matrix: Matrix, results: Path, pack_dir: Path | None, arguments: argparse.Namespace
) -> int:
    """run, submit and retry."""
    is_retry = arguments.command == "retry"
    array_size = None
    if arguments.command != "run" and arguments.cluster in (None, "slurm"):
        array_size = max_array_size()
    is_run = arguments.command == "run" or (is_retry and array_size is None)
    if not is_run:  # jobs may start elsewhere
        results, pack_dir = results.resolve(), pack_dir and pack_dir.resolve()
    only = None
    if is_retry or arguments.stale:  # asked before the lock is held, which others wait for
        only = replaced(matrix, results, "failed" if is_retry else "stale", arguments.yes)
        if only is None:
            print(f"nothing was started\nnext: {call('status', matrix, arguments)}")
            return 0
    with contextlib.ExitStack() as lock:
        if not (
            is_run and arguments.token
        ):  # else the `submit` that started this holds it until we have begun
            lock.enter_context(journal.alone(results))
        ledger = read_ledger(matrix, results)
        check_budget(matrix, ledger, arguments.over_budget)
        if is_retry:
            ledger = dataclasses.replace(ledger, chosen=only)
            for entry in ledger.to_do():
                (entry.folder / "error.json").unlink(missing_ok=True)
        if is_run:
            options = {
                "stale": arguments.stale,
                "n_ranks": arguments.ranks,
                "token": arguments.token,
            }
            options["bundle"] = arguments.bundle
            return min(1, run_here(matrix, ledger, results, pack_dir, lock.close, **options))
        return submit(matrix, ledger, results, pack_dir, arguments, array_size)


def check_budget(matrix: Matrix, ledger: Ledger, over_budget: bool) -> None:
    """Raise UserError where the cells that are not done may cost more than the matrix allows."""
    asked, budget = ledger.asked_hours(), matrix.budget_device_hours
    if budget is not None and asked > budget and not over_budget:
        raise UserError(
            f"budget_device_hours of {matrix.path} must cover the cells that are not done, "
            f"however: {budget:,g} and {asked:,.1f}; raise it, or use --over-budget"
        )


def submit(
    matrix: Matrix,
    ledger: Ledger,
    results: Path,
    pack_dir: Path | None,
    arguments: argparse.Namespace,
    array_size: int | None,
) -> int:
    """Hand what is missing or failed, and not queued, to SLURM or to a process in the background."""
    print("\n".join(summary(matrix, ledger)), flush=True)
    entries = ledger.to_do(arguments.stale)
    unknown = [pack.name for pack in matrix.packs if not pack.exists and "all" in pack.properties]
    if not entries and not unknown:
        print(f"nothing to submit\nnext: {next_step(matrix, ledger, arguments)}")
        return 0
    if array_size is None and arguments.cluster == "slurm":
        raise UserError(
            "--cluster slurm needs SLURM's commands on PATH and a cluster that they know"
        )
    if array_size is None:
        options = ["--results", str(results), *(["--pack-dir", str(pack_dir)] if pack_dir else [])]
        options += ["--stale", "--yes"] * arguments.stale + [
            "--over-budget"
        ] * arguments.over_budget
        options += ["--bundle", str(arguments.bundle)]
        log, process = to_background(matrix, results, options)
        print(
            f"started {len(entries)} cells in the background, one after the other; to stop: kill {process}"
        )
    elif unknown:
        raise UserError(
            f"properties: all needs the pack first, however: {', '.join(unknown)} is not built; "
            "name the properties, or build it with python -m irnet_hpc.pack"
        )
    else:
        site, again = (
            read_site(arguments.site),
            reconcile_command(matrix, results, pack_dir, arguments),
        )
        how = {"bundle": arguments.bundle, "at_most": arguments.at_most}
        log = to_slurm(matrix, ledger, entries, results, pack_dir, site, array_size, again, **how)
        print(f"submitted {len(entries)} cells to SLURM")
    print(f"the tables will be in {log}\nnext: {call('status', matrix, arguments)} --watch")
    return 0


def reconcile_command(
    matrix: Matrix, results: Path, pack_dir: Path | None, arguments: argparse.Namespace
) -> list[str] | None:
    """The command of the job that looks at what has failed; None where the matrix wants nothing tried again."""
    if not matrix.retry:
        return None
    site = arguments.site and (
        str(Path(arguments.site).resolve()) if Path(arguments.site).exists() else arguments.site
    )
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.sweep",
        "reconcile",
        str(matrix.path.resolve()),
        "--results",
        str(results),
    ]
    command += (["--pack-dir", str(pack_dir)] if pack_dir else []) + (
        ["--site", site] if site else []
    )
    command += ["--bundle", str(arguments.bundle)]
    command += ["--at-most", str(arguments.at_most)] if arguments.at_most else []
    return command + ["--over-budget"] * arguments.over_budget


def call(verb: str, matrix: Matrix, arguments: argparse.Namespace) -> str:
    """A command to type next, with the options that say where things are."""
    places = {"--results": arguments.results, "--pack-dir": arguments.pack_dir}
    given = [
        part
        for name, value in places.items()
        if value not in (None, "results")
        for part in (name, value)
    ]
    return shlex.join(["python", "-m", "irnet_hpc.sweep", verb, str(matrix.path), *given])


def next_step(matrix: Matrix, ledger: Ledger, arguments: argparse.Namespace) -> str:
    """What brings a matrix on, as it stands: wait for what is under way, run what is left, look at what is there."""
    counts = ledger.counts()
    if counts["queued"] or counts["running"]:
        return f"{call('status', matrix, arguments)} --watch"
    if counts["preempted"] or counts["missing"]:
        return call("submit" if shutil.which("sbatch") else "run", matrix, arguments)
    if counts["failed"]:
        return f"{call('retry', matrix, arguments)} --failed"
    return running.next_step(matrix, Path(arguments.results))


# ------------------------------------------------------------------------------------------------------ plan and status


def plan(matrix: Matrix, results: Path, arguments: argparse.Namespace) -> int:
    """What `run` would do here; of `submit`, which asks a site, --site says what it would."""
    ledger = read_ledger(matrix, results)
    of_cells = estimates(matrix, ledger, arguments.device)
    if arguments.json:
        print(as_json(matrix, ledger, of_cells))
        return 0
    entries, site = ledger.to_do(), read_site(arguments.site)
    memory_gb = gpu_gb(site, entries) if site.gpu_gb else gpu_gb_here()
    together = of_bundles(bundles_of(matrix, entries, arguments.bundle, memory_gb))
    lines = [
        *plan_lines(matrix, ledger, of_cells, together),
        *summary(matrix, ledger),
        *in_words(ledger, of_cells),
    ]
    print("\n".join([*lines, f"next: {next_step(matrix, ledger, arguments)}"]))
    return 0


def status(
    matrix: Matrix, results: Path, pack_dir: Path | None, arguments: argparse.Namespace
) -> int:
    watch_s = arguments.watch
    ends: dict[str, str] = {}
    while True:
        ledger = read_ledger(matrix, results, ends)
        is_watched = watch_s and any(
            entry.state in ("queued", "running") for entry in ledger.entries
        )
        if arguments.json:
            print(as_json(matrix, ledger, estimates(matrix, ledger)), flush=True)
        else:
            clear = "\033[H\033[2J" if watch_s and sys.stdout.isatty() else ""
            lines = [*status_table(ledger), *summary(matrix, ledger)]
            lines += [] if is_watched else [f"next: {next_step(matrix, ledger, arguments)}"]
            print(clear + "\n".join(lines), flush=True)
        if not is_watched:
            return 0
        time.sleep(watch_s)
        matrix = read_matrix(matrix.path, pack_dir)  # its packs may have been built by now


# ------------------------------------------------------------------------------------------------- what replaces or removes


def replaced(matrix: Matrix, results: Path, state: str, yes: bool) -> frozenset[str] | None:
    """The cells in this state, where it is agreed that what they have left goes; None where it is not."""
    entries = [entry for entry in read_ledger(matrix, results).entries if entry.state == state]
    what = {"stale": "results that will be replaced", "failed": "reasons that will be removed"}[
        state
    ]
    lines = [f"{state} {entry.name}: {entry.detail}" for entry in entries]
    if entries and not agreed(
        lines, f"{len(entries)} {state} cells have {what}; train them again?", yes
    ):
        return None
    return frozenset(entry.name for entry in entries)


def prune(matrices: list[Matrix], results: Path, arguments: argparse.Namespace) -> int:
    found, then = waste(results, matrices), f"next: {call('status', matrices[0], arguments)}"
    if not found:
        print(f"nothing to prune in {results}", then, sep="\n")
        return 0
    lines = [f"{megabytes(one.size):>12}  {one.kind:30} {one.path}" for one in found]
    total = megabytes(sum(one.size for one in found))
    if not agreed(lines, f"remove these {len(found)}, {total}?", arguments.yes):
        print("nothing was removed", then, sep="\n")
        return 0
    problems = [problem for one in found if (problem := remove(one, results))]
    print(f"removed {len(found) - len(problems)} of {len(found)}", *problems, then, sep="\n")
    return min(1, len(problems))


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.3f} MB"


def agreed(lines: list[str], question: str, yes: bool) -> bool:
    """Show what goes, and ask. Raises UserError where nobody can answer and --yes has not been given."""
    print("\n".join(lines), flush=True)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(f"{question} There is no terminal to ask on: add --yes for yes")
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


# ---------------------------------------------------------------------------------------------------------------- options


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, however: {text!r}")
    return int(text)


def bundle(text: str) -> str | int:
    return AUTO if text == AUTO else at_least_one(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:  # nor is nan
        raise argparse.ArgumentTypeError(
            f"must be seconds above 0, a day at most, however: {text!r}"
        )
    return value


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    return parser().parse_args(argv)


def parser() -> CommandParser:
    parser = command_parser("sweep", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(VERBS))
    for name in (*VERBS, "reconcile"):  # the last is a job's
        shown = {"help": VERBS[name], "description": VERBS[name]} if name in VERBS else {}
        command = commands.add_parser(name, **shown)
        add = command.add_argument
        add(
            "matrix",
            metavar="MATRIX",
            nargs="+" if name == "prune" else None,
            help="a YAML file, e.g. jobs/smoke.yaml",
        )
        add("--results", default="results", help="default: %(default)s")
        add("--pack-dir", help="default: $IRNET_PACKS, else packs")
        if name in ("plan", "status"):
            add("--json", action="store_true", help="for a program to read")
        if name == "plan":
            add(
                "--device",
                choices=DEVICES,
                help="of a rank, for the estimates; default: gpu where one is asked for",
            )
        if name == "status":
            add(
                "--watch",
                type=seconds,
                nargs="?",
                const=10,
                metavar="SECONDS",
                help="look again until nothing is left",
            )
        if name in ("plan", "run", "submit", "retry", "reconcile"):
            text = "cells trained together at most, as one network, or auto: what a GPU holds, on a CPU 1 (default: auto)"
            add("--bundle", type=bundle, default=AUTO, metavar="K|auto", help=text)
        if name in ("submit", "retry", "reconcile"):
            add(
                "--at-most",
                type=at_least_one,
                metavar="N",
                help="jobs of SLURM's that train at once",
            )
        if name == "retry":
            add(
                "--failed",
                action="store_true",
                required=True,
                help="what has failed; nothing else is started",
            )
            command.set_defaults(stale=False)
        if name in ("run", "submit"):
            add(
                "--stale",
                action="store_true",
                help="also what has a result of another recipe, pack or version",
            )
        if name in ("run", "submit", "retry", "prune"):
            add(
                "--yes",
                action="store_true",
                help="do not ask before anything is replaced or removed",
            )
        if name in ("run", "submit", "retry", "reconcile"):
            add(
                "--over-budget",
                action="store_true",
                help="even if it may cost more than budget_device_hours",
            )
        if name in ("run", "retry"):
            add(
                "--ranks",
                type=at_least_one,
                help="of each cell, instead of the matrix's; the results are the same",
            )
        if name in ("run", "retry", "reconcile"):
            add(
                "--token", help=argparse.SUPPRESS
            )  # names the journal for the `submit` that started this
        if name in ("submit", "retry"):
            here = "local: here and now" if name == "retry" else "local"
            add(
                "--cluster",
                choices=("slurm", "local"),
                help=f"default: slurm where it answers, else {here}",
            )
        if name in ("plan", "submit", "retry", "reconcile"):
            add("--site", help="a name in env/sites or a YAML file; default: $IRNET_SITE")
    return parser
