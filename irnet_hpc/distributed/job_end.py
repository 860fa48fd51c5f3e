"""Find out when SLURM, PBS or LSF ends the job of this process.

A worker or a training stops by itself shortly before (`slurm_commands.stop_by`). Where the end
cannot be found out, a line says so, and only a signal is left.

PBS and LSF state it in no variable, so their own commands are asked, once. Formats, as published;
neither scheduler was available here:

- `qstat -f` of OpenPBS and PBS Professional (19 to 23): `    stime = Wed Jun 24 15:33:18 2020` and
  `    Resource_List.walltime = 00:30:00`, an attribute a line; a long value goes on after a tab.
- that of TORQUE (2.4 to 6): `    Walltime.Remaining = 8598`, in seconds, and `start_time` for
  `stime`. qstat turns times into words by ctime(3), and so obeys TZ.
- `bjobs -o time_left` of LSF (9.1.3 and 10.1): `0:12 L`, in hours and minutes; L: until the run
  limit, E or X: by the user's estimate, which ends no job; `-`: there is no limit.
"""

import contextlib
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from irnet_hpc.distributed.processes import own_start
from irnet_hpc.distributed.slurm_commands import end_of_slurm_job, own_job

log = logging.getLogger(__name__)

TIMEOUT_S = 60
# A line of `qstat -f` with the beginning of an attribute.
ATTRIBUTE = re.compile(r"^ {4}([\w.]+) = (.*)$", re.MULTILINE)


class _NotKnown(Exception):
    """The scheduler's command is absent, failed, or answered something else."""


def end_of_job(
    environment: Mapping[str, str] = os.environ, began: float | None = None
) -> float | None:
    """Return when the scheduler will end the job of this process, in s since 1970.

    Returns None outside a job, if the job has no end, or if the end cannot be found out; a line is
    logged in the last case. An end before this process began belongs to an earlier job, whose
    variables a longer-lived shell has kept.

    Args:
        environment: The environment variables of the process.
        began: When the process began, in s since 1970; None: ask the operating system.
    """
    if own_job(environment) or "SLURM_JOB_END_TIME" in environment:
        return end_of_slurm_job(environment, began)
    for variable, (scheduler, ask) in SCHEDULERS.items():
        if not environment.get(variable):
            continue
        try:
            end = ask(environment)
        except _NotKnown as why:
            log.info(
                "note: when %s ends this job is not known here (%s), so that only a signal stops "
                "this process in time",
                *(scheduler, why),
            )
            return None
        began = own_start() if began is None else began
        return end if end is not None and end > began else None
    return None


def _end_of_pbs_job(environment: Mapping[str, str]) -> float | None:
    """Return when PBS or TORQUE will end the job; None if it has no limit."""
    answer = _answer(environment, "qstat", "-f", environment["PBS_JOBID"])
    facts = dict(ATTRIBUTE.findall(answer))
    if not facts:
        raise _NotKnown("qstat -f shows no attribute")
    now = time.time()
    # A job that was suspended ends later than that: PBS does not count the time.
    remaining = _seconds(facts.get("Walltime.Remaining"))
    limit, used = (
        _seconds(facts.get(name)) for name in ("Resource_List.walltime", "resources_used.walltime")
    )
    start = _time(facts.get("stime") or facts.get("start_time"))
    if remaining is not None:
        return now + remaining
    if limit is None:
        return None
    if start is not None:
        return start + limit
    if used is None:
        raise _NotKnown("qstat -f shows no stime")
    return now + limit - used


def _end_of_lsf_job(environment: Mapping[str, str]) -> float | None:
    """Return when LSF will end the job; None if it has no run limit."""
    job, index = environment["LSB_JOBID"], environment.get("LSB_JOBINDEX", "")
    # The index of a job that is not an element of an array is 0.
    job = f"{job}[{index}]" if index not in ("", "0") else job

    def shown(field: str) -> str:
        lines = _answer(environment, "bjobs", "-o", field, job).split("\n")
        # The heading comes first.
        return " ".join(line.strip() for line in lines[1:] if line.strip())

    left = shown("time_left")
    if match := re.fullmatch(r"(\d+):(\d\d) L", left):
        return time.time() + 3600 * int(match[1]) + 60 * int(match[2])
    # `60.0/hostA`, in minutes, and `754 second(s)`.
    limit = re.match(r"(\d+(?:\.\d+)?)(?:/|$)", shown("runtimelimit"))
    if limit is None:
        if left == "-" or re.fullmatch(r"\d+:\d\d [EX]", left):
            return None
        raise _NotKnown(f"bjobs -o time_left answered {left[:80]!r}")
    if not (used := re.match(r"(\d+)", shown("run_time"))):
        raise _NotKnown("bjobs -o run_time shows no time")
    return time.time() + 60 * float(limit[1]) - int(used[1])


def _never_known(environment: Mapping[str, str]) -> float | None:
    raise _NotKnown("no command shows it")


# The variable that names the job -> the scheduler, and what asks it.
SCHEDULERS: dict[str, tuple[str, Callable[[Mapping[str, str]], float | None]]] = {
    "PBS_JOBID": ("PBS", _end_of_pbs_job),
    "LSB_JOBID": ("LSF", _end_of_lsf_job),
    "SGE_TASK_ID": ("Grid Engine", _never_known),
}


def _answer(environment: Mapping[str, str], *command: str) -> str:
    """Return what a scheduler's command prints, with times in UTC. Raises _NotKnown if it fails."""
    in_utc = dict(environment) | {"TZ": "UTC", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, env=in_utc, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise _NotKnown(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise _NotKnown(f"{command[0]} did not answer within {TIMEOUT_S} s") from None
    except (OSError, ValueError) as error:
        raise _NotKnown(f"{command[0]} cannot be run: {error}") from None
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())
        raise _NotKnown(f"{command[0]} ended with status {done.returncode}: {words[:120]}")
    return done.stdout


def _seconds(text: str | None) -> float | None:
    """Convert `8598`, `00:30:00` or `1:00:30:00` (days first) to seconds; None if it is neither."""
    if not text or not re.fullmatch(r"\d+(:\d{1,2}){0,3}", text.strip()):
        return None
    seconds, units = 0, (1, 60, 3600, 86_400)
    for unit, number in zip(units, reversed(text.strip().split(":")), strict=False):
        seconds += unit * int(number)
    return float(seconds)


def _time(text: str | None) -> float | None:
    """Convert `Wed Jun 24 15:33:18 2020`, in UTC, to s since 1970; None if it is no such time."""
    with contextlib.suppress(ValueError):
        read = datetime.strptime(" ".join((text or "").split()), "%a %b %d %H:%M:%S %Y")
        return read.replace(tzinfo=UTC).timestamp()
    return None
