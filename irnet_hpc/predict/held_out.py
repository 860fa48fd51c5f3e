"""Find rows that the members of an ensemble were not trained on, and their errors there.

A run was not trained on its val rows, nor on its test rows. Several runs of one model on the folds
of one table are judged together: each row of the table is predicted by the run whose test row it
is (out of fold), so that every row counts and none was trained on.
"""

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import Pack, reported_rows
from irnet_hpc.predict.members import Member, Predictor
from irnet_hpc.predict.screening import spread_of
from irnet_hpc.runs.collect import FinishedRun, one_a_property
from irnet_hpc.runs.pack_identity import without_content_hash
from irnet_hpc.runs.predictions import read_predictions

# Identifies a row: material_id, formula, value, and how many rows before it have the same three.
# One material may have many rows, for example one a temperature, and all of them count.
RowKey = tuple[str, str, float, int]
# Row -> prediction; values and predictions are in the property's unit.
HeldOutRows = dict[RowKey, float]


class HeldOut(NamedTuple):
    """Rows that no member was trained on, with the errors of the ensemble."""

    error: np.ndarray  # (n_rows,) errors of the members' mean, in the property's unit
    sd: np.ndarray  # (n_rows,) standard deviations over the members, in the same unit
    of_members: np.ndarray  # (n_groups, n_rows) errors of each group's mean, in the same unit
    # (n_rows,) int, the fold of each row. None: the rows are not out of fold.
    fold: np.ndarray | None = None
    # (n_rows,) predictions on which the width of the intervals is to depend, since the property has
    # a floor, as band gaps have; None: it does not depend on them.
    prediction: np.ndarray | None = None


class Evidence(NamedTuple):
    """Held-out rows of one property, or the UserError that says why there are none.

    Out-of-fold rows both calibrate intervals and measure them: then both are the same object.
    """

    val: HeldOut | UserError
    test: HeldOut | UserError


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


def in_common(
    rows_of_groups: Sequence[HeldOutRows | UserError], folds: dict[RowKey, int] | None = None
) -> HeldOut | UserError:
    """Compute the errors of the ensemble on the rows that all groups have with the same target.

    If the rows of a group are a UserError, the first one is returned. If the groups have no row in
    common, a new UserError is returned.

    Args:
        rows_of_groups: The predictions of each group of members, most of which have one.
        folds: The fold of each row, if the rows are out of fold.
    """
    known: list[HeldOutRows] = []
    for rows in rows_of_groups:
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
    predictions = np.array([[rows[key] for key in keys] for rows in known])
    mean, sd = spread_of(predictions)
    fold = None if folds is None else np.array([folds[key] for key in keys])
    return HeldOut(mean - value, sd, predictions - value, fold)


def try_rows(read: Callable[..., HeldOutRows], *arguments: Any) -> HeldOutRows | UserError:
    """Return what `read` returns, or the UserError that it raises."""
    try:
        return read(*arguments)
    except UserError as error:
        return error


def group_runs(members: Sequence[Member]) -> tuple[tuple[int, ...], ...]:
    """Put together the runs of one model on the folds of one table.

    Returns:
        The places of the members in each group, in their order; any other run is a group of one.
    """
    groups: dict[object, list[int]] = {}
    for place, member in enumerate(members):
        key: object = place
        if fold_of(member) is not None:
            identity = without_content_hash(member.result.pack_identity)
            split = {k: v for k, v in identity["split"].items() if k != "seed"}
            model = dataclasses.replace(member.spec, pack="any")
            same = [identity | {"split": split}, member.result.recipe]
            key = (model, json.dumps(same, sort_keys=True))
        groups.setdefault(key, []).append(place)
    return tuple(map(tuple, groups.values()))


def fold_of(member: Member) -> int | None:
    """Return the number of the fold that is a member's test rows; None if its split has no folds.

    The folds of a table that is dealt anew in each repeat are numbered on: those of the second
    repeat of five folds are 5 to 9.
    """
    split = member.result.pack_identity["split"]
    return int(split["seed"]) if split["by"] in ("fold", "folds") else None


def missing_folds(members: Sequence[Member]) -> list[int]:
    """Return the folds of a table that no run of a group has; empty for a single run."""
    n_folds = members[0].result.pack_identity["split"].get("n_folds")
    if len(members) == 1 or n_folds is None:
        return []
    there = {(fold_of(member) or 0) % n_folds for member in members}
    return sorted(set(range(n_folds)) - there)


def out_of_fold(
    members: Sequence[Member], name: str
) -> tuple[HeldOutRows | UserError, dict[RowKey, int]]:
    """Put together the test predictions of the runs of a group.

    Args:
        members: The runs of one model on the folds of one table.
        name: The property.

    Returns:
        Row -> prediction, which is the mean if several repeats predict a row, or the error of the
        first run whose predictions cannot be read; and row -> fold, in the first repeat.
    """
    found: defaultdict[RowKey, list[float]] = defaultdict(list)
    folds: dict[RowKey, int] = {}
    for member in sorted(members, key=lambda member: fold_of(member) or 0):
        rows = try_rows(test_rows, member, name)
        if isinstance(rows, UserError):
            return rows, folds
        fold = fold_of(member)
        assert fold is not None  # since the members are a group
        for key, prediction in rows.items():
            found[key].append(prediction)
            folds.setdefault(key, fold)
    return {key: float(np.mean(values)) for key, values in found.items()}, folds
