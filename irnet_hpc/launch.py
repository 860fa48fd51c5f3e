"""Who started this process, as which rank of how many, and where the ranks meet.

Under horovodrun, mpirun and torchrun the launcher says all of it. Under a plain `srun` (no MPI, no ssh) and under
submitit's local executor the ranks know only their numbers: rank 0 publishes an address in a file that the others read.
"""

import contextlib
import os
import re
import secrets
import socket
import time
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json

TIMEOUT_S = 120  # for all ranks to have found rank 0


class Launch(NamedTuple):
    launcher: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    n_nodes: int
    name: str  # of this launch, the same on every rank and never used twice: names the address file


# launcher, then the variables of rank, size, local rank, local size, node, number of nodes, and those that name the launch.
# The first whose rank is set wins: the innermost launcher, since `srun` may start `mpirun`, never the other way round.
LAUNCHERS = (
    ("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE", "HOROVOD_CROSS_RANK",
     "HOROVOD_CROSS_SIZE", ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")),
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
     "", "", ("PMIX_NAMESPACE", "OMPI_MCA_orte_hnp_uri")),
    ("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
     ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")),
    ("submitit", "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID", "SUBMITIT_LOCAL_NTASKS",
     "", "", ("SUBMITIT_LOCAL_JOB_ID",)),
    ("srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "", "SLURM_NODEID", "SLURM_NNODES",
     ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")),
)  # fmt: skip


def detect(environment: dict[str, str] = os.environ) -> Launch | None:
    """The launch this process belongs to; None where it was started by itself.

    Raises UserError in a SLURM job of several tasks that was not started by a launcher: N copies of rank 0 of 1, or one
    process where N were asked for, must never train.
    """
    for launcher, rank, size, local_rank, local_size, node, n_nodes, names in LAUNCHERS:
        if rank not in environment or size not in environment:
            continue
        if launcher == "srun" and "SLURM_STEP_ID" not in environment:  # the batch script itself is no step
            n_tasks = int(environment[size])
            if n_tasks > 1:
                raise UserError(
                    f"size must equal SLURM_NTASKS, however: 1 and {n_tasks}; start the ranks with srun, mpirun or horovodrun"
                )
            return None

        def number(variable: str, otherwise: int) -> int:
            return int(environment.get(variable, otherwise))

        launch = Launch(
            launcher,
            rank=number(rank, 0),
            size=number(size, 1),
            local_rank=number(local_rank, 0),
            local_size=number(local_size, 1),
            node=number(node, 0),
            n_nodes=number(n_nodes, -(-number(size, 1) // number(local_size, 1))),
            name="-".join(re.sub(r"\W+", "_", environment.get(name, "0")) for name in names),
        )
        if launcher != "srun":
            return launch
        tasks = tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE") or environment["SLURM_TASKS_PER_NODE"])
        # Ranks in node order whatever the distribution, so that they agree with the plan of the rendezvous.
        return launch._replace(
            rank=sum(tasks[: launch.node]) + launch.local_rank,
            size=number("SLURM_STEP_NUM_TASKS", launch.size),
            local_size=tasks[launch.node],
            n_nodes=len(tasks),
        )
    return None


def check_size(size: int, environment: dict[str, str] = os.environ) -> None:
    """Raise UserError unless the engine found as many ranks as the scheduler started."""
    n_tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS")
    inside = "SLURM_STEP_ID" in environment and "OMPI_COMM_WORLD_SIZE" not in environment
    if inside and n_tasks and int(n_tasks) != size and "HOROVOD_RANK" not in environment:
        raise UserError(f"size must equal SLURM_NTASKS, however: {size} and {n_tasks}; see the launcher's PMI setting")


def tasks_per_node(text: str) -> list[int]:
    """SLURM's shorthand: "2(x2),1" -> [2, 2, 1]."""
    tasks = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise UserError(f"SLURM_TASKS_PER_NODE must be like 2(x2),1, however: {text!r}")
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks


def n_threads(local_size: int, environment: dict[str, str] = os.environ) -> int:
    """Cores of this process: the scheduler's word, else an equal share of those it may run on."""
    if environment.get("SLURM_CPUS_PER_TASK", "").isdigit():
        return int(environment["SLURM_CPUS_PER_TASK"])
    return max(1, len(os.sched_getaffinity(0)) // local_size)


@contextlib.contextmanager
def meeting(launch: Launch, folder: Path, serve):
    """Yield (address, port, interface) at which all ranks of a launch find rank 0.

    Rank 0 calls `serve()`, which starts a server and returns its port, and publishes it in `folder`, which every node
    sees; the file is readable by the user alone, and removed once the caller has met the others. Raises UserError after
    TIMEOUT_S.
    """
    path = folder / f"{launch.launcher}-{launch.name}.json"
    if launch.rank == 0:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        addresses = ["127.0.0.1"] if launch.n_nodes == 1 else own_addresses()
        port, old_mask = serve(), os.umask(0o077)
        try:
            write_json(path, {"addresses": addresses, "port": port, "token": secrets.token_hex(8)})
        finally:
            os.umask(old_mask)
        try:
            yield addresses[0], port, interface_of(addresses[0])
        finally:
            path.unlink(missing_ok=True)
        return
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            published = read_json(path)
            for address in published["addresses"]:
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection((address, published["port"]), 2) as connection,
                ):
                    own = connection.getsockname()[0]
                    break
            else:
                time.sleep(0.2)
                continue
            yield address, published["port"], interface_of(own)
            return
        time.sleep(0.05)
    raise UserError(f"rank {launch.rank} waited {TIMEOUT_S} s for rank 0 to publish its address in {path}")


def own_addresses() -> list[str]:
    """This host's IPv4 addresses, the one that its name stands for first."""
    import psutil

    addresses = [
        address.address
        for entries in psutil.net_if_addrs().values()
        for address in entries
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    with contextlib.suppress(OSError):
        named = socket.gethostbyname(socket.gethostname())
        addresses.sort(key=lambda address: address != named)
    return addresses or ["127.0.0.1"]


def interface_of(address: str) -> str:
    """The name of the network interface that has an IPv4 address."""
    import psutil

    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return name
    raise UserError(f"no network interface of this host has address {address}")
