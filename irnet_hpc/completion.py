"""Print a script that lets a shell complete commands, options and the choices of options.

    python -m irnet_hpc.completion bash > ~/.local/share/bash-completion/completions/irnet_hpc
    python -m irnet_hpc.completion zsh > ~/.zfunc/_irnet_hpc                 with ~/.zfunc in $fpath
    python -m irnet_hpc.completion fish > ~/.config/fish/completions/irnet_hpc.fish

The script completes `irnet_hpc train ...`, the command of the installed package. It cannot complete
`python -m irnet_hpc.train`, which to a shell is the command `python`. The script contains all
choices, so no Python starts while you type. It is made by shtab, the extra `completion`.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from irnet_hpc.__main__ import COMMANDS
from irnet_hpc.console import CommandParser, command_parser, exit_status
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.sources import SOURCES
from irnet_hpc.errors import UserError
from irnet_hpc.features.sets import FEATURE_SETS
from irnet_hpc.models.architectures import MODELS, WIDTHS
from irnet_hpc.runs.classical_grids import GRID, GRIDS
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.spec import PROTOCOLS

SHELLS = ("bash", "zsh", "fish", "tcsh")
# Argument -> values to suggest if its parser has no choices. Other values may be valid too.
SUGGESTIONS: Mapping[str, Iterable[object]] = {
    "source": SOURCES,
    "probe": SOURCES,
    "features": FEATURE_SETS,
    "property": PROPERTIES,
    "best": PROPERTIES,
    "by": PROPERTIES,
    "architecture": (*MODELS, *GRIDS),
    "depth": WIDTHS,
    "recipe": (*RECIPES, GRID),
    "protocol": PROTOCOLS,
    "bundle": ("auto",),
}
FOLDERS = {"results", "pack_dir", "data_dir", "stage_dir", "tables", "logdir", "init", "run"}
FILES = {"matrix", "names", "output", "html", "model", "verify", "info"}


def parsers() -> Mapping[str, CommandParser]:
    """Make the parser of each command, in the same way as the command itself."""
    from irnet_hpc import tensorboard
    from irnet_hpc.aggregate import cli as aggregate
    from irnet_hpc.doctor import cli as doctor
    from irnet_hpc.export import cli as export
    from irnet_hpc.pack import cli as pack
    from irnet_hpc.predict import cli as predict
    from irnet_hpc.sweep import options as sweep
    from irnet_hpc.train import cli as train

    return {
        "doctor": doctor.parser(),
        "pack": pack.parser(),
        "train": train.parser(),
        "sweep": sweep.parser(),
        "aggregate": aggregate.parser(),
        "predict": predict.parser(),
        "export": export.parser(),
        "tensorboard": tensorboard.parser(),
        "completion": parser(),
    }


def whole_parser() -> argparse.ArgumentParser:
    """Make one parser of all commands, from which shtab makes the script.

    Never parse arguments with it: it knows only the suggested values, so it refuses other valid
    values.
    """
    import shtab

    from irnet_hpc.distributed.launch import DEVICES, ENGINES
    from irnet_hpc.train.run import PLACES

    suggestions = {**SUGGESTIONS, "engine": ENGINES, "device": DEVICES, "data": PLACES}
    whole = argparse.ArgumentParser(prog="irnet_hpc")
    commands = whole.add_subparsers()
    for name, command in parsers().items():
        for argument in all_arguments(command):
            if argument.choices is None and argument.dest in suggestions:
                argument.choices = list(suggestions[argument.dest])
            elif argument.dest in FOLDERS | FILES:
                kind = shtab.DIRECTORY if argument.dest in FOLDERS else shtab.FILE
                vars(argument)["complete"] = kind  # shtab looks for this attribute
        commands.add_parser(name, help=COMMANDS[name].purpose, parents=[command], add_help=False)
    return whole


def all_arguments(parser: CommandParser) -> Iterator[argparse.Action]:
    """List the arguments of a parser and of its verbs."""
    yield from parser.arguments
    for verb in parser.verbs.values():
        yield from all_arguments(verb)


def parser() -> CommandParser:
    """Make the parser of this command."""
    parser = command_parser("completion", __doc__)
    parser.add_argument("shell", choices=SHELLS)
    return parser


def main() -> None:
    """Run the command."""
    shell = parser().parse_args().shell
    try:
        import shtab
    except ModuleNotFoundError:
        raise UserError(
            "completion needs shtab, which is not installed; pip install 'irnet_hpc[completion]'"
        ) from None
    print(shtab.complete(whole_parser(), shell))
    if sys.stdout.isatty():
        path = Path("~/.local/share/bash-completion/completions/irnet_hpc")
        print(
            f"next: write this script to a file that the shell reads, such as {path}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(exit_status(main))
