"""Submit cells that ran out of memory or time once more, with more of it."""

import dataclasses
import logging
from collections.abc import Sequence

from irnet_hpc.distributed.slurm_commands import SlurmError, max_array_size, own_job, set_dependency
from irnet_hpc.errors import UserError
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.cell_states import TO_DO, CellStatus
from irnet_hpc.sweep.context import SweepContext
from irnet_hpc.sweep.hand_over import hand_over
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.matrix.resources import FIELD_OF_CAUSE, with_more
from irnet_hpc.sweep.sbatch import afterany

log = logging.getLogger(__name__)


def reconcile(context: SweepContext, token: str) -> None:
    """Submit once more the cells that ran out of memory or time, and log which cells and why.

    If some cells of a bundle have no result, only these are repeated: together if the bundle ran
    out of time, each alone if it ran out of memory. The job that makes the tables then waits for
    them, too.

    Args:
        context: The sweep.
        token: The token of the submission.

    Raises:
        UserError: The second try may cost more than the budget, or SLURM refuses it.
    """
    with journal.alone(context.results):
        matrix, ledger = context.matrix, context.ledger()
        attempts = journal.attempts(context.results)
        submitted = [
            status
            for status in ledger.cells
            if (attempt := attempts.get(("cell", status.name)))
            and attempt.token == token
            and not attempt.again
        ]
        statuses, lines = cells_to_retry(matrix, submitted)
        log.info("%s", "\n".join(lines) or "no cell has run out of memory or time")
        hours = sum(status.cell.resources.device_hours for status in statuses)
        budget = matrix.budget_device_hours
        if budget is not None and hours > budget and not context.options.over_budget:
            raise UserError(
                f"the second tries may need {hours:,.1f} device-hours, but budget_device_hours of "
                f"{matrix.path} is {budget:,g}"
            )
        if not statuses:
            return
        done = hand_over(context, ledger, statuses, max_array_size() or 1, again=True)
        _delay_tables(context, token, done.jobs)
        log.info("submitted %d cells once more", len(statuses))
        if done.refusal:
            raise done.refusal


def _delay_tables(context: SweepContext, token: str, jobs: Sequence[str]) -> None:
    """Let the aggregator of a submission wait for `jobs`, too.

    The aggregator waits for the job that runs this function, so it cannot have begun.
    """
    tables = journal.tables_of(context.results, token)
    if not tables:
        return
    own = own_job()
    dependency = afterany([*jobs, own] if own else jobs)
    try:
        set_dependency(tables, dependency)
    except SlurmError as error:
        log.info("note: the tables will be made without waiting: %s", error)


def cells_to_retry(
    matrix: Matrix, submitted: Sequence[CellStatus]
) -> tuple[list[CellStatus], list[str]]:
    """Select the cells of a submission that should be tried again.

    A cell that starts from a selected cell has failed with it, and is repeated with the resources
    that it had.

    Returns:
        The cells, with the resources that they request now; and a line about each cell that ran out
        of memory or time.
    """
    again: dict[str, CellStatus] = {}
    lines: list[str] = []
    if matrix.retry is None:
        return [], []
    for status in submitted:
        if status.state not in TO_DO:
            continue
        before = status.cell.resources
        resources = before if status.origin in again else None
        if field := FIELD_OF_CAUSE.get(status.cause):
            resources = with_more(before, status.cause, matrix.retry)
            line = f"{status.name}: {status.detail}; {field} {getattr(before, field):g}"
            if resources:
                lines.append(f"{line} -> {getattr(resources, field):g}")
            else:
                lines.append(f"{line}, which is its limit")
        if resources:
            cell = dataclasses.replace(status.cell, resources=resources)
            again[status.name] = dataclasses.replace(status, cell=cell)
    return list(again.values()), lines
