"""Put the runs of all folds of a table together, so that each row is predicted once.

A table that `pack --folds 5` has dealt to folds has a pack and a run for each fold, and each row is
a test row of exactly one of them. The test predictions of all folds are the out-of-fold predictions
of the whole table. They count as those of one run: its test rows are all rows of the table. If the
rows are dealt several times, each repeat makes one such run, and all of them have the same rows.
"""

import contextlib
import csv
import dataclasses
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from irnet_hpc.errors import UserError
from irnet_hpc.files import write_text
from irnet_hpc.runs.collect import FinishedRun, one_a_property
from irnet_hpc.runs.pack_identity import without_content_hash
from irnet_hpc.runs.predictions import read_predictions
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec, run_name

FILE = "out_of_fold.csv"
COLUMNS = ("material_id", "formula", "target", "prediction", "fold", "repeat")
RUN_COLUMNS = ("pack", "property", "model", "recipe", "protocol", "train_rows", "joint", "seed")


class JoinedRuns(NamedTuple):
    """Runs, in which the folds of each table are put together."""

    runs: list[FinishedRun]
    lacking: list[str]  # a sentence for each set of folds that is not complete; its runs are gone


def join_folds(runs: Iterable[FinishedRun]) -> JoinedRuns:
    """Replace the runs of all folds of a table by one run for each repeat.

    The folds of a set differ in nothing else: same model, recipe, protocol, seed and table. A set
    that lacks a fold is left out. A run that started from another run stays as it is, since the
    folds of its origin differ, too.

    Returns:
        The other runs, then the joined runs; and the sets that lack folds.
    """
    sets: dict[tuple, dict[int, FinishedRun]] = defaultdict(dict)
    others = []
    for run in runs:
        if run.split_identity.get("by") != "folds" or run.split is None or run.spec.start_from:
            others.append(run)
            continue
        repeat, fold = divmod(run.split, n_folds_of(run))
        for part in one_a_property(run):
            sets[(*_set_of(part), repeat)][fold] = part
    joined, lacking = [], []
    for (*_, repeat), folds in sets.items():
        first = next(iter(folds.values()))
        missing = sorted(set(range(n_folds_of(first))) - folds.keys())
        if missing:
            spec, numbers = first.spec, ", ".join(str(_number(first, repeat, k)) for k in missing)
            lacking.append(
                f"{base_name(spec.pack)}, {spec.property}, {spec.model}, {spec.recipe}, seed "
                f"{spec.seed}: no result of fold {numbers}"
            )
        else:
            joined.append(_joined([folds[k] for k in sorted(folds)], repeat))
    return JoinedRuns([*others, *joined], sorted(lacking))


def n_folds_of(run: FinishedRun) -> int:
    """Return to how many folds the table of a run was dealt."""
    n_folds = run.split_identity.get("n_folds")
    if isinstance(n_folds, bool) or not isinstance(n_folds, int) or n_folds < 2:
        raise UserError(f"{run.folder}: n_folds must be a whole number above 1, got {n_folds!r}")
    return n_folds


def _number(run: FinishedRun, repeat: int, fold: int) -> int:
    return repeat * n_folds_of(run) + fold


def base_name(pack: str) -> str:
    """Return the name that the packs of all folds of a table have in common."""
    # Imported here, since the module needs numpy, and tables without folds do not.
    from irnet_hpc.data.splits import name_of_folds

    return name_of_folds(pack)


def _set_of(run: FinishedRun) -> tuple:
    """Return what the folds of a set have in common."""
    identity = without_content_hash(run.result.pack_identity)
    identity["split"] = {name: run.split_identity[name] for name in ("by", "n_folds")}
    return (
        base_name(run.spec.pack),
        dataclasses.replace(run.spec, pack="any"),
        run.joint,
        json.dumps([identity, run.result.recipe], sort_keys=True),
    )


def _joined(folds: Sequence[FinishedRun], repeat: int) -> FinishedRun:
    """Make the run that stands for all folds of one repeat."""
    first = folds[0]
    name = base_name(first.spec.pack) + (f"-repeat{repeat}" if repeat else "")
    spec = dataclasses.replace(first.spec, pack=name)
    split = first.split_identity | {"seed": repeat}
    run = FinishedRun(_folder(first, spec), spec, first.result, first.joint, tuple(folds))
    result = dataclasses.replace(
        first.result,
        **_errors(folds),
        spec=dataclasses.asdict(spec),
        pack_identity=first.result.pack_identity | {"split": split},
        test_r2=_r2(run),
        n_train=round(_mean(folds, "n_train")),
        n_val=round(_mean(folds, "n_val")),
        best_epoch=None,
        epochs=None if first.result.epochs is None else round(_mean(folds, "epochs")),
        wall_time_s=math.fsum(fold.result.wall_time_s for fold in folds),
        device_hours=math.fsum(fold.result.device_hours for fold in folds),
        samples_per_s=None,
        attempts=[
            attempt
            for fold in folds
            if isinstance(fold.result.attempts, list)
            for attempt in fold.result.attempts
        ],
        chosen=None,
        optimism=None,
    )
    return run._replace(result=result)


def _folder(run: FinishedRun, spec: RunSpec) -> Path:
    """Return the folder beside those of the folds; a fold's own if that was moved elsewhere."""
    ending = run_name(run.trained)
    text = run.folder.as_posix()
    if not text.endswith(ending):
        return run.folder
    joint = dataclasses.replace(spec, property=run.joint) if run.joint else spec
    return Path(text.removesuffix(ending) + run_name(joint))


def _errors(folds: Sequence[FinishedRun]) -> dict[str, Any]:
    """Return the errors over the rows of all folds, in the property's unit."""

    def pooled(value: Callable[[RunResult], float | None]) -> float | None:
        values = [value(fold.result) for fold in folds]
        known = [number for number in values if number is not None]
        if len(known) < len(values):
            return None
        weights = [fold.result.n_test for fold in folds]
        total = math.fsum(n * number for n, number in zip(weights, known, strict=True))
        return total / sum(weights)

    square = pooled(lambda result: result.test_rmse**2)
    assert square is not None  # since each fold has an RMSE
    return {
        "n_test": sum(fold.result.n_test for fold in folds),
        "test_mae": pooled(lambda result: result.test_mae),
        "test_rmse": math.sqrt(square),
        "baseline_mae": pooled(lambda result: result.baseline_mae),
        "val_mae": pooled(lambda result: result.val_mae),
        "val_baseline_mae": pooled(lambda result: result.val_baseline_mae),
    }


def _mean(folds: Sequence[FinishedRun], field: str) -> float:
    return fmean(getattr(fold.result, field) or 0 for fold in folds)


def _r2(run: FinishedRun) -> float | None:
    """Return R2 over the rows of all folds; None if predictions are missing or do not vary."""
    try:
        arrays = read_predictions(run)
    except UserError:
        return None
    target = arrays["target"]
    total = float(((target - target.mean()) ** 2).sum())
    rest = float(((arrays["prediction"] - target) ** 2).sum())
    return 1 - rest / total if total else None


def write_out_of_fold(runs: Sequence[FinishedRun]) -> list[Path]:
    """Write the out-of-fold predictions of joined runs, a file for each table, model and seed.

    The file has a line for each row of the table and each repeat, sorted by repeat, formula and
    material; numbers are in the property's unit, and `fold` is the fold in which the row was test.

    Args:
        runs: Joined runs, as `join_folds` returns them; others are passed over.

    Returns:
        The files: FILE in the folder of the first repeat, or for a network of several properties
        `out_of_fold-<property>.csv` for each of them.

    Raises:
        UserError: If the predictions of a fold cannot be read.
    """
    files: dict[Path, list[FinishedRun]] = defaultdict(list)
    for run in sorted((run for run in runs if run.folds), key=lambda run: run.split or 0):
        base = dataclasses.replace(run.spec, pack=base_name(run.folds[0].spec.pack))
        name = f"out_of_fold-{run.spec.property}.csv" if run.joint else FILE
        files[_folder(run.folds[0], base) / name].append(run)
    for path, repeats in files.items():
        lines = (line for run in repeats for line in _lines(run))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, _csv(COLUMNS, lines))
    return sorted(files)


def out_of_fold_csv(runs: Iterable[FinishedRun]) -> str:
    """Return the out-of-fold predictions of all joined runs as one CSV; empty if there are none.

    Before the columns of `write_out_of_fold` it has those that tell runs apart (RUN_COLUMNS). A run
    whose predictions cannot be read is left out.
    """
    lines: list[tuple] = []
    for run in (run for run in runs if run.folds):
        spec = run.spec
        of_run = base_name(run.folds[0].spec.pack), spec.property, spec.model, spec.recipe
        with contextlib.suppress(UserError):  # the notes of the tables say why
            lines += [
                (*of_run, spec.protocol, spec.train_rows, run.joint, spec.seed, *line)
                for line in _lines(run)
            ]
    return _csv((*RUN_COLUMNS, *COLUMNS), lines) if lines else ""


def _lines(run: FinishedRun) -> Iterator[tuple]:
    """Yield the values of COLUMNS for each row of a joined run."""
    arrays = read_predictions(run)
    columns = [arrays[name].tolist() for name in COLUMNS[:5]]
    for line in zip(*columns, strict=True):
        yield (*line, run.split or 0)


def _csv(header: Sequence[str], lines: Iterable[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()


def chosen_on_val(runs: Iterable[FinishedRun]) -> list[FinishedRun]:
    """Put together what the best model on val predicts in each fold (nested selection).

    Within each fold, the model and recipe with the lowest MAE on val is chosen, and it predicts the
    test rows of the fold. No test row takes part in a choice, so the MAE is what a user may expect
    who chooses by val. For each seed and each repeat, the choice is among the trainings with this
    seed; a model that has no training with it takes part with its lowest seed.

    Args:
        runs: Joined runs, as `join_folds` returns them, on one property of one table under protocol
            honest; their features, models and recipes may differ.

    Returns:
        A joined run for each repeat and seed, whose `folds` are the chosen runs; empty unless there
        are two models or more to choose from. A model whose folds have other rows than those of
        most models, or no MAE on val, takes no part.
    """
    candidates: dict[tuple, dict[int, FinishedRun]] = defaultdict(dict)
    for run in runs:
        if run.folds and run.result.val_mae is not None:
            candidates[(run.split, *_model_of(run))][run.spec.seed] = run
    by_rows: dict[tuple, list[dict[int, FinishedRun]]] = defaultdict(list)
    for (repeat, *_), of_seed in sorted(candidates.items(), key=lambda item: str(item[0])):
        sizes = tuple(fold.result.n_test for fold in of_seed[min(of_seed)].folds)
        by_rows[repeat, sizes].append(of_seed)
    chosen = []
    for repeat in sorted({repeat for repeat, _ in by_rows}):
        models = max((by_rows[key] for key in by_rows if key[0] == repeat), key=len)
        if len(models) < 2:
            continue
        for seed in sorted({seed for of_seed in models for seed in of_seed}):
            rivals = [of_seed.get(seed, of_seed[min(of_seed)]) for of_seed in models]
            folds = [
                min((rival.folds[k] for rival in rivals), key=_val_mae)
                for k in range(len(rivals[0].folds))
            ]
            run = _joined(folds, repeat)
            folder = run.folder.with_name(f"chosen-on-val-seed{seed}-repeat{repeat}")
            chosen.append(run._replace(folder=folder))
    return chosen


def _model_of(run: FinishedRun) -> tuple[str, str, str]:
    """Return what tells two candidates apart: the features, the model and the training."""
    spec = dataclasses.replace(run.spec, pack="any", seed=0)
    features = json.dumps(run.result.pack_identity.get("features"))
    text = json.dumps([dataclasses.asdict(spec), run.result.recipe, run.joint], sort_keys=True)
    return features, run.spec.model, text


def _val_mae(run: FinishedRun) -> float:
    return math.inf if run.result.val_mae is None else run.result.val_mae
