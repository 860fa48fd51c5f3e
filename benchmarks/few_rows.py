"""Compare batches of IRNet-17 on tables of few rows with extra trees and the training median.

python benchmarks/few_rows.py data/mp.csv.xz bulk_modulus --rows 50 --tables 2 --batches 2,8,16

Each table is a random sample of the compositions, and each row is predicted once, by a model of
the other four of five folds. A batch is one group of rows that are normalised together. Of the
training rows a ninth selects the epoch. Printed are MAEs divided by that of the training median,
and seconds of the processor.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rivals import cpu_model
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold

import irnet_hpc

FEATURES = "magpie+elements"
# Trains a model on (x, y) and predicts other rows, from a seed.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def main() -> None:
    """Print a line with the relative error and the seconds of each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="a table of compositions")
    parser.add_argument("property", help="its column")
    parser.add_argument("--rows", type=int, default=50, help="the rows of each table")
    parser.add_argument("--tables", type=int, default=2, help="how many tables are drawn")
    parser.add_argument("--batches", default="2,8,16", help="the batches to compare")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{len(os.sched_getaffinity(0))} cores of {cpu_model()}")
    models: dict[str, Fit] = {"median": median, "extra trees": extra_trees}
    models |= {f"batch {text}": network(int(text)) for text in arguments.batches.split(",")}
    x, y = read(arguments.table, arguments.property)
    order = np.random.default_rng(0).permutation(len(y))
    tables = order[: arguments.rows * arguments.tables].reshape(arguments.tables, -1)
    maes = {}
    for name, fit in models.items():
        start, errors = time.process_time(), []
        for seed, rows in enumerate(tables):
            for train, test in KFold(5, shuffle=True, random_state=seed).split(rows):
                predicted = fit(x[rows[train]], y[rows[train]], x[rows[test]], seed)
                errors.append(np.abs(predicted - y[rows[test]]))
        maes[name] = float(np.concatenate(errors).mean())
        seconds = time.process_time() - start
        print(f"{name:12} {maes[name] / maes['median']:.3f} {seconds:6.1f} s", flush=True)


def read(table: Path, property_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (n_rows, n_features) and the targets (n_rows,) of a table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        irnet_hpc.pack_table(
            table, properties=property_name, features=FEATURES, pack_dir=folder
        ) as pack,
    ):
        (name,), rows = pack.units, slice(0, pack.n_rows)
        y = pack.y(name, rows)
        known = ~np.isnan(y)
        return pack.x(rows)[known].astype(float), y[known]


def median(x: np.ndarray, y: np.ndarray, new: np.ndarray, seed: int) -> np.ndarray:
    """Predict the median of the training rows."""
    return np.full(len(new), np.median(y))


def extra_trees(x: np.ndarray, y: np.ndarray, new: np.ndarray, seed: int) -> np.ndarray:
    """Predict with extra trees."""
    return ExtraTreesRegressor(200, random_state=seed).fit(x, y).predict(new)


def network(batch: int) -> Fit:
    """Return the fit of IRNet-17 by `onecycle` with a batch."""
    recipe = {"name": "few", "base": "onecycle", "batch": batch, "norm_group": batch}

    def fit(x: np.ndarray, y: np.ndarray, new: np.ndarray, seed: int) -> np.ndarray:
        model = irnet_hpc.IRNetRegressor(
            depth=17, recipe=recipe, validation_fraction=1 / 9, random_state=seed
        )
        return model.fit(x, y).predict(new)

    return fit


if __name__ == "__main__":
    main()
