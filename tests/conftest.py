"""Fixtures for every test: a small real pack, made by the command itself."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import FAST, Loopback

from irnet_hpc import raw_table

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def alloys_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a pack of 600 alloys: 86 elemental fractions, mixing_enthalpy and size_mismatch. Not to be written to."""
    folder = tmp_path_factory.mktemp("packs")
    command = "--source alloys --rows 600 --features elements --name alloys-small --workers 1 --pack-dir"
    subprocess.run(
        [sys.executable, "-m", "irnet_hpc.pack", *command.split(), folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder / "alloys-small.h5"


@pytest.fixture(params=["oqmd", "mp", "jarvis", "aflow", "expt_gap"])
def real_formulas(request: pytest.FixtureRequest) -> list[str]:
    """The different formulas of a real table, sorted; the test runs once a table, and is skipped where there is none."""
    if not os.environ.get("IRNET_DATA"):
        pytest.skip("needs real tables in $IRNET_DATA")
    path = Path(os.environ["IRNET_DATA"]) / f"{request.param}.csv.xz"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    return sorted(set(raw_table.read(path, request.param, (), lambda column: False).formula))


@pytest.fixture
def pack_command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs `python -m irnet_hpc.pack` in an empty folder, as a user would; returns what it printed and its status.

    It may not use the network, unless a test says IRNET_OFFLINE="" for a server of its own.
    """

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess:
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "IRNET_OFFLINE": "1"}
        environment |= variables
        command = [sys.executable, "-m", "irnet_hpc.pack", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Loopback]]:
    """Starts a server for an answering function; what is asked of it is asked for with little patience."""
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)
    started = []

    def start(answer: Callable) -> Loopback:
        started.append(Loopback(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()
