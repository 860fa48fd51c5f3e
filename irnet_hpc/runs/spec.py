"""Specify a run, which is a cell of the matrix, and derive its key and folder.

    results/<pack>/<property>/<architecture>-<depth>/<recipe>/<variant>/seed<k>/
    <variant>: <protocol>[-n<rows>][-from-<key8>]

A classical model has no depth, so its folder is `<architecture>/grid/...`. folder.py lists the
files in a run's folder. This module imports neither torch nor h5py.
"""

import builtins
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irnet_hpc.errors import UserError, check_choice, check_whole
from irnet_hpc.files import NAME
from irnet_hpc.models.architectures import MODELS, custom_name, layer_string, parse_layers
from irnet_hpc.runs.classical_grids import GRID, GRIDS, Grid
from irnet_hpc.runs.pack_identity import without_content_hash
from irnet_hpc.runs.recipes import DEFAULT_RECIPE, REPLICA_FIELDS, Recipe

# Raised by hand when a change of the code makes the same specification give other numbers.
# tests/train/test_loop.py checks that this is not forgotten.
TRAINING_VERSION = 2
# The same for classical models: a change to the training of networks does not affect them.
GRID_VERSION = 2

# honest: select on val, and evaluate test once. paper: train on train + val, then select and report
# on test, as the published code does.
PROTOCOLS = ("honest", "paper")

MAX_NAME = 255  # the longest name of a folder, in bytes


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """A cell of the matrix. The constructor raises UserError if a value is not allowed."""

    pack: str  # name, e.g. oqmd-magpie
    # The name of the property; if a network predicts several, their names joined by commas, in the
    # order of the outputs. In this class it hides Python's decorator `property`.
    property: str
    architecture: str  # a key of MODELS, custom-<hash8>, or a classical model of GRIDS
    depth: int | None = None  # None: a classical model
    recipe: str = DEFAULT_RECIPE  # name
    protocol: str = "honest"
    seed: int = 0
    train_rows: int | None = None  # the first n rows that report the property; None: all
    start_from: str | None = None  # run_id of the run that the initial weights are from
    layers: str | None = None  # the layer string of a custom architecture

    def __post_init__(self) -> None:
        check_properties(self.property)
        for field in ("pack", "recipe"):
            if not NAME.fullmatch(str(getattr(self, field))):
                raise UserError(
                    f"{field} must be letters, digits and _.+=-, got {getattr(self, field)!r}"
                )
        check_choice("protocol", self.protocol, PROTOCOLS)
        for field in ("seed", "depth", "train_rows"):
            value = getattr(self, field)
            if type(value) is not int and (value is not None or field == "seed"):
                object.__setattr__(self, field, check_whole(field, value))
        if not 0 <= self.seed < 2**63:
            raise UserError(
                f"seed must be a whole number between 0 and 2**63 - 1, got {self.seed!r}"
            )
        if self.train_rows is not None and self.train_rows < 1:
            raise UserError(f"train_rows must be positive, got {self.train_rows}")
        # start_from becomes part of a folder's name, and anybody may have written the result read.
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
                f"architecture {self.architecture}-{self.depth} does not match layers "
                f"{self.layers!r}"
            )

    def _check_classical(self) -> None:
        if not self.is_classical or self.recipe != GRID:
            raise UserError(
                f"a classical model must have recipe {GRID}, and a network any other, got "
                f"{self.model} with recipe {self.recipe}"
            )
        if len(self.properties) > 1:
            raise UserError(
                f"{self.architecture} predicts one property, and only networks predict several, "
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
        """The names of the properties, one per output of the network; nearly always one."""
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
    """Split names joined by commas; raise UserError if a name is bad or repeated."""
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
            f"property becomes a folder's name, so it must have at most {MAX_NAME} letters, "
            f"got {len(text)}"
        )
    return names


def model_name(architecture: str, depth: int | None) -> str:
    """Join architecture and depth to one word, e.g. irnet-17."""
    return architecture if depth is None else f"{architecture}-{depth}"


# All architectures with a name of their own; custom layers have none.
ARCHITECTURES = (*MODELS, *GRIDS)


def known_architecture(name: str) -> str:
    """Return `name` if it is one of ARCHITECTURES, else raise UserError listing them."""
    if name == "ibrnet":
        raise UserError(
            "ibrnet is not an architecture: it is brnet-17 (architecture brnet, depth 17) with "
            "recipe ibrnet"
        )
    return check_choice("architecture", name, ARCHITECTURES)


def model_of(model: str) -> dict:
    """Return the fields of RunSpec for a model that is given in one word.

    The word is a name such as `irnet-17` or `random_forest`, or a layer string, which begins with a
    digit.
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
    """Return the folder of a run, which depends only on its specification."""
    return Path(results, run_name(spec))


def run_id(spec: RunSpec, recipe: Recipe) -> str:
    """Hash specification and recipe into the `start_from` of runs that start from this one.

    Unlike the key, this hash is known before any pack exists.
    """
    text = json.dumps([stated(spec), stated(recipe)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_key(
    spec: RunSpec, recipe: Recipe | Grid, pack_identity: dict, origin_key: str | None = None
) -> str:
    """Hash everything that decides the numbers of a run.

    The hash of the pack's content is left out, since features may differ in the last bit between
    machines. The other fields of the identity (the hash of the source, the feature versions, the
    filters and the split) already determine the content.

    Args:
        spec: The specification.
        recipe: The recipe of a network, or the grid of a classical model.
        pack_identity: The identity that is recorded in the pack.
        origin_key: The key of the run that this one starts from; None if there is none.
    """
    identity = without_content_hash(pack_identity)
    version = GRID_VERSION if spec.is_classical else TRAINING_VERSION
    parts = [stated(spec), stated(recipe), identity, version] + ([origin_key] if origin_key else [])
    return hashlib.sha256(
        json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()


def stated(record: RunSpec | Recipe | Grid) -> dict:
    """Return the fields whose values differ from their defaults.

    Keys hash only these fields. So if a field is added later, and its default means what the code
    did before, earlier results stay valid.
    """
    # Not asdict(), which copies: a matrix may have thousands of cells.
    neutral = defaults(record)
    return {name: value for name in neutral if (value := getattr(record, name)) != neutral[name]}


def defaults(record: RunSpec | Recipe | Grid) -> dict:
    """Return the default of each field; dataclasses.MISSING if the field has no default."""
    kind: Any = type(record)
    return dict(_defaults_of(kind))


@functools.cache
def _defaults_of(kind: Any) -> dict:
    return {
        field.name: field.default
        if field.default_factory is dataclasses.MISSING
        else field.default_factory()
        for field in dataclasses.fields(kind)
    }


def read_recipe(spec: RunSpec, value: dict) -> Recipe | Grid:
    """Read a result's recipe; raise UserError if a field is unknown or a value out of bounds.

    Fields that were added after the result was written get their defaults.
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
    """Return the type of each field of RunSpec."""
    return {field.name: field.type for field in dataclasses.fields(RunSpec)}


def read_spec(value: dict) -> RunSpec:
    """Read a RunSpec from JSON; raise UserError if a key is unknown or a type is wrong."""
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
    """Return the settings that cells of one pack must share to be trained as replicas in one stack.

    In addition, the same rows must report their properties; this is checked once the rows are read.
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
    """Raise UserError if networks cannot be trained together because their shapes differ."""
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
                f"cannot train {first.model} (recipe {its_recipe.name}) and {spec.model} "
                f"(recipe {recipe.name}) together: they differ in {', '.join(wrong)}; only the "
                f"seed, the property and the recipe's {', '.join(REPLICA_FIELDS)} may differ"
            )


def refuse_repeated(specs: Sequence[RunSpec]) -> None:
    """Raise UserError if a cell is given twice: both would write into the same folder."""
    for i, spec in enumerate(specs):
        if spec in specs[:i]:
            raise UserError(
                f"each cell must be given once, got {spec.property}, {spec.recipe}, "
                f"seed {spec.seed} twice"
            )
