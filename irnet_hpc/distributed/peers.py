"""Notice that another rank is gone, whatever this rank is doing meanwhile.

A sum over GPUs waits on the device, where no error reaches the thread that started it: NCCL between
the GPUs of a node never says that a process has died. So each rank has a connection to rank 0,
which the kernel closes when a process ends, and a thread that waits for that.
"""

import contextlib
import logging
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.processes import leave_at_once
from irnet_hpc.distributed.rendezvous import job_addresses
from irnet_hpc.errors import PeerLost, UserError

if TYPE_CHECKING:
    from irnet_hpc.distributed.engines import Comm

logger = logging.getLogger(__name__)

# The seconds in which the main thread may end this rank by itself, once a peer is lost. It does so
# at its next operation, unless it waits for a GPU.
GRACE_S = 10
LOOK_S = 5  # seconds between two looks at how long this rank has waited
GREETING, GOODBYE = b"+", b"."


class Peers:
    """The connections of a rank to the others: rank 0 has one to each, the others one to rank 0.

    Args:
        links: The connections. They are closed by `close`.
        lost_s: Seconds without an answer from the kernel of a peer's host, after which it is lost.
        stall_s: Seconds that this rank may wait for the others.
        waits_since: Returns the time (time.monotonic()) since which this rank waits for others;
            None if it does not.
    """

    def __init__(
        self,
        links: list[socket.socket],
        lost_s: int,
        stall_s: int,
        waits_since: Callable[[], float | None],
    ) -> None:
        self.links, self.stall_s, self.waits_since = links, stall_s, waits_since
        self.lost: str | None = None
        # Called if a peer is lost and the main thread does not end this rank.
        self.note: Callable[[PeerLost], None] | None = None
        self.is_closed = threading.Event()
        for link in links:
            link.settimeout(None)
            _keep_alive(link, lost_s)
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def check(self) -> None:
        """Raise PeerLost if another rank is gone."""
        if self.lost is not None:
            raise PeerLost(self.lost)

    def close(self) -> None:
        """Tell the other ranks that this one ends as it should."""
        self.is_closed.set()
        for link in self.links:
            with contextlib.suppress(OSError):
                link.sendall(GOODBYE)
                link.shutdown(socket.SHUT_RDWR)

    def _watch(self) -> None:
        open_links = {link.fileno(): link for link in self.links}
        poll = select.poll()
        for number in open_links:
            poll.register(number, select.POLLIN)
        while open_links and self.lost is None:
            for number, _ in poll.poll(1000 * LOOK_S):
                with contextlib.suppress(OSError):
                    if open_links[number].recv(1) == GOODBYE:
                        poll.unregister(open_links.pop(number))
                        continue
                self.lost = "a rank is gone, so this one stops: its connection is closed"
                break
            since = self.waits_since()
            if self.lost is None and since and time.monotonic() - since > self.stall_s:
                self.lost = (
                    f"a rank is gone, so this one stops: it has not come for {self.stall_s} s"
                )
            if self.is_closed.is_set():
                return
        if self.lost is not None:
            self._end()

    def _end(self) -> None:
        for link in self.links:  # so that the others notice it too
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        if self.is_closed.wait(GRACE_S):
            return
        assert self.lost is not None
        error = PeerLost(self.lost)
        if self.note is not None:
            try:
                self.note(error)
            except Exception as failure:
                logger.warning("warning: the reason could not be written: %s", failure)
        logger.error("error: %s", error)
        leave_at_once(ExitStatus.FAILED)


def watch(
    comm: "Comm",
    n_nodes: int,
    lost_s: int,
    stall_s: int,
    waits_since: Callable[[], float | None],
) -> Peers:
    """Connect the ranks, and watch the connections. Every rank calls it.

    Args:
        comm: The ranks, which can already exchange objects.
        n_nodes: The number of nodes.
        lost_s: As for Peers.
        stall_s: As for Peers, and the seconds in which all ranks must connect.
        waits_since: As for Peers.
    """
    door, published = None, None
    if comm.rank == 0:
        addresses = ["127.0.0.1"] if n_nodes == 1 else job_addresses()
        host = addresses[0] if len(addresses) == 1 else ""
        door, token = socket.create_server((host, 0), backlog=comm.size), secrets.token_hex(16)
        published = (addresses, door.getsockname()[1], token)
    published = comm.gather(published)[0]
    assert published is not None  # since it is that of rank 0
    addresses, port, token = published
    if door is not None:
        links = accepted(door, token, comm.size - 1, stall_s)
    else:
        links = connected(addresses, port, token)
    return Peers(links, lost_s, stall_s, waits_since)


def accepted(door: socket.socket, token: str, n_others: int, stall_s: int) -> list[socket.socket]:
    """Accept the connections of the other ranks, on rank 0.

    Args:
        door: The listening socket, which is closed.
        token: What a rank sends so that it is let in.
        n_others: The number of other ranks.
        stall_s: Seconds in which all must come.
    """
    links: list[socket.socket] = []
    deadline = time.monotonic() + stall_s
    with door:
        while len(links) < n_others:
            door.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                link, _ = door.accept()
            except TimeoutError:
                raise UserError(
                    f"{n_others - len(links)} of {n_others + 1} ranks did not connect within "
                    f"{stall_s} s"
                ) from None
            with contextlib.suppress(OSError):
                link.settimeout(5)
                said = link.recv(len(token), socket.MSG_WAITALL)
                if secrets.compare_digest(said, token.encode()):
                    link.sendall(GREETING)
                    links.append(link)
                    continue
            link.close()
    return links


def connected(addresses: Sequence[str], port: int, token: str) -> list[socket.socket]:
    """Connect to rank 0, on any other rank, at the first of its addresses where it answers."""
    for address in addresses:
        with contextlib.suppress(OSError):
            link = socket.create_connection((address, port), 60)
            link.sendall(token.encode())
            if link.recv(1) == GREETING:
                return [link]
            link.close()
    raise UserError(f"rank 0 must answer at {', '.join(addresses)}, port {port}, and does not")


@contextlib.contextmanager
def noted(peers: Peers | None, note: Callable[[PeerLost], None]) -> Iterator[None]:
    """Call `note` if a peer is lost during the block and the main thread cannot raise that."""
    if peers is None:
        yield
        return
    peers.note = note
    try:
        yield
    finally:
        peers.note = None


def _keep_alive(link: socket.socket, lost_s: int) -> None:
    """Let the kernel close a connection if the peer's host does not answer for `lost_s` seconds."""
    interval, n_probes = max(1, lost_s // 5), 4
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, n_probes)
