"""With few val rows, out-of-fold predictions calibrate the intervals, and these cover."""

import shutil

import numpy as np
import pandas as pd
import pytest

from irnet_hpc import load_model, pack_table, train_model
from irnet_hpc.data.splits import fold_rules
from irnet_hpc.predict.out_of_fold import MIN_VAL_ROWS

NOISE = 0.5  # standard deviation, GPa
RECIPE = {"name": "short", "base": "onecycle", "epochs": 15, "precision": "fp32"}


def draw(n_rows, first, seed):
    """Draw a table of three columns and a linear target with known noise."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n_rows, 3))
    return pd.DataFrame(
        {
            "formula": [f"Al{n}Ni{n + 1}" for n in range(first, first + n_rows)],
            **{f"column_{name}": x[:, k] for k, name in enumerate("abc")},
            "hardness": 2 * x[:, 0] - x[:, 1] + NOISE * random.normal(size=n_rows),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Train one network on a pack of its own, and the same one on four folds of the table."""
    path, table = tmp_path_factory.mktemp("small"), draw(160, 1, seed=0)
    known = {"features": "columns", "units": {"hardness": "GPa"}, "pack_dir": path, "workers": 1}
    options = {"layers": "16BARx1-1", "recipe": RECIPE, "results": path / "results"}
    pack_table(table, name="mine", **known)
    for rule in fold_rules(4):
        name = f"mine-folds4-fold{rule.seed}"
        pack_table(table, name=name, split=str(rule), split_seed=rule.seed, **known)
        train_model(path / f"{name}.h5", "hardness", **options)
    train_model(path / "mine.h5", "hardness", **options)
    return path


def test_few_val_rows_give_way_to_the_rows_out_of_fold(folder):
    (run,) = (folder / "results/mine").rglob("seed0")
    model = load_model(run, pack_dir=folder)
    (report,) = model.report(0.9)
    assert report.n_val + report.n_test == 160  # test rows measure, and do not calibrate
    assert report.calibrated_on == "out-of-fold"
    fresh = draw(1000, 200, seed=1)
    predicted = model.predict(fresh.drop(columns="hardness"))
    inside = fresh["hardness"].between(
        predicted["low_hardness"].to_numpy(), predicted["high_hardness"].to_numpy()
    )
    assert 0.84 <= inside.mean() <= 0.96
    half = (predicted["high_hardness"] - predicted["low_hardness"]).mean() / 2
    assert half > 1.5 * NOISE  # 1.64 sd hold 90 % of a normal distribution


def test_a_run_without_folds_beside_it_keeps_its_val_rows(folder, tmp_path):
    (run,) = (folder / "results/mine").rglob("seed0")
    moved = tmp_path / run.relative_to(folder / "results")
    shutil.copytree(run, moved)
    assert MIN_VAL_ROWS == 100
    model = load_model(moved, pack_dir=folder)
    (report,) = model.report(0.9)
    assert report.calibrated_on == "val" and report.n_val < 40
