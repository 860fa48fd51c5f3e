"""Plan a sweep: the state of every cell, what it will cost, and which cells share a device."""

import dataclasses

from irnet_hpc.sweep.bundles import bundle_labels, bundles_of, gpu_gb, gpu_gb_here
from irnet_hpc.sweep.cell_states import Ledger
from irnet_hpc.sweep.context import SweepContext
from irnet_hpc.sweep.estimates import Estimate, estimate_lines, estimates
from irnet_hpc.sweep.hand_over import plan_of_nodes
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.status import as_json, plan_lines, summary
from irnet_hpc.sweep.whole_nodes import NodePlan


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of `run` here, or of `submit` on the cluster of `options.site`."""

    matrix: Matrix
    ledger: Ledger
    # The estimates, in the order of the ledger's cells.
    estimates: list[Estimate]
    # Cell -> the label of the bundle in which the cell would be trained.
    bundles: dict[str, str]
    # The jobs of workers of `submit`; None: a job for each cell or bundle.
    nodes: NodePlan | None = None

    def lines(self) -> list[str]:
        """Write the plan for people."""
        *rest, limits = summary(self.matrix, self.ledger)
        return [
            *plan_lines(self.matrix, self.ledger, self.estimates, self.bundles),
            *rest,
            *estimate_lines(self.ledger, self.estimates),
            *(self.nodes.lines() if self.nodes else []),
            limits,
        ]

    def json(self) -> str:
        """Write the plan for programs."""
        return as_json(self.matrix, self.ledger, self.estimates, self.nodes)


def plan(context: SweepContext) -> Plan:
    """Determine which cells are to be trained, at what cost, without starting anything.

    Args:
        context: The sweep. The bundles are those for the GPUs of its site, or without a site for
            the GPUs of this machine.

    Returns:
        The plan.
    """
    matrix, ledger, site = context.matrix, context.ledger(), context.site
    statuses = ledger.to_do()
    memory_gb = gpu_gb(site, statuses) if site.gpu_gb else gpu_gb_here()
    bundles = bundles_of(matrix, statuses, context.options.bundle, memory_gb)
    nodes = plan_of_nodes(context, ledger, statuses)
    on_gpu = nodes is not None and nodes.node.gpus > 0
    device = context.options.device or ("gpu" if on_gpu else None)
    estimated = estimates(matrix, ledger, device)
    return Plan(matrix, ledger, estimated, bundle_labels(bundles), nodes)
