"""Hold when PBS, TORQUE and LSF end a job, by stand-ins that answer as their commands do."""

import logging
import time

import pytest

from irnet_hpc.distributed.job_end import end_of_job

AT_20 = 1795636800.0  # 2026-11-25 20:00 UTC, by `date`
# OpenPBS and PBS Professional (19 to 23). A long value goes on after a tab.
PBS_PRO = """Job Id: 49223.server
    Job_Name = work
    Job_Owner = me@login
    resources_used.walltime = 00:00:49
    job_state = R
    ctime = Wed Nov 25 19:33:18 2026
    Resource_List.ncpus = 64
    Resource_List.select = 2:ncpus=64
    Resource_List.walltime = 00:26:42
    stime = Wed Nov 25 19:33:18 2026
    session_id = 53391
    Variable_List = PBS_O_SYSTEM=Linux,PBS_O_SHELL=/bin/bash,
	PBS_O_HOME=/home/me,X=
	stime = Wed Nov 25 09:33:18 2026
    project = _pbs_project_default
"""
# TORQUE (2.4 to 6).
TORQUE = """Job Id: 49223.server
    Job_Name = work
    Resource_List.nodes = 1:ppn=2
    Resource_List.walltime = 03:00:00
    etime = Wed Nov 25 16:19:19 2026
    start_time = Wed Nov 25 17:00:00 2026
    Walltime.Remaining = 8598
    start_count = 1
"""


def stand_in(folder, name: str, text: str) -> dict[str, str]:
    """Return the environment of a job in which a script stands for a scheduler's command."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "TZ": "America/New_York"}


def qstat(folder, answer: str) -> dict[str, str]:
    """As qstat -f answers for job 49223 alone, with times in UTC if it is asked in UTC."""
    (folder / "answer").write_text(answer)
    asked = '[ "$*" = "-f 49223.server" -a "$TZ" = UTC ] || exit 153'
    return stand_in(folder, "qstat", f"{asked}; cat {folder}/answer") | {
        "PBS_JOBID": "49223.server"
    }


def bjobs(folder, job: str, **fields: str) -> dict[str, str]:
    """As bjobs -o FIELD JOB answers, with its heading; `-` for a field that is not known."""
    cases = "".join(f'"-o {name} {job}") echo "{text}";; ' for name, text in fields.items())
    script = f'[ "$3" = "{job}" ] || {{ echo "Job <$3> is not found"; exit 255; }}; '
    script += f'echo "$2" | tr a-z A-Z; case "$*" in {cases}*) echo -;; esac'
    return stand_in(folder, "bjobs", script) | {"LSB_JOBID": "17", "LSB_JOBINDEX": "0"}


def test_pbs_says_when_a_job_began_and_how_long_it_may_take(tmp_path):
    assert end_of_job(qstat(tmp_path, PBS_PRO), began=0) == AT_20
    days = PBS_PRO.replace("00:26:42", "1:00:26:42")
    assert end_of_job(qstat(tmp_path, days), began=0) == AT_20 + 86_400


def test_an_end_before_this_process_began_is_of_another_job(tmp_path):
    job = qstat(tmp_path, PBS_PRO)
    assert end_of_job(job, began=AT_20 - 1) == AT_20
    assert end_of_job(job, began=AT_20 + 1) is None


def test_torque_says_what_is_left(tmp_path):
    before = time.time() + 8598
    assert before <= end_of_job(qstat(tmp_path, TORQUE)) <= time.time() + 8598
    without = TORQUE.replace("    Walltime.Remaining = 8598\n", "")
    assert end_of_job(qstat(tmp_path, without), began=0) == AT_20


def test_without_a_start_what_was_used_counts(tmp_path):
    before = time.time() + 1602 - 49
    answer = PBS_PRO.replace("    stime = ", "    mtime = ")
    assert before <= end_of_job(qstat(tmp_path, answer)) <= time.time() + 1602 - 49


def test_lsf_says_what_is_left_until_the_run_limit(tmp_path):
    before = time.time() + 720
    assert before <= end_of_job(bjobs(tmp_path, "17", time_left="0:12 L")) <= time.time() + 720
    element = bjobs(tmp_path, "17[3]", time_left="101:00 L") | {"LSB_JOBINDEX": "3"}
    assert end_of_job(element) > time.time() + 363_000


def test_an_estimate_of_the_user_ends_no_job_of_lsf(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    fields = {"time_left": "0:12 E", "runtimelimit": "60.0/hostA", "run_time": "754 second(s)"}
    before = time.time() + 3600 - 754
    assert before <= end_of_job(bjobs(tmp_path, "17", **fields)) <= time.time() + 3600 - 754
    assert end_of_job(bjobs(tmp_path, "17", time_left="0:12 E")) is None
    assert not caplog.records


def test_a_job_without_a_limit_has_no_end(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    endless = PBS_PRO.replace("Resource_List.walltime", "Resource_List.place")
    assert end_of_job(qstat(tmp_path, endless)) is None
    assert end_of_job(bjobs(tmp_path, "17", time_left="-")) is None
    assert end_of_job({"PATH": str(tmp_path)}) is None  # no job
    assert not caplog.records


@pytest.mark.parametrize(
    ("scheduler", "job", "answer"),
    [
        ("PBS", {"PBS_JOBID": "5"}, "echo nothing"),
        ("PBS", {"PBS_JOBID": "5"}, "echo 'qstat: Unknown Job Id 5' >&2; exit 153"),
        ("PBS", {"PBS_JOBID": "5"}, "echo '    Resource_List.walltime = 01:00:00'"),
        ("PBS", {"PBS_JOBID": "5"}, None),
        ("LSF", {"LSB_JOBID": "5"}, "echo TIME_LEFT; echo soon"),
        ("LSF", {"LSB_JOBID": "5"}, "echo 'Job <5> is not found' >&2; exit 255"),
        ("LSF", {"LSB_JOBID": "5"}, None),
        ("Grid Engine", {"SGE_TASK_ID": "undefined"}, None),
    ],
)
def test_an_end_that_cannot_be_found_out_is_said_in_a_line(
    scheduler, job, answer, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    environment = {"PATH": str(tmp_path)} | job
    for name in ("qstat", "bjobs") if answer else ():
        environment = stand_in(tmp_path, name, answer) | job
    assert end_of_job(environment) is None
    (record,) = caplog.records
    assert scheduler in record.getMessage() and "\n" not in record.getMessage()


def test_slurm_and_what_a_worker_passes_on_come_first(tmp_path):
    job = qstat(tmp_path, PBS_PRO) | {"SLURM_JOB_END_TIME": f"{AT_20 + 60:.0f}"}
    assert end_of_job(job, began=0) == AT_20 + 60
