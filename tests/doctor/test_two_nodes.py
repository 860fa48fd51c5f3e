"""Test the job of two nodes: its report by hand, and the real job on the local SLURM."""

import subprocess
import sys

import pytest

from irnet_hpc.doctor import cluster, engine, two_nodes
from irnet_hpc.doctor.checks import Level
from irnet_hpc.doctor.commands import ask
from tests.slurm.test_slurm import absent

needs_slurm = pytest.mark.skipif(bool(absent()), reason=absent() or "-")
SUM = {
    "engine": "horovod (gloo)",
    "size": 2,
    "device": "cpu",
    "right": True,
    "mb_per_s": 100.0,
}
NODE = {"host": "n1", "skew_s": 0.0, "won": True, "trouble": ""}


@pytest.mark.parametrize(
    ("sum_changes", "second_node", "level"),
    [
        ({}, {}, Level.OK),
        ({"right": False}, {}, Level.FAILURE),
        ({"size": 1}, {}, Level.FAILURE),
        ({}, {"host": "n1"}, Level.FAILURE),
        ({}, {"won": True}, Level.FAILURE),
        ({}, {"skew_s": 60.0}, Level.WARNING),
    ],
)
def test_a_report_is_judged_by_the_worst_that_a_node_saw(sum_changes, second_node, level):
    nodes = [NODE, NODE | {"host": "n2", "won": False} | second_node]
    report = {"sum": SUM | sum_changes, "nodes": nodes}
    verdict = two_nodes.judge_report("17", report, 3.0)
    assert verdict.level == level and "17" in verdict.found


def test_a_node_that_cannot_reach_slurm_is_a_warning():
    nodes = [
        NODE | {"trouble": "scontrol ended with status 1"},
        NODE | {"host": "n2", "won": False},
    ]
    verdict = two_nodes.judge_report("17", {"sum": SUM, "nodes": nodes}, 3.0)
    assert verdict.level == Level.WARNING and "scontrol" in verdict.found


@pytest.mark.slurm
@needs_slurm
def test_nodes_with_different_numbers_of_ranks_sum_together(tmp_path):
    probe = [sys.executable, "-m", "irnet_hpc.doctor.probes", "ranks", tmp_path / "folder"]
    srun = ["srun", "-N2", "-n3", "--kill-on-bad-exit=1"]
    answer = ask([*srun, *probe, "--engine", "auto"], 600)
    assert not answer.trouble
    facts = engine.printed_facts(answer)
    assert (facts["engine"], facts["size"], facts["right"]) == ("horovod (gloo)", 3, True)


@pytest.mark.slurm
@needs_slurm
def test_a_job_of_two_nodes_takes_the_way_of_a_sweep(tmp_path, monkeypatch, run_doctor):
    """It sums over both nodes and leaves nothing; where the ranks cannot meet, it says why."""
    monkeypatch.setenv("IRNET_STATE", str(tmp_path / "state"))
    cluster.read_configuration.cache_clear()
    results = tmp_path / "results"
    options = ("--only", "slurm", "--slurm", "--results", results, "--wait", 600)
    status, checks = run_doctor(*options, "--site", "local_slurm")
    assert status == 0, checks
    facts = checks["two nodes"]["facts"]
    assert facts["sum"]["size"] == 2 and facts["sum"]["right"]
    assert {node["host"] for node in facts["nodes"]} == {"n1", "n2"}
    assert [node["trouble"] for node in facts["nodes"]] == ["", ""]
    assert sum(node["won"] for node in facts["nodes"]) == 1
    assert not results.exists() and not list((tmp_path / "state" / "submitit").iterdir())

    site = tmp_path / "other.yaml"
    site.write_text("partition: main\nsetup: [export HOROVOD_GLOO_IFACE=none9]\n")
    status, checks = run_doctor(*options, "--site", site)
    assert status == 1 and "none9" in checks["two nodes"]["found"]
    assert not list(tmp_path.glob(".doctor*"))
    queue = subprocess.run(["squeue", "-h", "-n", two_nodes.JOB_NAME], capture_output=True)
    assert queue.stdout == b""
