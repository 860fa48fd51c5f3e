"""Hold how a matrix runs on this machine: failures, stops, other processes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.processes import process_name
from irnet_hpc.files import write_json
from irnet_hpc.runs import lease
from irnet_hpc.sweep import journal, local
from irnet_hpc.sweep.cell_states import read_ledger
from tests.builders import write_result
from tests.sweep.stand_ins import (
    HOLD,
    MODELS,
    ROOT,
    SMALL,
    TINY,
    command,
    wait_until,
)


def test_run_goes_on_after_a_failed_cell_and_runs_only_that_one_again(place, stand_in, capsys):
    error = place.run_folder("plain-17") / "error.json"
    stand_in["plain-17"] = f'echo \'{{"error": "it hurts"}}\' >{error}; exit 1'
    stand_in["irnet-10"] = "echo several; echo words; exit 3"
    stand_in["irnet-24"] = (
        "echo '[1]<stderr>:the reason'; echo '[0]<stdout>:'; echo RuntimeError: horovodrun; exit 1"
    )
    assert place.sweep("run") == 1
    shown = capsys.readouterr().out
    assert (
        "[1/6] alloys-magpie/mixing_enthalpy/plain-10/onecycle/honest/seed0 on 1 rank; log "
        in shown
    )
    assert "[1/6] MAE 0.125 eV/atom in " in shown
    assert "[2/6] failed: it hurts" in shown
    assert "[4/6] failed: status 3: words" in shown
    assert "[6/6] failed: status 1: the reason" in shown
    assert "mine: 3 cells done, 3 failures" in shown
    assert (place.run_folder("irnet-10") / "train.log").read_text() == "several\nwords\n"
    assert [m for m, state in place.states().items() if state == "failed"] == [
        "plain-17",
        "irnet-10",
        "irnet-24",
    ]
    stand_in.clear()
    error.unlink()
    assert place.sweep("run") == 0
    shown = capsys.readouterr().out
    assert "[3/3]" in shown and "plain-10" not in shown
    assert set(place.states().values()) == {"done"}


def test_run_leaves_what_is_stale_until_asked(place, stand_in):
    place.finish("plain-10", key="other")
    assert place.sweep("run") == 0
    assert place.states()["plain-10"] == "stale"
    assert place.sweep("run", "--stale", "--yes") == 0
    assert place.states()["plain-10"] == "done"


def test_run_takes_up_nothing_that_another_run_has(place, stand_in, capsys):
    path = journal.begin(place.results, "mine", "local", process_name(os.getpid()))
    taken = [str(place.run_folder(model).relative_to(place.results)) for model in MODELS[1:]]
    journal.note(path, [{"cell": name} for name in taken])
    assert place.sweep("run") == 0
    assert "[1/1]" in capsys.readouterr().out


def test_a_silent_death_is_not_given_an_earlier_reason(place, stand_in, capsys):
    error = place.run_folder("plain-10") / "error.json"
    write_json(error, {"error": "old", "time": "2020-01-01T00:00:00+00:00"})
    stand_in["plain-10"] = "echo words; exit 3"
    assert place.sweep("run") == 1
    assert "[1/6] failed: status 3: words" in capsys.readouterr().out
    write_json(error, {"error": "new", "time": "2100-01-01T00:00:00+00:00"})
    assert place.sweep("run") == 1
    assert "[1/1] failed: new" in capsys.readouterr().out


TWO_AT_ONCE = """
import sys, time
from irnet_hpc.sweep import cell_attempt, local
from irnet_hpc.sweep import cli
from irnet_hpc.console import exit_status
take_up = local.take_up
local.take_up = lambda context: (take_up(context), time.sleep(2))[0]  # the other reads the same
def train_command(status, *_):
    prepared = f"{PREPARED}/{status.name}/result.json"
    return ["sh", "-c", f"echo trained; cp {prepared} {status.folder}"]
cell_attempt.train_command = train_command
sys.exit(exit_status(cli.main))
"""


def test_of_two_runs_started_together_each_cell_is_trained_by_one(place, tmp_path):
    for cell in place.matrix.cells:
        write_result(place.matrix, cell, tmp_path / "prepared")
    code = TWO_AT_ONCE.replace("{PREPARED}", str(tmp_path / "prepared"))
    command = [sys.executable, "-c", code, *place.command("run", "--workers", "1")]
    two = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    shown = [process.communicate(timeout=600)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], shown
    logs = [(place.run_folder(model) / "train.log").read_text() for model in MODELS]
    assert logs == ["trained\n"] * 6
    assert set(place.states().values()) == {"done"}


def test_run_builds_missing_packs_and_then_knows_their_properties(
    place, stand_in, monkeypatch, capsys
):
    (place.packs / "alloys-magpie.h5").rename(place.folder / "built.h5")
    place.path.write_text(
        SMALL.replace("[alloys-magpie]", "[alloys-magpie, alloys-elements]").replace(
            "s: [mix", "s: all #"
        )
    )
    built = {
        "alloys-magpie": [
            "cp",
            str(place.folder / "built.h5"),
            str(place.packs / "alloys-magpie.h5"),
        ]
    }
    monkeypatch.setattr(local, "pack_command", lambda pack: built.get(pack.name, ["false"]))
    assert not place.matrix.cells
    assert place.sweep("run") == 1  # one of the packs could not be built
    assert set(place.states().values()) == {"done"} and len(place.states()) == 6
    assert (
        "failed pack alloys-elements: status 1; its cells were left out" in capsys.readouterr().out
    )


STOPPABLE = """
import signal, sys
# A shell lets what it starts in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from irnet_hpc.sweep import cell_attempt, local
from irnet_hpc.sweep import cli
from irnet_hpc.console import exit_status
train = "trap 'echo saved; exit 75' TERM; echo $$ up; while :; do sleep 0.05; done"
cell_attempt.train_command = lambda *_: ["sh", "-c", train]
sys.exit(exit_status(cli.main))
"""


@pytest.fixture
def stoppable(place):
    """A run whose first training has started and goes on until it is told to stop."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, *place.command("run", "--workers", "1")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Only it is told, as by `kill`; the training must hear of it from the run.
        start_new_session=True,
    )
    log = place.run_folder("plain-10") / "train.log"
    try:
        wait_until(lambda: log.exists() and "up" in log.read_text())
        wait_until(
            lambda: place.states()["plain-10"] == "running"
        )  # the journal has its process, too
        yield process, log
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(ProcessLookupError, ValueError, FileNotFoundError):
            os.killpg(int(log.read_text().partition(" ")[0]), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_run_lets_the_training_save_and_leaves_nothing_behind(place, stoppable, number):
    process, log = stoppable
    assert place.states() == {"plain-10": "running"} | dict.fromkeys(MODELS[1:], "queued")
    process.send_signal(number)
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "stopped after 0 of 6 cells; the same command continues" in shown
    assert "Traceback" not in shown
    pid, _, said = log.read_text().partition(" ")
    assert said.startswith("up\n") and said.endswith("saved\n")
    assert process_name(int(pid)) is None
    assert place.states() == {"plain-10": "failed"} | dict.fromkeys(MODELS[1:], "missing")
    assert "interrupted" in place.details()["plain-10"]


def test_a_training_that_outlives_a_killed_run_is_not_started_twice(place, stoppable):
    process, log = stoppable
    process.kill()
    process.wait()
    assert place.states() == {"plain-10": "running"} | dict.fromkeys(MODELS[1:], "missing")
    os.killpg(int(log.read_text().partition(" ")[0]), signal.SIGKILL)
    wait_until(lambda: place.states()["plain-10"] == "failed")


def test_run_does_not_take_up_what_is_being_trained_already(place, stand_in, holder, capsys):
    assert place.sweep("run") == 0
    assert "mine: 5 cells done, 0 failures, in" in capsys.readouterr().out
    assert place.states() == dict.fromkeys(MODELS, "done") | {"plain-10": "running"}


def test_a_cell_held_meanwhile_is_trained_at_the_end_if_it_is_free(
    place, stand_in, tmp_path, capsys
):
    """plain-10's training starts a process that takes plain-17, and irnet-24's ends it again."""
    hold = tmp_path / "hold.py"
    hold.write_text(
        HOLD.replace(
            "sys.stdin.read()", "open(sys.argv[2], 'w').write('x'); import time; time.sleep(600)"
        )
    )
    prepared = {
        cell.spec.model: write_result(place.matrix, cell, tmp_path / "prepared")
        for cell in place.matrix.cells
    }
    target, held = place.run_folder("plain-17"), tmp_path / "held"
    env = f"PYTHONPATH={ROOT} exec {sys.executable} {hold} {target} {held}"
    stand_in["plain-10"] = (
        f"setsid sh -c '{env}' >/dev/null 2>&1 & echo $! >{tmp_path}/pid; "
        f"until [ -e {held} ]; do sleep 0.05; done; "
        f"cp {prepared['plain-10']} {place.run_folder('plain-10')}"
    )
    stand_in["irnet-24"] = (
        f"pid=$(cat {tmp_path}/pid); kill -9 $pid; "
        "while grep -q '^State:.[^Z]' /proc/$pid/status 2>/dev/null; do sleep 0.05; done; "
        f"cp {prepared['irnet-24']} {place.run_folder('irnet-24')}"
    )
    assert place.sweep("run") == 0
    shown = capsys.readouterr().out
    assert re.search(r"\[2/6\] \S+/plain-17/\S+ is being trained elsewhere", shown)
    assert "cells to try again: 1\n[1/1] alloys-magpie/mixing_enthalpy/plain-17" in shown
    assert "mine: 6 cells done, 0 failures, in" in shown


@pytest.mark.parametrize(
    "end",
    [f"exit {ExitStatus.HELD}", "printf 'Process name: 0\\nExit code: 76\\n'; exit 1"],
    ids=["one rank", "horovodrun"],
)
def test_a_training_that_found_its_run_held_is_no_failure(place, stand_in, capsys, end):
    """horovodrun ends with 1, and tells the status of the rank that ended first in its output."""
    stand_in["plain-10"] = f"echo words; {end}"
    assert place.sweep("run") == 0
    shown = capsys.readouterr().out
    assert "cells to try again: 1" in shown and "5 cells done, 0 failures, 1 elsewhere" in shown


def test_a_training_killed_for_its_memory_is_tried_again_at_the_end(place, stand_in, capsys):
    stand_in["plain-10"] = f"echo try >>{place.folder}/tries; kill -9 $$"
    stand_in["plain-17"] = (
        f"[ -e {place.folder}/full ] || {{ touch {place.folder}/full; kill -9 $$; }}; exit 3"
    )
    assert place.sweep("run") == 1
    shown = capsys.readouterr().out
    assert (place.folder / "tries").read_text() == "try\n" * 2
    assert "cells to try again: 2" in shown and "mine: 4 cells done, 2 failures" in shown
    found = place.states()
    assert (found["plain-10"], found["plain-17"]) == ("failed", "failed")
    assert [entry.cause for entry in read_ledger(place.matrix, place.results).cells][:2] == [
        "memory",
        "",
    ]


REAL = """
packs: [alloys-small]
properties: [mixing_enthalpy]
models: [64BARx2-1, 32BAx2-1]
recipes: [{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: 2}]
resources: {ranks_per_node: %d, minutes: 1}
"""


@pytest.mark.slow
def test_two_real_ranks_train_a_matrix(tmp_path, alloys_pack):
    (tmp_path / "real.yaml").write_text(REAL % 2)
    places = ("--results", tmp_path / "results", "--pack-dir", alloys_pack.parent)
    done = command("run", tmp_path / "real.yaml", *places)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" MAE ") == 2 and "eV/atom in" in done.stdout
    told = json.loads(command("plan", tmp_path / "real.yaml", *places, "--json").stdout)
    assert told["counts"]["done"] == 2
    result = json.loads(
        (tmp_path / "results" / told["cells"][0]["folder"] / "result.json").read_text()
    )
    assert [attempt["size"] for attempt in result["attempts"]] == [2]


TWELVE = f"""
packs: [alloys-small]
properties: [mixing_enthalpy, size_mismatch]
models: [64BARx2-1, 32BAx2-1]
recipes: [{TINY}]
seeds: [0, 1, 2]
"""


@pytest.mark.slow
def test_two_real_sweeps_share_the_cells_though_the_journal_is_lost(tmp_path, alloys_pack):
    """With it the second would find nothing to run: leases and a new board keep them apart."""
    (tmp_path / "twelve.yaml").write_text(TWELVE)
    results = tmp_path / "results"
    places = ["--results", results, "--pack-dir", alloys_pack.parent]
    again = [sys.executable, "-m", "irnet_hpc.sweep", "run", tmp_path / "twelve.yaml", *places]
    two = [subprocess.Popen(again, cwd=ROOT, stdout=subprocess.PIPE, text=True)]
    wait_until(lambda: list(results.rglob(lease.LEASE_FILE)))
    for path in (results / ".sweep").glob("*.jsonl"):
        path.unlink()
    two.append(subprocess.Popen(again, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    shown = [process.communicate(timeout=600)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], shown
    logs = [path.read_text() for path in results.rglob("train.log")]
    assert len(logs) == 12 and all(log.count("\nwrote ") == 1 for log in logs)
    runs = [json.loads(path.read_text()) for path in results.rglob("result.json")]
    assert [len(run["attempts"]) for run in runs] == [1] * 12
    left = ("is being trained elsewhere, by process ", "is taken by another worker")
    assert any(text in "".join(shown) for text in left)
