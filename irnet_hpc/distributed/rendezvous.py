"""Connect the ranks of a launch whose launcher gives them no address to meet at.

horovodrun, mpirun and torchrun do this themselves. Under a plain `srun` (no MPI, no ssh) and under
submitit's local executor, a rank knows only its number: rank 0 publishes an address in a file, and
the others read it.
"""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from irnet_hpc.distributed.launch import Launch
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json

TIMEOUT_S = 120  # seconds until all ranks must have found rank 0


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
                f"ranks {', '.join(missing)} of {size} did not connect within {TIMEOUT_S} s"
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
        f"rank {launch.rank} waited {TIMEOUT_S} s, but not all ranks connected through {path}"
    )


def stated_interface() -> str | None:
    """Return the network interface that the user has set for Horovod or torch, if any."""
    return os.environ.get("HOROVOD_GLOO_IFACE") or os.environ.get("GLOO_SOCKET_IFNAME") or None


def job_addresses() -> list[str]:
    """Return the addresses at which rank 0 listens if there are several nodes.

    This is the address of this host's name, which the nodes of a cluster use to reach each other.
    If the name has no address of this host, or if the user has set a network interface, rank 0
    listens at all addresses.
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
