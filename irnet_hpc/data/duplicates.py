"""Decide which row of a table stands for a composition, and which values it has.

A feature set of formulas describes all rows of one composition alike, so a pack has one row for
each. There are five rules, RULES:

    lowest-energy   the phase of lowest energy, with values of this phase alone: for databases
    median, mean    the median or the mean of all rows: for measurements of one's own
    first           the value that comes first in the table
    error           rows that disagree end the command

Rows of the same values are merged by each of them. By `lowest-energy`, the decision depends on
every property of the table that the package knows, whichever are packed, and never on the order of
the rows:

1. Rows that state an id are grouped by it. Rows without an id are one group.
2. The group with the row of lowest energy stands for the composition. If no group reports an
   energy, it is the group that reports the most properties, and among equals the one with the
   lowest id. A group that reports no property at all comes last, and here the user's own
   properties count, too.
3. The values are those of the group's row of lowest energy. A property that this row does not
   report is taken from other rows of the group that agree with it on every property that both
   report. So a table that was collected property by property is put together, but two phases never
   are.
4. If several rows have the same energy, or none has an energy, and they report different values,
   the median is taken. Such values are counted and listed.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.materials import LostValue, Materials, Rejected, lose, reject
from irnet_hpc.data.properties import PROPERTIES

# For one composition these energies differ only by constants, so they rank its phases equally. The
# first energy in this list that a row reports is used.
ENERGIES = ("formation_energy", "energy_per_atom", "energy_above_hull")
MERGED = "merged into a row of the same formula"
LOWEST_ENERGY = "lowest-energy"
ERROR = "error"
# rule -> the value of several, in the order of the table
VALUES: dict[str, Callable[[list[float]], float]] = {
    "mean": lambda values: float(np.mean(values)),
    "median": lambda values: float(np.median(values)),
    "first": lambda values: values[0],
}
DUPLICATES = (LOWEST_ENERGY, *VALUES, ERROR)


class OnePerFormula(NamedTuple):
    """One row for each composition, and the rows and values that were left out."""

    materials: Materials
    rejected: list[Rejected]
    replaced: list[LostValue]  # values that disagree, in whose place another is used
    # property -> lines of the rows that have such a median or mean
    combined: dict[str, list[int]]


class _Chosen(NamedTuple):
    """The row and the values that are kept for one composition."""

    row: int
    values: dict[str, float]
    merged: dict[int, list[str]]  # row -> properties that only this row, or rows like it, reports
    replaced: list[tuple[int, str, str]]  # row, property, reason

    def take(
        self, name: str, by_row: Mapping[int, float], value: float, rule: str, is_own: bool
    ) -> None:
        """Take a value of a property, and note which rows it comes from or stands for.

        Args:
            name: The property.
            by_row: The rows that report it, with their values.
            value: The value that is taken.
            rule: How it was made of several, in one word.
            is_own: True if the row that is kept reports the property itself.
        """
        self.values[name] = value
        if not is_own:
            for row in by_row:
                self.merged.setdefault(row, []).append(name)
        if len(set(by_row.values())) > 1:
            reason = f"the {rule} of {len(by_row)} values is used, {value:g}"
            self.replaced.extend((row, name, reason) for row in by_row)


class Conflict(NamedTuple):
    """The compositions whose rows report different values of a property."""

    property: str
    n_repeated: int  # compositions of which several rows report the property
    n_differing: int  # of these, those whose values differ
    # The two rows of one composition whose values differ most:
    formula: str
    low: float  # in the property's unit
    high: float
    lines: tuple[int, int]  # of `low` and of `high`


def find_conflicts(materials: Materials, properties: Iterable[str]) -> list[Conflict]:
    """Find the properties of which rows of one composition report different values."""
    conflicts = []
    groups = [rows for rows in _groups(materials) if len(rows) > 1]
    for name in properties:
        values = materials.targets[name]
        reported = [np.array(rows)[~np.isnan(values[rows])] for rows in groups]
        repeated = [rows for rows in reported if len(rows) > 1]
        differing = [rows for rows in repeated if np.ptp(values[rows])]
        if differing:
            widest = max(differing, key=lambda rows: float(np.ptp(values[rows])))
            low, high = widest[values[widest].argmin()], widest[values[widest].argmax()]
            conflicts.append(
                Conflict(
                    name,
                    len(repeated),
                    len(differing),
                    str(materials.formula[low]),
                    float(values[low]),
                    float(values[high]),
                    (int(materials.line[low]), int(materials.line[high])),
                )
            )
    return conflicts


def _groups(materials: Materials) -> list[list[int]]:
    """List the rows of each composition in each part of a stated split."""
    side = [""] * len(materials) if materials.role is None else materials.role
    groups: dict[tuple, list[int]] = {}
    for row, key in enumerate(zip(materials.reduced, side, strict=True)):
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def one_per_formula(materials: Materials, rule: str = LOWEST_ENERGY) -> OnePerFormula:
    """Keep one row for each composition in each part of a stated split.

    Args:
        materials: The rows.
        rule: One of DUPLICATES. By `error`, the rows of a composition must not disagree.
    """
    targets = {name: values.copy() for name, values in materials.targets.items()}
    stays, combined = np.ones(len(materials), bool), dict[str, list[int]]()
    rejected: list[Rejected] = []
    replaced: list[LostValue] = []
    for rows in _groups(materials):
        if len(rows) == 1:
            continue
        chosen = _choose(materials, rows) if rule == LOWEST_ENERGY else _pool(materials, rows, rule)
        line = f"line {materials.line[chosen.row]}"
        for name, value in chosen.values.items():
            targets[name][chosen.row] = value
        for row in rows:
            if row == chosen.row:
                continue
            stays[row] = False
            if new := chosen.merged.get(row):
                reason, detail = MERGED, f"{line}: {', '.join(new)}"
            else:
                reason, detail = "duplicate formula", line
            rejected.append(reject(materials, row, reason, detail))
        replaced += [lose(materials, *where) for where in chosen.replaced]
        for name in dict.fromkeys(name for _, name, _ in chosen.replaced if rule != "first"):
            combined.setdefault(name, []).append(int(materials.line[chosen.row]))
    materials = dataclasses.replace(materials, targets=targets).take(stays)
    return OnePerFormula(materials, rejected, replaced, combined)


def _pool(materials: Materials, rows: Sequence[int], rule: str) -> _Chosen:
    """Take the values of one composition from all of its rows."""
    ordered = sorted(rows, key=lambda row: int(materials.line[row]))
    value_of = VALUES.get(rule, VALUES["first"])  # by `error`, all values are equal
    first = ordered[0] if rule == "first" else min(rows, key=lambda row: _order(materials, row))
    chosen = _Chosen(first, {}, {}, [])
    own = _reported(materials, first)
    for name in materials.targets:
        by_row = {
            row: values[name] for row in ordered if name in (values := _reported(materials, row))
        }
        if not by_row:
            continue
        chosen.take(name, by_row, value_of(list(by_row.values())), rule, name in own)
    return chosen


def _choose(materials: Materials, rows: Sequence[int]) -> _Chosen:
    """Choose among the rows of one composition, of which there are at least two."""
    by_id: dict[str | None, list[int]] = {}
    for row in rows:
        has_id = materials.has_id is None or materials.has_id[row]
        by_id.setdefault(materials.material_id[row] if has_id else None, []).append(row)

    def rank(entry: tuple[str | None, list[int]]) -> tuple:
        own, its_rows = entry
        n_reported = len({name for row in its_rows for name in _known(materials, row)})
        lowest = min(_energy(materials, row) for row in its_rows)
        is_empty = not any(_reported(materials, row) for row in its_rows)
        return *lowest, -n_reported, is_empty, own is None, _natural(own or "")

    return _combine(materials, min(by_id.items(), key=rank)[1])


def _combine(materials: Materials, rows: Sequence[int]) -> _Chosen:
    """Combine the rows of one material, from the lowest energy to the highest."""
    levels: dict[tuple[int, float], list[int]] = {}
    for row in sorted(rows, key=lambda row: _order(materials, row)):
        levels.setdefault(_energy(materials, row), []).append(row)
    chosen = _Chosen(next(iter(levels.values()))[0], {}, {}, [])
    own = _reported(materials, chosen.row)
    known: dict[str, float] = {}  # the values so far that further rows must agree with
    for level in levels.values():
        fitting = [row for row in level if _agrees(known, _known(materials, row))]
        found: dict[str, dict[int, float]] = {}  # property -> row -> value
        for row in fitting:
            for name, value in _reported(materials, row).items():
                if name not in chosen.values:
                    found.setdefault(name, {})[row] = value
        for name, by_row in found.items():
            middle = float(np.median(list(by_row.values())))
            chosen.take(name, by_row, middle, "median", name in own)
            if name in PROPERTIES:
                known[name] = middle
    return chosen


def _agrees(known: dict[str, float], others: dict[str, float]) -> bool:
    """Return True if two rows have the same value of every property that both report."""
    return all(known.get(name, value) == value for name, value in others.items())


def _reported(materials: Materials, row: int) -> dict[str, float]:
    values = {name: float(values[row]) for name, values in materials.targets.items()}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def _known(materials: Materials, row: int) -> dict[str, float]:
    """Return a row's values of known properties, whether or not these properties are packed."""
    values = _reported(materials, row)
    return {name: value for name, value in values.items() if name in PROPERTIES}


def _energy(materials: Materials, row: int) -> tuple[int, float]:
    """Return the sort key that puts the row of lowest energy of a composition first."""
    for place, name in enumerate(ENERGIES):
        if name in materials.targets and not np.isnan(materials.targets[name][row]):
            return place, float(materials.targets[name][row])
    return len(ENERGIES), 0.0


def _order(materials: Materials, row: int) -> tuple:
    """Return a sort key: first the energy, then all else that the table says about the row.

    The row's position in the table is not part of it.
    """
    values = sorted(_known(materials, row).items())
    return *_energy(materials, row), str(materials.formula[row]), values, int(materials.line[row])


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key that puts `mp-22` before `mp-1000`.

    >>> sorted(["mp-1000", "mp-22", "icsd-7"], key=_natural)
    ['icsd-7', 'mp-22', 'mp-1000']
    """
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(int(part), part) if part[0] in "0123456789" else (-1, part) for part in parts]
