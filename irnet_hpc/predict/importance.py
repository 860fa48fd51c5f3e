"""Measure how much a trained model relies on each feature: permutation importance.

A feature, or a group of features together, is shuffled among the rows; its importance is the amount
by which the MAE rises (Breiman 2001; Fisher et al. 2019). scikit-learn's `permutation_importance`
shuffles and counts. It knows single columns only, so it is given a table with a column for each set
of features to be shuffled: the numbers of the rows that the set is taken from.

Importance belongs to the model and these rows, not to nature: of two features that say the same,
either may seem to be of no use, which is why groups are measured, too.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from irnet_hpc.data.formulas import InvalidFormula, parse_formula
from irnet_hpc.distributed.launch import stated_threads
from irnet_hpc.features.groups import group_of
from irnet_hpc.models.modes import own_modes
from irnet_hpc.pack.store import Pack, reported_rows
from irnet_hpc.predict.committee import own_pack
from irnet_hpc.predict.members import Member, Predictor, make_predictor, read_member
from irnet_hpc.train.threads import n_free_cores, with_threads

N_SHUFFLES = 5  # how often each set is shuffled
SHUFFLE_SEED = 0  # of the shuffles; every set is shuffled in the same ways
SHUFFLED_ROWS = 500  # of each role, the first; rows of a pack are in random order
MIN_ROWS = 10  # an element of fewer of these rows has no importances of its own
ROLES = ("val", "test")


class Importance(NamedTuple):
    """By how much the MAE rises if a set of features is shuffled."""

    role: str  # val | test
    kind: str  # feature | group
    name: str
    element: str | None  # on the rows that contain it; None: on all rows
    n_rows: int
    mae: float  # without a shuffle, in the property's unit
    rise: float  # mean over the shuffles, in the unit
    sd: float  # standard deviation over the shuffles (ddof = 1), in the unit


class Columns(NamedTuple):
    """The features that are shuffled together."""

    kind: str  # feature | group
    name: str
    places: list[int]  # among the features


class _Shuffled:
    """Predict rows whose sets of features come from other rows; an estimator for scikit-learn."""

    def __init__(self, x: np.ndarray, sets: Sequence[Columns], predict: Any) -> None:
        self.x, self.sets, self._predict = x, sets, predict

    def fit(self, *_: object) -> "_Shuffled":
        """Return the estimator, which is fitted already."""
        return self

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predict n rows.

        Args:
            rows: (n_rows, n_sets): the row that each set is taken from.
        """
        x = self.x.copy()
        own = np.arange(len(x))
        for place in np.flatnonzero((rows != own[:, None]).any(axis=0)).tolist():
            columns = self.sets[place].places
            x[:, columns] = self.x[rows[:, place]][:, columns]
        return self._predict(x)


@own_modes()
def importance_of(
    folder: Path | str, property_name: str, pack_dir: Path | str | None = None
) -> list[Importance]:
    """Measure the importance of all features of a run's model, on rows that it was not trained on.

    Args:
        folder: The folder of a finished run of protocol `honest`.
        property_name: One of the properties that the model predicts.
        pack_dir: Folder of the run's pack; None: $IRNET_PACKS, else packs/.

    Returns:
        For val and for test, and for each feature and each group, the rise of the MAE on all rows;
        and for each group and each element of enough rows, the rise on the rows of this element.

    Raises:
        UserError: If no model or no pack is there, or they cannot be used.

    Source:
        Breiman, Machine Learning 45, 5 (2001); Fisher, Rudin and Dominici, Journal of Machine
        Learning Research 20, 177 (2019).
    """
    member = read_member(folder)
    predict = make_predictor(member, torch.device("cpu"))
    # Beside busy processes, threads wait for each other at every layer of every small pass.
    n_threads = n_free_cores() if stated_threads() is None else torch.get_num_threads()
    with with_threads(min(n_threads, torch.get_num_threads())), own_pack(member, pack_dir) as pack:
        return [
            importance
            for role in ROLES
            for importance in _on_role(member, predict, pack, property_name, role)
        ]


def _on_role(
    member: Member, predict: Predictor, pack: Pack, name: str, role: str
) -> list[Importance]:
    rows = pack.rows(role)
    places = reported_rows(pack, name, rows)[:SHUFFLED_ROWS] - rows.start
    if not len(places):
        return []
    last = int(places[-1]) + 1
    first = slice(rows.start, rows.start + last)
    x, target = pack.x(first)[places], pack.y(name, first)[places]
    formulas = pack.formulas(first)
    column = list(member.units).index(name)
    masks = masks_of(formulas[place] for place in places)
    sets = column_sets(member.feature_labels)
    found = permuted(x, target, sets, masks, lambda rows: predict(rows)[:, column])
    return [importance._replace(role=role) for importance in found]


def column_sets(labels: Sequence[str]) -> list[Columns]:
    """Return the sets that are shuffled: each feature, then each group."""
    groups: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        groups.setdefault(group_of(label), []).append(place)
    features = [Columns("feature", label, [place]) for place, label in enumerate(labels)]
    return features + [Columns("group", name, places) for name, places in groups.items()]


def masks_of(formulas: Iterable[str]) -> dict[str | None, np.ndarray]:
    """Return which rows contain each element of at least MIN_ROWS rows; None stands for all rows.

    Args:
        formulas: (n_rows,). A formula that cannot be read counts among all rows only.
    """
    found = []
    for formula in formulas:
        try:
            found.append(set(parse_formula(formula)))
        except InvalidFormula:
            found.append(set())
    masks: dict[str | None, np.ndarray] = {None: np.ones(len(found), bool)}
    for symbol in sorted(set().union(*found)):
        mask = np.array([symbol in of_row for of_row in found])
        if mask.sum() >= MIN_ROWS:
            masks[symbol] = mask
    return masks


def permuted(
    x: np.ndarray,
    target: np.ndarray,
    sets: Sequence[Columns],
    masks: dict[str | None, np.ndarray],
    predict: Any,
) -> list[Importance]:
    """Measure by how much the MAE rises when sets of features are shuffled.

    Args:
        x: The features (n_rows, n_features), at least two rows.
        target: The targets (n_rows,).
        sets: The sets of features.
        masks: Element -> which rows count (n_rows,); None stands for all rows.
        predict: A function from features (n_rows, n_features) to predictions (n_rows,).

    Returns:
        The importances, with an empty `role`: of each set on all rows, and of each group on the
        rows of each element. A set that is constant is not shuffled: its importance is 0.
    """
    from sklearn.inspection import permutation_importance

    varies = (x != x[:1]).any(axis=0)
    shuffled = [columns for columns in sets if varies[columns.places].any()]
    estimator = _Shuffled(x, shuffled, predict)

    def score(model: _Shuffled, rows: np.ndarray, target: np.ndarray) -> dict[str | None, float]:
        errors = np.abs(model.predict(rows) - target)
        return {element: -float(errors[mask].mean()) for element, mask in masks.items()}

    own = np.repeat(np.arange(len(x))[:, None], len(shuffled), axis=1)
    errors = np.abs(predict(x) - target)
    rises: dict[str | None, np.ndarray] = {}  # element -> (n_sets, n_repeats)
    if shuffled:
        measured = permutation_importance(
            estimator, own, target, scoring=score, n_repeats=N_SHUFFLES, random_state=SHUFFLE_SEED
        )
        rises = {element: bunch.importances for element, bunch in measured.items()}
    place_of = {(columns.kind, columns.name): place for place, columns in enumerate(shuffled)}
    found = []
    for element, mask in masks.items():
        n_rows, mae = int(mask.sum()), float(errors[mask].mean())
        for kind, name, _ in sets:
            if element is not None and kind == "feature":
                continue
            place = place_of.get((kind, name))
            rise = np.zeros(N_SHUFFLES) if place is None else rises[element][place]
            mean, sd = float(rise.mean()), float(rise.std(ddof=1))
            found.append(Importance("", kind, name, element, n_rows, mae, mean, sd))
    return found
