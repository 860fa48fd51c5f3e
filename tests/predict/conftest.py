"""Fixtures of prediction: two seeds of one network, and the command."""

import csv
import io
from pathlib import Path

import pytest

from irnet_hpc.console import exit_status
from irnet_hpc.predict import cli as predict
from tests.predict.builders import train_one


@pytest.fixture(scope="session")
def results(alloys_pack, tmp_path_factory) -> Path:
    """Return a folder of results: two seeds of one network on elemental fractions."""
    folder = tmp_path_factory.mktemp("predict-results")
    for seed in (0, 1):
        train_one(alloys_pack, folder, seed=seed)
    return folder


@pytest.fixture(scope="session")
def runs(results) -> list[Path]:
    """Return the folders of the two runs."""
    return sorted(path.parent for path in results.rglob("result.json"))


@pytest.fixture
def ask(alloys_pack, monkeypatch, capfd):
    """Return a function that runs the command: status, rows of the list, and stderr."""
    monkeypatch.setenv("IRNET_PACKS", str(alloys_pack.parent))

    def run(*arguments: object) -> tuple[int, list[dict[str, str]], str]:
        capfd.readouterr()  # drops what was logged before
        status = exit_status(lambda: predict.main([*map(str, arguments), "-o", "-"]))
        out, err = capfd.readouterr()
        return status, list(csv.DictReader(io.StringIO(out))), err

    return run
