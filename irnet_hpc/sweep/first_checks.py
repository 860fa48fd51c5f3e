"""Refuse what this machine cannot do, before anything is built, claimed or trained."""

from collections.abc import Sequence

from irnet_hpc.sweep.bundles import AUTO
from irnet_hpc.sweep.cell_attempt import n_ranks_of
from irnet_hpc.sweep.cell_process import horovodrun
from irnet_hpc.sweep.cell_states import CellStatus
from irnet_hpc.sweep.context import SweepContext
from irnet_hpc.sweep.places import places_here


def check_possible(context: SweepContext, statuses: Sequence[CellStatus]) -> None:
    """Check that this machine can train cells with the options of a sweep.

    Args:
        context: The sweep.
        statuses: The cells to train.

    Raises:
        UserError: There are more workers than GPUs or cores, or cells of several ranks and nothing
            to start them.
    """
    workers = context.options.workers
    if workers not in (None, AUTO):
        places_here(workers, statuses)
    n_ranks = max((n_ranks_of(status, context) for status in statuses), default=1)
    if n_ranks > 1:
        horovodrun(n_ranks)
