"""Let ranks pack together over MPI: `mpirun -n 4 python -m irnet_hpc.pack ...`.

Rank 0 coordinates, and the other ranks wait for its messages, which are Python objects. There are
no collectives, so a failing rank can end the job without waiting for another rank. No other module
used by packing imports mpi4py.
"""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from irnet_hpc.console import exit_status
from irnet_hpc.distributed import launch
from irnet_hpc.distributed.processes import no_warnings
from irnet_hpc.distributed.worker_pool import available_cores
from irnet_hpc.errors import UserError

POLL_S = 0.02  # while it waits, MPI would take a whole core from the ranks that work


class Ranks(NamedTuple):
    """This rank, and its connection to the other ranks."""

    rank: int
    size: int
    cores: int  # the cores that this rank may use
    mpi: Any = None  # mpi4py's communicator, where there is more than one

    def send(self, value: object, to: int) -> None:
        """Send a value to another rank."""
        self.mpi.send(value, to)

    def receive(self, source: int) -> Any:
        """Wait for the next value from a rank, and return it."""
        while (message := self.mpi.improbe(source)) is None:
            time.sleep(POLL_S)
        return message.recv()


def run(main: Callable[[Ranks], None]) -> int:
    """Call `main` on every rank of this launch, or once if there is no launch.

    If a rank fails, it prints its error and ends all ranks with its exit status.

    Returns:
        The exit status.
    """
    where = launch.detect()
    # One process may pack in a job of several tasks: its file is the same.
    launch.check_launcher(where)
    if where is None or where.size == 1:
        main(Ranks(0, 1, available_cores()))
        return 0
    try:
        ranks = _join(where)
    except UserError:
        if where.rank == 0:
            raise
        # All ranks fail alike, and the launcher kills them once one has left. Rank 0, which prints
        # the error, should be the first to leave.
        with contextlib.suppress(SystemExit):
            time.sleep(2)
        return 2
    status = 1
    try:
        status = exit_status(lambda: main(ranks))
    except SystemExit as leaving:  # a signal
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        ranks.mpi.Abort(status)
    return 0


def _join(where: launch.Launch) -> Ranks:
    if where.launcher == "srun" and not {"PMIX_RANK", "PMI_RANK"} & os.environ.keys():
        raise UserError(
            "packing on several ranks needs MPI, but srun started these ranks without it; give "
            "srun an option such as --mpi=pmix (srun --mpi=list shows the choices), or pack in one "
            "task with --workers"
        )
    try:
        with no_warnings():  # it warns of what is an error below
            from mpi4py import MPI
    # RuntimeError: mpi4py's wheels look for the MPI library when they are imported.
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"packing on {where.size} ranks needs mpi4py and MPI ({error}); run env/setup.sh, or "
            "pack with --workers"
        ) from None
    size = MPI.COMM_WORLD.Get_size()
    if size != where.size:
        raise UserError(
            f"MPI must find as many ranks as {where.launcher} started, got {size} and "
            f"{where.size}; start them with the mpirun (or srun --mpi) of the MPI library that "
            f"mpi4py loads, {MPI.Get_library_version().split(',')[0]}, or pack with --workers"
        )
    # Ranks are bound to their cores, or share all of the machine's.
    cores = max(1, min(available_cores(), (os.cpu_count() or 1) // where.local_size))
    return Ranks(MPI.COMM_WORLD.Get_rank(), size, cores, MPI.COMM_WORLD)
