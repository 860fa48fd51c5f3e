"""The loop: golden losses, and epochs next to plain torch, stopped and continued."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.dropout import dropout_noise
from irnet_hpc.models.network import Network
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.classical_grids import GRIDS
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train import loop as training
from irnet_hpc.train.classical import predictions
from irnet_hpc.train.dataset import epoch_order, load
from irnet_hpc.train.evaluation import predict
from tests import builders
from tests.builders import StopAfter
from tests.train.trainings import CPU, in_process


def test_the_golden_losses_of_this_training_version(alloys_pack, tmp_path):
    """Where this fails because the numerics were meant to change: raise runs.TRAINING_VERSION, and
    renew the numbers.
    """
    _, state = in_process(alloys_pack, tmp_path)
    golden = [
        (0.5086221385, 0.4748094509),
        (0.3671087348, 0.3707968295),
        (0.2910204303, 0.3478077280),
    ]
    np.testing.assert_allclose([row[3:5] for row in state.history], golden, rtol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_step_is_adam_on_the_mean_absolute_error_of_the_batch(alloys_pack, tmp_path, dropout):
    """Three epochs of the reference's recipe without normalisation, next to torch's own Linear,
    ReLU, L1 and Adam.
    """
    recipe = resolve(
        {
            "name": "plain",
            "base": "paper",
            "precision": "fp64",
            "batch": 32,
            "epochs": 3,
            "patience": 0,
        }
    )
    layers = f"16Ax2D{dropout}-1" if dropout else "16Ax2-1"
    spec = RunSpec("pack", "mixing_enthalpy", **model_of(layers), seed=5)
    with open_pack(alloys_pack) as pack:
        data = load(pack, spec, recipe, CPU)
        x = torch.from_numpy(pack.x(pack.rows("train"))).double()
        y = torch.from_numpy(pack.y("mixing_enthalpy", pack.rows("train")))
    _, state = builders.train(spec, recipe, "key", data, tmp_path, Alone(), CPU)

    ours = Network(x.shape[1], parse_layers(layers)).double()
    ours.initialise(5)
    one, two, last = (m for m in ours.modules() if isinstance(m, torch.nn.Linear))
    adam = torch.optim.Adam(ours.parameters(), lr=1e-4)
    for epoch in range(3):
        order, total, n_steps = epoch_order(data.train.row, 5, epoch), 0.0, len(y) // 32
        for i in range(n_steps):
            rows = order[32 * i : 32 * (i + 1)]
            z = torch.relu(two(torch.relu(one(x[rows]))))
            noise = dropout_noise(5, epoch * n_steps + i, slice(0, 32), 16, CPU)
            kept = noise.double() >= 65536 * dropout - 32768
            loss = torch.nn.functional.l1_loss(last(z * kept / (1 - dropout))[:, 0], y[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.item() / n_steps
        assert state.history[epoch][3] == pytest.approx(total, rel=1e-9)
    assert state.history[2][4] == pytest.approx(
        validation_error(alloys_pack, one, two, last), rel=1e-9
    )


@pytest.fixture(scope="module")
def gaps_pack(alloys_pack, tmp_path_factory) -> Path:
    """200 band gaps, of which about half are zero, as functions of the fractions."""
    folder = tmp_path_factory.mktemp("gaps")
    with open_pack(alloys_pack) as pack:
        rows = slice(0, pack.n_rows)  # of all three splits
        gaps = np.maximum(
            0, pack.x(rows) @ np.random.default_rng(0).normal(size=pack.n_features) - 0.2
        )
        table = [
            f"{formula},{gap:.6f}" for formula, gap in zip(pack.formulas(rows), gaps, strict=True)
        ][::3]
    (folder / "gaps.csv").write_text("\n".join(["formula,band_gap", *table]))
    options = [
        "--source",
        folder / "gaps.csv",
        "--features",
        "elements",
        "--name",
        "gaps",
        "--workers",
        "1",
    ]
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.pack",
        *map(str, options),
        "--pack-dir",
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "gaps.h5"


def test_of_a_gap_of_zero_every_prediction_below_is_right_and_none_is_given_out(
    gaps_pack, tmp_path
):
    """The best of twenty epochs next to torch's own layers, whose loss is written as the two cases
    of Tobin's censored regression.
    """
    fields = {
        "precision": "fp64",
        "batch": 32,
        "epochs": 20,
        "patience": 0,
        "learning_rate": 3e-2,
        "target": "standard",
    }
    recipe = resolve({"name": "censored", "base": "paper", "floor": "censored"} | fields)
    spec = RunSpec("pack", "band_gap", **model_of("16Ax1-1"), seed=5)
    with open_pack(gaps_pack) as pack:
        data = load(pack, spec, recipe, CPU)
        x = torch.from_numpy(pack.x(pack.rows("train"))).double()
        gap = torch.from_numpy(pack.y("band_gap", pack.rows("train")))
    assert data.scaling.floor == 0 and 0.2 < float((gap == 0).double().mean()) < 0.8
    network, state = builders.train(spec, recipe, "key", data, tmp_path, Alone(), CPU)

    ours = Network(x.shape[1], parse_layers("16Ax1-1")).double()
    ours.initialise(5)
    one, last = (m for m in ours.modules() if isinstance(m, torch.nn.Linear))
    adam, scale = torch.optim.Adam(ours.parameters(), lr=3e-2), float(gap.std(correction=0))
    for epoch in range(state.best_epoch + 1):  # that of the weights that are kept
        order = epoch_order(data.train.row, 5, epoch)
        for i in range(len(gap) // 32):
            rows = order[32 * i : 32 * (i + 1)]
            prediction = last(torch.relu(one(x[rows])))[:, 0] * scale + gap.mean()
            of_zero, of_others = prediction.clamp(min=0), (prediction - gap[rows]).abs()
            adam.zero_grad()
            (torch.where(gap[rows] == 0, of_zero, of_others).mean() / scale).backward()
            adam.step()
    for name, tensor in ours.state_dict().items():
        np.testing.assert_allclose(network.state_dict()[name], tensor, rtol=1e-7, atol=1e-9)
    prediction = predict(network, data.val, data, recipe, Alone())
    assert prediction.min() == 0  # somewhere the network says less
    assert state.best_mae == pytest.approx(np.abs(prediction - data.val.target).mean(), rel=1e-12)


def validation_error(pack_file: Path, *linears: torch.nn.Linear) -> float:
    """MAE on the validation rows, where nothing is dropped."""
    with open_pack(pack_file) as pack, torch.no_grad():
        x = torch.from_numpy(pack.x(pack.rows("val"))).double()
        y = torch.from_numpy(pack.y("mixing_enthalpy", pack.rows("val")))
        for linear in linears[:-1]:
            x = torch.relu(linear(x))
        return float((linears[-1](x)[:, 0] - y).abs().mean())


def test_dropout_and_plateaus_go_on_bit_for_bit_where_a_signal_stopped_them(
    alloys_pack, tmp_path, monkeypatch
):
    """Stopped within the first epoch and again after the rate has fallen twice, by a threshold that
    no epoch passes.
    """
    changes = {
        "schedule": "plateau",
        "plateau_patience": 2,
        "plateau_factor": 0.5,
        "plateau_threshold": 1e6,
        "epochs": 8,
    }
    changes |= {"batch": 16, "norm_group": 16, "ema": 0.0, "precision": "fp32"}
    layers = "32L0.3Rx2+1D0.3-16BAD0.1-1"
    undisturbed, state = in_process(alloys_pack, tmp_path / "a", layers, **changes)
    n_steps = state.step // 8
    rates = [2e-3 * 0.5**n for n in (0, 0, 0, 1, 1, 2, 2, 3)]
    assert [row[2] for row in state.history] == pytest.approx(rates)

    stops = iter([16, 6 * n_steps - 20, 10**9])
    monkeypatch.setattr(builders, "NeverStop", lambda: StopAfter(next(stops)))
    assert in_process(alloys_pack, tmp_path / "b", layers, **changes) is None
    assert in_process(alloys_pack, tmp_path / "b", layers, **changes) is None
    resumed, again = in_process(alloys_pack, tmp_path / "b", layers, **changes)
    assert [row[:5] for row in again.history] == [row[:5] for row in state.history]
    for one, two in zip(undisturbed.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_decay_by_epochs_is_the_weight_decay_that_reaches_back_so_many_of_them(
    alloys_pack, tmp_path
):
    """By hand: 448 rows are 7 steps of 64; at a rate of 2e-3, 10 epochs of them are 1 / (2e-3 * 70)
    = 50/7 of decay.
    """
    with open_pack(alloys_pack) as pack:
        assert pack.n_train // 64 == 7
    _, by_epochs = in_process(alloys_pack, tmp_path / "a", weight_decay=0, decay_epochs=10)
    _, by_step = in_process(alloys_pack, tmp_path / "b", weight_decay=50 / 7)
    _, without = in_process(alloys_pack, tmp_path / "c", weight_decay=0)
    maes = [[row[3:5] for row in state.history] for state in (by_epochs, by_step, without)]
    np.testing.assert_allclose(maes[0], maes[1], rtol=1e-12)
    assert np.abs(np.subtract(maes[0], maes[2])).max() > 1e-3


def test_training_stops_when_the_selection_error_no_longer_falls_and_keeps_the_best(
    alloys_pack, tmp_path
):
    _, state = in_process(
        alloys_pack,
        tmp_path,
        schedule="constant",
        learning_rate=0.05,
        epochs=500,
        patience=5,
        ema=0.0,
    )
    maes = [row[4] for row in state.history]
    assert state.epoch == len(maes) < 500
    assert state.best_epoch == int(np.argmin(maes)) == len(maes) - 6
    assert state.best_mae == min(maes)


def test_an_error_that_is_not_finite_where_the_epoch_is_selected_is_not_a_result(
    alloys_pack, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        training, "outputs", lambda network, rows, *_: np.full((1, len(rows), 1), np.nan)
    )
    with pytest.raises(UserError, match="rows that select the epoch is not finite after epoch 1"):
        in_process(alloys_pack, tmp_path)


def test_the_average_of_the_weights_follows_from_the_first_epoch_on(alloys_pack, tmp_path):
    """Epochs of one step: the evaluated average is never the untrained network."""
    _, state = in_process(alloys_pack, tmp_path, batch=448, norm_group=32, epochs=3)
    assert len({row[4] for row in state.history}) == 3


def test_a_loss_that_is_not_finite_is_a_sentence_with_the_step_and_the_rate(alloys_pack, tmp_path):
    with pytest.raises(UserError, match=r"no longer finite at step \d+ .*learning rate"):
        in_process(
            alloys_pack,
            tmp_path,
            "64x30-1",
            schedule="constant",
            learning_rate=10.0,
            loss="mse",
            precision="fp32",
            epochs=40,
        )


@pytest.mark.parametrize("recipe", ["paper", "onecycle", "ibrnet", "ridge", "decision_tree"])
def test_no_model_predicts_below_the_floor_of_its_property(gaps_pack, recipe):
    """Models that say -1 for every row, in units of the scaled target, next to a floor of 0."""
    classical = recipe in GRIDS
    record = GRIDS[recipe] if classical else resolve({"name": "m", "base": recipe, "batch": 32,
                                                      "norm_group": 32})  # fmt: skip
    model = {"architecture": recipe, "recipe": "grid"} if classical else model_of("16Ax1-1")
    with open_pack(gaps_pack) as pack:
        data = load(pack, RunSpec("pack", "band_gap", **model), record, CPU)
    if classical:
        below = type("Below", (), {"predict": lambda self, x: np.full(len(x), -9.0)})()
        predicted = predictions(below, data, data.test)
    else:
        network = Network(data.test.n_features, parse_layers("16Ax1-1"))
        with torch.no_grad():
            network.output.weight.zero_()
            network.output.bias.fill_(-9.0)
        predicted = predict(network, data.test, data, record, Alone())
    assert len(predicted) == len(data.test) and set(predicted) == {0.0}
