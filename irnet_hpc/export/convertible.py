"""Refuse models that ONNX cannot express, and name the best of the same results that it can."""

import re
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from irnet_hpc.data.splits import name_of_folds
from irnet_hpc.errors import UserError
from irnet_hpc.predict.best_run import is_kept
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec, run_name
from irnet_hpc.train.model_file import finished_spec

# The models that skl2onnx 1.20 converts. It raises an error for the boosted trees of scikit-learn
# 1.9, and TabM is no model of scikit-learn.
CONVERTED = (
    *("linear", "ridge", "elastic_net", "sgd", "svr", "decision_tree", "adaboost", "bagging"),
    *("extra_trees", "random_forest"),
)


def check_converted(runs: Sequence[Path], file: str | Path) -> None:
    """Check that the models of all runs can be written as ONNX, before any of them is read.

    Args:
        runs: The folders of the runs.
        file: The file to write, for the command in the message.

    Raises:
        UserError: If a run has not finished, or its model is of a kind that is not converted.
    """
    for run in runs:
        folder, spec, result = finished_spec(run)
        if not _is_converted(spec):
            raise UserError(
                f"a classical model that is exported must be one of {', '.join(CONVERTED)}, got "
                f"{spec.architecture}, which skl2onnx does not convert"
                f"{_instead(folder, spec, result, file)}"
            )


def _is_converted(spec: RunSpec) -> bool:
    return not spec.is_classical or spec.architecture in CONVERTED


def _instead(folder: Path, spec: RunSpec, result: RunResult, file: str | Path) -> str:
    """Name the model with the lowest val MAE that can be exported, with the command.

    It must have the same pack, or the folds of the same table, and the same property and protocol.
    Returns an empty text if the results of the run are not found, or have no such model.
    """
    name = Path(run_name(spec))
    if folder.resolve().parts[-len(name.parts) :] != name.parts:
        return ""
    results = folder.resolve().parents[len(name.parts) - 1]
    # The command names the results as the user did, if the run's folder was given in full.
    shown = folder.parents[len(name.parts) - 1] if len(folder.parts) >= len(name.parts) else results
    pack = name_of_folds(spec.pack)
    val_maes: defaultdict[Path, list[float]] = defaultdict(list)
    models: dict[Path, str] = {}
    places = [place for place in results.iterdir() if name_of_folds(place.name) == pack]
    found = [run for place in places if place.is_dir() for run in collect_runs(place)[0]]
    for run in found:
        wanted = (run.spec.property, run.spec.protocol) == (spec.property, spec.protocol)
        val_mae = run.result.val_mae
        if not (wanted and _is_converted(run.spec) and val_mae is not None and is_kept(run)):
            continue
        own = run_name(run.spec)
        if not str(run.folder).endswith(own):
            continue
        above = re.sub(f"^{re.escape(run.spec.pack)}/", f"{pack}/", own)
        val_maes[Path(above).parent].append(val_mae)
        models[Path(above).parent] = run.spec.model
    if not val_maes:
        return ""
    best = min(val_maes, key=lambda one: fmean(val_maes[one]))
    command = ["python", "-m", "irnet_hpc.export", str(shown / best), str(file)]
    return (
        f"; of the models of the same results that can be exported, {models[best]} has the lowest "
        f"val MAE, {fmean(val_maes[best]):.4g} {result.unit}: {shlex.join(command)}"
    )
