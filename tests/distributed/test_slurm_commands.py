"""A training stops before its job's end though nobody tells it. Real jobs: tests/slurm."""

import json
import math
import signal
import time

import pytest

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.processes import STOP_SIGNALS, StopSignals
from irnet_hpc.distributed.slurm_commands import (
    end_of_slurm_job,
    how_ended,
    max_array_size,
    own_job,
    restart_count,
    stop_by,
)
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
    assert end_of_slurm_job(job, began=0) == AT_20
    assert end_of_slurm_job(job | {"SLURM_JOB_END_TIME": "1795600000"}, began=0) == 1795600000
    for stated in ("soon", "", "nan", "inf", "-1"):
        assert end_of_slurm_job(job | {"SLURM_JOB_END_TIME": stated}, began=0) == AT_20


def test_an_end_before_this_process_began_is_that_of_another_job(tmp_path):
    """A shell that outlived its job keeps its variables: trainings would stop at once, for ever."""
    job = squeue(tmp_path, "echo 2026-11-25T20:00:00")
    passed = {"SLURM_JOB_END_TIME": str(int(AT_20) - 3600)}
    assert end_of_slurm_job(job | passed, began=AT_20 - 60) == AT_20  # SLURM knows another end
    assert end_of_slurm_job(job | passed, began=AT_20 + 60) is None
    assert end_of_slurm_job({"PATH": "/bin"} | passed, began=AT_20) is None
    assert end_of_slurm_job(job | {"SLURM_JOB_END_TIME": "1000000000"}) is None  # this very process
    # While the job is in its grace time its end has passed, but the process is older.
    assert end_of_slurm_job(job | passed, began=AT_20 - 7200) == AT_20 - 3600


def test_each_task_of_an_array_asks_for_itself_alone(tmp_path):
    """The last task has the array's number: asked for 17, squeue answers for all tasks."""
    answer = 'case "$*" in *--jobs=17_3*) echo 2026-11-25T20:00:00;; *) echo N/A; echo N/A;; esac'
    array = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}
    assert end_of_slurm_job(squeue(tmp_path, answer) | array, began=0) == AT_20
    assert own_job(array | {"SLURM_JOB_ID": "17"}) == "17_3"
    # Another task of the array, or a job that a task submitted: the variables are the same.
    assert own_job(array | {"SLURM_JOB_ID": "21"}) == "21"
    assert own_job({"SLURM_JOB_ID": "17", "SLURM_ARRAY_JOB_ID": ""}) == "17"
    assert own_job({"SLURM_JOB_ID": ""}) is own_job({}) is None


def test_the_first_component_of_a_heterogeneous_job_to_end_ends_it(tmp_path):
    lines = "echo 2026-11-25T21:00:00; echo N/A; echo 2026-11-25T20:00:00"
    assert end_of_slurm_job(squeue(tmp_path, lines), began=0) == AT_20


@pytest.mark.parametrize(("text", "count"), [("", 0), ("2", 2), ("many", 0), ("²", 0)])
def test_a_restart_count_that_is_no_number_is_none(text, count):
    assert restart_count({"SLURM_RESTART_COUNT": text}) == count


@pytest.mark.parametrize(
    ("line", "killed_by"),
    [
        ("17|9:0|FAILED", 9),  # a batch script that ended with 137, as SLURM 22.05 shows it
        ("17|0:9|FAILED", 9),  # a batch shell that was killed
        ("17|137:0|FAILED", 9),
        ("17|12:0|FAILED", 12),
        ("17|0:10|FAILED", 10),
        ("17|75:0|FAILED", 0),
        ("17|1:0|FAILED", 0),
        ("17|255:0|FAILED", 0),  # mpirun, ssh, `exit -1`
        ("17|192:0|FAILED", 64),
        ("17|193:0|FAILED", 0),
        ("17|2:0|FAILED", 0),
        ("17|0:9|CANCELLED by 0", 0),  # a person did it
        ("17|0:0|COMPLETED", 0),
    ],
)
def test_a_signal_that_killed_a_job_is_read_from_its_exit_code(
    line, killed_by, tmp_path, monkeypatch
):
    script = tmp_path / "sacct"
    script.write_text(f"#!/bin/sh\necho '{line}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    end = how_ended({"17"})["17"]
    assert (end.killed_by, end.state) == (killed_by, line.rpartition("|")[2].split()[0])


@pytest.mark.parametrize("answer", ["echo N/A", "exit 1", "true"])
def test_where_there_is_no_end_or_no_answer_there_is_none(answer, tmp_path):
    assert end_of_slurm_job(squeue(tmp_path, answer), began=0) is None
    assert end_of_slurm_job({"PATH": str(tmp_path)}) is None  # no job
    (tmp_path / "squeue").unlink()
    assert end_of_slurm_job({"PATH": str(tmp_path), "SLURM_JOB_ID": "17"}) is None  # no SLURM


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


@pytest.mark.parametrize(
    ("number", "before", "is_told"),
    [
        (signal.SIGUSR1, signal.SIG_IGN, True),  # as slurm/train.sh starts Python
        (signal.SIGUSR2, signal.SIG_IGN, True),
        (signal.SIGTERM, signal.SIG_IGN, False),
        (signal.SIGUSR1, lambda *_: None, False),  # submitit's handler stays
    ],
)
def test_a_signal_that_was_ignored_while_python_started_stops_a_training(number, before, is_told):
    handlers = {known: signal.getsignal(known) for known in STOP_SIGNALS}
    try:
        signal.signal(number, before)
        stop = StopSignals()
        signal.raise_signal(number)
        assert stop.asked == is_told
    finally:
        for known, handler in handlers.items():
            signal.signal(known, handler)
