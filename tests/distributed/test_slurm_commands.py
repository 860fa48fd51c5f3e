"""A training stops before its job's end though nobody tells it. Real jobs: tests/slurm."""

import json
import math
import time

import pytest

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.slurm_commands import end_of_job, max_array_size, stop_by
from irnet_hpc.errors import UserError
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.train import cli as train

AT_20 = 1795636800.0  # 2026-11-25 20:00 UTC, by `date`


def squeue(folder, text: str) -> dict[str, str]:
    """Return the environment of a job in which the script `text` stands for squeue."""
    path = folder / "squeue"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "17", "TZ": "America/New_York"}


def test_the_end_is_what_slurm_has_told_the_job_or_says_when_asked(tmp_path):
    job = squeue(
        tmp_path, 'case "$*" in *--jobs=17*%e*) [ "$TZ" = UTC ] && echo 2026-11-25T20:00:00;; esac'
    )
    assert end_of_job(job) == AT_20
    assert end_of_job(job | {"SLURM_JOB_END_TIME": "1795600000"}) == 1795600000
    assert end_of_job(job | {"SLURM_JOB_END_TIME": "soon"}) == AT_20


@pytest.mark.parametrize("answer", ["echo N/A", "exit 1", "true"])
def test_where_there_is_no_end_or_no_answer_there_is_none(answer, tmp_path):
    assert end_of_job(squeue(tmp_path, answer)) is None
    assert end_of_job({"PATH": str(tmp_path)}) is None  # no job
    (tmp_path / "squeue").unlink()
    assert end_of_job({"PATH": str(tmp_path), "SLURM_JOB_ID": "17"}) is None  # no SLURM


def test_a_machine_of_no_cluster_has_no_arrays_however_much_scontrol_prints(tmp_path, monkeypatch):
    """As SLURM 22 does where it is installed and has no slurm.conf."""
    script = tmp_path / "scontrol"
    script.write_text(
        "#!/bin/sh\n"
        "for line in 1 2 3 4; do echo 'scontrol: error: fetch_config: DNS SRV lookup failed, and so"
        " on' >&2; done\n"
        "echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert max_array_size() is None
    script.write_text("#!/bin/sh\necho 'scontrol: error: no answer' >&2; exit 1\n")
    with pytest.raises(UserError):
        max_array_size()


def test_a_training_stops_a_minute_before_the_end_or_after_three_quarters():
    assert stop_by(1000.0, now=0.0) == 940
    assert stop_by(100.0, now=0.0) == 75
    assert stop_by(100.0, now=120.0) == 100  # it is over already
    assert stop_by(None) == math.inf


MODELS = {
    "a network": (
        3, "--layers", "64BARx2-1", "--recipe",
        "{name: long, base: onecycle, epochs: 100000, batch: 64, norm_group: 32}",
    ),
    # All its grid takes 2 s on a quiet machine.
    "a classical model": (1, "--architecture", "boosted_trees"),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_it_stops_by_the_clock_and_says_what_it_lacked(
    model, alloys_pack, tmp_path, monkeypatch, capsys
):
    seconds, *options = MODELS[model]
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + seconds))
    where = [
        "--pack",
        str(alloys_pack),
        "--property",
        "mixing_enthalpy",
        "--results",
        str(tmp_path),
    ]
    assert train.main([*where, *options]) == ExitStatus.PREEMPTED
    said = capsys.readouterr().out
    assert (
        "out of time" in said and "the same command continues" in said and "by a signal" not in said
    )
    assert not list(tmp_path.rglob("result.json")) and not list(tmp_path.rglob("lease.json"))
    error = json.loads(next(tmp_path.rglob("error.json")).read_text())
    assert error["cause"] == Cause.TIME  # of which a sweep may give it more
    if model == "a network":
        first = json.loads(next(tmp_path.rglob("checkpoint/*.json")).read_text())["state"]
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + seconds))
        assert train.main([*where, *options]) == ExitStatus.PREEMPTED
        assert (
            f"resuming at epoch {first['epoch'] + 1}, step {first['step']}"
            in capsys.readouterr().out
        )
