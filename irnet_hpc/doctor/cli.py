"""Check that this environment can run a matrix: a line for each check, with what to do about it.

    python -m irnet_hpc.doctor                        machine, engine, results folder, SLURM
    python -m irnet_hpc.doctor --slurm --site NAME    also a job of two nodes, as a sweep submits it
    python -m irnet_hpc.doctor --only results slurm   only some groups of checks
    python -m irnet_hpc.doctor --json                 for a program to read

Without --slurm the doctor takes less than a minute. It always ends, since a check that hangs or
crashes counts as a failure, and it leaves nothing behind. Exit status: 0 if no check failed (there
may be warnings and notes), so that any matrix would run here; 1 if one failed (the last line says
what runs nevertheless); 2 for a mistake in the command.
"""

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.console import CommandParser, command_parser
from irnet_hpc.distributed.processes import handlers_restored
from irnet_hpc.doctor.checks import GROUP_NAMES, Level, Settings, Verdict
from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    from irnet_hpc.doctor.report import Report
    from irnet_hpc.sweep.matrix.sites import Site

NAME_WIDTH = 12  # of the longest name of a check
MAX_WAIT_S = 86_400


@handlers_restored
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = parser().parse_args(argv)
    from irnet_hpc.doctor import cluster
    from irnet_hpc.doctor.report import run_checks

    # Exit normally on SIGTERM, so that the programs that checks have started are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    site, site_name = read_site_if_possible(arguments.site)
    if arguments.slurm and not cluster.belongs_to_cluster():
        raise UserError(
            "--slurm needs a SLURM cluster, but this machine belongs to none: "
            "SLURM's commands are not on PATH, or they know no cluster; see scontrol ping"
        )
    report = run_checks(
        Settings(
            Path(arguments.results).absolute(),
            os.urandom(4).hex(),
            site,
            site_name,
            wait_s=arguments.wait,
        ),
        arguments.only or GROUP_NAMES,
        with_job=arguments.slurm,
        on_verdict=(lambda name, verdict: None) if arguments.json else print_verdict,
    )
    if arguments.json:
        print(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        condition = "when that is corrected, " if report.failed else ""
        print(f"{report.summary()}\n{condition}next: {next_command(report, arguments.results)}")
    return int(report.failed)


def read_site_if_possible(name: str | None) -> "tuple[Site | None, str | None]":
    """Read a site.

    Returns:
        The site and its name. The site is None if a library is missing; the check `versions` then
        reports the library.
    """
    try:
        from irnet_hpc.sweep.matrix.sites import read_site
    except ImportError:
        return None, name
    return read_site(name), name or os.environ.get("IRNET_SITE") or None


def print_verdict(name: str, verdict: Verdict) -> None:
    """Print a verdict on one line, and its advice, if any, on a second line."""
    is_failure = verdict.level == Level.FAILURE
    level = verdict.level.upper() if is_failure else str(verdict.level)
    print(f"{level:<8} {name:<{NAME_WIDTH}}  {verdict.found}", flush=True)
    if verdict.todo:
        print(f"{'':<8} {'':<{NAME_WIDTH}}  -> {verdict.todo}", flush=True)


def next_command(report: "Report", results: str) -> str:
    """Return the command to type next: check failed groups again or, if none, make a pack."""
    folder = [] if results == "results" else ["--results", results]
    if groups := report.failed_groups:
        return shlex.join(["python", "-m", "irnet_hpc.doctor", "--only", *groups, *folder])
    if report.failed:  # only the job of two nodes failed, which is in no group
        return shlex.join(["python", "-m", "irnet_hpc.doctor", "--slurm", *folder])
    return "python -m irnet_hpc.pack --source alloys"


def seconds(text: str) -> float:
    """Read a whole number of seconds, for argparse."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WAIT_S:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of seconds from 1 to {MAX_WAIT_S:,}, got {text!r}"
        )
    return float(text)


def parser() -> CommandParser:
    """Make the parser of the command."""
    parser = command_parser("doctor", __doc__)
    add = parser.add_argument
    add(
        "--results",
        default="results",
        metavar="DIR",
        help="folder that results will be written to (default: %(default)s)",
    )
    add("--only", nargs="+", choices=GROUP_NAMES, help="run only these groups of checks")
    add("--slurm", action="store_true", help="also submit a job of two nodes and wait for it")
    add("--site", help="name of a site in env/sites, or a YAML file (default: $IRNET_SITE)")
    add(
        "--wait",
        type=seconds,
        default=300,
        metavar="SECONDS",
        help="longest wait for the job of two nodes (default: %(default)s)",
    )
    add("--json", action="store_true", help="print only one JSON object, at the end")
    return parser
