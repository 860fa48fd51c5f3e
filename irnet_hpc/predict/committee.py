"""The committee: runs read, calibrated and measured, ready to be asked; and in sentences how far it can be trusted.

What the runs' packs can tell (intervals from val, coverage on test, what training rows were like) is there where the packs
are; where one is not, a sentence says what is missing for it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import Pack, open_pack, pack_path, reporting
from irnet_hpc.predict import intervals as calibration
from irnet_hpc.predict.domain import Domain, domain_of
from irnet_hpc.predict.intervals import Interval
from irnet_hpc.predict.members import Member, predictor, read_member
from irnet_hpc.predict.screening import Screen, ensemble, layout
from irnet_hpc.runs.collect import FinishedRun, one_a_property
from irnet_hpc.runs.predictions import read_predictions

Predictor = Callable[[np.ndarray], np.ndarray]
Rows = dict[
    tuple[str, str], tuple[float, float]
]  # (material_id, formula) -> value and prediction, in the unit


@dataclasses.dataclass(frozen=True)
class HeldOut:
    value: np.ndarray  # (n_rows,) in the property's unit
    prediction: np.ndarray  # (n_members, n_rows)


def own_pack(member: Member, pack_dir: Path | str | None) -> Pack:
    """The pack that a member was trained on, open. Raises UserError where it is not at hand, or another has its name.

    As in a run's key, the content's hash does not count: features may differ in the last bit between machines.
    """
    path = pack_path(member.spec.pack, pack_dir)
    if not path.exists():
        raise UserError(f"pack {path} is not at hand")
    pack, theirs = open_pack(path), member.result.pack_identity
    differ = [
        name
        for name, value in pack.identity.items()
        if name != "content_sha256" and theirs.get(name) != value
    ]
    if differ:
        pack.close()
        raise UserError(
            f"{path} is another pack than the one {member.folder} was trained on: {', '.join(differ)} differ"
        )
    return pack


def val_rows(member: Member, name: str, predict: Predictor, pack: Pack) -> Rows:
    """What a member predicts for its val rows. Raises UserError where it was trained on them."""
    if member.spec.protocol != "honest":
        raise UserError(
            f"{member.folder} was trained with protocol {member.spec.protocol}, on its val rows too"
        )
    rows = pack.rows("val")
    places = reporting(pack, name, rows) - rows.start
    predicted = predict(pack.x(rows)[places])[:, list(member.units).index(name)]
    ids, formulas, value = pack.material_ids(rows), pack.formulas(rows), pack.y(name, rows)[places]
    keys = [(ids[place], formulas[place]) for place in places]
    return dict(zip(keys, zip(value.tolist(), predicted.tolist(), strict=True), strict=True))


def test_rows(member: Member, name: str) -> Rows:
    """What a member predicted for its test rows, as it has stored it. Raises UserError where that is not there."""
    runs = one_a_property(FinishedRun(member.folder, member.spec, member.result))
    arrays = read_predictions(next(run for run in runs if run.spec.property == name))
    keys = zip(arrays["material_id"].tolist(), arrays["formula"].tolist(), strict=True)
    values = zip(arrays["target"].tolist(), arrays["prediction"].tolist(), strict=True)
    return dict(zip(keys, values, strict=True))


def in_common(of_members: Sequence[Rows]) -> HeldOut:
    """The rows that all members have, with the same value. Raises UserError where there are none."""
    first, *others = of_members
    keys = [
        key
        for key in first
        if all(key in rows and rows[key][0] == first[key][0] for rows in others)
    ]
    if not keys:
        raise UserError(
            "the runs have no such rows in common: their packs are of other sources, or split otherwise"
        )
    return HeldOut(
        np.array([first[key][0] for key in keys]),
        np.array([[rows[key][1] for key in keys] for rows in of_members]),
    )


Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Trust:
    """What is known of an ensemble's predictions of one property; None: not known. Written beside the predictions."""

    property: str
    unit: str
    n_members: int
    level: float
    n_val: int | None = None
    half_width: float | None = None  # mean over the test rows, in the unit
    n_test: int | None = None
    test_mae: float | None = None  # of the members' mean, in the unit
    coverage: float | None = None  # share of test rows within the interval
    split: str | None = None  # what test is


def assemble(
    folders: Sequence[Path | str],
    pack_dir: Path | str | None,
    level: float,
    device: torch.device,
    say: Say,
) -> tuple[Screen, list[Trust]]:
    """Read the runs and what their packs say. Raises UserError where runs cannot be used, or not together."""
    members = [read_member(folder) for folder in folders]
    _check(members)
    predictors = [predictor(member, device) for member in members]
    names = list(dict.fromkeys(name for member in members for name in member.units))
    val: list[dict[str, Rows | UserError]] = []
    domains: dict[tuple, Domain | None] = {}
    for member, predict in zip(members, predictors, strict=True):
        try:
            with own_pack(member, pack_dir) as pack:
                val.append(
                    {name: _or_why(val_rows, member, name, predict, pack) for name in member.units}
                )
                if _trained_on(member) not in domains:
                    domains[_trained_on(member)] = domain_of(pack, member.spec)
        except UserError as error:
            domains.setdefault(_trained_on(member), None)
            val.append(dict.fromkeys(member.units, error))
            what = "by its elements only" if member.elements else "not at all"
            say(f"warning: what lies outside of {member.folder} is known {what}: {error}")
    intervals, trust = {}, []
    for name in names:
        own = [place for place, member in enumerate(members) if name in member.units]
        of_val = [val[place][name] for place in own]
        intervals[name], known = _measured(
            name, [members[place] for place in own], of_val, level, say
        )
        trust.append(known)
    of_members = tuple(domains[_trained_on(member)] for member in members)
    return Screen(tuple(members), tuple(predictors), of_members, intervals, layout(members)), trust


def _check(members: Sequence[Member]) -> None:
    """Raises UserError where two runs are one, or do not agree about a property's unit."""
    units: dict[str, tuple[str, Path]] = {}
    keys: dict[str, Path] = {}
    for member in members:
        if (other := keys.setdefault(member.result.key, member.folder)) is not member.folder:
            raise UserError(f"{other} and {member.folder} are one run; give each once")
        for name, unit in member.units.items():
            if (known := units.setdefault(name, (unit, member.folder)))[0] != unit:
                raise UserError(
                    f"{name} must have one unit, however: {known[0]} in {known[1]}, {unit} in {member.folder}"
                )


def _trained_on(member: Member) -> tuple:
    """What decides the domain: members with the same training rows share theirs."""
    spec = member.spec
    return spec.pack, spec.property, spec.train_rows, str(member.result.pack_identity)


def _or_why(function: Callable[..., Rows], *arguments: object) -> Rows | UserError:
    try:
        return function(*arguments)
    except UserError as error:
        return error


def _measured(
    name: str, members: Sequence[Member], val: Sequence[Rows | UserError], level: float, say: Say
) -> tuple[Interval | None, Trust]:
    """The interval of a property from val, and its coverage on test, said in a sentence each."""
    trust = Trust(name, members[0].units[name], len(members), level)
    test, interval = None, None
    try:
        if reasons := [rows for rows in val if isinstance(rows, UserError)]:
            raise reasons[0]
        interval = calibration.calibrate(*_errors(in_common(val)), level)
        trust = dataclasses.replace(trust, n_val=interval.n_rows)
    except UserError as error:
        say(f"warning: {name}: no interval: {error}")
    try:
        test = _errors(in_common([test_rows(member, name) for member in members]))
        trust = dataclasses.replace(
            trust,
            n_test=len(test[0]),
            test_mae=float(np.abs(test[0]).mean()),
            split=_split_in_words(members),
        )
    except UserError as error:
        say(f"warning: {name}: errors on test are not known: {error}")
    if test and interval:
        width, held = (
            float(interval.half_width(test[1]).mean()),
            calibration.coverage(interval, *test),
        )
        trust = dataclasses.replace(trust, half_width=width, coverage=held)
    say(_sentence(trust))
    return interval, trust


def _split_in_words(members: Sequence[Member]) -> str:
    split = members[0].result.pack_identity["split"]
    by = {"reduced formula": "random", "column": "the table's own"}.get(split["by"], split["by"])
    held_out = split.get("family") or "+".join(split.get("elements", ()))
    chosen = (
        ", and selected on them"
        if any(member.result.selected_on == "test" for member in members)
        else ""
    )
    return " ".join(filter(None, [by, held_out])) + chosen


def _errors(rows: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """Error of the members' mean and their standard deviation, (n_rows,) each."""
    mean, sd = ensemble(rows.prediction)
    return mean - rows.value, sd


def _sentence(trust: Trust) -> str:
    runs = "1 run" if trust.n_members == 1 else f"the mean of {trust.n_members} runs"
    text = f"{trust.property} ({trust.unit}), {runs}"
    if trust.test_mae is not None:
        text += f": MAE {trust.test_mae:.4g} on {trust.n_test:,} test rows (split: {trust.split})"
    if trust.coverage is not None:
        text += (
            f"; the {trust.level:.0%} interval, calibrated on {trust.n_val:,} val rows, is ±{trust.half_width:.3g} in the "
            f"mean and holds {trust.coverage:.1%} of them"
        )
    return text
