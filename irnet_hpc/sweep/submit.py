"""Submit a matrix to SLURM or, without SLURM, to one process in the background.

With SLURM, hand_over.py submits the packs and trainings. A further job waits until all trainings
have ended in any way, and tries the cells that lacked memory or time once more (reconcile.py).
After it, one job makes the tables. Without SLURM, one process builds the packs, trains the cells
and makes the tables in turn.
"""

import contextlib
import dataclasses
import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from irnet_hpc.distributed.slurm_commands import max_array_size
from irnet_hpc.errors import UserError
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.cell_states import CellStatus, Ledger
from irnet_hpc.sweep.context import SweepContext, SweepOptions, take_up
from irnet_hpc.sweep.hand_over import hand_over
from irnet_hpc.sweep.jobs import Commands, aggregate_command, outside_any_job
from irnet_hpc.sweep.matrix.resources import Resources
from irnet_hpc.sweep.raw_tables import fetch_tables
from irnet_hpc.sweep.sbatch import afterany, slurm_parameters, state_folder, submit_jobs
from irnet_hpc.sweep.status import summary

log = logging.getLogger(__name__)

# The seconds in which the background process must record the cells that it takes up.
START_S = 60
# A year, which means no limit.
BACKGROUND_MIN = 525_600


@dataclasses.dataclass(frozen=True)
class Submission:
    """The outcome of a submission."""

    # The states of the cells before the submission.
    ledger: Ledger
    n_cells: int = 0
    # The log that will hold the tables; None: there was nothing to submit.
    log: Path | None = None
    # The process in the background; None: the jobs were given to SLURM.
    process: str | None = None


def slurm_array_size(options: SweepOptions) -> int | None:
    """Return SLURM's MaxArraySize; None if the cells should be trained on this machine.

    Raises:
        UserError: SLURM is installed but does not answer.
    """
    return max_array_size() if options.cluster in (None, "slurm") else None


def submit(context: SweepContext) -> Submission:
    """Submit the cells that are missing or failed and are not queued.

    Args:
        context: The sweep; `options.cluster` chooses between SLURM and the background.

    Returns:
        The outcome of the submission.

    Raises:
        UserError: The cells may cost more than the budget, a pack must be built first, or SLURM
            refuses a job. Jobs that SLURM has accepted stay, and an aggregator follows them.
    """
    array_size = slurm_array_size(context.options)
    # Paths must be absolute, since jobs may start in another folder.
    context = dataclasses.replace(
        context,
        results=context.results.resolve(),
        pack_dir=context.pack_dir and context.pack_dir.resolve(),
    )
    matrix = context.matrix
    with journal.alone(context.results):
        ledger = take_up(context)
        log.info("%s", "\n".join(summary(matrix, ledger)))
        statuses = ledger.to_do(context.options.stale)
        unknown = [p.name for p in matrix.packs if not p.exists and "all" in p.properties]
        if not statuses and not unknown:
            return Submission(ledger)
        if array_size is None and context.options.cluster == "slurm":
            raise UserError(
                "--cluster slurm needs SLURM's commands on PATH and a cluster that they know"
            )
        if array_size is None and context.options.pack_nodes:
            raise UserError(
                f"--pack-nodes {context.options.pack_nodes} needs SLURM, which does not answer "
                "here; on one machine `sweep run` fills it with workers by itself"
            )
        if not unknown or array_size is None:
            fetch_tables(matrix.packs)
        if array_size is None:
            path, process = to_background(context)
            return Submission(ledger, len(statuses), path, process)
        if unknown:
            raise UserError(
                f"properties: all needs the pack first, but {', '.join(unknown)} is not built; "
                "name the properties, or build it with python -m irnet_hpc.pack"
            )
        path = to_slurm(context, ledger, statuses, array_size)
        return Submission(ledger, len(statuses), path)


def to_slurm(
    context: SweepContext, ledger: Ledger, statuses: Sequence[CellStatus], array_size: int
) -> Path:
    """Submit packs, trainings, the second try and the aggregator; return the aggregator's log.

    Raises:
        UserError: SLURM refuses a job. Jobs that SLURM has accepted stay, and an aggregator
            follows them.
    """
    matrix = context.matrix
    done = hand_over(context, ledger, statuses, array_size)
    token, jobs = journal.token_of(done.journal), done.jobs

    def submit_command(command: list[str], path: Path, kind: str, jobs: Sequence[str]) -> str:
        # Never use afterok: one failed cell would cancel the job that makes the tables.
        parameters = slurm_parameters(
            context.site,
            Resources(memory_gb=4, minutes=30),
            name=f"irnet:{kind}:{matrix.name}",
            token=token,
            after=afterany(jobs),
            is_training=False,
        )
        folder = state_folder() / f"{matrix.name}-{token}"
        n_threads = 1 if kind == "tables" else None
        jobs_of_kind = [Commands([command], path, n_threads=n_threads)]
        (job,) = submit_jobs(folder, parameters, jobs_of_kind)
        return job.job_id

    if matrix.retry:
        path = done.journal.with_name(f"reconcile-{matrix.name}-{token}.log")
        command = [*reconcile_command(context), "--token", token]
        try:
            jobs = [submit_command(command, path, "reconcile", jobs)]
        except UserError as error:
            log.info("note: %s; cells that run out of memory or time are not tried again", error)
    path = done.journal.with_name(f"tables-{matrix.name}-{token}.log")
    try:
        job = submit_command(aggregate_command(matrix, context.results), path, "tables", jobs)
        journal.note(done.journal, [{"tables": job}])
    except UserError as error:
        raise done.refusal or error from None
    if done.refusal:
        raise done.refusal
    return path


def reconcile_command(context: SweepContext) -> list[str]:
    """Return the command of the job that repeats the cells that lacked memory or time."""
    options, site = context.options, context.options.site
    command = [sys.executable, "-m", "irnet_hpc.sweep", "reconcile"]
    command += [str(context.matrix.path.resolve()), "--results", str(context.results)]
    command += ["--pack-dir", str(context.pack_dir)] if context.pack_dir else []
    if site:
        command += ["--site", str(Path(site).resolve()) if Path(site).exists() else site]
    command += ["--bundle", str(options.bundle)]
    command += ["--at-most", str(options.max_jobs)] if options.max_jobs else []
    return command + ["--over-budget"] * options.over_budget


def to_background(context: SweepContext) -> tuple[Path, str]:
    """Start `sweep run` and the aggregator in the background.

    Returns:
        The log that will contain the tables, and the number of the process.

    Raises:
        UserError: The run did not start.
    """
    import submitit

    matrix, results, token = context.matrix, context.results, secrets.token_hex(4)
    path = results / journal.FOLDER / f"tables-{matrix.name}-{token}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    commands = Commands(
        [run_command(context, token), aggregate_command(matrix, results)],
        path,
        os.environ.get("CUDA_VISIBLE_DEVICES"),
    )
    executor = submitit.LocalExecutor(state_folder() / f"{matrix.name}-{token}")
    executor.update_parameters(timeout_min=BACKGROUND_MIN, tasks_per_node=1)
    with outside_any_job(), _detached_output():
        job = executor.submit(commands)
    deadline = time.monotonic() + START_S
    # Wait for the journal: the cells count as queued once it exists.
    while not list(path.parent.glob(f"[0-9]*-{token}.jsonl")):
        if time.monotonic() > deadline or job.done():
            raise UserError(f"the sweep did not start in the background; see {path}")
        time.sleep(0.05)
    return path, job.job_id


def run_command(context: SweepContext, token: str) -> list[str]:
    """Return the command of `sweep run` for a process in the background."""
    options = context.options
    command = [sys.executable, "-u", "-m", "irnet_hpc.sweep", "run"]
    command += [str(context.matrix.path.resolve()), "--results", str(context.results)]
    command += ["--pack-dir", str(context.pack_dir)] if context.pack_dir else []
    command += ["--stale", "--yes"] * options.stale + ["--over-budget"] * options.over_budget
    return [*command, "--bundle", str(options.bundle), "--token", token]


@contextlib.contextmanager
def _detached_output() -> Iterator[None]:
    """Send the output of child processes to /dev/null.

    A background process that kept the caller's pipe open would keep `submit | tee` from ending.
    """
    sys.stdout.flush()
    kept = [os.dup(1), os.dup(2)]
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nothing)
