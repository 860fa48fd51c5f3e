"""Training, from the command line to the result: against scikit-learn, plain torch and an uninterrupted self."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from irnet_hpc.console import exit_status
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.models.architectures import custom_name, parse_layers
from irnet_hpc.models.dropout import dropout_noise
from irnet_hpc.models.network import Network
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.recipes import RECIPES, Recipe, resolve
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.spec import RunSpec, model_of, read_recipe, run_key
from irnet_hpc.train import cli as train
from irnet_hpc.train import loop as training
from irnet_hpc.train.checkpoint import State
from irnet_hpc.train.dataset import CHUNK_ROWS, WINDOW_CHUNKS, epoch_order, load
from irnet_hpc.train.evaluation import optimism, predict, select_halves
from tests import builders
from tests.builders import StopAfter

CPU = torch.device("cpu")
QUICK = "{name: quick, base: onecycle, epochs: 4, batch: 64, norm_group: 32, precision: fp32}"


def command(pack: Path | str, results: Path, /, **changes) -> list[str]:
    options = {
        "pack": pack,
        "property": "mixing_enthalpy",
        "layers": "64BARx2-32BAx2R-1",
        "recipe": QUICK,
    } | changes
    flags = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
        if value
    ]
    return [sys.executable, "-m", "irnet_hpc.train", *flags, "--results", str(results)]


def run(*arguments, **changes) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments, **changes), capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def finished(alloys_pack, tmp_path_factory):
    """A run folder and what its command printed."""
    results = tmp_path_factory.mktemp("finished")
    done = run(alloys_pack, results)
    assert done.returncode == 0, done.stderr
    return next(results.rglob("result.json")).parent, done.stdout


def test_the_result_is_what_scikit_learn_says_of_the_stored_predictions(finished, alloys_pack):
    folder, _ = finished
    result = read_result(folder / "result.json")
    with np.load(folder / "test_predictions.npz", allow_pickle=False) as file:
        target, prediction, formula = file["target"], file["prediction"], file["formula"]
    assert result.test_mae == pytest.approx(mean_absolute_error(target, prediction), rel=1e-12)
    assert result.test_rmse == pytest.approx(root_mean_squared_error(target, prediction), rel=1e-12)
    assert result.test_r2 == pytest.approx(r2_score(target, prediction), rel=1e-12)
    with open_pack(alloys_pack) as pack:
        train_targets = pack.y("mixing_enthalpy", pack.rows("train"))
        assert list(formula) == pack.formulas(pack.rows("test"))
        assert np.array_equal(target, pack.y("mixing_enthalpy", pack.rows("test")))
        assert result.pack_identity == pack.identity
    assert result.baseline_mae == pytest.approx(np.abs(target - np.median(train_targets)).mean())
    assert (result.n_train, result.n_test, result.unit) == (
        len(train_targets),
        len(target),
        "eV/atom",
    )
    assert result.selected_on == "val" and result.optimism is None and result.epochs == 4


def test_what_a_run_prints_and_leaves(finished):
    folder, printed = finished
    assert sorted(p.name for p in folder.iterdir()) == [
        "history.csv", "model.safetensors", "result.json", "run.json", "test_predictions.npz",
    ]  # fmt: skip
    model = f"{custom_name('64BARx2-32BAx2R-1')}-5"
    assert folder.parts[-6:] == (
        "alloys-small",
        "mixing_enthalpy",
        model,
        "quick",
        "honest",
        "seed0",
    )
    assert "eV/atom" in printed and "next: python -m irnet_hpc.aggregate" in printed
    lines = (folder / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,step,lr,train_mae,val_mae,seconds" and len(lines) == 5
    result = read_result(folder / "result.json")
    assert result.val_mae == min(float(line.split(",")[4]) for line in lines[1:])


def test_the_stored_model_gives_the_stored_predictions_with_plain_torch(finished, alloys_pack):
    """Rebuilt from model.safetensors alone by the formulas of the networks, with no code of the package's model."""
    folder, _ = finished
    tensors = {
        n: t.double() for n, t in safetensors.torch.load_file(folder / "model.safetensors").items()
    }
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["irnet_hpc"])
    with open_pack(alloys_pack) as pack:
        x = torch.from_numpy(pack.x(pack.rows("test"))).double()
        assert facts["feature_labels"] == pack.feature_labels

    def linear(x, name):
        return x @ tensors[f"network.{name}.weight"].T + tensors[f"network.{name}.bias"]

    def layer(x, name):
        z, n = linear(x, f"{name}.linear"), f"network.{name}.norm"
        z = (z - tensors[f"{n}.mean"]) / (tensors[f"{n}.var"] + 1e-5).sqrt()
        return (z * tensors[f"{n}.weight"] + tensors[f"{n}.bias"]).clamp(min=0)

    x = ((x - tensors["feature_mean"]) / tensors["feature_scale"]).clamp(
        -facts["clip"], facts["clip"]
    )
    x = layer(x, "body.0.layers.0") + linear(x, "body.0.projection")
    x = layer(x, "body.1.layers.0") + x
    x = layer(layer(x, "body.2.layers.0"), "body.2.layers.1") + linear(x, "body.2.projection")
    prediction = linear(x, "output")[:, 0] * facts["target_scale"] + facts["target_mean"]
    with np.load(folder / "test_predictions.npz") as file:
        np.testing.assert_allclose(prediction.numpy(), file["prediction"], rtol=2e-3, atol=2e-5)


@pytest.mark.slow
def test_a_network_learns_the_regular_solution(alloys_pack, tmp_path):
    """The mixing enthalpy is a quadratic form of the fractions: better than the median on rows never seen."""
    recipe = (
        "{name: longer, base: onecycle, epochs: 40, batch: 32, norm_group: 32, precision: fp32}"
    )
    assert run(alloys_pack, tmp_path, recipe=recipe).returncode == 0
    result = read_result(next(tmp_path.rglob("result.json")))
    assert result.test_mae < 0.7 * result.baseline_mae


def test_a_finished_run_is_not_run_again_and_a_stale_one_only_when_asked(finished, alloys_pack):
    folder, _ = finished
    results = folder.parents[5]
    before = (folder / "result.json").stat().st_mtime_ns
    again = run(alloys_pack, results)
    assert again.returncode == 0 and "already done" in again.stdout
    assert (folder / "result.json").stat().st_mtime_ns == before
    other = QUICK.replace("epochs: 4", "epochs: 1")
    stale = run(alloys_pack, results, recipe=other)
    assert stale.returncode == 2 and "stale" in stale.stderr and "--force" in stale.stderr
    assert (folder / "result.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_run_stopped_by_a_signal_ends_bit_for_bit_like_an_undisturbed_one(alloys_pack, tmp_path):
    recipe = (
        "{name: r, base: onecycle, epochs: 200, batch: 64, norm_group: 32, precision: fp32, weight_decay: 0, "
        "decay_epochs: 50}"
    )
    process = subprocess.Popen(
        command(alloys_pack, tmp_path / "a", recipe=recipe), stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("epoch"):
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=600)
    assert process.returncode == 75
    assert not list((tmp_path / "a").rglob("result.json"))
    continued, undisturbed = (
        run(alloys_pack, tmp_path / "a", recipe=recipe),
        run(alloys_pack, tmp_path / "b", recipe=recipe),
    )
    assert (
        continued.returncode == undisturbed.returncode == 0
        and "resuming at epoch" in continued.stdout
    )
    first, second = (next((tmp_path / name).rglob("result.json")).parent for name in "ab")
    one, two = (
        safetensors.torch.load_file(folder / "model.safetensors") for folder in (first, second)
    )
    assert all(torch.equal(one[name], two[name]) for name in two)
    histories = [
        [line.rsplit(",", 1)[0] for line in (f / "history.csv").open()] for f in (first, second)
    ]
    assert histories[0] == histories[1]
    assert not (first / "checkpoint").exists()


def test_a_torn_checkpoint_falls_back_to_the_one_before(alloys_pack, tmp_path, caplog):
    from irnet_hpc.train import checkpoint

    tensors, folder = {"w": torch.zeros(3)}, RunFolder(tmp_path)
    for step in (1, 2, 3):
        checkpoint.save(
            folder,
            "k",
            {"w": torch.full((3,), float(step))},
            checkpoint.State(step=step),
            Alone(),
        )
    assert sorted(p.name for p in (tmp_path / "checkpoint").iterdir()) == [
        "a.json", "a.safetensors", "b.json", "b.safetensors",
    ]  # fmt: skip
    assert checkpoint.resume(folder, "k", tensors, Alone()).step == 3 and tensors["w"][0] == 3
    newest = max(
        (tmp_path / "checkpoint").glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns
    )
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x7f")
    assert checkpoint.resume(folder, "k", tensors, Alone()).step == 2 and tensors["w"][0] == 2
    assert "does not match its checksum" in caplog.text
    # The next goes where the damaged one was, whatever step that says it was of: the one that is whole is not written over.
    sound = {
        path.name: path.read_bytes()
        for path in (tmp_path / "checkpoint").iterdir()
        if path.stem != newest.stem
    }
    checkpoint.save(folder, "k", {"w": torch.full((3,), 4.0)}, checkpoint.State(step=4), Alone())
    assert {name: (tmp_path / "checkpoint" / name).read_bytes() for name in sound} == sound
    assert checkpoint.resume(folder, "k", tensors, Alone()).step == 4 and tensors["w"][0] == 4
    said = newest.with_suffix(".json")
    said.write_text(said.read_text().replace('"step": 4', '"step": Infinity'))
    assert checkpoint.resume(folder, "k", tensors, Alone()).step == 2 and tensors["w"][0] == 2
    assert checkpoint.resume(folder, "another key", tensors, Alone()).step == 0
    # What another run left behind, however far it had come, does not stand in the way.
    checkpoint.save(
        folder, "another key", {"w": torch.full((3,), 9.0)}, checkpoint.State(step=1), Alone()
    )
    assert (
        checkpoint.resume(folder, "another key", tensors, Alone()).step == 1
        and tensors["w"][0] == 9
    )


def in_process(pack_file: Path, path: Path, layers: str = "32BARx2-1", **changes):
    """One training in this process: (network, state)."""
    torch.set_num_threads(1)
    recipe = resolve(
        {
            "name": "t",
            "base": "onecycle",
            "precision": "fp64",
            "batch": 64,
            "norm_group": 32,
            "epochs": 3,
        }
        | changes
    )
    spec = RunSpec("pack", "mixing_enthalpy", **model_of(layers))
    with open_pack(pack_file) as pack:
        data = load(pack, spec, recipe, CPU)
    return builders.train(spec, recipe, "key", data, path, Alone(), CPU)


def test_the_golden_losses_of_this_training_version(alloys_pack, tmp_path):
    """Where this fails because the numerics were meant to change: raise runs.TRAINING_VERSION, and renew the numbers."""
    _, state = in_process(alloys_pack, tmp_path)
    golden = [
        (0.5086221385, 0.4748094509),
        (0.3671087348, 0.3707968295),
        (0.2910204303, 0.3478077280),
    ]
    np.testing.assert_allclose([row[3:5] for row in state.history], golden, rtol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_step_is_adam_on_the_mean_absolute_error_of_the_batch(alloys_pack, tmp_path, dropout):
    """Three epochs of the reference's recipe without normalisation, next to torch's own Linear, ReLU, L1 and Adam."""
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
    """The best of twenty epochs next to torch's own layers, whose loss is written as the two cases of Tobin's censored regression."""
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
    """Stopped within the first epoch and again after the rate has fallen twice, by a threshold that no epoch passes."""
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
    """By hand: 448 rows are 7 steps of 64; at a rate of 2e-3, 10 epochs of them are 1 / (2e-3 * 70) = 50/7 of decay."""
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


def test_protocol_paper_trains_on_val_too_selects_on_test_and_says_how_much_that_flatters(
    alloys_pack, tmp_path
):
    done = run(alloys_pack, tmp_path, protocol="paper")
    assert done.returncode == 0 and "selected on test" in done.stdout
    result = read_result(next(tmp_path.rglob("result.json")))
    with open_pack(alloys_pack) as pack:
        assert (result.n_train, result.n_val) == (pack.n_train + pack.n_val, 0)
    maes = [
        float(line.split(",")[4])
        for line in next(tmp_path.rglob("history.csv")).read_text().splitlines()[1:]
    ]
    assert result.test_mae == pytest.approx(min(maes)) and result.selected_on == "test"
    assert result.val_mae is None and np.isfinite(result.optimism)


def test_the_optimism_is_what_the_other_half_says_of_the_epoch_that_a_half_chose():
    """Four rows, two epochs; by the permutation of seed 0 the halves are whichever they are: worked out for both."""
    first = np.random.Generator(np.random.Philox(key=[0, 2**32])).permutation(4) < 2
    errors = [
        np.where(first, 1.0, 8.0),
        np.where(first, 2.0, 4.0),
    ]  # half one chooses epoch 0, half two epoch 1
    state = State()
    for epoch in errors:
        select_halves(state.halves, epoch, seed=0)
    assert state.halves == [[1.0, 8.0], [4.0, 2.0]]
    assert optimism(state.halves) == ((8 - 1) + (2 - 4)) / 2
    assert optimism(State().halves) is None


def test_an_error_that_is_not_finite_where_the_epoch_is_selected_is_not_a_result(
    alloys_pack, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        training, "outputs", lambda network, rows, *_: np.full((1, len(rows), 1), np.nan)
    )
    with pytest.raises(UserError, match="rows that select is not finite after epoch 1"):
        in_process(alloys_pack, tmp_path)


def test_the_average_of_the_weights_follows_from_the_first_epoch_on(alloys_pack, tmp_path):
    """Epochs of one step: the evaluated average is never the untrained network."""
    _, state = in_process(alloys_pack, tmp_path, batch=448, norm_group=32, epochs=3)
    assert len({row[4] for row in state.history}) == 3


def test_an_epoch_visits_every_row_once_in_an_order_of_seed_and_epoch_alone():
    row = np.sort(
        np.random.default_rng(0).permutation(3 * CHUNK_ROWS * WINDOW_CHUNKS)[
            : CHUNK_ROWS * WINDOW_CHUNKS * 2
        ]
    )
    orders = [epoch_order(row, seed, epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert all(np.array_equal(np.sort(order), np.arange(len(row))) for order in orders)
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2]) and not np.array_equal(orders[0], orders[3])


def test_an_epoch_reads_whole_chunks_window_by_window():
    """What makes streaming possible: the first window's rows come from WINDOW_CHUNKS chunks of the pack, and only them."""
    row = np.arange(4 * CHUNK_ROWS * WINDOW_CHUNKS)
    order = epoch_order(row, 0, 0)
    window = order[: CHUNK_ROWS * WINDOW_CHUNKS] // CHUNK_ROWS
    assert len(np.unique(window)) == WINDOW_CHUNKS
    assert np.abs(np.corrcoef(np.arange(1000), order[:1000])[0, 1]) < 0.2


def test_a_key_changes_with_what_changes_the_numbers_and_with_nothing_else():
    spec, recipe, identity = (
        RunSpec("p", "q", "irnet", 17),
        RECIPES["paper"],
        {"source_sha256": "1", "content_sha256": "x"},
    )
    key = run_key(spec, recipe, identity)
    assert key == run_key(spec, recipe, identity | {"content_sha256": "y"})
    assert key != run_key(spec, recipe, identity | {"source_sha256": "2"})
    assert key != run_key(spec, RECIPES["onecycle"], identity)
    assert key != run_key(RunSpec("p", "q", "irnet", 17, seed=1), recipe, identity)


def test_a_field_that_is_added_with_a_neutral_default_leaves_keys_and_results_as_they_are():
    @dataclasses.dataclass(frozen=True)
    class Later(Recipe):
        new: float = 0.0

    spec, fields = RunSpec("p", "q", "irnet", 17), dataclasses.asdict(RECIPES["onecycle"])
    key = run_key(spec, RECIPES["onecycle"], {})
    assert key == run_key(spec, Later(**fields), {})
    assert key != run_key(spec, Later(**fields, new=1.0), {})
    del fields["decay_epochs"]  # as a result has it that is older than the field
    assert read_recipe(spec, fields) == RECIPES["onecycle"]
    with pytest.raises(UserError, match="unknown field of a recipe 'warp'"):
        read_recipe(spec, fields | {"warp": 1})


def test_a_result_that_cannot_be_read_is_named_and_replaced_only_when_asked(tmp_path):
    (tmp_path / "result.json").write_text('{"spec": {')
    with pytest.raises(UserError, match=r"is not JSON.*--force"):
        RunFolder(tmp_path).is_done("key")
    assert not RunFolder(tmp_path).is_done("key", force=True)
    assert (tmp_path / "result.json").exists()  # until the run that replaces it begins


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


BAD = {
    "unknown property": ({"property": "band_gap"}, "known: mixing_enthalpy, size_mismatch"),
    "unknown architecture": (
        {"layers": None, "architecture": "irnett", "depth": 17},
        "did you mean 'irnet'",
    ),
    "unknown depth": (
        {"layers": None, "architecture": "irnet", "depth": 18},
        "known: 10, 17, 24, 48",
    ),
    "unknown recipe": ({"recipe": "papper"}, "did you mean 'paper'"),
    "unknown recipe key": ({"recipe": "{name: a, base: paper, bach: 3}"}, "did you mean 'batch'"),
    "recipe value": ({"recipe": "{name: a, base: paper, epochs: many}"}, "must be of type int"),
    "recipe that is not YAML": ({"recipe": "{name: a, base"}, "must be YAML"),
    "layers": ({"layers": "64QAx2-1"}, "64QAx2"),
    "several outputs": ({"layers": "64BARx2-5"}, "must end in -1"),
    "enormous": ({"layers": "65536x1000-1"}, "at most 4,000,000,000 weights"),
    "recipe endless": ({"recipe": "{name: a, base: paper, epochs: .inf}"}, "must be of type int"),
    "recipe bool": ({"recipe": "{name: a, base: paper, epochs: true}"}, "must be of type int"),
    "recipe date": ({"recipe": "{name: a, base: paper, epochs: 2020-99-99}"}, "must be YAML"),
    "bf16 allreduce of fp64": (
        {"recipe": "{name: a, base: paper, precision: fp64, allreduce: bf16}"},
        "bf16",
    ),
    "clip of raw features": (
        {"recipe": "{name: a, base: paper, clip: 6}"},
        "needs features: standard",
    ),
    "plateau without patience": (
        {"recipe": "{name: a, base: paper, schedule: plateau}"},
        "must be positive with schedule",
    ),
    "patience without plateau": (
        {"recipe": "{name: a, base: paper, plateau_patience: 5}"},
        "5",
    ),
    "ibrnet": (
        {"layers": None, "architecture": "ibrnet", "depth": 17},
        "brnet-17 trained with recipe ibrnet",
    ),
    "branch": ({"layers": "64Ax2+0-1"}, "64Ax2+0"),
    "decay twice": (
        {"recipe": "{name: a, base: onecycle, decay_epochs: 10}"},
        "10.0, adamw and 0.01",
    ),
    "decay of Adam": (
        {"recipe": "{name: a, base: paper, decay_epochs: 10}"},
        "10.0, adam and 0.0",
    ),
    "decay at once": (
        {"recipe": "{name: a, base: onecycle, weight_decay: 0, decay_epochs: 0.5}"},
        "must be at least 1",
    ),
    "recipe path": ({"recipe": "{name: ../x, base: paper}"}, "letters, digits"),
    "seed": ({"seed": 10**20}, "seed must be 0 to"),
    "both": ({"architecture": "irnet", "depth": 17}, "not by both"),
    "too few rows": ({"train_rows": 20}, "20"),
    "too many rows": ({"train_rows": 10**6}, "at most the"),
    "missing pack": ({"pack": "nowhere"}, "nowhere"),
    "unknown protocol": ({"protocol": "dishonest"}, "known: honest, paper"),
    "unknown engine": ({"engine": "mpi"}, "known: auto, horovod, none, torch"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2(case, alloys_pack, tmp_path, capsys):
    changes, sentence = BAD[case]
    arguments = command(changes.get("pack", alloys_pack), tmp_path / "results", **changes)[3:]
    assert exit_status(lambda: train.main(arguments)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and sentence in error
    assert not list(tmp_path.rglob("result.json")) and not list(tmp_path.rglob("run.json"))


def test_a_failure_is_left_in_the_folder_and_goes_with_the_next_success(alloys_pack, tmp_path):
    assert run(alloys_pack, tmp_path, train_rows=20).returncode == 2
    error = next(tmp_path.rglob("error.json"))
    assert "at least one batch" in read_json(error)["error"]
    assert error.parent.parent.name == "honest-n20"


def test_one_process_in_a_slurm_job_of_two_tasks_is_refused(alloys_pack, tmp_path):
    environment = os.environ | {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    done = subprocess.run(
        command(alloys_pack, tmp_path), env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 2 and "1 and 2" in done.stderr
