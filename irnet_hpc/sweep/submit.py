"""Submitting: how a list of cells becomes jobs of SLURM's, or one process in the background.

On SLURM: a job for each pack that is missing, sparse arrays of trainings that wait for their pack and for the cell that they
start from, one job that waits for all of them, however they end, and tries again what lacked memory or time (reconcile.py),
and one aggregator after it. Without SLURM: one process that goes through the same in turn.
"""

import contextlib
import dataclasses
import os
import secrets
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.errors import UserError
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.bundles import Bundle, bundles_of, gpu_gb, minutes_of
from irnet_hpc.sweep.jobs import (
    Commands,
    Training,
    aggregate_command,
    notice_s,
    outside_any_job,
    pack_command,
    train_options,
)
from irnet_hpc.sweep.ledger import TO_DO, Entry, Ledger, read_ledger
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.matrix.resources import Resources, with_more
from irnet_hpc.sweep.matrix.sites import Site


def state_folder() -> Path:
    """Where submitit keeps its pickles: $IRNET_STATE or the user's state folder; seen by all nodes, closed to others.

    Loading a pickle runs what is in it, so the folder must be the user's own.
    """
    base = os.environ.get("IRNET_STATE")
    base = (
        Path(base)
        if base
        else Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "irnet_hpc"
    )
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if base.stat().st_uid != os.getuid():
        raise UserError(f"the state folder {base} must be yours; set $IRNET_STATE to one that is")
    if stat.S_IMODE(base.stat().st_mode) & 0o077:
        base.chmod(0o700)
    return base.resolve() / "submitit"


def slurm_parameters(
    site: Site, resources: Resources, *, name: str, token: str, after: str | None, is_training: bool
) -> dict:
    """The parameters of submitit's SlurmExecutor for jobs of one shape."""
    sbatch = {option: value for option, value in site.sbatch.items() if value not in (False, None)}
    # The comment says whose job this is, even on a cluster that starts counting from 1 again.
    comment = f"{sbatch.pop('comment', '')} {token}".strip()
    setup = ["command -v module >/dev/null || . /etc/profile"] if site.modules else []
    setup += [f"module load {module}" for module in site.modules]
    parameters = {
        "job_name": name,
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "cpus_per_task": resources.cpus_per_rank,
        "mem": f"{round(resources.memory_gb * 1024)}M",
        "account": site.account,
        "partition": site.partition,
        "qos": site.qos,
        "constraint": site.constraint,
        "dependency": after,
        "comment": comment,
        "wckey": None,
        "setup": [*setup, *site.setup, f"export OMP_NUM_THREADS={resources.cpus_per_rank}"],
        "use_srun": is_training,
        # A job whose pack failed would wait for ever, and the aggregator for it.
        "additional_parameters": {"kill-on-invalid-dep": "yes", "requeue": True} | sbatch,
    }
    if is_training:
        unasked = 0 if resources.cpu_only else site.gpus_per_task
        gpus = (resources.gpus_per_rank or unasked) * resources.ranks_per_node
        # Since 22.05 srun does not take over --cpus-per-task; a dead rank must end the others.
        srun_args = [
            "--kill-on-bad-exit=1",
            f"--cpus-per-task={resources.cpus_per_rank}",
            *site.srun_args,
        ]
        parameters |= {
            "srun_args": srun_args,
            "signal_delay_s": notice_s(resources),
            "gpus_per_node": gpus or None,
        }
    return parameters


def to_slurm(
    matrix: Matrix,
    ledger: Ledger,
    entries: Sequence[Entry],
    results: Path,
    pack_dir: Path | None,
    site: Site,
    array_size: int,
    reconcile: Sequence[str] | None,
    *,
    bundle: str | int = 1,
    at_most: int | None = None,
) -> Path:
    """Submit the missing packs, `entries`, the command `reconcile` and the aggregator, whose log, with the table, is returned.

    Cells that share a device, `bundle` at most, are one job; `at_most` jobs train at once (None: as many as SLURM likes).

    Each job is in the journal as soon as SLURM has it. Raises UserError where SLURM refuses one; what it has taken stays,
    and has its aggregator.
    """
    path, waited_for, refused = hand_over(
        matrix, ledger, entries, results, pack_dir, site, array_size, bundle=bundle, at_most=at_most
    )
    token = journal.token_of(path)

    def submit(command: list[str], log: Path, kind: str, jobs: Sequence[str]) -> str:
        # Never afterok: one failed cell would cancel the tables.
        after, name = afterany(jobs), f"irnet:{kind}:{matrix.name}"
        resources = Resources(memory_gb=4, minutes=30)
        parameters = slurm_parameters(
            site, resources, name=name, token=token, after=after, is_training=False
        )
        (job,) = sbatch(
            state_folder() / f"{matrix.name}-{token}", parameters, [Commands([command], log)]
        )
        return job.job_id

    if reconcile:
        log = path.with_name(f"reconcile-{matrix.name}-{token}.log")
        try:
            waited_for = [submit([*reconcile, "--token", token], log, "reconcile", waited_for)]
        except UserError as error:
            print(
                f"note: {error}; what ends for lack of memory or time is not tried again",
                flush=True,
            )
    log = path.with_name(f"tables-{matrix.name}-{token}.log")
    try:
        job = submit(aggregate_command(matrix, results), log, "tables", waited_for)
        journal.note(path, [{"tables": job}])
    except UserError as error:
        raise refused or error from None
    if refused:
        raise refused
    return log


def afterany(jobs: Sequence[str]) -> str:
    """The dependency that waits for jobs, or for the arrays that they are of, however they end."""
    return f"afterany:{':'.join(dict.fromkeys(job.partition('_')[0] for job in jobs))}"


def hand_over(
    matrix: Matrix,
    ledger: Ledger,
    entries: Sequence[Entry],
    results: Path,
    pack_dir: Path | None,
    site: Site,
    array_size: int,
    *,
    again: bool = False,
    bundle: str | int = 1,
    at_most: int | None = None,
) -> tuple[Path, list[str], UserError | None]:
    """Submit the missing packs and `entries`. Returns the journal, the jobs that a whole table waits for, and what SLURM said
    where it refused the rest. Raises UserError where it takes nothing. `again`: the journal says that this is another try."""
    left = {
        entry.name: {"cell": entry.name} | ({"again": True} if again else {}) for entry in entries
    }
    # With all of them, should we be killed before we know the number of a job.
    path = journal.begin(
        results, matrix.name, "slurm", process_name(os.getpid()), events=left.values()
    )
    token = journal.token_of(path)
    folder = state_folder() / f"{matrix.name}-{token}"
    packs = {pack.name: pack for pack in matrix.packs if not pack.exists}
    made_by = (
        ledger.pack_jobs | ledger.cell_jobs
    )  # pack or cell -> its job; no pack is called as a cell is
    waited_for = list(made_by.values())  # also those of earlier submissions: one whole table

    def submit(
        jobs: Sequence, resources: Resources, name: str, after: str | None, is_training: bool
    ) -> list[str]:
        parameters = slurm_parameters(
            site, resources, name=name, token=token, after=after, is_training=is_training
        )
        parameters |= {"array_parallelism": at_most} if at_most else {}
        ids = [job.job_id for job in sbatch(folder, parameters, jobs)]
        waited_for.extend(ids)
        return ids

    refused, before = None, None
    try:
        for name in dict.fromkeys(entry.cell.spec.pack for entry in entries):
            if name in packs and name not in made_by:
                log = path.with_name(f"pack-{name}-{token}.log")
                build = Commands(
                    [pack_command(packs[name], matrix.pack_resources.cpus_per_rank)], log
                )
                (job,) = submit([build], matrix.pack_resources, f"irnet:pack:{name}", None, False)
                journal.note(path, [{"pack": name, "job": job, "log": str(log)}])
                made_by[name] = job
        bundles = bundles_of(matrix, entries, bundle, gpu_gb(site, entries))
        for (resources, after), array in _arrays(bundles, made_by, array_size):
            jobs = [
                Training(
                    train_options(entry, results, pack_dir, *others),
                    entry.folder / "train.log",
                    resources,
                    [one.folder for one in (entry, *others)],
                )
                for entry, *others in array
            ]
            if at_most and before:  # SLURM counts within an array, so arrays go one after the other
                after = ",".join(filter(None, (after, afterany(before))))
            ids = before = submit(jobs, resources, f"irnet:{matrix.name}", after, True)
            pairs = [
                (entry, job, together)
                for together, job in zip(array, ids, strict=True)
                for entry in together
            ]
            made_by |= {entry.name: job for entry, job, _ in pairs}
            events = [
                left.pop(entry.name)
                | {"job": job, "log": _log_of(together, folder, job), "bundle": len(together)}
                for entry, job, together in pairs
            ]
            journal.note(path, events)
    except UserError as error:
        if len(left) == len(entries):
            raise
        refused = error  # once what was accepted has its tables
    finally:
        journal.note(path, [event | {"ended": "not submitted"} for event in left.values()])
    return path, waited_for, refused


def _log_of(bundle: Bundle, folder: Path, job: str) -> str:
    """What is read of a cell that has left no log of its own: submitit's; of a bundle the one in its first cell's folder."""
    return (
        str(bundle[0].folder / "train.log") if len(bundle) > 1 else str(folder / f"{job}_0_log.err")
    )


def _arrays(
    bundles: Sequence[Bundle], made_by: dict[str, str], array_size: int
) -> Iterator[tuple[tuple[Resources, str | None], list[Bundle]]]:
    """Bundles of one resource shape that wait for one pack and one origin, in arrays; their indices count from 0 and end below
    MaxArraySize. Those that start from others come after all that do not: by then `made_by` must hold the jobs of these."""
    for starts in (False, True):
        groups: dict = {}
        for bundle in bundles:
            entry = bundle[
                0
            ]  # the others, if there are, are of the same pack and resources, and start from nothing
            if (entry.origin is not None) == starts:
                jobs = [
                    made_by[name]
                    for name in (entry.cell.spec.pack, entry.origin)
                    if name in made_by
                ]
                after = f"afterok:{':'.join(jobs)}" if jobs else None
                resources = dataclasses.replace(entry.cell.resources, minutes=minutes_of(bundle))
                groups.setdefault((resources, after), []).append(bundle)
        for shape, group in groups.items():
            for start in range(0, len(group), array_size):
                yield shape, group[start : start + array_size]


def sbatch(folder: Path, parameters: dict, jobs: Sequence) -> list:
    """Hand jobs to SLURM as one array, whatever job this process is in. Raises UserError with SLURM's own words where it refuses."""
    import submitit
    from submitit.core.utils import FailedSubmissionError, UncompletedJobError

    executor = submitit.SlurmExecutor(folder)
    try:
        executor.update_parameters(**parameters)
        with outside_any_job():
            return executor.submit_array(jobs)
    except (UncompletedJobError, FailedSubmissionError, OSError) as error:
        lines = [line for line in str(error).splitlines() if "error" in line.lower()] or [
            str(error).strip()
        ]
        raise UserError(f"SLURM refused {parameters['job_name']}: {'; '.join(lines)}") from None


def to_background(matrix: Matrix, results: Path, options: Sequence[str]) -> tuple[Path, str]:
    """Start `sweep run` and the aggregator in the background. Returns the log that will hold the table, and the process."""
    import submitit

    token = secrets.token_hex(4)
    log = results / journal.FOLDER / f"tables-{matrix.name}-{token}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    run = [
        sys.executable,
        "-u",
        "-m",
        "irnet_hpc.sweep",
        "run",
        str(matrix.path.resolve()),
        *options,
        "--token",
        token,
    ]
    commands = Commands(
        [run, aggregate_command(matrix, results)], log, os.environ.get("CUDA_VISIBLE_DEVICES")
    )
    executor = submitit.LocalExecutor(state_folder() / f"{matrix.name}-{token}")
    executor.update_parameters(timeout_min=525_600, tasks_per_node=1)  # a year: no limit
    with outside_any_job(), _detached_output():
        job = executor.submit(commands)
    deadline = time.monotonic() + 60
    while not list(
        log.parent.glob(f"[0-9]*-{token}.jsonl")
    ):  # from then on its cells count as queued
        if time.monotonic() > deadline or (
            log.exists() and "error:" in log.read_text(errors="replace")
        ):
            raise UserError(f"the sweep did not start in the background; see {log}")
        time.sleep(0.05)
    return log, job.job_id


@contextlib.contextmanager
def _detached_output() -> Iterator[None]:
    """A child started here does not hold the caller's pipe, so that `submit | tee` ends when submit does."""
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


def reconcile(
    matrix: Matrix,
    results: Path,
    pack_dir: Path | None,
    site: Site,
    array_size: int,
    token: str,
    over_budget: bool,
    *,
    bundle: str | int = 1,
    at_most: int | None = None,
) -> None:
    """Try again what may be, and say what and why. Nobody else may be about to submit (journal.alone).

    Of a bundle only the cells without a result come again: together where they lacked time, each alone where memory.
    """
    ledger, attempts = read_ledger(matrix, results), journal.attempts(results)
    ours = [
        entry
        for entry in ledger.entries
        if (attempt := attempts.get(("cell", entry.name)))
        and attempt.token == token
        and not attempt.again
    ]
    entries, told = to_try_again(matrix, ledger, ours)
    print("\n".join(told) or "nothing has ended for lack of memory or time", flush=True)
    asked, budget = (
        sum(entry.cell.resources.device_hours for entry in entries),
        matrix.budget_device_hours,
    )
    if budget is not None and asked > budget and not over_budget:
        raise UserError(
            f"budget_device_hours of {matrix.path} must cover what is tried again, however: {budget:,g} and {asked:,.1f}"
        )
    if not entries:
        return
    _, jobs, refused = hand_over(
        matrix,
        ledger,
        entries,
        results,
        pack_dir,
        site,
        array_size,
        again=True,
        bundle=bundle,
        at_most=at_most,
    )
    tables = journal.tables_of(results, token)
    if tables:  # it waits for us, who have not ended: it cannot have begun
        jobs += [os.environ["SLURM_JOB_ID"]] if "SLURM_JOB_ID" in os.environ else []
        command = ["scontrol", "update", f"JobId={tables}", f"Dependency={afterany(jobs)}"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if told.returncode:
            print(
                f"note: the tables will be made without waiting: {' '.join(told.stderr.split())}",
                flush=True,
            )
    print(f"submitted {len(entries)} cells once more", flush=True)
    if refused:
        raise refused


def to_try_again(
    matrix: Matrix, ledger: Ledger, ours: list[Entry]
) -> tuple[list[Entry], list[str]]:
    """The cells to submit, with what they now ask for, among `ours`; and a line on each that lacked something.

    What starts from such a cell went with it where that failed, and comes again with it, as it was.
    """
    entries, told, names = [], [], set()
    for entry in ours if matrix.retry else []:
        if entry.state not in TO_DO:
            continue
        before = entry.cell.resources
        resources = before if entry.origin in names else None
        if entry.cause:
            resources = with_more(before, entry.cause, matrix.retry)
            field = {"memory": "memory_gb", "time": "minutes"}[entry.cause]
            what = f"{entry.name}: {entry.detail}; {field} {getattr(before, field):g}"
            told.append(
                f"{what} -> {getattr(resources, field):g}"
                if resources
                else f"{what}, which is all it may have"
            )
        if resources:
            cell = dataclasses.replace(entry.cell, resources=resources)
            entries.append(dataclasses.replace(entry, cell=cell))
            names.add(entry.name)
    return entries, told
