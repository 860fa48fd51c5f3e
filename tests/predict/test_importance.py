"""Permutation importance: against scikit-learn's own on a model it knows, and by hand."""

import csv

import numpy as np
import pytest
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression

from irnet_hpc.aggregate.report import make_tables
from irnet_hpc.predict.importance import (
    N_SHUFFLES,
    SHUFFLE_SEED,
    Columns,
    column_sets,
    importance_of,
    masks_of,
    permuted,
)
from tests.predict.builders import stored

N = 60
RANDOM = np.random.default_rng(0)
X = np.column_stack([RANDOM.normal(size=(N, 3)), np.ones(N)])
TARGET = X @ [3.0, 1.0, 0.0, 5.0] + RANDOM.normal(scale=0.1, size=N)
MODEL = LinearRegression().fit(X, TARGET)
SETS = [Columns("feature", f"x{place}", [place]) for place in range(4)]
ALL = {None: np.ones(N, bool)}


def test_features_have_the_importances_that_scikit_learn_gives():
    own = permutation_importance(
        *(MODEL, X, TARGET),
        scoring="neg_mean_absolute_error",
        n_repeats=N_SHUFFLES,
        random_state=SHUFFLE_SEED,
    )
    found = permuted(X, TARGET, SETS, ALL, MODEL.predict)
    assert [one.rise for one in found] == pytest.approx(own.importances_mean)
    assert [one.sd for one in found] == pytest.approx(own.importances.std(axis=1, ddof=1))
    assert found[0].rise > 2 and abs(found[2].rise) < 0.02 and found[3].rise == 0.0
    assert found[0].mae == pytest.approx(np.abs(MODEL.predict(X) - TARGET).mean())


def test_a_group_is_shuffled_as_one(tmp_path):
    """Target x0 - x1, where x1 is x0 + 1: apart each matters, together they cancel."""
    x = np.column_stack([X[:, 0], X[:, 0] + 1])
    sets = [*(Columns("feature", name, [k]) for k, name in enumerate("ab"))]
    sets.append(Columns("group", "both", [0, 1]))
    found = permuted(x, x[:, 0] - x[:, 1], sets, ALL, lambda rows: rows[:, 0] - rows[:, 1])
    assert found[0].rise > 0.5 and found[1].rise == pytest.approx(found[0].rise)
    assert found[2].rise == pytest.approx(0, abs=1e-12)


def test_an_element_counts_its_own_rows_in_the_same_shuffles():
    """The rise on all rows is the mean of the rises on two halves of equally many rows."""
    masks = masks_of(["FeO"] * (N // 2) + ["Mg2Si"] * (N // 2 - 3) + ["?", "Ti", "Ti"])
    assert list(masks) == [None, "Fe", "Mg", "O", "Si"]
    assert masks["Fe"].sum() == 30 and masks["Mg"].sum() == 27
    halves = ALL | {"Fe": masks["Fe"], "Mg": ~masks["Fe"]}
    sets = [Columns("group", "first", [0, 1])]
    whole, *parts = permuted(X, TARGET, sets, halves, MODEL.predict)
    assert [one.element for one in parts] == ["Fe", "Mg"] and parts[0].n_rows == 30
    assert whole.rise == pytest.approx((parts[0].rise + parts[1].rise) / 2)
    assert whole.mae == pytest.approx((parts[0].mae + parts[1].mae) / 2)


def test_a_run_is_measured_on_val_and_test_and_written_by_aggregate(
    runs, alloys_pack, results, tmp_path
):
    found = importance_of(runs[0], "mixing_enthalpy", alloys_pack.parent)
    test = [one for one in found if (one.role, one.element) == ("test", None)]
    errors = stored(runs[0])
    n = test[0].n_rows
    first = np.abs(errors["prediction"] - errors["target"])[:n].mean()
    assert test[0].mae == pytest.approx(first, rel=1e-4)
    group = next(one for one in test if one.kind == "group")
    features = {one.name: one.rise for one in test if one.kind == "feature"}
    assert len(features) == 86 and group.rise > max(features.values()) > 0 == features["Xe"]
    report = make_tables(results, importance=True, pack_dir=alloys_pack.parent)
    report.write_tables(tmp_path)
    assert "By how much the test MAE rises" in (tmp_path / "mae.md").read_text()
    with (tmp_path / "importance.csv").open() as file:
        lines = list(csv.DictReader(file))
    written = {
        (line["role"], line["kind"], line["name"], line["element"]): float(line["mae_rise_mean"])
        for line in lines
    }
    assert written == {(one.role, one.kind, one.name, one.element or ""): one.rise for one in found}


def test_without_its_pack_a_model_is_named_in_the_notes(results, tmp_path):
    report = make_tables(results, importance=True, pack_dir=tmp_path)
    (note,) = [note for note in report.notes if "importances are not known" in note.heading]
    assert len(note.lines) == 1 and "alloys-small.h5 is missing" in note.lines[0]
    assert "importance" not in [section.name for section in report.sections]


def test_each_feature_and_each_group_is_a_set():
    sets = column_sets(["MagpieData mean Row", "Fe", "MagpieData mode Row", "own"])
    assert [tuple(one) for one in sets[4:]] == [
        ("group", "Row", [0, 2]),
        ("group", "fractions of the elements", [1]),
        ("group", "own", [3]),
    ]
