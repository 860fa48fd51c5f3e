"""The options of `train` -> what is to be trained: specifications, their recipes, their pack and the run they start from."""

import argparse
from pathlib import Path
from typing import NamedTuple

import yaml

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.pack.store import Pack, pack_path
from irnet_hpc.runs.grids import GRID, GRIDS, Grid
from irnet_hpc.runs.recipes import Recipe, resolve
from irnet_hpc.runs.spec import RunSpec, model_of, refuse_mixed, refuse_repeated, run_key
from irnet_hpc.train.dataset import PLACES
from irnet_hpc.train.warm_start import Origin, check_start, read_origin

# In which cells that are trained together may differ -> of which types it is, in Python and in words.
CELL_KEYS = {
    "property": (str, "a name, or several joined by commas"),
    "recipe": ((str, dict), "a name, or a mapping"),
    "seed": (int, "a whole number"),
}


# What YAML's reader raises: also for what is not UTF-8, a date that is none, and brackets without end.
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


class Asked(NamedTuple):
    """A cell that the command is to train."""

    spec: RunSpec
    recipe: Recipe | Grid
    pack_file: Path
    origin: Origin | None

    def key_for(self, pack: Pack) -> str:
        return run_key(self.spec, self.recipe, pack.identity, self.origin and self.origin.key)


def seeds(text: str) -> list[int]:
    """Seeds joined by commas, for argparse."""
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a whole number, or several joined by commas, however: {text!r}"
        ) from None


def specify(arguments: argparse.Namespace) -> list[Asked]:
    """The cells of the command, of one shape. Raises UserError for what is none, or of several shapes."""
    origin = None if arguments.init is None else read_origin(arguments.init)
    stated = [vars(arguments) | cell for cell in _cells(arguments)]
    asked = [_specify(argparse.Namespace(**one), origin) for one in stated]
    refuse_repeated([one.spec for one in asked])
    if not asked[0].spec.is_classical:
        refuse_mixed([(one.spec, one.recipe) for one in asked])
    return asked


def talks_once_a_step(arguments: argparse.Namespace, size: int) -> bool:
    """Whether so many ranks only sum gradients: no group of rows that are normalised together lies on several of them."""
    try:
        recipes = [_recipe_of(vars(arguments) | cell) for cell in _cells(arguments)]
    except (UserError, OSError):
        return False  # it is said why, once the ranks have met
    return not any(
        isinstance(recipe, Recipe) and recipe.batch // size % recipe.norm_group
        for recipe in recipes
    )


def _recipe_of(options: dict) -> Recipe | Grid:
    architecture = options["architecture"]
    return _recipe(
        options["recipe"] or (GRID if architecture in GRIDS else "onecycle"), architecture
    )


def _cells(arguments: argparse.Namespace) -> list[dict]:
    """What each cell has for itself, over the options that all have."""
    if arguments.bundle is None:
        return [{"seed": seed} for seed in arguments.seed]
    text = arguments.bundle
    try:
        text = text if text.lstrip().startswith("[") else Path(text).read_text(encoding="utf-8")
        cells = yaml.safe_load(text)
    except OSError as error:
        raise UserError(
            f"--bundle must be a YAML list like [{{seed: 0}}, {{seed: 1}}], or its file, however: {text[:200]!r}: {error.strerror}"
        ) from None
    except NOT_YAML:
        cells = None
    if (
        not isinstance(cells, list)
        or not cells
        or not all(isinstance(cell, dict) for cell in cells)
    ):
        raise UserError(
            f"--bundle must be a YAML list like [{{seed: 0}}, {{seed: 1}}], however: {text[:200]!r}"
        )
    for cell in cells:
        for key, value in cell.items():
            kind, in_words = CELL_KEYS[
                check_choice("key of a cell of --bundle", str(key), CELL_KEYS)
            ]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise UserError(
                    f"{key} of a cell of --bundle must be {in_words}, however: {value!r}"
                )
    if len(arguments.seed) > 1:
        raise UserError(
            f"seeds are given by --seed or in --bundle, not by both, however: {arguments.seed}"
        )
    return [{"seed": arguments.seed[0]} | cell for cell in cells]


def _specify(arguments: argparse.Namespace, origin: Origin | None) -> Asked:
    is_classical = arguments.architecture in GRIDS
    recipe = _recipe_of(vars(arguments))
    if arguments.layers is not None and (arguments.architecture or arguments.depth is not None):
        raise UserError(
            "a network is given by --architecture and --depth, or by --layers, not by both"
        )
    if (
        arguments.layers is None
        and not is_classical
        and not (arguments.architecture and arguments.depth is not None)
    ):
        raise UserError(
            "a network is given by --architecture and --depth, e.g. irnet and 17, or by --layers"
        )
    model = {"architecture": arguments.architecture, "depth": arguments.depth}
    if is_classical and arguments.init is not None:
        raise UserError(
            f"--init must be for a network, however: {arguments.architecture} has no weights to start with"
        )
    if is_classical and arguments.micro_batch is not None:
        raise UserError(
            f"--micro-batch must be for a network, however: {arguments.architecture} has no batches"
        )
    if is_classical and check_choice("data", arguments.data, PLACES) == "stream":
        raise UserError(
            f"--data stream must be for a network, however: {arguments.architecture} is fitted in memory"
        )
    pack_file = pack_path(arguments.pack, arguments.pack_dir)
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
    return Asked(spec, recipe, pack_file, origin)


def _recipe(text: str | dict, architecture: str | None) -> Recipe | Grid:
    if text == GRID:
        if architecture not in GRIDS:
            raise UserError(
                f"recipe {GRID} must be that of a classical model ({', '.join(GRIDS)}), and of no network"
            )
        return GRIDS[architecture]
    if isinstance(text, dict):
        return resolve(text)
    try:
        return resolve(yaml.safe_load(text) if text.lstrip().startswith("{") else text)
    except NOT_YAML:
        raise UserError(
            f"an inline recipe must be YAML like {{name: mine, base: paper}}, however: {text!r}"
        ) from None
