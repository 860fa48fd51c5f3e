"""Submit cells to SLURM: a job for each missing pack, then arrays of training jobs.

A training job waits for its pack and for the cell that it starts from. Every job is written to the
journal as soon as SLURM has accepted it.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.errors import UserError
from irnet_hpc.runs.lease import Leases
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.allocation import WorkerJob, work_command
from irnet_hpc.sweep.bundles import Bundle, bundles_of, gpu_gb, minutes_of
from irnet_hpc.sweep.cell_states import CellStatus, Ledger
from irnet_hpc.sweep.context import SweepContext
from irnet_hpc.sweep.estimates import estimates
from irnet_hpc.sweep.jobs import Commands, TrainingJob, pack_command, train_options
from irnet_hpc.sweep.matrix.resources import Resources
from irnet_hpc.sweep.memory_needs import MemoryNeeds
from irnet_hpc.sweep.places import threads_of
from irnet_hpc.sweep.sbatch import (
    afterany,
    node_parameters,
    slurm_parameters,
    state_folder,
    submit_jobs,
)
from irnet_hpc.sweep.whole_nodes import NodePlan, node_of, plan_nodes

log = logging.getLogger(__name__)


class Shape(NamedTuple):
    """The resources and dependencies that the jobs of one array share."""

    resources: Resources
    # The jobs to wait for, in the form of `sbatch --dependency`.
    after: str | None


@dataclasses.dataclass(frozen=True)
class HandOver:
    """The jobs that SLURM has accepted."""

    journal: Path
    # The jobs that the tables wait for, including those of earlier submissions.
    jobs: list[str]
    # Why SLURM refused the other jobs; None: it has accepted all jobs.
    refusal: UserError | None


def hand_over(
    context: SweepContext,
    ledger: Ledger,
    statuses: Sequence[CellStatus],
    array_size: int,
    again: bool = False,
) -> HandOver:
    """Submit the missing packs and the cells of `statuses`.

    Args:
        context: The sweep.
        ledger: The state of all cells, with the jobs that are queued or running.
        statuses: The cells to submit.
        array_size: SLURM's MaxArraySize.
        again: True if this is the second try of these cells; the journal records this.

    Returns:
        The jobs that SLURM has accepted, and why it refused the rest.

    Raises:
        UserError: SLURM accepts none of the jobs.
    """
    node_plan = None if again else plan_of_nodes(context, ledger, statuses)
    return _Submission(context, ledger, statuses, again, node_plan).submit(array_size)


def plan_of_nodes(
    context: SweepContext, ledger: Ledger, statuses: Sequence[CellStatus]
) -> NodePlan | None:
    """Plan the jobs of workers for cells; None if each cell or bundle has a job of its own.

    Raises:
        UserError: The size of a node is not known, or `--at-most` does not allow a single job.
    """
    options = context.options
    if not (node := node_of(context.site, options.pack_nodes)):
        return None
    device = options.device or ("gpu" if node.gpus else None)
    pairs = zip(ledger.cells, estimates(context.matrix, ledger, device), strict=True)
    estimated = {status.name: estimate for status, estimate in pairs}
    needs = MemoryNeeds(context, has_gpu=node.gpus > 0)
    return plan_nodes(node, statuses, estimated, options.pack_nodes or 1, options.max_jobs, needs)


class _Submission:
    """A submission in progress: its journal, and the jobs that have been submitted so far."""

    def __init__(
        self,
        context: SweepContext,
        ledger: Ledger,
        statuses: Sequence[CellStatus],
        again: bool,
        node_plan: NodePlan | None,
    ) -> None:
        self.context, self.statuses, self.node_plan = context, statuses, node_plan
        mark = {"again": True} if again else {}
        # cell name -> the journal's event, for cells that have no job yet
        self.left = {s.name: {"cell": s.name} | mark for s in statuses}
        # The journal begins with all these events, in case this process is killed before it knows
        # the number of a job.
        driver = process_name(os.getpid())
        self.path = journal.begin(
            context.results, context.matrix.name, "slurm", driver, events=self.left.values()
        )
        self.token = journal.token_of(self.path)
        self.folder = state_folder() / f"{context.matrix.name}-{self.token}"
        # pack or cell -> its job; no pack has the name of a cell
        self.made_by = ledger.pack_jobs | ledger.cell_jobs
        self.jobs = list(self.made_by.values())
        self.worker_jobs: list[str] = []

    def submit(self, array_size: int) -> HandOver:
        refusal = None
        with Leases() as leases:
            leases.keep_touching(self.path)
            try:
                self._submit_packs()
                alone = self.statuses
                if self.node_plan:
                    alone = self.node_plan.others
                    self._submit_workers(self.node_plan, array_size)
                self._submit_trainings(alone, array_size)
            except UserError as error:
                if len(self.left) == len(self.statuses):
                    raise
                # The refusal is reported after the accepted jobs have their aggregator.
                refusal = error
            finally:
                lost = [event | {"ended": "not submitted"} for event in self.left.values()]
                journal.note(self.path, lost)
        return HandOver(self.path, self.jobs, refusal)

    def _sbatch(self, jobs: Sequence, name: str, shape: Shape, is_training: bool) -> list[str]:
        parameters = slurm_parameters(
            self.context.site,
            shape.resources,
            name=name,
            token=self.token,
            after=shape.after,
            is_training=is_training,
        )
        if self.context.options.max_jobs:
            parameters["array_parallelism"] = self.context.options.max_jobs
        ids = [job.job_id for job in submit_jobs(self.folder, parameters, jobs)]
        self.jobs += ids
        return ids

    def _submit_packs(self) -> None:
        """Submit a job for each missing pack, unless a queued job builds it already."""
        matrix = self.context.matrix
        missing = {pack.name: pack for pack in matrix.packs if not pack.exists}
        for name in dict.fromkeys(status.cell.spec.pack for status in self.statuses):
            if name not in missing or name in self.made_by:
                continue
            log = self.path.with_name(f"pack-{name}-{self.token}.log")
            resources = matrix.pack_resources
            n_cores = resources.cpus_per_rank
            build = Commands([pack_command(missing[name], n_cores)], log, n_threads=n_cores)
            (job,) = self._sbatch([build], f"irnet:pack:{name}", Shape(resources, None), False)
            journal.note(self.path, [{"pack": name, "job": job, "log": str(log)}])
            self.made_by[name] = job

    def _submit_workers(self, plan: NodePlan, array_size: int) -> None:
        """Submit jobs of whole nodes, whose workers share the cells of the plan."""
        if not plan.packed:
            return
        context = self.context
        job = WorkerJob(work_command(context, self.token), context.site.srun_args)
        wanted = {status.cell.spec.pack for status in plan.packed}
        packs = [self.made_by[name] for name in sorted(wanted) if name in self.made_by]
        parameters = node_parameters(
            context.site,
            plan,
            name=f"irnet:{context.matrix.name}",
            token=self.token,
            # If a pack cannot be built, the workers still train the cells of the others.
            after=afterany(packs) if packs else None,
        )
        n_jobs = min(plan.n_jobs, array_size)
        ids = [one.job_id for one in submit_jobs(self.folder, parameters, [job] * n_jobs)]
        self.worker_jobs = ids
        self.jobs += ids
        number = ids[0].partition("_")[0]
        facts = {"job": number, "n_shared": len(ids)}
        events = []
        for status in plan.packed:
            self.made_by[status.name] = number
            events.append(self.left.pop(status.name) | facts)
        journal.note(self.path, events)
        log.info(
            "job %s: %d of %d whole nodes, at most %d minutes each, for %d cells",
            *(number, len(ids), plan.n_nodes, plan.minutes, len(events)),
        )

    def _submit_trainings(self, statuses: Sequence[CellStatus], array_size: int) -> None:
        """Submit cells as arrays of bundles."""
        context = self.context
        memory_gb = gpu_gb(context.site, statuses)
        bundles = bundles_of(context.matrix, statuses, context.options.bundle, memory_gb)
        before = self.worker_jobs
        for shape, array in arrays_of(bundles, self.made_by, array_size):
            if context.options.max_jobs and before:
                # SLURM can limit the running jobs of one array only, so the arrays run in turn.
                after = ",".join(filter(None, (shape.after, afterany(before))))
                shape = shape._replace(after=after)
            jobs = [self._job_of(bundle, shape.resources) for bundle in array]
            before = self._sbatch(jobs, f"irnet:{context.matrix.name}", shape, True)
            events = []
            for bundle, job in zip(array, before, strict=True):
                facts = {"job": job, "log": self._log_of(bundle, job), "bundle": len(bundle)}
                for status in bundle:
                    self.made_by[status.name] = job
                    events.append(self.left.pop(status.name) | facts)
            journal.note(self.path, events)

    def _job_of(self, bundle: Bundle, resources: Resources) -> TrainingJob:
        first, *others = bundle
        context = self.context
        options = train_options(
            first,
            context.results,
            context.pack_dir,
            *others,
            site_gpus=context.site.gpus_per_task,
        )
        folders = [status.folder for status in bundle]
        # The environment of the job, not that of this process, may state another number.
        n_threads = threads_of(first, {})
        return TrainingJob(options, first.folder / "train.log", resources, folders, n_threads)

    def _log_of(self, bundle: Bundle, job: str) -> str:
        """Return the bundle's log or, for a single cell, submitit's log.

        The status of a cell quotes this log if the cell has no log of its own.
        """
        if len(bundle) > 1:
            return str(bundle[0].folder / "train.log")
        return str(self.folder / f"{job}_0_log.err")


def arrays_of(
    bundles: Sequence[Bundle], made_by: dict[str, str], array_size: int
) -> Iterator[tuple[Shape, list[Bundle]]]:
    """Group bundles into job arrays.

    All jobs of an array request the same resources and wait for the same jobs (those of their pack
    and origin). An array has fewer jobs than MaxArraySize, since indices count from 0.

    Cells without an origin come first. Before the cells that start from them are read, the caller
    must have added the jobs of the origins to `made_by`.

    Args:
        bundles: The bundles to submit.
        made_by: Name of a pack or cell -> the job that makes it.
        array_size: SLURM's MaxArraySize.
    """
    for has_origin in (False, True):
        groups: dict[Shape, list[Bundle]] = {}
        for bundle in bundles:
            # The other cells of a bundle have the same pack and resources, and no origin.
            first = bundle[0]
            if (first.origin is not None) != has_origin:
                continue
            names = (first.cell.spec.pack, first.origin or "")
            jobs = [made_by[name] for name in names if name in made_by]
            after = f"afterok:{':'.join(jobs)}" if jobs else None
            resources = dataclasses.replace(first.cell.resources, minutes=minutes_of(bundle))
            groups.setdefault(Shape(resources, after), []).append(bundle)
        for shape, group in groups.items():
            for start in range(0, len(group), array_size):
                yield shape, group[start : start + array_size]
