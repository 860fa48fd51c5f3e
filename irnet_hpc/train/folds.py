"""Find the packs of all folds of a table, so that one command trains on all of them."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from irnet_hpc.data.splits import name_of_folds
from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import open_pack, pack_path
from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.folds import join_folds, write_out_of_fold
from irnet_hpc.train.finish import REMEDY
from irnet_hpc.train.request import TrainRequest
from irnet_hpc.train.run import Run


def over_folds(request: TrainRequest, pack_dir: str | Path | None) -> list[TrainRequest]:
    """Return the request for each fold, if its pack is the name of a set of folds.

    Args:
        request: The request. Its pack is a pack, or a name such as `mine-magpie-folds5`, which is
            that of the packs `mine-magpie-folds5-fold0` and so on without their last part.
        pack_dir: The folder of packs that are given by name.

    Raises:
        UserError: If the pack of a fold is missing.
    """
    path = pack_path(request.pack, pack_dir)
    if path.exists():
        return [request]
    numbered = {
        int(match[1]): other
        for other in path.parent.glob("*.h5")
        if name_of_folds(other.stem) == path.stem
        and (match := re.search(r"-folds[0-9]+-fold([0-9]+)(?=-|$)", other.stem))
    }
    if not numbered:
        return [request]  # it does not exist, which is reported when it is opened
    with open_pack(next(iter(numbered.values()))) as pack:
        n_folds = int(pack.identity["split"].get("n_folds", 1))
    n_repeats = max(numbered) // n_folds + 1
    missing = sorted(set(range(n_repeats * n_folds)) - numbered.keys())
    if missing:
        raise UserError(
            f"{path.stem} lacks the pack of fold {', '.join(map(str, missing))}, which "
            f"`python -m irnet_hpc.pack --folds {n_folds}` makes with the options of the others"
        )
    return [dataclasses.replace(request, pack=str(numbered[number])) for number in sorted(numbered)]


def put_together(runs: Sequence[Run]) -> list[str]:
    """Write the out-of-fold predictions of finished runs, and say in a line how good they are.

    Args:
        runs: The runs of all folds. Those that started from another run are left out, since the
            folds of their origins differ.

    Raises:
        UserError: If the predictions of a fold cannot be read.
    """
    finished = [
        FinishedRun(run.folder.path, run.spec, result)
        for run in runs
        if (result := run.folder.result())
    ]
    joined = [run for run in join_folds(finished).runs if run.folds]
    files = write_out_of_fold(joined)
    lines = []
    for run in joined:
        result, n_folds = run.result, len(run.folds)
        again = f", repeat {run.split}" if run.split else ""
        seed = f", seed {run.spec.seed}" if run.spec.seed else ""
        lines.append(
            f"{run.spec.property}, {run.spec.model}{seed}: MAE {result.test_mae:.4g} {result.unit} "
            f"(baseline {result.baseline_mae:.4g}) out of {n_folds} folds, {result.n_test:,} rows"
            f"{again}"
        )
        if result.test_mae > result.baseline_mae:
            lines.append(f"predicting the median of the training rows is better; {REMEDY}")
    return [*lines, *(f"wrote {path}" for path in files)]
