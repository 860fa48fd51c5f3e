"""Fill an allocation of a real SLURM of two hosts with workers that share the cells of a matrix.

It needs what test_slurm.py needs. The test of SLURM's own binding needs IRNET_SLURM_PIN=1 when the
cluster comes up: then SLURM binds tasks, else workers are not bound, since they cannot know to
which of the processors that they see they may bind themselves.
"""
# ruff: noqa: F811  fixtures are imported by their names

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.slurm.test_slurm import (  # noqa: F401
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

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(absent()), reason=absent() or "-")]

MATRIX = """
packs: [{name: alloys-tiny, source: alloys, features: elements, rows: 600}]
properties: [mixing_enthalpy, size_mismatch]
models: [64BARx2-1, 32BARx3-1]
recipes: [{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: %d}]
seeds: [0, 1, 2]
resources: {memory_gb: 0.5, minutes: 10}
pack_resources: {memory_gb: 1, minutes: 10}
"""
N_CELLS = 12
SITE = """
partition: main
whole_nodes: {gpus: %d, cores: 1, memory_gb: 2, minutes: 30}
setup: [export HOROVOD_GLOO_IFACE=eth0]
"""


@pytest.fixture
def site(place) -> str:
    path = place.folder / "whole.yaml"
    path.write_text(SITE % n_gpus())
    return str(path)


def n_gpus() -> int:
    """The GPUs that SLURM counts on each node."""
    shown = ask("sinfo", "-h", "-N", "-n", "n1", "-o", "%G").strip()
    return int(shown.partition("gpu:")[2].partition("(")[0] or 0)


def run_command(place, verb: str = "run", *more: object) -> list[str]:
    command = [sys.executable, "-m", "irnet_hpc.sweep", verb, place.path, *place.options, *more]
    return [str(part) for part in command]


def worked(place) -> tuple[set[str], list[str]]:
    """The hosts that had workers, and the cell of every start, from the workers' journals."""
    hosts, started = set(), []
    for path in sorted(place.folder.glob("results/.sweep/[0-9]*.jsonl")):
        head, *events = [json.loads(line) for line in path.read_text().splitlines()]
        if head["cluster"] == "worker":
            hosts.add(head["host"])
            started += [event["cell"] for event in events if event.get("process")]
    return hosts, started


def results(place) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(place.folder.rglob("result.json"))]


def states(place) -> set[str]:
    cells = json.loads(place.sweep("plan", "--json"))["cells"]
    return {cell["state"] for cell in cells}


def check_each_once(place) -> None:
    """Both hosts had workers, and no cell was started twice; who took how many is chance."""
    assert [len(result["attempts"]) for result in results(place)] == [1] * N_CELLS
    hosts, started = worked(place)
    assert hosts == {"n1", "n2"}
    assert len(started) == len(set(started)) == N_CELLS
    assert not list(place.folder.rglob("lease.json"))


def test_a_run_inside_salloc_uses_both_hosts_and_trains_each_cell_once(place, tiny_pack):
    place.write(MATRIX % 30)
    place.have(tiny_pack)
    shown = ask("salloc", "--nodes=2", "--exclusive", "--job-name=irnet:real", *run_command(place))
    assert f"real: {N_CELLS} cells done, 0 failures" in shown
    check_each_once(place)


def test_a_run_in_a_heterogeneous_job_fills_every_component(place, tiny_pack):
    place.write(MATRIX % 30)
    place.have(tiny_pack)
    first, second = ["--nodes=1", "--ntasks=2", "--nodelist=n1"], ["--nodes=1", "--nodelist=n2"]
    head = ["salloc", "--job-name=irnet:real", *first, ":", *second]
    shown = ask(*head, *run_command(place))
    assert f"real: {N_CELLS} cells done, 0 failures" in shown
    check_each_once(place)


def test_the_tasks_of_an_array_work_on_one_matrix(place, tiny_pack):
    place.write(MATRIX % 30)
    place.have(tiny_pack)
    command = subprocess.list2cmdline(run_command(place, "work", "--workers", "auto"))
    options = ["--array=0-1", "--nodes=1", "--exclusive", "--job-name=irnet:real"]
    log = place.folder / "log-%a"
    ask("sbatch", "--wait", *options, f"--output={log}", f"--wrap={command}")
    check_each_once(place)


def cores_of_workers(job: str) -> list[list[tuple[int, ...]]]:
    """The cores of the workers' processes that are alive, a list for each host.

    Workers are bound if their host has all processors of this machine, or SLURM binds its tasks.
    """
    n_cpus = int(ask("sinfo", "-h", "-N", "-n", "n1", "-o", "%c"))
    if n_cpus != len(os.sched_getaffinity(0)) or n_cpus < 2:
        return [[(0,)]]
    by_parent: dict[int, list[tuple[int, ...]]] = {}
    for pid in psutil.pids():  # process_iter would keep its objects from other tests
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            trains = "irnet_hpc.train.trainer" in process.cmdline()
            if trains and process.environ().get("SLURM_JOB_ID") == job:
                cores = tuple(process.cpu_affinity())
                by_parent.setdefault(process.ppid(), []).append(cores)
    return list(by_parent.values())


def tell(job: str, end: list[str]) -> None:
    """End a job as `end` says until SLURM has put it back; a signal may come before a worker."""

    def is_back() -> bool:
        states = [state for one, _, state in queue() if one == job]
        if "requeue" not in end and states == ["RUNNING"] and time.monotonic() > told[-1] + 30:
            told.append(time.monotonic())
            ask(*end, job)
        return states == ["PENDING"]

    told = [time.monotonic()]
    ask(*end, job)
    wait_for(is_back)


def test_an_allocation_that_is_preempted_goes_on_where_it_was(place, site, tiny_pack):
    place.write(MATRIX.replace("seeds: [0, 1, 2]", "seeds: [0, 1]") % 600)
    place.have(tiny_pack)
    place.sweep("submit", "--site", site, "--pack-nodes", "2")
    (job,) = set(place.jobs())
    wait_for(lambda: len(list(place.folder.rglob("lease.json"))) >= 2)
    found = wait_for(lambda: cores_of_workers(job))
    for cores in found:
        assert all(len(one) == 1 for one in cores) and len(set(cores)) == len(cores)
    # The signal that a preemption sends to the steps of a job; then SLURM puts it back by itself.
    for end in (["scancel", "--signal=USR2"], ["scontrol", "requeue"]):
        n_done = len(results(place))
        wait_for(lambda n_done=n_done: len(results(place)) > n_done)
        wait_for(lambda: len(list(place.folder.rglob("lease.json"))) >= 2)
        tell(job, end)
        # SLURM waits 5 s for what it puts back by itself, too few to be sure of on a busy machine.
        killed = {"running"} if "requeue" in end else set()
        assert {"done", "queued"} <= states(place) <= {"done", "queued"} | killed
        assert killed or not list(place.folder.rglob("lease.json"))
    wait_for(lambda: not queue())
    assert end_of(job) == "COMPLETED"
    assert states(place) == {"done"}
    attempts = [len(result["attempts"]) for result in results(place)]
    assert len(attempts) == 8 and max(attempts) in (2, 3)
    for path in place.folder.rglob("history.csv"):
        numbers = [int(line.split(",")[0]) for line in path.read_text().splitlines()[1:]]
        assert numbers == list(range(600))


def test_a_cancelled_job_of_workers_does_not_come_back(place, site, tiny_pack):
    place.write(MATRIX % 100_000)
    place.have(tiny_pack)
    place.sweep("submit", "--site", site)
    (job,) = set(place.jobs())
    wait_for(lambda: list(place.folder.rglob("lease.json")))
    ask("scancel", job)
    wait_for(lambda: not queue())
    assert end_of(job).startswith("CANCELLED")
    # What another host's worker has begun is free when its heartbeat has expired.
    wait_for(lambda: not states(place) & {"queued", "running"})
    assert states(place) <= {"missing", "preempted"}


def test_a_site_of_whole_nodes_gets_its_gpus_and_no_job_for_each_cell(place, site):
    """Through sbatch slurm/sweep_all.sh, with the pack, the second try and the tables."""
    place.write(MATRIX % 20)
    log = place.folder / "sweep.log"
    script = ROOT / "slurm" / "sweep_all.sh"
    ask("sbatch", "--wait", f"--output={log}", script, place.path, *place.options, "--site", site)
    (job,) = set(place.jobs())
    shown = ask("scontrol", "show", "job", job)
    assert f"gres:gpu:{n_gpus()}" in shown.replace("gres/gpu:", "gres:gpu:") or not n_gpus()
    wait_for(lambda: not queue())
    tables = log.read_text().partition("the tables will be in ")[2].split()[0]
    assert f"{N_CELLS} of {N_CELLS} cells are done" in Path(tables).read_text()


AFFINITY = (
    "import os, sys; print(os.uname().nodename, sorted(os.sched_getaffinity(0)), "
    "os.environ.get('CUDA_VISIBLE_DEVICES'))"
)


def test_each_task_has_its_own_cores_and_gpus(tmp_path):
    """Said by each task itself: one a GPU on both hosts, as `srun -n 4 --gpus-per-task=1` has."""
    is_bound = "task/affinity" in ask("scontrol", "show", "config")
    n_per_node = min(n_gpus(), os.cpu_count() or 1)
    if not n_per_node:
        pytest.skip("SLURM counts no GPUs here")
    options = ["--nodes=2", f"--ntasks-per-node={n_per_node}", "--cpus-per-task=1"]
    shown = ask("srun", *options, "--gpus-per-task=1", sys.executable, "-c", AFFINITY)
    told = [line.replace("[", "").replace("]", "").rsplit(" ", 1) for line in shown.splitlines()]
    assert len(told) == 2 * n_per_node
    gpus = sorted((where.split()[0], gpu) for where, gpu in told)
    assert gpus == [(host, str(i)) for host in ("n1", "n2") for i in range(n_per_node)]
    if is_bound:
        cores = [tuple(where.split()) for where, _ in told]
        assert len(set(cores)) == len(cores) and all(len(one) == 2 for one in cores)
