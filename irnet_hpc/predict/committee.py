"""Assemble an ensemble of trained networks: load them, calibrate intervals, measure coverage.

Intervals are calibrated on val rows, which are read from the packs that the networks were trained
on. Their coverage is measured on test rows. If any of these rows are missing, a warning says which.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import Pack, load_pack, pack_path, reported_rows
from irnet_hpc.predict.domain import Domain, domain_of
from irnet_hpc.predict.intervals import ConformalInterval, calibrate, coverage
from irnet_hpc.predict.members import Member, Predictor, make_predictor, read_member
from irnet_hpc.predict.screening import Ensemble, feature_layout, spread_of
from irnet_hpc.runs.collect import FinishedRun, one_a_property
from irnet_hpc.runs.pack_identity import differing_fields
from irnet_hpc.runs.predictions import read_predictions

logger = logging.getLogger(__name__)

# Identifies a row: material_id, formula, value, and how many rows before it have the same three.
# One material may have many rows, for example one a temperature, and all of them count.
RowKey = tuple[str, str, float, int]
# Row -> prediction; values and predictions are in the property's unit.
HeldOutRows = dict[RowKey, float]


class HeldOut(NamedTuple):
    """Rows that no member was trained on, with the errors of the ensemble."""

    error: np.ndarray  # (n_rows,) errors of the members' mean, in the property's unit
    sd: np.ndarray  # (n_rows,) standard deviations over the members, in the same unit


class Evidence(NamedTuple):
    """Held-out rows of one property, or the UserError that says why there are none."""

    val: HeldOut | UserError
    test: HeldOut | UserError


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
    """Load the networks of runs, and their held-out rows.

    Args:
        folders: Folders of finished runs.
        pack_dir: Folder of the runs' packs; None: $IRNET_PACKS, else packs/.
        device: The device on which the networks compute.

    Returns:
        The ensemble, not yet calibrated; and, for each property, the val rows that calibrate its
        intervals and the test rows that measure them.

    Raises:
        UserError: If a run cannot be used, alone or together with the others.
    """
    members = [read_member(folder) for folder in folders]
    _check_together(members)
    predictors = [make_predictor(member, device) for member in members]
    val: list[dict[str, HeldOutRows | UserError]] = []
    domains: dict[tuple, Domain | None] = {}
    for member, predict in zip(members, predictors, strict=True):
        rows_key = _training_rows_key(member)
        rows: dict[str, HeldOutRows | UserError]
        try:
            with own_pack(member, pack_dir) as pack:
                rows = {name: _try(val_rows, member, name, predict, pack) for name in member.units}
                if rows_key not in domains:
                    domains[rows_key] = domain_of(pack, member.spec)
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
    evidence = {}
    for name in names:
        own = [place for place, member in enumerate(members) if name in member.units]
        test = [_try(test_rows, members[place], name) for place in own]
        evidence[name] = Evidence(in_common([val[place][name] for place in own]), in_common(test))
    ensemble = Ensemble(
        tuple(members),
        tuple(predictors),
        tuple(domains[_training_rows_key(member)] for member in members),
        feature_layout(members),
        dict.fromkeys(names),
    )
    return ensemble, evidence


def calibrate_ensemble(
    ensemble: Ensemble, evidence: dict[str, Evidence], level: float
) -> tuple[Ensemble, list[EnsembleReport]]:
    """Calibrate the intervals of an ensemble, and log how well it predicts each property.

    Args:
        ensemble: The networks.
        evidence: Property -> held-out rows, as load_ensemble returns them.
        level: The fraction of values that intervals should contain, between 0 and 1.

    Returns:
        The ensemble with its intervals, and a report for each property.
    """
    intervals, reports = {}, []
    for name, (val, test) in evidence.items():
        members = [member for member in ensemble.members if name in member.units]
        report = EnsembleReport(name, members[0].units[name], len(members), level)
        interval: ConformalInterval | None = None
        try:
            if isinstance(val, UserError):
                raise val
            interval = calibrate(*val, level)
            report = dataclasses.replace(report, n_val=interval.n_rows)
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
                    half_width=float(interval.half_width(test.sd).mean()),
                    coverage=coverage(interval, *test),
                )
        logger.info(describe_report(report))
        intervals[name] = interval
        reports.append(report)
    return ensemble._replace(intervals=intervals), reports


def val_rows(member: Member, name: str, predict: Predictor, pack: Pack) -> HeldOutRows:
    """Predict the val rows of a member's pack.

    Raises:
        UserError: If the member was trained on its val rows.
    """
    if member.spec.protocol != "honest":
        raise UserError(
            f"{member.folder} was trained under protocol {member.spec.protocol}, which also trains "
            "on the val rows"
        )
    rows = pack.rows("val")
    places = reported_rows(pack, name, rows) - rows.start
    predicted = predict(pack.x(rows)[places])[:, list(member.units).index(name)]
    ids, formulas, value = pack.material_ids(rows), pack.formulas(rows), pack.y(name, rows)[places]
    return by_row(
        [ids[place] for place in places],
        [formulas[place] for place in places],
        value.tolist(),
        predicted.tolist(),
    )


def test_rows(member: Member, name: str) -> HeldOutRows:
    """Read a member's predictions of its test rows, which its run stored.

    Raises:
        UserError: If the stored predictions are missing or damaged.
    """
    runs = one_a_property(FinishedRun(member.folder, member.spec, member.result))
    arrays = read_predictions(next(run for run in runs if run.spec.property == name))
    names = ("material_id", "formula", "target", "prediction")
    return by_row(*(arrays[name].tolist() for name in names))


def by_row(
    ids: list[str], formulas: list[str], values: list[float], predictions: list[float]
) -> HeldOutRows:
    """Arrange predictions by row. All arguments are (n_rows,), in the order of the pack."""
    seen: Counter[tuple[str, str, float]] = Counter()
    rows: HeldOutRows = {}
    same = zip(ids, formulas, values, strict=True)
    for row, prediction in zip(same, predictions, strict=True):
        rows[(*row, seen[row])] = prediction
        seen[row] += 1
    return rows


def in_common(rows_of_members: Sequence[HeldOutRows | UserError]) -> HeldOut | UserError:
    """Compute the errors of the ensemble on the rows that all members have with the same target.

    If the rows of a member are a UserError, the first one is returned. If the members have no row
    in common, a new UserError is returned.
    """
    known: list[HeldOutRows] = []
    for rows in rows_of_members:
        if isinstance(rows, UserError):
            return rows
        known.append(rows)
    first, *others = known
    keys = [key for key in first if all(key in rows for rows in others)]
    if not keys:
        return UserError(
            "the runs have no held-out rows in common: their packs have different sources or splits"
        )
    value = np.array([value for _, _, value, _ in keys])
    mean, sd = spread_of([np.array([rows[key] for key in keys]) for rows in known])
    return HeldOut(mean - value, sd)


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
    spec = member.spec
    return spec.pack, spec.property, spec.train_rows, str(member.result.pack_identity)


def _try(read: Callable[..., HeldOutRows], *arguments: Any) -> HeldOutRows | UserError:
    """Return what `read` returns, or the UserError that it raises."""
    try:
        return read(*arguments)
    except UserError as error:
        return error


def _describe_split(members: Sequence[Member]) -> str:
    split = members[0].result.pack_identity["split"]
    by = {"reduced formula": "random", "column": "the table's own"}.get(split["by"], split["by"])
    held_out = split.get("family") or "+".join(split.get("elements", ()))
    if split["by"] == "folds":
        by, held_out = f"fold {split['seed']} of {split['n_folds']}", ""
    saw_test = any(member.result.selected_on == "test" for member in members)
    return " ".join(filter(None, [by, held_out])) + (", and selected on them" if saw_test else "")


def describe_report(report: EnsembleReport) -> str:
    """Say in one sentence how well an ensemble predicts a property."""
    runs = "1 run" if report.n_members == 1 else f"the mean of {report.n_members} runs"
    text = f"{report.property} ({report.unit}), {runs}"
    if report.test_mae is not None:
        text += f": MAE {report.test_mae:.4g} on {report.n_test:,} test rows "
        text += f"(split: {report.split})"
    if report.coverage is not None:
        text += (
            f"; the {report.level:.0%} interval, calibrated on {report.n_val:,} val rows, "
            f"is ±{report.half_width:.3g} on average and holds {report.coverage:.1%} of the "
            "test values"
        )
    return text
