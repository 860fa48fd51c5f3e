"""Build tables to pack, and start the processes that pack them."""

import contextlib
import csv
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.pack.store import verify

ROOT = Path(__file__).parents[2]
MPIRUN = ("mpirun", "-n", "2", "--oversubscribe")
METALS = [symbol for symbol in SYMBOLS[20:80] if symbol not in ("Kr", "Xe")]
# Of 6 rows each, the last of 4.
N_BLOCKS = 10
TABLE = """\
formula,formation_energy,band_gap
Fe2O3,-1.5,2.1
Fe4O6,-1.7,
NaN,,0.5
,-1,1
Xx2O3,-1,1
Fe-2O3,-1,1
D2O,-1,1
HeO,-1,1
MgO,,
Al,0,0
TiO2,-3,3
ZnO,-1.8,3.3
GaAs,-0.4,1.4
SiC,-0.3,2.4
CaO,7,
"""
needs_mpi = pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")


class Place:
    """A folder with a table of 58 oxides to pack; `oxides` is the pack.

    No process outlives the test.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "packs/oxides.h5"
        self.parts = folder / "packs/.oxides.parts"
        self.started: list[psutil.Process] = []
        self.write([f"{metal}O" for metal in METALS])

    def write(self, formulas: list[str]) -> None:
        """Write the table that is packed."""
        (self.folder / "oxides.csv").write_text(
            "formula,density\n"
            + "".join(f"{name},{5 + row % 3}\n" for row, name in enumerate(formulas))
        )

    def start(
        self, *options: object, launcher: tuple[str, ...] = (), row_s: float = 0.0, **variables
    ) -> subprocess.Popen:
        """Start the command, with feature sets that hang, crash or take `row_s` seconds a row."""
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT / 'tests/robustness/awkward'}:{ROOT}",
            "HOME": str(self.folder),
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "AWKWARD_LOG": str(self.folder / "log"),
            "AWKWARD_S": str(row_s),
        } | variables
        default = ("--source", "oxides.csv", "--name", "oxides")
        command = [*launcher, sys.executable, "-m", "irnet_hpc.pack", *default, *map(str, options)]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(psutil.Process(process.pid))
        return process

    def pack(self, *options: object, **how) -> subprocess.CompletedProcess:
        """Run the command to its end."""
        process = self.start(*options, **how)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def computed(self) -> Counter[str]:
        """Count how often each formula was computed."""
        return Counter((self.folder / "log").read_text().split())

    def finished(self) -> dict[str, int]:
        """Map each finished block to its inode, which changes if it is written again."""
        return {path.name: path.stat().st_ino for path in self.parts.glob("[0-9]*.part")}

    def kill_when(self, n_parts: int, process: subprocess.Popen, victim=None) -> None:
        """Kill a process with signal 9 once `n_parts` blocks are there.

        `victim` picks it from the descendants; None: the process itself.
        """
        wait_for(lambda: len(self.finished()) >= n_parts)
        assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        (victim(family) if victim else psutil.Process(process.pid)).kill()
        if not victim:
            wait_for(
                lambda: (
                    not any(child.is_running() and child.status() != "zombie" for child in family)
                )
            )

    def rejected(self) -> dict[str, tuple[str, str]]:
        """Read the rejected rows: formula -> reason and detail."""
        with self.path.with_name("oxides.rejected.csv").open() as file:
            return {row["formula"]: (row["reason"], row["detail"]) for row in csv.DictReader(file)}

    def end(self) -> None:
        """Kill all processes that were started."""
        for process in self.started:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in [*process.children(recursive=True), process]:
                    child.kill()


def wait_for(condition, limit_s: float = 600) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def worker(family: list[psutil.Process]) -> psutil.Process:
    """Pick a worker process."""
    return next(child for child in family if "spawn_main" in " ".join(child.cmdline()))


def rank_1(family: list[psutil.Process]) -> psutil.Process:
    """Pick rank 1 of an MPI launch."""
    return next(child for child in family if child.environ().get("OMPI_COMM_WORLD_RANK") == "1")


def undisturbed_hash(place: Place, features: str) -> str:
    """Return the content hash of the pack that an undisturbed process makes."""
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, place, "path", place.path)
        done = place.pack("--features", features, "--pack-dir", "undisturbed")
        assert done.returncode == 0, done.stderr
    return verify(place.folder / "undisturbed/oxides.h5")
