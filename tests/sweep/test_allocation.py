"""Hold which nodes an allocation has, and what each of them is told to start."""

import json
import os
import signal
import sys
import time

import pytest

from irnet_hpc.console import ExitStatus
from irnet_hpc.errors import UserError
from irnet_hpc.sweep import allocation, cli, journal
from irnet_hpc.sweep.allocation import Part, other_nodes, parts_of_job, run_on

HOSTNAMES = """#!/bin/sh
[ "$1 $2" = "show hostnames" ] || exit 1
case "$3" in "n[1-3]") echo n1; echo n2; echo n3;; none) exit 1;; *) echo "$3";; esac
"""
# Starts the command once for each node, as srun does, with the exit status of the worst.
SRUN = """#!{python}
import json, os, subprocess, sys
n = next(i for i, a in enumerate(sys.argv) if i and not a.startswith("--"))
options, command = sys.argv[1:n], sys.argv[n:]
with open({log!r}, "a") as log:
    print(json.dumps([options, dict(os.environ)]), file=log)
(nodes,) = (o.partition("=")[2].split(",") for o in options if o.startswith("--nodelist"))
tasks = [subprocess.Popen(command, env=os.environ | {{"NODE": n}}) for n in nodes]
import signal
signal.signal(signal.SIGUSR2, lambda n, _: [t.send_signal(n) for t in tasks])
sys.exit(max(t.wait() for t in tasks))
"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """SLURM's commands on PATH; gives the folder, with what srun was told in `told`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(HOSTNAMES)
    (folder / "srun").write_text(SRUN.format(python=sys.executable, log=str(folder / "told")))
    for name in ("scontrol", "srun"):
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def told(folder) -> list:
    return [json.loads(line) for line in (folder / "told").read_text().splitlines()]


JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_JOB_CPUS_PER_NODE": "64(x2),32",
}


def test_the_nodes_of_a_job_are_those_with_as_many_cores_each(commands):
    assert parts_of_job({}) == []
    assert parts_of_job(JOB) == [Part(("n1", "n2"), 64), Part(("n3",), 32)]
    task = JOB | {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    assert parts_of_job(task) == parts_of_job(JOB)
    het = JOB | {
        "SLURM_HET_SIZE": "2",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "n1",
        "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_0": "8",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "n[1-3]",
        "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_1": "4(x3)",
    }
    assert parts_of_job(het) == [Part(("n1",), 8, 0), Part(("n1", "n2", "n3"), 4, 1)]


@pytest.mark.parametrize(
    "changes",
    [
        {"SLURM_JOB_NODELIST": "none"},
        {"SLURM_JOB_NODELIST": ""},
        {"SLURM_JOB_CPUS_PER_NODE": "64"},
        {"SLURM_JOB_CPUS_PER_NODE": "many"},
    ],
)
def test_a_job_whose_nodes_are_unclear_is_one_sentence(commands, changes):
    with pytest.raises(UserError, match="SLURM"):
        parts_of_job(JOB | changes)


def test_only_an_allocation_with_other_nodes_needs_srun(commands):
    one = JOB | {"SLURM_JOB_NODELIST": "n1", "SLURM_JOB_CPUS_PER_NODE": "64"}
    assert other_nodes({}) == []
    assert other_nodes(one | {"SLURMD_NODENAME": "n1"}) == []
    assert other_nodes(one) == [Part(("n1",), 64)]  # salloc on the login node
    assert len(other_nodes(JOB | {"SLURMD_NODENAME": "n1"})) == 2
    assert other_nodes(JOB | {"SLURM_STEP_ID": "0"}) == []  # a task of srun
    assert len(other_nodes(JOB | {"SLURM_STEP_ID": str(0xFFFFFFFA)})) == 2  # salloc's own shell


def test_each_node_gets_the_command_once_and_not_the_jobs_tasks(commands, tmp_path, monkeypatch):
    for name, value in {
        "SLURM_NTASKS": "8",
        "SLURM_GPUS_PER_TASK": "1",
        "SLURM_JOB_ID": "7",
    }.items():
        monkeypatch.setenv(name, value)
    parts = [Part(("n1", "n2"), 64, 0), Part(("n3",), 32, 1)]
    script = f"touch {tmp_path}/$NODE"
    assert run_on(parts, ["sh", "-c", script], ["--hint=nomultithread"]) == ExitStatus.OK
    assert {path.name for path in tmp_path.glob("n?")} == {"n1", "n2", "n3"}
    found = sorted(told(commands))
    for (options, environment), n_nodes, cpus, group in zip(
        found, (2, 1), (64, 32), (0, 1), strict=True
    ):
        assert f"--het-group={group}" in options and "--hint=nomultithread" in options
        assert {f"--nodes={n_nodes}", f"--ntasks={n_nodes}", f"--cpus-per-task={cpus}"} < {*options}
        assert environment["SLURM_JOB_ID"] == "7"
        assert not {"SLURM_NTASKS", "SLURM_GPUS_PER_TASK"} & environment.keys()


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [({"n1": 0, "n3": 0}, 0), ({"n1": 1, "n3": 0}, 1), ({"n1": 137, "n3": 75}, 75)],
)
def test_the_status_is_that_of_the_worst_unless_one_was_stopped(commands, statuses, expected):
    cases = " ".join(f"{node}) exit {status};;" for node, status in statuses.items())
    parts = [Part(("n1",), 1), Part(("n3",), 2)]
    assert run_on(parts, ["sh", "-c", f"case $NODE in {cases} esac"]) == expected


SAVES = """
import os, pathlib, signal, sys
def stop(*_):
    pathlib.Path(sys.argv[1], "saved-" + os.environ["NODE"]).touch()
    os._exit(75)
signal.signal(signal.SIGUSR2, stop)
pathlib.Path(sys.argv[1], os.environ["NODE"]).touch()
while True:
    signal.pause()
"""


def test_a_stop_reaches_every_node_and_waits_for_it(commands, tmp_path, monkeypatch):
    command = [sys.executable, "-c", SAVES, str(tmp_path)]
    real = allocation.subprocess.Popen.wait
    interrupted = []

    def wait(process, timeout=None):
        if timeout is None and not interrupted and process.args[0] == "srun":
            while len([*tmp_path.glob("n?")]) < 2:
                time.sleep(0.05)
            interrupted.append(signal.SIGINT)
            raise KeyboardInterrupt
        return real(process, timeout)

    monkeypatch.setattr(allocation.subprocess.Popen, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        run_on([Part(("n1", "n2"), 1)], command)
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-n1", "saved-n2"}


REAL = """
packs: [{name: tiny, source: alloys, features: elements, rows: 600}]
properties: [mixing_enthalpy, size_mismatch]
models: [64BARx2-1]
recipes: [{name: tiny, base: onecycle, precision: fp32, batch: 64, norm_group: 32, epochs: 2}]
seeds: [0, 1]
resources: {memory_gb: 0.1}
"""


def test_a_run_in_an_allocation_trains_on_all_its_nodes(commands, tmp_path, monkeypatch, capfd):
    """With srun on this machine, and everything else as it is: packs, workers, the report."""
    for name, value in (JOB | {"SLURM_JOB_CPUS_PER_NODE": "1(x3)"}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "real.yaml").write_text(REAL)
    folders = ["--results", str(tmp_path / "results"), "--pack-dir", str(tmp_path / "packs")]
    assert cli.main(["run", str(tmp_path / "real.yaml"), *folders]) == 0
    assert "real: 4 cells done, 0 failures" in capfd.readouterr().out
    ((options, _),) = told(commands)
    assert {"--nodelist=n1,n2,n3", "--ntasks-per-node=1", "--cpus-per-task=1"} < {*options}
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert [len(result["attempts"]) for result in results] == [1] * 4
    heads = [
        json.loads(path.read_text().splitlines()[0])
        for path in tmp_path.glob("results/.sweep/[0-9]*.jsonl")
    ]
    assert sorted(head["cluster"] for head in heads) == ["local", *["worker"] * 3]


def test_workers_that_do_not_see_the_results_say_so(tmp_path, monkeypatch):
    """A folder of the same name on another host's own disk has no journal of the sweep."""
    monkeypatch.setattr(journal, "VISIBILITY_S", 0.0)
    (tmp_path / "real.yaml").write_text(REAL)
    arguments = ["work", str(tmp_path / "real.yaml"), "--results", str(tmp_path / "results")]
    with pytest.raises(UserError, match="all hosts must see the same folder"):
        cli.main([*arguments, "--token", "0123abcd"])
    assert not list(tmp_path.rglob("*.jsonl"))


class Requeued(Exception):
    pass


def test_a_job_of_workers_that_was_stopped_goes_back_into_the_queue(commands, monkeypatch, request):
    """Unless SLURM ends it, or it is stopped at once again and again.

    Failed cells are no failure of the job.
    """
    asked = []

    def requeue(job):
        asked.append(job)
        raise Requeued

    before = signal.getsignal(signal.SIGTERM)
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, before))
    monkeypatch.setattr(allocation, "requeue", requeue)
    monkeypatch.setattr(allocation, "SIGTERM_S", 0.5)
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Requeued):
        allocation.WorkerJob(["sh", "-c", "exit 75"], [])()
    assert asked == ["7"]
    ends = f"import os, signal; os.kill({os.getpid()}, signal.SIGTERM); raise SystemExit(75)"
    allocation.WorkerJob([sys.executable, "-c", ends], [])()
    assert asked == ["7"]
    allocation.WorkerJob(["sh", "-c", "exit 1"], [])()
    with pytest.raises(RuntimeError, match="status 2"):
        allocation.WorkerJob(["sh", "-c", "exit 2"], [])()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(RuntimeError, match="again and again"):
        allocation.WorkerJob(["sh", "-c", "exit 75"], [])()
    assert asked == ["7"]
