"""Predict batches of candidates with an ensemble: predictions, their spread, and warnings.

For each property, the result is the mean and the standard deviation (ddof = 1) over the members
that predict it, weighted in a committee, with an interval if one could be calibrated. Each feature
set is computed only once, even if several members need it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.data.known_formulas import KnownFormulas
from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.properties import lowest_of
from irnet_hpc.data.raw_table import RawTable
from irnet_hpc.features import sets as features
from irnet_hpc.features.sets import FEATURE_SETS, Described
from irnet_hpc.predict.candidates import Candidates, RowBatch
from irnet_hpc.predict.domain import Domain
from irnet_hpc.predict.intervals import ConformalInterval, SteppedInterval, half_width
from irnet_hpc.predict.members import Member, Predictor, set_width

MAX_LISTED = 3  # features in a reason
ROUNDING = 1e-12  # of a sum of squared weights


class FeatureLayout(NamedTuple):
    """The features that are computed for all members, and which of them each member needs."""

    names: tuple[str, ...]  # feature sets
    columns: tuple[str, ...]  # columns of the user's table
    picks: tuple[np.ndarray, ...]  # for each member (n_features,) places among all features

    @property
    def formula_needed(self) -> bool:
        """Return True unless all features are columns of the user's table."""
        return any(name != "columns" for name in self.names)

    @property
    def structure_set(self) -> str | None:
        """Return the first feature set that needs crystal structures, or None."""
        return next((name for name in self.names if FEATURE_SETS[name].of_structure), None)


class Ensemble(NamedTuple):
    """Models that predict together, and the data that show how reliable they are."""

    members: tuple[Member, ...]
    predictors: tuple[Predictor, ...]  # one for each member
    domains: tuple[Domain | None, ...]  # one for each member; None: its pack is missing
    layout: FeatureLayout
    # By property; None: not calibrated.
    intervals: dict[str, ConformalInterval | SteppedInterval | None]
    # Property -> (n_groups of it,) with the sum 1; None: the groups of a property count the same.
    weights: dict[str, np.ndarray] | None = None
    # Places of members that are averaged before all else, since they are one model that was trained
    # on the folds of one table; None: each member is a group of its own.
    groups: tuple[tuple[int, ...], ...] | None = None
    # The formulas that the model has seen, if it states them itself (portable.py).
    known: KnownFormulas | None = None

    @property
    def properties(self) -> tuple[str, ...]:
        """Return the properties that the ensemble predicts."""
        return tuple(self.intervals)

    @property
    def all_groups(self) -> tuple[tuple[int, ...], ...]:
        """Return the places of the members in each group."""
        return self.groups or tuple((place,) for place in range(len(self.members)))

    def groups_of(self, property: str) -> list[tuple[int, ...]]:
        """Return the groups that predict a property."""
        return [group for group in self.all_groups if property in self.members[group[0]].units]

    def n_members(self, property: str) -> int:
        """Return the number of groups of members that predict a property."""
        return len(self.groups_of(property))

    def bounds(self, property: str, spread: "Spread") -> tuple[np.ndarray, np.ndarray] | None:
        """Return the lower and upper ends of the intervals, each (n_rows,) in the property's unit.

        Returns None if the interval is not calibrated.

        The lower end is not below the lowest value that the property can have, unless the
        prediction itself is.
        """
        interval = self.intervals[property]
        if interval is None:
            return None
        half = half_width(interval, spread.sd, spread.mean)
        lowest = np.minimum(lowest_of(property), spread.mean)
        return np.maximum(spread.mean - half, lowest), spread.mean + half


class Spread(NamedTuple):
    """Mean and standard deviation over the members, each (n_rows,) in the property's unit."""

    mean: np.ndarray  # NaN for a row with a problem
    sd: np.ndarray  # 0 for a single member


class ScreenedBatch(NamedTuple):
    """A batch of candidates with its predictions."""

    batch: RowBatch
    spreads: dict[str, Spread]  # by property
    distance: np.ndarray  # (n_rows,) to the training rows; 1 is the limit, NaN: not known
    outside: list[str]  # (n_rows,) why a row lies outside the training data; empty: it does not
    problems: dict[int, str]  # row -> why it has no prediction
    # (n_rows,) `train` or `val` if the model has seen the formula there, else empty; None: it does
    # not state its formulas.
    seen_as: list[str] | None = None


def feature_layout(members: Sequence[Member]) -> FeatureLayout:
    """Place the feature sets of all members side by side, each set once."""
    names = tuple(dict.fromkeys(name for member in members for name in member.feature_sets))
    columns = tuple(dict.fromkeys(column for member in members for column in member.columns))
    widths = [len(columns) if name == "columns" else set_width(name) for name in names]
    start = dict(zip(names, np.cumsum([0, *widths]), strict=False))
    width = dict(zip(names, widths, strict=True))

    def places(member: Member, name: str) -> np.ndarray:
        own = (
            [columns.index(column) for column in member.columns]
            if name == "columns"
            else range(width[name])
        )
        return start[name] + np.array(own, np.int64)

    picks = (
        np.concatenate([places(member, name) for name in member.feature_sets]) for member in members
    )
    return FeatureLayout(names, columns, tuple(picks))


def spread_of(
    predictions: Sequence[np.ndarray] | np.ndarray, weights: np.ndarray | None = None
) -> Spread:
    """Return the mean and standard deviation over members.

    Args:
        predictions: (n_members, n_rows).
        weights: (n_members,) with the sum 1; None: all members count the same. Equal weights give
            the same spread as None, except for rounding. If one member has all the weight, the
            standard deviation is 0.
    """
    stacked = np.asarray(predictions)
    if weights is None:
        sd = stacked.std(0, ddof=1) if len(stacked) > 1 else np.zeros(stacked.shape[1])
        return Spread(stacked.mean(0), sd)
    mean = weights @ stacked
    # The unbiased variance for weights that say how reliable a member is.
    freedom = 1 - float((weights**2).sum())
    if freedom < ROUNDING:
        return Spread(mean, np.zeros_like(mean))
    return Spread(mean, np.sqrt(weights @ (stacked - mean) ** 2 / freedom))


def screen(ensemble: Ensemble, candidates: Candidates, workers: int = 1) -> Iterator[ScreenedBatch]:
    """Predict candidates batch by batch, in order.

    Args:
        ensemble: The models.
        candidates: The rows to predict; the memory needed does not depend on their number.
        workers: Number of processes that compute features.

    Yields:
        Each batch with its predictions. A row that cannot be predicted has a problem instead.
    """
    waiting: deque[tuple[RowBatch, Materials, dict[int, str]]] = deque()
    elements = training_elements(ensemble) if candidates.has_formula else None

    is_known = ensemble.known is not None

    def materials() -> Iterator[Materials]:
        for batch in candidates.batches:
            waiting.append(
                (batch, *readable_rows(ensemble.layout, batch, candidates.has_formula, is_known))
            )
            yield waiting[-1][1]

    for described in features.describe_batches(ensemble.layout.names, materials(), workers):
        yield _predict(ensemble, elements, *waiting.popleft(), described)


def readable_rows(
    layout: FeatureLayout, batch: RowBatch, has_formula: bool, named: bool = False
) -> tuple[Materials, dict[int, str]]:
    """Parse the rows of a batch. Returns the materials that could be read, and row -> problem.

    The field `line` of a material is the number of its row in the batch.
    """
    problems = dict(batch.problems)
    rows = np.array([row for row in range(len(batch.fields)) if row not in problems], np.int64)
    # A table of feature columns may have no formulas. Any formula then does, since nothing uses it.
    formulas = [batch.formula[row] for row in rows] if has_formula else ["H"] * len(rows)
    columns = dict(zip(layout.columns, batch.columns[rows].T, strict=True))
    crystals = batch.crystals and batch.crystals.take(rows)
    table = RawTable(rows, formulas, formulas, columns=columns, crystals=crystals)
    materials, rejected = parse_materials(table, named=named)
    for row in rejected:
        problems[row.line] = f"{row.reason}: {row.detail}" if row.detail else row.reason
    unknown = features.unknown_elements(layout.names, materials)
    for place, symbols in unknown.items():
        problems[int(materials.line[place])] = (
            f"element unknown to feature set {'+'.join(layout.names)}: {symbols}"
        )
    if unknown:
        materials = materials.take(np.setdiff1d(np.arange(len(materials)), list(unknown)))
    return materials, problems


def _predict(
    ensemble: Ensemble,
    elements: frozenset[str] | None,
    batch: RowBatch,
    materials: Materials,
    problems: dict[int, str],
    described: Described,
) -> ScreenedBatch:
    rows, n_rows, n_features = materials.line, len(batch.fields), described.x.shape[1]
    for place, (reason, detail) in described.unsuited.items():
        problems[int(rows[place])] = f"{reason}: {detail}" if detail else reason
    sound = np.setdiff1d(np.arange(len(rows)), list(described.unsuited))
    x, rows = described.x[sound], rows[sound]
    inputs = [
        x if np.array_equal(pick, np.arange(n_features)) else x[:, pick]
        for pick in ensemble.layout.picks
    ]
    predictions = [predict(own) for predict, own in zip(ensemble.predictors, inputs, strict=True)]
    spreads = {}
    for name in ensemble.properties:
        columns = [
            np.mean(
                [
                    predictions[place][:, list(ensemble.members[place].units).index(name)]
                    for place in group
                ],
                axis=0,
            )
            for group in ensemble.groups_of(name)
        ]
        spread = spread_of(columns, ensemble.weights[name] if ensemble.weights else None)
        spreads[name] = Spread(*(_placed(values, rows, n_rows) for values in spread))
    distance = _placed(_distance(ensemble, inputs, len(rows)), rows, n_rows)
    outside = _outside(elements, materials, _new_values(ensemble, inputs, rows), distance)
    return ScreenedBatch(
        batch, spreads, distance, outside, problems, _seen_as(ensemble, materials, n_rows)
    )


def _seen_as(ensemble: Ensemble, materials: Materials, n_rows: int) -> list[str] | None:
    """Return for each row whether its formula trained the model; None if that is not known."""
    if ensemble.known is None:
        return None
    texts = [""] * n_rows
    roles = ensemble.known.roles_of(materials.reduced.tolist())
    for row, role in zip(materials.line.tolist(), roles, strict=True):
        texts[row] = role
    return texts


def _distance(ensemble: Ensemble, inputs: list[np.ndarray], n_rows: int) -> np.ndarray:
    """Return the largest of each row's distances to the groups' training rows (n_rows,).

    It is NaN if no distance is known. The training rows of a group are those of all its members.
    """
    distances = [np.full(n_rows, np.nan)]
    # Members with the same training rows share one domain.
    known: dict[int, np.ndarray] = {}
    for group in ensemble.all_groups:
        of_group = [np.full(n_rows, np.nan)]
        for place in group:
            domain = ensemble.domains[place]
            if domain is None:
                continue
            if id(domain) not in known:
                known[id(domain)] = domain.distance(inputs[place])
            of_group.append(known[id(domain)])
        distances.append(np.fmin.reduce(of_group))
    return np.fmax.reduce(distances)


def _new_values(
    ensemble: Ensemble, inputs: list[np.ndarray], rows: np.ndarray
) -> dict[int, list[str]]:
    """Find features that are the same in all training rows of a group but differ in a row.

    Returns:
        Row to predict -> a text for each such feature.
    """
    new: dict[int, dict[str, None]] = {}
    for group in ensemble.all_groups:
        found = [
            _new_to_member(ensemble, place, inputs[place], rows)
            for place in group
            if ensemble.domains[place] is not None
        ]
        for row, texts in found[0].items() if found else ():
            for text in texts:
                if all(text in others.get(row, ()) for others in found[1:]):
                    new.setdefault(row, {})[text] = None
    return {row: list(texts) for row, texts in new.items()}


def _new_to_member(
    ensemble: Ensemble, place: int, own: np.ndarray, rows: np.ndarray
) -> dict[int, dict[str, None]]:
    """Find the features of rows to predict that differ from a single value in training."""
    member, domain = ensemble.members[place], ensemble.domains[place]
    assert domain is not None
    new: dict[int, dict[str, None]] = {}
    constants = domain.constants
    for row, feature in np.argwhere(constants.differ(own)).tolist():
        label = member.feature_labels[constants.place[feature]]
        text = f"{label} is {constants.value[feature]:.6g}"
        new.setdefault(int(rows[row]), {})[text] = None
    return new


def _placed(values: np.ndarray, rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Return an array (n_rows,) that has `values` at `rows`, and NaN elsewhere."""
    out = np.full(n_rows, np.nan)
    out[rows] = values
    return out


def _outside(
    elements: frozenset[str] | None,
    materials: Materials,
    new_values: dict[int, list[str]],
    distance: np.ndarray,
) -> list[str]:
    """Explain for each row why it is outside the training data; empty if it is not.

    There are three reasons: an element that no training row has; a feature that is constant over
    the training rows but has another value here (not listed if an element is new, since that
    changes many features); and a distance above 1.
    """
    out = [""] * len(distance)
    for row in np.flatnonzero(distance > 1).tolist():
        times = max(1.01, distance[row])  # what is outside shall not be shown as 1 times
        out[row] = f"{times:.3g} times as far from the training rows as 95 % of val rows"
    if elements is None:
        for row, texts in new_values.items():
            out[row] = _joined(_constant(texts), out[row])
        return [text or "elements not known" for text in out]
    is_new = np.array([False, *(symbol not in elements for symbol in SYMBOLS)])
    places = np.flatnonzero(is_new[materials.number])
    new_symbols: dict[int, list[str]] = {}
    for row, place in zip(materials.line[materials.row_of_amount[places]], places, strict=True):
        new_symbols.setdefault(int(row), []).append(SYMBOLS[materials.number[place] - 1])
    for row, symbols in new_symbols.items():
        out[row] = _joined(f"no training row has {', '.join(symbols)}", out[row])
    for row in new_values.keys() - new_symbols.keys():
        out[row] = _joined(_constant(new_values[row]), out[row])
    return out


def _constant(texts: list[str]) -> str:
    """Say which features have one value in training and another here, at most MAX_LISTED of them.

    >>> _constant(["T is 300", "flag is 0"])
    '2 features differ from the one value in every training row: T is 300, flag is 0'
    """
    if len(texts) == 1:
        return f"{texts[0]} in every training row"
    more = f" and {len(texts) - MAX_LISTED} more" if len(texts) > MAX_LISTED else ""
    named = ", ".join(texts[:MAX_LISTED])
    return f"{len(texts)} features differ from the one value in every training row: {named}{more}"


def _joined(*texts: str) -> str:
    """Join reasons, without the empty ones."""
    return "; ".join(filter(None, texts))


def training_elements(ensemble: Ensemble) -> frozenset[str] | None:
    """Return the elements that every group was trained on; None if no member records them."""
    known = []
    for group in ensemble.all_groups:
        of_group = [
            elements for place in group if (elements := _elements(ensemble, place)) is not None
        ]
        if of_group:
            known.append(frozenset.union(*of_group))
    return frozenset.intersection(*known) if known else None


def _elements(ensemble: Ensemble, place: int) -> frozenset[str] | None:
    domain = ensemble.domains[place]
    return domain.elements if domain is not None else ensemble.members[place].elements
