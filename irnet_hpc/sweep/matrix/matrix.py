"""Read a matrix: a YAML file or a mapping whose lists are combined into the cells to train.

    packs: [oqmd-magpie, {name: mine, source: my.csv, features: magpie, properties: [band_gap]}]
    properties: [formation_energy, band_gap]
    models: [irnet-17, {architectures: [plain, irnet], depths: [10, 48]}, random_forest]
    seeds: [0, 1, 2]

docs/matrix.md describes every key; it is made from keys.py. This module imports neither torch nor a
source, so planning thousands of cells takes less than a second.
"""

import dataclasses
import itertools
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import NAME
from irnet_hpc.runs.classical_grids import GRID, GRIDS, Grid
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.spec import PROTOCOLS, RunSpec, run_id
from irnet_hpc.runs.yaml_file import load_yaml
from irnet_hpc.sweep.matrix.fields import check_keys, entries_of
from irnet_hpc.sweep.matrix.keys import MatrixKeys
from irnet_hpc.sweep.matrix.models import (
    Combination,
    ModelEntry,
    RecipeEntry,
    note_on_recipes,
    read_models,
    read_recipes,
    why_absent,
)
from irnet_hpc.sweep.matrix.origins import (
    Init,
    OriginPacks,
    ShippedInit,
    notes_on_origins,
    notes_on_shipped,
    origin_packs,
    read_init,
    row_count,
    why_no_origin,
    why_not_shipped,
)
from irnet_hpc.sweep.matrix.pack_keys import axes_of
from irnet_hpc.sweep.matrix.packs import MatrixPack, PackDefaults, read_packs
from irnet_hpc.sweep.matrix.resources import (
    Resources,
    Retry,
    ShapeTable,
    mapping,
    read_resources,
    read_retry,
    read_shapes,
)
from irnet_hpc.sweep.matrix.targets import Targets, targets_of

# More cells are surely a mistake, and would fill the memory.
MAX_CELLS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training of the matrix."""

    spec: RunSpec
    recipe: Recipe | Grid
    # The value of `train --recipe`: a name, or the inline recipe as JSON.
    recipe_option: str
    resources: Resources
    # False if the matrix says nothing of memory_gb, so that `resources` has the default.
    states_memory: bool
    # The cell from which this one starts; it is also a cell of the matrix.
    origin: "Cell | None" = None
    # The network of the package from which this cell starts, which is not a cell.
    shipped: ShippedInit | None = None


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A combination of keys that does not exist."""

    product: str
    reason: str
    n_cells: int


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A matrix that was read and checked."""

    # The file; if the matrix was given as a mapping, its name.
    path: Path
    name: str
    packs: tuple[MatrixPack, ...]
    cells: tuple[Cell, ...]
    dropped: tuple[Dropped, ...]
    # Notes on keys that could not be checked or have no effect.
    notes: tuple[str, ...]
    pack_resources: Resources
    budget_device_hours: float | None
    # The limits of second tries; None: no cell is tried again.
    retry: Retry | None
    # The mapping as which the matrix was given; None: it was read from a file.
    table: Mapping | None = None

    def read_again(self, pack_dir: Path | str | None) -> "Matrix":
        """Read the matrix again, since its packs may have been built meanwhile."""
        return read_matrix(self.path if self.table is None else self.table, pack_dir)


def read_matrix(
    matrix: Path | str | Mapping, pack_dir: Path | str | None = None, name: str = "matrix"
) -> Matrix:
    """Read and check a matrix.

    Args:
        matrix: A YAML file, or its content as a mapping.
        pack_dir: The folder of packs; None: $IRNET_PACKS, else packs.
        name: The name of a matrix given as a mapping; a matrix in a file has the file's name.

    Returns:
        The matrix with all its cells. The first seed of every cell comes before the second seed,
        so that an unfinished matrix gives complete tables with fewer seeds.

    Raises:
        UserError: The matrix is invalid. The message names the file, the key and the choices.
    """
    if isinstance(matrix, Mapping):
        path, table = Path(name), matrix
    else:
        path, table = Path(matrix), None
    try:
        if table is None:
            if not path.exists() and path.parent.name == "jobs":
                raise UserError(
                    "No such file or directory; python -m irnet_hpc.sweep init "
                    f"{shlex.quote(str(path.parent.parent))} writes the example matrices there"
                )
            read = _read(path, load_yaml(path), pack_dir)
        else:
            read = dataclasses.replace(_read(path, dict(table), pack_dir), table=dict(table))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return read


def _read(path: Path, table: dict, pack_dir: Path | str | None) -> Matrix:
    check_keys("key", table, MatrixKeys)
    if not NAME.fullmatch(path.stem):
        raise UserError(
            f"the name of a matrix must be letters, digits and _.+=-, got {path.stem!r:.80}"
        )
    axes = _read_axes(table, pack_dir)
    shapes = ShapeTable(read_shapes(table.get("resources", {})))
    cells, lost, notes_on_seeds = _cells(axes, shapes)
    known = {pack.name for pack in axes.packs}
    more = {
        pack.name: pack
        for pack in axes.origins.values()
        if pack.name not in known and not pack.impossible
    }
    packs = [*axes.packs, *more.values()]
    notes = [*axes.notes_on_recipes, *axes.targets.notes, *notes_on_origins(axes.origins, packs)]
    notes += notes_on_shipped(axes.inits, axes.packs)
    notes += [*notes_on_seeds, *_notes_on_ranks(cells), *shapes.notes()]
    budget = table.get("budget_device_hours")
    if isinstance(budget, bool) or not (
        budget is None or (isinstance(budget, int | float) and budget >= 0)
    ):
        raise UserError(
            f"budget_device_hours must be a number of hours, 0 or more, got {budget!r:.80}"
        )
    return Matrix(
        path,
        path.stem,
        tuple(packs),
        tuple(cells),
        (*axes.dropped(), *lost),
        tuple(notes),
        _read_pack_resources(table),
        budget,
        read_retry(table.get("retry", {})),
    )


@dataclasses.dataclass(frozen=True)
class _Axes:
    """The lists whose product gives the cells."""

    packs: list[MatrixPack]
    targets: Targets
    models: list[ModelEntry]
    # (product, reason), for models that do not exist.
    absent_models: list[tuple[str, str]]
    # Those of networks and, if there are classical models, `grid`, which is theirs.
    recipes: list[RecipeEntry]
    notes_on_recipes: list[str]
    protocols: list[str]
    seeds: list[int]
    train_rows: list[int | None]
    inits: list[Init | ShippedInit | None]
    origins: OriginPacks

    @property
    def n_each(self) -> int:
        """The number of protocols times seeds: the cells for each target and combination."""
        return len(self.protocols) * len(self.seeds)

    def combinations(self) -> list[Combination]:
        """List the requested combinations, whether or not they exist.

        A network has every recipe but `grid`, and a classical model has `grid` only.
        """
        products = itertools.product(self.recipes, self.train_rows, self.inits, self.models)
        return [
            combination
            for combination in itertools.starmap(Combination, products)
            if combination.model.is_classical == (combination.recipe.recipe is None)
        ]

    def existing(self) -> list[Combination]:
        """List the combinations that exist."""
        return [combination for combination in self.combinations() if not why_absent(combination)]

    def dropped(self) -> list[Dropped]:
        """List the requested models, targets and combinations for which there are no cells."""
        existing, n_targets = self.existing(), len(self.targets.existing)
        n_classical = sum(combination.recipe.recipe is None for combination in existing)
        # Models that do not exist in a requested depth.
        n_networks = sum(recipe.recipe is not None for recipe in self.recipes)
        n_variants = n_networks * len(self.train_rows) * len(self.inits) * self.n_each
        dropped = [
            Dropped(product, why, n_targets * n_variants) for product, why in self.absent_models
        ]
        for product, why in self.targets.absent:
            n_products = len(existing) - (n_classical if "," in product else 0)
            dropped.append(Dropped(product, why, n_products * self.n_each))
        counts = Counter(
            absence for combination in self.combinations() if (absence := why_absent(combination))
        )
        for (product, why), count in counts.items():
            dropped.append(Dropped(product, why, n_targets * self.n_each * count))
        for pack, name in self.targets.existing:
            if "," in name and n_classical:
                product = f"{pack} × {name} × {GRID}"
                why = "classical models predict one property each"
                dropped.append(Dropped(product, why, n_classical * self.n_each))
        return dropped


def _read_axes(table: dict, pack_dir: Path | str | None) -> _Axes:
    """Read the keys whose product gives the cells.

    Raises UserError if there would be more than MAX_CELLS cells.
    """
    packs = _read_all_packs(table, pack_dir)
    models, absent_models = read_models(entries_of(table, MatrixKeys, "models"))
    recipes = read_recipes(table, models)
    _refuse_duplicates("recipe", [recipe.name for recipe in recipes])
    protocols = entries_of(table, MatrixKeys, "protocols", ["honest"])
    for protocol in protocols:
        check_choice("protocol", protocol, PROTOCOLS)
    seeds = entries_of(table, MatrixKeys, "seeds", [0])
    inits = [
        None if entry is None else read_init(entry)
        for entry in entries_of(table, MatrixKeys, "init", [None])
    ]
    targets = targets_of(packs)
    packs = [pack for pack in packs if not pack.impossible]
    origins = origin_packs(inits, packs, pack_dir)
    axes = _Axes(
        packs,
        targets,
        models,
        absent_models,
        recipes,
        note_on_recipes(recipes, models, "recipes" in table),
        protocols,
        seeds,
        _read_train_rows(table),
        inits,
        origins,
    )
    n_cells = len(targets.existing) * len(axes.existing()) * axes.n_each
    if n_cells > MAX_CELLS:
        raise UserError(f"a matrix must have at most {MAX_CELLS:,} cells, got {n_cells:,}")
    return axes


def _read_all_packs(table: dict, pack_dir: Path | str | None) -> list[MatrixPack]:
    """Read `packs`, `properties`, `splits`, `split_seeds`, `folds` and `repeats`."""
    entries = entries_of(table, MatrixKeys, "packs")
    # Each pack may have its own list of properties; if all packs do, the matrix needs none.
    needs_list = not all(isinstance(entry, dict) and "properties" in entry for entry in entries)
    properties = []
    if needs_list or "properties" in table:
        properties = entries_of(table, MatrixKeys, "properties")
    defaults = PackDefaults(properties, axes_of(table, MatrixKeys), pack_dir)
    packs = [pack for entry in entries for pack in read_packs(entry, defaults)]
    # As with seeds, the first split of every pack comes before the second split.
    packs.sort(key=lambda pack: pack.split.seed if pack.split and pack.name != pack.base else 0)
    _refuse_duplicates("pack", [pack.name for pack in packs])
    return packs


def _read_train_rows(table: dict) -> list[int | None]:
    entries = table.get("train_rows", ["all"])
    if not isinstance(entries, list) or not entries:
        raise UserError(f"train_rows must be a list of whole numbers or `all`, got {entries!r:.80}")
    return list(dict.fromkeys(row_count("each entry of train_rows", entry) for entry in entries))


def _read_pack_resources(table: dict) -> Resources:
    stated = mapping(table.get("pack_resources", {}), "pack_resources")
    resources = read_resources({"minutes": 120} | stated)
    if resources.n_ranks != 1:
        raise UserError(f"pack_resources must have one rank, got {resources.n_ranks}")
    if resources.stage_dir:
        raise UserError(
            "pack_resources must not have stage_dir, since only trainings read packs; move it to "
            f"resources, got {resources.stage_dir}"
        )
    return resources


def _cells(axes: _Axes, shapes: ShapeTable) -> tuple[list[Cell], list[Dropped], list[str]]:
    """Combine the axes into cells, origins first.

    A model that gives the same result for every seed has cells of the first seed only.

    Returns:
        The cells, the products that were dropped because their origin does not exist, and a note
        on the models without a seed.
    """
    cells: dict[RunSpec, Cell] = {}
    lost: Counter[tuple[str, str]] = Counter()
    seedless: Counter[str] = Counter()
    by_name = {pack.name: pack for pack in axes.packs}
    for (pack, name), protocol, seed, combination in _products(axes):
        recipe, train_rows, init, model = combination
        spec = RunSpec(
            pack=pack,
            property=name,
            recipe=recipe.name,
            protocol=protocol,
            seed=seed,
            train_rows=train_rows,
            **model._asdict(),
        )
        if seed != axes.seeds[0] and not _uses_seed(spec, by_name[pack]):
            seedless[model.name] += 1
            continue
        origin = None
        shipped = init if isinstance(init, ShippedInit) else None
        if shipped:
            if absence := why_not_shipped(shipped, spec, by_name[pack]):
                lost[absence] += 1
                continue
            spec = dataclasses.replace(spec, start_from=run_id(shipped.model, shipped.recipe))
        elif isinstance(init, Init):
            origin_pack = axes.origins[init, pack]
            if absence := why_no_origin(init, origin_pack, by_name[pack]):
                lost[absence] += 1
                continue
            origin_spec = init.spec(origin_pack.name, spec)
            resources = shapes.resources_of(origin_spec)
            stated = shapes.states_memory(origin_spec)
            origin = Cell(origin_spec, init.recipe, init.recipe_option, resources, stated)
            _add(cells, origin)
            spec = dataclasses.replace(spec, start_from=run_id(origin_spec, init.recipe))
        resources, stated = shapes.resources_of(spec), shapes.states_memory(spec)
        _add(cells, Cell(spec, recipe.of(model), recipe.option, resources, stated, origin, shipped))
    dropped = [Dropped(product, why, count) for (product, why), count in lost.items()]
    notes = []
    if seedless:
        notes.append(
            f"{', '.join(seedless)}: the result is the same for every seed, so there are cells of "
            f"seed {axes.seeds[0]} only, {seedless.total():,} fewer"
        )
    return list(cells.values()), dropped, notes


def _uses_seed(spec: RunSpec, pack: MatrixPack) -> bool:
    """Return False if a model is the same for every seed on the rows of the pack.

    A pack that is not built yet may have any number of rows.
    """
    grid = GRIDS.get(spec.architecture)
    if grid is None:
        return True
    reported = pack.reported.get(spec.property, {"train": sys.maxsize, "val": 0})
    n_rows = reported["train"] + (reported["val"] if spec.protocol == "paper" else 0)
    return grid.uses_seed(grid.fitted_rows(min(n_rows, spec.train_rows or n_rows)))


def _products(axes: _Axes) -> Iterator[tuple[tuple[str, str], str, int, Combination]]:
    """Yield (target, protocol, seed, combination) in the order of the cells."""
    existing = {
        (
            id(combination.recipe),
            combination.train_rows,
            combination.init,
            combination.model,
        ): combination
        for combination in axes.existing()
    }
    for seed, rows, target, recipe, protocol, init, model in itertools.product(
        axes.seeds,
        axes.train_rows,
        axes.targets.existing,
        axes.recipes,
        axes.protocols,
        axes.inits,
        axes.models,
    ):
        combination = existing.get((id(recipe), rows, init, model))
        is_joint_classical = recipe.recipe is None and "," in target[1]
        if combination and not is_joint_classical:
            yield target, protocol, seed, combination


def _add(cells: dict[RunSpec, Cell], cell: Cell) -> None:
    """Add a cell, unless `cells` has it already: it may have been requested, or be an origin."""
    if cells.setdefault(cell.spec, cell).recipe != cell.recipe:
        raise UserError(f"duplicate recipe name: {cell.spec.recipe}")


def _refuse_duplicates(kind: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise UserError(f"duplicate {kind} name: {', '.join(twice)}")


def _notes_on_ranks(cells: Sequence[Cell]) -> list[str]:
    """Return a note on each recipe with which one rank would train faster than the requested ranks.

    Raises:
        UserError: A batch cannot be divided evenly among the ranks.
    """
    notes = []
    for recipe, n_ranks in dict.fromkeys((cell.recipe, cell.resources.n_ranks) for cell in cells):
        if isinstance(recipe, Grid):
            if n_ranks > 1:
                raise UserError(
                    f"{recipe.architecture} must be fitted by one rank, got {n_ranks}; "
                    f"add to resources: {{for: {{recipe: {GRID}}}, nodes: 1, ranks_per_node: 1}}"
                )
            continue
        if recipe.batch % n_ranks:
            raise UserError(
                f"the batch of recipe {recipe.name} cannot be divided evenly among the ranks, "
                f"got {recipe.batch} and {n_ranks}"
            )
        if recipe.batch // n_ranks % recipe.norm_group:
            notes.append(
                f"recipe {recipe.name} normalises {recipe.norm_group} rows together, but each of "
                f"{n_ranks} ranks has {recipe.batch // n_ranks} rows of a batch; every layer then "
                "waits for the other ranks, so one rank is faster"
            )
    return notes
