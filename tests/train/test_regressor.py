"""IRNetRegressor is a scikit-learn regressor, and trains by the loop that everything else is
trained by.
"""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import make_friedman1
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

import irnet_hpc
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.errors import UserError
from irnet_hpc.features.transformer import FormulaFeaturizer
from irnet_hpc.runs.recipes import RECIPES, resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train.dataset import arrange
from irnet_hpc.train.evaluation import predict
from irnet_hpc.train.regressor import IRNetRegressor, shrunk
from tests import builders

SMALL = "16BARx2-1"
QUICK = {"name": "quick", "base": "onecycle", "precision": "fp32", "epochs": 10}
FP32 = {
    "name": "fp32",
    "base": "onecycle",
    "precision": "fp32",
    "batch": 32,
    "norm_group": 16,
    "epochs": 5,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*training rows are few:UserWarning")


@pytest.fixture(scope="module")
def friedman() -> tuple[np.ndarray, np.ndarray]:
    return make_friedman1(1200, noise=0.1, random_state=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    ("estimator", "check"),
    list(estimator_checks_generator(IRNetRegressor(layers=SMALL, recipe=QUICK), mark="skip")),
    ids=lambda value: value.func.__name__ if hasattr(value, "func") else "",
)
def test_it_is_a_scikit_learn_regressor(estimator, check):
    check(estimator)


@pytest.mark.slow
def test_an_irnet_learns_what_a_linear_model_cannot(friedman):
    X, y = friedman
    model = irnet_hpc.IRNetRegressor(
        "irnet", 10, {"name": "quick", "base": "onecycle", "epochs": 8}
    ).fit(X[:800], y[:800])
    linear = LinearRegression().fit(X[:800], y[:800])
    mae, of_linear = (
        np.abs(fitted.predict(X[800:]) - y[800:]).mean() for fitted in (model, linear)
    )
    assert mae < 0.6 * of_linear  # 1.9: the sine and the square are beyond it
    assert model.n_features_in_ == 10
    assert len(model.history_) == 8
    assert model.best_mae_ == min(row[4] for row in model.history_)


def test_it_is_the_training_that_packs_get(friedman):
    """The rows, the scaling and the selection that fit chose, handed to the loop by hand, give the
    same predictions.
    """
    X, y = friedman
    model = IRNetRegressor(layers=SMALL, recipe=FP32, random_state=3).fit(X, y)
    place = np.random.Generator(np.random.Philox(key=[3, 2**33])).permutation(1200)
    val, rows = np.sort(place[:120]), np.sort(place[120:])
    recipe, cpu = resolve(FP32), torch.device("cpu")
    parts = [(part, X[part].astype("f4"), y[part]) for part in (rows, val, val)]
    data = arrange(parts, recipe, cpu)
    spec = RunSpec("any", "y", recipe="fp32", seed=3, **model_of(SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("irnet_hpc.runs.folder.RunFolder.write_history", lambda *_: None)
        patch.setattr("irnet_hpc.runs.folder.RunFolder.append_history", lambda *_: None)
        network, state = builders.train(spec, recipe, "", data, Path("nowhere"), Alone(), cpu)
    assert [row[3:5] for row in state.history] == [row[3:5] for row in model.history_]
    np.testing.assert_allclose(
        model.predict(X[val]),
        predict(network, data.val, data, recipe, Alone()),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_small_table_gets_small_batches_and_is_told():
    with pytest.warns(
        UserWarning,
        match="160 training rows .* batch 8 and norm_group 8",
    ):
        recipe = shrunk(RECIPES["onecycle"], 160)
    assert (recipe.batch, recipe.norm_group) == (8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shrunk(RECIPES["onecycle"], 16 * 512) is RECIPES["onecycle"]
    with pytest.warns(UserWarning, match="batch 2 and norm_group 2"):
        shrunk(RECIPES["paper"], 3)


def test_a_seed_decides_and_a_fitted_model_can_be_kept(friedman):
    X, y = friedman
    one, same, other = (
        IRNetRegressor(layers=SMALL, recipe=FP32, random_state=seed).fit(X, y) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.predict(X), same.predict(X))
    assert np.abs(one.predict(X) - other.predict(X)).max() > 0.01
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).predict(X), one.predict(X))


def test_it_searches_its_grid_like_any_other(friedman):
    X, y = friedman
    search = GridSearchCV(
        IRNetRegressor(recipe=FP32), {"layers": ["4ARx1-1", "16BARx2-1"]}, cv=2
    ).fit(X[:400], y[:400])
    assert search.best_params_ == {"layers": "16BARx2-1"}


def test_what_it_cannot_take_is_one_sentence(friedman):
    X, y = friedman
    with pytest.raises(UserError, match=r"irnet has no depth 18; known: 10, 17, 24, 48"):
        IRNetRegressor(depth=18).fit(X, y)
    with pytest.raises(UserError, match=r"censored"):
        IRNetRegressor(recipe={"name": "cut", "base": "onecycle", "floor": "censored"}).fit(
            *friedman
        )
    with pytest.raises(UserError, match="unknown recipe 'onecycel'"):
        IRNetRegressor(layers=SMALL, recipe="onecycel").fit(X, y)
    with pytest.raises(ValueError, match="1"):
        IRNetRegressor(layers=SMALL, validation_fraction=1).fit(X, y)
    with pytest.raises(ValueError, match=r"features must be at most 3\.4e\+38"):
        IRNetRegressor(layers=SMALL).fit(X * 1e300, y)


def test_signals_stay_the_programs_own(friedman):
    X, y = friedman
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    IRNetRegressor(layers=SMALL, recipe=FP32).fit(X, y)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    code = """
import os, signal, threading
from sklearn.datasets import make_friedman1
from irnet_hpc import IRNetRegressor
threading.Timer(3, os.kill, (os.getpid(), signal.SIGTERM)).start()
recipe = {"name": "long", "base": "paper"}
IRNetRegressor(layers="256BARx4-1", recipe=recipe).fit(*make_friedman1(5000))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=os.environ, timeout=600)
    assert done.returncode == -signal.SIGTERM


def test_the_package_itself_needs_no_torch():
    code = (
        "import sys, irnet_hpc; assert 'torch' not in sys.modules; "
        "irnet_hpc.IRNetRegressor; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="IRNetRegresor"):
        irnet_hpc.IRNetRegresor  # noqa: B018


def test_a_regressor_pickled_before_the_package_had_folders_still_predicts():
    """Written by commit 9f999ca, fitted on this table; the predictions are those that it had."""
    path = Path(__file__).parent / "data" / "irnet_regressor_before_folders.pickle"
    model = pickle.loads(path.read_bytes())
    X = np.linspace(-1, 1, 120).reshape(40, 3)
    expected = [-0.54260238, -0.5039673, -0.46533221]
    np.testing.assert_allclose(model.predict(X)[:3], expected, rtol=1e-7)
    assert isinstance(model, IRNetRegressor)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict(X), model.predict(X))


def test_fits_in_threads_leave_the_output_and_the_log_of_the_program_as_they_were(friedman):
    x, y = friedman
    logger = logging.getLogger("irnet_hpc.train.loop")

    def state() -> tuple:
        handlers = list(logger.handlers)
        return sys.stdout, logger.level, logger.propagate, handlers, warnings.filters[:]

    recipe, predicted = QUICK | {"epochs": 2}, {}

    def fit(n_rows: int) -> None:
        model = IRNetRegressor(layers=SMALL, recipe=recipe, verbose=n_rows != 60)
        predicted[n_rows] = model.fit(x[:n_rows], y[:n_rows]).predict(x[:9])

    fit(60)  # libraries that are imported now add filters of warnings
    before = state()
    threads = [threading.Thread(target=fit, args=(n_rows,)) for n_rows in (60, 70, 80, 90)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = state()
    assert after == before
    for n_rows, together in list(predicted.items()):
        fit(n_rows)
        assert np.array_equal(predicted[n_rows], together)


FORMULAS = [f"Fe{i}O{j}" for i in range(1, 13) for j in range(1, 13)]


def test_formulas_go_through_pipelines_cross_validation_and_grid_searches():
    """From formulas alone, a network in a pipeline learns a rule that the median does not know."""
    share = np.array([i / (i + j) for i in range(1, 13) for j in range(1, 13)])
    y = 20 * share * (1 - share)
    recipe = FP32 | {"name": "small", "batch": 16, "epochs": 40, "learning_rate": 5e-3}
    network = IRNetRegressor(layers=SMALL, recipe=recipe)
    pipeline = make_pipeline(FormulaFeaturizer("elements"), network)
    folds = KFold(3, shuffle=True, random_state=0)
    errors = -cross_val_score(
        pipeline, FORMULAS, y, cv=folds, scoring="neg_mean_absolute_error", error_score="raise"
    )
    of_median = np.abs(y - np.median(y)).mean()
    assert len(errors) == 3 and errors.max() < 0.5 * of_median
    search = GridSearchCV(
        pipeline,
        {"irnetregressor__recipe": [recipe | {"epochs": 1, "name": "one"}, recipe]},
        cv=folds,
        scoring="neg_mean_absolute_error",
        error_score="raise",
    )
    search.fit(FORMULAS, y)
    assert search.best_params_["irnetregressor__recipe"]["epochs"] == 40
    assert search.predict(["FeO"])[0] == pytest.approx(5.0, abs=1.5)


def test_weights_of_rows_are_refused_by_name():
    with pytest.raises(TypeError, match="sample_weight"):
        make_pipeline(FormulaFeaturizer("elements"), IRNetRegressor(layers=SMALL)).fit(
            FORMULAS, np.ones(len(FORMULAS)), irnetregressor__sample_weight=np.ones(len(FORMULAS))
        )
