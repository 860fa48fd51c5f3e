"""List the RECIPES by which networks are trained, as frozen, named records.

`paper` and `ibrnet` are the recipes of the papers; `onecycle` is ours.

A run's key hashes the resolved record. So if a recipe changes, old results are marked as stale, and
are not taken for results of the new recipe.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.runs.classical_grids import GRID

DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings by which a network is trained, in the order in which they act."""

    name: str
    features: str = "raw"  # raw | standard: mean 0, standard deviation 1 over the training rows
    clip: float = 0.0  # standard deviations at which standardised features are cut; 0: never
    target: str = "raw"  # raw | standard
    batch: int = 32  # rows per step, over all ranks
    norm_group: int = 32  # rows that are normalised together; the batch is a multiple of it
    precision: str = "fp32"  # fp32 | bf16 (autocast of the matrix products, fp32 weights) | fp64
    trained_layers: int = 0  # number of last layers that a run with an origin trains; 0: all
    loss: str = "mae"  # mae | mse | huber (of the scaled target)
    # none | censored: if a target is at the floor of its property (a band gap of 0), every
    # prediction below the floor counts as right.
    floor: str = "none"
    # full | bf16: the precision in which ranks exchange gradients; a single rank sends nothing.
    allreduce: str = "full"
    optimizer: str = "adam"  # adam | adamw
    # The defaults of all fields make recipe `paper`; the recipe used by default is DEFAULT_RECIPE.
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    # For AdamW, in place of weight_decay. With decay, AdamW's weights are an exponential average of
    # its updates; this is the time constant of that average, in epochs, at `learning_rate`.
    decay_epochs: float = 0.0
    # constant | plateau | onecycle: cosine up over the first 30 %, then cosine down to zero
    schedule: str = "constant"
    plateau_factor: float = 0.1  # factor of the learning rate at each plateau of the selection MAE
    plateau_patience: int = 0  # epochs without a better MAE that make a plateau
    # An epoch counts as better only if its MAE is lower by more than this, in the property's unit.
    plateau_threshold: float = 0.0
    # Decay per step of the moving average of the weights. The average is evaluated and kept; with 0
    # there is no average, and the weights themselves are.
    ema: float = 0.0
    epochs: int = 3000  # at most
    patience: int = 200  # stop after so many epochs without a better selection MAE; 0: never
    statistics_rows: int = 16384  # training rows that the population statistics of norms are from

    def __post_init__(self) -> None:
        for field, known in CHOICES.items():
            if getattr(self, field) not in known:
                check_choice(
                    f"value of {field} in recipe {self.name!r}", str(getattr(self, field)), known
                )
        for field, (low, high) in BOUNDS.items():
            if not low <= getattr(self, field) <= high:
                raise UserError(
                    f"{field} of recipe {self.name!r} must be between {low} and {high}, "
                    f"got {getattr(self, field)}"
                )
        if self.clip and self.features == "raw":
            raise UserError(
                f"clip of recipe {self.name!r} is in standard deviations, so it needs "
                "features: standard"
            )
        if self.allreduce == "bf16" and self.precision == "fp64":
            raise UserError(
                f"allreduce of recipe {self.name!r} must be full with precision: fp64, got bf16"
            )
        if (self.schedule == "plateau") != (self.plateau_patience > 0):
            raise UserError(
                f"plateau_patience of recipe {self.name!r} must be positive with schedule: plateau "
                f"and 0 with any other, got {self.plateau_patience} with {self.schedule}"
            )
        if self.decay_epochs and (
            self.optimizer != "adamw" or self.weight_decay or self.decay_epochs < 1
        ):
            raise UserError(
                f"decay_epochs of recipe {self.name!r} must be at least 1, with optimizer: adamw "
                f"and weight_decay: 0, got {self.decay_epochs} with {self.optimizer} and "
                f"{self.weight_decay}"
            )
        if self.batch % self.norm_group:
            raise UserError(
                f"batch of recipe {self.name!r} must be a multiple of norm_group, "
                f"got {self.batch} and {self.norm_group}"
            )


CHOICES = {
    "features": ("raw", "standard"),
    "target": ("raw", "standard"),
    "precision": ("fp32", "bf16", "fp64"),
    "loss": ("mae", "mse", "huber"),
    "floor": ("none", "censored"),
    "allreduce": ("full", "bf16"),
    "optimizer": ("adam", "adamw"),
    "schedule": ("constant", "onecycle", "plateau"),
}
BOUNDS = {
    "clip": (0.0, 1e6),
    "batch": (2, 1_048_576),
    "norm_group": (2, 1_048_576),
    "trained_layers": (0, 1_000_000),
    "learning_rate": (1e-9, 10.0),
    "weight_decay": (0.0, 10.0),
    "plateau_factor": (1e-6, 1.0),
    "plateau_patience": (0, 1_000_000),
    "plateau_threshold": (0.0, 1e6),
    "decay_epochs": (0.0, 1e6),
    "ema": (0.0, 0.999999),
    "epochs": (1, 1_000_000),
    "patience": (0, 1_000_000),
    "statistics_rows": (2, 10_000_000),
}

# Networks that are trained together, as one stack of replicas, may differ in these fields. The
# fields decide when and how far a network's weights move, not which operations are computed.
REPLICA_FIELDS = (
    *("name", "learning_rate", "weight_decay", "decay_epochs", "schedule"),
    *("plateau_factor", "plateau_patience", "plateau_threshold", "ema", "epochs", "patience"),
)

DEFAULT_RECIPE = "onecycle"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # Jha et al. 2018 (ElemNet) and 2019: Adam 1e-4, batch 32, MAE loss, unscaled features and
        # target, patience 200 epochs.
        Recipe("paper"),
        # iBRNet: the same, but the rate falls on plateaus, as in the published command with
        # Keras's defaults. The published lower bound of the rate, 1e-8, is left out: at the fourth
        # reduction the weights no longer move, and the run stops.
        Recipe(
            "ibrnet", schedule="plateau", plateau_patience=45, plateau_threshold=1e-4, patience=50
        ),
        # Ours: standardised, large batches in bf16, one cycle of AdamW, averaged weights.
        Recipe(
            "onecycle",
            features="standard",
            clip=6.0,
            target="standard",
            batch=512,
            norm_group=256,
            precision="bf16",
            optimizer="adamw",
            learning_rate=2e-3,
            weight_decay=0.01,
            schedule="onecycle",
            ema=0.999,
            epochs=30,
            patience=0,
        ),
    )
}


# The smallest table to which a recipe is fitted. With fewer rows, the recipe must state its batch.
MIN_ROWS = 50


# The smallest batch that a recipe is fitted to. The mean and deviation of fewer rows say so little
# about a unit that networks on 50 rows came close to predicting the median (docs/small.md).
MIN_BATCH = 8


def fitting_batch(n_rows: int) -> int:
    """Return the largest power of two that gives an epoch 16 steps or more.

    It is at least MIN_BATCH, or if there are fewer rows, the largest power of two of them; at
    least 2.
    """
    fewest = min(MIN_BATCH, _power_of_two(n_rows))
    return max(2, fewest, _power_of_two(n_rows // 16))


def _power_of_two(number: int) -> int:
    """Return the largest power of two up to a number; 1 if there is none."""
    return 2 ** int(math.log2(max(1, number)))


def states_batch(recipe: object) -> bool:
    """Return True if a recipe, as a user gives it, states its own batch or norm_group.

    What is stated is never changed. A recipe's name states nothing, nor does its base.
    """
    return isinstance(recipe, Mapping) and not {"batch", "norm_group"}.isdisjoint(recipe)


def fitted_to(recipe: Recipe, n_rows: int) -> Recipe:
    """Return a recipe with batch and norm_group reduced to suit `n_rows` training rows.

    The batch is at most `fitting_batch(n_rows)`, and norm_group at most the batch. All other fields
    stay as they are.
    """
    batch = min(recipe.batch, fitting_batch(n_rows))
    if batch == recipe.batch:
        return recipe
    return dataclasses.replace(recipe, batch=batch, norm_group=min(batch, recipe.norm_group))


def fitted_fields(recipe: Recipe, fitted: Recipe) -> dict[str, int]:
    """Return the fields that `fitted_to` has changed, with their new values."""
    return {
        name: value
        for name in ("batch", "norm_group")
        if (value := getattr(fitted, name)) != getattr(recipe, name)
    }


def resolve(recipe: str | Mapping) -> Recipe:
    """Return the recipe of this name, or build an inline recipe.

    Args:
        recipe: A name in RECIPES, or a mapping such as `{name: mine, base: paper, batch: 64}`.

    Raises:
        UserError: If the name or a key is unknown, or a value is out of bounds.
    """
    if isinstance(recipe, str):
        return RECIPES[check_choice("recipe", recipe, RECIPES)]
    if not isinstance(recipe, Mapping) or not {"name", "base"} <= set(recipe):
        raise UserError(f"an inline recipe must be a mapping with name and base, got {recipe!r}")
    changes = {field: value for field, value in recipe.items() if field != "base"}
    name = changes["name"]
    types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Recipe)}
    if (
        name in (*RECIPES, GRID)
        or not isinstance(name, str)
        or not name.replace("-", "").replace("_", "").isalnum()
    ):
        raise UserError(
            "the name of an inline recipe must be letters, digits, - and _, and not "
            f"{' or '.join([*RECIPES, GRID])}, got {name!r}"
        )
    for field, value in changes.items():
        check_choice(f"key of recipe {name!r}", field, {*types, "base"})
        try:
            # YAML reads 1e-3 as text, so convert each value to the type of its field. Of text, only
            # a decimal number is one: Python would also take 010, 1_0 and nan.
            is_text = isinstance(value, str) and types[field] is not str
            if isinstance(value, bool) or (is_text and not DECIMAL.fullmatch(value)):
                raise TypeError
            changes[field] = types[field](value)
        except (TypeError, ValueError, OverflowError):
            raise UserError(
                f"{field} of recipe {name!r} must be of type {types[field].__name__}, got {value!r}"
            ) from None
        if types[field] is int and changes[field] != float(value):
            raise UserError(f"{field} of recipe {name!r} must be a whole number, got {value!r}")
    return dataclasses.replace(resolve(recipe["base"]), **changes)


def cannot_start(recipe: Recipe, depth: int, origin: Recipe | None) -> str | None:
    """Return the reason why a network cannot be trained from an origin, or without one.

    An origin must have the same scaling of features, because its weights expect it.

    Args:
        recipe: The recipe of the training.
        depth: The number of layers of the network.
        origin: The recipe of the run to start from; None if training starts from random weights.

    Returns:
        The reason, or None if the training can start.
    """
    if recipe.trained_layers and origin is None:
        return (
            f"trained_layers of recipe {recipe.name!r} must be 0 without an init run, since "
            f"the other layers would stay untrained, got {recipe.trained_layers}"
        )
    if recipe.trained_layers > depth:
        return (
            f"trained_layers of recipe {recipe.name!r} must be at most the {depth} layers of "
            f"the network, got {recipe.trained_layers}"
        )
    for field in ("features", "clip"):
        if origin and getattr(recipe, field) != getattr(origin, field):
            return (
                f"{field} of recipe {recipe.name!r} must be {getattr(origin, field)}, as in "
                f"the init run's recipe {origin.name!r}, got {getattr(recipe, field)}"
            )
    return None
