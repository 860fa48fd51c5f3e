"""Find rows for the intervals of a model whose val rows are too few: out-of-fold predictions.

A small table leaves few val rows, and a quantile of few errors is chance. If the same table was
also dealt to folds (`pack --folds 5`) and the same model trained on all of them, each of its rows
was predicted by a run that was not trained on it. These runs have fewer training rows than the
model itself, so their errors are a little larger, and the intervals a little wider than necessary.
"""

import dataclasses
from pathlib import Path

from irnet_hpc.data.splits import split_suffix_in
from irnet_hpc.errors import UserError
from irnet_hpc.predict.held_out import HeldOutRows, RowKey, by_row
from irnet_hpc.predict.members import Member
from irnet_hpc.runs.collect import FinishedRun, collect_runs
from irnet_hpc.runs.folds import join_folds
from irnet_hpc.runs.pack_identity import without_content_hash
from irnet_hpc.runs.predictions import read_predictions
from irnet_hpc.runs.spec import run_name

# With fewer val rows, out-of-fold predictions calibrate the intervals, if there are any. With 100
# rows, the coverage of a 90 % interval is between 84.8 and 94.5 % in nine of ten cases, with 20
# rows between 78.4 and 98.2 %: it has a beta distribution, with 100 rows beta(91, 10) (Vovk, Proc.
# Mach. Learn. Res. 25, 475, 2012).
MIN_VAL_ROWS = 100


def rows_beside(member: Member, name: str) -> tuple[HeldOutRows, dict[RowKey, int]] | None:
    """Read the out-of-fold predictions of a member's model.

    Args:
        member: The member, whose pack has a split of another kind.
        name: The property.

    Returns:
        Row -> prediction, and row -> fold; None if there are none, or they cannot be read.
    """
    run = FinishedRun(member.folder, member.spec, member.result)
    joined = out_of_fold_run(run, name)
    if joined is None:
        return None
    try:
        arrays = read_predictions(joined)
    except UserError:
        return None
    names = ("material_id", "formula", "target", "prediction")
    rows = by_row(*(arrays[label].tolist() for label in names))
    return rows, dict(zip(rows, arrays["fold"].tolist(), strict=True))


def out_of_fold_run(run: FinishedRun, name: str) -> FinishedRun | None:
    """Find the out-of-fold predictions of the model that a run trained on a pack of its own.

    Args:
        run: The run, whose pack has a split of another kind, in its folder below the results.
        name: The property; a run may predict several.

    Returns:
        The joined run (runs/folds.py) of the same model, recipe, protocol and seed on the same
        table and features; of several sets of folds that with most folds, of several repeats the
        first. None: there is none.
    """
    ending = run_name(run.spec)
    # Protocol paper selects folds on their test rows; and a run on a fold has its own test rows.
    if run.spec.protocol != "honest" or run.split_identity.get("by") in ("fold", "folds"):
        return None
    if not run.folder.resolve().as_posix().endswith(ending):
        return None
    results = Path(run.folder.resolve().as_posix().removesuffix(ending))
    base = run.spec.pack.removesuffix(split_suffix_in(run.spec.pack))
    found = []
    for folder in results.glob(f"{base}-folds*-fold*"):
        of_fold = ending.replace(run.spec.pack, folder.name, 1)
        if (results / of_fold / "result.json").exists():
            found += collect_runs(results / of_fold)[0]
    try:
        joined = [one for one in join_folds(found).runs if one.folds]
    except UserError:
        return None
    same = [
        one
        for one in joined
        if not one.split and one.spec.property == name and _trained_alike(one.folds[0], run)
    ]
    return max(same, key=lambda one: len(one.folds), default=None)


def _trained_alike(fold: FinishedRun, run: FinishedRun) -> bool:
    """Return True if two runs differ in nothing but the split of their packs."""
    one, other = (without_content_hash(each.result.pack_identity) for each in (fold, run))
    specs = (dataclasses.replace(each, pack="any") for each in (fold.trained, run.trained))
    return (
        one | {"split": None} == other | {"split": None}
        and next(specs) == next(specs)
        and fold.result.recipe == run.result.recipe
    )
