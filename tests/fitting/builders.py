"""A made-up table of hardnesses, filled in as people fill in tables, and quick models for it."""

import numpy as np
import pandas as pd

TARGET, PROPERTY = "Hv (GPa)", "Hv"
NETWORK = "16BARx1-1"
TINY = {
    "name": "tiny",
    "base": "onecycle",
    "epochs": 3,
    "batch": 16,
    "norm_group": 16,
    "precision": "fp32",
}
QUICK = {"models": [NETWORK, "ridge"], "features": "elements", "recipe": TINY, "folds": 1}


def hardnesses(n_rows: int = 240) -> pd.DataFrame:
    """Return a table whose first row is no number; the headers are those of a laboratory."""
    formulas = [f"Fe{i}{x}{j}" for i in range(1, 17) for j in range(1, 17) for x in ("C", "N")]
    # One spelling of each composition.
    formulas = [formula for formula in formulas if np.gcd(*_amounts(formula)) == 1][:n_rows]
    noise = np.random.default_rng(0).normal(0, 0.3, len(formulas))
    metal = np.array([i / (i + j) for i, j in map(_amounts, formulas)])
    hardness = 4 + 30 * metal * (1 - metal) + noise
    values = [f"{value:.3f}" for value in hardness]
    values[0] = "~3"
    samples = [f"S{n:04}" for n in range(len(formulas))]
    return pd.DataFrame({"Sample ID": samples, "Composition": formulas, TARGET: values})


def _amounts(formula: str) -> tuple[int, int]:
    i, j = formula.removeprefix("Fe").replace("N", "C").split("C")
    return int(i), int(j)
