"""The command: from options to a result, against scikit-learn, plain torch and itself."""

import json
import os
import shlex
import signal
import subprocess

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from irnet_hpc.console import exit_status
from irnet_hpc.files import read_json
from irnet_hpc.models.architectures import custom_name
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.result import read_result
from irnet_hpc.train import cli as train
from irnet_hpc.train.model_file import write_tensors
from tests.train.trainings import QUICK, command, run


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
    """Rebuilt from model.safetensors alone by the formulas of the networks, with no code of the
    package's model.
    """
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
    """The mixing enthalpy is a quadratic form of the fractions: better than the median on rows
    never seen.
    """
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
        "{name: r, base: onecycle, epochs: 200, batch: 64, norm_group: 32, precision: fp32, "
        "weight_decay: 0, decay_epochs: 50}"
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


def test_protocol_paper_trains_on_val_selects_on_test_and_states_the_optimism(
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
    "recipe date": (
        {"recipe": "{name: a, base: paper, epochs: 2020-99-99}"},
        "must be of type int",
    ),
    "recipe key twice": (
        {"recipe": "{name: a, base: paper, epochs: 5, epochs: 50}"},
        "epochs",
    ),
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
        "brnet-17",
    ),
    "branch": ({"layers": "64Ax2+0-1"}, "64Ax2+0"),
    "decay twice": (
        {"recipe": "{name: a, base: onecycle, decay_epochs: 10}"},
        "10.0 with adamw and 0.01",
    ),
    "decay of Adam": (
        {"recipe": "{name: a, base: paper, decay_epochs: 10}"},
        "10.0 with adam and 0.0",
    ),
    "decay at once": (
        {"recipe": "{name: a, base: onecycle, weight_decay: 0, decay_epochs: 0.5}"},
        "must be at least 1",
    ),
    "recipe path": ({"recipe": "{name: ../x, base: paper}"}, "letters, digits"),
    "seed": ({"seed": 10**20}, "100000000000000000000"),
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
    assert "got 64" in read_json(error)["error"]
    assert error.parent.parent.name == "honest-n20"


def test_one_process_in_a_slurm_job_of_two_tasks_is_refused(alloys_pack, tmp_path):
    environment = os.environ | {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    done = subprocess.run(
        command(alloys_pack, tmp_path), env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 2 and "1 and 2" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_as_sigterm_does_and_the_command_it_prints_goes_on(
    alloys_pack, tmp_path, number
):
    recipe = "{name: long, base: onecycle, epochs: 100000, batch: 64, norm_group: 32}"
    arguments = command(alloys_pack, tmp_path, recipe=recipe, layers="16BARx2-1")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stdout:
            if line.startswith("epoch ") and not any("epoch " in earlier for earlier in lines):
                process.send_signal(number)
            lines.append(line)
    assert process.returncode == 75
    (step,) = [line for line in lines if line.startswith("next: ")]
    assert shlex.split(step)[4:] == arguments[3:]
    assert list(tmp_path.rglob("checkpoint/a.safetensors")) and not list(
        tmp_path.rglob("error.json")
    )
    (record,) = tmp_path.rglob("checkpoint/a.json")
    assert json.loads(record.read_text())


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_a_model_has_the_mode_that_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "m.safetensors", {"x": torch.zeros(2)})
        write_tensors(tmp_path / "m.safetensors", {"x": torch.ones(2)}, {"a": 1})
    finally:
        os.umask(before)
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (["--epochs", "5"], "--recipe '{name: mine, base: onecycle, epochs: 5}'"),
        (["--learning-rate=1e-3"], "learning_rate: 1e-3}"),
        (["--achitecture", "irnet"], "--architecture"),
        (["--sed", "1"], "--seed"),
        (["--architecture", "irnet-17"], "--architecture irnet --depth 17"),
        (["--architecture", "rf"], "'random_forest'"),
        (["--architecture", "randomforest"], "'random_forest'"),
        (["--architecture", "irnet", "--depth", "17", "--device", "gpu"], "'cuda'"),
    ],
)
def test_a_typo_ends_with_one_sentence_that_names_what_is_meant(
    alloys_pack, tmp_path, capsys, options, meant
):
    given = ["--pack", str(alloys_pack), "--property", "mixing_enthalpy", *options]

    def status() -> int:
        try:
            return exit_status(lambda: train.main([*given, "--results", str(tmp_path)]))
        except SystemExit as end:
            return end.code

    assert status() == 2
    error = capsys.readouterr().err
    assert meant in error and error.count("\n") == 1
