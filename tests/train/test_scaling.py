"""The scaling of features that training rows do not vary, by hand."""

import numpy as np
import pytest

from irnet_hpc import IRNetRegressor
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.train.scaling import fit

# Columns: varies; constant; constant 0; varies by rounding only.
TRAIN = np.array([[1, 300, 0, 1e9], [3, 300, 0, 1e9 + 64]], np.float32)
RECIPE = resolve("onecycle")


def scaling_of(x: np.ndarray, given=None):
    return fit(lambda: [x], x.shape[1], np.array([0.0, 1.0]), RECIPE, given)


def test_a_feature_that_training_rows_do_not_vary_is_0_whatever_it_is():
    scaling = scaling_of(TRAIN)
    np.testing.assert_array_equal(scaling.features(TRAIN), [[-1, 0, 0, 0], [1, 0, 0, 0]])
    other = np.array([[2, 3000, 1, 2e9], [5, -300, -7, 0]], np.float32)
    np.testing.assert_array_equal(scaling.features(other), [[0, 0, 0, 0], [3, 0, 0, 0]])


def test_a_start_scales_by_its_own_rows_what_its_origin_did_not_vary():
    own = np.array([[1, 300, 0, 1e9], [3, 500, 0, 1e9]], np.float32)
    scaling = scaling_of(own, scaling_of(TRAIN))
    assert scaling.feature_mean[:2].tolist() == [2, 400]
    assert scaling.feature_scale.tolist() == [1, 100, np.inf, np.inf]


@pytest.mark.parametrize("other", [300.0, 301.0, 3000.0, -1e6])
def test_predictions_do_not_depend_on_a_feature_that_training_did_not_show(other):
    random = np.random.default_rng(0)
    x = np.c_[random.normal(size=(64, 2)), np.full(64, 300.0)]
    recipe = {"name": "q", "base": "onecycle", "epochs": 2, "batch": 2, "norm_group": 2}
    model = IRNetRegressor(layers="8BARx1-1", recipe=recipe).fit(x, x[:, 0])
    moved = x.copy()
    moved[:, 2] = other
    np.testing.assert_array_equal(model.predict(moved), model.predict(x))
