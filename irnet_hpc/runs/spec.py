"""Specify a run, a cell of the matrix, and derive its key and its folder from that.

    results/<pack>/<property>/<architecture>-<depth>/<recipe>/<variant>/seed<k>/
    <variant>: <protocol>[-n<rows>][-from-<key8>]

A classical model has no depth, so its folder is `<architecture>/grid/...`. folder.py lists the
files in it. Imports neither torch nor h5py.
"""

import builtins
import dataclasses
import functools
import hashlib
import json
import numbers
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME
from irnet_hpc.models.architectures import MODELS, custom_name, layer_string, parse_layers
from irnet_hpc.runs.classical_grids import GRID, GRIDS, Grid
from irnet_hpc.runs.pack_identity import without_content_hash
from irnet_hpc.runs.recipes import DEFAULT_RECIPE, REPLICA_FIELDS, Recipe

# Raised by hand when a change makes the same specification give other numbers;
# tests/train/test_loop.py guards it.
TRAINING_VERSION = 1
# The same for classical models, which a change to the training of networks leaves as they are.
GRID_VERSION = 1

# honest: select on val, touch test once. paper: train on train + val, select and report on test,
# as the published code does.
PROTOCOLS = ("honest", "paper")

MAX_NAME = 255  # most bytes in the name of a folder


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """A cell of the matrix. Making one raises UserError if a value is not allowed."""

    pack: str  # name, e.g. oqmd-magpie
    # A name; of a network for several their names joined by commas, in the order of its outputs.
    # It hides the decorator of that name in this class.
    property: str
    architecture: str  # a key of MODELS, custom-<hash8>, or a classical model of GRIDS
    depth: int | None = None  # None: a classical model
    recipe: str = DEFAULT_RECIPE  # name
    protocol: str = "honest"
    seed: int = 0
    train_rows: int | None = None  # the first n rows that report the property; None: all
    start_from: str | None = None  # run_id of the run whose weights it starts from
    layers: str | None = None  # the layer string of a custom architecture

    def __post_init__(self) -> None:
        check_properties(self.property)
        for field in ("pack", "recipe"):
            if not NAME.fullmatch(str(getattr(self, field))):
                raise UserError(
                    f"{field} must be letters, digits and _.+=-, got {getattr(self, field)!r}"
                )
        check_choice("protocol", self.protocol, PROTOCOLS)
        if not isinstance(self.seed, numbers.Integral) or not 0 <= self.seed < 2**63:
            raise UserError(
                f"seed must be a whole number between 0 and 2**63 - 1, got {self.seed!r}"
            )
        if self.train_rows is not None and self.train_rows < 1:
            raise UserError(f"train_rows must be positive, got {self.train_rows}")
        # It becomes part of a folder's name, and a result that is read may be anybody's.
        if self.start_from is not None and not re.fullmatch("[0-9a-f]{16}", self.start_from):
            raise UserError(
                f"start_from must be the 16 hexadecimal digits of a run, got {self.start_from!r}"
            )
        if self.is_classical or self.recipe == GRID:
            self._check_classical()
        elif self.layers is None:
            known_architecture(self.architecture)
            # It refuses None.
            layer_string(self.architecture, self.depth)  # type: ignore[arg-type]
        elif (self.architecture, self.depth) != (
            custom_name(self.layers),
            parse_layers(self.layers).depth,
        ):
            raise UserError(
                f"architecture {self.architecture}-{self.depth} is not that of layers "
                f"{self.layers!r}"
            )

    def _check_classical(self) -> None:
        if not self.is_classical or self.recipe != GRID:
            raise UserError(
                f"recipe {GRID} must be that of a classical model and of no network, got "
                f"{self.recipe} and {self.model}"
            )
        if len(self.properties) > 1:
            raise UserError(
                f"{self.architecture} predicts one property, and only networks several, "
                f"got {self.property}"
            )
        for field in ("depth", "start_from", "layers"):
            if getattr(self, field) is not None:
                raise UserError(f"{self.architecture} has no {field}, got {getattr(self, field)}")
        max_rows, train_rows = GRIDS[self.architecture].max_rows, self.train_rows or 0
        if max_rows and train_rows > max_rows:
            raise UserError(
                f"train_rows of {self.architecture} must be at most {max_rows:,}, "
                f"got {train_rows:,}; without train_rows it is fitted on the first {max_rows:,}"
            )

    @builtins.property
    def is_classical(self) -> bool:
        """True for a model of GRIDS, which has neither layers nor epochs."""
        return self.architecture in GRIDS

    @builtins.property
    def properties(self) -> tuple[str, ...]:
        """The names of the properties, one an output; nearly always one."""
        return tuple(self.property.split(","))

    @builtins.property
    def layer_string(self) -> str:
        """The layers of the network."""
        # It refuses None.
        return self.layers or layer_string(self.architecture, self.depth)  # type: ignore[arg-type]

    @builtins.property
    def model(self) -> str:
        """Architecture and depth in one word, e.g. irnet-17, the name of folders and columns."""
        return model_name(self.architecture, self.depth)


def check_properties(text: str) -> tuple[str, ...]:
    """Split one property, or several joined by commas; UserError for a bad or repeated name."""
    names = tuple(str(text).split(","))
    for name in names:
        if not NAME.fullmatch(name):
            raise UserError(
                "property must be letters, digits and _.+=-, or several such names joined by "
                f"commas, got {text!r}"
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"property must name each property once, got {', '.join(twice)} twice in {text!r}"
        )
    if len(str(text)) > MAX_NAME:
        raise UserError(
            f"property must be at most {MAX_NAME} letters, a folder's name, got {len(text)}"
        )
    return names


def model_name(architecture: str, depth: int | None) -> str:
    """Join architecture and depth to one word, e.g. irnet-17."""
    return architecture if depth is None else f"{architecture}-{depth}"


# All names that a model can have, except those of a user's own layers.
ARCHITECTURES = (*MODELS, *GRIDS)


def known_architecture(name: str) -> str:
    """Return `name` if it is one of ARCHITECTURES, else raise UserError listing them."""
    if name == "ibrnet":
        raise UserError(
            "ibrnet is no architecture of its own: it is brnet-17 trained with recipe ibrnet"
        )
    return check_choice("architecture", name, ARCHITECTURES)


def model_of(model: str) -> dict:
    """Return RunSpec's fields for a model in one word.

    It is one such as `irnet-17` or `random_forest`, or a layer string, which begins with a digit.
    """
    if model in GRIDS:
        return {"architecture": model, "depth": None}
    architecture, _, depth = model.rpartition("-")
    if architecture in MODELS and re.fullmatch("[0-9]{1,9}", depth):
        return {"architecture": architecture, "depth": int(depth)}
    if not model[:1].isdigit():
        known_architecture(architecture or model)
        raise UserError(
            f"model {model!r} must be ARCHITECTURE-DEPTH, e.g. irnet-17, a classical model, or a "
            "layer string"
        )
    return {"architecture": custom_name(model), "depth": parse_layers(model).depth, "layers": model}


def run_name(spec: RunSpec) -> str:
    """Name a run by the path of its folder below the results."""
    variant = spec.protocol
    if spec.train_rows is not None:
        variant += f"-n{spec.train_rows}"
    if spec.start_from is not None:
        variant += f"-from-{spec.start_from[:8]}"
    return f"{spec.pack}/{spec.property}/{spec.model}/{spec.recipe}/{variant}/seed{spec.seed}"


def run_folder(results: Path | str, spec: RunSpec) -> Path:
    """Return the folder of a run: readable by a person, and a function of its spec alone."""
    return Path(results, run_name(spec))


def run_id(spec: RunSpec, recipe: Recipe) -> str:
    """Hash specification and recipe into the `start_from` of runs that start from this one.

    Unlike the key it is known before any pack exists.
    """
    text = json.dumps([stated(spec), stated(recipe)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_key(
    spec: RunSpec, recipe: Recipe | Grid, pack_identity: dict, origin_key: str | None = None
) -> str:
    """Hash everything that decides the numbers of a run.

    The hash of the pack's content is left out: features may differ in the last bit between
    machines, and the hash of the source, the feature versions, the filters and the split already
    decide what a pack holds.

    Args:
        spec: The specification.
        recipe: The recipe of a network, or the grid of a classical model.
        pack_identity: The identity that the pack states.
        origin_key: The key of the result that the run starts from, if it starts from one.
    """
    identity = without_content_hash(pack_identity)
    version = GRID_VERSION if spec.is_classical else TRAINING_VERSION
    parts = [stated(spec), stated(recipe), identity, version] + ([origin_key] if origin_key else [])
    return hashlib.sha256(
        json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()


def stated(record: RunSpec | Recipe | Grid) -> dict:
    """Return the fields that are not at their defaults.

    Keys hash these alone, so that a field added later, whose default is what was always done,
    leaves every result valid.
    """
    # Not asdict(), which copies: a matrix may have thousands of cells.
    neutral = defaults(record)
    return {name: value for name in neutral if (value := getattr(record, name)) != neutral[name]}


def defaults(record: RunSpec | Recipe | Grid) -> dict:
    """Return the default of each field; dataclasses.MISSING if it has none."""
    return {
        field.name: field.default
        if field.default_factory is dataclasses.MISSING
        else field.default_factory()
        for field in dataclasses.fields(record)
    }


def read_recipe(spec: RunSpec, value: dict) -> Recipe | Grid:
    """Read the recipe of a result; UserError for unknown fields or values out of bounds.

    Fields that were added after the result was written have their defaults.
    """
    kind = Grid if spec.is_classical else Recipe
    if not isinstance(value, dict):
        raise UserError(f"a recipe must be an object, got {value!r:.80}")
    known = kind.__dataclass_fields__.keys()
    for name in value.keys() - known:
        check_choice("field of a recipe", name, known)
    try:
        return kind(**value)
    except TypeError as error:
        raise UserError(f"a recipe is incomplete: {error}") from None


@functools.cache
def _types_of_spec() -> dict[str, Any]:
    """Return field -> type of a RunSpec."""
    return {field.name: field.type for field in dataclasses.fields(RunSpec)}


def read_spec(value: dict) -> RunSpec:
    """Read a RunSpec from JSON; UserError for unknown keys and for values of another type."""
    if not isinstance(value, dict):
        raise UserError(f"a run's specification must be an object, got {value!r:.80}")
    types = _types_of_spec()
    for name, given in value.items():
        kind = types[check_choice("key of a run", name, types)]
        if isinstance(given, bool) or not isinstance(given, kind):
            raise UserError(
                f"{name} must be of type {getattr(kind, '__name__', kind)}, got {given!r}"
            )
    try:
        return RunSpec(**value)
    except TypeError as error:
        raise UserError(f"a run's specification is incomplete: {error}") from None


def shape_of(spec: RunSpec, recipe: Recipe) -> tuple:
    """Return the properties that cells of one pack must share to be replicas of one stack.

    Whether they report the same rows is known only once the rows are read.
    """
    common = tuple(
        value for name, value in dataclasses.asdict(recipe).items() if name not in REPLICA_FIELDS
    )
    return (
        spec.pack,
        spec.layer_string,
        len(spec.properties),
        spec.protocol,
        spec.train_rows,
        spec.start_from,
        common,
    )


def refuse_mixed(cells: Sequence[tuple[RunSpec, Recipe]]) -> None:
    """Raise UserError if networks that are to be trained together have several shapes."""
    (first, its_recipe), shape = cells[0], shape_of(*cells[0])
    for spec, recipe in cells:
        if shape_of(spec, recipe) != shape:
            differing = [
                name for name, value in vars(recipe).items() if value != vars(its_recipe)[name]
            ]
            wrong = [name for name in differing if name not in REPLICA_FIELDS] or [
                "the number of properties"
            ]
            raise UserError(
                "cells that are trained together may differ in the seed, the property and the "
                f"recipe's {', '.join(REPLICA_FIELDS)}, got {spec.model} by recipe {recipe.name} "
                f"and {first.model} by {its_recipe.name}, which differ in {', '.join(wrong)}"
            )


def refuse_repeated(specs: Sequence[RunSpec]) -> None:
    """Raise UserError if a cell is there twice, since both would write into one folder."""
    for i, spec in enumerate(specs):
        if spec in specs[:i]:
            raise UserError(
                f"a cell must be there once, got {spec.property}, {spec.recipe}, "
                f"seed {spec.seed} twice"
            )
