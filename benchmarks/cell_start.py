"""Compare the start of a cell in the warm process of a worker with that in a new process.

python benchmarks/cell_start.py                    IRNet-17 on 3,000 of the embedded alloys
python benchmarks/cell_start.py --rounds 15        more often

The start runs from the order to train until the run's history.csv is begun, which is just before
the first step. The warm process is that of a worker (`python -m irnet_hpc.train.trainer`) and has
trained one cell of the pack; the new process is `python -m irnet_hpc.train`. They take turns, and
medians count.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = "{name: short, base: onecycle, batch: 64, norm_group: 64, epochs: 1}"
PROPERTY, NAME = "mixing_enthalpy", "alloys-3000"


def main() -> None:
    arguments = parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="cell-start-") as folder:
        place = Path(folder)
        pack = ["--source", "alloys", "--features", "elements", "--rows", "3000", "--name", NAME]
        command = [
            sys.executable,
            "-m",
            "irnet_hpc.pack",
            *pack,
            "--pack-dir",
            str(place / "packs"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        warm, new = [], []
        with Warm() as trainer:
            trainer.start_s(place, 0)
            for i in range(arguments.rounds):
                new.append(new_start_s(place, 2 * i + 1))
                warm.append(trainer.start_s(place, 2 * i + 2))
    print(f"{arguments.rounds} starts of each, in turn, on {machine()}")
    for name, seconds in (("new process", new), ("warm process", warm)):
        middle = statistics.median(seconds)
        print(f"{name:14} {middle:8.3f} s  ({min(seconds):.3f} to {max(seconds):.3f})")
    print(f"ratio          {statistics.median(new) / statistics.median(warm):8.1f}")


def options(place: Path, seed: int) -> list[str]:
    """Return the options of `train` for a cell."""
    model = ["--architecture", "irnet", "--depth", "17", "--recipe", RECIPE, "--seed", str(seed)]
    folders = ["--results", str(place / "results"), "--pack-dir", str(place / "packs")]
    return ["--pack", NAME, "--property", PROPERTY, *model, *folders]


def begun_s(place: Path, seed: int, began: float) -> float:
    """Wait until the history of a cell is begun. Returns the seconds since `began`."""
    while not list((place / "results").glob(f"*/*/*/*/*/seed{seed}/history.csv")):
        time.sleep(0.001)
    return time.monotonic() - began


def new_start_s(place: Path, seed: int) -> float:
    """Train a cell in a new process. Returns the seconds that its start took."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "irnet_hpc.train", *options(place, seed)],
        stdout=subprocess.DEVNULL,
    )
    seconds = begun_s(place, seed, began)
    assert process.wait() == 0
    return seconds


class Warm:
    """The warm process of a worker."""

    def __enter__(self) -> "Warm":
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "irnet_hpc.train.trainer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def start_s(self, place: Path, seed: int) -> float:
        """Train a cell. Returns the seconds that its start took."""
        log = place / f"{seed}.log"
        order = {"options": options(place, seed), "log": str(log), "threads": 1}
        began = time.monotonic()
        print(json.dumps(order), file=self.process.stdin, flush=True)
        seconds = begun_s(place, seed, began)
        answer = json.loads(self.process.stdout.readline())
        assert answer == {"status": 0}, log.read_text()
        return seconds


def machine() -> str:
    n_cores = len(os.sched_getaffinity(0))
    return f"{platform.node()}, {n_cores} cores, Python {platform.python_version()}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    return parser


if __name__ == "__main__":
    main()
