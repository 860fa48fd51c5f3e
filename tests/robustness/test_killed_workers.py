"""Kill workers of a matrix at random moments and replace them: each cell is done once, as if alone.

    python -m pytest tests/robustness/test_killed_workers.py                      six kills
    IRNET_KILLS=120 python -m pytest tests/robustness/test_killed_workers.py -s   120

Three workers share a matrix. One of them at a time is killed by signal 9: either the worker alone,
which leaves the process behind that trains its cell, or all of its processes. A new worker takes
its place. At the end all are killed, and a single new worker does what is left. All processes are
real, and the results are compared bit for bit with those of a sweep without kills.
"""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from irnet_hpc.files import read_json
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.matrix.matrix import read_matrix
from tests.robustness.test_killed import TIMES, ended, start, visible

pytestmark = pytest.mark.slow
N = int(os.environ.get("IRNET_KILLS", "6"))
N_WORKERS = 3
QUICK = "{name: quick, base: onecycle, epochs: 40, batch: 64, norm_group: 32, precision: fp32}"
MATRIX = f"""
packs: [{{name: small, source: alloys, features: elements, rows: 600}}]
properties: [mixing_enthalpy]
models: ["64BARx2-32BAx2R-1", ridge]
recipes: [{QUICK}, grid]
seeds: {list(range(max(6, N // 2)))}
"""


def sweep(verb: str, matrix: Path, results: Path, *more: object) -> list:
    folders = ("--results", results, "--pack-dir", matrix.parent / "packs")
    return [sys.executable, "-m", "irnet_hpc.sweep", verb, matrix, *folders, *more]


def kill(worker: subprocess.Popen, whole: bool) -> None:
    """Kill a worker; with `whole`, also the processes that it has started."""
    family = [psutil.Process(worker.pid)]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += family[0].children(recursive=True)
    for process in family if whole else family[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    worker.wait(600)


def kill_often(
    matrix: Path, results: Path, n: int, moment_s: float, chance: random.Random
) -> Counter:
    """Kill workers `n` times, or until no cell is left. Returns the number of each kind."""
    kinds: Counter = Counter()
    workers = [start(sweep("work", matrix, results), results) for _ in range(N_WORKERS)]
    try:
        while kinds.total() < n:
            time.sleep(chance.uniform(0, moment_s))
            if any(worker.poll() == 0 for worker in workers):
                break
            assert all(worker.poll() is None for worker in workers), log_of(results)
            i = chance.randrange(N_WORKERS)
            whole = kinds.total() % 2 == 1
            kill(workers[i], whole)
            kinds["whole" if whole else "alone"] += 1
            workers[i] = start(sweep("work", matrix, results), results)
            cells = read_ledger(read_matrix(matrix, matrix.parent / "packs"), results).cells
            failed = [(cell.name, cell.detail) for cell in cells if cell.state == "failed"]
            assert not failed  # a killed worker is no failure of its cell
    finally:
        for worker in workers:
            if worker.poll() is None:
                kill(worker, whole=True)
    return kinds


def log_of(results: Path) -> str:
    return (results.parent / f"{results.name}.log").read_text()[-3000:]


def test_killed_workers_lose_nothing_and_do_no_cell_twice(tmp_path):
    matrix, quiet = tmp_path / "tiny.yaml", tmp_path / "quiet"
    matrix.write_text(MATRIX)
    seconds = ended(sweep("run", matrix, quiet, "--workers", 1), quiet)
    cells = [path.parent.relative_to(quiet) for path in quiet.rglob("result.json")]
    # Each worker lives for about the time of three cells, its start included.
    moment_s = 2 * seconds / len(cells)
    kinds: Counter = Counter()
    number = 0
    while kinds.total() < N:
        results, chance = tmp_path / f"results{number}", random.Random(number)
        kinds += kill_often(matrix, results, N - kinds.total(), moment_s, chance)
        ended(sweep("work", matrix, results), results)
        check(results, quiet, cells)
        number += 1
    print(f"\n{dict(kinds)} kills in {number} folders of {len(cells)} cells")


def check(results: Path, quiet: Path, cells: list[Path]) -> None:
    """Compare all cells with those of the quiet sweep; each must have been finished once."""
    done = {path.parent.relative_to(results) for path in results.rglob("result.json")}
    assert done == set(cells)
    for cell in cells:
        ours, theirs = results / cell, quiet / cell
        assert visible(ours) == visible(theirs)
        for name in visible(theirs):
            if name not in ("train.log", "result.json", "run.json", "history.csv"):
                assert (ours / name).read_bytes() == (theirs / name).read_bytes()
        one, two = (read_json(run / "result.json") for run in (ours, theirs))
        for result in (one, two):
            for point in (result.get("chosen") or {}).get("tried", ()):
                del point["seconds"]
        assert {name for name in two if one[name] != two[name]} <= TIMES
        log = (ours / "train.log").read_text(errors="replace")
        assert log.count("\nwrote ") == 1, log
        if (theirs / "history.csv").exists():
            lines = [
                [line.rpartition(",")[0] for line in (run / "history.csv").open()]
                for run in (ours, theirs)
            ]
            assert lines[0] == lines[1] and len(lines[0]) == 41  # every epoch once
