"""Training from Python: the runs of the command, one process, and nothing changed in the caller."""

import contextlib
import json
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from irnet_hpc import IRNetRegressor, UserError, load_model, train_model
from irnet_hpc.console import exit_status
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.lease import LEASE_FILE, Leases, RunIsHeld
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.train import cli

RECIPE = {"name": "tiny", "base": "onecycle", "epochs": 2, "batch": 64, "norm_group": 32}
LAYERS = "16BARx2-1"
# Fields of a result that differ from one attempt to the next.
OF_ATTEMPT = {
    *("wall_time_s", "device_hours", "samples_per_s", "peak_memory_gb", "attempts", "bundle_size"),
    "commit",  # of a source tree that somebody may be working in
}


def by_command(pack, results, *options: str) -> dict[str, dict]:
    """Train by the command; the results by run folder, seen from `results`."""
    arguments = ["--pack", str(pack), "--property", "mixing_enthalpy", *options]
    assert exit_status(lambda: cli.main([*arguments, "--results", str(results)])) == 0
    return stored(results)


def stored(results) -> dict[str, dict]:
    """Read all results below a folder, without what differs from one attempt to the next."""
    return {
        str(path.parent.relative_to(results)): {
            name: value
            for name, value in json.loads(path.read_text()).items()
            if name not in OF_ATTEMPT
        }
        for path in results.rglob("result.json")
    }


def test_a_call_leaves_the_run_folder_of_the_command(alloys_pack, tmp_path):
    result = train_model(
        str(alloys_pack), "mixing_enthalpy", layers=LAYERS, recipe=RECIPE, results=tmp_path / "a"
    )
    expected = by_command(
        alloys_pack, tmp_path / "b", "--layers", LAYERS, "--recipe", json.dumps(RECIPE)
    )
    assert isinstance(result, RunResult) and result.unit == "eV/atom"
    assert stored(tmp_path / "a") == expected
    (first,), (second,) = ((tmp_path / name).rglob("test_predictions.npz") for name in "ab")
    with np.load(first) as one, np.load(second) as two:
        assert all(np.array_equal(one[name], two[name]) for name in two)


def test_a_finished_run_is_returned_and_not_repeated(alloys_pack, tmp_path):
    options = {"layers": LAYERS, "recipe": RECIPE, "results": str(tmp_path)}
    first = train_model(alloys_pack, "mixing_enthalpy", **options)
    (path,) = tmp_path.rglob("result.json")
    before = path.stat().st_mtime_ns
    assert train_model(alloys_pack, "mixing_enthalpy", **options) == first
    assert path.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="stale"):
        train_model(alloys_pack, "mixing_enthalpy", **options | {"recipe": RECIPE | {"epochs": 1}})
    forced = options | {"recipe": RECIPE | {"epochs": 1}, "force": True}
    assert train_model(alloys_pack, "mixing_enthalpy", **forced).epochs == 1


def test_lists_of_properties_and_seeds_give_a_list_in_their_order(alloys_pack, tmp_path):
    with open_pack(alloys_pack) as pack:
        results = train_model(
            pack,
            ["size_mismatch", "mixing_enthalpy"],
            layers=LAYERS,
            recipe=RECIPE,
            seed=[3, 1],
            results=tmp_path,
        )
    assert [(result.spec["property"], result.spec["seed"]) for result in results] == [
        *(("size_mismatch", 3), ("size_mismatch", 1)),
        *(("mixing_enthalpy", 3), ("mixing_enthalpy", 1)),
    ]
    assert len({result.test_mae for result in results}) == 4


def test_a_classical_model_needs_no_recipe_and_no_depth(alloys_pack, tmp_path):
    result = train_model(
        alloys_pack, "mixing_enthalpy", architecture="ridge", results=tmp_path / "a"
    )
    assert stored(tmp_path / "a").keys() == (
        by_command(alloys_pack, tmp_path / "b", "--architecture", "ridge").keys()
    )
    assert result.chosen is not None and result.epochs is None


def test_an_origin_is_given_by_its_folder(alloys_pack, tmp_path):
    options = {"layers": LAYERS, "recipe": RECIPE, "results": tmp_path}
    origin = train_model(alloys_pack, "mixing_enthalpy", **options)
    (path,) = tmp_path.rglob("result.json")
    second = train_model(alloys_pack, "size_mismatch", init=path.parent, **options)
    assert second.origin["key"] == origin.key


def test_the_process_is_afterwards_as_it_was_before(alloys_pack, tmp_path, capsys):
    """Signals, threads, random numbers, standard output, and nothing held."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
    torch.set_num_threads(1)

    def state():
        return (
            [signal.getsignal(number) for number in numbers],
            torch.get_num_threads(),
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            random.getstate(),
            sys.stdout,
        )

    before, threads = state(), set(threading.enumerate())
    for model in ({"layers": LAYERS, "recipe": RECIPE}, {"architecture": "linear"}):
        train_model(alloys_pack, "mixing_enthalpy", results=tmp_path, **model)
    assert state() == before
    assert not list(tmp_path.rglob(LEASE_FILE))
    for thread in set(threading.enumerate()) - threads:
        if "_beat" in thread.name:
            thread.join(600)  # it ends by itself
            assert not thread.is_alive()


def test_a_run_that_another_holds_is_a_type_of_error(alloys_pack, tmp_path):
    options = {"layers": LAYERS, "recipe": RECIPE, "results": tmp_path}
    train_model(alloys_pack, "mixing_enthalpy", **options)
    (path,) = tmp_path.rglob("result.json")
    path.unlink()
    with Leases() as others:
        others.acquire(path.parent)
        with pytest.raises(RunIsHeld):
            train_model(alloys_pack, "mixing_enthalpy", **options)
    assert train_model(alloys_pack, "mixing_enthalpy", **options) == read_result(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": "irnett", "depth": 17},
        {"architecture": "irnet", "depth": 18},
        {"layers": LAYERS, "depth": 5},
        {"layers": LAYERS, "recipe": "papper"},
        {"layers": LAYERS, "data": "disk"},
        {"architecture": "ridge", "micro_batch": 8},
        {"layers": LAYERS, "micro_batch": "64"},
        {"layers": LAYERS, "micro_batch": 64.0},
        {"architecture": "ridge", "data": "stream"},
        {"layers": LAYERS, "seed": -1},
        {"layers": LAYERS, "init": "nowhere"},
    ],
)
def test_an_argument_that_is_not_allowed_is_a_user_error(alloys_pack, tmp_path, wrong):
    with pytest.raises(UserError):
        train_model(alloys_pack, "mixing_enthalpy", results=tmp_path, **wrong)
    assert not list(tmp_path.rglob("run.json"))


@contextlib.contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


# The modes that a notebook may have switched on, also for the whole process.
MODES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "default device": lambda: default_device("meta"),
    "default dtype": lambda: default_dtype(torch.float64),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_of_the_callers_torch_changes_no_number(mode, alloys_pack, tmp_path):
    """A recipe in fp32 inside the caller's autocast to bf16 had been trained in bf16."""
    rows = np.random.default_rng(0).normal(size=(120, 4))
    recipe = RECIPE | {"precision": "fp32"}

    def numbers(results) -> list[float]:
        options = {"layers": LAYERS, "recipe": recipe, "results": str(results), "device": "cpu"}
        result = train_model(alloys_pack, "mixing_enthalpy", **options)
        model = load_model(result, results=results, pack_dir=alloys_pack.parent, device="cpu")
        predicted = model.predict(["AlNi", "CuZn"])["predicted_mixing_enthalpy"]
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            regressor = IRNetRegressor(layers=LAYERS, recipe=recipe).fit(rows, rows[:, 0])
        return [result.test_mae, *predicted, *regressor.predict(rows[:3])]

    alone = numbers(tmp_path / "alone")
    with MODES[mode]():
        assert numbers(tmp_path / "inside") == alone
        is_on = {
            "autocast": torch.is_autocast_enabled("cpu"),
            "no_grad": not torch.is_grad_enabled(),
            "inference_mode": torch.is_inference_mode_enabled(),
            "default device": torch.get_default_device().type == "meta",
            "default dtype": torch.get_default_dtype() == torch.float64,
        }
        assert is_on[mode]  # the mode is the caller's again


@pytest.mark.parametrize("name", [None, 3, ["mixing_enthalpy", None]])
def test_a_property_that_is_no_name_is_a_user_error(alloys_pack, tmp_path, name):
    with pytest.raises(UserError):
        train_model(alloys_pack, name, layers=LAYERS, results=str(tmp_path / "results"))
    assert not (tmp_path / "results").exists()
