"""List the RECIPES by which networks are trained, as frozen, named records.

`paper` and `ibrnet` are those of the papers, `onecycle` is ours.

A run's key hashes the resolved record, so a changed recipe makes old results stale rather than
wrong.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.runs.classical_grids import GRID


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
    trained_layers: int = 0  # how many last layers a run from an origin trains; 0: all
    loss: str = "mae"  # mae | mse | huber (of the scaled target)
    # none | censored: for a target at the floor of PROPERTIES (a band gap of 0) every prediction
    # below it is right.
    floor: str = "none"
    # full | bf16: how several ranks send their gradients; one rank sends nothing.
    allreduce: str = "full"
    optimizer: str = "adam"  # adam | adamw
    # The defaults of these fields are recipe `paper`; the recipe used by default is DEFAULT_RECIPE.
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    # For AdamW, in place of weight_decay: the time constant, in epochs, of the average over updates
    # that its weights are, at the recipe's learning_rate.
    decay_epochs: float = 0.0
    # constant | onecycle: cosine up over the first 30 %, cosine down to nothing | plateau
    schedule: str = "constant"
    plateau_factor: float = 0.1  # factor by which the rate falls on a plateau of the selection MAE
    plateau_patience: int = 0  # epochs that make a plateau
    # An epoch is better only by more than this, in the property's unit.
    plateau_threshold: float = 0.0
    # Decay a step of the averaged weights that are evaluated and kept; 0: the weights themselves.
    ema: float = 0.0
    epochs: int = 3000  # at most
    patience: int = 200  # epochs without a better selection MAE before stopping; 0: never
    statistics_rows: int = 16384  # training rows from which the population statistics are taken

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
                f"plateau_patience of recipe {self.name!r} must be positive with schedule: "
                f"plateau and 0 without, got {self.plateau_patience} and {self.schedule}"
            )
        if self.decay_epochs and (
            self.optimizer != "adamw" or self.weight_decay or self.decay_epochs < 1
        ):
            raise UserError(
                f"decay_epochs of recipe {self.name!r} must be at least 1, with optimizer: adamw "
                "and weight_decay: 0, got "
                f"{self.decay_epochs}, {self.optimizer} and {self.weight_decay}"
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

# Fields in which networks that are trained together, as one stack of replicas, may differ: they
# decide when and how far the weights of a network move, and not which operations are computed.
REPLICA_FIELDS = (
    *("name", "learning_rate", "weight_decay", "decay_epochs", "schedule"),
    *("plateau_factor", "plateau_patience", "plateau_threshold", "ema", "epochs", "patience"),
)

DEFAULT_RECIPE = "onecycle"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # Jha et al. 2018 (ElemNet) and 2019: Adam 1e-4, batch 32, MAE loss, features and target as
        # they are, patience 200 epochs.
        Recipe("paper"),
        # iBRNet: the same with a rate that falls on plateaus, by the published command and Keras's
        # defaults. Its floor of 1e-8 for the rate is left out: at the fourth reduction nothing
        # moves any more, and the run stops.
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


def fitting_batch(n_rows: int) -> int:
    """Return the largest power of two, and at least 2, that gives an epoch 16 steps or more."""
    return max(2, 2 ** int(math.log2(max(1, n_rows // 16))))


def resolve(recipe: str | Mapping) -> Recipe:
    """Return a recipe by its name, or an inline one.

    Args:
        recipe: A name of RECIPES, or `{name: mine, base: paper, batch: 64}`.

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
            # YAML reads 1e-3 as text, so the field's own type is what decides.
            if isinstance(value, bool):
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
    """Explain why a network cannot be trained from another, or from nothing.

    The weights of the origin expect features as its recipe scales them.

    Args:
        recipe: The recipe of the training.
        depth: The layers of the network.
        origin: The recipe of the run to start from; None if it starts from nothing.

    Returns:
        The reason, or None if there is none.
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
                f"{field} of recipe {recipe.name!r} must be that of the init run, recipe "
                f"{origin.name!r}, got {getattr(recipe, field)} and {getattr(origin, field)}"
            )
    return None
