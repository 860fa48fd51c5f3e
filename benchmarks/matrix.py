"""Compare `sweep run` of a matrix with that of another version, as whole processes side by side.

    git worktree add ../base 9f999ca
    python benchmarks/matrix.py --base ../base                 # an hour on 2 free cores
    python benchmarks/matrix.py --base ../base --matrix mixed --rounds 1
    python benchmarks/matrix.py --share results --cores 2      # of a sweep that has ended

`networks`: 24 cells, IRNets, SRNets and plain networks of 17 layers on 3,000 of the embedded
alloys, two properties, four seeds. `mixed`: 60 classical cells and 20 networks on the same rows.
Each version packs for itself before it is timed; the two take turns, and every run begins with an
empty results folder. Times are medians of --rounds with the minimum and maximum; the ratio is that
of the medians, beside the processor time of all processes. Then every cell is trained once more
alone (`--workers 1`), with as many threads as its result states: predictions and weights must be
equal to the bit. `--share` reads, from a results folder, the share of the core-time up to the start
of the last cell in which steps were trained.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from irnet_hpc.console import exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json

ROOT = Path(__file__).parents[1]
PACK = "packs: [{name: alloys-3000, source: alloys, features: elements, rows: 3000}]\n"
RECIPE = "{name: small, base: onecycle, batch: 64, norm_group: 64, epochs: %d}"
END = "resources: {memory_gb: 2, minutes: 30}\npack_resources: {memory_gb: 2}\n"
BOTH = "properties: [mixing_enthalpy, size_mismatch]\n"
MATRICES = {
    "networks": PACK
    + BOTH
    + "models: [{architectures: [plain, srnet, irnet], depths: [17]}]\n"
    + f"recipes: [{RECIPE}]\nseeds: [0, 1, 2, 3]\n{END}",
    "mixed": PACK
    + BOTH
    + "models: [plain-17, irnet-17, ridge, svr, decision_tree, bagging, extra_trees, "
    + "random_forest]\n"
    + f"recipes: [{RECIPE}, grid]\ntrain_rows: [400, 800, 1200, 1600, 2000]\n{END}",
}


class Side(NamedTuple):
    """One version of the package, with the packs that it has built."""

    name: str
    root: Path
    packs: Path


class Timing(NamedTuple):
    """Seconds of one run: by the wall clock, and of the processor over all its processes."""

    wall_s: float
    processor_s: float


def sweep(side: Side, matrix: Path, results: Path, *options: str, **environment: str) -> Timing:
    """Run a matrix with a version of the package, from the start of the process to its end.

    Raises:
        UserError: The run did not end well; the message quotes the end of its output.
    """
    command = [sys.executable, "-m", "irnet_hpc.sweep", "run", str(matrix)]
    command += ["--results", str(results), "--pack-dir", str(side.packs), *options]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with subprocess.Popen(
        command,
        cwd=side.root,
        env=os.environ | {"PYTHONPATH": str(side.root)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate()
        except KeyboardInterrupt:
            # It ends its trainings itself, which it could not if it were killed.
            process.terminate()
            raise
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise UserError(f"{side.name}: status {process.returncode}: {output[-2000:]}")
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timing(wall_s, processor_s)


def pack(side: Side) -> None:
    """Build a version's packs, as its `sweep run` would."""
    options = ["--source", "alloys", "--features", "elements", "--rows", "3000"]
    place = ["--name", "alloys-3000", "--pack-dir", str(side.packs)]
    subprocess.run(
        [sys.executable, "-m", "irnet_hpc.pack", *options, *place],
        cwd=side.root,
        env=os.environ | {"PYTHONPATH": str(side.root)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def cells(results: Path) -> Iterator[tuple[str, Path]]:
    """List the finished cells: the name below the results, and the folder."""
    for path in sorted(results.rglob("result.json")):
        yield str(path.parent.relative_to(results)), path.parent


def n_threads(folder: Path) -> int:
    """Return the threads with which a cell was trained. Raises UserError if it does not say."""
    attempts = read_json(folder / "result.json")["attempts"] or [{}]
    if not (found := attempts[-1].get("threads")):
        raise UserError(f"{folder} does not state its threads")
    return int(found)


def differences(results: Path, alone: Path) -> list[str]:
    """List the cells whose predictions or weights are not, to the bit, those of the cell alone."""
    found = []
    for name, folder in cells(results):
        other = alone / name
        with (
            np.load(folder / "test_predictions.npz") as ours,
            np.load(other / "test_predictions.npz") as theirs,
        ):
            same = all(ours[key].tobytes() == theirs[key].tobytes() for key in theirs.files)
        for weights in folder.glob("model.safetensors"):
            same = same and weights.read_bytes() == (other / weights.name).read_bytes()
        if not same:
            found.append(name)
    return found


def check_alone(side: Side, matrix: Path, results: Path, folder: Path) -> tuple[int, list[str]]:
    """Train every cell alone, with the threads that its result states.

    Returns:
        The number of cells, and those whose numbers differ.
    """
    by_threads: dict[int, list[str]] = {}
    for name, path in cells(results):
        by_threads.setdefault(n_threads(path), []).append(name)
    differing = []
    for threads, names in by_threads.items():
        alone = folder / f"alone-{threads}"
        # Cells of other numbers of threads count as done, so that they are not trained again.
        shutil.copytree(results, alone, ignore=shutil.ignore_patterns(".sweep"))
        for name in names:
            shutil.rmtree(alone / name)
        sweep(side, matrix, alone, "--workers", "1", OMP_NUM_THREADS=str(threads))
        differing += [name for name in differences(results, alone) if name in names]
    return sum(map(len, by_threads.values())), differing


def share_of_training(results: Path, n_cores: int) -> tuple[float, float, int]:
    """Return the share of core-time in which steps were trained, until the last cell started.

    It begins when the sweep wrote its first journal. A cell trains for the seconds of its history,
    up to the last change of that file.

    Args:
        results: The folder of results of one sweep of networks of one rank.
        n_cores: The cores on which one cell at a time was trained.

    Returns:
        The share, the seconds that it is a share of (on each core), and the number of cells.
    """
    journals = (results / ".sweep").glob("[0-9]*.jsonl")
    heads = [json.loads(path.read_text().splitlines()[0]) for path in journals]
    times = [datetime.fromisoformat(head["time"]).timestamp() for head in heads]
    spans = []
    for _, folder in cells(results):
        history = folder / "history.csv"
        seconds = float(history.read_text().splitlines()[-1].rpartition(",")[2])
        end = history.stat().st_mtime
        spans.append((end - seconds, end))
    if not (spans and times):
        raise UserError(f"--share needs finished cells of a sweep below {results}, got none")
    began = min(times)
    last = max(start for start, _ in spans)
    trained = sum(max(0.0, min(end, last) - max(start, began)) for start, end in spans)
    return trained / (n_cores * (last - began)), last - began, len(spans)


def spread(values: Sequence[float]) -> str:
    """Format the median of seconds, with the minimum and maximum in brackets."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def compare(arguments: argparse.Namespace, folder: Path) -> bool:
    """Time both versions and print the comparison. Returns False if a cell's numbers differ."""
    sides = [
        Side(name, root.resolve(), folder / f"packs-{name}")
        for name, root in (("base", arguments.base), ("ours", ROOT))
    ]
    for side in sides:
        pack(side)
    is_equal = True
    print("matrix | cells | base, s | ours, s | ratio | processor, s: base, ours, ratio")
    print("---|---|---|---|---|---")
    for name in arguments.matrix or MATRICES:
        matrix = folder / f"{name}.yaml"
        matrix.write_text(MATRICES[name] % arguments.epochs)
        timings: dict[str, list[Timing]] = {side.name: [] for side in sides}
        for i in range(arguments.rounds):
            # The one that begins takes turns, too.
            for side in sides if i % 2 == 0 else sides[::-1]:
                results = folder / f"{name}-{side.name}-{i}"
                timings[side.name].append(sweep(side, matrix, results))
        walls = {key: [one.wall_s for one in some] for key, some in timings.items()}
        used = {key: [one.processor_s for one in some] for key, some in timings.items()}
        ratios = [
            statistics.median(some["base"]) / statistics.median(some["ours"])
            for some in (walls, used)
        ]
        ours = folder / f"{name}-ours-0"
        n_cells = len(list(cells(ours)))
        print(
            f"{name} | {n_cells} | {spread(walls['base'])} | {spread(walls['ours'])} | "
            f"{ratios[0]:.2f} | {spread(used['base'])}, {spread(used['ours'])}, {ratios[1]:.2f}",
            flush=True,
        )
        if arguments.alone:
            n_checked, differing = check_alone(sides[1], matrix, ours, folder / f"{name}-alone")
            print(f"{name}: {n_checked - len(differing)} of {n_checked} cells equal to the bit")
            print(*differing, sep="\n", end="\n" if differing else "", flush=True)
            is_equal = is_equal and not differing
    return is_equal


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, or read a share, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, help="checkout of the version to compare with")
    parser.add_argument("--matrix", action="append", choices=MATRICES, help="default: both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8, help="of each network (default: 8)")
    parser.add_argument(
        "--no-alone", action="store_false", dest="alone", help="do not train the cells once more"
    )
    parser.add_argument("--share", type=Path, metavar="RESULTS", help="only read this share")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args(argv)
    if arguments.share:
        share, seconds, n_cells = share_of_training(arguments.share, arguments.cores)
        print(f"{share:.3f} of {arguments.cores} x {seconds:.0f} s in steps; {n_cells} cells")
        return 0
    if not (arguments.base and (arguments.base / "irnet_hpc").is_dir()):
        raise UserError(f"--base must be a checkout of the package, got {arguments.base}")
    if arguments.rounds < 1:
        raise UserError(f"--rounds must be 1 or more, got {arguments.rounds}")
    print(f"{platform.processor() or platform.machine()}, {arguments.cores} cores, ", end="")
    print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        return 0 if compare(arguments, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(exit_status(main))
