"""Runs that start from another: what is taken over, what is frozen, and which formulas are shared,
beside plain torch and pymatgen.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from irnet_hpc import IRNetRegressor
from irnet_hpc.console import exit_status
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json
from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.models.network import Network
from irnet_hpc.pack.store import open_pack
from irnet_hpc.pack.writer import create_pack
from irnet_hpc.runs.recipes import RECIPES, resolve
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.spec import TRAINING_VERSION, RunSpec, model_of, run_id, run_key
from irnet_hpc.train import cli as train
from irnet_hpc.train.dataset import epoch_order, load
from irnet_hpc.train.warm_start import Origin, check_features, read_origin, take_over
from tests import builders
from tests.builders import StopAfter

CPU = torch.device("cpu")
LAYERS = "48BARx2-32BAx2R-16L0.1x1+1-1"
QUICK = (
    "{name: quick, base: onecycle, epochs: 3, batch: 64, norm_group: 32, precision: fp64, ema: 0.9}"
)
ROOT = Path(__file__).parents[2]


def command(pack: Path | str, results: Path, /, **changes) -> list[str]:
    options = {
        "pack": pack,
        "property": "mixing_enthalpy",
        "layers": LAYERS,
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
    """The command in this process: status and what it printed."""
    asked, out, err = command(*arguments, **changes), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = exit_status(lambda: train.main(asked[3:]))
    return subprocess.CompletedProcess(asked, status, out.getvalue(), err.getvalue())


def finish(*arguments, **changes) -> tuple[Path, str]:
    """A run folder and what its command printed."""
    results = arguments[1]
    before = set(results.rglob("result.json"))
    done = run(*arguments, **changes)
    assert done.returncode == 0, done.stderr
    (path,) = set(results.rglob("result.json")) - before
    return path.parent, done.stdout


@pytest.fixture(scope="module")
def pretrained(alloys_pack, tmp_path_factory) -> Path:
    """A network for the size mismatch, which saw the first 300 training rows only: their scaling is
    not that of all.
    """
    results = tmp_path_factory.mktemp("pretrained")
    return finish(alloys_pack, results, property="size_mismatch", train_rows=300)[0]


@pytest.fixture(scope="module")
def finetuned(alloys_pack, pretrained, tmp_path_factory) -> tuple[Path, str]:
    return finish(
        alloys_pack,
        tmp_path_factory.mktemp("finetuned"),
        init=pretrained,
        pack_dir=alloys_pack.parent,
    )


def fine_tune(
    pack_file: Path, path: Path, origin: Origin, layers: str = LAYERS, seed: int = 1, **changes
):
    """One training from `origin` in this process: (network, state)."""
    torch.set_num_threads(1)
    recipe = resolve(
        {
            "name": "t",
            "base": "onecycle",
            "precision": "fp64",
            "batch": 64,
            "norm_group": 32,
            "epochs": 2,
        }
        | changes
    )
    spec = RunSpec("pack", "mixing_enthalpy", **model_of(layers), seed=seed, start_from=origin.id)
    with open_pack(pack_file) as pack:
        data = load(pack, spec, recipe, CPU, origin.scaling)
    return builders.train(spec, recipe, "key", data, path, Alone(), CPU, origin)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


# -------------------------------------------------------------------------------------------------
# what is taken over


def test_a_run_says_where_it_started_and_its_folder_is_named_for_it(
    pretrained, finetuned, alloys_pack
):
    folder, printed = finetuned
    result, origin = read_result(folder / "result.json"), read_result(pretrained / "result.json")
    spec, recipe = (
        {n: v for n, v in side.items() if v is not None} for side in (origin.spec, origin.recipe)
    )
    for name, neutral in (
        ("protocol", "honest"),
        ("seed", 0),
    ):  # a key hashes what is not at its default
        assert spec.pop(name) == neutral
    defaults = {f.name: f.default for f in dataclasses.fields(RECIPES["paper"])}
    recipe = {name: value for name, value in recipe.items() if value != defaults[name]}
    start_from = hashlib.sha256(json.dumps([spec, recipe], sort_keys=True).encode()).hexdigest()[
        :16
    ]
    assert result.spec["start_from"] == start_from
    assert folder.parent.name == f"honest-from-{start_from[:8]}"
    with open_pack(alloys_pack) as pack:
        n_val = len(set(pack.formulas(pack.rows("val"))))
    assert result.origin == {
        "folder": str(pretrained), "key": origin.key, "pack": "alloys-small",
        "property": "size_mismatch", "recipe": "quick",
        "model": "custom-" + hashlib.sha256(LAYERS.encode()).hexdigest()[:8] + "-7",
        "protocol": "honest", "train_rows": 300, "n_shared_val": n_val, "n_shared_test": 0,
    }  # fmt: skip
    assert read_json(folder / "run.json")["origin"] == result.origin
    assert origin.origin is None
    assert f"starts from {pretrained}" in printed and "trains all layers" in printed
    assert f"{n_val} of val, 0 of test" in printed and "warning" not in printed


def test_everything_but_the_output_layer_begins_as_the_origin_ended(
    pretrained, alloys_pack, tmp_path
):
    """With a rate of nearly nothing the first epoch leaves what it found; the output is what the
    seed gives.
    """
    origin, stored = read_origin(pretrained), tensors_of(pretrained)
    network, _ = fine_tune(
        alloys_pack,
        tmp_path,
        origin,
        epochs=1,
        learning_rate=1e-9,
        weight_decay=0,
        schedule="constant",
        ema=0,
    )
    fresh = Network(86, parse_layers(LAYERS))
    fresh.initialise(1)
    for name, parameter in network.named_parameters():
        begin = (
            fresh.state_dict()[name].double()
            if name.startswith("output")
            else stored[f"network.{name}"]
        )
        assert torch.allclose(parameter, begin, rtol=0, atol=2e-8), name
        assert not torch.allclose(
            fresh.state_dict()[name].double(), stored[f"network.{name}"], atol=1e-4
        ), name


def test_features_are_scaled_as_for_the_origin_and_the_target_by_its_own_rows(
    pretrained, finetuned, alloys_pack
):
    folder, _ = finetuned
    ours, theirs = tensors_of(folder), tensors_of(pretrained)
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["irnet_hpc"])
    with open_pack(alloys_pack) as pack:
        x, y = (
            pack.x(pack.rows("train")).astype(np.float64),
            pack.y("mixing_enthalpy", pack.rows("train")),
        )
    np.testing.assert_allclose(
        ours["feature_mean"].numpy(), x[:300].mean(0), rtol=1e-12, atol=1e-15
    )
    assert not np.allclose(ours["feature_mean"].numpy(), x.mean(0), atol=1e-6)
    assert torch.equal(ours["feature_mean"], theirs["feature_mean"])
    assert torch.equal(ours["feature_scale"], theirs["feature_scale"])
    assert (facts["target_mean"], facts["target_scale"]) == pytest.approx((y.mean(), y.std()))


@pytest.mark.parametrize("trained_layers", [0, 2])
def test_fine_tuning_is_adam_in_plain_torch_from_the_same_weights(
    trained_layers, alloys_pack, tmp_path
):
    recipe = {
        "name": "plain", "base": "paper", "precision": "fp64", "batch": 32, "epochs": 2,
        "patience": 0, "features": "standard",
        "clip": 2.0, "learning_rate": 1e-3,
    }  # fmt: skip
    layers = "24Ax2-16A-1"
    first, _ = finish(
        alloys_pack,
        tmp_path / "a",
        property="size_mismatch",
        layers=layers,
        recipe=json.dumps(recipe),
        train_rows=200,
    )
    changes = {name: value for name, value in recipe.items() if name not in ("name", "base")}
    changes |= {"base": "paper", "trained_layers": trained_layers, "norm_group": 32}
    _, state = fine_tune(alloys_pack, tmp_path, read_origin(first), layers, seed=5, **changes)

    with open_pack(alloys_pack) as pack:
        x = torch.from_numpy(pack.x(pack.rows("train"))).double()
        y = torch.from_numpy(pack.y("mixing_enthalpy", pack.rows("train")))
        row = np.arange(pack.n_train)
    mean, deviation = x[:200].mean(0), x[:200].std(0, correction=0)
    x = ((x - mean) / torch.where(deviation > 0, deviation, 1.0)).clamp(-2, 2).float().double()
    generator = torch.Generator().manual_seed(5)
    widths = [(24, 86), (24, 24), (16, 24), (1, 16)]
    linears = [torch.nn.Linear(inputs, outputs).double() for outputs, inputs in widths]
    stored = tensors_of(first)
    for i, (outputs, inputs) in enumerate(widths):
        drawn = [
            torch.rand(shape, generator=generator) for shape in ((outputs, inputs), (outputs,))
        ]
        if i < 3:
            values = [stored[f"network.body.{i}.linear.{name}"] for name in ("weight", "bias")]
        else:
            values = [(2 * one - 1) / math.sqrt(inputs) for one in drawn]
        with torch.no_grad():
            linears[i].weight.copy_(values[0])
            linears[i].bias.copy_(values[1])
    adam = torch.optim.Adam(
        [p for linear in linears[-trained_layers:] for p in linear.parameters()], lr=1e-3
    )
    for epoch in range(2):
        order, total, n_steps = epoch_order(row, 5, epoch), 0.0, len(y) // 32
        for i in range(n_steps):
            rows = order[32 * i : 32 * (i + 1)]
            z = x[rows]
            for linear in linears[:-1]:
                z = torch.relu(linear(z))
            loss = torch.nn.functional.l1_loss(linears[-1](z)[:, 0], y[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.item() / n_steps
        assert state.history[epoch][3] == pytest.approx(total, rel=1e-9)


# Layers in the order of the string: two of 48 with a shortcut each, two of 32 within one, two
# branches of 16, the output.
LAST = {
    1: {"output"},
    2: {"output", "body.3.branches.1.0"},
    4: {
        "output",
        "body.3.branches.1.0",
        "body.3.branches.0.0",
        "body.2.layers.1",
        "body.2.projection",
    },
    6: {"output", "body.3", "body.2", "body.1"},
    7: {"output", "body"},
}


@pytest.mark.parametrize("trained_layers", LAST)
def test_only_the_last_layers_are_trained_and_the_others_stay_bit_for_bit(
    trained_layers, pretrained, alloys_pack, tmp_path
):
    """Whatever moves weights is at work: decay, averaging, the flat buffer, and normalisation,
    whose weights stay, too.
    """
    stored = tensors_of(pretrained)
    network, _ = fine_tune(
        alloys_pack,
        tmp_path,
        read_origin(pretrained),
        trained_layers=trained_layers,
        weight_decay=1.0,
        ema=0.5,
    )
    for name, parameter in network.named_parameters():
        trained = any(name.startswith(f"{one}.") for one in LAST[trained_layers])
        assert torch.equal(parameter, stored[f"network.{name}"]) != trained, name


def test_population_statistics_are_those_of_the_new_rows_even_if_weights_are_frozen(
    pretrained, alloys_pack, tmp_path
):
    """By hand: the first layer's mean over the rows is its weights times the mean of the scaled
    features.
    """
    origin, stored = read_origin(pretrained), tensors_of(pretrained)
    network, _ = fine_tune(alloys_pack, tmp_path, origin, trained_layers=1, statistics_rows=10**6)
    with open_pack(alloys_pack) as pack:
        x = origin.scaling.features(pack.x(pack.rows("train"))).astype(np.float64)
    x = x[: len(x) // 32 * 32]
    by_hand = stored["network.body.0.layers.0.linear.weight"] @ torch.from_numpy(x.mean(0))
    by_hand += stored["network.body.0.layers.0.linear.bias"]
    found = network.state_dict()["body.0.layers.0.norm.mean"]
    assert torch.allclose(found, by_hand, rtol=1e-9)
    assert not torch.allclose(found, stored["network.body.0.layers.0.norm.mean"], rtol=1e-3)


@pytest.mark.parametrize("trained_layers", [0, 4])
def test_it_goes_on_bit_for_bit_where_a_signal_stopped_it(
    trained_layers, pretrained, alloys_pack, tmp_path, monkeypatch
):
    origin = read_origin(pretrained)
    changes = {
        "trained_layers": trained_layers,
        "batch": 16,
        "norm_group": 16,
        "ema": 0.9,
        "precision": "fp32",
    }
    undisturbed, state = fine_tune(alloys_pack, tmp_path / "a", origin, **changes)
    monkeypatch.setattr(builders, "NeverStop", lambda: StopAfter(40))
    assert fine_tune(alloys_pack, tmp_path / "b", origin, **changes) is None
    monkeypatch.setattr(builders, "NeverStop", lambda: StopAfter(10**9))
    resumed, again = fine_tune(alloys_pack, tmp_path / "b", origin, **changes)
    assert [row[:5] for row in again.history] == [row[:5] for row in state.history]
    for (name, one), two in zip(
        undisturbed.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


@pytest.mark.slow
def test_two_ranks_fine_tune_as_one_does(pretrained, alloys_pack, tmp_path):
    if shutil.which("horovodrun") is None:
        pytest.skip("horovodrun is not installed")
    histories, recipe = [], QUICK.replace("quick,", "quick, trained_layers: 5,")
    for name, launcher in (("one", []), ("two", ["horovodrun", "--gloo", "-np", "2"])):
        asked = command(
            alloys_pack,
            tmp_path / name,
            init=pretrained,
            recipe=recipe,
            pack_dir=alloys_pack.parent,
        )
        done = subprocess.run(
            [*launcher, *asked], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        history = next((tmp_path / name).rglob("history.csv")).read_text().splitlines()[1:]
        histories.append([[float(cell) for cell in line.split(",")[3:5]] for line in history])
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-9)
    ours, theirs = (
        tensors_of(next((tmp_path / name).rglob("model.safetensors")).parent)
        for name in ("one", "two")
    )
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-7, atol=1e-9) for name in ours)


# --------------------------------------------------------------------------------------------------
# -------------- keys


def test_a_key_holds_that_of_the_origin_and_is_as_ever_without_one():
    spec, recipe, identity = (
        RunSpec("p", "q", "irnet", 17),
        RECIPES["onecycle"],
        {"source_sha256": "1"},
    )
    assert run_key(spec, recipe, identity) == run_key(spec, recipe, identity, None)
    fields = [{"pack": "p", "property": "q", "architecture": "irnet", "depth": 17}]
    fields += [
        {
            n: v
            for n, v in dataclasses.asdict(recipe).items()
            if v != getattr(RECIPES["paper"], n) or n == "name"
        }
    ]
    by_hand = hashlib.sha256(
        json.dumps([*fields, identity, TRAINING_VERSION], sort_keys=True).encode()
    ).hexdigest()
    assert run_key(spec, recipe, identity) == by_hand
    started = dataclasses.replace(spec, start_from=run_id(spec, recipe))
    keys = {run_key(started, recipe, identity, key) for key in (None, "a", "b")}
    assert len(keys) == 3 and by_hand not in keys


def test_a_run_whose_origin_was_trained_again_with_other_content_is_stale(
    pretrained, finetuned, alloys_pack, tmp_path
):
    again = run(
        alloys_pack, finetuned[0].parents[5], init=pretrained, pack_dir=alloys_pack.parent
    )  # the same in another place
    assert again.returncode == 0 and "already done" in again.stdout
    other = shutil.copytree(pretrained, tmp_path / "other")
    write_json(other / "result.json", read_json(other / "result.json") | {"key": "f" * 64})
    with safetensors.safe_open(other / "model.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["irnet_hpc"]) | {"key": "f" * 64, "sha256": None}
    safetensors.torch.save_file(
        tensors_of(other), other / "model.safetensors", {"irnet_hpc": json.dumps(facts)}
    )
    stale = run(alloys_pack, finetuned[0].parents[5], init=other, pack_dir=alloys_pack.parent)
    assert stale.returncode == 2 and "is stale" in stale.stderr


# --------------------------------------------------------------------------------------------------
# ------ shared formulas


@pytest.fixture(scope="module")
def split_otherwise(tmp_path_factory) -> Path:
    """The alloys under another split seed: its test formulas are among the other pack's training
    rows.
    """
    folder = tmp_path_factory.mktemp("otherwise")
    asked = (
        "--source alloys --rows 600 --features elements --name alloys-otherwise --split-seed 1 "
        "--workers 1 --pack-dir"
    )
    subprocess.run(
        [sys.executable, "-m", "irnet_hpc.pack", *asked.split(), folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder / "alloys-otherwise.h5"


def compositions(pack_file: Path, *parts: slice | str) -> set:
    """What pymatgen takes the formulas of these rows for, as fractions."""
    from pymatgen.core import Composition

    with open_pack(pack_file) as pack:
        rows = [pack.rows(part) if isinstance(part, str) else part for part in parts]
        found = [
            Composition(formula).fractional_composition
            for one in rows
            for formula in pack.formulas(one)
        ]
    return {frozenset((str(e), round(amount, 6)) for e, amount in one.items()) for one in found}


def test_shared_formulas_are_counted_as_pymatgen_counts_them_and_warned_of(
    pretrained, alloys_pack, split_otherwise, tmp_path
):
    folder, printed = finish(
        split_otherwise, tmp_path, init=pretrained, pack_dir=alloys_pack.parent
    )
    theirs = compositions(
        alloys_pack, slice(0, 300), "val"
    )  # the first 300 training rows, and those that selected
    n_val, n_test = (len(compositions(split_otherwise, part) & theirs) for part in ("val", "test"))
    origin = read_result(folder / "result.json").origin
    assert (origin["n_shared_val"], origin["n_shared_test"]) == (n_val, n_test)
    assert 0 < n_test < len(compositions(split_otherwise, "test"))
    assert f"{n_val} of val, {n_test} of test" in printed
    assert (
        f"warning: {n_test} formulas of the test rows have trained or selected the init run"
        in printed
    )


def test_the_pack_that_both_were_trained_on_is_at_hand_where_it_is_given_by_its_path(
    pretrained, alloys_pack, tmp_path
):
    elsewhere = tmp_path / "none here"
    folder, _ = finish(
        alloys_pack, tmp_path, property="size_mismatch", init=pretrained, pack_dir=elsewhere
    )
    origin = read_result(folder / "result.json").origin
    assert (origin["n_shared_val"], origin["n_shared_test"]) == (
        len(compositions(alloys_pack, "val")),
        0,
    )


def test_test_rows_that_selected_an_origin_of_protocol_paper_are_shared(alloys_pack, tmp_path):
    origin, _ = finish(alloys_pack, tmp_path / "a", property="size_mismatch", protocol="paper")
    folder, printed = finish(alloys_pack, tmp_path / "b", init=origin, pack_dir=alloys_pack.parent)
    n_test = len(compositions(alloys_pack, "test"))
    assert read_result(folder / "result.json").origin["n_shared_test"] == n_test
    assert f"warning: {n_test} formulas" in printed


def benchmark_of(alloys_pack: Path, path: Path, rows: slice) -> Path:
    """The alloys as a benchmark: train, val and test are the rows in this order."""
    everything = slice(0, 600)
    with open_pack(alloys_pack) as pack, create_pack(path, pack.feature_labels, 600) as writer:
        counts = {"train": pack.n_train, "val": pack.n_val, "test": pack.n_test}
        writer.append(pack.x(everything)[rows])
        columns = pack.formulas(everything)[rows], pack.material_ids(everything)[rows]
        targets = {name: pack.y(name, everything)[rows] for name in pack.units}
        identity = pack.identity | {"source": "crabnet:mp_mu_b", "split": {"by": "column"}}
        writer.finish(*columns, targets, counts, identity, {})
    return path


def test_a_benchmark_starts_from_no_run_that_a_formula_of_its_test_rows_trained(
    pretrained, alloys_pack, tmp_path
):
    told = {"init": pretrained, "pack_dir": alloys_pack.parent}
    same = benchmark_of(alloys_pack, tmp_path / "same.h5", slice(None))
    folder, _ = finish(same, tmp_path / "results", **told)
    assert read_result(folder / "result.json").origin["n_shared_test"] == 0
    turned = benchmark_of(alloys_pack, tmp_path / "turned.h5", slice(None, None, -1))
    done = run(turned, tmp_path / "results", **told)
    assert done.returncode == 2
    assert re.search(r"[1-9]\d* formulas that it tests have trained or selected", done.stderr)
    unknown = run(same, tmp_path / "others", init=pretrained, pack_dir=tmp_path / "none")
    assert unknown.returncode == 2 and "not known whether" in unknown.stderr
    assert not list((tmp_path / "others").rglob("result.json"))


@pytest.mark.parametrize("case", ["no pack", "another pack", "a start of its own"])
def test_what_cannot_be_known_is_said_and_null(
    case, pretrained, finetuned, alloys_pack, split_otherwise, tmp_path
):
    packs, init = tmp_path / "packs", finetuned[0] if case == "a start of its own" else pretrained
    packs.mkdir()
    if case == "another pack":
        shutil.copy(split_otherwise, packs / "alloys-small.h5")
    ours = shutil.copy(
        alloys_pack, tmp_path / "ours.h5"
    )  # under its own name it is the origin's pack
    done = run(ours, tmp_path / "results", init=init, pack_dir=packs)
    assert done.returncode == 0, done.stderr
    origin = read_result(next((tmp_path / "results").rglob("result.json"))).origin
    assert (origin["n_shared_val"], origin["n_shared_test"]) == (None, None)
    assert "formulas that trained or selected it: not known" in done.stdout
    why = {
        "no pack": "there is no pack",
        "another pack": "is not the pack that",
        "a start of its own": "itself started",
    }
    assert (
        "the formulas that the init run was trained on are not known: " in done.stderr
        and why[case] in done.stderr
    )


# --------------------------------------------------------------------------------------------------
# ---------- refusals


def damaged(pretrained: Path, folder: Path, how: str) -> Path:
    """A copy of the origin that something has happened to."""
    copy = shutil.copytree(pretrained, folder / "origin")
    model, result = copy / "model.safetensors", copy / "result.json"
    if how == "missing":
        model.unlink()
    elif how == "cut short":
        model.write_bytes(model.read_bytes()[:-100])
    elif how == "not ours":
        safetensors.torch.save_file({"x": torch.zeros(1)}, model)
    elif how == "of another run":
        write_json(result, read_json(result) | {"key": "0" * 64})
    elif how == "of another property":
        write_json(
            result, (said := read_json(result)) | {"spec": said["spec"] | {"property": "band_gap"}}
        )
    elif how == "a tensor lost":
        with safetensors.safe_open(model, "pt") as file:
            facts = json.loads(file.metadata()["irnet_hpc"]) | {
                "sha256": None
            }  # as before models had one, which tells it
        tensors = tensors_of(copy)
        del tensors["network.body.0.layers.0.norm.bias"]
        safetensors.torch.save_file(tensors, model, {"irnet_hpc": json.dumps(facts)})
    elif how == "unfinished":
        result.unlink()
    elif how == "no result":
        result.write_text("{")
    elif how == "classical":
        spec = {"pack": "p", "property": "q", "architecture": "ridge", "recipe": "grid"}
        write_json(result, read_json(result) | {"spec": spec})
    return copy


HURT = {
    "missing": "model.safetensors: it is missing",
    "cut short": "model.safetensors: it is damaged",
    "not ours": "model.safetensors: it is damaged",
    "of another run": "belongs to another run than the result.json",
    "of another property": "belongs to another run than the result.json",
    "a tensor lost": "body.0.layers.0.norm.bias",
    "unfinished": "an init run must be finished",
    "no result": "is not JSON",
    "classical": "an init run must hold a network",
}
ODD = {
    "no folder": ({"init": "nowhere"}, "nowhere"),
    "other layers": ({"layers": "48BARx2-32BAx2R-1"}, "must have the same layers"),
    "a classical target": (
        {"layers": None, "architecture": "ridge", "recipe": None},
        "ridge",
    ),
    "other features": (
        {"recipe": "{name: a, base: paper, batch: 64}"},
        "got raw",
    ),
    "another clip": (
        {"recipe": QUICK.replace("quick,", "a, clip: 3,")},
        "got 3.0",
    ),
    "too many layers": (
        {"recipe": QUICK.replace("quick,", "a, trained_layers: 8,")},
        "8",
    ),
    "layers without init": (
        {"init": None, "recipe": QUICK.replace("quick,", "a, trained_layers: 1,")},
        "trained_layers of recipe 'a' must be 0 without an init run",
    ),
    "fewer than no layers": (
        {"recipe": QUICK.replace("quick,", "a, trained_layers: -1,")},
        "trained_layers of recipe 'a' must be between 0 and",
    ),
}


def refused(capsys, sentence: str, *arguments, **changes) -> None:
    assert exit_status(lambda: train.main(command(*arguments, **changes)[3:])) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and sentence in error
    assert not list(arguments[1].rglob("result.json")) and not list(
        arguments[1].rglob("checkpoint")
    )


@pytest.mark.parametrize("how", HURT)
def test_an_origin_that_cannot_be_used_is_one_sentence_and_status_2(
    how, pretrained, alloys_pack, tmp_path, capsys
):
    init = damaged(pretrained, tmp_path, how)
    refused(
        capsys, HURT[how], alloys_pack, tmp_path / "results", init=init, pack_dir=alloys_pack.parent
    )


@pytest.mark.parametrize("case", ODD)
def test_a_start_that_cannot_be_is_one_sentence_and_status_2(
    case, pretrained, alloys_pack, tmp_path, capsys
):
    changes, sentence = ODD[case]
    refused(capsys, sentence, alloys_pack, tmp_path / "results", **{"init": pretrained} | changes)


def test_the_estimator_which_starts_from_nothing_trains_all_layers():
    recipe = {"name": "a", "base": "onecycle", "trained_layers": 1, "batch": 2, "norm_group": 2}
    x = np.random.default_rng(0).normal(size=(64, 3))
    with pytest.raises(
        UserError, match="trained_layers of recipe 'a' must be 0 without an init run"
    ):
        IRNetRegressor(layers="8BAx1-1", recipe=recipe).fit(x, x[:, 0])


def test_an_origin_of_another_feature_set_is_refused_naming_both(pretrained, alloys_pack):
    origin = read_origin(pretrained)
    with open_pack(alloys_pack) as pack:
        check_features(origin, pack)
        pack.feature_labels = [*pack.feature_labels[1:], "glow"]
        pack.features = "magpie"
        with pytest.raises(
            UserError,
            match=r"the init run has another feature set: .* on elements .*, pack .* has magpie",
        ):
            check_features(origin, pack)


def test_a_network_of_two_properties_gives_its_body_to_one_of_one_and_takes_it_back(
    alloys_pack, tmp_path
):
    both, packs = "size_mismatch,mixing_enthalpy", alloys_pack.parent
    last = QUICK.replace("quick,", "last, trained_layers: 1,")
    first, _ = finish(alloys_pack, tmp_path / "a", property=both)
    second, printed = finish(alloys_pack, tmp_path / "b", init=first, pack_dir=packs, recipe=last)
    third, _ = finish(
        alloys_pack, tmp_path / "c", init=first, pack_dir=packs, recipe=last, property=both
    )
    origin = read_result(second / "result.json").origin
    assert origin["property"] == both and origin["n_shared_test"] == 0 < origin["n_shared_val"]
    assert f"on {both} of alloys-small" in printed
    outputs = []
    for folder in (first, second, third):
        tensors = tensors_of(folder)
        outputs.append(len(tensors["network.output.bias"]))
        for name in ("body.0.layers.0.linear.weight", "body.2.layers.1.norm.bias"):
            assert torch.equal(tensors[f"network.{name}"], tensors_of(first)[f"network.{name}"])
    assert outputs == [2, 1, 2]


def test_an_origin_of_several_outputs_gives_all_but_its_output_layer(pretrained):
    origin, network = (
        read_origin(pretrained),
        Network(86, parse_layers(LAYERS.removesuffix("-1") + "-3")).double(),
    )
    take_over(origin, network)
    assert network.output.weight.shape == (3, 16)
    assert torch.equal(
        network.body[0].layers[0].linear.weight, origin.tensors["body.0.layers.0.linear.weight"]
    )
