"""Convert the options of `python -m irnet_hpc.train` into records, without importing torch."""

import argparse
from pathlib import Path
from typing import Any

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.runs.yaml_file import parse_yaml
from irnet_hpc.train.request import TrainRequest, request_cell
from irnet_hpc.train.run import TrainOptions

# Key of a cell of --bundle -> its type in Python, and in words.
CELL_KEYS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "property": (str, "a name, or several joined by commas"),
    "recipe": ((str, dict), "a name, or a mapping"),
    "seed": (int, "a whole number"),
}


def seed_list(text: str) -> list[int]:
    """Parse seeds joined by commas, for argparse."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a whole number, or several joined by commas, got {text!r}"
        ) from None


def read_request(arguments: argparse.Namespace) -> TrainRequest:
    """Make a TrainRequest from the options that say what to train."""
    cells = tuple(
        request_cell(
            cell.get("property", arguments.property),
            cell.get("recipe", arguments.recipe),
            cell["seed"],
            arguments.architecture,
        )
        for cell in _cells(arguments)
    )
    return TrainRequest(
        pack=arguments.pack,
        cells=cells,
        architecture=arguments.architecture,
        depth=arguments.depth,
        layers=arguments.layers,
        protocol=arguments.protocol,
        train_rows=arguments.train_rows,
        init=arguments.init,
        results=arguments.results,
    )


def read_options(arguments: argparse.Namespace) -> TrainOptions:
    """Make the TrainOptions from the options that say how this machine trains."""
    return TrainOptions(
        device=arguments.device,
        data=arguments.data,
        stage_dir=arguments.stage_dir,
        micro_batch=arguments.micro_batch,
        pack_dir=arguments.pack_dir,
        force=arguments.force,
        stop_on_signals=True,
        progress_bar=True,
        keep_model=arguments.keep_model,
    )


def _cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """List, for each cell, its seed and the fields that differ from the options."""
    if arguments.bundle is None:
        return [{"seed": seed} for seed in arguments.seed]
    cells = _read_bundle(arguments.bundle)
    if len(arguments.seed) > 1:
        raise UserError(
            f"give several seeds either by --seed or in --bundle, not by both, got {arguments.seed}"
        )
    return [{"seed": arguments.seed[0]} | cell for cell in cells]


def _read_bundle(text: str) -> list[dict[str, Any]]:
    """Read the cells of --bundle from a YAML list, or from a file that holds such a list."""
    rule = "--bundle must be a YAML list like [{seed: 0}, {seed: 1}]"
    try:
        content = text
        if not text.lstrip().startswith("["):
            content = Path(text).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{rule}, or a file with such a list, got {text[:200]!r}: {error.strerror}"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{rule}, or a file with such a list, got {text[:200]!r}: {error}"
        ) from None
    try:
        cells = parse_yaml(content)
    except UserError as error:
        raise UserError(f"{rule}, got {text[:200]!r} ({error})") from None
    if not isinstance(cells, list) or not cells or not all(isinstance(c, dict) for c in cells):
        raise UserError(f"{rule}, got {text[:200]!r}")
    for cell in cells:
        for key, value in cell.items():
            types, in_words = CELL_KEYS[
                check_choice("key of a cell of --bundle", str(key), CELL_KEYS)
            ]
            if not isinstance(value, types) or isinstance(value, bool):
                raise UserError(f"{key} of a cell of --bundle must be {in_words}, got {value!r}")
    return cells
