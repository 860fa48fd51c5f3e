"""Several properties in one network: against plain torch, scikit-learn, and the network of one
property.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from irnet_hpc.console import exit_status
from irnet_hpc.data.properties import floor_of
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.errors import UserError
from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.network import Network
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.spec import RunSpec, model_of, run_folder
from irnet_hpc.train import cli as train
from irnet_hpc.train import loop as training
from irnet_hpc.train import stack as replicas
from irnet_hpc.train.dataset import arrange, epoch_order, load
from irnet_hpc.train.evaluation import predict
from irnet_hpc.train.joint import equal_shares, loss_weights, relative_errors, spreads
from irnet_hpc.train.regressor import IRNetRegressor
from tests import builders
from tests.builders import StopAfter
from tests.train.trainings import CPU, command, run

BOTH = ("mixing_enthalpy", "size_mismatch")
NAN = np.nan


@pytest.fixture(scope="module")
def finished(gaps_pack, tmp_path_factory):
    """A run folder and what its command printed."""
    results = tmp_path_factory.mktemp("finished")
    done = run(gaps_pack, results, property=",".join(BOTH))
    assert done.returncode == 0, done.stderr
    return next(results.rglob("result.json")).parent, done.stdout


def targets(pack_file: Path, role: str, names: tuple = BOTH) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets (n, n_properties) of the rows that report one of the properties."""
    with open_pack(pack_file) as pack:
        x, y = (
            pack.x(pack.rows(role)),
            np.column_stack([pack.y(name, pack.rows(role)) for name in names]),
        )
    used = np.array([not all(np.isnan(row)) for row in y])
    return x[used], y[used]


def in_process(
    pack_file: Path, path: Path, names: tuple = BOTH, layers: str = "32BARx2-1", **changes
):
    torch.set_num_threads(1)
    base = {
        "name": "t",
        "base": "onecycle",
        "precision": "fp64",
        "batch": 32,
        "norm_group": 32,
        "epochs": 3,
    }
    recipe = resolve(base | changes)
    spec = RunSpec("pack", ",".join(names), **model_of(layers))
    with open_pack(pack_file) as pack:
        data = load(pack, spec, recipe, CPU)
    return builders.train(spec, recipe, "key", data, path, Alone(), CPU)


def test_a_floor_is_that_of_its_property_alone(gaps_pack, tmp_path):
    """Of the two only the size mismatch has one, 0; a target below it would be met by all that is
    predicted below.
    """
    recipe = resolve(
        {
            "name": "t",
            "base": "onecycle",
            "floor": "censored",
            "batch": 32,
            "norm_group": 32,
            "epochs": 2,
        }
    )
    spec = RunSpec("pack", ",".join(BOTH), **model_of("32BARx2-1"))
    with open_pack(gaps_pack) as pack:
        data = load(pack, spec, recipe, CPU)
    assert data.scaling.floor.tolist() == [-np.inf, 0.0] and data.scaling.spread is not None
    network, _ = builders.train(spec, recipe, "key", data, tmp_path, Alone(), CPU)
    with torch.no_grad():
        network.output.bias -= 100.0
    prediction = predict(network, data.test, data, recipe, Alone())
    assert (prediction[:, 1] == 0).all() and (prediction[:, 0] < -1).all()


def test_weights_and_relative_errors_are_those_worked_out_by_hand():
    target = np.array([[1.0, NAN], [2.0, NAN], [3.0, 5.0], [6.0, 9.0]])
    assert equal_shares(target).tolist() == loss_weights(target).tolist() == [4 / 4 / 2, 4 / 2 / 2]
    assert spreads(target).tolist() == [
        pytest.approx(3.5**0.5),
        2.0,
    ]  # mean 3: (4 + 1 + 0 + 9) / 4; mean 7: (4 + 4) / 2
    assert spreads(np.array([[1.0], [1.0], [NAN]])).tolist() == [1.0]
    target = np.array([[1.0, NAN], [1.0, NAN], [NAN, 1.0], [1.0, 1.0]])
    prediction = np.array([[3.0, 7.0], [-3.0, 7.0], [7.0, 4.0], [7.0, -4.0]])
    rows = relative_errors(prediction, target, np.array([2.0, 4.0]))
    assert rows.mean() == pytest.approx((4.0 / 2 + 4.0 / 4) / 2)  # MAEs 4 and 4, by 2 and 4
    np.testing.assert_allclose(
        rows, [2 / 3, 4 / 3, 3 / 4, 2 + 5 / 4]
    )  # a value counts 4 / 3 / 2 / 2, or 4 / 2 / 2 / 4


@pytest.mark.parametrize(("loss", "scaling"), [("mae", "standard"), ("mse", "raw")])
def test_a_step_is_adam_on_each_property_s_reported_values(gaps_pack, tmp_path, loss, scaling):
    """Three epochs next to torch's own Linear, ReLU, losses and Adam, a property at a time on the
    rows that report it.
    """
    recipe = resolve({
        "name": "plain", "base": "paper", "precision": "fp64", "epochs": 3, "patience": 0,
        "loss": loss, "target": scaling,
    })  # fmt: skip
    spec = RunSpec("pack", ",".join(BOTH), **model_of("16Ax2-1"), seed=5)
    with open_pack(gaps_pack) as pack:
        data = load(pack, spec, recipe, CPU)
    _, state = builders.train(spec, recipe, "key", data, tmp_path, Alone(), CPU)

    (x, y), (x_val, y_val) = targets(gaps_pack, "train"), targets(gaps_pack, "val")
    assert len(y) == len(data.train) < 500 and np.isnan(y).any(0).all()
    ours = Network(x.shape[1], parse_layers("16Ax2-2")).double()
    ours.initialise(5)
    one, two, last = (m for m in ours.modules() if isinstance(m, torch.nn.Linear))
    adam = torch.optim.Adam(ours.parameters(), lr=1e-4)
    mean, sd = np.nanmean(y, 0), np.nanstd(y, 0)
    shift, scale = (mean, sd) if scaling == "standard" else (np.zeros(2), np.ones(2))
    of_error = {"mae": torch.nn.functional.l1_loss, "mse": torch.nn.functional.mse_loss}[loss]

    def outputs(x: np.ndarray) -> torch.Tensor:
        return last(torch.relu(two(torch.relu(one(torch.from_numpy(x).double())))))

    for epoch in range(3):
        order, seen = epoch_order(data.train.row, 5, epoch), [[], []]
        for i in range(len(y) // 32):
            rows = order[32 * i : 32 * (i + 1)]
            out, total = outputs(x[rows]), 0.0
            for p in (0, 1):
                reported = ~np.isnan(y[rows, p])
                wanted = torch.from_numpy((y[rows, p][reported] - shift[p]) / scale[p])
                weight = len(y) / (~np.isnan(y[:, p])).sum() / 2
                total = total + weight * of_error(out[reported, p], wanted, reduction="sum") / 32
                seen[p] += (scale[p] / sd[p] * (out[reported, p] - wanted).abs()).tolist()
            adam.zero_grad()
            total.backward()
            adam.step()
        assert state.history[epoch][3] == pytest.approx(
            (np.mean(seen[0]) + np.mean(seen[1])) / 2, rel=1e-9
        )
        predicted = outputs(x_val).detach().numpy() * scale + shift
        errors = np.abs(np.maximum(predicted, [floor_of(name) for name in BOTH]) - y_val)
        assert state.history[epoch][4] == pytest.approx(
            np.mean(np.nanmean(errors, 0) / sd), rel=1e-9
        )


def test_a_property_and_its_copy_are_trained_like_the_property_alone(
    gaps_pack, tmp_path, monkeypatch
):
    """Adam does not see that each of the two equal outputs has half the gradient; the trunk has the
    same in sum.
    """

    class Twice(Network):
        def initialise(self, seed: int) -> None:
            super().initialise(seed)
            alone = Network(86, parse_layers("32BARx2-1")).double()
            alone.initialise(seed)
            with torch.no_grad():
                for parameter, other in zip(self.parameters(), alone.parameters(), strict=True):
                    parameter.copy_(other)  # one output's weights into both

    _, alone = in_process(gaps_pack, tmp_path / "a", BOTH[:1])
    monkeypatch.setattr(replicas, "Network", Twice)
    network, joint = in_process(gaps_pack, tmp_path / "b", ("mixing_enthalpy", "copy"))
    _, y = targets(gaps_pack, "train", BOTH[:1])
    relative, own = (np.array([row[3:5] for row in state.history]) for state in (joint, alone))
    np.testing.assert_allclose(relative * y.std(), own, rtol=1e-6)
    assert torch.equal(*network.output.weight)


def test_another_unit_of_a_property_changes_nothing(gaps_pack, tmp_path):
    """In units 1024 times smaller, which a double holds exactly, every loss and every weight is the
    same.
    """
    recipe = resolve(
        {
            "name": "t",
            "base": "onecycle",
            "precision": "fp64",
            "batch": 32,
            "norm_group": 32,
            "epochs": 2,
        }
    )
    spec, outcomes = RunSpec("pack", ",".join(BOTH), **model_of("32BARx2-1")), []
    for factor in (1.0, 1024.0):
        roles = []
        for role in ("train", "val", "test"):
            x, y = targets(gaps_pack, role)
            roles.append((np.arange(len(y)), x, y * [1.0, factor]))
        data = arrange(roles, recipe, CPU)
        outcomes.append(
            builders.train(spec, recipe, "key", data, tmp_path / f"{factor}", Alone(), CPU)
        )
    (one, first), (two, second) = outcomes
    assert [row[:5] for row in first.history] == [row[:5] for row in second.history]
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), two.parameters(), strict=True))


def test_the_metrics_of_each_property_are_those_of_scikit_learn(finished, gaps_pack):
    folder, printed = finished
    result = read_result(folder / "result.json")
    with np.load(folder / "test_predictions.npz", allow_pickle=False) as file:
        target, prediction, names = file["target"], file["prediction"], file["property"]
        assert file["formula"].shape == file["material_id"].shape == (len(target),)
    (_, train_y), (_, val_y), (_, test_y) = (
        targets(gaps_pack, role) for role in ("train", "val", "test")
    )
    assert tuple(names) == tuple(result.per_property) == BOTH
    np.testing.assert_array_equal(target, test_y)
    assert np.array_equal(np.isnan(target), np.isnan(prediction))
    sd = np.nanstd(train_y, 0)
    for p, (name, unit) in enumerate(zip(BOTH, ("eV/atom", "%"), strict=True)):
        found, known = result.per_property[name], ~np.isnan(target[:, p])
        pair = target[known, p], prediction[known, p]
        assert (
            found["unit"] == unit and f"{name}: test MAE {found['test_mae']:.4g} {unit}" in printed
        )
        assert found["test_mae"] == pytest.approx(mean_absolute_error(*pair), rel=1e-12)
        assert found["test_rmse"] == pytest.approx(root_mean_squared_error(*pair), rel=1e-12)
        assert found["test_r2"] == pytest.approx(r2_score(*pair), rel=1e-12)
        assert found["baseline_mae"] == pytest.approx(
            np.abs(pair[0] - np.nanmedian(train_y[:, p])).mean()
        )
        counts = [int((~np.isnan(y[:, p])).sum()) for y in (train_y, val_y, test_y)]
        assert [found[count] for count in ("n_train", "n_val", "n_test")] == counts
    for field in ("test_mae", "test_rmse", "baseline_mae", "val_mae"):
        relative = np.mean(
            [result.per_property[name][field] / sd[p] for p, name in enumerate(BOTH)]
        )
        assert getattr(result, field) == pytest.approx(relative, rel=1e-6)
    assert (result.unit, result.n_train, result.n_test) == ("relative", len(train_y), len(test_y))
    history = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()[1:]]
    assert result.val_mae == min(float(line[4]) for line in history)
    assert folder.parts[-5] == "mixing_enthalpy,size_mismatch"


def test_a_stored_joint_model_gives_the_stored_predictions(finished, gaps_pack):
    folder, _ = finished
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["irnet_hpc"])
    _, y = targets(gaps_pack, "train")
    assert facts["unit"] == ["eV/atom", "%"] and facts["spec"]["property"] == ",".join(BOTH)
    np.testing.assert_allclose(facts["target_mean"], np.nanmean(y, 0))
    np.testing.assert_allclose(facts["target_scale"], np.nanstd(y, 0))
    network = Network(86, parse_layers(facts["layers"])._replace(n_outputs=2)).double()
    network.load_state_dict(
        {name.removeprefix("network."): t for name, t in tensors.items() if "network" in name}
    )
    x, y = targets(gaps_pack, "test")
    scaled = (torch.from_numpy(x) - tensors["feature_mean"]) / tensors["feature_scale"]
    with torch.no_grad():
        outputs = network(scaled.clamp(-facts["clip"], facts["clip"])).numpy()
    prediction = outputs * facts["target_scale"] + facts["target_mean"]
    with np.load(folder / "test_predictions.npz") as file:
        np.testing.assert_allclose(
            np.where(np.isnan(y), NAN, prediction), file["prediction"], rtol=2e-3, atol=2e-4
        )


def test_a_run_goes_on_bit_for_bit_where_a_signal_stopped_it(gaps_pack, tmp_path, monkeypatch):
    changes = {"batch": 16, "norm_group": 16, "precision": "fp32", "epochs": 4}
    undisturbed, state = in_process(gaps_pack, tmp_path / "a", **changes)
    stops = iter([16, state.step // 4 * 2 + 20, 10**9])
    monkeypatch.setattr(builders, "NeverStop", lambda: StopAfter(next(stops)))
    assert in_process(gaps_pack, tmp_path / "b", **changes) is None
    assert in_process(gaps_pack, tmp_path / "b", **changes) is None
    resumed, again = in_process(gaps_pack, tmp_path / "b", **changes)
    assert [row[:5] for row in again.history] == [row[:5] for row in state.history]
    assert all(
        torch.equal(*pair)
        for pair in zip(undisturbed.parameters(), resumed.parameters(), strict=True)
    )


def test_protocol_paper_selects_on_the_relative_error_of_test_and_has_one_optimism(
    gaps_pack, tmp_path
):
    assert run(gaps_pack, tmp_path, property=",".join(BOTH), protocol="paper").returncode == 0
    result = read_result(next(tmp_path.rglob("result.json")))
    maes = [
        float(line.split(",")[4])
        for line in next(tmp_path.rglob("history.csv")).read_text().splitlines()[1:]
    ]
    assert result.test_mae == pytest.approx(min(maes), rel=1e-6) and result.selected_on == "test"
    assert result.val_mae is None and np.isfinite(result.optimism)
    assert [of["val_mae"] for of in result.per_property.values()] == [None, None]
    assert [of["n_val"] for of in result.per_property.values()] == [0, 0] and result.n_val == 0


def test_a_prediction_that_is_not_finite_is_no_unreported_value(gaps_pack, tmp_path, monkeypatch):
    monkeypatch.setattr(
        training, "outputs", lambda network, rows, *_: np.full((1, *rows.target.shape), np.nan)
    )
    with pytest.raises(UserError, match="rows that select the epoch is not finite after epoch 1"):
        in_process(gaps_pack, tmp_path)


def test_the_order_of_the_names_is_the_order_of_the_outputs_and_part_of_the_folder():
    spec = RunSpec("p", "b,a", "irnet", 17)
    assert spec.properties == ("b", "a") and run_folder("r", spec).parts[:3] == ("r", "p", "b,a")
    assert RunSpec("p", "b", "irnet", 17).properties == ("b",)


CLASSICAL = {"layers": None, "recipe": None, "architecture": "ridge"}
BAD = {
    "unknown": (
        {"property": "mixing_enthalpy,size_mismach"},
        "(did you mean 'size_mismatch'?); known: copy, mixing",
    ),
    "twice": (
        {"property": "copy,mixing_enthalpy,copy"},
        "copy twice in",
    ),
    "empty part": (
        {"property": "copy,,size_mismatch"},
        "'copy,,size_mismatch'",
    ),
    "space": (
        {"property": "copy, size_mismatch"},
        "'copy, size_mismatch'",
    ),
    "too long": ({"property": ",".join(f"property{n}" for n in range(40))}, "at most 255 letters"),
    "no val rows": (
        {"property": "copy,trained"},
        "no val row of pack alloys-gaps reports trained",
    ),
    "no test rows": (
        {"property": "copy,trained", "protocol": "paper"},
        "no test row of pack alloys-gaps reports",
    ),
    "classical": ({"property": ",".join(BOTH)} | CLASSICAL, "ridge predicts one property"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2(case, gaps_pack, tmp_path, capsys):
    changes, sentence = BAD[case]
    assert (
        exit_status(lambda: train.main(command(gaps_pack, tmp_path / "results", **changes)[3:]))
        == 2
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and sentence in error
    assert not list(tmp_path.rglob("result.json"))


def test_the_regressor_has_one_output_and_says_so():
    with pytest.raises(ValueError, match=r"\(20, 2\)"):
        IRNetRegressor(layers="8Ax1-1").fit(np.eye(20), np.ones((20, 2)))
