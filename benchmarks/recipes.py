"""Measure the fields of a recipe: train with one row's changes to a base, as a table by val MAE.

    python benchmarks/recipes.py --screen long                  # a table of docs/recipes.md
    python benchmarks/recipes.py '{}' '{learning_rate: 4e-3}' --seeds 0 1 2
    python benchmarks/recipes.py '{}' '{decay_epochs: 12, weight_decay: 0}' \\
        --pack jarvis-magpie+elements --train-rows all --test

A row is changes to a recipe as YAML, `{}` the base itself. It may also contain `{pack: ...}`,
`{model: ...}` and `{train_rows: ...}`. Every run is an ordinary run folder below --results, and an
existing one is not trained again, so an interrupted table can be continued and rows added. Rows are
judged by val; --test also prints the test MAE of the single networks and of the mean of their
predictions.
"""

import argparse
import dataclasses
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import yaml

from irnet_hpc.console import exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import pack_path
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.spec import RunSpec, model_of, run_folder

# name -> training rows, epochs, rows of the table. `short` ends while the network still learns,
# `long` overfits.
SCREENS = {
    "short": (
        "20000",
        12,
        (
            "{}",
            "{batch: 128, norm_group: 128, learning_rate: 1e-3}",
            "{learning_rate: 4e-3}",
            "{weight_decay: 0.1}",
            "{weight_decay: 1.0}",
            "{clip: 0}",
            "{clip: 15}",
            "{norm_group: 32}",
            "{ema: 0}",
            "{loss: huber}",
            "{loss: mse}",
            "{precision: fp32}",
            "{target: raw}",
            "{schedule: constant, learning_rate: 5e-4}",
            "{pack: oqmd-magpie}",
            "{pack: oqmd-magpie+elements+ordered}",
            "{pack: oqmd-magpie+elements+classes}",
            "{pack: oqmd-magpie+elements+ordered+classes}",
        ),
    ),
    "long": (
        "10000",
        30,
        (
            "{}",
            "{weight_decay: 0.2}",
            "{weight_decay: 1.0}",
            "{weight_decay: 2.0}",
            "{weight_decay: 3.0}",
            "{weight_decay: 2.0, learning_rate: 4e-3}",
            "{norm_group: 32}",
            "{pack: oqmd-elements}",
            "{pack: oqmd-magpie}",
            "{batch: 128, norm_group: 128, learning_rate: 1e-3}",
            "{loss: huber}",
            "{ema: 0.0}",
        ),
    ),
}
OF_RUN = ("pack", "model", "train_rows")  # keys of a row that are no fields of a recipe


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what it changes, and its runs' results, a seed each."""

    changes: str
    results: list[RunResult]
    ensemble_mae: float  # test MAE of the mean of the runs' predictions, in the unit


def measure(text: str, arguments: argparse.Namespace) -> Row:
    """Train the missing runs of a row.

    Raises:
        UserError: if the row is not a mapping, or a run did not end.
    """
    changes = yaml.safe_load(text)
    if not isinstance(changes, Mapping):
        raise UserError(f"a row must be changes of a recipe like {{clip: 0}}, got {text!r}")
    run = {"pack": arguments.pack, "model": arguments.model, "train_rows": arguments.train_rows} | {
        key: changes[key] for key in OF_RUN if key in changes
    }
    fields = {key: value for key, value in changes.items() if key not in OF_RUN}
    fields = {"epochs": arguments.epochs} | fields
    recipe = {"name": recipe_name(arguments.base, fields), "base": arguments.base} | fields
    results, predictions = [], []
    for seed in arguments.seeds:
        folder = train_one(run, recipe, seed, arguments)
        results.append(read_result(folder / "result.json"))
        with np.load(folder / "test_predictions.npz") as file:
            predictions.append(file["prediction"])
            target = file["target"]
    return Row(text, results, float(np.abs(np.mean(predictions, axis=0) - target).mean()))


def recipe_name(base: str, fields: Mapping) -> str:
    """A name for an inline recipe: its base and changes, in the characters that a name may have."""
    text = "-".join([base, *(f"{key}-{value}" for key, value in sorted(fields.items()))])
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text)


def train_one(run: Mapping, recipe: Mapping, seed: int, arguments: argparse.Namespace) -> Path:
    """The folder of a run that is done, trained now where it was not."""
    model = model_of(run["model"])
    spec = RunSpec(
        pack=pack_path(run["pack"], arguments.pack_dir).stem,
        property=arguments.property,
        recipe=resolve(recipe).name,
        seed=seed,
        train_rows=None if run["train_rows"] == "all" else int(run["train_rows"]),
        **model,
    )
    network = (
        {"layers": spec.layers}
        if spec.layers
        else {"architecture": spec.architecture, "depth": spec.depth}
    )
    options = network | {
        "pack": run["pack"],
        "property": spec.property,
        "recipe": yaml.safe_dump(recipe, default_flow_style=True, width=1e9).strip(),
        "seed": seed,
        "train-rows": spec.train_rows,
        "results": arguments.results,
        "pack-dir": arguments.pack_dir,
    }
    flags = [
        part
        for key, value in options.items()
        if value is not None
        for part in (f"--{key}", str(value))
    ]
    # A process each, as anyone would start it; the table alone goes to standard output.
    status = subprocess.run(
        [sys.executable, "-m", "irnet_hpc.train", *flags], stdout=sys.stderr
    ).returncode
    if status:
        raise SystemExit(status)
    return run_folder(arguments.results, spec)


def line(row: Row, base: Row, test: bool) -> str:
    maes, ours = ([result.val_mae for result in part.results] for part in (row, base))
    mean, unit = statistics.mean(maes), row.results[0].unit
    cells = [
        f"`{row.changes}`",
        f"{mean:.4f} {spread(maes)}",
        f"{mean / statistics.mean(ours) - 1:+.1%}",
        str(len(maes)),
    ]
    if test:
        tests = [result.test_mae for result in row.results]
        cells += [f"{statistics.mean(tests):.4f} {spread(tests)}", f"{row.ensemble_mae:.4f}"]
    return f"| {' | '.join(cells)} | {row.results[0].n_train:,} | {unit} |"


def spread(values: list[float]) -> str:
    return f"± {statistics.stdev(values):.4f}" if len(values) > 1 else ""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "rows",
        nargs="*",
        metavar="ROW",
        help="changes of the base as YAML (default: the rows of the screen)",
    )
    add(
        "--screen",
        choices=SCREENS,
        default="long",
        help="training rows, epochs and rows (default: %(default)s)",
    )
    add("--base", default="onecycle", help="recipe that the rows change (default: %(default)s)")
    add("--pack", default="oqmd-magpie+elements", help="default: %(default)s")
    add("--property", default="formation_energy", help="default: %(default)s")
    add(
        "--model",
        default="irnet-17",
        help="architecture and depth, or a layer string (default: %(default)s)",
    )
    add("--train-rows", help="the first so many, or all (default: the screen's)")
    add(
        "--epochs",
        type=int,
        help="of every row that does not say otherwise (default: the screen's)",
    )
    add("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    add(
        "--test",
        action="store_true",
        help="print the test MAE too: for a last comparison, never for a choice",
    )
    add("--results", default="results/recipes", help="default: %(default)s")
    add("--pack-dir", help="default: $IRNET_PACKS, else packs")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    train_rows, epochs, rows = SCREENS[arguments.screen]
    arguments.train_rows = arguments.train_rows or train_rows
    arguments.epochs = arguments.epochs or epochs
    columns = ["changes", "val MAE", "against the first", "seeds", "train rows", "unit"]
    if arguments.test:
        columns[4:4] = ["test MAE", "test MAE of their mean"]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"base {arguments.base}\n"
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    first = None
    for text in arguments.rows or rows:
        row = measure(text, arguments)
        first = first or row
        print(line(row, first, arguments.test), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
