"""List the commands with an example of each, and start them.

python -m irnet_hpc                  this list
python -m irnet_hpc train --help     the same as python -m irnet_hpc.train --help
irnet_hpc train --help               the same, where the package is installed
python -m irnet_hpc --version
"""

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from irnet_hpc import __version__
from irnet_hpc.console import exit_status
from irnet_hpc.errors import check_choice


class Command(NamedTuple):
    """A command in the list that `python -m irnet_hpc` prints."""

    purpose: str
    example: str  # its arguments


COMMANDS = {
    "doctor": Command("check whether this environment can run a matrix", "--only machine results"),
    "pack": Command("compute features and splits of a table; write a pack", "--source alloys"),
    "train": Command(
        "train and test a network, or several together, on a pack",
        "--pack alloys-magpie --property mixing_enthalpy --architecture irnet --depth 17",
    ),
    "sweep": Command("train a matrix of cells, here or through SLURM", "run jobs/laptop.yaml"),
    "aggregate": Command(
        "compare finished runs in tables, figures and one page", "results/ --html report.html"
    ),
    "predict": Command(
        "predict other formulas, structures or columns with finished runs",
        "--best mixing_enthalpy formulas.csv -o predictions.csv",
    ),
    "export": Command("export a finished run as ONNX, with a model card", "RUN model.onnx"),
    "tensorboard": Command("write the curves of trainings for TensorBoard", "results/"),
    "completion": Command("write a script that completes all of this in a shell", "bash"),
}


def listing() -> str:
    """Return the list of commands as text."""
    lines = [
        f"irnet_hpc {__version__}: deep residual regression networks for materials properties",
        "",
    ]
    for name, command in COMMANDS.items():
        lines += [
            f"{name:12}{command.purpose}",
            f"{'':12}python -m irnet_hpc.{name} {command.example}",
        ]
    return "\n".join(
        [*lines, "", "Each has --help. docs/tutorial.md goes from nothing to a list of candidates."]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the list of commands or the version, or run the command that is named."""
    first, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if first in ("-h", "--help"):
        print(listing())
    elif first == "--version":
        print(__version__)
    else:
        module = f"irnet_hpc.{check_choice('command', first, COMMANDS)}"
        # Replace this process, so that signals, exit status and memory are the command's own.
        os.execv(sys.executable, [sys.executable, "-m", module, *rest])


def entry() -> None:
    """Run `main` as the console script `irnet_hpc`."""
    sys.exit(exit_status(main))


if __name__ == "__main__":
    entry()
