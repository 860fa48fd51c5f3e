"""Select what is packed: the rows of a source, their values, their split and their order."""

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

# Raised when rows, duplicates or splits are treated differently, so that the same source gives
# another pack.
RULES = 2
# For one composition these energies differ by constants, so the first of them that a row reports
# decides which phase is lowest.
ENERGIES = ("formation_energy", "energy_per_atom", "energy_above_hull")


class Selection(NamedTuple):
    """The rows of a source that are packed, and what was left out."""

    materials: Materials
    rejected: list[Rejected]
    filtered: dict[str, dict[str, int]]  # property -> filter -> number of values that it removed


def select(
    table: RawTable, feature_sets: Sequence[str], source: Source, filters: Sequence[Filter] = ()
) -> Selection:
    """Select the rows that the feature sets can describe; reject every other with its reason.

    As in the papers, filters with limits come first, so that an absurd energy does not decide which
    row of a formula stays; then the entry of lowest energy of each formula is taken; and filters by
    standard deviations see what is left.

    Args:
        table: The rows as they were read.
        feature_sets: Names of feature sets.
        source: Says whether pure elements and polymorphs are kept.
        filters: Rules for values.

    Returns:
        The materials, in the order of the table and not yet split by us; the rejected rows; and the
        counts of filtered values.

    Raises:
        UserError: If not one formula can be read.
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
    """Keep, of the rows of one composition and stated split, the entry of lowest energy.

    Rows that report no energy come last, in the order of the table. Tables collected property by
    property have their values in several rows: a row that agrees with the entry wherever both
    report a value completes it and is counted as merged; any other is another phase and is left
    out.
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
    """Return the key by which the rows of one composition are sorted."""
    for place, name in enumerate(ENERGIES):
        if name in materials.targets and not np.isnan(materials.targets[name][row]):
            return place, materials.targets[name][row], row
    return len(ENERGIES), 0.0, row


def reject(materials: Materials, row: int, reason: str, detail: str = "") -> Rejected:
    """Return the record of a row that is not packed."""
    return Rejected(
        int(materials.line[row]), materials.material_id[row], materials.formula[row], reason, detail
    )


def filter_values(
    materials: Materials, filters: Iterable[Filter]
) -> tuple[Materials, dict[str, dict[str, int]]]:
    """Mark values that break a filter as not reported.

    Returns:
        The materials with NaN for those values, and property -> filter -> number of values.
    """
    targets = {name: values.copy() for name, values in materials.targets.items()}
    filtered: dict[str, dict[str, int]] = {}
    for rule in filters:
        broken = rule.breaks(targets[rule.property])
        targets[rule.property][broken] = np.nan
        filtered.setdefault(rule.property, {})[str(rule)] = int(broken.sum())
    return dataclasses.replace(materials, targets=targets), filtered


def split_and_order(materials: Materials, split: SplitRule) -> Materials:
    """Split the materials into train, val and test, and bring them into the order of the pack.

    A split that the table states is kept.

    Raises:
        UserError: If the split holds out no material, or all of them.
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
            f"split {split} must leave rows to train on, "
            f"got {elements} in every one of {len(materials):,}"
        )
    present = {symbol for symbol in SYMBOLS if NUMBER[symbol] in materials.number}
    choices = (
        present
        if split.by == "element"
        else {name for name in FAMILIES if present.intersection(FAMILIES[name])}
    )
    raise UserError(
        f"split {split} must hold out rows, got none of {len(materials):,} with {elements}; "
        f"known: {', '.join(sorted(choices))}"
    )


def count_reported(materials: Materials) -> dict[str, dict[str, int]]:
    """Count the rows that report each property: property -> role -> number of rows."""
    return {
        name: {role: int((~np.isnan(values) & (materials.role == role)).sum()) for role in ROLES}
        for name, values in materials.targets.items()
    }
