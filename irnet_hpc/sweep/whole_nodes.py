"""Decide how the cells of a sweep fill whole nodes: how many jobs of workers, and for how long.

A job of workers holds N whole nodes. Each node has a worker for each GPU or, without GPUs, as many
as its cores and its memory allow, and every worker takes one cell after the other (worker.py). So
the number of jobs follows from the work, not from the number of cells.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from irnet_hpc.distributed.slurm_commands import smallest_node
from irnet_hpc.errors import UserError
from irnet_hpc.sweep.cell_states import CellStatus
from irnet_hpc.sweep.estimates import Estimate, short
from irnet_hpc.sweep.matrix.resources import Resources
from irnet_hpc.sweep.matrix.sites import Site, WholeNodes
from irnet_hpc.sweep.memory_needs import MemoryNeeds
from irnet_hpc.sweep.places import threads_of

# A further job is worth its wait in the queue if each of its nodes has this much to do.
WORTH_MIN = 60
# The time limit of a job is this many times what its share of the work should take, plus the limit
# of the longest cell: workers end when no cell is left, and a late cell should not be stopped.
SLACK = 2.0


@dataclasses.dataclass(frozen=True)
class NodePlan:
    """The jobs of workers that train some cells of a sweep."""

    node: WholeNodes
    # The nodes of each job.
    n_nodes: int
    n_jobs: int
    # The time limit of each job.
    minutes: int
    # The cells that the workers train, and those that need a job of their own.
    packed: list[CellStatus]
    others: list[CellStatus]
    # The expected node-hours of the packed cells: by workers, and with one job a cell.
    node_hours: float
    node_hours_alone: float
    # The cells whose time limit stands for a missing estimate.
    n_unknown: int

    def facts(self) -> dict:
        """Return the numbers of the plan, for programs."""
        return {
            "nodes_per_job": self.n_nodes,
            "jobs": self.n_jobs,
            "minutes": self.minutes,
            "cells": len(self.packed),
            "node_hours": self.node_hours,
            "node_hours_of_one_job_a_cell": self.node_hours_alone,
            "cells_counted_by_time_limit": self.n_unknown,
        }

    def lines(self) -> list[str]:
        """Compare the node-hours with those of one job a cell, for the plan."""
        if not self.packed:
            return []
        node, jobs = self.node, f"{self.n_jobs} job{'s' * (self.n_jobs > 1)}"
        kind = f"{node.gpus} GPUs, " * (node.gpus > 0) + f"{node.cores} cores, "
        kind += f"{node.memory_gb:g} GiB"
        nodes = f"{self.n_nodes} node{'s' * (self.n_nodes > 1)}"
        hours, alone = short(self.node_hours), short(self.node_hours_alone)
        line = f"whole nodes ({kind}): workers train {len(self.packed)} cells in about {hours} "
        line += f"node-hours, in {jobs} of {nodes}; with one job a cell it is {alone}"
        if self.n_unknown:
            line += f"; {self.n_unknown} cells without an estimate count with their time limit"
        lines = [line]
        if self.others:
            lines.append(
                f"whole nodes: {len(self.others)} cells have jobs of their own, since they need "
                "several nodes or more than a node has"
            )
        return lines


def node_of(site: Site, n_nodes: int | None) -> WholeNodes | None:
    """Return the node that jobs of workers fill; None if every cell has a job of its own.

    Args:
        site: The site. If it has no `whole_nodes`, SLURM is asked for the smallest node of the
            site's partition.
        n_nodes: The number of `--pack-nodes`, or None.

    Raises:
        UserError: `--pack-nodes` was given, but neither the site nor SLURM describes a node.
    """
    if site.node or n_nodes is None:
        return site.node
    if not (found := smallest_node(site.partition)):
        raise UserError(
            "--pack-nodes needs the size of a node, which neither SLURM nor whole_nodes of the "
            "site states; on one machine `sweep run` fills it with workers by itself"
        )
    cores, memory_gb, gpus = found
    return WholeNodes(cores, memory_gb, gpus)


def n_places(node: WholeNodes, resources: Resources, memory_gb: float | None = None) -> int:
    """Return how many cells of these resources a node trains at once; 0 if none fits.

    Args:
        node: The node.
        resources: What a cell asks for. Its `cpus_per_rank` are the threads that it has.
        memory_gb: The memory (GiB) that it may take; None: what it asks for.
    """
    if resources.nodes > 1:
        return 0
    n_ranks = resources.ranks_per_node
    by = [
        node.cores // (resources.cpus_per_rank * n_ranks),
        math.floor(node.memory_gb / (memory_gb or resources.memory_gb)),
    ]
    if node.gpus and not resources.cpu_only:
        # There is a worker for each GPU, also for cells that would make do without one.
        by.append(node.gpus // (max(1, resources.gpus_per_rank) * n_ranks))
    elif resources.gpus_per_rank:
        return 0
    return min(by)


def _n_places_of(node: WholeNodes, status: CellStatus, needs: MemoryNeeds | None) -> int:
    """Return how many cells like this one the workers of a node train at once."""
    n_threads = threads_of(status, {})
    resources = dataclasses.replace(status.cell.resources, cpus_per_rank=n_threads)
    return n_places(node, resources, needs.gb((status,)) if needs else None)


def plan_nodes(
    node: WholeNodes,
    statuses: Sequence[CellStatus],
    estimated: Mapping[str, Estimate],
    n_nodes: int = 1,
    at_most: int | None = None,
    needs: MemoryNeeds | None = None,
) -> NodePlan:
    """Decide how many jobs of workers the cells are worth, and their time limit.

    Args:
        node: The node of the cluster.
        statuses: The cells to train.
        estimated: Cell -> its estimate.
        n_nodes: The nodes of each job.
        at_most: The most nodes that the jobs together may hold; None: no limit.
        needs: The memory that cells may take; None: what they ask for.

    Returns:
        The plan.

    Raises:
        UserError: `at_most` does not allow a single job.
    """
    if at_most is not None and at_most < n_nodes:
        raise UserError(f"--at-most must be --pack-nodes ({n_nodes}) or more, got {at_most}")
    places = {status.name: _n_places_of(node, status, needs) for status in statuses}
    packed = [status for status in statuses if places[status.name]]
    others = [status for status in statuses if not places[status.name]]
    n_unknown, alone, filled, n_full = 0, 0.0, 0.0, 0.0
    for status in packed:
        estimate = estimated.get(status.name)
        minutes = estimate.minutes if estimate else None
        if minutes is None:
            n_unknown, minutes = n_unknown + 1, float(status.cell.resources.minutes)
        alone += minutes
        filled += minutes / places[status.name]
        n_full += 1 / places[status.name]
    # More nodes than the cells can fill at once would stand idle.
    worth = min(filled / WORTH_MIN, n_full) / n_nodes
    most = at_most // n_nodes if at_most else math.inf
    n_jobs = int(max(1, min(most, math.ceil(worth))))
    longest = max((status.cell.resources.minutes for status in packed), default=1)
    share = filled / (n_jobs * n_nodes)
    limit = min(node.minutes, math.ceil(SLACK * share + longest))
    hours, hours_alone = filled / 60, alone / 60
    return NodePlan(
        node, n_nodes, n_jobs, limit, packed, others, hours, hours_alone, n_unknown
    )  # fmt: skip
