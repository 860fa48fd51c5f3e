"""Sweep a matrix of trainings: run only those that are missing or failed.

    python -m irnet_hpc.sweep plan jobs/smoke.yaml      states and cost of the cells; starts nothing
    python -m irnet_hpc.sweep run jobs/smoke.yaml       build packs and train the cells here
    python -m irnet_hpc.sweep work jobs/smoke.yaml      be one of many workers that share the cells
    python -m irnet_hpc.sweep submit jobs/smoke.yaml    the same by SLURM or, without, in background
    python -m irnet_hpc.sweep status jobs/smoke.yaml    the states now; --watch to look again
    python -m irnet_hpc.sweep retry jobs/smoke.yaml --failed      only the failed cells
    python -m irnet_hpc.sweep prune jobs/smoke.yaml     remove leftovers and runs that no cell needs
    python -m irnet_hpc.sweep init DIR                  copy example matrices, scripts, sites to DIR
    python -m irnet_hpc.sweep keys                      every key of a matrix and of a site

Every command may be killed and repeated. Before retry, prune and --stale replace or remove
anything, they list it and ask; --yes answers the question. Exit status: 0 if all went well, 1 if a
cell failed in `run` or `work`, 2 for a user's mistake, 75 if `work` was told to stop.
"""

import argparse
from collections.abc import Sequence

from irnet_hpc.console import CommandParser, command_parser
from irnet_hpc.sweep.costs import DEVICES

AUTO = "auto"  # bundles.AUTO; here, since --help must not wait for the modules that train
VERBS = {
    "plan": "show the cells, their states and their cost; starts nothing",
    "run": "build the missing packs, then train the cells, on this machine",
    "work": "train cells that nobody else trains, until none is left; start any number of these",
    "submit": "do the same through SLURM or, where there is no SLURM, in the background",
    "status": "show the states now",
    "retry": "train only the failed cells, through SLURM where there is one",
    "prune": "remove leftovers, and runs that belong to no cell of these matrices",
    "init": "copy the example matrices, SLURM scripts and sites to a folder",
    "keys": "list every key of a matrix and of a site, as Markdown",
}


def at_least_one(text: str) -> int:
    """Convert an option's text to a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def auto_or_number(text: str) -> str | int:
    """Convert the text of --bundle or --workers to `auto` or a number."""
    if text == AUTO or (text.isdecimal() and int(text) >= 1):
        return AUTO if text == AUTO else int(text)
    raise argparse.ArgumentTypeError(f"must be {AUTO} or a whole number from 1, got {text!r}")


def seconds(text: str) -> float:
    """Convert the text of --watch to seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:  # nan fails, too
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds above 0, at most a day, got {text!r}"
        )
    return value


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    return parser().parse_args(argv)


# option -> (the commands that have it, what argparse takes)
OPTIONS: dict[str, tuple[tuple[str, ...], dict]] = {
    "--results": (
        ("plan", "run", "work", "submit", "status", "retry", "prune", "reconcile"),
        {"default": "results", "help": "folder of all runs (default: %(default)s)"},
    ),
    "--pack-dir": (
        ("plan", "run", "work", "submit", "status", "retry", "prune", "reconcile"),
        {"help": "folder of packs (default: $IRNET_PACKS, else packs)"},
    ),
    "--json": (
        ("plan", "status"),
        {"action": "store_true", "help": "print JSON, for a program to read"},
    ),
    "--device": (
        ("plan",),
        {
            "choices": DEVICES,
            "help": "device of a rank, for the estimates (default: gpu if a GPU is requested)",
        },
    ),
    "--watch": (
        ("status",),
        {
            "type": seconds,
            "nargs": "?",
            "const": 10,
            "metavar": "SECONDS",
            "help": "look again every N seconds until no cell is queued or running",
        },
    ),
    "--bundle": (
        ("plan", "run", "work", "submit", "retry", "reconcile"),
        {
            "type": auto_or_number,
            "default": AUTO,
            "metavar": "K|auto",
            "help": "maximum number of cells trained together as one network; "
            "auto: as many as fit on a GPU, one on a CPU (default: auto)",
        },
    ),
    "--workers": (
        ("run", "retry", "work"),
        {
            "type": auto_or_number,
            "metavar": "N|auto",
            "help": "workers on this machine, each of which trains one cell at a time; auto: one a "
            "GPU or, without GPUs, as many as the cores allow with cpus_per_rank threads each "
            "(default: auto; for `work`: this process is one worker)",
        },
    ),
    "--at-most": (
        ("plan", "submit", "retry", "reconcile"),
        {
            "type": at_least_one,
            "metavar": "N",
            "dest": "max_jobs",
            "help": "maximum number of SLURM jobs that train at the same time; with --pack-nodes: "
            "of nodes that they hold",
        },
    ),
    "--pack-nodes": (
        ("plan", "submit", "retry"),
        {
            "type": at_least_one,
            "metavar": "N",
            "help": "submit jobs of N whole nodes whose workers take the cells, a worker a GPU or "
            "as many as cores and memory allow (default: 1 if the site has whole_nodes)",
        },
    ),
    "--failed": (
        ("retry",),
        {"action": "store_true", "required": True, "help": "take only the failed cells"},
    ),
    "--stale": (
        ("run", "submit"),
        {
            "action": "store_true",
            "help": "also replace results made with another recipe, pack or version",
        },
    ),
    "--yes": (
        ("run", "submit", "retry", "prune"),
        {"action": "store_true", "help": "do not ask before anything is replaced or removed"},
    ),
    "--over-budget": (
        ("run", "work", "submit", "retry", "reconcile"),
        {
            "action": "store_true",
            "help": "start even if the cells may cost more than budget_device_hours",
        },
    ),
    "--ranks": (
        ("run", "work", "retry"),
        {
            "type": at_least_one,
            "dest": "n_ranks",
            "help": "ranks of each cell, instead of the matrix's number; results do not change",
        },
    ),
    # The token of the journal, chosen by the `submit` that started this process.
    "--token": (("run", "work", "retry", "reconcile"), {"help": argparse.SUPPRESS}),
    "--cluster": (
        ("submit", "retry"),
        {
            "choices": ("slurm", "local"),
            "help": "where to train (default: slurm if it answers, else local)",
        },
    ),
    "--site": (
        ("plan", "submit", "retry", "reconcile"),
        {"help": "a name in env/sites or a YAML file (default: $IRNET_SITE)"},
    ),
}


def parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = command_parser("sweep", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(VERBS))
    for name in (*VERBS, "reconcile"):  # which only SLURM jobs call
        shown = {"help": VERBS[name], "description": VERBS[name]} if name in VERBS else {}
        command = commands.add_parser(name, **shown)
        if name == "init":
            command.add_argument(
                "folder", metavar="DIR", help="folder to fill; created if it is missing"
            )
        if name in ("init", "keys"):
            continue
        command.add_argument(
            "matrix",
            metavar="MATRIX",
            nargs="+" if name == "prune" else None,
            help="a YAML file, e.g. jobs/smoke.yaml",
        )
        for option, (names, settings) in OPTIONS.items():
            if name in names:
                command.add_argument(option, **settings)
    return parser
