"""A scikit-learn transformer from formulas to features."""

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from irnet_hpc.errors import UserError
from irnet_hpc.features.frame import featurize, parse_formula_sets

if TYPE_CHECKING:
    import pandas


class FormulaFeaturizer(TransformerMixin, BaseEstimator):
    """Transform chemical formulas into features.

    Fitting learns nothing: the features of a row depend only on its formula.

        make_pipeline(FormulaFeaturizer("magpie+elements"), StandardScaler(), Ridge())

    Attributes:
        features: feature sets of formulas, as `featurize` takes them.
        errors: `raise` refuses formulas without features; `nan` gives them rows of NaN.
        feature_names_out_: labels of the features, after `fit`.
    """

    def __init__(self, features: str = "magpie", errors: str = "raise") -> None:
        self.features = features
        self.errors = errors

    def fit(self, X: Any, y: Any = None) -> "FormulaFeaturizer":
        """Check the feature sets and the shape of `X`. Raises UserError for unknown sets.

        Args:
            X: n_rows formulas: a list, a Series, or an array or DataFrame of one column. If a
                DataFrame has several columns, the column named `formula` is used.
            y: ignored.
        """
        parse_formula_sets(self.features)
        formula_column(X)
        self.feature_names_out_ = list(featurize([], self.features).columns)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute (n_rows, n_features) float32. Raises UserError, listing unreadable formulas."""
        check_is_fitted(self)
        return featurize(formula_column(X), self.features, self.errors).to_numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the labels of the features; `input_features` is ignored."""
        check_is_fitted(self)
        return np.array(self.feature_names_out_, object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.no_validation = True
        return tags


def formula_column(X: "pandas.DataFrame | Any") -> list[Any]:
    """Return the formulas in `X`. Raises UserError if `X` is not one column of formulas."""
    if hasattr(X, "columns"):
        name = "formula" if "formula" in X.columns else X.columns[0]
        if name != "formula" and len(X.columns) > 1:
            raise UserError(
                f"formulas must be one column, or one named formula, got {len(X.columns)} columns"
            )
        return X[name].tolist()
    if isinstance(X, str):
        raise UserError(f"formulas must be a list or a column, got the text {X!r}")
    values = np.asarray(X, object)
    if values.ndim != 1 and not (values.ndim == 2 and values.shape[1] == 1):
        raise UserError(f"formulas must be one column, got an array of shape {values.shape}")
    return values.ravel().tolist()
