"""Assemble an ensemble of trained models: load them, calibrate intervals, measure coverage.

Intervals are calibrated on val rows, which are read from the packs that the models were trained
on, or on out-of-fold rows if there are few of these (out_of_fold.py). Their coverage is measured on
test rows. If any of these rows are missing, a warning says which.
"""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from irnet_hpc.data.properties import floor_of
from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import Pack, load_pack, pack_path
from irnet_hpc.predict.domain import Domain, domain_of
from irnet_hpc.predict.held_out import (
    Evidence,
    HeldOut,
    HeldOutRows,
    RowKey,
    group_runs,
    in_common,
    missing_folds,
    out_of_fold,
    test_rows,
    try_rows,
    val_rows,
)
from irnet_hpc.predict.intervals import (
    ConformalInterval,
    SteppedInterval,
    calibrate,
    calibrate_steps,
    coverage,
    half_width,
)
from irnet_hpc.predict.members import Member, make_predictor, read_member
from irnet_hpc.predict.out_of_fold import MIN_VAL_ROWS, rows_beside
from irnet_hpc.predict.portable import load_portable, source_line
from irnet_hpc.predict.run_folders import runs_in
from irnet_hpc.predict.screening import Ensemble, feature_layout
from irnet_hpc.runs.pack_identity import differing_fields
from irnet_hpc.runs.portable import folder_of, is_portable, name_of

logger = logging.getLogger(__name__)

# A value of 0 may come out of two float32 numbers as little more than 0, in any unit.
FLOOR_ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class EnsembleReport:
    """The accuracy of an ensemble on one property. Fields that are None are not known.

    The report is written to about.json beside the predictions, with the names of these fields as
    keys.
    """

    property: str
    unit: str
    n_members: int
    level: float  # share of values that intervals should hold
    n_val: int | None = None
    half_width: float | None = None  # mean over the test rows, in the unit
    n_test: int | None = None
    test_mae: float | None = None  # MAE of the members' mean, in the unit
    coverage: float | None = None  # share of test rows within the interval
    split: str | None = None  # how the test rows were chosen
    # Folder of a run -> its weight in the mean; None: all count the same.
    weights: dict[str, float] | None = None
    # How many runs on folds the rows are out of; the rows above are then all of these folds' test
    # rows, and the coverage of each fold is that of the interval that the others calibrate.
    n_folds: int | None = None
    # val | out-of-fold: the rows that calibrate the interval.
    calibrated_on: str = "val"
    # Of a portable model whose property has a floor (a band gap of 0): the share of test values
    # above it, and the share of these that the interval holds.
    above_floor: float | None = None
    coverage_above_floor: float | None = None


def own_pack(member: Member, pack_dir: Path | str | None) -> Pack:
    """Open the pack that a member was trained on.

    The identity of the pack must be the one that the run recorded. As in a run's key, the hash of
    the content may differ, because the last bit of a feature may differ between machines.

    Raises:
        UserError: If the pack is missing, or if a different pack has its name.
    """
    path = pack_path(member.spec.pack, pack_dir)
    if not path.exists():
        raise UserError(f"pack {path} is missing")
    pack = load_pack(path)
    if differing := differing_fields(pack.identity, member.result.pack_identity):
        pack.close()
        raise UserError(
            f"{path} is not the pack that {member.folder} was trained on: "
            f"{', '.join(differing)} differ"
        )
    return pack


def load_ensemble(
    folders: Sequence[Path | str], pack_dir: Path | str | None, device: torch.device
) -> tuple[Ensemble, dict[str, Evidence]]:
    """Load the models of runs, and their held-out rows.

    Args:
        folders: Folders of finished runs, or folders that stand for several (run_folders.py); or
            one portable model, by its folder or as `pretrained:NAME`.
        pack_dir: Folder of the runs' packs; None: $IRNET_PACKS, else packs/.
        device: The device on which networks compute.

    Returns:
        The ensemble, not yet calibrated; and, for each property, the val rows that calibrate its
        intervals and the test rows that measure them.

    Raises:
        UserError: If a run cannot be used, alone or together with the others.
    """
    paths = [folder_of(folder) for folder in folders]
    if portable := next(filter(is_portable, paths), None):
        if len(paths) > 1:
            raise UserError(
                f"a portable model must be given alone, got {name_of(portable)} and "
                f"{len(paths) - 1} more: it does not keep its val rows one by one, so no mean with "
                "other runs could be calibrated"
            )
        ensemble, portable_evidence = load_portable(portable, device)
        logger.info(source_line(portable, ensemble))
        return ensemble, portable_evidence
    members = [read_member(run, device) for path in paths for run in runs_in(path)]
    _check_together(members)
    predictors = [make_predictor(member, device) for member in members]
    val: list[dict[str, HeldOutRows | UserError]] = []
    domains: dict[tuple, Domain | None] = {}
    for member, predict in zip(members, predictors, strict=True):
        rows_key = _training_rows_key(member)
        rows: dict[str, HeldOutRows | UserError]
        try:
            with own_pack(member, pack_dir) as pack:
                rows = {
                    name: try_rows(val_rows, member, name, predict, pack) for name in member.units
                }
                if rows_key not in domains:
                    domains[rows_key] = domain_of(pack, member.fitted_spec)
        except UserError as error:
            domains.setdefault(rows_key, None)
            rows = dict.fromkeys(member.units, error)
            known = "only by their elements" if member.elements else "in no way"
            logger.warning(
                f"warning: materials outside the training data of {member.folder} can be "
                f"recognised {known}: {error}"
            )
        val.append(rows)
    names = list(dict.fromkeys(name for member in members for name in member.units))
    ensemble = Ensemble(
        tuple(members),
        tuple(predictors),
        tuple(domains[_training_rows_key(member)] for member in members),
        feature_layout(members),
        dict.fromkeys(names),
        groups=group_runs(members),
    )
    for group in ensemble.all_groups:
        if missing := missing_folds([members[place] for place in group]):
            logger.warning(
                f"warning: the runs of {members[group[0]].spec.model} lack "
                f"{', '.join(f'fold {fold}' for fold in missing)} of their table, whose rows "
                "count in no error"
            )
    evidence = {name: _evidence(ensemble, name, [rows.get(name) for rows in val]) for name in names}
    return ensemble, evidence


def _evidence(
    ensemble: Ensemble, name: str, val: Sequence[HeldOutRows | UserError | None]
) -> Evidence:
    """Return the held-out rows of a property.

    Args:
        ensemble: The models.
        name: The property.
        val: The val rows of each member that predicts the property, else None.
    """
    groups, members = ensemble.groups_of(name), ensemble.members
    rows_of_val: list[HeldOutRows | UserError] = []
    rows_of_test: list[HeldOutRows | UserError] = []
    folds: dict[RowKey, int] = {}
    for group in groups:
        if len(group) > 1:
            rows, folds = out_of_fold([members[place] for place in group], name)
            rows_of_val.append(rows)
            rows_of_test.append(rows)
        else:
            own = val[group[0]]
            assert own is not None  # since the member predicts the property
            rows_of_val.append(own)
            rows_of_test.append(try_rows(test_rows, members[group[0]], name))
    if all(len(group) > 1 for group in groups):
        held_out = in_common(rows_of_test, folds)
        return Evidence(held_out, held_out)
    held_out = in_common(rows_of_val)
    if isinstance(held_out, UserError) or len(held_out.error) < MIN_VAL_ROWS:
        held_out = _out_of_fold(members, groups, name, rows_of_test) or held_out
    return Evidence(held_out, in_common(rows_of_test))


def _out_of_fold(
    members: Sequence[Member],
    groups: Sequence[Sequence[int]],
    name: str,
    rows_of_test: Sequence[HeldOutRows | UserError],
) -> HeldOut | None:
    """Return the out-of-fold rows of a property; None if a model has none.

    Test rows are left out, since they measure the intervals that the other rows calibrate.
    """
    measured = {
        key for tested in rows_of_test if not isinstance(tested, UserError) for key in tested
    }
    rows: list[HeldOutRows | UserError] = []
    folds: dict[RowKey, int] = {}
    for group in groups:
        of_group = [members[place] for place in group]
        found = out_of_fold(of_group, name) if len(group) > 1 else rows_beside(of_group[0], name)
        if found is None:
            return None
        predicted, folds = found
        if not isinstance(predicted, UserError):
            predicted = {key: row for key, row in predicted.items() if key not in measured}
        rows.append(predicted)
    in_all = in_common(rows, folds)
    return None if isinstance(in_all, UserError) else in_all


def calibrate_ensemble(
    ensemble: Ensemble, evidence: dict[str, Evidence], level: float
) -> tuple[Ensemble, list[EnsembleReport]]:
    """Calibrate the intervals of an ensemble, and log how well it predicts each property.

    Args:
        ensemble: The models.
        evidence: Property -> held-out rows, as load_ensemble returns them.
        level: The fraction of values that intervals should contain, between 0 and 1.

    Returns:
        The ensemble with its intervals, and a report for each property.
    """
    intervals, reports = {}, []
    for name, (val, test) in evidence.items():
        members = [member for member in ensemble.members if name in member.units]
        report = EnsembleReport(name, members[0].units[name], len(members), level)
        if ensemble.weights:
            report = dataclasses.replace(report, weights=_weights_of_runs(ensemble, name))
            logger.info(_describe_weights(ensemble, name))
        if isinstance(val, HeldOut) and val is test and val.fold is not None:
            report = dataclasses.replace(report, n_folds=len(np.unique(val.fold)))
        interval: ConformalInterval | SteppedInterval | None = None
        try:
            if isinstance(val, UserError):
                raise val
            if val.prediction is not None:
                interval = calibrate_steps(val.error, val.prediction, level)
            else:
                interval = calibrate(val.error, val.sd, level)
            kind = "val" if val.fold is None else "out-of-fold"
            report = dataclasses.replace(report, n_val=interval.n_rows, calibrated_on=kind)
        except UserError as error:
            logger.warning(f"warning: {name}: no interval: {error}")
        if isinstance(test, UserError):
            logger.warning(f"warning: {name}: test errors are not known: {test}")
        else:
            report = dataclasses.replace(
                report,
                n_test=len(test.error),
                test_mae=float(np.abs(test.error).mean()),
                split=_describe_split(members),
            )
            if interval:
                report = dataclasses.replace(
                    report,
                    half_width=float(half_width(interval, test.sd, _at(test)).mean()),
                    coverage=_coverage(interval, test, report.n_folds is not None),
                )
                if test.prediction is not None:
                    # The value is the prediction without its error. Rounding may leave a little.
                    above = test.prediction - test.error > floor_of(name) + FLOOR_ROUNDING
                    report = dataclasses.replace(
                        report,
                        above_floor=float(above.mean()),
                        coverage_above_floor=coverage(
                            interval, test.error[above], test.sd[above], test.prediction[above]
                        ),
                    )
        logger.info(describe_report(report))
        intervals[name] = interval
        reports.append(report)
    return ensemble._replace(intervals=intervals), reports


def _check_together(members: Sequence[Member]) -> None:
    """Raise UserError if a run is given twice, or if runs have different units for one property."""
    units: dict[str, tuple[str, Path]] = {}
    folders: dict[str, Path] = {}
    for member in members:
        other = folders.setdefault(member.result.key, member.folder)
        if other is not member.folder:
            raise UserError(f"{other} and {member.folder} are the same run; give each run once")
        for name, unit in member.units.items():
            known, folder = units.setdefault(name, (unit, member.folder))
            if known != unit:
                raise UserError(
                    f"{name} must have one unit, got {known} in {folder} "
                    f"and {unit} in {member.folder}"
                )


def _training_rows_key(member: Member) -> tuple:
    """Return the facts that decide a member's training rows.

    Members with the same training rows share one domain.
    """
    spec = member.fitted_spec
    return spec.pack, spec.property, spec.train_rows, str(member.result.pack_identity)


def _describe_split(members: Sequence[Member]) -> str:
    split = members[0].result.pack_identity["split"]
    by = {"reduced formula": "random", "column": "the table's own"}.get(split["by"], split["by"])
    held_out = split.get("family") or "+".join(split.get("elements", ()))
    if split["by"] == "folds":
        by, held_out = f"fold {split['seed']} of {split['n_folds']}", ""
    saw_test = any(member.result.selected_on == "test" for member in members)
    return " ".join(filter(None, [by, held_out])) + (", and selected on them" if saw_test else "")


def _at(held: HeldOut) -> np.ndarray:
    """Return the predictions of held-out rows; zeros where no interval depends on them."""
    return np.zeros_like(held.error) if held.prediction is None else held.prediction


def _coverage(
    interval: ConformalInterval | SteppedInterval, held: HeldOut, is_out_of_fold: bool
) -> float | None:
    """Return the fraction of rows whose value is within the interval; None if it is not known.

    The interval of out-of-fold rows was calibrated on the rows themselves. So each fold is measured
    by the interval that the other folds calibrate.
    """
    if not is_out_of_fold:
        return coverage(interval, held.error, held.sd, held.prediction)
    assert held.fold is not None
    n_held = 0.0
    for number in np.unique(held.fold):
        own = held.fold == number
        try:
            others = calibrate(held.error[~own], held.sd[~own], interval.level)
        except UserError:  # too few rows
            return None
        n_held += coverage(others, held.error[own], held.sd[own]) * own.sum()
    return float(n_held / len(held.fold))


def describe_report(report: EnsembleReport) -> str:
    """Say in one sentence how well an ensemble predicts a property."""
    mean = "the weighted mean" if report.weights else "the mean"
    runs = "1 run" if report.n_members == 1 else f"{mean} of {report.n_members} runs"
    text = f"{report.property} ({report.unit}), {runs}"
    kinds = (report.calibrated_on, "out-of-fold" if report.n_folds else "test")
    if report.test_mae is not None:
        where = f"{report.n_folds} folds" if report.n_folds else f"split: {report.split}"
        text += f": MAE {report.test_mae:.4g} on {report.n_test:,} {kinds[1]} rows ({where})"
    if report.coverage is not None:
        text += (
            f"; the {report.level:.0%} interval, calibrated on {report.n_val:,} {kinds[0]} rows, "
            f"is ±{report.half_width:.3g} on average and holds {report.coverage:.1%} of the "
            f"{kinds[1]} values"
        )
    if report.coverage_above_floor is not None:
        text += (
            f"; {report.above_floor:.1%} of the test values are above "
            f"{floor_of(report.property):g}, and of these it holds "
            f"{report.coverage_above_floor:.1%}"
        )
    return text


def _weights_of_runs(ensemble: Ensemble, name: str) -> dict[str, float]:
    """Return the weight of each run, by its folder; the runs of a group share its weight."""
    assert ensemble.weights
    groups = zip(ensemble.groups_of(name), ensemble.weights[name].tolist(), strict=True)
    return {
        str(ensemble.members[place].folder): weight / len(group)
        for group, weight in groups
        for place in group
    }


def _describe_weights(ensemble: Ensemble, name: str) -> str:
    """Say in one line how much each member of a committee counts."""
    assert ensemble.weights
    parts = []
    for group, weight in zip(ensemble.groups_of(name), ensemble.weights[name], strict=True):
        first = ensemble.members[group[0]]
        more = f" and {len(group) - 1} other folds" if len(group) > 1 else ""
        parts.append(f"{first.spec.model} ({first.folder}{more}) {weight:.3f}")
    return f"weights: {', '.join(parts)}"
