"""Fixtures of the tests of sweeps: a place, SLURM's commands, trainings that are commands."""

import os
import signal

import pytest

from irnet_hpc.sweep import cell_attempt
from tests.builders import write_result
from tests.runs.test_lease import start
from tests.sweep.stand_ins import HOLD, Place, Slurm


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("IRNET_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("IRNET_SITE", raising=False)
    place = Place(tmp_path)
    place.pack()
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)
    }  # `run` takes them over
    yield place
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def slurm(place, tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Slurm(folder)


@pytest.fixture
def stand_in(place, monkeypatch, tmp_path):
    """Replace trainings by commands that leave a prepared result, or by `stand_in[model]`."""
    commands = {}

    def train_command(entry, n_ranks, results, pack_dir):
        prepared = write_result(place.matrix, entry.cell, tmp_path / "prepared")
        return ["sh", "-c", commands.get(entry.cell.spec.model, f"cp {prepared} {entry.folder}")]

    monkeypatch.setattr(cell_attempt, "train_command", train_command)
    return commands


@pytest.fixture
def holder(place):
    """A process that trains plain-10, though no sweep has started it."""
    process = start(HOLD, place.run_folder("plain-10"))
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()
