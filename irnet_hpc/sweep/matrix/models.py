"""Read the keys `models` and `recipes` of a matrix, and find which combinations exist."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from irnet_hpc.errors import check_choice
from irnet_hpc.models.architectures import MODELS
from irnet_hpc.runs.classical_grids import GRID, GRIDS, Grid
from irnet_hpc.runs.recipes import DEFAULT_RECIPE, Recipe, cannot_start, resolve
from irnet_hpc.runs.spec import known_architecture, model_name, model_of
from irnet_hpc.sweep.matrix.fields import check_keys, entries_of
from irnet_hpc.sweep.matrix.keys import MatrixKeys, ModelKeys
from irnet_hpc.sweep.matrix.origins import Init, ShippedInit


class ModelEntry(NamedTuple):
    """A model of the matrix: fields of RunSpec."""

    architecture: str
    # None: a classical model.
    depth: int | None
    # The layer string of a custom architecture.
    layers: str | None = None

    @property
    def is_classical(self) -> bool:
        """True for a model without layers."""
        return self.architecture in GRIDS

    @property
    def name(self) -> str:
        """The architecture and the depth in one word."""
        return model_name(self.architecture, self.depth)


@dataclasses.dataclass(frozen=True)
class RecipeEntry:
    """A recipe of the matrix."""

    name: str
    # None: the grid of classical models, which depends on the model.
    recipe: Recipe | None
    # The value of `train --recipe`: a name, or the inline recipe as JSON.
    option: str

    def of(self, model: ModelEntry) -> Recipe | Grid:
        """Return this recipe, or for a classical model the grid of that model."""
        return self.recipe or GRIDS[model.architecture]


class Combination(NamedTuple):
    """The parts of a cell other than its pack, property, protocol and seed."""

    recipe: RecipeEntry
    # The number of first training rows; None: all rows.
    train_rows: int | None
    # The origin; None: random weights.
    init: Init | ShippedInit | None
    model: ModelEntry


def read_models(entries: Sequence) -> tuple[list[ModelEntry], list[tuple[str, str]]]:
    """Read the entries of `models`.

    Returns:
        The models without repetitions, and (product, reason) for each model that does not exist.
    """
    models: dict[ModelEntry, None] = {}
    absent = []
    for entry in entries:
        if isinstance(entry, str):
            models[ModelEntry(**model_of(entry))] = None
            continue
        check_keys("key of a model", entry, ModelKeys)
        architectures = entries_of(entry, ModelKeys, "architectures")
        for architecture in architectures:
            known_architecture(architecture)
            if architecture in GRIDS:
                models[ModelEntry(architecture, None)] = None
        networks = [architecture for architecture in architectures if architecture not in GRIDS]
        for architecture, depth in itertools.product(networks, _depths(entry, networks)):
            if depth in MODELS[architecture]:
                models[ModelEntry(architecture, depth)] = None
            else:
                known = ", ".join(map(str, MODELS[architecture]))
                absent.append((f"{architecture} × {depth}", f"{architecture} has depths {known}"))
    return list(models), absent


def _depths(entry: Mapping, networks: Sequence[str]) -> list[int]:
    """Read `depths`, which is required only for networks.

    A single number counts as a list of one.
    """
    if not networks and "depths" not in entry:
        return []
    stated = entry.get("depths")
    stated = [stated] if type(stated) is int else stated
    depths = entries_of({"depths": stated}, ModelKeys, "depths")
    known = {str(depth) for depths in MODELS.values() for depth in depths}
    for depth in depths:
        check_choice("depth", str(depth), known)
    return depths


def read_recipes(table: Mapping, models: Sequence[ModelEntry]) -> list[RecipeEntry]:
    """Read `recipes`, which are those of networks.

    Classical models always have recipe `grid`, which comes last unless the key names it.
    """
    recipes = []
    for entry in entries_of(table, MatrixKeys, "recipes", [DEFAULT_RECIPE]):
        if entry == GRID:
            recipes.append(RecipeEntry(GRID, None, GRID))
        else:
            recipe = resolve(entry)
            option = entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)
            recipes.append(RecipeEntry(recipe.name, recipe, option))
    names_grid = any(recipe.recipe is None for recipe in recipes)
    if any(model.is_classical for model in models) and not names_grid:
        recipes.append(RecipeEntry(GRID, None, GRID))
    return recipes


def note_on_recipes(
    recipes: Sequence[RecipeEntry], models: Sequence[ModelEntry], is_stated: bool
) -> list[str]:
    """Return a note on the stated recipes that no model of the matrix can have.

    Args:
        recipes: The recipes of the matrix.
        models: Its models.
        is_stated: True if the matrix has the key `recipes`; defaults need no note.
    """
    kinds = {model.is_classical for model in models}
    idle = [recipe.name for recipe in recipes if (recipe.recipe is None) not in kinds]
    if not idle or not is_stated:
        return []
    missing = "classical model" if GRID in idle else "network"
    return [f"recipes has {', '.join(idle)} without effect: no model of the matrix is a {missing}"]


def why_absent(combination: Combination) -> tuple[str, str] | None:
    """Explain why a combination does not exist.

    Returns:
        (product, reason); None if the combination exists.
    """
    recipe, train_rows, init, model = combination
    start = f"init {init.describe() if init else 'null'}"
    if init and model.is_classical:
        return f"{model.name} × {start}", f"{model.architecture} has no weights to start with"
    if recipe.recipe:
        origin = init.recipe if init else None
        if reason := cannot_start(recipe.recipe, model.depth or 0, origin):
            return f"{model.name} × {recipe.name} × {start}", reason
        return None
    max_rows = GRIDS[model.architecture].max_rows
    if max_rows and (train_rows or 0) > max_rows:
        product = f"{model.name} × {train_rows:,} rows"
        return product, f"{model.architecture} takes at most {max_rows:,}"
    return None
