"""The library in a program: after each call, the process is as it was."""

import contextlib
import functools
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from irnet_hpc import IRNetRegressor, load_model, pack_table, train_model
from irnet_hpc.distributed.processes import Shared, no_warnings
from irnet_hpc.train import cli

ROOT = Path(__file__).parents[2]
RECIPE = {"name": "tiny", "base": "onecycle", "epochs": 1, "batch": 64, "norm_group": 32}
LAYERS = "8BARx2-1"
SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM),
    *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGHUP),
)


def state() -> dict:
    """Return all state of the process that a caller might notice."""
    numpy_name, numpy_keys, *numpy_rest = np.random.get_state()
    return {
        "stdout": sys.stdout,
        "stderr": sys.stderr,
        "handlers": [signal.getsignal(number) for number in SIGNALS],
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "filters": warnings.filters[:],
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": (numpy_name, numpy_keys.tolist(), numpy_rest),
        "random": random.getstate(),
        "errors": np.geterr(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "layout": torch._C._is_grad_layout_enforcement_enabled(),
        "folder": Path.cwd(),
        "levels": {
            name: (logger.level, logger.propagate, logger.disabled, list(logger.handlers))
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger)
        },
        "root": (logging.root.level, list(logging.root.handlers)),
        "umask": umask(),
    }


def umask() -> int:
    value = os.umask(0o022)
    os.umask(value)
    return value


@pytest.fixture(scope="module")
def run(alloys_pack, tmp_path_factory) -> Path:
    """Return the folder of a small network."""
    results = tmp_path_factory.mktemp("results")
    train_model(alloys_pack, "mixing_enthalpy", layers=LAYERS, recipe=RECIPE, results=results)
    return next(results.rglob("result.json")).parent


def train(model: dict, alloys_pack: Path, run: Path, tmp_path: Path) -> None:
    train_model(alloys_pack, "mixing_enthalpy", results=tmp_path, force=True, **model)


def fit(alloys_pack: Path, run: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(600, 3))
    recipe = RECIPE | {"batch": 32}
    IRNetRegressor(layers=LAYERS, recipe=recipe, verbose=True).fit(x, x[:, 0]).predict(x)


def predict(alloys_pack: Path, run: Path, tmp_path: Path) -> None:
    load_model(run, pack_dir=alloys_pack.parent).predict(["Al3Ni", "TiNi"])


def export(alloys_pack: Path, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from irnet_hpc.export import export_model

    export_model(run, tmp_path / "model.onnx", alloys_pack.parent)


def pack(alloys_pack: Path, run: Path, tmp_path: Path) -> None:
    options = {"features": "magpie", "rows": 40, "workers": 2, "pack_dir": tmp_path}
    pack_table("alloys", name=f"p{len(list(tmp_path.iterdir()))}", **options).close()


CALLS = {
    "a network": functools.partial(train, {"layers": LAYERS, "recipe": RECIPE}),
    "a classical model": functools.partial(train, {"architecture": "ridge"}),
    "fit": fit,
    "predict": predict,
    "export": export,
    "pack": pack,
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_leaves_the_process_as_it_was(call, alloys_pack, run, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    CALLS[call](alloys_pack, run, tmp_path / "first")  # what is imported now may add filters
    torch.manual_seed(5)
    before = state()
    CALLS[call](alloys_pack, run, tmp_path / "second")
    after = state()
    after["levels"] = {name: after["levels"][name] for name in before["levels"]}
    for name, value in before.items():
        assert after[name] == value, name


def test_an_export_prints_nothing(alloys_pack, run, tmp_path, capfd):
    export(alloys_pack, run, tmp_path)
    assert capfd.readouterr() == ("", "")


def test_the_command_train_called_by_a_program_restores_its_signals(alloys_pack, tmp_path):
    def stop(*_):
        raise AssertionError

    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGUSR2, stop)
    try:
        options = ["--pack", str(alloys_pack), "--property", "mixing_enthalpy", "--layers", LAYERS]
        options += ["--recipe", str(RECIPE), "--results", str(tmp_path)]
        assert cli.main(options) == 0
        found = {number: signal.getsignal(number) for number in SIGNALS}
        assert found == before | {signal.SIGUSR2: stop}
    finally:
        signal.signal(signal.SIGUSR2, before[signal.SIGUSR2])


def test_no_filter_of_warnings_is_added_for_strided_gradients_and_none_is_needed(
    alloys_pack, tmp_path
):
    """In a new process, since torch gives that warning once; the stack has two networks."""
    code = f"""
import sys, warnings
import torch, sklearn
from irnet_hpc import train_model
train_model(sys.argv[1], "mixing_enthalpy", layers={LAYERS!r}, recipe={RECIPE!r}, seed=[0, 1])
patterns = [pattern.pattern for _, pattern, *_ in warnings.filters if pattern]
assert not [pattern for pattern in patterns if "layout" in pattern], patterns
"""
    done = subprocess.run(
        [sys.executable, "-c", code, alloys_pack],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "layout contract" not in done.stderr


# Blocks that overlap


def overlapping(first, second, probe) -> list:
    """Enter `first`, then `second` in another thread; leave `first`, then `second`.

    Returns:
        The probe before, inside both, inside the second alone, and after.
    """
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with second:
            entered.set()
            leave.wait(600)

    thread, found = threading.Thread(target=other), [probe()]
    with first:
        thread.start()
        assert entered.wait(600)
        found.append(probe())
    found.append(probe())
    leave.set()
    thread.join()
    return [*found, probe()]


def test_blocks_without_warnings_that_overlap_restore_the_filters():
    with warnings.catch_warnings():
        before, inside, alone, after = overlapping(
            no_warnings(), no_warnings(), lambda: warnings.filters[:]
        )
    assert inside == alone != before == after
    assert inside[0][0] == "ignore"


def test_a_shared_context_is_entered_once_and_left_once_even_after_an_error():
    events = []

    @contextlib.contextmanager
    def noted():
        events.append("in")
        try:
            yield
        finally:
            events.append("out")

    shared = Shared(noted)
    with pytest.raises(KeyError), shared.block(), shared.block():
        raise KeyError
    with shared.block():
        assert events == ["in", "out", "in"]
    assert events == ["in", "out"] * 2
