"""Use every node of a SLURM allocation: srun starts on each node the workers that fill it.

`sweep run` inside `salloc` or a batch script, and each job of workers of `sweep submit`, start one
task a node: `sweep work --workers auto`, which fills its node. In a heterogeneous job every
component gets an srun of its own; a task of an array is a job like any other.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.launch import numbers_per_node
from irnet_hpc.distributed.slurm_commands import (
    SlurmError,
    host_names,
    own_job,
    requeue,
    restart_count,
)
from irnet_hpc.errors import UserError
from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep.cell_attempt import Problem, Problems
from irnet_hpc.sweep.cell_states import CellStatus, read_ledger
from irnet_hpc.sweep.context import SweepContext

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

log = logging.getLogger(__name__)

# Steps whose numbers are this or higher are no steps of srun: the batch script's, the shell of
# salloc's (slurm.h of 22.05: SLURM_INTERACTIVE_STEP is 0xfffffffa).
FIRST_SPECIAL_STEP = 0xFFFFFFF0
# Options of sbatch and salloc that srun would read from these variables, though they describe the
# tasks of the job and not our one task a node. Without an option of its own, a step gets all of the
# job's GPUs and memory on its nodes (22.05).
NOT_FOR_SRUN = (
    *("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_NTASKS_PER_SOCKET"),
    *("SLURM_NTASKS_PER_CORE", "SLURM_NTASKS_PER_GPU", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_PER_GPU"),
    *("SRUN_CPUS_PER_TASK", "SLURM_GPUS", "SLURM_GPUS_PER_TASK", "SLURM_GPUS_PER_SOCKET"),
    *("SLURM_TRES_PER_TASK", "SLURM_DISTRIBUTION", "SLURM_EXACT", "SLURM_EXPORT_ENV"),
    *("SLURM_CPU_BIND", "SLURM_CPU_BIND_TYPE", "SLURM_CPU_BIND_LIST", "SLURM_CPU_BIND_VERBOSE"),
)
# SLURM's warning kills a Python that is only starting. Ignored until Python handles it, it is lost
# at worst, and the workers stop by their own clock.
DEAF_AT_FIRST = ("sh", "-c", 'trap "" USR1 USR2; exec "$@"', "irnet-work")
# The seconds that workers get to save their cells after they were told to stop.
STOP_S = 90
# How long SIGTERM may take to reach the batch script after the workers on all nodes.
SIGTERM_S = 3.0
# A job of workers that is stopped this early, this often, is not put back into the queue again.
MIN_RUN_S, MAX_EARLY_STOPS = 60, 3


class Part(NamedTuple):
    """Nodes of an allocation that one srun fills: those of a component with as many cores."""

    hosts: tuple[str, ...]
    # The processors of each node that belong to the job, as SLURM counts them.
    n_cpus: int
    # The component of a heterogeneous job; None: the job is not one.
    component: int | None = None


def parts_of_job(environment: Mapping[str, str] = os.environ) -> list[Part]:
    """Return the nodes of the job that this process belongs to; empty outside of jobs.

    Raises:
        UserError: SLURM's variables are incomplete, or SLURM does not expand its list of nodes.
    """
    if not own_job(environment):
        return []
    size = environment.get("SLURM_HET_SIZE", "")
    suffixes: list[tuple[int | None, str]] = [(None, "")]
    if size.isdecimal() and int(size) > 1:
        suffixes = [(i, f"_HET_GROUP_{i}") for i in range(int(size))]
    parts: list[Part] = []
    for component, suffix in suffixes:
        nodes = environment.get(f"SLURM_JOB_NODELIST{suffix}", "")
        variable = f"SLURM_JOB_CPUS_PER_NODE{suffix}"
        cpus = numbers_per_node(environment, variable)
        try:
            hosts = host_names(nodes) if nodes else []
        except SlurmError as error:
            raise UserError(f"SLURM does not name the nodes of this job: {error}") from None
        if not hosts or len(hosts) != len(cpus):
            raise UserError(
                f"SLURM_JOB_NODELIST{suffix} and {variable} must name as many nodes, got "
                f"{nodes!r} and {environment.get(variable, '')!r}; to use this machine alone, "
                "unset SLURM_JOB_ID"
            )
        for n_cpus in dict.fromkeys(cpus):
            same = tuple(host for host, n in zip(hosts, cpus, strict=True) if n == n_cpus)
            parts.append(Part(same, n_cpus, component))
    return parts


def other_nodes(environment: Mapping[str, str] = os.environ) -> list[Part]:
    """Return the parts of this process's allocation if it has more nodes than this one, else [].

    A process that srun started is one task among others, and keeps to its own place.
    """
    step = environment.get("SLURM_STEP_ID", "")
    if step.isdecimal() and int(step) < FIRST_SPECIAL_STEP:
        return []
    parts = parts_of_job(environment)
    hosts = {host for part in parts for host in part.hosts}
    # Not set in the shell of a salloc that stays on the login node.
    here = environment.get("SLURMD_NODENAME")
    return [] if hosts == {here} else parts


def srun_command(part: Part, command: Sequence[str], srun_args: Sequence[str] = ()) -> list[str]:
    """Return the command that starts `command` once on each node of a part."""
    n_nodes = len(part.hosts)
    options = [f"--het-group={part.component}"] if part.component is not None else []
    options += [f"--nodelist={','.join(part.hosts)}", f"--nodes={n_nodes}", f"--ntasks={n_nodes}"]
    options += ["--ntasks-per-node=1", f"--cpus-per-task={part.n_cpus}", "--export=ALL"]
    # The end of one node's workers, and the loss of a node, must not end those of the others.
    options += ["--kill-on-bad-exit=0", "--wait=0", "--no-kill"]
    return ["srun", *options, *srun_args, *DEAF_AT_FIRST, *command]


def work_command(context: SweepContext, token: str) -> list[str]:
    """Return the command that fills one node with workers.

    Args:
        context: The sweep, whose budget has been checked.
        token: The token of the journal that lists the cells to train.
    """
    options = context.options
    command = [sys.executable, "-u", "-m", "irnet_hpc.sweep", "work"]
    command += [str(context.matrix.path.resolve()), "--results", str(context.results.resolve())]
    command += ["--pack-dir", str(context.pack_dir.resolve())] if context.pack_dir else []
    command += ["--bundle", str(options.bundle), "--workers", str(options.workers or "auto")]
    command += ["--ranks", str(options.n_ranks)] if options.n_ranks else []
    return [*command, "--over-budget", "--token", token]


def train_on(
    parts: Sequence[Part], context: SweepContext, statuses: Sequence[CellStatus], token: str
) -> tuple[set[str], Problems, bool]:
    """Train cells on all nodes of an allocation.

    Args:
        parts: The nodes.
        context: The sweep.
        statuses: The cells.
        token: The token of the journal that lists them.

    Returns:
        The cells that are done, the others with the reasons, and whether the workers were stopped.
    """
    status = run_on(parts, work_command(context, token), context.site.srun_args)
    is_stopped = status == ExitStatus.PREEMPTED
    ledger = read_ledger(context.matrix, context.results, except_tokens=(token,))
    now = {status.name: status for status in ledger.cells}
    done: set[str] = set()
    problems: Problems = {}
    for name in (status.name for status in statuses):
        state, detail = now[name].state, now[name].detail
        if state == CellState.DONE:
            done.add(name)
        elif state == CellState.RUNNING:
            problems[name] = Problem(f"is being trained elsewhere: {detail}", held=True)
        elif state == CellState.FAILED:
            problems[name] = Problem(detail)
        elif not is_stopped:
            problems[name] = Problem(f"no worker trained it (status {status}); {detail or state}")
    return done, problems, is_stopped


def run_on(parts: Sequence[Part], command: Sequence[str], srun_args: Sequence[str] = ()) -> int:
    """Start a command on every node of an allocation, and wait until it has ended everywhere.

    Args:
        parts: The nodes.
        command: The command of each node.
        srun_args: Further options of srun.

    Returns:
        The status with which the sruns ended: PREEMPTED if any was stopped, else the highest.

    Raises:
        UserError: srun is not installed.
        KeyboardInterrupt: The command was told to stop everywhere, and has ended.
    """
    environment = {name: text for name, text in os.environ.items() if name not in NOT_FOR_SRUN}
    sruns: list[subprocess.Popen] = []
    try:
        for part in parts:
            line = srun_command(part, command, srun_args)
            log.info("workers on %d nodes: %s", len(part.hosts), ", ".join(part.hosts))
            # In a session of its own Ctrl-C reaches this process only, and srun once, from here.
            sruns.append(
                subprocess.Popen(
                    line, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
                )
            )
        statuses = [process.wait() for process in sruns]
    except FileNotFoundError:
        raise UserError("an allocation of several nodes needs srun, which is not on PATH") from None
    except KeyboardInterrupt:
        _stop(sruns)
        raise
    finally:
        for process in sruns:
            if process.poll() is None:
                process.kill()
                process.wait()
    return ExitStatus.PREEMPTED if ExitStatus.PREEMPTED in statuses else max(map(abs, statuses))


def _stop(sruns: Sequence[subprocess.Popen]) -> None:
    """Let the workers on all nodes save, and wait until they have.

    srun passes SIGUSR2 on to its tasks. At SIGTERM it would end the step itself, and SLURM kills
    what has not ended KillWait seconds later (22.05).
    """
    deadline = time.monotonic() + STOP_S
    with contextlib.suppress(KeyboardInterrupt):
        for process in sruns:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGUSR2)
        for process in sruns:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    for process in sruns:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()


class WorkerJob:
    """A job of workers on whole nodes; submitit runs it once, in the job's batch script."""

    def __init__(self, command: Sequence[str], srun_args: Sequence[str]) -> None:
        self.command, self.srun_args = list(command), list(srun_args)

    def __call__(self) -> None:
        """Fill the nodes with workers; if they were stopped, put the job back into the queue.

        SLURM signals the workers themselves, before the end of the job and when it is preempted.

        Raises:
            RuntimeError: The workers could not work. Cells that failed are no such reason.
        """
        began = time.time()
        told: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        status = run_on(parts_of_job(), self.command, self.srun_args)
        if status == ExitStatus.PREEMPTED and not self._is_ending(told):
            if time.time() - began < MIN_RUN_S and restart_count() >= MAX_EARLY_STOPS:
                raise RuntimeError(f"the workers were stopped within {MIN_RUN_S} s again and again")
            try:
                requeue(own_job() or "")
            except SlurmError as error:
                # SLURM has put it back itself, or the site forbids it.
                log.info("note: this job is not put back into the queue: %s", error)
            else:
                time.sleep(120)  # SLURM kills this process
        if status not in (ExitStatus.OK, ExitStatus.FAILED, ExitStatus.PREEMPTED):
            raise RuntimeError(f"the workers ended with status {status}")

    def _is_ending(self, told: list[int]) -> bool:
        """Return True if SLURM ends the job itself: it was cancelled, or SLURM has requeued it.

        Then SIGTERM reaches not only the workers but also this process (22.05), at about the same
        time. The warning before the end of the job reaches the workers only.
        """
        deadline = time.monotonic() + SIGTERM_S
        while not told and time.monotonic() < deadline:
            time.sleep(0.1)
        return bool(told)

    def checkpoint(self) -> "DelayedSubmission":
        """Submit the job again, if a signal reaches submitit instead of the workers."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
