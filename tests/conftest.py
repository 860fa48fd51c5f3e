"""Fixtures for every test: a small real pack, made by the command itself."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc.data.raw_csv import read_csv_table
from irnet_hpc.data.raw_table import file_text
from irnet_hpc.pack import store
from irnet_hpc.pack.writer import create_pack
from tests.data.http_server import FAST, Loopback

ROOT = Path(__file__).parents[1]
# A shell lets what it starts in the background ignore Ctrl-C, and so whatever the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Programs that tests start, ranks included, import the package and helpers of `tests`.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="session")
def alloys_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a pack of 600 alloys: 86 elemental fractions, two properties. Do not write to it."""
    folder = tmp_path_factory.mktemp("packs")
    command = (
        "--source alloys --rows 600 --features elements --name alloys-small --workers 1 --pack-dir"
    )
    subprocess.run(
        [sys.executable, "-m", "irnet_hpc.pack", *command.split(), folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder / "alloys-small.h5"


@pytest.fixture(scope="session")
def gaps_pack(alloys_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a pack of the alloys in which values are not reported. Do not write to it.

    30 % of mixing_enthalpy and 60 % of size_mismatch are missing, in some rows both.

    `copy` is mixing_enthalpy once more, and `trained` is reported by training rows only.
    """
    path, random = tmp_path_factory.mktemp("gaps") / "alloys-gaps.h5", np.random.default_rng(0)
    with (
        store.open_pack(alloys_pack) as pack,
        create_pack(path, pack.feature_labels, pack.n_rows) as writer,
    ):
        everything = slice(0, pack.n_rows)
        targets = {name: pack.y(name, everything) for name in pack.units}
        for name, part in (("mixing_enthalpy", 0.3), ("size_mismatch", 0.6)):
            targets[name][random.random(pack.n_rows) < part] = np.nan
        targets |= {
            "copy": targets["mixing_enthalpy"].copy(),
            "trained": np.arange(pack.n_rows, dtype=float),
        }
        targets["trained"][pack.n_train :] = np.nan
        units = pack.units | {"copy": "eV/atom", "trained": "1"}
        writer.append(pack.x(everything))
        counts = {"train": pack.n_train, "val": pack.n_val, "test": pack.n_test}
        identity = pack.identity | {"properties": units}
        writer.finish(
            pack.formulas(everything), pack.material_ids(everything), targets, counts, identity, {}
        )
    return path


@pytest.fixture(params=["oqmd", "mp", "jarvis", "aflow", "expt_gap"])
def real_formulas(request: pytest.FixtureRequest) -> list[str]:
    """Return the distinct formulas of a real table, sorted; skip the test without one."""
    if not os.environ.get("IRNET_DATA"):
        pytest.skip("needs real tables in $IRNET_DATA")
    path = Path(os.environ["IRNET_DATA"]) / f"{request.param}.csv.xz"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    return sorted(
        set(read_csv_table(file_text(path), request.param, (), lambda column: False).formula)
    )


@pytest.fixture
def pack_command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs `python -m irnet_hpc.pack` in an empty folder, as a user would.

    It may not use the network, unless a test says IRNET_OFFLINE="" for a server of its own.
    """

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess:
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
            "IRNET_OFFLINE": "1",
        }
        environment |= variables
        command = [sys.executable, "-m", "irnet_hpc.pack", *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )

    return run


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Loopback]]:
    """Return a function that starts a server; requests to it have short time limits."""
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)
    started = []

    def start(answer: Callable) -> Loopback:
        started.append(Loopback(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()
