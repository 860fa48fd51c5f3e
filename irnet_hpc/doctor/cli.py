"""Prove that this environment can run a matrix; each line is a check, its verdict and what to do.

    python -m irnet_hpc.doctor                        machine, engine, results folder, SLURM
    python -m irnet_hpc.doctor --slurm --site NAME    and a job of two nodes, as a sweep submits it
    python -m irnet_hpc.doctor --only results slurm   some groups of checks again
    python -m irnet_hpc.doctor --json                 for a program to read

It takes less than a minute without --slurm, and always ends: a check that hangs or crashes is a
failure. It leaves nothing behind. Exit status: 0 if a matrix would run here (with or without
warnings and notes), 1 if not, 2 for a user's mistake.
"""

import argparse
import json
import os
import secrets
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.console import CommandParser, command_parser
from irnet_hpc.doctor import cluster
from irnet_hpc.doctor.checks import Level, Settings, Verdict
from irnet_hpc.doctor.report import GROUPS, Report, run_checks
from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    from irnet_hpc.sweep.matrix.sites import Site

NAME_WIDTH = max(
    map(len, (*(check.name for group in GROUPS.values() for check in group), "two nodes"))
)
MAX_WAIT_S = 86_400


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = parser().parse_args(argv)
    # An exit instead of death by the signal, so that what checks have started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    site, site_name = read_site_if_possible(arguments.site)
    if arguments.slurm and not cluster.belongs_to_cluster():
        raise UserError(
            "--slurm needs SLURM's commands on PATH and a cluster that they know; see scontrol ping"
        )
    report = run_checks(
        Settings(
            Path(arguments.results).absolute(),
            secrets.token_hex(4),
            site,
            site_name,
            wait_s=arguments.wait,
        ),
        arguments.only or tuple(GROUPS),
        with_job=arguments.slurm,
        on_verdict=(lambda name, verdict: None) if arguments.json else print_verdict,
    )
    if arguments.json:
        print(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        condition = "once mended, " if report.failed else ""
        print(f"{report.summary()}\n{condition}next: {next_command(report, arguments.results)}")
    return int(report.failed)


def read_site_if_possible(name: str | None) -> "tuple[Site | None, str | None]":
    """Read a site and its name; no site if a library is missing, which `versions` reports."""
    try:
        from irnet_hpc.sweep.matrix.sites import read_site
    except ImportError:
        return None, name
    return read_site(name), name or os.environ.get("IRNET_SITE") or None


def print_verdict(name: str, verdict: Verdict) -> None:
    """Print a verdict in a line, and what to do in a second one."""
    is_failure = verdict.level == Level.FAILURE
    level = verdict.level.upper() if is_failure else str(verdict.level)
    print(f"{level:<8} {name:<{NAME_WIDTH}}  {verdict.found}", flush=True)
    if verdict.todo:
        print(f"{'':<8} {'':<{NAME_WIDTH}}  -> {verdict.todo}", flush=True)


def next_command(report: Report, results: str) -> str:
    """Suggest the failed groups again, or the first pack if nothing failed."""
    folder = [] if results == "results" else ["--results", results]
    if groups := report.failed_groups:
        return shlex.join(["python", "-m", "irnet_hpc.doctor", "--only", *groups, *folder])
    if report.failed:  # only the job of two nodes, which is in no group
        return shlex.join(["python", "-m", "irnet_hpc.doctor", "--slurm", *folder])
    return "python -m irnet_hpc.pack --source alloys"


def seconds(text: str) -> float:
    """Read a whole number of seconds, for argparse."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WAIT_S:
        raise argparse.ArgumentTypeError(
            f"must be whole seconds from 1 to {MAX_WAIT_S:,}, got {text!r}"
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
        help="the folder that results will be in (default: %(default)s)",
    )
    add("--only", nargs="+", choices=GROUPS, help="run only these groups of checks")
    add(
        "--slurm", action="store_true", help="also run a job of two nodes, once the queue starts it"
    )
    add("--site", help="a name in env/sites, or a YAML file (default: $IRNET_SITE)")
    add(
        "--wait",
        type=seconds,
        default=300,
        metavar="SECONDS",
        help="longest wait for the job of two nodes (default: %(default)s)",
    )
    add("--json", action="store_true", help="print one JSON object at the end, nothing else")
    return parser
