"""Turn a user's request into runs: specifications, recipes, keys and folders.

The command and `train_model` both make a TrainRequest. The request becomes runs once the pack and
the origin (the run to start from) have been read. This module does not import torch.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from irnet_hpc.errors import UserError, check_choice, check_whole
from irnet_hpc.models.architectures import MODELS
from irnet_hpc.runs.classical_grids import GRID, GRIDS, Grid
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.lease import Leases
from irnet_hpc.runs.recipes import DEFAULT_RECIPE, Recipe, resolve, states_batch
from irnet_hpc.runs.spec import (
    RunSpec,
    known_architecture,
    model_of,
    refuse_mixed,
    refuse_repeated,
    run_folder,
    run_key,
)
from irnet_hpc.runs.yaml_file import parse_yaml
from irnet_hpc.train.run import KEEPING, PLACES, Run, TrainOptions

if TYPE_CHECKING:
    from irnet_hpc.pack.store import Pack
    from irnet_hpc.train.warm_start import Origin


@dataclasses.dataclass(frozen=True)
class RequestedCell:
    """The settings that may differ between runs that are requested together."""

    property: str  # or several joined by commas: one network with an output each
    recipe: Recipe | Grid
    seed: int = 0
    keeps_batch: bool = False  # True: the recipe states its batch, which is not fitted to the rows


@dataclasses.dataclass(frozen=True)
class TrainRequest:
    """A request to train one model on one pack; neither pack nor origin has been read yet."""

    pack: str  # name, or path
    cells: tuple[RequestedCell, ...]
    architecture: str | None = None
    depth: int | None = None
    layers: str | None = None  # instead of architecture and depth
    protocol: str = "honest"
    train_rows: int | None = None
    init: str | None = None  # folder of the finished run to start from
    results: str = "results"

    @property
    def is_classical(self) -> bool:
        """True if the model is one of GRIDS."""
        return self.architecture in GRIDS

    @property
    def model(self) -> dict[str, Any]:
        """The model as fields of RunSpec.

        Raises UserError unless the request names it in exactly one way.
        """
        if self.layers is not None and (self.architecture or self.depth is not None):
            raise UserError(
                "give a network either by --architecture and --depth or by --layers, not by both"
            )
        if self.layers is not None:
            return model_of(self.layers)
        if self.architecture and not self.is_classical:
            known, _, depth = self.architecture.rpartition("-")
            if known in MODELS and depth.isdecimal():
                raise UserError(
                    f"--architecture must be a name without a depth, got {self.architecture!r} "
                    f"(did you mean --architecture {known} --depth {depth}?)"
                )
            known_architecture(self.architecture)
        if not self.is_classical and not (self.architecture and self.depth is not None):
            raise UserError(
                "no network is given; give --architecture and --depth, e.g. irnet and 17, "
                "or --layers"
            )
        return {"architecture": self.architecture, "depth": self.depth}


def request_cell(
    property_name: str, recipe: str | dict | None, seed: int, architecture: str | None
) -> RequestedCell:
    """Make a RequestedCell from a recipe as a user gives it, see `resolve_recipe`."""
    resolved = resolve_recipe(recipe, architecture)
    is_inline = isinstance(recipe, str) and recipe.lstrip().startswith("{")
    fields = parse_yaml(recipe) if isinstance(recipe, str) and is_inline else recipe
    return RequestedCell(property_name, resolved, seed, states_batch(fields))


def resolve_recipe(recipe: str | dict | None, architecture: str | None) -> Recipe | Grid:
    """Return the recipe that a name or a mapping describes; for None the architecture's default.

    Args:
        recipe: A name, a mapping of fields, or such a mapping as YAML text.
        architecture: The architecture; the only recipe of a classical model is `grid`.

    Raises:
        UserError: If the name or a field is unknown, or the text is not YAML.
    """
    if not recipe:
        recipe = GRID if architecture in GRIDS else DEFAULT_RECIPE
    if recipe == GRID:
        if architecture not in GRIDS:
            raise UserError(
                f"recipe {GRID} is only for a classical model ({', '.join(GRIDS)}), "
                f"got {architecture or 'a network'}"
            )
        return GRIDS[architecture]
    if isinstance(recipe, dict):
        return resolve(recipe)
    if not recipe.lstrip().startswith("{"):
        return resolve(recipe)
    try:
        fields = parse_yaml(recipe)
    except UserError as error:
        raise UserError(
            f"an inline recipe must be YAML like {{name: mine, base: paper}}, got {recipe!r:.200} "
            f"({error})"
        ) from None
    return resolve(fields)


def one_collective_per_step(recipes: Sequence[Recipe | Grid], size: int) -> bool:
    """Return True if the gradient allreduce is the only collective of a step on `size` ranks.

    Normalisation needs further collectives if a group of rows is divided among ranks.
    """
    return not any(
        isinstance(recipe, Recipe) and recipe.batch // size % recipe.norm_group
        for recipe in recipes
    )


def check_options(request: TrainRequest, options: TrainOptions) -> None:
    """Raise UserError if an option has no such value, or does not suit a classical model."""
    place = check_choice("data", options.data, PLACES)
    if options.micro_batch is not None:
        check_whole("micro_batch", options.micro_batch)
    keeping = check_choice("keep_model", options.keep_model, KEEPING)
    if not request.is_classical:
        if keeping == "never":
            raise UserError(
                "--keep-model never is only for classical models, got a network, which is always "
                "kept"
            )
        return
    if request.init is not None:
        raise UserError(
            f"--init is only for networks, got {request.architecture}, "
            "which has no weights to start from"
        )
    if options.micro_batch is not None:
        raise UserError(
            f"--micro-batch is only for networks, got {request.architecture}, which has no batches"
        )
    if place == "stream":
        raise UserError(
            f"--data stream is only for networks, got {request.architecture}, "
            "which is fitted in memory"
        )


def specify(
    request: TrainRequest, pack_name: str, origin: "Origin | None"
) -> list[tuple[RunSpec, Recipe | Grid]]:
    """Make the specification of each cell.

    Raises UserError if cells repeat or their shapes differ.
    """
    cells = [
        (
            RunSpec(
                pack=pack_name,
                property=cell.property,
                recipe=cell.recipe.name,
                protocol=request.protocol,
                seed=cell.seed,
                train_rows=request.train_rows,
                start_from=origin.id if origin else None,
                **request.model,
            ),
            cell.recipe,
        )
        for cell in request.cells
    ]
    refuse_repeated([spec for spec, _ in cells])
    networks = [(spec, recipe) for spec, recipe in cells if isinstance(recipe, Recipe)]
    if networks:
        refuse_mixed(networks)
    return cells


def make_runs(
    cells: Sequence[tuple[RunSpec, Recipe | Grid]],
    pack: "Pack",
    origin: "Origin | None",
    request: TrainRequest,
    leases: Leases,
) -> list[Run]:
    """Make the run of each cell of a request. Its key also depends on the pack and the origin."""
    origin_key = origin.key if origin else None
    return [
        Run(
            spec,
            recipe,
            run_key(spec, recipe, pack.identity, origin_key),
            RunFolder(run_folder(request.results, spec), leases),
            origin,
            requested.keeps_batch,
        )
        for (spec, recipe), requested in zip(cells, request.cells, strict=True)
    ]
