"""Hold the workers of a matrix: each cell once, the same numbers, stops and deaths."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.launch import detect
from irnet_hpc.distributed.processes import is_alive
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs import lease
from irnet_hpc.sweep import first_checks, local
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.context import SweepContext
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.sweep.memory_needs import MemoryNeeds
from irnet_hpc.sweep.one_folder import check_one_folder
from tests.sweep.stand_ins import MODELS, ROOT, SMALL, wait_until

TINY = "{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: 2}"
LONG = TINY.replace("epochs: 2", "epochs: 150")
EIGHT = f"""
packs: [alloys-small]
properties: [mixing_enthalpy, size_mismatch]
models: [64BARx2-1, decision_tree]
recipes: [{TINY}, grid]
seeds: [0, 1]
"""
LONG_ONE = f"""
packs: [alloys-small]
properties: [mixing_enthalpy]
models: [64BARx2-1]
recipes: [{LONG}]
"""
# As srun sets them for task 3 of 32, and mpiexec for rank 3 of 64.
AS_A_TASK = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "32",
    "SLURM_STEP_NUM_TASKS": "32",
    "SLURM_STEP_ID": "0",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x16)",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "64",
    "PMI_RANK": "3",
    "PMI_SIZE": "64",
}


class Shared:
    """A matrix that workers share, with its results."""

    def __init__(self, folder: Path, pack: Path, text: str) -> None:
        self.path, self.results, self.packs = folder / "mine.yaml", folder / "results", pack.parent
        self.path.write_text(text)

    def start(self, *options: str, **environment: str) -> subprocess.Popen:
        """Start `sweep work` in a session of its own."""
        command = [sys.executable, "-m", "irnet_hpc.sweep", "work", self.path, *options]
        return subprocess.Popen(
            [*command, "--results", self.results, "--pack-dir", self.packs],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def results_of_cells(self) -> dict[str, Path]:
        """Return the result.json of each cell, by the cell's name."""
        found = sorted(self.results.rglob("result.json"))
        return {str(path.parent.relative_to(self.results)): path for path in found}

    def states(self) -> list[str]:
        matrix = read_matrix(self.path, self.packs)
        return [status.state for status in read_ledger(matrix, self.results).cells]

    def trainer(self) -> str:
        """Return the process that trains the one cell, once it has ended an epoch."""
        before = self.history()
        wait_until(lambda: self.leases() and len(self.history() - before) > 1)
        (path,) = self.leases()
        return read_json(path)["process"]

    def leases(self) -> list[Path]:
        return list(self.results.rglob(lease.LEASE_FILE))

    def history(self) -> set[str]:
        return {line for p in self.results.rglob("history.csv") for line in p.open()}


@pytest.mark.slow
def test_two_workers_share_the_cells_and_the_numbers_are_those_of_each_alone(tmp_path, alloys_pack):
    shared = Shared(tmp_path, alloys_pack, EIGHT)
    # The first task of that launch sees the same folder.
    check_one_folder(shared.results, detect(AS_A_TASK | {"OMPI_COMM_WORLD_RANK": "0"}))
    two = [shared.start(**AS_A_TASK), shared.start("--workers", "1")]
    shown = [process.communicate(timeout=600)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], shown
    found = shared.results_of_cells()
    assert shared.states() == ["done"] * 8 and len(found) == 8
    matrix = read_matrix(shared.path, shared.packs)
    needs = MemoryNeeds(SweepContext(matrix, shared.results), has_gpu=False)
    for status in read_ledger(matrix, shared.results).cells:
        assert 0 < status.result.peak_memory_gb < needs.gb((status,)) < 2
    for name, path in found.items():
        result = read_json(path)
        (attempt,) = result["attempts"]
        assert attempt["threads"] == 1
        spec, alone = result["spec"], tmp_path / "alone"
        options = ["--property", spec["property"], "--seed", str(spec["seed"])]
        if "decision_tree" in name:
            options += ["--architecture", "decision_tree"]
        else:
            options += ["--layers", "64BARx2-1", "--recipe", TINY]
        if spec["seed"] or spec["property"] != "mixing_enthalpy":
            continue  # one of each kind of model
        options += ["--results", alone, "--pack-dir", alloys_pack.parent]
        subprocess.run(
            [sys.executable, "-m", "irnet_hpc.train", "--pack", "alloys-small", *options],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        files = [p for p in path.parent.iterdir() if p.suffix in (".safetensors", ".npz")]
        assert files
        for file in files:
            assert file.read_bytes() == (alone / name / file.name).read_bytes()
        theirs = read_json(alone / name / "result.json")
        assert result["test_mae"] == theirs["test_mae"] and result["key"] == theirs["key"]


@pytest.mark.slow
def test_a_stopped_worker_gives_its_cell_back_and_the_next_one_goes_on(tmp_path, alloys_pack):
    shared = Shared(tmp_path, alloys_pack, LONG_ONE)
    process = shared.start()
    trainer = shared.trainer()
    process.send_signal(signal.SIGUSR2)
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == ExitStatus.PREEMPTED, shown
    assert not is_alive(trainer) and shared.states() == ["preempted"]
    assert not shared.leases()
    process = shared.start()
    shared.trainer()
    process.kill()  # its warm process saves and ends
    process.communicate()
    wait_until(lambda: shared.states() == ["preempted"])
    process = shared.start()
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and shared.states() == ["done"], shown
    (result,) = shared.results_of_cells().values()
    assert len(read_json(result)["attempts"]) == 3


@pytest.mark.slow
def test_a_killed_training_is_tried_once_more_and_then_failed(tmp_path, alloys_pack):
    shared = Shared(tmp_path, alloys_pack, LONG_ONE)
    process = shared.start()
    for _ in range(2):
        trainer = shared.trainer()
        os.kill(int(trainer.partition("@")[0]), signal.SIGKILL)
        wait_until(lambda dead=trainer: not is_alive(dead))
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == ExitStatus.FAILED, shown
    matrix = read_matrix(shared.path, shared.packs)
    (status,) = read_ledger(matrix, shared.results).cells
    assert (status.state, status.cause) == ("failed", "memory")


def test_a_trainer_ends_with_its_sweep_and_saves_first(tmp_path, alloys_pack):
    options = ["--pack", "alloys-small", "--property", "mixing_enthalpy", "--layers", "64BARx2-1"]
    options += ["--recipe", LONG, "--results", str(tmp_path), "--pack-dir", str(alloys_pack.parent)]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "irnet_hpc.train.trainer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wrong = {"options": ["--pack", "nowhere"], "log": str(tmp_path / "log"), "threads": 1}
    process.stdin.write(json.dumps(wrong) + "\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline()) == {"status": ExitStatus.USER_ERROR}
    assert "--property" in (tmp_path / "log").read_text()
    process.stdin.write(json.dumps(wrong | {"options": options}) + "\n")
    process.stdin.flush()
    wait_until(lambda: any(len(p.read_text()) > 100 for p in tmp_path.rglob("history.csv")))
    process.stdin.close()
    assert process.wait(600) == 0
    assert json.loads(process.stdout.readline()) == {"status": ExitStatus.PREEMPTED}
    assert list(tmp_path.rglob("checkpoint/*.safetensors"))


@pytest.mark.parametrize(
    ("options", "limit", "words"),
    [
        (("--workers", "9999"), "", "--workers must be at most"),
        ((), "budget_device_hours: 0.001", "budget_device_hours of"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "work"])
def test_what_cannot_be_is_refused_before_a_pack_is_built(
    place, monkeypatch, verb, options, limit, words
):
    (place.packs / "alloys-magpie.h5").unlink()
    place.path.write_text(SMALL.replace("budget_device_hours: 3", limit))
    built = place.folder / "built"
    monkeypatch.setattr(local, "pack_command", lambda pack: ["touch", str(built)])
    with pytest.raises(UserError, match=words):
        place.sweep(verb, *(options or ("--workers", "1")))
    assert not built.exists() and set(place.states().values()) == {"missing"}


def test_ranks_that_nothing_can_start_are_refused_at_once(place, monkeypatch):
    (place.packs / "alloys-magpie.h5").unlink()
    monkeypatch.setattr(first_checks, "horovodrun", refuse)
    with pytest.raises(UserError, match="2 ranks"):
        place.sweep("work", "--ranks", "2")


def refuse(n_ranks: int) -> None:
    raise UserError(f"{n_ranks} ranks need horovodrun, got none")


UNTIL_THE_END = "until [ $(date +%s) -ge $SLURM_JOB_END_TIME ]; do sleep 0.1; done"


def test_a_worker_stops_before_pbs_ends_its_job_and_its_cells_know_when(
    place, stand_in, monkeypatch
):
    """TORQUE's qstat; a cell is told the end, and no other one is started after it."""
    left = "    Resource_List.walltime = 01:00:00\n    Walltime.Remaining = 6"
    qstat = place.folder / "qstat"
    qstat.write_text(f"#!/bin/sh\nprintf '%s\\n' '{left}'\n")
    qstat.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place.folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PBS_JOBID", "7.server")
    seen = place.folder / "seen"
    trained = f"cp {place.folder}/prepared/*/*/%s/*/*/seed0/result.json %s"
    for model in MODELS:
        stand_in[model] = f"echo $SLURM_JOB_END_TIME $PBS_JOBID >>{seen}; {UNTIL_THE_END}; "
        stand_in[model] += trained % (model, place.run_folder(model))
    began = time.time()
    assert place.sweep("work") == ExitStatus.PREEMPTED
    (line,) = seen.read_text().splitlines()
    assert began + 5 <= float(line) <= time.time()
    assert sorted(place.states().values()) == ["done"] + ["missing"] * 5
