"""List the GRIDS: the models that networks are compared with, each with a small grid of parameters.

They are the ten classical models of the papers (Jha et al. 2019), and two newer ones:
gradient-boosted trees and a tabular network. Like the recipe of a network, a grid states everything
that decides the numbers, and the run's key hashes it. train/classical.py makes the models, so this
file needs no sklearn.
"""

import dataclasses
import itertools
import json
from typing import Any

GRID = "grid"  # the recipe of every model in GRIDS, and of no network


@dataclasses.dataclass(frozen=True)
class Grid:
    """The training of a classical model: fit every combination of parameters, keep the best one.

    The best has the lowest MAE on val, or on test under protocol `paper`.
    """

    architecture: str
    # parameter -> the one value that it always has; a parameter is here or in `grid`, never in both
    fixed: dict = dataclasses.field(default_factory=dict, hash=False)
    grid: dict = dataclasses.field(default_factory=dict, hash=False)  # parameter -> list of values
    max_rows: int | None = None  # fit on at most this many, the first rows; None: on all
    features: str = "raw"  # raw | standard, as in Recipe; trees need no scaling
    clip: float = 0.0
    target: str = "raw"
    name: str = GRID

    @property
    def batch(self) -> int:
        """The smallest number of training rows, the counterpart of Recipe.batch."""
        return 1

    def uses_seed(self, n_rows: int) -> bool:
        """Return False if the model is the same for every seed when fitted on `n_rows` rows.

        As scikit-learn 1.9 does it: boosted trees without early stopping draw random numbers only
        to bin more than 200,000 rows.
        """
        if self.architecture == "boosted_trees":
            return n_rows > 200_000
        return self.architecture not in ("linear", "ridge", "elastic_net", "svr")

    @property
    def points(self) -> list[dict]:
        """All combinations of the parameters in `grid`; the last parameter varies fastest.

        A grid without parameters has one combination, which is empty.
        """
        return [
            dict(zip(self.grid, values, strict=True))
            for values in itertools.product(*self.grid.values())
        ]

    def fitted_rows(self, n_rows: int) -> int:
        """Return how many of `n_rows` training rows the model is fitted on."""
        return min(n_rows, self.max_rows or n_rows)


# Models that measure distances or shrink coefficients need features of one scale. Features are cut
# at 6 standard deviations, as in `onecycle`.
STANDARD: dict[str, Any] = {"features": "standard", "clip": 6.0, "target": "standard"}

GRIDS = {
    grid.architecture: grid
    for grid in (
        Grid("linear", **STANDARD),
        Grid("ridge", grid={"alpha": [0.01, 1.0, 100.0]}, **STANDARD),
        Grid(
            "elastic_net",
            {"l1_ratio": 0.5, "precompute": True, "max_iter": 100_000},
            {"alpha": [1e-4, 1e-3, 1e-2]},
            **STANDARD,
        ),
        Grid(
            "sgd",
            {"learning_rate": "adaptive", "eta0": 1e-3},
            {"alpha": [1e-5, 1e-4, 1e-3]},
            **STANDARD,
        ),
        # The kernel matrix grows with the square of the number of rows: with 20,000 rows a fit
        # takes minutes, with 300,000 it takes days.
        Grid(
            "svr",
            {"kernel": "rbf", "epsilon": 0.02, "cache_size": 1000},
            {"C": [1.0, 10.0, 30.0]},
            max_rows=20_000,
            **STANDARD,
        ),
        Grid("decision_tree", grid={"min_samples_leaf": [1, 4, 16]}),
        Grid(
            "adaboost", {"n_estimators": 50}, {"max_depth": [3, 12], "loss": ["linear", "square"]}
        ),
        Grid("bagging", {"n_estimators": 100}, {"max_samples": [0.5, 1.0]}),
        Grid("extra_trees", {"n_estimators": 100}, {"max_features": [0.33, 1.0]}),
        Grid("random_forest", {"n_estimators": 100}, {"max_features": [0.33, 1.0]}),
        Grid(
            "boosted_trees",
            {"max_iter": 1000, "learning_rate": 0.05, "early_stopping": False},
            {"loss": ["squared_error", "absolute_error"], "max_leaf_nodes": [31, 127]},
        ),
        # Gorishniy et al., ICLR 2025: 32 networks in one. These are its authors' defaults,
        # with a fixed number of epochs.
        Grid(
            "tabm",
            {"epochs": 40, "batch": 256, "weight_decay": 3e-4},
            {"learning_rate": [1e-3, 2e-3]},
            **STANDARD,
        ),
    )
}

# Models whose run folders keep all that they have learnt as plain numbers; those of the others keep
# the fitted estimator.
AS_NUMBERS = ("linear", "ridge", "elastic_net", "sgd", "tabm")

# Models that use a GPU if there is one; for the others the scheduler is not asked for a GPU.
USES_GPU = {"tabm"}


def point_text(point: dict) -> str:
    """Format a combination of parameters for people, e.g. `max_features 0.33`."""
    return (
        ", ".join(f"{name} {json.dumps(value)}" for name, value in point.items()) or "its defaults"
    )
