"""Features that hardly tell rows apart, constant targets, models worse than one number."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.network import Network
from irnet_hpc.models.normalisation import EPSILON, Groups, Normalise
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.spec import read_spec
from irnet_hpc.train.finish import warn_above_baseline
from irnet_hpc.train.regressor import IRNetRegressor
from irnet_hpc.train.run import Run
from irnet_hpc.train.scaling import fit
from tests.aggregate.results import write_run

pytestmark = pytest.mark.filterwarnings("ignore:.*training rows are few:UserWarning")
U = np.random.default_rng(0).random((80, 3))
Y = U @ [1.0, 2.0, 3.0] + 4
SPREAD = float(np.ptp(Y))


def statistics(x: list[float], group: int) -> Normalise:
    """Return one unit's normalisation, with its statistics from rows of a network of one layer."""
    network = Network(1, parse_layers("1BAx1-1")).double()
    layer = network.body[0]
    with torch.no_grad():
        layer.linear.weight.fill_(1)
        layer.linear.bias.zero_()
    rows = torch.tensor(x, dtype=torch.float64)[:, None]

    def run() -> int:
        network(rows, Groups(group, group))
        return len(rows)

    network.population_statistics(run, lambda: network(rows), lambda sums: sums)
    return layer.norm


def test_a_rare_feature_is_evaluated_at_the_size_that_it_had_in_its_group():
    """One of 32 rows is 1: mean 1/32, variance 31/1024; one of 8 groups of 4 has variance 3/16,
    so the mean square by group is 1/8 (but for EPSILON).
    """
    norm = statistics([0.0] * 5 + [1.0] + [0.0] * 26, group=4)
    seen = 3 / 16 / (3 / 16 + EPSILON) / 8
    assert norm.mean.item() == pytest.approx(1 / 32)
    assert norm.var.item() == pytest.approx(31 / 1024 / seen - EPSILON)
    value = norm(torch.ones(1, 1, dtype=torch.float64), None).item()
    assert value == pytest.approx(31 / 32 / (31 / 128) ** 0.5, rel=1e-3)  # 1.97; by group 1.73
    # With the variance of all rows it would be 5.6, and as much more in every further layer.


def test_ordinary_rows_keep_the_variance_over_all_rows_to_the_bit():
    x = [float(i * i % 37) for i in range(64)]
    norm = statistics(x, group=8)
    rows = torch.tensor(x, dtype=torch.float64)
    assert norm.var.item() == (rows.square().mean() - rows.mean() ** 2).item()


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5e8])
def test_a_unit_that_never_varied_gives_its_shift_whatever_it_gets(value):
    norm = statistics([value] * 16, group=4)
    with torch.no_grad():
        norm.bias.fill_(0.25)
    assert norm(torch.tensor([[value], [7.0], [1e6]]).double(), None).tolist() == [[0.25]] * 3


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("layers", ["16BAx8-1", "16BARx12-1"])
@pytest.mark.parametrize(
    "x",
    [np.ones((80, 3)), np.zeros((80, 2)), 1e9 + U, 1.76e9 + np.round(60 * U)],
    ids=["ones", "zeros", "one number in float32", "seconds of a minute"],
)
def test_features_that_tell_no_rows_apart_give_one_prediction(x, layers, precision):
    recipe = {"name": "m", "base": "onecycle", "precision": precision, "epochs": 4}
    model = IRNetRegressor(layers=layers, recipe=recipe).fit(x, Y)
    # Shortcuts show the output what the rows of training never showed.
    predicted = model.predict(x if "R" in layers else np.vstack([x, x + 3]))
    assert np.ptp(predicted) < 1e-9
    assert abs(predicted[0] - np.median(Y)) < SPREAD and model.best_mae_ < SPREAD


@pytest.mark.parametrize("row", [3, 40])
@pytest.mark.parametrize("layers", ["16BAx8-1", "16BARx12-1"])
def test_a_feature_that_singles_out_one_row_leaves_the_others_right(layers, row):
    x = (np.arange(80) == row).astype(float)[:, None]
    recipe = {"name": "m", "base": "onecycle", "epochs": 4}
    predicted = IRNetRegressor(layers=layers, recipe=recipe).fit(x, Y).predict(x)
    others = np.delete(predicted, row)
    assert np.ptp(others) < 1e-9 and abs(others[0] - np.median(Y)) < SPREAD


@pytest.mark.parametrize("base", ["paper", "onecycle", "ibrnet"])
@pytest.mark.parametrize("value", [5.3, 0.1, -1e6])
def test_a_constant_target_is_predicted_as_that_constant(base, value):
    model = IRNetRegressor(layers="8BAx2-1", recipe={"name": "m", "base": base, "epochs": 2})
    assert set(model.fit(U, np.full(80, value)).predict(U + 1)) == {value}
    assert model.best_mae_ == 0


def test_of_several_targets_the_constant_one_is_predicted_as_its_constant():
    target = np.array([[1.0, 7.1], [2.0, np.nan], [4.0, 7.1]])
    for name in ("paper", "onecycle"):
        scaling = fit(lambda: [np.ones((3, 2), np.float32)], 2, target, resolve(name), None)
        assert scaling.in_unit(np.array([[3.0, 3.0], [-9.0, 0.5]]))[:, 1].tolist() == [7.1, 7.1]
        assert np.isfinite(scaling.target(target)[[0, 2]]).all()


def finished(folder: Path, mae: float) -> tuple[Run, RunResult]:
    """Return a run and its result; the baseline's MAE is 0.5."""
    result = read_result(write_run(folder, mae) / "result.json")
    return Run(read_spec(result.spec), resolve("onecycle"), "", RunFolder(folder)), result


def test_a_model_far_worse_than_one_number_is_warned_about(tmp_path, caplog):
    run, result = finished(tmp_path, 0.4)
    with caplog.at_level(logging.WARNING):
        warn_above_baseline(run, result)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        warn_above_baseline(run, dataclasses.replace(result, val_mae=4e5))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and str(tmp_path) in record.getMessage()


def test_a_property_that_failed_is_warned_about_though_the_mean_with_another_is_not(
    tmp_path, caplog
):
    """0.1 and 2.4 beside a baseline of 0.5: on average 2.5 times the baseline's, but one is 4.8."""
    run, result = finished(tmp_path, 1.25)
    names = ("band_gap", "shear_modulus")
    run = dataclasses.replace(run, spec=dataclasses.replace(run.spec, property=",".join(names)))
    each = {"unit": "eV", "test_rmse": 3.0, "test_r2": None, "baseline_mae": 0.5}
    counts = {"n_train": 10, "n_val": 5, "n_test": 5}
    maes = dict(zip(names, (0.1, 2.4), strict=True))
    per_property = {
        name: each | counts | {"test_mae": mae, "val_mae": mae} for name, mae in maes.items()
    }
    result = dataclasses.replace(result, val_mae=1.25, per_property=per_property)
    assert result.times_baseline == 2.5 and not result.is_far_above_baseline
    with caplog.at_level(logging.WARNING):
        warn_above_baseline(run, result)
    (record,) = caplog.records
    assert "for shear_modulus: its MAE, 2.4 on test and 2.4 on val" in record.getMessage()
