"""Hold that a run has one trainer at a time, whoever else starts it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from irnet_hpc.console import ExitStatus, exit_status
from irnet_hpc.distributed.processes import process_name
from irnet_hpc.runs import lease
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.train import cli as train
from tests.runs.test_lease import start
from tests.sweep.stand_ins import HOLD, ROOT, TINY, wait_until


@pytest.mark.parametrize(
    "model", [["--layers", "32BAx2-1", "--recipe", TINY], ["--architecture", "linear"]]
)
def test_a_second_train_of_a_held_run_ends_as_held_and_leaves_nothing(
    tmp_path, alloys_pack, capsys, model
):
    options = [
        "--pack",
        str(alloys_pack),
        "--property",
        "mixing_enthalpy",
        *model,
        "--results",
        str(tmp_path),
    ]
    assert exit_status(lambda: train.main(options)) == 0
    (result,) = tmp_path.rglob("result.json")
    assert not (result.parent / lease.LEASE_FILE).exists()
    result.unlink()
    process = start(HOLD, result.parent)
    assert process.stdout.readline() == "holds\n"
    before = sorted(path.name for path in result.parent.iterdir())
    assert exit_status(lambda: train.main(options)) == ExitStatus.HELD
    assert sorted(path.name for path in result.parent.iterdir()) == before
    assert f"is being trained by process {process.pid} on " in capsys.readouterr().err
    process.communicate()
    assert exit_status(lambda: train.main(options)) == 0


def test_any_error_is_left_in_one_line_and_the_lease_given_back(tmp_path, alloys_pack, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried\nto allocate")

    monkeypatch.setattr(RunFolder, "write_history", broken)
    options = [
        "--pack",
        str(alloys_pack),
        "--property",
        "mixing_enthalpy",
        "--layers",
        "32BAx2-1",
        "--recipe",
        TINY,
    ]
    with pytest.raises(RuntimeError):
        train.main([*options, "--results", str(tmp_path)])
    (path,) = tmp_path.rglob("error.json")
    assert json.loads(path.read_text())["error"] == "RuntimeError: CUDA out of memory. Tried"
    assert not (path.parent / lease.LEASE_FILE).exists()


@pytest.mark.slow
def test_a_training_that_wakes_up_late_leaves_the_new_ones_run_alone(tmp_path, alloys_pack):
    options = [
        "--pack",
        str(alloys_pack),
        "--property",
        "mixing_enthalpy",
        "--layers",
        "64BARx2-1",
        "--results",
    ]
    recipe = TINY.replace("epochs: 2", "epochs: 3000")
    again = [sys.executable, "-m", "irnet_hpc.train", *options, str(tmp_path), "--recipe", recipe]
    environment = os.environ | {"IRNET_LEASE_S": "2"}
    late = subprocess.Popen(
        again,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list(tmp_path.rglob("history.csv")))
    late.send_signal(signal.SIGSTOP)
    (history,) = tmp_path.rglob("history.csv")
    of_late = history.stat().st_ino
    time.sleep(2.5)
    new = subprocess.Popen(again, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: lease.read_lease(history.parent).lease.process == process_name(new.pid))
    wait_until(
        lambda: history.stat().st_ino != of_late and len(history.read_text().splitlines()) > 3
    )
    late.send_signal(signal.SIGCONT)
    _, said = late.communicate(timeout=600)
    assert late.returncode == 2
    assert f"error: process {new.pid} on " in said and "has taken over" in said
    new.send_signal(signal.SIGTERM)
    assert new.wait(600) == ExitStatus.PREEMPTED
    epochs = [int(line.split(",")[0]) for line in history.read_text().splitlines()[1:]]
    assert epochs == list(range(len(epochs)))  # the late one has added none
    assert (
        not (history.parent / "error.json").exists()
        and not (history.parent / lease.LEASE_FILE).exists()
    )
