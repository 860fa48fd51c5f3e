"""Cells that share a device: what each is told, does and leaves is that of the cell alone."""

import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from irnet_hpc.console import ExitStatus, exit_status
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.files import read_json
from irnet_hpc.models.architectures import MODELS, layer_string, n_weights, parse_layers
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.network import Network, n_parameters
from irnet_hpc.models.normalisation import Groups
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.recipes import RECIPES, resolve
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.spec import RunSpec, model_of, shape_of
from irnet_hpc.sweep.bundles import MAX_REPLICAS, n_that_fit, replica_gb
from irnet_hpc.train import cli as train
from irnet_hpc.train import loop as training
from irnet_hpc.train import networks
from irnet_hpc.train.run import DEFAULT_OPTIONS, TrainOptions
from irnet_hpc.train.stack import Replica, Stack, load_each, stacks
from irnet_hpc.train.step import Step
from irnet_hpc.train.stopping import NeverStop
from tests import builders
from tests.builders import StopAfter
from tests.train import train_bundles
from tests.train.trainings import QUICK, command, run

CPU = torch.device("cpu")


def assert_alike(found: dict, case: str) -> None:
    """Alone and together, of all three: losses, history, weights, statistics, predictions."""
    tolerance = 1e-4 if case == "fp32" else 1e-9
    assert found["together"].keys() == found["alone"].keys() == {"0", "1", "2"}
    for seed, expected in found["alone"].items():
        for what, values in expected.items():
            # Weights are of the order of 0.1. One that no gradient moves but rounding, as the bias
            # before a normalisation, is
            # moved otherwise by other rounding.
            atol = tolerance if what == "weights" else 0.0
            together = found["together"][seed][what]
            assert len(together) == len(values)
            np.testing.assert_allclose(
                together, values, tolerance, atol, err_msg=f"{case}, seed {seed}: {what}"
            )


@pytest.mark.parametrize("case", train_bundles.CASES)
def test_three_cells_together_are_each_what_it_is_alone(case, alloys_pack, tmp_path):
    torch.set_num_threads(1)
    replicas = train_bundles.replicas_of(case, alloys_pack, tmp_path)
    assert (
        replicas[0].data.train.x is replicas[2].data.train.x
    )  # held once, though the properties are two
    found = train_bundles.together_and_alone(replicas, Alone())
    assert_alike(found, case)
    lengths = [len(found["together"][seed]["history"]) for seed in "012"]
    assert (
        lengths[:2] == [4, 2] and next(iter(found["together"])) == "1"
    )  # it ends first, and is given out at once
    assert found["together"]["0"]["history"] != found["together"]["1"]["history"]


@pytest.mark.slow
def test_together_on_two_ranks_each_is_what_it_is_alone(alloys_pack, tmp_path):
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    out, cases = tmp_path / "out.json", ("irnet", "spanning groups", "elemnet")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
    script = [sys.executable, Path(train_bundles.__file__), "horovod", alloys_pack, out, *cases]
    subprocess.run(["mpirun", "-np", "2", *script], env=environment, check=True, timeout=600)
    two = json.loads(out.read_text())
    assert two["size"] == 2
    for case in cases:
        assert_alike(two["cases"][case], case)


def test_what_was_killed_together_goes_on_alone_or_in_another_company(alloys_pack, tmp_path):
    """Stopped at the end of the first epoch's steps; then one goes on alone, and another alone
    until it is further than the third.
    """
    torch.set_num_threads(1)
    undisturbed = train_bundles.trained(
        _begun(train_bundles.replicas_of("irnet", alloys_pack, tmp_path / "a")), Alone()
    )
    replicas = _begun(train_bundles.replicas_of("irnet", alloys_pack, tmp_path / "b"))
    assert train_bundles.trained(replicas, Alone(), StopAfter(2)) == {}
    assert [len(group) for group in stacks(replicas, Alone())] == [3]
    found = train_bundles.trained(replicas[:1], Alone())
    assert train_bundles.trained(replicas[1:2], Alone(), StopAfter(2)) == {}
    assert [[r.spec.seed for r in group] for group in stacks(replicas[1:], Alone())] == [[1], [2]]
    for group in stacks(replicas[1:], Alone()):
        found |= train_bundles.trained(group, Alone())
    assert_alike({"together": found, "alone": undisturbed}, "irnet")


def _begun(replicas):
    for replica in replicas:
        replica.run.folder.path.mkdir(parents=True)
    return replicas


def test_a_cell_whose_loss_is_not_finite_fails_alone(alloys_pack, tmp_path):
    replicas = _begun(train_bundles.replicas_of("plain", alloys_pack, tmp_path))
    wild = dataclasses.replace(
        replicas[1].recipe, learning_rate=10.0, schedule="constant", epochs=40
    )
    common = {"precision": "fp32", "loss": "mse"}
    recipes = [
        dataclasses.replace(r, **common) for r in (replicas[0].recipe, wild, replicas[2].recipe)
    ]
    specs = [
        RunSpec("pack", r.spec.property, **model_of("64x30-1"), seed=r.spec.seed) for r in replicas
    ]
    with open_pack(alloys_pack) as pack:
        data = load_each(pack, specs, recipes[0], CPU, None)
    changed = [
        Replica(dataclasses.replace(r.run, spec=s, recipe=recipe), d)
        for r, s, recipe, d in zip(replicas, specs, recipes, data, strict=True)
    ]
    ended = {e.replica.spec.seed: e for e in training.train(changed, Alone(), CPU, NeverStop())}
    assert "no longer finite at step" in str(ended[1].error)
    assert "learning rate 10" in str(ended[1].error)
    assert ended[0].error is None and len(ended[0].state.history) == 4
    with pytest.raises(Exception, match="no longer finite"):
        builders.train(specs[1], recipes[1], "key1", data[1], tmp_path / "1", Alone(), CPU)


def test_a_stack_that_does_not_fit_is_halved_until_it_does(
    alloys_pack, tmp_path, monkeypatch, caplog
):
    """A device that holds two: three become one and two."""
    caplog.set_level("INFO", "irnet_hpc")
    torch.set_num_threads(1)
    real, sizes = training.Stack, []

    def small(replicas, *more):
        sizes.append(len(replicas))
        if len(replicas) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return real(replicas, *more)

    monkeypatch.setattr(training, "Stack", small)
    replicas = _begun(train_bundles.replicas_of("plain", alloys_pack, tmp_path))
    ended = list(training.train_all(replicas, Alone(), CPU, NeverStop(), DEFAULT_OPTIONS))
    assert sizes == [3, 1, 2] and sorted(one.replica.spec.seed for one in ended) == [0, 1, 2]
    assert sorted(one.bundle_size for one in ended) == [1, 2, 2]
    assert "training 1 and 2" in caplog.text


def test_one_network_that_does_not_fit_is_a_sentence(alloys_pack, tmp_path, monkeypatch):
    def none_fits(*_):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(training, "Stack", none_fits)
    replicas = _begun(train_bundles.replicas_of("plain", alloys_pack, tmp_path))
    with pytest.raises(
        training.UserError,
        match=r"custom-.* 64 rows.* memory",
    ):
        list(training.train_all(replicas[:1], Alone(), CPU, NeverStop(), DEFAULT_OPTIONS))


# --------------------------------------------------------------------------------------------------
# --------- the network


def test_a_stack_of_three_networks_computes_what_each_computes():
    networks = [
        Network(5, parse_layers("8BARx2-6L0.3Rx1+1D0.5-3BAx2R-1")).double() for _ in range(3)
    ]
    for seed, network in enumerate(networks):
        network.initialise(seed)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 16, 5, dtype=torch.float64, generator=generator)
    noise = torch.stack(
        [network.noise(seed, 7, slice(0, 16)) for seed, network in enumerate(networks)]
    )
    copies = [Network(5, parse_layers("8BARx2-6L0.3Rx1+1D0.5-3BAx2R-1")).double() for _ in range(3)]
    for copy, network in zip(copies, networks, strict=True):
        copy.load_state_dict(network.state_dict())
    flat = FlatParameters(copies)
    for groups, dropped in ((Groups(8, 8), noise), (None, None)):
        expected = [
            n(x[k], groups, None if dropped is None else dropped[k]) for k, n in enumerate(networks)
        ]
        torch.testing.assert_close(
            flat.network(x, groups, dropped), torch.stack(expected), rtol=1e-12, atol=1e-12
        )
    flat.keep([2, 0])
    torch.testing.assert_close(
        flat.network(x[[2, 0]]), torch.stack([expected[2], expected[0]]), rtol=1e-12, atol=1e-12
    )


def test_weights_are_counted_without_torch_as_torch_counts_them():
    names = [(architecture, depth) for architecture, depths in MODELS.items() for depth in depths]
    strings = [layer_string(*name) for name in names] + ["7BARx2+1-5Ax2+3R-4BAx3R-2"]
    for string in strings:
        layers = parse_layers(string)
        assert n_weights(layers, 145) == n_parameters(Network(145, layers)), string


def test_how_many_fit_grows_with_the_memory_and_ends():
    spec, recipe = (
        RunSpec("p", "q", "irnet", 48),
        dataclasses.replace(RECIPES["onecycle"], batch=256),
    )
    # By hand: 11,525,649 weights (145 features) in seven copies of 4 bytes are 0.3006 GiB, before
    # any row.
    assert 0.3006 < replica_gb(spec, recipe, 145) < 0.6
    counts = [n_that_fit(spec, recipe, 145, memory_gb) for memory_gb in (1, 4, 6, 10, 80)]
    assert (
        counts == sorted(counts)
        and counts[0] == 1
        and 2 < counts[2] < counts[3]
        and counts[-1] == MAX_REPLICAS
    )


def test_a_step_that_nobody_uses_is_freed_at_once(alloys_pack, tmp_path):
    """Its graphs hold memory of the GPU; so it must not wait for the garbage collector."""
    replicas = _begun(train_bundles.replicas_of("irnet", alloys_pack, tmp_path))
    step = Step(Stack(replicas, Alone(), CPU), Alone())
    freed = weakref.ref(step)
    gc.disable()
    try:
        del step
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_graphs_compute_what_launches_one_by_one_do(alloys_pack, tmp_path):
    device, found = torch.device("cuda"), []
    for graphs in (True, False):
        replicas = _begun(train_bundles.replicas_of("irnet", alloys_pack, tmp_path / str(graphs)))
        with open_pack(alloys_pack) as pack:
            data = load_each(pack, [r.spec for r in replicas], replicas[0].recipe, device, None)
        on_gpu = [dataclasses.replace(r, data=d) for r, d in zip(replicas, data, strict=True)]
        ended = training.train(
            on_gpu, Alone(), device, NeverStop(), TrainOptions(cuda_graphs=graphs)
        )
        found.append(
            {one.replica.spec.seed: [row[:5] for row in one.state.history] for one in ended}
        )
    for seed, history in found[0].items():
        np.testing.assert_allclose(history, found[1][seed], rtol=1e-12)


def test_the_benchmark_of_a_gpu_runs_its_logic_without_one_and_says_what_it_lacks(
    monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import gpu

    sys.path.pop(0)
    assert exit_status(lambda: gpu.main([])) == 2
    assert "torch finds none here" in capsys.readouterr().err
    assert gpu.main(["--device", "cpu", "--smoke", "--repeats", "1"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    # Its head, a row of the bundle, and one for each of two batches of the others.
    assert len(table) == 1 + 7
    assert all(float(line.split("|")[-2].split()[0]) > 0 for line in table[1:])


# --------------------------------------------------------------------------------------------------
# --------- the command


def test_seeds_of_one_command_are_cells_of_one_stack_with_results_of_their_own(
    alloys_pack, tmp_path
):
    done = run(alloys_pack, tmp_path, seed="0,1")
    assert done.returncode == 0, done.stderr
    results = {path.parent.name: read_result(path) for path in tmp_path.rglob("result.json")}
    assert results.keys() == {"seed0", "seed1"} and {
        result.bundle_size for result in results.values()
    } == {2}
    by_itself = run(alloys_pack, tmp_path / "alone", seed="1")
    assert by_itself.returncode == 0
    single = read_result(next((tmp_path / "alone").rglob("result.json")))
    assert single.bundle_size == 1 and single.key == results["seed1"].key
    assert results["seed1"].test_mae == pytest.approx(single.test_mae, rel=1e-4)  # QUICK is fp32
    more = run(alloys_pack, tmp_path, seed="0,1,2")
    assert more.returncode == 0 and more.stdout.count("already done") == 2
    assert read_result(next(tmp_path.glob("alloys*/**/seed2/result.json"))).bundle_size == 1


def test_a_bundle_is_a_list_of_what_its_cells_have_for_themselves(alloys_pack, tmp_path):
    slow = yaml.safe_load(QUICK) | {"name": "slow", "learning_rate": 1e-4, "epochs": 2}
    cells = [{"seed": 3}, {"property": "size_mismatch"}, {"recipe": slow}]
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    done = run(alloys_pack, tmp_path, bundle=tmp_path / "cells.json")
    assert done.returncode == 0, done.stderr
    found = {
        (s["property"], s["recipe"], s["seed"])
        for s in (read_json(p)["spec"] for p in tmp_path.rglob("run.json"))
    }
    assert found == {
        ("mixing_enthalpy", "quick", 3),
        ("size_mismatch", "quick", 0),
        ("mixing_enthalpy", "slow", 0),
    }
    results = [read_result(path) for path in tmp_path.rglob("result.json")]
    assert [(r.bundle_size, r.unit) for r in results if r.spec["property"] == "size_mismatch"] == [
        (3, "%")
    ]


def test_what_fails_in_a_bundle_is_left_in_its_folder_and_the_status_says_so(
    alloys_pack, tmp_path, capsys
):
    wild = yaml.safe_load(QUICK) | {
        "name": "wild",
        "learning_rate": 10.0,
        "schedule": "constant",
        "epochs": 40,
    }
    arguments = command(
        alloys_pack, tmp_path, layers="64x30-1", bundle=json.dumps([{"seed": 0}, {"recipe": wild}])
    )[3:]
    assert exit_status(lambda: train.main(arguments)) == 2
    assert "1 of 2 cells failed: the loss is no longer finite" in capsys.readouterr().err
    (error,) = tmp_path.rglob("error.json")
    assert error.parts[-4] == "wild" and "no longer finite" in read_json(error)["error"]
    assert [path.parts[-4] for path in tmp_path.rglob("result.json")] == ["quick"]


def test_a_signal_names_the_checkpoints_that_are_there(gaps_pack, tmp_path, capsys, monkeypatch):
    """Two properties that other rows report are two stacks, and it comes in the first."""
    monkeypatch.setattr(networks, "stop_request", lambda options, comm: StopAfter(2))
    arguments = command(gaps_pack, tmp_path, bundle="[{}, {property: size_mismatch}]")[3:]
    assert exit_status(lambda: train.main(arguments)) == ExitStatus.PREEMPTED
    said = capsys.readouterr().out
    (checkpoint,) = tmp_path.rglob("checkpoint")
    assert f"stopped by a signal and saved in {checkpoint}; the same command continues" in said


BAD = {
    "seeds": ({"seed": "0,x"}, "must be a whole number, or several joined by commas"),
    "twice": ({"seed": "1,1"}, "each cell must be given once"),
    "both": (
        {"seed": "0,1", "bundle": "[{seed: 0}, {seed: 1}]"},
        "by --seed or in --bundle, not by both",
    ),
    "seeds beside a bundle of one": (
        {"seed": "1,2", "bundle": "[{}]"},
        "[1, 2]",
    ),
    "forest twice": (
        {"seed": "0,0", "architecture": "random_forest", "layers": None, "recipe": None},
        "mixing_enthalpy, grid, seed 0 twice",
    ),
    "no list": ({"bundle": "[1, 2]"}, "--bundle must be a YAML list"),
    "no text": ({"bundle": sys.executable}, "--bundle must be a YAML list"),
    "key": ({"bundle": "[{sead: 1}]"}, "did you mean 'seed'"),
    "seed": ({"bundle": "[{seed: one}]"}, "'one'"),
    "recipe": (
        {"bundle": "[{recipe: 5}]"},
        "5",
    ),
    "property": ({"bundle": "[{property: [a]}]"}, "property of a cell of --bundle must be a name"),
    "no file": (
        {"bundle": "nowhere.json"},
        "'nowhere.json': No such file or directory",
    ),
    "brackets": ({"bundle": "[" * 3000}, "--bundle must be a YAML list"),
    "recipe of brackets": ({"recipe": "{" * 3000}, "an inline recipe must be YAML"),
    "outputs": (
        {"bundle": "[{}, {property: 'mixing_enthalpy,size_mismatch'}]"},
        "differ in the number of properties",
    ),
    "shapes": (
        {"bundle": "[{}, {recipe: {name: other, base: onecycle, batch: 32, norm_group: 32}}]"},
        ["differ in batch", " epochs", " precision"][0],
    ),
    "device": ({"device": "cuda"}, "must be a GPU that torch can use"),
    "unknown device": ({"device": "gpu"}, "known: auto, cpu, cuda"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2(case, alloys_pack, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    changes, sentence = BAD[case]
    try:
        assert (
            exit_status(
                lambda: train.main(command(alloys_pack, tmp_path / "results", **changes)[3:])
            )
            == 2
        )
    except SystemExit as left:  # argparse's own way
        assert left.code == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.rglob("run.json"))


def test_a_recipe_s_own_numbers_are_those_that_differ_between_replicas(alloys_pack, tmp_path):
    """Whatever is not among them makes another shape."""
    base = resolve({"name": "a", "base": "onecycle"})
    spec = RunSpec("p", "q", "irnet", 17)
    same = dataclasses.replace(
        base, name="b", learning_rate=1e-4, epochs=3, ema=0.0, weight_decay=0.1, patience=4
    )
    assert shape_of(spec, base) == shape_of(RunSpec("p", "other", "irnet", 17, seed=4), same)
    for change in (
        {"batch": 256},
        {"loss": "mse"},
        {"precision": "fp32"},
        {"clip": 5.0},
        {"optimizer": "adam"},
    ):
        assert shape_of(spec, base) != shape_of(spec, dataclasses.replace(base, **change))
    assert shape_of(spec, base) != shape_of(RunSpec("p", "q", "irnet", 17, train_rows=100), base)
