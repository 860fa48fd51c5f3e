"""A rank ends by itself when another is gone, even if it can do nothing else."""

import socket
import subprocess
import sys
import threading

import pytest

from irnet_hpc.distributed import peers

# A rank with one peer; `act` is what the peer does, and `main` what the rank does meanwhile.
RANK = """
import socket, sys, time
from irnet_hpc.distributed import peers
from irnet_hpc.errors import PeerLost
peers.GRACE_S, peers.LOOK_S, waits = %s, 0.1, %s
own, other = socket.create_server(("127.0.0.1", 0)), None
other = socket.create_connection(own.getsockname())
link, _ = own.accept()
watch = peers.Peers([link], 50, 3, lambda: waits)
with peers.noted(watch, lambda error: print("noted", error, flush=True)):
    %s
    %s
"""
STUCK = "time.sleep(900)"
LOOKS = "\n    ".join(
    ["try:", "    while True: watch.check(); time.sleep(0.01)", "except PeerLost: sys.exit(9)"]
)


@pytest.mark.parametrize(
    ("grace_s", "waits", "act", "main", "status", "said"),
    [
        # The connection ends: a rank that cannot look is ended, one that looks ends by itself.
        (0.1, None, "other.close()", STUCK, 1, "connection is closed"),
        (900, None, "other.close()", LOOKS, 9, None),
        # A peer is there, but has not come for longer than 3 s, or for less.
        (0.1, "time.monotonic() - 9", "pass", STUCK, 1, "has not come for 3 s"),
        (0.1, "time.monotonic() + 900", "pass", "time.sleep(1)", 0, None),
        # A peer says that it ends as it should.
        (0.1, None, "other.sendall(peers.GOODBYE); other.close()", "time.sleep(1)", 0, None),
        # This rank has ended its work when the peer goes.
        (0.1, None, "watch.close(); other.close()", "time.sleep(1)", 0, None),
    ],
)
def test_a_lost_peer_ends_this_rank(grace_s, waits, act, main, status, said):
    done = subprocess.run(
        [sys.executable, "-c", RANK % (grace_s, waits, act, main)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == status, done.stderr
    if said is None:
        assert "noted" not in done.stdout and "error" not in done.stderr
    else:
        assert said in done.stderr and done.stdout.startswith("noted") and said in done.stdout


def test_only_who_knows_the_token_is_let_in():
    door = socket.create_server(("127.0.0.1", 0))
    address = door.getsockname()
    stranger = socket.create_connection(address)
    stranger.sendall(b"x" * 32)
    came: list[socket.socket] = []
    thread = threading.Thread(target=lambda: came.extend(peers.accepted(door, "k" * 32, 1, 600)))
    thread.start()
    (own,) = peers.connected([address[0]], address[1], "k" * 32)
    thread.join()
    assert len(came) == 1 and came[0].getpeername() == own.getsockname()
    assert stranger.recv(1) == b""  # it is turned away
    for link in (stranger, own, *came):
        link.close()


def test_the_kernel_asks_whether_a_silent_host_is_there():
    door = socket.create_server(("127.0.0.1", 0))
    link = socket.create_connection(door.getsockname())
    watch = peers.Peers([link], 50, 600, lambda: None)
    settings = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    idle, interval, probes = (link.getsockopt(socket.IPPROTO_TCP, name) for name in settings)
    assert idle + interval * probes == 50
    watch.close()
    for each in (door, link):
        each.close()
