"""Find out what started this process, its rank and the number of ranks, and connect the ranks.

horovodrun, mpirun and torchrun tell each rank all of this. Under a plain `srun` (no MPI, no ssh)
and under submitit's local executor, a rank knows only its number: rank 0 publishes an address in a
file, and the others read it.
"""

import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json

# The choices of --device and --engine; here, since parsers of options must not wait for torch.
DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("auto", "horovod", "torch", "none")
TIMEOUT_S = 120  # seconds until all ranks must have found rank 0


class Launch(NamedTuple):
    """The place of one rank in a launch of several ranks."""

    launcher: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    n_nodes: int
    # Identifies this launch, the same on every rank and never used twice: it names the address
    # file.
    name: str


# launcher, then the variables of rank, size, local rank, local size, node, number of nodes, and
# those that name the launch. The first whose rank is set wins: the innermost launcher, since `srun`
# may start `mpirun`, never the other way round.
LAUNCHERS = (
    (
        *("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
        *("HOROVOD_CROSS_RANK", "HOROVOD_CROSS_SIZE"),
        ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
    ),
    (
        *("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        *("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "", ""),
        ("PMIX_NAMESPACE", "OMPI_MCA_orte_hnp_uri"),
    ),
    (
        *("mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "", ""),
        ("SLURM_JOB_ID", "SLURM_STEP_ID"),
    ),
    (
        *("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE"),
        ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"),
    ),
    (
        *("submitit", "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS"),
        *("SUBMITIT_LOCAL_LOCALID", "SUBMITIT_LOCAL_NTASKS", "", ""),
        ("SUBMITIT_LOCAL_JOB_ID",),
    ),
    (
        *("srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""),
        *("SLURM_NODEID", "SLURM_NNODES"),
        ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    ),
)


def detect(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return the launch that this process belongs to; None if it was started by itself.

    Raises:
        UserError: In a SLURM job of several tasks, if no launcher started this process. Otherwise N
            independent processes would each train the whole run, or one process would train with
            the resources of N.
    """
    for launcher, rank, size, local_rank, local_size, node, n_nodes, names in LAUNCHERS:
        if rank not in environment or size not in environment:
            continue
        # MPICH's mpiexec; srun, too, may set PMI_RANK.
        if launcher == "mpiexec" and local_rank not in environment:
            continue
        # The batch script itself is no step.
        if launcher == "srun" and "SLURM_STEP_ID" not in environment:
            n_tasks = int(environment[size])
            if n_tasks > 1:
                raise UserError(
                    f"size must equal SLURM_NTASKS, got 1 and {n_tasks}; start the ranks with "
                    "srun, mpirun or horovodrun"
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
        tasks = tasks_per_node(
            environment.get("SLURM_STEP_TASKS_PER_NODE") or environment["SLURM_TASKS_PER_NODE"]
        )
        # Ranks in node order whatever the distribution, so that they agree with the plan of the
        # rendezvous.
        return launch._replace(
            rank=sum(tasks[: launch.node]) + launch.local_rank,
            size=number("SLURM_STEP_NUM_TASKS", launch.size),
            local_size=tasks[launch.node],
            n_nodes=len(tasks),
        )
    return None


def check_size(
    size: int, where: Launch | None, environment: Mapping[str, str] = os.environ
) -> None:
    """Raise UserError if the engine found another number of ranks than was started.

    Otherwise, N processes that each believe they are the only one would all train the whole run.
    """
    n_tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS")
    if where and where.launcher == "srun" and n_tasks and int(n_tasks) != size:
        raise UserError(
            f"size must equal SLURM_NTASKS, got {size} and {n_tasks}; see srun --mpi=list, "
            "or use --engine torch"
        )
    if where and where.size != size:
        raise UserError(
            f"size must equal what {where.launcher} started, got {size} and {where.size}; this "
            "Horovod may be built for another launcher, --engine torch is not"
        )


def tasks_per_node(text: str) -> list[int]:
    """Expand SLURM's shorthand for the tasks on each node: "2(x2),1" becomes [2, 2, 1]."""
    tasks = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise UserError(f"SLURM_TASKS_PER_NODE must be like 2(x2),1, got {text!r}")
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks


def n_threads(where: Launch | None, environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of threads that this process should use.

    It is OMP_NUM_THREADS or, under srun, SLURM_CPUS_PER_TASK. If neither is set, it is an equal
    share, among the ranks of this host, of the cores that this process may run on.
    """
    # A list gives a number per level of nested parallelism; ours is the outermost.
    stated = environment.get("OMP_NUM_THREADS", "").partition(",")[0]
    if stated.isdigit() and int(stated):
        return int(stated)
    per_task = environment.get("SLURM_CPUS_PER_TASK", "")
    if where and where.launcher == "srun" and per_task.isdigit():
        return int(per_task)
    return max(1, len(os.sched_getaffinity(0)) // (where.local_size if where else 1))


@contextlib.contextmanager
def meeting(
    launch: Launch, folder: Path, serve: Callable[[str], int]
) -> Iterator[tuple[str, int, str]]:
    """Connect all ranks of a launch, and yield the address of the server on rank 0.

    Rank 0 listens on a port and publishes its address in a file that only the user can read. The
    file is removed once all ranks have connected. The other ranks connect with the token from the
    file and wait for an answer. So all ranks have arrived before any of them waits in an engine,
    whose time-outs are shorter.

    Args:
        launch: The launch.
        folder: The folder of the file, which every node sees.
        serve: Starts the server and returns its port. It is called on rank 0 only, with the address
            that the server listens on (empty: all of this host's addresses).

    Yields:
        (address, port, interface): the address and the port of the server, and the name of this
        host's network interface.

    Raises:
        UserError: If a rank does not connect within TIMEOUT_S.
    """
    path, deadline = folder / f"{launch.launcher}-{launch.name}.json", time.monotonic() + TIMEOUT_S
    if launch.rank != 0:
        yield _knock(launch, path, deadline)
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    addresses = ["127.0.0.1"] if launch.n_nodes == 1 else job_addresses()
    host = addresses[0] if len(addresses) == 1 else ""
    with socket.create_server((host, 0), backlog=launch.size) as door:
        port, token, old_mask = serve(host), secrets.token_hex(16), os.umask(0o077)
        try:
            write_json(
                path,
                {
                    "addresses": addresses,
                    "door": door.getsockname()[1],
                    "port": port,
                    "token": token,
                },
            )
        finally:
            os.umask(old_mask)
        try:
            guests = _receive(door, token, launch.size, deadline)
        finally:
            path.unlink(missing_ok=True)
        for guest in guests:
            guest.sendall(b"come in")
            guest.close()
    yield addresses[0], port, interface_of(addresses[0])


def _receive(door: socket.socket, token: str, size: int, deadline: float) -> list[socket.socket]:
    """Accept connections until all other ranks have connected to rank 0.

    Returns the connections.
    """
    guests: dict[str, socket.socket] = {}
    while len(guests) < size - 1:
        door.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            guest, _ = door.accept()
            guest.settimeout(5)
            password, _, rank = guest.recv(200).decode(errors="replace").partition(" ")
        except TimeoutError:
            if time.monotonic() < deadline:
                continue
            missing = sorted({str(rank) for rank in range(1, size)} - guests.keys(), key=int)
            raise UserError(
                f"ranks {', '.join(missing)} of {size} did not come within {TIMEOUT_S} s"
            ) from None
        except OSError:
            continue
        if secrets.compare_digest(password.encode(), token.encode()):
            guests[rank] = guest
        else:
            guest.close()
    return list(guests.values())


def _knock(launch: Launch, path: Path, deadline: float) -> tuple[str, int, str]:
    """Connect to rank 0, and wait until all ranks are there."""
    while time.monotonic() < deadline:
        time.sleep(0.05)
        # The file is not there yet, or a launch that died left it behind.
        with contextlib.suppress(OSError, UserError, KeyError):
            published = read_json(path)
            for address in published["addresses"]:
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection((address, published["door"]), 2) as door,
                ):
                    own = door.getsockname()[0]
                    door.sendall(f"{published['token']} {launch.rank}".encode())
                    door.settimeout(max(0.01, deadline - time.monotonic()))
                    if door.recv(20) == b"come in":
                        return address, published["port"], interface_of(own)
    raise UserError(
        f"rank {launch.rank} waited {TIMEOUT_S} s for rank 0 and the others to come to {path}"
    )


def stated_interface() -> str | None:
    """Return the network interface that the user has set for Horovod or torch, if any."""
    return os.environ.get("HOROVOD_GLOO_IFACE") or os.environ.get("GLOO_SOCKET_IFNAME") or None


def job_addresses() -> list[str]:
    """Return the addresses at which rank 0 listens if there are several nodes.

    This is the address of this host's name, which the nodes of a cluster use to reach each other.
    If the name has no address of this host, or if the user has set a network interface, it is all
    addresses.
    """
    addresses, named = own_addresses(), ""
    with contextlib.suppress(OSError):
        named = socket.gethostbyname(socket.gethostname())
    return [named] if named in addresses and not stated_interface() else addresses


def own_addresses() -> list[str]:
    """Return this host's IPv4 addresses; the address of its name comes first.

    If the user has set a network interface, only the addresses of that interface are returned.
    """
    import psutil

    wanted = stated_interface()
    addresses = [
        address.address
        for name, entries in psutil.net_if_addrs().items()
        for address in entries
        if address.family == socket.AF_INET
        and (name == wanted if wanted else not address.address.startswith("127."))
    ]
    if wanted and not addresses:
        raise UserError(
            f"no interface {wanted!r} with an IPv4 address; known: "
            f"{', '.join(sorted(psutil.net_if_addrs()))}"
        )
    with contextlib.suppress(OSError):
        named = socket.gethostbyname(socket.gethostname())
        addresses.sort(key=lambda address: address != named)
    return addresses or ["127.0.0.1"]


def interface_of(address: str) -> str:
    """Return the name of the network interface that has an IPv4 address."""
    import psutil

    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return name
    raise UserError(f"no network interface of this host has address {address}")
