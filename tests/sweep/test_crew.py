"""Hold how several workers of one machine share its devices, its memory and the cells."""

import os
import signal
import subprocess
import sys

import pytest

from irnet_hpc.distributed import memory
from irnet_hpc.files import write_json
from irnet_hpc.sweep import places
from irnet_hpc.sweep.cell_states import read_ledger
from tests.sweep.stand_ins import MODELS, ROOT, SMALL, wait_until
from tests.sweep.test_local import STOPPABLE

# Says so if another training is under way in another process.
ALONE = "mkdir {0}/busy || echo beside >>{0}/seen; sleep 0.2; rmdir {0}/busy 2>/dev/null; "
# Waits until two are under way.
BOTH = "touch {0}/$$.up; until [ $(ls {0}/*.up | wc -l) -ge 2 ]; do sleep 0.02; done; "


@pytest.fixture
def told(place, stand_in, monkeypatch):
    """Let each training first do what `told(shell)` says, on a machine of two cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(places, "gpus_here", lambda environment: [])
    monkeypatch.setattr(memory, "free_bytes", lambda environment: 64 * 2**30)

    def tell(shell: str, *models: str) -> None:
        for model in models or MODELS:
            done = f"cp {place.folder}/prepared/*/*/{model}/*/*/seed0/result.json "
            run = place.run_folder(model)
            stand_in[model] = f"{shell.format(place.folder)}{done} {run}"

    return tell


def test_two_cells_are_trained_at_once_and_each_line_names_its_worker(place, told, capsys):
    told(BOTH)
    assert place.sweep("run", "--workers", "auto") == 0
    shown = capsys.readouterr().out
    assert set(place.states().values()) == {"done"}
    assert "2 workers, one cell each\n" in shown and "mine: 6 cells done, 0 failures" in shown
    starts = [line for line in shown.splitlines() if " on 1 rank; log " in line]
    assert {line.split(":")[0].partition("] ")[2] for line in starts} == {"worker 1", "worker 2"}
    assert sorted(line.partition("]")[0] for line in starts) == [f"[{i}/6" for i in range(1, 7)]


@pytest.mark.parametrize("why", ["memory", "ranks"])
def test_cells_that_need_the_whole_machine_have_none_beside_them(place, told, monkeypatch, why):
    told(ALONE)
    if why == "memory":
        monkeypatch.setattr(memory, "free_bytes", lambda environment: 9 * 2**30)
        place.path.write_text(SMALL.replace("minutes: 30", "minutes: 30, memory_gb: 8"))
    else:
        place.path.write_text(SMALL.replace("minutes: 30", "minutes: 15, ranks_per_node: 2"))
    assert place.sweep("run", "--workers", "auto") == 0
    assert not (place.folder / "seen").exists()


def test_a_cell_that_was_killed_is_repeated_with_none_beside_it(place, told, capsys):
    told(BOTH)
    # Of two that are trained at once, one is killed.
    told("mkdir {0}/full 2>/dev/null && kill -9 $$; " + ALONE, "plain-10", "irnet-24")
    told(ALONE.replace("mkdir", "[ -e {0}/full ] && mkdir"), "plain-24")
    assert place.sweep("run", "--workers", "2") == 0
    shown = capsys.readouterr().out
    assert "cells to try again: 1\n" in shown and "mine: 6 cells done, 0 failures" in shown


def test_each_gpu_has_a_worker(place, told, monkeypatch):
    monkeypatch.setattr(places, "gpus_here", lambda environment: ["5", "7"])
    told(BOTH + "echo $CUDA_VISIBLE_DEVICES >>{0}/gpus; ")
    assert place.sweep("run", "--workers", "auto") == 0
    found = (place.folder / "gpus").read_text().split()
    assert set(found) == {"5", "7"} and len(found) == 6


def test_a_gpu_that_is_lost_twice_gets_no_more_cells(place, told, monkeypatch, capsys):
    monkeypatch.setattr(places, "gpus_here", lambda environment: ["5", "7"])
    error = {"error": "CUDA error: unknown error", "cause": "device"}
    write_json(place.folder / "error.json", error | {"time": "2100-01-01T00:00:00+00:00"})
    lost = "[ $CUDA_VISIBLE_DEVICES = 5 ] && {{ cp {0}/error.json %s; exit 1; }}; "
    for model in MODELS:
        run = place.run_folder(model)
        told(f"rm -f {run}/error.json; " + lost % run, model)
    assert place.sweep("run", "--workers", "auto") == 0
    shown = capsys.readouterr()
    assert "GPU 5 is lost, and trains no more cells here" in shown.out + shown.err
    assert "mine: 6 cells done, 0 failures" in shown.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_lets_all_trainings_save(place, number):
    place.path.write_text(SMALL.replace("minutes: 30", "minutes: 30, memory_gb: 0.1"))
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, *place.command("run", "--workers", "2")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: list(place.states().values()).count("running") == 2)
    wait_until(lambda: sum("up" in p.read_text() for p in place.results.rglob("train.log")) == 2)
    process.send_signal(number)
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "stopped after 0 of 6 cells; the same command continues" in shown
    logs = [path.read_text() for path in place.results.rglob("train.log")]
    assert len(logs) == 2 and all(log.endswith("saved\n") for log in logs)
    entries = read_ledger(place.matrix, place.results).cells
    assert sorted(entry.state for entry in entries) == ["failed"] * 2 + ["missing"] * 4


def test_more_workers_than_cores_are_refused_before_anything_starts(place, told, capsys):
    from irnet_hpc.errors import UserError

    told("")
    with pytest.raises(UserError, match=r"at most the 2 cores .* got 3"):
        place.sweep("run", "--workers", "3")
    assert set(place.states().values()) == {"missing"}
