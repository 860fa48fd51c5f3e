"""Hold that a large network has as many threads as there are free cores, and keeps them."""

import os
from types import SimpleNamespace

import psutil
import pytest
import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.files import write_json
from irnet_hpc.models.architectures import parse_layers
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.train import threads
from irnet_hpc.train.threads import threads_of

CPU = torch.device("cpu")


@pytest.fixture
def cores(monkeypatch):
    """Four cores, so many of which are busy, and torch may use all."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 4, 6})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)

    def are_busy(*percent: float) -> None:
        shown = [100.0, 100.0] * 4  # the others have no meaning here
        shown[0:8:2] = percent
        monkeypatch.setattr(psutil, "cpu_percent", lambda seconds, percpu: shown)

    return are_busy


def replica(path, layers: str = "1024BARx4-1", batch: int = 256) -> SimpleNamespace:
    run = SimpleNamespace(folder=RunFolder(path), key="key")
    return SimpleNamespace(
        run=run, layers=parse_layers(layers), recipe=SimpleNamespace(batch=batch)
    )


@pytest.mark.parametrize(
    ("percent", "expected"),
    [((0, 3, 0, 1), 4), ((0, 99, 0, 51), 2), ((100, 100, 100, 100), 1), ((60, 60, 60, 0), 1)],
)
def test_a_large_network_has_a_thread_for_each_free_core(tmp_path, cores, percent, expected):
    cores(*percent)
    assert threads_of(replica(tmp_path), Alone(), CPU) == expected


def test_what_was_begun_goes_on_with_as_many_threads(tmp_path, cores):
    """The numbers of a resumed run depend on it by rounding."""
    cores(0, 0, 0, 0)
    write_json(tmp_path / "run.json", {"key": "key", "attempts": [{"threads": 2}, {"size": 1}]})
    assert threads_of(replica(tmp_path), Alone(), CPU) == 2
    write_json(tmp_path / "run.json", {"key": "other", "attempts": [{"threads": 2}]})
    assert threads_of(replica(tmp_path), Alone(), CPU) == 4
    write_json(tmp_path / "run.json", {"key": "key", "attempts": [{"threads": "many"}]})
    assert threads_of(replica(tmp_path), Alone(), CPU) == 4


def test_small_networks_and_the_users_number_ask_nobody(tmp_path, cores, monkeypatch):
    monkeypatch.setattr(threads, "n_free_cores", lambda: pytest.fail("the cores were watched"))
    assert threads_of(replica(tmp_path, "64BARx2-1"), Alone(), CPU) == 1
    assert threads_of(replica(tmp_path), SimpleNamespace(size=2), CPU) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of(replica(tmp_path), Alone(), CPU) == 4  # torch was told 3 before
