"""Put our results on the published parts of a benchmark among those of its leaderboard.

leaderboards.csv has the published numbers. Unlike those of published.csv, they are for the rows of
our packs: a difference means something, if our runs used all rows. Each task says whether they did.
`benchmarks/leaderboard.py` makes the lines of Matbench.
"""

import csv
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.aggregate.task_results import Task, TaskResult

FOLDS = (0, 1, 2, 3, 4)
# benchmark -> rows in all, and test rows; the folds of Matbench share the rows
SIZES = {
    "crabnet:OQMD_Formation_Enthalpy": (341_700, 51_255),
    "crabnet:OQMD_Energy_per_atom": (341_700, 51_255),
    "crabnet:OQMD_Volume_per_atom": (341_700, 51_255),
    "crabnet:OQMD_Bandgap": (341_608, 51_242),
    "matbench:steels": (312, 312),
    "matbench:expt_gap": (4_604, 4_604),
    "matbench:jdft2d": (636, 636),
    "matbench:phonons": (1_265, 1_265),
    "matbench:dielectric": (4_764, 4_764),
    "matbench:log_gvrh": (10_987, 10_987),
    "matbench:log_kvrh": (10_987, 10_987),
    "matbench:perovskites": (18_928, 18_928),
    "matbench:mp_gap": (106_113, 106_113),
    "matbench:mp_e_form": (132_752, 132_752),
}
# Sources whose leaderboard also has models that see structures.
WITH_STRUCTURES = frozenset(SIZES) - {
    *("matbench:steels", "matbench:expt_gap"),
    *(name for name in SIZES if name.startswith("crabnet:")),
}


class Entry(NamedTuple):
    """A line of leaderboards.csv."""

    benchmark: str  # a source's name, e.g. matbench:steels
    target: str  # the property
    algorithm: str
    mae: float  # in the property's unit; for Matbench the mean over folds
    sd: float | None  # over folds
    source: str


class Leaderboard(NamedTuple):
    """The published numbers of a benchmark, and our results beside them."""

    benchmark: str
    task: Task
    entries: tuple[Entry, ...]  # the lowest MAE first
    chosen: TaskResult  # our result that val chooses
    differences: tuple[str, ...]  # ways in which our rows differ; empty: the numbers compare

    @property
    def place(self) -> int | None:
        """The place of our result among the published ones, from 1; None if it does not compare."""
        if self.differences:
            return None
        return 1 + sum(entry.mae < self.chosen.score.mae for entry in self.entries)


@functools.cache
def read_entries() -> tuple[Entry, ...]:
    """Read leaderboards.csv, which is part of the package."""
    with (Path(__file__).parent / "leaderboards.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Entry(
                line["benchmark"],
                line["property"],
                line["algorithm"],
                float(line["mae"]),
                float(line["sd"]) if line["sd"] else None,
                line["source"],
            )
            for line in csv.DictReader(file)
        )


def leaderboards_of(tasks: Iterable[Task]) -> list[Leaderboard]:
    """Find the tasks that have a leaderboard, in their order."""
    boards = []
    for task in tasks:
        source = str(task.best.score.runs[0].result.pack_identity.get("source", ""))
        entries = [entry for entry in read_entries() if is_part(entry, source, task.property)]
        if entries:
            boards.append(
                Leaderboard(
                    entries[0].benchmark,
                    task,
                    tuple(sorted(entries, key=lambda entry: entry.mae)),
                    task.best,
                    differences(task.best, entries[0].benchmark),
                )
            )
    return boards


def is_part(entry: Entry, source: str, name: str) -> bool:
    """Return True if a property of a source is tested on the rows of a published number.

    Joined tables of CrabNet test each property on its own published rows.
    """
    prefix, _, tables = source.partition(":")
    parts = {f"{prefix}:{table}" for table in tables.split("+")}
    return entry.benchmark in parts and entry.target == name


def differences(result: TaskResult, benchmark: str) -> tuple[str, ...]:
    """List the ways in which the rows of our runs differ from those of a leaderboard."""
    n_rows, n_test = SIZES[benchmark]
    runs = result.score.runs
    is_joint = "+" in str(runs[0].result.pack_identity.get("source", ""))
    found = []
    if benchmark.startswith("matbench:"):
        lacking = [fold for fold in FOLDS if fold not in result.splits]
        if lacking:
            found.append(f"no run on fold {', '.join(map(str, lacking))}")
        tested = {run.split: run.result.n_test for run in runs}
        n_tested = sum(tested.values()) if not lacking else n_test
        n_runs = {sum(run.split == fold for run in runs) for fold in result.splits}
        if len(n_runs) > 1:
            found.append("some folds have more seeds than others")
    else:
        n_tested = runs[0].result.n_test
    if n_tested != n_test:
        found.append(f"{n_tested:,} of {n_test:,} test rows")
    first = runs[0].result
    n_used = first.n_train + first.n_val + first.n_test
    if result.table.train_rows is not None or (n_used != n_rows and not is_joint):
        found.append(f"{first.n_train:,} training rows of fewer than all rows")
    if first.pack_identity.get("filters"):
        found.append("values were filtered")
    return tuple(found)
