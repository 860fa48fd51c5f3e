"""Ranks meet through a private file, and say who did not come."""

import json
import multiprocessing
import socket
import time

import pytest

from irnet_hpc.distributed import launch, rendezvous
from irnet_hpc.errors import UserError


def _arrive(rank: int, folder, queue) -> None:
    where = launch.Launch("test", rank, 3, rank, 3, 0, 1, "meet")
    with rendezvous.meeting(where, folder, lambda host: 4711) as met:
        queue.put(met)


def test_processes_meet_through_a_private_file_that_does_not_stay(tmp_path):
    context, folder = multiprocessing.get_context("spawn"), tmp_path / "meet"
    queue = context.Queue()
    processes = [context.Process(target=_arrive, args=(rank, folder, queue)) for rank in range(3)]
    for process in processes[:2]:
        process.start()
    while not (folder / "test-meet.json").exists():
        time.sleep(0.01)
    assert (folder / "test-meet.json").stat().st_mode & 0o777 == 0o600
    # Strangers at the door: one without the token, one that hangs up.
    door = json.loads((folder / "test-meet.json").read_text())["door"]
    with socket.create_connection(("127.0.0.1", door)) as stranger:
        stranger.sendall(b"wrong 2")
    socket.create_connection(("127.0.0.1", door)).close()
    time.sleep(0.5)
    assert queue.empty()  # nobody goes ahead before all are there
    processes[2].start()
    assert {queue.get(timeout=600) for _ in processes} == {("127.0.0.1", 4711, "lo")}
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    assert not list(folder.iterdir())


def test_rank_0_says_who_did_not_come(tmp_path, monkeypatch):
    monkeypatch.setattr(rendezvous, "TIMEOUT_S", 0.3)
    where = launch.Launch("test", 0, 3, 0, 3, 0, 1, "alone")
    with (
        pytest.raises(UserError, match="ranks 1, 2 of 3 did not connect"),
        rendezvous.meeting(where, tmp_path, lambda host: 0),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_rank_that_nobody_meets_gives_up_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(rendezvous, "TIMEOUT_S", 0.3)
    where = launch.Launch("test", 1, 2, 1, 2, 0, 1, "alone")
    (tmp_path / "test-alone.json").write_text(
        json.dumps({"addresses": ["127.0.0.1"], "door": 1, "port": 1, "token": ""})
    )
    with (
        pytest.raises(UserError, match="rank 1 waited"),
        rendezvous.meeting(where, tmp_path, lambda host: 0),
    ):
        pass
