"""Select the rows and values of a source that are packed, and their split and order."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.elements import FAMILIES, NUMBER, SYMBOLS
from irnet_hpc.data.materials import Materials, Rejected, parse_materials
from irnet_hpc.data.raw_table import RawTable
from irnet_hpc.data.sources import Filter, Source
from irnet_hpc.data.splits import (
    ROLES,
    SplitRule,
    join_with_or,
    pack_order,
    roles_around,
    roles_of,
)
from irnet_hpc.errors import UserError
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import FEATURE_SETS

# The version of the rules in this module. Raise it if a change makes the same source give another
# pack, since rows, duplicates or splits are treated differently.
RULES = 3
# For one composition these energies differ only by constants, so they rank its phases equally. The
# first energy in this list that a row reports is used.
ENERGIES = ("formation_energy", "energy_per_atom", "energy_above_hull")


class Selection(NamedTuple):
    """The rows of a source that are packed, and the rows and values that were left out."""

    materials: Materials
    rejected: list[Rejected]
    filtered: dict[str, dict[str, int]]  # property -> filter -> number of values that it removed


def select(
    table: RawTable, feature_sets: Sequence[str], source: Source, filters: Sequence[Filter] = ()
) -> Selection:
    """Select the rows that the feature sets can describe; reject all others with a reason.

    The steps have the order of the papers. First, filters with limits remove absurd values, so that
    these cannot decide which row of a formula is kept. Then the row of lowest energy is kept for
    each formula. Last, filters by standard deviations are applied to these rows.

    Args:
        table: The rows as they were read.
        feature_sets: The names of the feature sets.
        source: The source, which says whether pure elements and polymorphs are kept.
        filters: The filters for the values of properties.

    Returns:
        The materials, in the order of the table and not yet split; the rejected rows;
        and the counts of filtered values.

    Raises:
        UserError: If no formula can be read.
    """
    materials, rejected = parse_materials(table)
    if not len(materials):
        first = rejected[0]
        raise UserError(
            f"no formula can be read; the first is {first.formula!r}, "
            f"line {first.line}: {first.reason}"
        )

    def leave_out(
        mask: np.ndarray, reason: str, detail: Callable[[int], str] = lambda row: ""
    ) -> None:
        nonlocal materials
        if mask.any():
            rejected.extend(
                reject(materials, row, reason, detail(row)) for row in np.flatnonzero(mask).tolist()
            )
            materials = materials.take(~mask)

    reported = [~np.isnan(values) for values in materials.targets.values()]
    leave_out(~np.any(reported, axis=0), "no property reported")
    if not source.pure_elements:
        leave_out(materials.n_elements == 1, "pure element")
    unknown = features.unknown_elements(feature_sets, materials)
    is_unknown = np.isin(np.arange(len(materials)), list(unknown))
    leave_out(
        is_unknown, f"element unknown to feature set {'+'.join(feature_sets)}", unknown.__getitem__
    )
    if "columns" in feature_sets:
        leave_out(np.isnan(materials.columns).any(1), "feature column empty")
    by_limits = [rule for rule in filters if not np.isfinite(rule.deviations)]
    by_deviations = [rule for rule in filters if np.isfinite(rule.deviations)]
    materials, filtered = filter_values(materials, by_limits)
    if all(FEATURE_SETS[name].of_formula for name in feature_sets) and not source.polymorphs:
        materials, duplicates = one_per_formula(materials)
        rejected += duplicates
    materials, filtered_last = filter_values(materials, by_deviations)
    for name, counts in filtered_last.items():
        filtered.setdefault(name, {}).update(counts)
    assert len(materials) + len(rejected) == len(table)
    return Selection(materials, rejected, filtered)


def one_per_formula(materials: Materials) -> tuple[Materials, list[Rejected]]:
    """Keep the row of lowest energy for each composition.

    If the table states a split, this is done separately for each part of the split. A row that
    reports no energy is kept only if no other row of its composition reports one; then the first of
    them is kept. In tables that were collected property by property, the values of one material are
    in several rows. Therefore another row is merged into the kept row if it adds values and the two
    agree on all properties that both report. All remaining rows are duplicates or other phases, and
    are left out.
    """
    side = [""] * len(materials) if materials.role is None else materials.role
    groups: dict[tuple, list[int]] = {}
    for row, key in enumerate(zip(materials.reduced, side, strict=True)):
        groups.setdefault(key, []).append(row)
    targets = {name: values.copy() for name, values in materials.targets.items()}
    stays, rejected = np.ones(len(materials), bool), []
    for rows in groups.values():
        if len(rows) == 1:
            continue
        entry, *others = sorted(rows, key=lambda row: _energy(materials, row))
        for row in others:
            stays[row] = False
            reported = [name for name, values in targets.items() if not np.isnan(values[row])]
            shared = [name for name in reported if not np.isnan(targets[name][entry])]
            agrees = all(targets[name][row] == targets[name][entry] for name in shared)
            new = [name for name in reported if name not in shared] if agrees else []
            for name in new:
                targets[name][entry] = targets[name][row]
            reason = "merged into a row of the same formula" if new else "duplicate formula"
            detail = f"line {materials.line[entry]}" + (f": {', '.join(new)}" if new else "")
            rejected.append(reject(materials, row, reason, detail))
    return dataclasses.replace(materials, targets=targets).take(stays), rejected


def _energy(materials: Materials, row: int) -> tuple[int, float, int]:
    """Return the sort key that puts the row of lowest energy of a composition first."""
    for place, name in enumerate(ENERGIES):
        if name in materials.targets and not np.isnan(materials.targets[name][row]):
            return place, materials.targets[name][row], row
    return len(ENERGIES), 0.0, row


def reject(materials: Materials, row: int, reason: str, detail: str = "") -> Rejected:
    """Make the record of a row that is not packed."""
    return Rejected(
        int(materials.line[row]), materials.material_id[row], materials.formula[row], reason, detail
    )


def filter_values(
    materials: Materials, filters: Iterable[Filter]
) -> tuple[Materials, dict[str, dict[str, int]]]:
    """Replace values that break a filter with NaN, which means not reported.

    Returns:
        The materials without these values, and property -> filter -> number of removed values.
    """
    targets = {name: values.copy() for name, values in materials.targets.items()}
    filtered: dict[str, dict[str, int]] = {}
    for rule in filters:
        broken = rule.breaks(targets[rule.property])
        targets[rule.property][broken] = np.nan
        filtered.setdefault(rule.property, {})[str(rule)] = int(broken.sum())
    return dataclasses.replace(materials, targets=targets), filtered


def split_and_order(materials: Materials, split: SplitRule) -> Materials:
    """Split the materials into train, val and test, and sort them in the order of the pack.

    If the table states a split, that split is kept.

    Raises:
        UserError: If the split holds out no material, or every material.
    """
    role = materials.role
    if role is None and split.by == "random":
        role = roles_of(materials.reduced, split.seed)
    elif role is None:
        held_out = materials.contains(split.elements)
        _refuse_none_or_all(materials, split, held_out)
        role = roles_around(materials.reduced, held_out, split.seed)
    materials = dataclasses.replace(materials, role=role)
    return materials.take(pack_order(materials.line, role, split.seed))


def _refuse_none_or_all(materials: Materials, split: SplitRule, held_out: np.ndarray) -> None:
    if held_out.any() and not held_out.all():
        return
    elements = join_with_or(split.elements)
    if held_out.all():
        raise UserError(
            f"split {split} leaves no row to train on: all {len(materials):,} rows contain "
            f"{elements}"
        )
    present = {symbol for symbol in SYMBOLS if NUMBER[symbol] in materials.number}
    choices = (
        present
        if split.by == "element"
        else {name for name in FAMILIES if present.intersection(FAMILIES[name])}
    )
    raise UserError(
        f"split {split} holds out no row: none of {len(materials):,} rows contains {elements}; "
        f"known: {', '.join(sorted(choices))}"
    )


def count_reported(materials: Materials) -> dict[str, dict[str, int]]:
    """Count the rows that report each property, as property -> role -> number of rows."""
    return {
        name: {role: int((~np.isnan(values) & (materials.role == role)).sum()) for role in ROLES}
        for name, values in materials.targets.items()
    }
