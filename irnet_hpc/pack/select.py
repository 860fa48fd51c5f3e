"""Select the rows and values of a source that are packed, and their split and order."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.duplicates import ERROR, Conflict, find_conflicts, one_per_formula
from irnet_hpc.data.elements import FAMILIES, NUMBER, SYMBOLS
from irnet_hpc.data.materials import (
    LostValue,
    Materials,
    Rejected,
    lose,
    parse_materials,
    reject,
)
from irnet_hpc.data.raw_table import Place, RawTable
from irnet_hpc.data.sources import Filter, Source
from irnet_hpc.data.splits import (
    ROLES,
    SplitRule,
    join_with_or,
    pack_order,
    roles_around,
    roles_of,
    roles_of_fold,
    sample,
)
from irnet_hpc.errors import UserError
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import FEATURE_SETS

# The version of the rules by which a source becomes a pack: those in this module and in
# data/duplicates.py. Raise it if a change makes the same source give another pack, since rows,
# values, duplicates or splits are treated differently. A rule for duplicates other than
# `lowest-energy` is recorded by its name in the identity, so packs without such a record are as
# before.
RULES = 3


class Selection(NamedTuple):
    """The rows of a source that are packed, and the rows and values that were left out."""

    materials: Materials
    rejected: list[Rejected]
    filtered: dict[str, dict[str, int]]  # property -> filter -> number of values that it removed
    lost: list[LostValue]  # values that filters removed, or a median replaced
    combined: dict[str, int]  # property -> number of compositions whose value is a median or mean
    conflicts: Sequence[Conflict] = ()  # of rows of one composition, of which one was kept
    # line -> where its structure comes from; empty for other tables
    places: Mapping[int, Place] = MappingProxyType({})
    # Features that are known already, and where newly computed ones are added; None: no other pack
    # has the same rows.
    known: "dict[int, KnownFeatures] | None" = None


class KnownFeatures(NamedTuple):
    """The features of a row, which other packs of the same rows, such as other folds, need too."""

    x: np.ndarray  # (n_features,) float32; without meaning if the row is unsuited
    unsuited: tuple[str, str] | None  # why the row has no features; None: it has


def needs_ranking(feature_sets: Sequence[str], source: Source) -> bool:
    """Return True if only one row of each composition is packed."""
    return all(FEATURE_SETS[name].of_formula for name in feature_sets) and not source.polymorphs


def select(
    table: RawTable,
    feature_sets: Sequence[str],
    source: Source,
    filters: Sequence[Filter] = (),
    packed: Sequence[str] | None = None,
    n_rows: int | None = None,
) -> Selection:
    """Select the rows that the feature sets can describe; reject all others with a reason.

    First, filters with limits remove absurd values, so that these cannot decide which row of a
    composition is kept. Then one row is kept for each composition (data/duplicates.py). Then
    filters by standard deviations are applied to these rows. Up to this point, nothing depends on
    which properties, features or number of rows are packed: the same composition has the same
    values in every pack of a table. Last, the rows that these options exclude are left out.

    Args:
        table: The rows as they were read.
        feature_sets: The names of the feature sets.
        source: The source, which says whether pure elements and polymorphs are kept.
        filters: The filters for the values of properties.
        packed: The properties to pack; None: all. The others only decide between rows.
        n_rows: The size of a fixed random sample of the table's rows; None: all rows.

    Returns:
        The materials, in the order of the table and not yet split; the rejected rows; and the
        values that were removed or replaced. Rows outside the sample are in none of them.

    Raises:
        UserError: If no formula can be read, or if rows of one composition disagree though the
            source's rule for duplicates is `error`.
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

    packed = list(table.targets) if packed is None else packed
    had_value = materials.line[_has_value(materials, packed)]
    if not source.pure_elements:
        leave_out(materials.n_elements == 1, "pure element")
    by_limits = [rule for rule in filters if not np.isfinite(rule.deviations)]
    by_deviations = [
        rule for rule in filters if np.isfinite(rule.deviations) and rule.property in packed
    ]
    materials, lost = filter_values(materials, by_limits)
    replaced, combined = list[LostValue](), dict[str, list[int]]()
    conflicts: list[Conflict] = []
    if needs_ranking(feature_sets, source):
        conflicts = find_conflicts(materials, packed)
        if conflicts and source.duplicates == ERROR:
            raise UserError(f"--duplicates error: {describe_conflict(conflicts[0], table.places)}")
        materials, duplicates, replaced, combined = one_per_formula(materials, source.duplicates)
        rejected += duplicates
    targets = {name: materials.targets[name] for name in packed}
    materials = dataclasses.replace(materials, targets=targets)
    materials, lost_last = filter_values(materials, by_deviations)
    unknown = features.unknown_elements(feature_sets, materials)
    is_unknown = np.isin(np.arange(len(materials)), list(unknown))
    leave_out(
        is_unknown, f"element unknown to feature set {'+'.join(feature_sets)}", unknown.__getitem__
    )
    if "columns" in feature_sets:
        leave_out(np.isnan(materials.columns).any(1), "feature column empty")
    # A row whose only value was filtered out stays: a filter never decides about rows.
    is_empty = ~_has_value(materials, packed) & ~np.isin(materials.line, had_value)
    leave_out(is_empty, "no property reported")
    assert len(materials) + len(rejected) == len(table)
    lost = [value for value in [*lost, *lost_last, *replaced] if value.property in packed]
    if n_rows is not None and n_rows < len(table):
        lines = set(table.line[sample(len(table), n_rows)].tolist())
        materials = materials.take(np.isin(materials.line, list(lines)))
        rejected = [row for row in rejected if row.line in lines]
        lost = [value for value in lost if value.line in lines]
    packed_lines = set(materials.line.tolist())
    n_combined = {
        name: n for name in packed if (n := len(packed_lines.intersection(combined.get(name, []))))
    }
    filtered = _count_filtered(filters, lost)
    return Selection(materials, rejected, filtered, lost, n_combined, conflicts, table.places)


def where(line: int, places: Mapping[int, Place]) -> str:
    """Return the words for a row: its line, or the file of its structure."""
    place = places.get(line)
    if place is None or not (place.file or place.block):
        return f"line {line}"
    if not place.file:
        return f"row {place.block}"
    # The blocks of a file are neighbours.
    near = (places.get(line - 1), places.get(line + 1))
    is_one = all(other is None or other.file != place.file or other == place for other in near)
    return place.file if is_one or not place.block else f"{place.file}, block {place.block}"


def describe_conflict(conflict: Conflict, places: Mapping[int, Place]) -> str:
    """Describe how far rows of one formula disagree about a property."""
    few = conflict.n_repeated == 1
    return (
        f"{conflict.n_differing:,} of {conflict.n_repeated:,} formula{'' if few else 's'} with "
        f"several values of {conflict.property} {'has' if few else 'have'} different ones, at most "
        f"those of {conflict.formula}: {conflict.low:.6g} in {where(conflict.lines[0], places)}, "
        f"{conflict.high:.6g} in {where(conflict.lines[1], places)}"
    )


def _has_value(materials: Materials, packed: Iterable[str]) -> np.ndarray:
    """Tell which rows report at least one property to pack, (n_rows,) bool."""
    return np.any([~np.isnan(materials.targets[name]) for name in packed], axis=0)


def filter_values(
    materials: Materials, filters: Iterable[Filter]
) -> tuple[Materials, list[LostValue]]:
    """Replace values that break a filter with NaN, which means not reported.

    Returns:
        The materials without these values, and the removed values; their reason is the filter.
    """
    targets = {name: values.copy() for name, values in materials.targets.items()}
    lost: list[LostValue] = []
    for rule in filters:
        broken = rule.breaks(targets[rule.property])
        before = dataclasses.replace(materials, targets=targets)
        rows = np.flatnonzero(broken).tolist()
        lost += [lose(before, row, rule.property, str(rule)) for row in rows]
        targets[rule.property][broken] = np.nan
    return dataclasses.replace(materials, targets=targets), lost


def _count_filtered(
    filters: Sequence[Filter], lost: Sequence[LostValue]
) -> dict[str, dict[str, int]]:
    counts = Counter((value.property, value.reason) for value in lost)
    filtered: dict[str, dict[str, int]] = {}
    for rule in filters:
        filtered.setdefault(rule.property, {})[str(rule)] = counts[rule.property, str(rule)]
    return filtered


def split_and_order(materials: Materials, split: SplitRule) -> Materials:
    """Split the materials into train, val and test, and sort them in the order of the pack.

    If the table states a split, that split is kept. If it has folds, the split's seed is the number
    of the fold that is test.

    Raises:
        UserError: If the split holds out no material, or every material, or has too many folds.
    """
    role = materials.role
    if materials.fold is not None:
        role = roles_around(materials.reduced, materials.fold == split.seed, split.seed)
    elif role is None and split.by == "random":
        role = roles_of(materials.reduced, split.seed)
    elif role is None and split.by == "folds":
        role = roles_of_fold(materials.reduced, split)
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
