"""The commands, in the order in which they are needed, with a call of each.

python -m irnet_hpc                  this list
python -m irnet_hpc train --help     as python -m irnet_hpc.train --help; `irnet_hpc train` where the package is installed
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
    does: str
    example: str  # its arguments


COMMANDS = {
    "doctor": Command("prove that this environment can run a matrix", "--only machine results"),
    "pack": Command(
        "a raw table -> features and splits -> a pack, which training reads", "--source alloys"
    ),
    "train": Command(
        "a pack -> one trained and tested network, or several together",
        "--pack alloys-magpie --property mixing_enthalpy --architecture irnet --depth 17",
    ),
    "sweep": Command("a matrix of trainings, here or through SLURM", "run jobs/laptop.yaml"),
    "aggregate": Command(
        "finished runs -> tables, figures and one page", "results/ --html report.html"
    ),
    "predict": Command(
        "finished runs on other formulas, structures or columns",
        "--best mixing_enthalpy formulas.csv -o predictions.csv",
    ),
    "export": Command("a finished run as ONNX, with a model card", "RUN model.onnx"),
    "tensorboard": Command("the curves of trainings for TensorBoard", "results/"),
    "completion": Command("completion of all of this in a shell", "bash"),
}


def listing() -> str:
    lines = [
        f"irnet_hpc {__version__}: deep residual regression networks for materials properties",
        "",
    ]
    for name, command in COMMANDS.items():
        lines += [
            f"{name:12}{command.does}",
            f"{'':12}python -m irnet_hpc.{name} {command.example}",
        ]
    return "\n".join(
        [*lines, "", "Each has --help. From nothing to a list of candidates: docs/tutorial.md"]
    )


def main(argv: Sequence[str] | None = None) -> None:
    first, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if first in ("-h", "--help"):
        print(listing())
    elif first == "--version":
        print(__version__)
    else:
        module = f"irnet_hpc.{check_choice('command', first, COMMANDS)}"
        # In place of this process, so that signals, status and memory are the command's own.
        os.execv(sys.executable, [sys.executable, "-m", module, *rest])


def entry() -> None:
    sys.exit(exit_status(main))


if __name__ == "__main__":
    entry()
