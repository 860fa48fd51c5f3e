"""Measure how many cells a second workers take from a board, with cells of no work.

python benchmarks/claims.py                               1 to 256 workers, 10,000 and 100,000 cells
python benchmarks/claims.py --workers 64 --cells 10000    one of them
python benchmarks/claims.py --folder /scratch/me          on your shared file system

Each worker is a process that takes a cell, records it as done, and takes the next. Every cell is
checked to have gone to exactly one worker. The time runs until the last cell is taken, without the
start of the processes. To measure workers on several hosts of a shared file system, start this on
each of them at the same time with the same --join NAME and add up the rates; the cells are then
shared, and each host checks only that it took none twice.
"""

import argparse
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.runs.lease import Leases
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.board import Board

NAME = "oqmd-magpie-elements/formation_energy/irnet-17/onecycle/honest/seed{}"


def main() -> None:
    arguments = parser().parse_args()
    print(f"{'workers':>8} {'cells':>8} {'claims/s':>9} {'seconds':>8}   on {machine()}")
    for n_cells in arguments.cells:
        for n_workers in arguments.workers:
            folder = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="claims-"))
            if arguments.join:
                folder.rmdir()
                folder = Path(arguments.folder or ".", f"claims-{arguments.join}")
            taken, seconds = claims(folder, n_workers, n_cells)
            twice = len(taken) - len(set(taken))
            all_or_some = "" if arguments.join else f" of {n_cells:,}"
            assert not twice, f"{twice} cells were taken twice"
            assert arguments.join or len(taken) == n_cells, f"{len(taken):,} cells were taken"
            print(
                f"{n_workers:>8} {n_cells:>8,} {len(taken) / seconds:>9,.0f} {seconds:>8.1f}   "
                f"{len(taken):,}{all_or_some} cells taken, none twice",
                flush=True,
            )
            if not arguments.join:
                shutil.rmtree(folder)


def claims(folder: Path, n_workers: int, n_cells: int) -> tuple[list[str], float]:
    """Let processes take all cells. Returns the names that they took, and the seconds."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(n_workers + 1)
    names = tuple(NAME.format(i) for i in range(n_cells))
    lists = [folder / f"taken-{os.getpid()}-{i}" for i in range(n_workers)]
    processes = [
        context.Process(target=work, args=(folder, names, path, barrier)) for path in lists
    ]
    for process in processes:
        process.start()
    barrier.wait()
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes)
    lines = [path.read_text().splitlines() for path in lists]
    # This process may wake up late, so the workers note when they began.
    began, last = min(float(words[0]) for words in lines), max(float(words[1]) for words in lines)
    return [name for words in lines for name in words[2:]], last - began


def work(folder: Path, names: tuple[str, ...], path: Path, barrier: Barrier) -> None:
    """Take cells until none is left; write when it began, the time of the last, and all names."""
    taken, last = [], 0.0
    seat = journal.begin(folder, "claims", "worker", process_name(os.getpid()))
    with Leases() as leases, Board(folder, "claims", seat) as board:
        leases.keep_touching(seat)
        barrier.wait()
        began = time.time()
        while (name := board.take(names)) is not None:
            last = time.time()
            taken.append(name)
            board.done(name)
        path.write_text("\n".join([repr(began), repr(last), *taken]) + "\n")


def machine() -> str:
    n_cores = len(os.sched_getaffinity(0))
    return f"{platform.node()}, {n_cores} cores, Python {platform.python_version()}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", help="where to put the board (default: the system's temporary)")
    parser.add_argument("--join", metavar="NAME", help="share one board with runs on other hosts")
    return parser


if __name__ == "__main__":
    main()
