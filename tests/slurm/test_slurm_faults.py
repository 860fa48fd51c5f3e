"""Lose nodes and the controller of a real SLURM, requeue jobs and let time run out.

It needs what test_slurm.py needs, and root.

    IRNET_FAULTS=all    also lose the node of rank 0, and a node silently
    IRNET_CELLS=200     sweeps of 200 cells, after IRNET_SLURM_CPUS=8 bash env/local_slurm.sh up
"""
# ruff: noqa: F811  fixtures are imported by their names

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from irnet_hpc.files import read_json
from irnet_hpc.sweep.cell_process import horovodrun
from tests.robustness.test_killed import TIMES
from tests.slurm.test_slurm import (  # noqa: F401
    MATRIX,
    ROOT,
    absent,
    ask,
    end_of,
    place,
    queue,
    running,
    tiny_pack,
    wait_for,
)

is_root = os.geteuid() == 0
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(absent()), reason=absent() or "-"),
    pytest.mark.skipif(not is_root, reason="a node's processes are root's to kill"),
]
OVER = "over"


def cluster(*verb: str) -> None:
    subprocess.run(
        ["bash", ROOT / "env" / "local_slurm.sh", *verb],
        check=True,
        capture_output=True,
        timeout=600,
    )


@pytest.fixture
def whole_again():
    """What a test has lost is back after it."""
    yield
    subprocess.run(["scancel", "--me", "--name=irnet-train"], check=False, timeout=600)
    cluster("mend")


RECIPE = "{name: long, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: %d}"


class Cell:
    """One cell: where its results are and what its training has said."""

    def __init__(self, results: Path, log: Path, options: list) -> None:
        self.results, self.log, self.options = results, log, options

    def file(self, pattern: str) -> Path | None:
        return next(self.results.rglob(pattern), None)

    def epochs(self) -> list[int]:
        """Those in the history, in its order."""
        history = self.file("history.csv")
        return (
            [int(line.split(",")[0]) for line in history.read_text().splitlines()[1:]]
            if history
            else []
        )

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def undisturbed(self, results: Path) -> "Cell":
        """The same on two ranks of this machine, without SLURM."""
        ask(
            *horovodrun(2),
            sys.executable,
            "-m",
            "irnet_hpc.train",
            *self.options,
            "--results",
            results,
        )
        return Cell(results, results, self.options)


class Plain(Cell):
    """Through `sbatch slurm/train.sh`."""

    def __init__(self, pack: Path, results: Path, epochs: int) -> None:
        options = [
            "--pack",
            pack,
            "--property",
            "mixing_enthalpy",
            "--layers",
            "64BARx2-1",
            "--recipe",
            RECIPE % epochs,
        ]
        super().__init__(results, results.with_suffix(".log"), options)

    def submit(self, *sbatch: str) -> str:
        command = ["sbatch", "--parsable", f"--output={self.log}", "--open-mode=append", *sbatch]
        return ask(
            *command, ROOT / "slurm" / "train.sh", *self.options, "--results", self.results
        ).strip()


class Swept(Cell):
    """Through a sweep, and so through submitit."""

    def __init__(self, place, epochs: int) -> None:
        self.place = place
        matrix = (
            MATRIX.replace("models: [64BARx2-1, 32BAx2-1, 32BARx3-1]", "models: [64BARx2-1]")
            % epochs
        )
        place.write(re.sub("recipes: .*", f"recipes: [{RECIPE % epochs}]", matrix))
        (cell,) = place.cells().values()
        options = [
            "--pack",
            "alloys-tiny",
            "--pack-dir",
            place.folder / "packs",
            "--property",
            "mixing_enthalpy",
        ]
        options += ["--layers", "64BARx2-1", "--recipe", RECIPE % epochs]
        super().__init__(
            place.folder / "results",
            place.folder / "results" / cell["folder"] / "train.log",
            options,
        )

    def submit(self) -> str:
        self.place.sweep("submit")
        return max(self.place.jobs(), key=lambda job: int(job.partition("_")[0]))


def state_of(job: str) -> str:
    """As the queue has it; over where it is no longer there, or nobody answers for it."""
    done = subprocess.run(
        ["squeue", "-h", "-j", job, "-o", "%T"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout.strip() or OVER


def ended(job: str) -> str:
    """State and exit status of a job that is over."""
    wait_for(lambda: state_of(job) == OVER)
    end_of(job)
    return ask("sacct", "-X", "-n", "-P", "--format=State,ExitCode", "-j", job).strip()


def test_a_plain_job_saves_at_a_signal_or_by_itself_before_its_time_is_up(
    alloys_pack, tmp_path, whole_again
):
    late, told = (
        Plain(alloys_pack, tmp_path / "late", 1_000_000),
        Plain(alloys_pack, tmp_path / "told", 1_000_000),
    )
    # Instead of the script's signal one that is ignored: what stops it is the clock.
    unheard = late.submit("--time=1", "--signal=B:URG@1", "--nodes=1")
    signalled = told.submit()
    wait_for(lambda: len(told.epochs()) > 3)
    ask("scancel", "--signal=USR2", signalled)
    assert ended(signalled) == "FAILED|75:0"
    assert "stopped by a signal and saved in" in told.said()
    saved = read_json(told.file("checkpoint/*.json"))["state"]

    again = told.submit()
    wait_for(lambda: len(told.epochs()) > saved["epoch"] + 3)
    assert f"resuming at epoch {saved['epoch'] + 1}, step {saved['step']}" in told.said()
    assert told.epochs() == list(range(len(told.epochs())))  # no epoch twice, none left out
    ask("scancel", again)

    assert ended(unheard) == "FAILED|75:0"  # and not TIMEOUT
    assert "TIME LIMIT" not in late.said() and "by a signal" not in late.said()
    assert "out of time" in read_json(late.file("error.json"))["error"]
    assert (
        late.file("checkpoint/*.json")
        and not late.file("result.json")
        and not late.file("lease.json")
    )


LOSSES = [
    ("train.sh", "n2"),
    ("train.sh", "n1"),
    ("train.sh", "n2 silently"),
    ("sweep", "n1"),
    ("sweep", "n2"),
]


@pytest.mark.parametrize(
    ("way", "loss"), LOSSES if os.environ.get("IRNET_FAULTS") == "all" else LOSSES[:1]
)
def test_a_job_of_two_nodes_survives_the_loss_of_one_with_the_same_result(
    way, loss, alloys_pack, place, whole_again
):
    cell = Swept(place, 100) if way == "sweep" else Plain(alloys_pack, place.folder / "lost", 100)
    job = cell.submit()
    wait_for(lambda: len(cell.epochs()) > 3)
    ask("scancel", "--signal=TERM", job)
    assert ended(job).startswith("FAILED")
    saved = read_json(cell.file("checkpoint/*.json"))["state"]

    job = cell.submit()
    wait_for(lambda: len(cell.epochs()) > saved["epoch"] + 3)
    cluster("lose", *loss.split())
    lost = time.monotonic()
    quiet = cell.undisturbed(place.folder / "quiet")  # meanwhile
    wait_for(lambda: state_of(job) not in ("RUNNING", "COMPLETING"))
    print(
        f"\n{way}, {loss} lost: after at most {time.monotonic() - lost:.0f} s "
        f"the job is {state_of(job)}"
    )
    assert not cell.file("result.json")
    cluster("mend")

    def goes_on() -> Path | None:
        # SLURM has requeued it. A node that returns at once may be told late to end what it ran.
        if state_of(jobs[-1]) == OVER and not cell.file("result.json"):
            jobs.append(cell.submit())
        return cell.file("result.json")

    jobs = [job]
    wait_for(goes_on)
    assert cell.said().count(f"resuming at epoch {saved['epoch'] + 1}, step {saved['step']}") >= 2
    assert cell.epochs() == list(range(100))
    ours, theirs = (read_json(one.file("result.json")) for one in (cell, quiet))
    assert len(ours["attempts"]) >= 3
    assert {name for name in theirs if ours[name] != theirs[name]} <= TIMES
    weights, undisturbed = (
        safetensors.torch.load_file(one.file("model.safetensors")) for one in (cell, quiet)
    )
    assert all(torch.equal(weights[name], undisturbed[name]) for name in undisturbed)


N_CELLS = int(os.environ.get("IRNET_CELLS", "4"))
AT_MOST = min(8, N_CELLS // 2)
EPOCHS = max(10, 1200 // N_CELLS)
TINY = (
    f"{{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: {EPOCHS}}}"
)
MANY = f"""
packs: [{{name: alloys-tiny, source: alloys, features: elements, rows: 600}}]
properties: [mixing_enthalpy]
models: [64BARx2-1]
recipes: [{TINY}]
seeds: {list(range(N_CELLS))}
resources: {{memory_gb: 0.5, minutes: 10}}
pack_resources: {{memory_gb: 1, minutes: 10}}
"""


def test_two_sweeps_and_a_lost_controller_train_each_cell_once_within_their_limit(
    place, whole_again, tiny_pack
):
    place.write(MANY)
    place.have(tiny_pack)
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.sweep",
        "submit",
        place.path,
        *place.options,
        "--at-most",
        AT_MOST,
    ]
    command = [str(part) for part in command]
    began = time.monotonic()
    two = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    shown = "".join(process.communicate(timeout=600)[0] for process in two)
    assert (
        shown.count(f"submitted {N_CELLS} cells to SLURM") == 1
        and shown.count("nothing to submit") == 1
    )

    held = wait_for(lambda: list(place.folder.rglob("lease.json")))[0].parent
    cluster("lose", "slurmctld")
    told = json.loads(place.sweep("status", "--json"))
    states = {cell["folder"]: cell["state"] for cell in told["cells"]}
    assert set(states.values()) <= {"queued", "running", "done"}
    assert states[str(held.relative_to(place.folder / "results"))] in ("running", "done")
    assert any("SLURM does not answer" in note for note in told["notes"])
    refused = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert refused.returncode == 2 and refused.stderr.startswith("error: SLURM does not answer")
    assert "Traceback" not in refused.stderr
    cluster("mend")

    most = []
    wait_for(lambda: most.append(len(running("irnet:real"))) or not queue(), 60 + 30 * N_CELLS)
    results = [read_json(path) for path in place.folder.rglob("result.json")]
    assert len(results) == N_CELLS and {len(one["attempts"]) for one in results} == {1}
    assert len(place.jobs()) == len(set(place.jobs())) == N_CELLS
    spans = [
        line.split("|")
        for line in ask(
            "sacct", "-X", "-n", "-P", "--name=irnet:real", "--format=JobID,Start,End,State"
        ).splitlines()
    ]
    ours = [
        (start, end)
        for job, start, end, state in spans
        if job in place.jobs() and state == "COMPLETED"
    ]
    assert len(ours) == N_CELLS
    at_once = max(sum(start <= moment < end for start, end in ours) for moment, _ in ours)
    print(
        f"\n{N_CELLS} cells in {time.monotonic() - began:.0f} s, {at_once} at once by sacct "
        f"and {max(most)} by squeue at most"
    )
    assert 2 <= at_once <= AT_MOST and max(most) <= AT_MOST
    assert "nothing to submit" in place.sweep("submit")


REQUEUE_LAST = """#!/bin/bash
#SBATCH --array=0-2 --requeue --open-mode=append
echo began >>task$SLURM_ARRAY_TASK_ID
if [[ $SLURM_ARRAY_TASK_ID == 2 && ! -e requeued ]]; then
  until [[ -e task0 && -e task1 ]]; do sleep 0.2; done
  touch requeued
  {python} -c 'import irnet_hpc.distributed as d; d.requeue(d.own_job())'
  sleep 60
fi
sleep 8
"""


def test_the_last_task_of_an_array_requeues_itself_alone(tmp_path):
    """Its SLURM_JOB_ID is the array's: by that number SLURM would put back every task."""
    script = tmp_path / "array.sh"
    script.write_text(REQUEUE_LAST.replace("{python}", sys.executable))
    subprocess.run(
        ["sbatch", "--wait", "--export=ALL", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        timeout=600,
    )
    began = {n: (tmp_path / f"task{n}").read_text().split().count("began") for n in range(3)}
    assert began == {0: 1, 1: 1, 2: 2}
