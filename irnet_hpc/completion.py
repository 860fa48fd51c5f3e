"""Completion of the commands, their options and what these choose from, for a shell; written to stdout.

python -m irnet_hpc.completion bash > ~/.local/share/bash-completion/completions/irnet_hpc
python -m irnet_hpc.completion zsh > ~/.zfunc/_irnet_hpc                 where ~/.zfunc is in $fpath
python -m irnet_hpc.completion fish > ~/.config/fish/completions/irnet_hpc.fish

It completes `irnet_hpc train ...`, the command of the installed package, and not `python -m irnet_hpc.train`, which to a shell
is a matter of python's. The script is fixed: no Python starts at a keystroke. To write it takes shtab, the extra `completion`.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from irnet_hpc.__main__ import COMMANDS
from irnet_hpc.console import exit_status
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.sources import SOURCES
from irnet_hpc.errors import UserError
from irnet_hpc.features.sets import FEATURE_SETS
from irnet_hpc.models.architectures import MODELS, WIDTHS
from irnet_hpc.runs.grids import GRID, GRIDS
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.spec import PROTOCOLS

SHELLS = ("bash", "zsh", "fish", "tcsh")
# argument -> what is offered for it, where its parser names no choices; more than these may be allowed
OFFERED = {
    "source": SOURCES,
    "probe": SOURCES,
    "features": FEATURE_SETS,
    "property": PROPERTIES,
    "best": PROPERTIES,
    "by": PROPERTIES,
    "architecture": [*MODELS, *GRIDS],
    "depth": WIDTHS,
    "recipe": [*RECIPES, GRID],
    "protocol": PROTOCOLS,
    "bundle": ["auto"],
}
FOLDERS = {"results", "pack_dir", "data_dir", "stage_dir", "tables", "logdir", "init", "run"}
FILES = {"matrix", "names", "output", "html", "model", "verify", "info"}


def parsers() -> Mapping[str, argparse.ArgumentParser]:
    """The parser of each command, as the command itself uses it. Loads torch."""
    from irnet_hpc import tensorboard
    from irnet_hpc.aggregate import cli as aggregate
    from irnet_hpc.doctor import cli as doctor
    from irnet_hpc.export import cli as export
    from irnet_hpc.pack import cli as pack
    from irnet_hpc.predict import cli as predict
    from irnet_hpc.sweep import cli as sweep
    from irnet_hpc.train import cli as train

    commands = {
        "doctor": doctor,
        "pack": pack,
        "train": train,
        "sweep": sweep,
        "aggregate": aggregate,
    }
    commands |= {
        "predict": predict,
        "export": export,
        "tensorboard": tensorboard,
        "completion": sys.modules[__name__],
    }
    return {name: module.parser() for name, module in commands.items()}


def whole() -> argparse.ArgumentParser:
    """One parser of all commands, with what is offered for their arguments. To be looked at, not to parse with."""
    import shtab

    from irnet_hpc.distributed import engines as comm
    from irnet_hpc.train import dataset as data

    offered = OFFERED | {"engine": comm.ENGINES, "device": comm.DEVICES, "data": data.PLACES}
    parser = argparse.ArgumentParser(prog="irnet_hpc")
    commands = parser.add_subparsers()
    for name, command in parsers().items():
        does = COMMANDS[name].purpose
        verbs = next(
            (
                action
                for action in command._actions
                if isinstance(action, argparse._SubParsersAction)
            ),
            None,
        )
        if verbs is None:
            commands.add_parser(name, help=does, parents=[command], add_help=False)
            continue
        below = commands.add_parser(name, help=does).add_subparsers()
        for verb in verbs.metavar.split("|"):  # what is not named there is for the program itself
            child = verbs.choices[verb]
            below.add_parser(verb, help=child.description, parents=[child], add_help=False)
    for action in actions(parser):
        if action.choices is None and action.dest in offered:
            action.choices = list(offered[action.dest])
        elif action.dest in FOLDERS | FILES:
            action.complete = shtab.DIRECTORY if action.dest in FOLDERS else shtab.FILE
    return parser


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Those of a parser and of all below it."""
    found = []
    for action in parser._actions:
        below = action.choices.values() if isinstance(action, argparse._SubParsersAction) else ()
        found += [action, *(one for child in below for one in actions(child))]
    return found


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m irnet_hpc.completion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser


def main() -> None:
    shell = parser().parse_args().shell
    try:
        import shtab
    except ModuleNotFoundError:
        raise UserError(
            "completion is written with shtab: pip install 'irnet_hpc[completion]'"
        ) from None
    print(shtab.complete(whole(), shell))
    if sys.stdout.isatty():
        where = Path("~/.local/share/bash-completion/completions/irnet_hpc")
        print(
            f"next: write it to a file that the shell reads, such as {where} for bash; see --help",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(exit_status(main))
