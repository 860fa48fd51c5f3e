"""The scikit-learn transformer of formulas."""

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from irnet_hpc.errors import UserError
from irnet_hpc.features import FormulaFeaturizer, featurize

FORMULAS = [f"Fe{i}O{j}" for i in range(1, 7) for j in range(1, 6)]
SHARE_OF_OXYGEN = np.array([j / (i + j) for i in range(1, 7) for j in range(1, 6)])


def test_numbers_are_those_of_featurize():
    x = FormulaFeaturizer("magpie+elements").fit_transform(FORMULAS)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, featurize(FORMULAS, "magpie+elements").to_numpy())


@pytest.mark.parametrize(
    "column",
    [
        FORMULAS,
        np.array(FORMULAS),
        np.array(FORMULAS)[:, None],
        pandas.Series(FORMULAS),
        pandas.DataFrame({"any": FORMULAS}),
        pandas.DataFrame({"id": 1, "formula": FORMULAS}),
    ],
)
def test_formulas_come_as_any_column(column):
    x = FormulaFeaturizer("elements").fit(column).transform(column)
    np.testing.assert_array_equal(x, featurize(FORMULAS, "elements").to_numpy())


@pytest.mark.parametrize(
    "wrong", ["Fe2O3", np.array([["Fe", "O"]]), pandas.DataFrame({"a": ["Fe"], "b": ["O"]})]
)
def test_what_is_no_column_is_refused(wrong):
    with pytest.raises(UserError):
        FormulaFeaturizer().fit(wrong)


def test_clone_and_parameters():
    copy = clone(FormulaFeaturizer("ordered", errors="nan"))
    assert copy.get_params() == {"features": "ordered", "errors": "nan"}
    with pytest.raises(NotFittedError):
        copy.transform(FORMULAS)
    with pytest.raises(UserError):
        copy.set_params(features="magpi").fit(FORMULAS)


def test_names_of_features_and_pandas_output():
    featurizer = FormulaFeaturizer("elements").set_output(transform="pandas")
    column = pandas.Series(FORMULAS, index=range(100, 130))
    frame = featurizer.fit_transform(column)
    assert frame.columns.tolist() == featurizer.get_feature_names_out().tolist()
    assert frame.index.tolist() == column.index.tolist()
    assert frame["O"].to_numpy() == pytest.approx(SHARE_OF_OXYGEN)


def test_a_pipeline_and_a_grid_search_over_feature_sets():
    pipeline = make_pipeline(FormulaFeaturizer(), StandardScaler(), Ridge(1e-3))
    search = GridSearchCV(
        pipeline,
        {"formulafeaturizer__features": ["elements", "classes"]},
        cv=3,
        error_score="raise",
    )
    search.fit(FORMULAS, SHARE_OF_OXYGEN)
    assert search.best_params_ == {"formulafeaturizer__features": "elements"}
    np.testing.assert_allclose(search.predict(["FeO", "FeO3"]), [0.5, 0.75], atol=0.01)
    names = search.best_estimator_[:-1].get_feature_names_out()
    assert len(names) == 86


def test_unreadable_formulas_are_rows_of_nan_on_request():
    x = FormulaFeaturizer(errors="nan").fit_transform(["FeO", "Xx"])
    assert np.isnan(x).all(axis=1).tolist() == [False, True]
