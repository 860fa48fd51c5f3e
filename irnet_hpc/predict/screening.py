"""Screening: members × candidates -> predictions, spreads and flags, block by block.

Each property is predicted by all members that predict it: their mean, their standard deviation (ddof = 1), and an interval
where it could be calibrated. Every feature set is computed once, however many members take it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import RawTable
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import FEATURE_SETS, Described
from irnet_hpc.predict.candidates import Block, Candidates
from irnet_hpc.predict.domain import Domain
from irnet_hpc.predict.intervals import Interval
from irnet_hpc.predict.members import NO_ROWS, Member

Predictor = Callable[[np.ndarray], np.ndarray]


class Layout(NamedTuple):
    """Which features are computed, and which of them each member takes."""

    names: tuple[str, ...]  # feature sets
    columns: tuple[str, ...]  # of the user's table
    picks: tuple[np.ndarray, ...]  # of each member (n_features,) places among all

    @property
    def formula_needed(self) -> bool:
        return any(name != "columns" for name in self.names)


class Screen(NamedTuple):
    """What is asked of every candidate."""

    members: tuple[Member, ...]
    predictors: tuple[Predictor, ...]
    domains: tuple[Domain | None, ...]  # of each member; None: not known
    intervals: dict[str, Interval | None]  # property -> ; None: not calibrated
    layout: Layout

    @property
    def properties(self) -> tuple[str, ...]:
        return tuple(self.intervals)


class Spread(NamedTuple):
    mean: np.ndarray  # (n_rows,) in the unit; NaN where there is a problem
    sd: np.ndarray  # (n_rows,) over the members; 0 of one member


class Screened(NamedTuple):
    block: Block
    spreads: dict[str, Spread]  # property ->
    distance: np.ndarray  # (n_rows,) from what was trained on, 1 is the limit; NaN where not known
    outside: list[str]  # why a row lies outside of what was trained on; empty: it does not
    problems: dict[int, str]  # row -> why it has no prediction


def layout(members: Sequence[Member]) -> Layout:
    names = tuple(dict.fromkeys(name for member in members for name in member.feature_sets))
    columns = tuple(dict.fromkeys(column for member in members for column in member.columns))
    widths = [
        len(columns) if name == "columns" else len(FEATURE_SETS[name].labels(NO_ROWS))
        for name in names
    ]
    start = dict(zip(names, np.cumsum([0, *widths]), strict=False))
    width = dict(zip(names, widths, strict=True))

    def places(member: Member, name: str) -> np.ndarray:
        local = (
            [columns.index(column) for column in member.columns]
            if name == "columns"
            else range(width[name])
        )
        return start[name] + np.array(local, np.int64)

    picks = (
        np.concatenate([places(member, name) for name in member.feature_sets]) for member in members
    )
    return Layout(names, columns, tuple(picks))


def ensemble(spreads: Sequence[np.ndarray]) -> Spread:
    """Mean and standard deviation over members' predictions (n_members, n_rows)."""
    stacked = np.asarray(spreads)
    sd = stacked.std(0, ddof=1) if len(stacked) > 1 else np.zeros(stacked.shape[1])
    return Spread(stacked.mean(0), sd)


def screened(screen: Screen, candidates: Candidates, workers: int = 1) -> Iterator[Screened]:
    """Every block of candidates with what is predicted for it, in order."""
    waiting: deque[tuple[Block, Materials, dict[int, str]]] = deque()
    seen = seen_elements(screen) if candidates.has_formula else None

    def batches() -> Iterator[Materials]:
        for block in candidates.blocks:
            waiting.append((block, *_readable(screen.layout, block, candidates.has_formula)))
            yield waiting[-1][1]

    for described in features.describe_batches(screen.layout.names, batches(), workers):
        yield _predicted(screen, seen, *waiting.popleft(), described)


def _readable(asked: Layout, block: Block, has_formula: bool) -> tuple[Materials, dict[int, str]]:
    """The materials of a block's sound rows, whose `line` is their row in it, and what is wrong with the others."""
    problems = dict(block.problems)
    rows = np.array([row for row in range(len(block.fields)) if row not in problems], np.int64)
    # A table of feature columns need not have formulas; then any stands in for them, and nothing looks at it.
    formulas = [block.formula[row] for row in rows] if has_formula else ["H"] * len(rows)
    columns = dict(zip(asked.columns, block.columns[rows].T, strict=True))
    crystals = block.crystals and block.crystals.take(rows)
    table = RawTable(rows, formulas, formulas, columns=columns, crystals=crystals)
    materials, rejected = parse_materials(table, named=False)
    for row in rejected:
        problems[row.line] = f"{row.reason}: {row.detail}" if row.detail else row.reason
    unknown = features.unknown_elements(asked.names, materials)
    for row, symbols in unknown.items():
        problems[int(materials.line[row])] = (
            f"element unknown to feature set {'+'.join(asked.names)}: {symbols}"
        )
    if unknown:
        materials = materials.take(np.setdiff1d(np.arange(len(materials)), list(unknown)))
    return materials, problems


def _predicted(
    screen: Screen,
    seen: frozenset[str] | None,
    block: Block,
    materials: Materials,
    problems: dict[int, str],
    described: Described,
) -> Screened:
    rows = materials.line
    for row, (reason, detail) in described.unsuited.items():
        problems[int(rows[row])] = f"{reason}: {detail}" if detail else reason
    sound = np.setdiff1d(np.arange(len(rows)), list(described.unsuited))
    x, rows = described.x[sound], rows[sound]
    n_rows, n_features = len(block.fields), described.x.shape[1]
    taken = [
        x if np.array_equal(pick, np.arange(n_features)) else x[:, pick]
        for pick in screen.layout.picks
    ]
    predictions = [predict(own) for predict, own in zip(screen.predictors, taken, strict=True)]
    spreads = {}
    for name in screen.properties:
        columns = [
            predicted[:, list(member.units).index(name)]
            for member, predicted in zip(screen.members, predictions, strict=True)
            if name in member.units
        ]
        spreads[name] = Spread(*(_placed(values, rows, n_rows) for values in ensemble(columns)))
    distances = [np.full(len(rows), np.nan)]
    done: set[int] = set()
    for domain, own in zip(screen.domains, taken, strict=True):
        if domain is not None and id(domain) not in done:  # members of one pack share theirs
            done.add(id(domain))
            distances.append(domain.distance(own))
    distance = _placed(np.fmax.reduce(distances), rows, n_rows)
    return Screened(block, spreads, distance, _outside(seen, materials, distance), problems)


def _placed(values: np.ndarray, rows: np.ndarray, n_rows: int) -> np.ndarray:
    """(n_rows,) with `values` at `rows`, else NaN."""
    out = np.full(n_rows, np.nan)
    out[rows] = values
    return out


def _outside(seen: frozenset[str] | None, materials: Materials, distance: np.ndarray) -> list[str]:
    """In words, for every row of the block: elements that were not trained on, and a distance beyond the limit."""
    out = [""] * len(distance)
    for row in np.flatnonzero(distance > 1):
        out[row] = f"{distance[row]:.3g} times as far from the training rows as 95 % of val rows"
    if seen is None:
        return [text or "elements not known" for text in out]
    is_new = np.array([False, *(symbol not in seen for symbol in SYMBOLS)])
    places = np.flatnonzero(is_new[materials.number])
    news: dict[int, list[str]] = {}
    for row, place in zip(materials.line[materials.row_of_amount[places]], places, strict=True):
        news.setdefault(int(row), []).append(SYMBOLS[materials.number[place] - 1])
    for row, symbols in news.items():
        out[row] = "; ".join(filter(None, [f"no training row has {', '.join(symbols)}", out[row]]))
    return out


def seen_elements(screen: Screen) -> frozenset[str] | None:
    """The symbols that every member was trained on; None where that is not known of any."""
    found = [
        domain.elements if domain is not None else member.elements
        for member, domain in zip(screen.members, screen.domains, strict=True)
    ]
    found = [elements for elements in found if elements is not None]
    return frozenset.intersection(*found) if found else None
