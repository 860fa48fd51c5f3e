"""Predictions of all models of a task, averaged over runs."""

import numpy as np
import pytest

from irnet_hpc.aggregate.predicted import names_of, points_of
from irnet_hpc.aggregate.task_results import tasks_with_all_results
from irnet_hpc.runs.predictions import FILE, Predictions
from irnet_hpc.runs.recipes import RECIPES
from tests.aggregate.results import described, tables_of, write_predictions, write_run, write_split


def points_in(results):
    predictions = Predictions()
    found = [points_of(task, predictions) for task in tasks_with_all_results(tables_of(results))]
    return [points for points in found if points]


def test_a_point_is_the_mean_over_runs_of_prediction_and_absolute_error(tmp_path):
    """Errors 0.1 and -0.3: the mean prediction is 0.1 too low, and the mean error 0.2."""
    write_predictions(write_run, tmp_path, [0.1, 0.2], seed=0)
    write_predictions(write_run, tmp_path, [-0.3, 0.2], seed=1)
    write_predictions(write_run, tmp_path, [0.5, -0.5], "random_forest")
    (points,) = points_in(tmp_path)
    assert points.material_id.tolist() == ["m0-0", "m0-1"]
    assert points.target.tolist() == [1.0, 2.0]
    network, forest = points.models
    assert (network.name, network.n_runs) == ("IRNet-17", 2)
    assert network.prediction == pytest.approx([0.9, 2.2])
    assert network.error == pytest.approx([0.2, 0.2])
    assert network.error.mean() == pytest.approx(network.result.score.mae)
    assert (forest.name, forest.prediction.tolist()) == ("Random forest", [1.5, 1.5])


def test_splits_with_other_test_rows_add_materials_and_equal_ones_are_averaged(tmp_path):
    write_predictions(write_split, tmp_path, [0.1, 0.2])
    write_predictions(write_split, tmp_path, [0.3, 0.4], 1)  # the same rows in another split
    write_predictions(write_split, tmp_path, [0.5], 2, rows=1)
    (points,) = points_in(tmp_path)
    assert points.material_id.tolist() == ["m0-0", "m0-1", "m1-0"]
    (model,) = points.models
    assert model.error == pytest.approx([0.2, 0.3, 0.5])


def test_rows_that_a_model_lacks_are_nan_and_equal_rows_are_kept_apart(tmp_path):
    """Two rows of one id, formula and target; the forest, on other features, has only the first."""
    for model, n in (("irnet-17", 3), ("random_forest", 2)):
        folder = write_predictions(write_run, tmp_path, [0.1] * n, model, val_mae=0.1)
        arrays = dict(np.load(folder / FILE))
        arrays["material_id"] = np.array(["a", "b", "a"])[:n]
        arrays["formula"] = np.array(["FeO", "MgO", "FeO"])[:n]
        arrays["target"] = np.array([1.0, 2.0, 1.0])[:n]
        arrays["prediction"] = arrays["target"] + 0.1
        np.savez(folder / FILE, **arrays)
    (points,) = points_in(tmp_path)
    assert points.formula.tolist() == ["FeO", "MgO", "FeO"]
    by_name = {model.name: model.prediction for model in points.models}
    assert by_name["IRNet-17"] == pytest.approx([1.1, 2.1, 1.1])
    assert by_name["Random forest"] == pytest.approx([1.1, 2.1, np.nan], nan_ok=True)


def test_every_model_of_a_table_has_points_and_those_not_compared_say_why(tmp_path):
    write_predictions(write_run, tmp_path, [0.2] * 4, val_mae=0.2)
    write_predictions(
        *(write_run, tmp_path, [0.1] * 4), protocol="paper", recipe=RECIPES["paper"], val_mae=None
    )
    write_run(tmp_path, 0.3, "plain-17", n_test=4)
    (points,) = points_in(tmp_path)
    assert [model.name for model in points.models] == [
        "IRNet-17, onecycle",
        "IRNet-17, paper, selected on test",
    ]
    assert points.unread == ("Plain-17",)


def test_names_have_only_the_settings_that_tell_results_apart(tmp_path):
    write_run(tmp_path, 0.1, val_mae=0.1, **described("magpie"))
    write_run(tmp_path, 0.2, val_mae=0.2, **described("elements"))
    write_run(tmp_path, 0.3, "plain-17", val_mae=0.3, **described("magpie"))
    (task,) = tasks_with_all_results(tables_of(tmp_path))
    assert names_of(task.results) == ["IRNet-17, magpie", "IRNet-17, elements", "Plain-17"]
