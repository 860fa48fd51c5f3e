"""Choose the runs on Matbench's tasks, have them recorded officially, and compare the scores.

A file holds one algorithm: a model with its features, recipe, start and seed, on every task of
which it has all five folds. So nothing is chosen with the help of test rows.
"""

import gzip
import json
import logging
import math
import os
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from irnet_hpc.aggregate.matbench import record
from irnet_hpc.aggregate.matbench.environment import matbench_python
from irnet_hpc.aggregate.task_results import Task, TaskResult
from irnet_hpc.aggregate.words import model_words
from irnet_hpc.data.benchmarks import CLASSIFICATIONS, MATBENCH, MATBENCH_TASKS, N_FOLDS
from irnet_hpc.data.download import wheels
from irnet_hpc.data.download.wheel_tables import Row, task_rows
from irnet_hpc.errors import UserError
from irnet_hpc.files import replacing
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.predictions import read_predictions

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)
LIMIT_S = 3600  # all tasks take minutes
# Relative: our MAE is of float64, that of the stored predictions and targets of what they keep.
RTOL = 1e-5


class Algorithm(NamedTuple):
    """Name the algorithm whose predictions one file has."""

    model: str  # such as irnet-17
    words: str  # the model in words
    features: str
    training: str  # the recipe and the start, in words
    train_rows: int | None  # None: all
    seed: int

    @property
    def label(self) -> str:
        """The algorithm in words."""
        rows = "" if self.train_rows is None else f", {self.train_rows:,} training rows"
        return f"{self.words}, {self.features}, {self.training}{rows}, seed {self.seed}"


class Plan(NamedTuple):
    """The runs that will be recorded."""

    folds: dict[Algorithm, dict[str, dict[int, FinishedRun]]]  # algorithm -> task -> fold -> run
    lacking: tuple[str, ...]  # a sentence for each task of an algorithm that has not all folds


class OfficialScore(NamedTuple):
    """The scores of a task, as Matbench's package computes them. Errors are in `unit`."""

    task: str  # such as steels
    unit: str
    mae: float  # mean over the folds
    sd: float  # over the folds, divided by their number, as in Matbench's leaderboard
    by_composition: bool  # a task on structures, of which only the formulas were used


class OfficialFile(NamedTuple):
    """A file that Matbench's package has written and read back."""

    path: Path
    algorithm: Algorithm
    scores: tuple[OfficialScore, ...]

    @property
    def line(self) -> str:
        """The file and its scores in one line."""
        scores = ", ".join(
            f"{one.task}{' (composition only)' * one.by_composition} "
            f"{one.mae:.5g} ± {one.sd:.2g} {one.unit}"
            for one in self.scores
        )
        return (
            f"wrote {self.path} and .gz: {self.algorithm.label}; MAE by "
            f"{wheels.MATBENCH.requirement}, equal to ours: {scores}"
        )


def plan_matbench(tasks: Iterable[Task]) -> Plan:
    """Find the algorithms that have all folds of a task of Matbench.

    Args:
        tasks: The tasks of a report; what must not be compared (stale, selected on test) is not in
            them.

    Raises:
        UserError: If there is none; it says which folds are missing.
    """
    known: dict[tuple[Algorithm, str], dict[int, FinishedRun]] = defaultdict(dict)
    for task in tasks:
        for result in task.results:
            if name := _task_of(result, task.property):
                for run in result.score.runs:
                    if run.split is not None:
                        known[_algorithm(result, run), name][run.split] = run
    if not known:
        raise UserError(
            f"--matbench needs results of protocol honest on packs of {MATBENCH}TASK, and there "
            f"are none; tasks: {', '.join(MATBENCH_TASKS)}"
        )
    plan: dict[Algorithm, dict[str, dict[int, FinishedRun]]] = defaultdict(dict)
    lacking = []
    for (algorithm, name), runs in known.items():
        if missing := [str(fold) for fold in range(N_FOLDS) if fold not in runs]:
            folds = f"fold{'s' * (len(missing) > 1)} {', '.join(missing)}"
            lacking.append(f"{MATBENCH}{name}, {algorithm.label}: no result of {folds}")
        else:
            plan[algorithm][name] = runs
    if not plan:
        raise UserError(
            f"a result file of Matbench needs all {N_FOLDS} folds of a task; {'; '.join(lacking)}"
        )
    return Plan(dict(plan), tuple(lacking))


def _task_of(result: TaskResult, name: str) -> str:
    """Return the task of Matbench that a result is of; empty if it is of none."""
    identity = result.score.runs[0].result.pack_identity
    prefix, _, task = str(identity.get("source", "")).rpartition(":")
    if f"{prefix}:" != MATBENCH or task not in MATBENCH_TASKS:
        return ""
    return task if MATBENCH_TASKS[task].property == name else ""


def _algorithm(result: TaskResult, run: FinishedRun) -> Algorithm:
    model = str(result.model)
    return Algorithm(
        model,
        model_words(result.model),
        result.features,
        f"{result.table.recipe_label}{result.table.origin_words}",
        result.table.train_rows,
        run.spec.seed,
    )


def write_matbench(plan: Plan, folder: Path) -> list[OfficialFile]:
    """Write a result file for each algorithm, in Matbench's own format and by its own package.

    Args:
        plan: The runs.
        folder: Below it, each algorithm gets a folder with `results.json`, as Matbench's package
            writes and reads it, and `results.json.gz`, as its repository keeps it.

    Returns:
        The files, after Matbench's loader has read them and its MAE was compared with ours.

    Raises:
        UserError: If the package cannot be installed, predictions are missing or not those of the
            official rows, Matbench's MAE is not ours, or `folder` is a file. Then no file is
            written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--matbench must be a folder, got the file {folder}")
    names = sorted({name for folds in plan.folds.values() for name in folds})
    wheel = wheels.obtain_wheels([wheels.CRABNET])[wheels.CRABNET]
    tables = {name: task_rows(name, wheel) for name in names}
    requests: list[dict[str, Any]] = [
        {
            "metadata": _metadata(algorithm, tasks),
            "tasks": {
                _official(name): {
                    str(fold): _fold(name, run, tables[name]) for fold, run in runs.items()
                }
                for name, runs in tasks.items()
            },
        }
        for algorithm, tasks in plan.folds.items()
    ]
    with tempfile.TemporaryDirectory(prefix="irnet-matbench-") as temporary:
        paths = [Path(temporary) / f"{number}.json" for number in range(len(requests))]
        for request, path in zip(requests, paths, strict=True):
            request["path"] = str(path)
        targets = {
            _official(name): [[formula, float(value)] for formula, value in rows]
            for name, rows in tables.items()
        }
        answers = _record({"tables": targets, "files": requests}, Path(temporary))
        scores = [
            _compared(tasks, answer)
            for tasks, answer in zip(plan.folds.values(), answers, strict=True)
        ]
        written = []
        names_of = _folder_names(list(plan.folds))
        for algorithm, path, score in zip(plan.folds, paths, scores, strict=True):
            target = folder / names_of[algorithm] / "results.json"
            _place(path.read_bytes(), target)
            written.append(OfficialFile(target, algorithm, score))
    return written


def _official(task: str) -> str:
    return f"matbench_{task}"


def _metadata(algorithm: Algorithm, tasks: Iterable[str]) -> dict[str, Any]:
    """Describe the algorithm, for the part of the file that is free."""
    from irnet_hpc import __version__

    return {
        "software": f"irnet_hpc {__version__}",
        "algorithm": algorithm.label,
        "model": algorithm.model,
        "features": algorithm.features,
        "training": algorithm.training,
        "seed": algorithm.seed,
        "inputs": "compositions only, also in tasks on structures",
        "selection": "on a ninth of a fold's training rows, by a hash of the formula",
        "tasks": sorted(tasks),
        "tasks_left_out": "networks here predict no classes: " + ", ".join(CLASSIFICATIONS),
    }


def _fold(task: str, run: FinishedRun, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the predictions of a run by official id, and its parameters."""
    import numpy as np

    arrays = read_predictions(run)
    ids = arrays["material_id"].tolist()
    _check_targets(task, run, ids, arrays["target"], rows)
    result = run.result
    return {
        "predictions": dict(
            zip(ids, arrays["prediction"].astype(np.float64).tolist(), strict=True)
        ),
        "params": {
            "key": result.key,
            "n_train": result.n_train,
            "n_val": result.n_val,
            "val_mae": result.val_mae,
            "best_epoch": result.best_epoch,
            "point": result.chosen and result.chosen.get("point"),
        },
    }


def _check_targets(
    task: str, run: FinishedRun, ids: Sequence[str], targets: "np.ndarray", rows: Sequence[Row]
) -> None:
    """Raise UserError unless rows have official ids, and the targets that the ids number."""
    import numpy as np

    found = [re.fullmatch(rf"mb-{task.replace('_', '-')}-(\d+)", own) for own in ids]
    numbers = np.array([int(match[1]) - 1 if match else -1 for match in found])
    if len(set(ids)) < len(ids) or numbers.min() < 0 or numbers.max() >= len(rows):
        raise UserError(
            f"{run.folder}: the test rows must have the official ids of {_official(task)}, each "
            f"once, got {ids[0]!r} and {len(ids) - 1:,} others"
        )
    official = np.array([float(value) for _, value in rows])[numbers]
    if not np.allclose(targets, official, rtol=1e-6, atol=0):
        own = ids[int(np.abs(targets - official).argmax())]
        raise UserError(f"{run.folder}: the target of {own} is not the official one")


def _record(request: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Run record.py in Matbench's environment, and return its answer."""
    asked, answered = folder / "request.json", folder / "answer.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    python = matbench_python()
    n_files = len(request["files"])
    logger.info(
        f"recording {n_files} algorithm{'s' * (n_files > 1)} with {wheels.MATBENCH.requirement}"
    )
    try:
        done = subprocess.run(
            [str(python), "-I", record.__file__, str(asked), str(answered)],
            env={**os.environ, "MATMINER_DATA": str(folder)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{wheels.MATBENCH.requirement} did not record within an hour; give --matbench fewer "
            "results"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]
        raise UserError(
            f"{wheels.MATBENCH.requirement} did not record the predictions: {last:.500}; if its "
            f"environment is damaged, remove {python.parents[1]}, which is then made again"
        )
    return json.loads(answered.read_text(encoding="utf-8"))


def _compared(
    tasks: Mapping[str, Mapping[int, FinishedRun]], answer: Mapping[str, Any]
) -> tuple[OfficialScore, ...]:
    """Return the scores of a file; raise UserError if an MAE is not ours."""
    scores = []
    for name, runs in tasks.items():
        official, table = answer[_official(name)], MATBENCH_TASKS[name]
        for fold, run in runs.items():
            ours, theirs = run.result.test_mae, official["folds"][fold]
            if not math.isclose(ours, theirs, rel_tol=RTOL):
                raise UserError(
                    f"{run.folder}: the test MAE must be that of {wheels.MATBENCH.requirement}, "
                    f"{theirs:.9g}, got {ours:.9g} {run.result.unit}"
                )
        unit = table.units[table.property]
        scores.append(
            OfficialScore(name, unit, official["mae"], official["sd"], not table.of_formula)
        )
    return tuple(scores)


def _folder_names(algorithms: Sequence[Algorithm]) -> dict[Algorithm, str]:
    """Name a folder for each algorithm; a number tells equal names apart."""
    names: dict[Algorithm, str] = {}
    for one in algorithms:
        rows = [] if one.train_rows is None else [f"n{one.train_rows}"]
        parts = [one.model, one.features, one.training, *rows, f"seed{one.seed}"]
        name = re.sub(r"[^A-Za-z0-9_.+=]+", "-", "-".join(parts))
        taken = set(names.values())
        places = (name if n == 1 else f"{name}-{n}" for n in range(1, len(algorithms) + 1))
        names[one] = next(place for place in places if place not in taken)
    return names


def _place(body: bytes, target: Path) -> None:
    """Write results.json, and the same compressed."""
    with replacing(target) as temporary:
        temporary.write_bytes(body)
    with replacing(target.with_name(f"{target.name}.gz")) as temporary:
        temporary.write_bytes(gzip.compress(body, mtime=0))
