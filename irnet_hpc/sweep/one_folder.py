"""Check that the hosts of a launch see the same folder of results, and that clocks agree."""

import hashlib
import logging
import socket
import time
from pathlib import Path

from irnet_hpc.distributed.launch import Launch
from irnet_hpc.errors import UserError
from irnet_hpc.files import file_system_type
from irnet_hpc.runs.lease import file_server_time
from irnet_hpc.sweep import journal

log = logging.getLogger(__name__)

# File systems of one machine, as /proc/self/mountinfo names them.
OF_ONE_MACHINE = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs"),
    *("tmpfs", "ramfs", "overlay"),
}
# The seconds in which the first task must have left its sign.
SIGN_S = 60.0
# A clock that differs by more is worth a line.
MAX_SKEW_S = 10.0


def check_one_folder(results: Path, where: Launch | None, wait_s: float = SIGN_S) -> None:
    """Check that the tasks of a launch on several hosts write into the same folder of results.

    The first task leaves a sign in the folder. The others look for it only if the folder is on a
    file system of one machine, since any other one is shared; so workers on a shared file system
    never wait for each other.

    Args:
        results: The folder of results.
        where: The launch that started this process; None: nobody did.
        wait_s: How long to wait for the sign, in s.

    Raises:
        UserError: This host has a folder of its own under this name.
    """
    if where is None or where.n_nodes < 2 or not where.name:
        return
    # `prune` removes it as it removes temporary files.
    sign = (
        results
        / journal.FOLDER
        / f".step.{hashlib.sha256(where.name.encode()).hexdigest()[:8]}.tmp"
    )
    if where.rank == 0:
        sign.parent.mkdir(parents=True, exist_ok=True)
        sign.touch()
        return
    existing = next(path for path in (results, *results.absolute().parents) if path.is_dir())
    file_system = file_system_type(existing.resolve())
    if file_system not in OF_ONE_MACHINE:
        return
    deadline = time.monotonic() + wait_s
    while not sign.exists():
        if time.monotonic() > deadline:
            raise UserError(
                f"all hosts must see the same folder of results, but on {socket.gethostname()} "
                f"{results.absolute()} is on a file system of one machine ({file_system}) and "
                "shows nothing of the first task; give --results in a folder that all hosts share"
            )
        time.sleep(0.2)


def warn_of_clock(results: Path) -> None:
    """Warn if this host's clock differs from the file server's.

    The file server's clock alone decides whether a process has died. The times that people read,
    and the end of the job, are those of the hosts.
    """
    now = file_server_time(results)
    skew_s = 0.0 if now is None else time.time() - now
    if abs(skew_s) > MAX_SKEW_S:
        log.warning(
            "warning: the clock of %s is %.0f s %s that of the file server of %s: times in status "
            "and in the logs differ by as much, and a training may stop too late for the end of "
            "its job; results do not depend on it",
            *(socket.gethostname(), abs(skew_s)),
            *("ahead of" if skew_s > 0 else "behind", results),
        )
