"""The options of `train` -> what is to be trained: a specification, its recipe, its pack and the run it starts from."""

import argparse
from pathlib import Path

import yaml

from irnet_hpc.data import PLACES
from irnet_hpc.errors import UserError, choose
from irnet_hpc.grids import GRID, GRIDS, Grid
from irnet_hpc.origin import Origin, check_start, read_origin
from irnet_hpc.recipes import Recipe, resolve
from irnet_hpc.runs import RunSpec, model_of
from irnet_hpc.store import pack_path


def specify(arguments: argparse.Namespace) -> tuple[RunSpec, Recipe | Grid, Path, Origin | None]:
    is_classical = arguments.architecture in GRIDS
    recipe = _recipe(arguments.recipe or (GRID if is_classical else "onecycle"), arguments.architecture)
    if arguments.layers is not None and (arguments.architecture or arguments.depth is not None):
        raise UserError("a network is given by --architecture and --depth, or by --layers, not by both")
    if arguments.layers is None and not is_classical and not (arguments.architecture and arguments.depth is not None):
        raise UserError("a network is given by --architecture and --depth, e.g. irnet and 17, or by --layers")
    model = {"architecture": arguments.architecture, "depth": arguments.depth}
    if is_classical and arguments.init is not None:
        raise UserError(f"--init must be for a network, however: {arguments.architecture} has no weights to start with")
    if is_classical and choose("data", arguments.data, PLACES) == "stream":
        raise UserError(f"--data stream must be for a network, however: {arguments.architecture} is fitted in memory")
    pack_file = pack_path(arguments.pack, arguments.pack_dir)
    origin = None if arguments.init is None else read_origin(arguments.init)
    spec = RunSpec(
        pack=pack_file.stem,
        property=arguments.property,
        recipe=recipe.name,
        protocol=arguments.protocol,
        seed=arguments.seed,
        train_rows=arguments.train_rows,
        start_from=origin.id if origin else None,
        **(model if arguments.layers is None else model_of(arguments.layers)),
    )
    check_start(spec, recipe, origin)
    return spec, recipe, pack_file, origin


def _recipe(text: str, architecture: str | None) -> Recipe | Grid:
    if text == GRID:
        if architecture not in GRIDS:
            raise UserError(f"recipe {GRID} must be that of a classical model ({', '.join(GRIDS)}), and of no network")
        return GRIDS[architecture]
    try:
        return resolve(yaml.safe_load(text) if text.lstrip().startswith("{") else text)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that is none
        raise UserError(f"an inline recipe must be YAML like {{name: mine, base: paper}}, however: {text!r}") from None
