"""The key `init` of a matrix: the trained cells that others start from, and the packs that those are trained on.

    init: [null, {pack: oqmd-magpie, property: formation_energy}]      # null: from nothing
    init: [{pack: {name: big, source: big.csv}, property: band_gap, recipe: paper, protocol: honest, train_rows: 5000}]

An origin has the model and the seed of the cell that starts from it, and its pack the split of that cell's pack: then no
test formula of the one has trained the other.
"""

import dataclasses
import json

from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.splits import RANDOM
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.runs.recipes import Recipe, cannot_start, resolve
from irnet_hpc.runs.spec import PROTOCOLS, RunSpec
from irnet_hpc.sweep.matrix.packs import MatrixPack, over_splits, read_packs, spelled_out
from irnet_hpc.sweep.matrix.yaml_file import entries_of, row_counts


@dataclasses.dataclass(frozen=True)
class Init:
    """An entry of `init`: a cell, but for what it has from those that start from it."""

    pack: str  # name, before that of a split is added
    pack_entry: str  # as JSON: the pack as it is written, a name or a mapping
    property: str
    recipe: Recipe
    recipe_option: str  # what `train --recipe` takes
    protocol: str
    train_rows: int | None

    @property
    def name(self) -> str:
        return f"{self.pack}/{self.property}"

    def spec(self, pack: str, cell: RunSpec) -> RunSpec:
        """The run on `pack` that `cell` starts from."""
        model = {name: getattr(cell, name) for name in ("architecture", "depth", "layers", "seed")}
        mine = {"property": self.property, "protocol": self.protocol, "train_rows": self.train_rows}
        return RunSpec(pack=pack, recipe=self.recipe.name, **mine, **model)


def read_inits(table: dict) -> list[Init | None]:
    """The entries of `init`; None is a start from nothing. Unknown keys fail, listing the known."""
    return [
        entry and _read(entry)
        for entry in entries_of(table, "init", (dict, type(None)), default=[None])
    ]


def _read(entry: dict) -> Init:
    for key in entry:
        check_choice("key of init", key, ("pack", "property", "recipe", "protocol", "train_rows"))
    (pack,) = entries_of({"pack of init": [entry.get("pack")]}, "pack of init", (str, dict))
    (name,) = entries_of({"property of init": [entry.get("property")]}, "property of init", (str,))
    written = entry.get("recipe", "onecycle")
    option, recipe = (
        written if isinstance(written, str) else json.dumps(written, ensure_ascii=False),
        resolve(written),
    )
    if why := cannot_start(recipe, recipe.trained_layers, None):
        raise UserError(why)
    protocol = check_choice("protocol", str(entry.get("protocol", "honest")), PROTOCOLS)
    (rows,) = row_counts("train_rows of init", [entry.get("train_rows", "all")])
    pack_name = spelled_out(pack).get("name")
    if not isinstance(pack_name, str):
        raise UserError(f"pack of init must have a name, however: {pack!r}")
    return Init(pack_name, json.dumps(pack), name, recipe, option, protocol, rows)


def origin_packs(
    inits: list[Init | None], packs: list[MatrixPack], pack_dir: object
) -> dict[tuple[Init, str], MatrixPack]:
    """(init, name of a pack of the matrix) -> the pack of the origin from which its cells start."""
    known = {pack.name: pack for pack in packs}
    found = {}
    for init in filter(None, inits):
        entry = json.loads(init.pack_entry)
        for target in packs:
            axes = split_of(target)
            (one, *more) = over_splits(spelled_out(entry), axes)
            if more:
                raise UserError(
                    f"pack of init must have one split, that of the pack that starts from it, however: {entry}"
                )
            if one["name"] not in known or isinstance(entry, dict):
                (read,) = read_packs(entry, [], pack_dir, axes)
                # Of an origin's pack the matrix wants no cells but the origin's.
                known.setdefault(read.name, dataclasses.replace(read, properties=()))
                if _how(read) != _how(known[read.name]):
                    raise UserError(
                        f"packs must have different names, however: {read.name} stands for two of them"
                    )
            found[init, target.name] = known[one["name"]]
        units = {*PROPERTIES, *(name for pack in known.values() for name in pack.units)}
        for name in init.property.split(","):
            check_choice("property", name, units)
    return found


def split_of(target: MatrixPack) -> dict[str, list]:
    """The split of a pack as axes of another one's, which is named for it as any pack is; nothing where it is the usual, or a
    table's own."""
    if target.split is None:
        return {}
    seed, by = target.split.seed, target.split._replace(seed=0)
    return ({"split": [str(by)]} if by != RANDOM else {}) | ({"split_seed": [seed]} if seed else {})


def _how(pack: MatrixPack) -> tuple:
    """How a pack is built, whether or not what is usual of its split is said."""
    options = list(pack.options or ())
    for option in ("--split", "--split-seed"):
        if option in options:
            at = options.index(option)
            del options[at : at + 2]
    return tuple(options), pack.split


def _option(pack: MatrixPack, name: str, default: str) -> str:
    options = pack.options or ()
    return options[options.index(name) + 1] if name in options else default


def absent(init: Init, origin: MatrixPack, target: MatrixPack) -> tuple[str, str] | None:
    """(product, reason) where no cell of pack `target` can start from the init on pack `origin`; None where it can."""
    if origin.impossible:
        return f"{target.name} × init {init.name}", origin.impossible
    if not set(init.property.split(",")) <= origin.units.keys():
        has = "the pack has" if origin.exists else "its source may have"
        return f"init {origin.name} × {init.property}", f"{has} {', '.join(sorted(origin.units))}"
    ours, theirs = (
        pack.identity["features"] if pack.identity else _option(pack, "--features", "magpie")
        for pack in (target, origin)
    )
    if ours != theirs:
        return (
            f"{target.name} × init {init.name}",
            f"the features of {target.name} are {ours}, of {origin.name} {theirs}",
        )
    return None


def notes_on(found: dict[tuple[Init, str], MatrixPack], packs: list[MatrixPack]) -> list[str]:
    """Where an origin may have been trained on formulas that test the cells that start from it."""
    splits = {pack.name: pack.split for pack in (*packs, *found.values())}
    pairs = dict.fromkeys((target, origin.name) for (_, target), origin in found.items())
    unlike = [
        f"packs {target} and {origin} are not split alike, so the origin may have been trained on test formulas"
        for target, origin in pairs
        if splits[target] is None or splits[target] != splits[origin]
    ]
    papers = dict.fromkeys(init.name for init, _ in found if init.protocol == "paper")
    return unlike + [
        f"init {name} is of protocol paper, so test formulas have selected the origin, and val ones trained it"
        for name in papers
    ]
