"""Matrices: YAML files that name packs × properties × models × recipes × protocols × seeds (× splits), read and checked into
cells.

    packs: [oqmd-magpie, {name: mine, source: my.csv, features: magpie, properties: [band_gap]}]
    properties: [formation_energy, band_gap]          # or all; a pack's own list comes before this one
               # [band_gap, "band_gap,volume_per_atom"]: in quotes, several names are one network with an output each
    models: [irnet-17, 64BARx2-1, {architectures: [plain, irnet], depths: [10, 48]}, random_forest]
    recipes: [paper, {name: mine, base: paper, batch: 64}, grid]    # grid: of classical models, and of no network
    protocols: [honest]
    seeds: [0, 1, 2]
    split_seeds: [0, 1]                               # packs NAME and NAME-split1; a pack's own list comes before this one
    splits: [random, element:O, family:halogens]      # NAME, NAME-element_O, ...; `families`: each family in turn
    train_rows: [1000, all]                           # nested: the first so many; all: every one
    init: [null, {pack: oqmd-magpie, property: formation_energy}]   # what cells start from: see matrix_origins.py
    resources:                                        # of one cell; with `for`, of some cells, the last that fits
      - {nodes: 1, ranks_per_node: 2, cpus_per_rank: 1, gpus_per_rank: 0, memory_gb: 8, minutes: 60}
      - {for: {depth: 48}, minutes: 240, stage_dir: auto}   # where nodes keep a copy of the pack: auto, or a path
    pack_resources: {cpus_per_rank: 4, memory_gb: 16, minutes: 120}
    retry: {memory_gb: 64, minutes: 480}              # out of memory or time: once more with twice as much, but no more than
                                                      # this; without the key twice as much, whatever that is; false: never
    budget_device_hours: 100

Only packs, properties and models have no default. Nothing here imports torch or a source: planning is instant.
"""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME
from irnet_hpc.models.architectures import MODELS
from irnet_hpc.runs.grids import GRID, GRIDS, Grid
from irnet_hpc.runs.recipes import Recipe, cannot_start, resolve
from irnet_hpc.runs.spec import PROTOCOLS, RunSpec, known_architecture, model_name, model_of, run_id
from irnet_hpc.sweep.matrix.origins import Init, absent, notes_on, origin_packs, read_inits
from irnet_hpc.sweep.matrix.packs import MatrixPack, axes_of, read_packs, targets_of
from irnet_hpc.sweep.matrix.resources import (
    Resources,
    Retry,
    read_resources,
    read_retry,
    read_shapes,
    resources_of,
    unused,
)
from irnet_hpc.sweep.matrix.yaml_file import entries_of, load_yaml, mapping, row_counts

MAX_CELLS = 1_000_000  # a product beyond this is a slip of the pen, and would fill the memory


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training of the matrix."""

    spec: RunSpec
    recipe: Recipe | Grid
    recipe_option: str  # what `train --recipe` takes: a name, or the inline recipe as JSON
    resources: Resources
    origin: "Cell | None" = None  # the one that it starts from, which is a cell of the matrix, too


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A product that does not exist."""

    product: str
    reason: str
    n_cells: int


@dataclasses.dataclass(frozen=True)
class Matrix:
    path: Path
    name: str
    packs: tuple[MatrixPack, ...]
    cells: tuple[Cell, ...]
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]  # what could not be checked, or has no effect
    pack_resources: Resources
    budget_device_hours: float | None
    retry: Retry | None  # None: nothing is tried again


def read_matrix(path: Path | str, pack_dir: Path | str | None = None) -> Matrix:
    """Read and check a matrix. Raises UserError naming the file, the key and the choices."""
    path = Path(path)
    try:
        return _matrix(path, load_yaml(path), pack_dir)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


KEYS = {
    *(
        "packs",
        "properties",
        "models",
        "recipes",
        "protocols",
        "seeds",
        "split_seeds",
        "splits",
        "train_rows",
        "init",
    ),
    *("resources", "pack_resources", "retry", "budget_device_hours"),
}


def _matrix(path: Path, table: dict, pack_dir: Path | str | None) -> Matrix:
    for key in table:
        check_choice("key", key, KEYS)
    if not NAME.fullmatch(path.stem):
        raise UserError(
            f"the name of a matrix must be letters, digits and _.+=-, however: {path.stem!r}"
        )
    entries = entries_of(table, "packs", (str, dict))
    # Each pack may have its own list of properties; where all do, the matrix needs none.
    needs_list = not all(isinstance(entry, dict) and "properties" in entry for entry in entries)
    asked = entries_of(table, "properties", (str,)) if needs_list or "properties" in table else []
    axes = axes_of(table)
    packs = [pack for entry in entries for pack in read_packs(entry, asked, pack_dir, axes)]
    # As with seeds, one split of everything comes before the second.
    packs.sort(key=lambda pack: pack.split.seed if pack.split and pack.name != pack.base else 0)
    _refuse_two_of_one_name("packs", [pack.name for pack in packs])
    models, absent_models = _models(entries_of(table, "models", (str, dict)))
    recipes = _recipes(table, models)
    _refuse_two_of_one_name("recipes", [name for name, _, _ in recipes])
    protocols = entries_of(table, "protocols", (str,), default=["honest"])
    for protocol in protocols:
        check_choice("protocol", protocol, PROTOCOLS)
    seeds = entries_of(table, "seeds", (int,), default=[0], lists_only=True)
    train_rows = row_counts("train_rows", table.get("train_rows", ["all"]))
    inits = read_inits(table)
    targets, absent_targets, notes = targets_of(packs)
    packs = [pack for pack in packs if not pack.impossible]
    begins = origin_packs(inits, packs, pack_dir)  # (init, pack) -> the pack of the origin

    asked = list(itertools.product(recipes, train_rows, inits, models))
    if (
        "recipes" not in table
    ):  # then each model has its own default, and nobody has asked for another
        asked = [
            product
            for product in asked
            if (product[-1]["architecture"] in GRIDS) == (product[0][0] == GRID)
        ]
    products = [product for product in asked if not _absent(*product)]
    n_seeds, n_networks = len(protocols) * len(seeds), sum(name != GRID for name, _, _ in recipes)
    n_cells = len(targets) * len(products) * n_seeds
    if n_cells > MAX_CELLS:
        raise UserError(f"a matrix must have at most {MAX_CELLS:,} cells, however: {n_cells:,}")
    n_variants = (
        n_networks * len(train_rows) * len(inits) * n_seeds
    )  # of a depth that an architecture lacks
    dropped = [Dropped(product, why, len(targets) * n_variants) for product, why in absent_models]
    n_classical = sum(name == GRID for (name, _, _), *_ in products)
    for product, why in absent_targets:
        n_products = len(products) - (n_classical if "," in product else 0)
        dropped.append(Dropped(product, why, n_products * n_seeds))
    dropped += _dropped(asked, len(targets) * n_seeds)
    for pack, name in targets:
        if "," in name and n_classical:
            why = "classical models predict one property each"
            dropped.append(Dropped(f"{pack} × {name} × {GRID}", why, n_classical * n_seeds))

    shapes = read_shapes(table.get("resources", {}))
    cells, by_name, lost = {}, {pack.name: pack for pack in packs}, Counter()
    # One seed of everything comes before the second, so that an unfinished matrix is a whole table with fewer seeds.
    for seed, rows, (pack, name), of_recipe, protocol, init, model in itertools.product(
        seeds, train_rows, targets, recipes, protocols, inits, models
    ):
        recipe_name, recipe, option = of_recipe
        if _absent(of_recipe, rows, init, model) or (recipe_name == GRID and "," in name):
            continue
        spec = RunSpec(
            pack=pack,
            property=name,
            recipe=recipe_name,
            protocol=protocol,
            seed=seed,
            train_rows=rows,
            **model,
        )
        recipe, origin = recipe or GRIDS[spec.architecture], None
        if init:
            if why := absent(init, begins[init, pack], by_name[pack]):
                lost[why] += 1
                continue
            of_origin = init.spec(begins[init, pack].name, spec)
            origin = Cell(
                of_origin, init.recipe, init.recipe_option, resources_of(of_origin, shapes)
            )
            _add(cells, origin)
            spec = dataclasses.replace(spec, start_from=run_id(of_origin, init.recipe))
        _add(cells, Cell(spec, recipe, option, resources_of(spec, shapes), origin))
    dropped += [Dropped(product, why, count) for (product, why), count in lost.items()]
    cells = list(cells.values())
    more = {
        pack.name: pack
        for pack in begins.values()
        if pack.name not in by_name and not pack.impossible
    }
    packs += more.values()
    notes += notes_on(begins, packs)
    notes += _over_ranks(cells)
    notes += unused(shapes, [cell.spec for cell in cells])
    pack_resources = read_resources(
        {"minutes": 120} | mapping(table.get("pack_resources", {}), "pack_resources")
    )
    if pack_resources.n_ranks != 1:
        raise UserError(f"pack_resources must be of one rank, however: {pack_resources.n_ranks}")
    if pack_resources.stage_dir:
        raise UserError(
            f"stage_dir must be among resources: it is for who reads packs, however: {pack_resources.stage_dir}"
        )
    retry = read_retry(table.get("retry", {}))
    found = (tuple(packs), tuple(cells), tuple(dropped), tuple(notes))
    return Matrix(path, path.stem, *found, pack_resources, _budget(table), retry)


def _add(cells: dict[RunSpec, Cell], cell: Cell) -> None:
    """Add a cell where it is not yet there: an origin has several that start from it, and may be a cell by itself."""
    other = cells.setdefault(cell.spec, cell)
    if other.recipe != cell.recipe:
        raise UserError(
            f"recipes must have different names, however: {cell.spec.recipe} stands for two of them"
        )


def _refuse_two_of_one_name(key: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"{key} must have different names, however: {', '.join(twice)} stands for two of them"
        )


def _recipes(table: dict, models: list[dict]) -> list[tuple[str, Recipe | None, str]]:
    """(name, recipe, option of `train`) of each; the recipe of `grid` depends on the model. Without the key, each kind of
    model that there is has its own default."""
    kinds = {model["architecture"] in GRIDS for model in models}
    default = [
        name for name, is_classical in (("onecycle", False), (GRID, True)) if is_classical in kinds
    ]
    recipes = []
    for entry in entries_of(table, "recipes", (str, dict), default=default or ["onecycle"]):
        if entry == GRID:
            recipes.append((GRID, None, GRID))
        else:
            recipe = resolve(entry)
            option = entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)
            recipes.append((recipe.name, recipe, option))
    return recipes


def _absent(
    recipe: tuple, rows: int | None, init: Init | None, model: dict
) -> tuple[str, str] | None:
    """(product, reason) where a model has no such recipe, cannot take so many rows, or cannot start from this; None where
    the product exists."""
    architecture, (recipe, training, _) = model["architecture"], recipe
    name = model_name(architecture, model["depth"])
    if (architecture in GRIDS) != (recipe == GRID):
        why = (
            f"{architecture} has recipe {GRID}"
            if architecture in GRIDS
            else f"{GRID} is for classical models"
        )
        return f"{name} × {recipe}", why
    start = f"init {init.name if init else 'null'}"
    if init and architecture in GRIDS:
        return f"{name} × {start}", f"{architecture} has no weights to start with"
    if training and (why := cannot_start(training, model["depth"], init and init.recipe)):
        return f"{name} × {recipe} × {start}", why
    most = GRIDS[architecture].max_rows if architecture in GRIDS else None
    return (
        (f"{name} × {rows:,} rows", f"{architecture} takes at most {most:,}")
        if most and (rows or 0) > most
        else None
    )


def _dropped(products: Iterable[tuple], n_each: int) -> list[Dropped]:
    """What `_absent` says of all products, each with its number of cells."""
    counts = Counter(absent for product in products if (absent := _absent(*product)))
    return [Dropped(product, why, n_each * count) for (product, why), count in counts.items()]


def _models(entries: list) -> tuple[list[dict], list[tuple[str, str]]]:
    """RunSpec's fields of each model, and the (architecture × depth, reason) of products that do not exist."""
    models, absent = {}, []
    for entry in entries:
        if isinstance(entry, str):
            fields = model_of(entry)
            models[fields["architecture"], fields["depth"]] = fields
            continue
        for key in entry:
            check_choice("key of a model", key, ("architectures", "depths"))
        architectures = entries_of(entry, "architectures", (str,))
        for architecture in architectures:
            known_architecture(architecture)
        networks = [architecture for architecture in architectures if architecture not in GRIDS]
        depths = (
            [] if not networks and "depths" not in entry else entries_of(entry, "depths", (int,))
        )
        for depth in depths:
            check_choice(
                "depth", str(depth), {str(known) for of in MODELS.values() for known in of}
            )
        for architecture in architectures:
            if architecture in GRIDS:  # it has no depth
                models[architecture, None] = {"architecture": architecture, "depth": None}
        for architecture, depth in itertools.product(networks, depths):
            if depth in MODELS[architecture]:
                models[architecture, depth] = {"architecture": architecture, "depth": depth}
            else:
                known = ", ".join(map(str, MODELS[architecture]))
                absent.append((f"{architecture} × {depth}", f"{architecture} has depths {known}"))
    return list(models.values()), absent


def _over_ranks(cells: list[Cell]) -> list[str]:
    """Notes on cells that one rank would train faster. Raises UserError where a batch does not divide over the ranks."""
    notes = []
    for recipe, n_ranks in dict.fromkeys((cell.recipe, cell.resources.n_ranks) for cell in cells):
        if isinstance(recipe, Grid):
            if n_ranks > 1:
                raise UserError(
                    f"{recipe.architecture} must be fitted by one rank, however: {n_ranks}; add to resources: "
                    f"{{for: {{recipe: {GRID}}}, nodes: 1, ranks_per_node: 1}}"
                )
            continue
        if recipe.batch % n_ranks:
            raise UserError(
                f"the batch of recipe {recipe.name} must divide over the ranks, however: {recipe.batch} and {n_ranks}"
            )
        if recipe.batch // n_ranks % recipe.norm_group:
            notes.append(
                f"recipe {recipe.name} normalises {recipe.norm_group} rows together, more than its batch of {recipe.batch} "
                f"leaves to each of {n_ranks} ranks: every layer waits for the network, and one rank is faster"
            )
    return notes


def _budget(table: dict) -> float | None:
    budget = table.get("budget_device_hours")
    if budget is not None and (
        isinstance(budget, bool) or not isinstance(budget, int | float) or not budget >= 0
    ):
        raise UserError(f"budget_device_hours must be a number of hours, however: {budget!r}")
    return budget
