"""Selection: which rows of a source are packed, which of their values count, in which split and order."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

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

# Raised when rows, duplicates or splits are treated otherwise, so that the same source gives another pack.
RULES = 2


def select(
    table: RawTable, names: Sequence[str], source: Source, filters: Sequence[Filter] = ()
) -> tuple[Materials, list[Rejected], dict[str, dict[str, int]]]:
    """The rows that the feature sets `names` can describe, every other with its reason, and how many values are filtered.

    As in the papers, limits act first, so that an absurd energy does not place a formula; then of one formula the entry
    of lowest energy stays; and standard deviations are those of what is left. Raises UserError where not one formula can
    be read.
    """
    materials, rejected = parse_materials(table)
    if not len(materials):
        first = rejected[0]
        raise UserError(
            f"not one formula can be read; the first is {first.formula!r}, line {first.line}: {first.reason}"
        )

    def leave(mask: np.ndarray, reason: str, detail: Callable[[int], str] = lambda row: "") -> None:
        nonlocal materials
        if mask.any():
            rejected.extend(
                reject(materials, row, reason, detail(row)) for row in np.flatnonzero(mask)
            )
            materials = materials.take(~mask)

    leave(
        np.all([np.isnan(values) for values in materials.targets.values()], axis=0),
        "no property reported",
    )
    if not source.pure_elements:
        leave(materials.n_elements == 1, "pure element")
    unknown = features.unknown_elements(names, materials)
    foreign = np.isin(np.arange(len(materials)), list(unknown))
    leave(foreign, f"element unknown to feature set {'+'.join(names)}", unknown.get)
    if "columns" in names:
        leave(np.isnan(materials.columns).any(1), "feature column empty")
    filtered: dict[str, dict[str, int]] = {}
    materials = filter_values(
        materials, [rule for rule in filters if not np.isfinite(rule.deviations)], filtered
    )
    if all(FEATURE_SETS[name].of_formula for name in names) and not source.polymorphs:
        materials, duplicates = one_per_formula(materials)
        rejected += duplicates
    materials = filter_values(
        materials, [rule for rule in filters if np.isfinite(rule.deviations)], filtered
    )
    assert len(materials) + len(rejected) == len(table)
    return materials, rejected, filtered


def one_per_formula(materials: Materials) -> tuple[Materials, list[Rejected]]:
    """Of the rows of one composition (and one stated split) the entry of lowest energy stays.

    For one composition, formation energy, energy per atom and energy above the hull differ by constants, so the first
    of them that a row reports places it; rows that report none come last, in the table's order. Tables collected
    property by property have their values in several rows: a row that agrees with the entry wherever both report
    something completes it, and is counted as merged; any other is another phase, and goes.
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
            rejected.append(
                reject(materials, row, reason, f"line {materials.line[entry]}" + _listing(new))
            )
    return dataclasses.replace(materials, targets=targets).take(stays), rejected


def _energy(materials: Materials, row: int) -> tuple[int, float, int]:
    for place, name in enumerate(("formation_energy", "energy_per_atom", "energy_above_hull")):
        if name in materials.targets and not np.isnan(materials.targets[name][row]):
            return place, materials.targets[name][row], row
    return 3, 0.0, row


def _listing(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def reject(materials: Materials, row: int, reason: str, detail: str = "") -> Rejected:
    return Rejected(
        int(materials.line[row]), materials.material_id[row], materials.formula[row], reason, detail
    )


def filter_values(
    materials: Materials, filters: Iterable[Filter], filtered: dict[str, dict[str, int]]
) -> Materials:
    """Make the values that break a filter not reported; `filtered` learns property -> filter -> how many."""
    targets = {name: values.copy() for name, values in materials.targets.items()}
    for rule in filters:
        broken = rule.breaks(targets[rule.property])
        targets[rule.property][broken] = np.nan
        filtered.setdefault(rule.property, {})[str(rule)] = int(broken.sum())
    return dataclasses.replace(materials, targets=targets)


def split_and_order(materials: Materials, split: SplitRule) -> Materials:
    """Materials with their split, in the order of the pack's rows. Raises UserError where nothing, or all, is held out."""
    if materials.role is None and split.by == "random":
        materials = dataclasses.replace(materials, role=roles_of(materials.reduced, split.seed))
    elif materials.role is None:
        held_out = materials.contains(split.elements)
        _refuse_none_or_all(materials, split, held_out)
        materials = dataclasses.replace(
            materials, role=roles_around(materials.reduced, held_out, split.seed)
        )
    return materials.take(pack_order(materials.line, materials.role, split.seed))


def _refuse_none_or_all(materials: Materials, split: SplitRule, held_out: np.ndarray) -> None:
    if held_out.any() and not held_out.all():
        return
    what = join_with_or(split.elements)
    if held_out.all():
        raise UserError(
            f"split {split} must leave rows to train on, however: every one of {len(materials):,} contains {what}"
        )
    there = {symbol for symbol in SYMBOLS if NUMBER[symbol] in materials.number}
    occur = (
        there
        if split.by == "element"
        else {name for name in FAMILIES if there.intersection(FAMILIES[name])}
    )
    raise UserError(
        f"split {split} must hold out rows, however: none of {len(materials):,} contains {what}; "
        f"those that occur: {', '.join(sorted(occur))}"
    )


def reported(materials: Materials) -> dict[str, dict[str, int]]:
    """Property -> split -> how many rows report it."""
    return {
        name: {split: int((~np.isnan(values) & (materials.role == split)).sum()) for split in ROLES}
        for name, values in materials.targets.items()
    }
