"""Hold that hosts with folders of their own are told so, and that others never wait."""

import logging
import threading
import time

import pytest

from irnet_hpc.distributed.launch import Launch
from irnet_hpc.errors import UserError
from irnet_hpc.sweep import one_folder
from irnet_hpc.sweep.one_folder import check_one_folder, warn_of_clock


def task(rank: int, n_nodes: int = 2, name: str = "job 7 step 0") -> Launch:
    return Launch("srun", rank, 4, rank % 2, 2, rank // 2, n_nodes, name)


@pytest.fixture(params=("ext4", "nfs4"))
def file_system(request, monkeypatch):
    monkeypatch.setattr(one_folder, "file_system_type", lambda path: request.param)
    return request.param


def test_a_host_with_a_folder_of_its_own_is_told_so(tmp_path, file_system):
    check_one_folder(tmp_path / "a", task(0), 0)
    if file_system == "nfs4":
        check_one_folder(tmp_path / "b", task(3), 0)
        return
    with pytest.raises(UserError, match="--results"):
        check_one_folder(tmp_path / "b", task(3), 0)
    check_one_folder(tmp_path / "a", task(3), 0)
    with pytest.raises(UserError):  # the sign of another step is none
        check_one_folder(tmp_path / "a", task(3, name="job 7 step 1"), 0)


def test_the_sign_may_come_late(tmp_path, monkeypatch):
    monkeypatch.setattr(one_folder, "file_system_type", lambda path: "ext4")
    thread = threading.Timer(0.5, check_one_folder, (tmp_path, task(0)))
    thread.start()
    check_one_folder(tmp_path, task(1), 600)
    thread.join()


@pytest.mark.parametrize("where", (None, task(3, n_nodes=1), task(3, name="")))
def test_one_host_waits_for_nobody(tmp_path, where):
    check_one_folder(tmp_path / "none", where, 0)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("skew_s", "is_said"), ((75.0, True), (-75.0, True), (1.0, False)))
def test_a_clock_that_differs_is_said_and_refuses_nothing(
    tmp_path, monkeypatch, caplog, skew_s, is_said
):
    now = time.time()
    monkeypatch.setattr(one_folder, "file_server_time", lambda folder: now - skew_s)
    with caplog.at_level(logging.WARNING):
        warn_of_clock(tmp_path)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * is_said
    assert ("75 s ahead" if skew_s > 0 else "75 s behind") in caplog.text or not is_said
