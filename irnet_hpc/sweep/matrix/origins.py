"""Read the key `init` of a matrix: the cells from whose weights other cells start, and their packs.

    init: [null, {pack: oqmd-magpie, property: formation_energy}]      # null: random weights
    init: [{pack: {name: big, source: big.csv}, property: band_gap, recipe: paper, train_rows: 50}]
    init: [null, pretrained:oqmd]                     # the network that ships with the package

The cell whose weights are used is called the origin. It has the same model and seed as the cell
that starts from it, and its pack has the same split, so it was not trained on any test formula of
that cell.

A network that ships with the package is no cell: it is trained already. A training that starts from
it is refused if the pack tests a formula that the network has seen.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.splits import RANDOM, SplitRule, rule_of_identity
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.runs.portable import PREFIX, SHIPPED, is_shipped, shipped_result
from irnet_hpc.runs.recipes import DEFAULT_RECIPE, Recipe, cannot_start, resolve
from irnet_hpc.runs.spec import PROTOCOLS, RunSpec, read_recipe, read_spec
from irnet_hpc.sweep.matrix.fields import check_keys, check_value
from irnet_hpc.sweep.matrix.pack_keys import over_splits, spelled_out
from irnet_hpc.sweep.matrix.packs import MatrixPack, PackDefaults, read_packs

# null and `all` both mean every row.
RowCount = Annotated[int | str | None, Meta(extra={"rule": "a whole number or `all`"})]


@dataclasses.dataclass(frozen=True)
class InitKeys:
    """The keys of an entry of `init`."""

    pack: Annotated[
        str | dict, Meta(description="the pack that the origin is trained on, as in `packs`")
    ]
    property: Annotated[str, Meta(description="the property that the origin is trained on")]
    recipe: Annotated[str | dict, Meta(description="the recipe of the origin, as in `recipes`")] = (
        "onecycle"
    )
    protocol: Annotated[str, Meta(description="the protocol of the origin")] = "honest"
    train_rows: Annotated[
        RowCount, Meta(description="the first training rows of the origin's pack")
    ] = "all"


@dataclasses.dataclass(frozen=True)
class Init:
    """An entry of `init`. An origin's other fields are those of the cell that starts from it."""

    # The name of the pack, without the suffix of a split.
    pack: str
    # The pack as written in the matrix, a name or a mapping, as JSON.
    pack_entry: str
    property: str
    recipe: Recipe
    # The value of `train --recipe`.
    recipe_option: str
    protocol: str
    train_rows: int | None

    def describe(self) -> str:
        """Return "pack/property" of the origin."""
        return f"{self.pack}/{self.property}"

    def spec(self, pack: str, cell: RunSpec) -> RunSpec:
        """Return the specification of the origin, trained on `pack`, from which `cell` starts."""
        return RunSpec(
            pack=pack,
            property=self.property,
            recipe=self.recipe.name,
            protocol=self.protocol,
            train_rows=self.train_rows,
            architecture=cell.architecture,
            depth=cell.depth,
            layers=cell.layers,
            seed=cell.seed,
        )


@dataclasses.dataclass(frozen=True)
class ShippedInit:
    """An entry of `init` that names a network of the package."""

    name: str  # as it is given to `train --init`, such as pretrained:oqmd
    model: RunSpec
    recipe: Recipe
    key: str
    features: str
    split: SplitRule | None

    def describe(self) -> str:
        """Return the name."""
        return self.name


def read_init(entry: dict | str) -> Init | ShippedInit:
    """Read an entry of `init`. Raises UserError, which lists the known keys, for an unknown key."""
    if isinstance(entry, str):
        return _read_shipped(entry)
    check_keys("key of init", entry, InitKeys)
    pack, name = entry.get("pack"), entry.get("property")
    check_value("pack of init", pack, str | dict)
    check_value("property of init", name, str)
    assert isinstance(pack, str | dict) and isinstance(name, str)
    written = entry.get("recipe", DEFAULT_RECIPE)
    option = written if isinstance(written, str) else json.dumps(written, ensure_ascii=False)
    recipe = resolve(written)
    if why := cannot_start(recipe, recipe.trained_layers, None):
        raise UserError(why)
    protocol = check_choice("protocol", str(entry.get("protocol", "honest")), PROTOCOLS)
    rows = row_count("train_rows of init", entry.get("train_rows", "all"))
    pack_name = spelled_out(pack).get("name")
    if not isinstance(pack_name, str):
        raise UserError(f"pack of init must have a name, got {pack!r:.80}")
    return Init(pack_name, json.dumps(pack), name, recipe, option, protocol, rows)


def _read_shipped(text: str) -> ShippedInit:
    """Read an entry of `init` that is text, which must name a network of the package."""
    if not is_shipped(text):
        names = ", ".join(PREFIX + name for name in SHIPPED)
        raise UserError(f"an entry of init must be a mapping, null or {names}, got {text!r:.80}")
    result = shipped_result(text.removeprefix(PREFIX))
    spec, identity = read_spec(result.spec), result.pack_identity
    recipe = read_recipe(spec, result.recipe)
    assert isinstance(recipe, Recipe)  # since it is a network
    split = rule_of_identity(identity["split"])
    return ShippedInit(text, spec, recipe, result.key, identity["features"], split)


def row_count(name: str, value: object) -> int | None:
    """Read a number of training rows. Returns None for `all` and null, which mean all rows."""
    if value in ("all", None):
        return None
    check_value(name, value, Annotated[int, Meta(extra={"rule": "a whole number or `all`"})])
    assert isinstance(value, int)
    return value


OriginPacks = dict[tuple[Init, str], MatrixPack]


def origin_packs(
    inits: Sequence[Init | ShippedInit | None],
    packs: Sequence[MatrixPack],
    pack_dir: Path | str | None,
) -> OriginPacks:
    """Find the pack that each origin is trained on.

    Returns:
        (init, name of a pack of the matrix) -> the origin's pack with the same split.
    """
    known = {pack.name: pack for pack in packs}
    found: OriginPacks = {}
    for init in (one for one in inits if isinstance(one, Init)):
        entry = json.loads(init.pack_entry)
        for target in packs:
            axes = split_axes(target)
            (first, *more) = over_splits(spelled_out(entry), axes)
            if more:
                raise UserError(
                    "pack of init must not state splits, since it has the split of the pack that "
                    f"starts from it, got {entry}"
                )
            name = first["name"]
            if name not in known or isinstance(entry, dict):
                (pack,) = read_packs(entry, PackDefaults((), axes, pack_dir))
                # The matrix has no other cells of an origin's pack than the origin.
                known.setdefault(pack.name, dataclasses.replace(pack, properties=()))
                if _how_built(pack) != _how_built(known[pack.name]):
                    raise UserError(f"duplicate pack name: {pack.name}")
            found[init, target.name] = known[name]
        units = {*PROPERTIES, *(unit for pack in known.values() for unit in pack.units)}
        for property_name in init.property.split(","):
            check_choice("property", property_name, units)
    return found


def split_axes(target: MatrixPack) -> dict[str, list]:
    """Return the split of a pack as the lists `split` and `split_seed`, for use by another pack.

    The result is empty if the pack has the default split, or if its source states the split.
    """
    if target.split is None:
        return {}
    seed, rule = target.split.seed, target.split._replace(seed=0)
    axes: dict[str, list] = {"split": [str(rule)]} if rule != RANDOM else {}
    return axes | ({"split_seed": [seed]} if seed else {})


def _how_built(pack: MatrixPack) -> tuple:
    """Return the settings that a pack is built with.

    An unstated split becomes the default split.
    """
    options = list(pack.options or ())
    for option in ("--split", "--split-seed"):
        if option in options:
            at = options.index(option)
            del options[at : at + 2]
    return tuple(options), pack.split


def _features_of(pack: MatrixPack) -> str:
    """Return the feature sets of a pack, whether or not it is built."""
    if pack.identity:
        return pack.identity["features"]
    options = pack.options or ()
    if "--features" in options:
        return options[options.index("--features") + 1]
    return "magpie"


def why_no_origin(init: Init, origin: MatrixPack, target: MatrixPack) -> tuple[str, str] | None:
    """Explain why no cell of pack `target` can start from `init` on pack `origin`.

    Returns:
        (product, reason); None if cells can start from the origin.
    """
    if origin.impossible:
        return f"{target.name} × init {init.describe()}", origin.impossible
    if not set(init.property.split(",")) <= origin.units.keys():
        has = "the pack has" if origin.exists else "its source may have"
        return f"init {origin.name} × {init.property}", f"{has} {', '.join(sorted(origin.units))}"
    target_features, origin_features = _features_of(target), _features_of(origin)
    if target_features != origin_features:
        return (
            f"{target.name} × init {init.describe()}",
            f"the features of {target.name} are {target_features}, "
            f"of {origin.name} {origin_features}",
        )
    return None


def why_not_shipped(init: ShippedInit, cell: RunSpec, target: MatrixPack) -> tuple[str, str] | None:
    """Explain why a cell cannot start from a network of the package.

    Returns:
        (product, reason); None if it can.
    """
    if init.model.layer_string.rpartition("-")[0] != cell.layer_string.rpartition("-")[0]:
        return f"{cell.model} × init {init.name}", f"{init.name} is {init.model.model}"
    if (features := _features_of(target)) != init.features:
        return (
            f"{target.name} × init {init.name}",
            f"the features of {target.name} are {features}, of {init.name} {init.features}",
        )
    return None


def notes_on_shipped(
    inits: Sequence[Init | ShippedInit | None], packs: Sequence[MatrixPack]
) -> list[str]:
    """Return a note for each pack that may test formulas which a network of the package has seen.

    Such a cell fails, with a sentence that counts these formulas.
    """
    return [
        f"pack {pack.name} has another split than {init.name}, so its cells fail if it tests a "
        "formula that this network has seen"
        for init in inits
        if isinstance(init, ShippedInit)
        for pack in packs
        if pack.split is None or pack.split != init.split
    ]


def notes_on_origins(found: OriginPacks, packs: Sequence[MatrixPack]) -> list[str]:
    """Return a note for each origin that may have been trained on test formulas of its cells."""
    splits = {pack.name: pack.split for pack in (*packs, *found.values())}
    pairs = dict.fromkeys((target, origin.name) for (_, target), origin in found.items())
    unlike = [
        f"packs {target} and {origin} have different splits, so the origin may have been trained "
        "on test formulas"
        for target, origin in pairs
        if splits[target] is None or splits[target] != splits[origin]
    ]
    papers = dict.fromkeys(init.describe() for init, _ in found if init.protocol == "paper")
    return unlike + [
        f"init {name} has protocol paper, so the origin was trained on val formulas and selected "
        "on test formulas"
        for name in papers
    ]
