"""Which cells may share a network's launches, and how many of them a device holds. Knows no torch: it is part of planning."""

import dataclasses
from collections.abc import Sequence

from irnet_hpc.architectures import n_weights, parse
from irnet_hpc.errors import UserError
from irnet_hpc.recipes import OWN, Recipe
from irnet_hpc.runs import RunSpec

# Of a replica, in numbers as wide as a weight: the weights, their gradients, average, best and two moments, and once more the
# weights while others are evaluated.
COPIES = 7
# Of a row and an output of a layer: what the layer keeps for its gradient (its input, what was normalised, what was cut), and
# what is at hand while it is computed. Not measured on a GPU yet; where it is too little, the bundle is halved.
ACTIVATIONS = 6
EVALUATED_ROWS = (
    4096  # at once, of every replica; without gradients, so that only a few layers' outputs are there together
)
RESERVED_GB = 2.0  # the device's own context, the rows, the allocator's slack
MOST = 16  # beyond so many a GPU is busy anyway, and a bundle that is killed loses more


def shape_of(spec: RunSpec, recipe: Recipe) -> tuple:
    """What cells of one pack must agree in to be replicas of one stack, as far as it is known before their rows are read."""
    common = tuple(value for name, value in dataclasses.asdict(recipe).items() if name not in OWN)
    return spec.pack, spec.layer_string, len(spec.properties), spec.protocol, spec.train_rows, spec.start_from, common


def refuse_mixed(cells: Sequence[tuple[RunSpec, Recipe]]) -> None:
    """Raise UserError where networks that are to be trained together are of several shapes."""
    (first, its_recipe), shape = cells[0], shape_of(*cells[0])
    for spec, recipe in cells:
        if shape_of(spec, recipe) != shape:
            differing = [name for name, value in vars(recipe).items() if value != vars(its_recipe)[name]]
            wrong = [name for name in differing if name not in OWN] or ["the number of properties"]
            raise UserError(
                "cells that are trained together may differ in the seed, the property and the recipe's "
                f"{', '.join(OWN)}, however: {spec.model} by recipe {recipe.name} and {first.model} by {its_recipe.name} "
                f"differ in {', '.join(wrong)}"
            )


def refuse_repeated(specs: Sequence[RunSpec]) -> None:
    """Raise UserError where a cell is there twice: both would write into one folder."""
    for i, spec in enumerate(specs):
        if spec in specs[:i]:
            raise UserError(
                f"a cell must be there once, however: {spec.property}, {spec.recipe}, seed {spec.seed} twice"
            )


def replica_gb(spec: RunSpec, recipe: Recipe, n_features: int, n_ranks: int = 1) -> float:
    """Memory that one replica more takes on each rank's device, estimated from above."""
    layers = parse(spec.layer_string)._replace(n_outputs=len(spec.properties))
    wide, narrow = {"fp32": (4, 4), "bf16": (4, 2), "fp64": (8, 8)}[recipe.precision]  # bytes of a weight, an output
    widths = [stack.width for stack in layers.stacks for _ in range(sum(stack.branches))]
    of_rows = recipe.batch // n_ranks * sum(widths) * ACTIVATIONS * narrow
    evaluated = EVALUATED_ROWS * (n_features + max(widths)) * ACTIVATIONS * wide
    return (n_weights(layers, n_features) * COPIES * wide + max(of_rows, evaluated)) / 2**30


def n_that_fit(spec: RunSpec, recipe: Recipe, n_features: int, memory_gb: float, n_ranks: int = 1) -> int:
    """How many replicas a device of so much memory is given; one at least, MOST at most."""
    free = memory_gb - RESERVED_GB
    return max(1, min(MOST, int(free / replica_gb(spec, recipe, n_features, n_ranks))))
