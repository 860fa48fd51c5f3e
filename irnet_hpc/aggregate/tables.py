"""Build tables from runs, as frozen records from which every output is made.

A table contains comparable runs only: they share the pack, recipe, protocol, number of training
rows and start. Its rows are properties, and its columns are models. A cell is the mean test MAE
over runs, in the property's unit. The classical models of a pack have a table of their own, and the
best of them is a column of the other tables. Networks for several properties also have tables of
their own, in which they are compared with networks for one property.
"""

import builtins
import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from statistics import fmean

from irnet_hpc.aggregate.groups import (
    Group,
    Start,
    counted_once,
    file_name,
    group_runs,
    is_stale,
    pack_labels,
    short_part,
)
from irnet_hpc.aggregate.scores import (
    BestClassical,
    Model,
    ModelScore,
    best_classical,
    mean_mae,
    model_of,
    score_model,
)
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import FinishedRun, Gap
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.runs.state_names import GapState


class Missing(StrEnum):
    """The reasons why a model has no score in a row. The values are shown in the cells."""

    FAILED = "failed"
    UNFINISHED = "unfinished"
    UNREADABLE = "unreadable"
    STALE = "stale"
    RUNNING = "running"
    QUEUED = "queued"
    NOT_RUN = "not run"


# State of a run without a result -> text of its cell. If the runs of a cell have several states,
# the first state in this order decides.
MISSING = {
    GapState.FAILED: Missing.FAILED,
    GapState.PREEMPTED: Missing.UNFINISHED,
    GapState.UNREADABLE: Missing.UNREADABLE,
    GapState.STALE: Missing.STALE,
    GapState.RUNNING: Missing.RUNNING,
    GapState.UNFINISHED: Missing.UNFINISHED,
    GapState.QUEUED: Missing.QUEUED,
    GapState.NOT_RUN: Missing.NOT_RUN,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One property of a table. The numbers of rows and the baseline are means over splits."""

    property: str
    unit: str
    n_train: int
    n_val: int
    n_test: int
    baseline: float  # MAE of predicting the median of the training rows for every test row
    baseline_best: bool  # whether no model has a lower MAE than the baseline
    scores: tuple[ModelScore | None, ...]  # one for each model of the table
    # None: there is no result, or this is a table of classical models.
    best_classical: BestClassical | None = None
    missing: tuple[Missing | None, ...] = ()  # one for each model; None: it has a score

    @builtins.property
    def label(self) -> str:
        """Property and unit, e.g. `band_gap (eV)`."""
        return f"{self.property} ({self.unit})"


@dataclasses.dataclass(frozen=True)
class Table:
    """Comparable scores: rows are properties, columns are models."""

    pack: str
    recipe: str  # the name, with a hash if several recipes have the same name
    protocol: str
    selected_on: str  # val | test
    train_rows: int | None
    start: Start | None  # None: random weights
    models: tuple[Model, ...]  # in the order of the columns
    rows: tuple[Row, ...]
    stale: bool = False  # whether the recipe or the trainer has since changed
    source: str | None = None  # the source of the pack, e.g. oqmd
    held_out: bool = False  # whether test rows have elements that training rows lack
    splits: tuple[int, ...] = ()  # seeds of the packs' splits
    joint: str | None = None  # the properties that each network predicts together; None: one

    @property
    def start_from(self) -> str | None:
        """The run from whose weights the runs started, in words."""
        return str(self.start) if self.start else None

    @property
    def recipe_label(self) -> str:
        """The recipe's name in outputs, with " (stale)" appended if the recipe is stale."""
        return self.recipe + (" (stale)" if self.stale else "")

    @property
    def settings(self) -> dict[str, str | int | None]:
        """The settings that all numbers of the table share: the first columns of every CSV."""
        return {
            "pack": self.pack,
            "recipe": self.recipe_label,
            "protocol": self.protocol,
            "selected_on": self.selected_on,
            "train_rows": self.train_rows,
            "start_from": self.start_from,
        }

    @property
    def title(self) -> str:
        """The settings in words. They always state whether the test rows selected the epochs."""
        parts = [self.pack] + ([f"{len(self.splits)} splits"] if len(self.splits) > 1 else [])
        parts += [f"recipe {self.recipe_label}", f"protocol {self.protocol}"]
        parts += [f"first {self.train_rows:,} training rows"] if self.train_rows else []
        return ", ".join(parts) + self.origin_words + self.selection_words

    @property
    def origin_words(self) -> str:
        """The words `, started from ...` and `, one network for ...`, if these apply."""
        words = f", started from {self.start_from}" if self.start_from else ""
        return words + (f", one network for {self.joint.replace(',', ', ')}" if self.joint else "")

    @property
    def selection_words(self) -> str:
        """The words ` (selected on test)` if the test rows selected the epochs, else ""."""
        return " (selected on test)" if self.selected_on == "test" else ""

    @property
    def name(self) -> str:
        """The name of the table in files and labels; no other table has the same name."""
        rows = self.train_rows and f"n{self.train_rows}"
        return file_name((self.pack, self.recipe_label, self.protocol, rows, *self.origin_parts))

    @property
    def origin_parts(self) -> tuple[str | None, str | None]:
        """The start and the joint properties, as parts of a file name."""
        return (
            short_part("start", self.start_from),
            short_part("joint", self.joint and f"joint-{self.joint}"),
        )

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths of the networks, each once, in order."""
        return tuple(sorted({model.depth for model in self.models if model.depth}))

    @property
    def compared_depths(self) -> tuple[int, ...]:
        """The depths at which a row has both plain and irnet, the main comparison of the papers."""
        return tuple(
            depth
            for depth in self.depths
            if any(
                self.score(row, Model("plain", depth)) and self.score(row, Model("irnet", depth))
                for row in self.rows
            )
        )

    @property
    def has_classical(self) -> bool:
        """Return True if a row has a best classical model to compare with."""
        return any(row.best_classical for row in self.rows)

    @property
    def compared_with_single(self) -> tuple[Model, ...]:
        """Models of a joint table that were also trained for one of its properties alone."""
        compared = {
            model
            for _, model, score in self.entries()
            if score and score.improvement_over_single is not None
        }
        return tuple(model for model in self.models if model in compared)

    def entries(self) -> Iterator[tuple[Row, Model, ModelScore | None]]:
        """Yield every cell, row by row; the score of an empty cell is None."""
        for row in self.rows:
            for model, score in zip(self.models, row.scores, strict=True):
                yield row, model, score

    def scored(self) -> Iterator[tuple[Row, Model, ModelScore]]:
        """Yield the cells that have a score, row by row."""
        for row, model, score in self.entries():
            if score:
                yield row, model, score

    def score(self, row: Row, model: Model) -> ModelScore | None:
        """Return the score of a model in a row; None if there is none."""
        return row.scores[self.models.index(model)] if model in self.models else None

    def missing(self, row: Row, model: Model) -> Missing:
        """Return the reason why a model has no score in a row."""
        known = row.missing and model in self.models
        return (row.missing[self.models.index(model)] if known else None) or Missing.NOT_RUN


def tabulate(runs: Sequence[FinishedRun], gaps: Iterable[Gap] = ()) -> tuple[Table, ...]:
    """Build all tables.

    Args:
        runs: finished runs.
        gaps: the runs without a result, which explain why cells are empty.

    Raises:
        UserError: if two packs, or two origins, of different content have the same name; the
            message names two folders.
    """
    runs = counted_once(runs)
    planned = [(gap.state, gap.spec) for gap in gaps if gap.spec]
    classical = [run for run in runs if run.spec.is_classical and not is_stale(run)]
    packs, groups = pack_labels(runs), group_runs(runs)
    by_name = {group[:-1]: group for group in groups}
    tables = []
    for group in groups:
        single = by_name.get(group._replace(joint=None)[:-1]) if group.joint else None
        of_pack = [run for run in classical if packs[run.spec.pack] == group.pack]
        of_group = [(state, spec) for state, spec in planned if _belongs(spec, group, packs)]
        tables.append(_table(group, of_pack, single.runs if single else (), of_group))
    return tuple(tables)


def _belongs(spec: RunSpec, group: Group, packs: Mapping[str, str]) -> bool:
    """Return True if a run without a result belongs to the group's table."""
    pack = packs.get(spec.pack) or re.sub(r"-(?:split|fold)\d+(?=-|$)", "", spec.pack)
    joint = spec.property if len(spec.properties) > 1 else None
    started = spec.start_from is not None
    return (pack, spec.recipe, spec.protocol, spec.train_rows, started, joint) == (
        group.pack,
        group.recipe.name,
        group.protocol,
        group.train_rows,
        group.start is not None,
        group.joint,
    )


def _table(
    group: Group,
    classical: Sequence[FinishedRun],
    single: Sequence[FinishedRun],
    gaps: Sequence[tuple[GapState, RunSpec]],
) -> Table:
    runs = group.runs
    # A model without any result has a column, too, whose cells say why.
    specs = [run.spec for run in runs] + [spec for _, spec in gaps]
    models = tuple(sorted({model_of(spec) for spec in specs}, key=lambda model: model.order))
    by_property = defaultdict(list)
    for run in runs:
        by_property[run.spec.property].append(run)
    on_test = group.protocol == "paper" or any(run.result.selected_on == "test" for run in runs)
    classical, single = _rivals(group, classical, single)
    return Table(
        pack=group.pack,
        recipe=group.recipe.text,
        protocol=group.protocol,
        selected_on="test" if on_test else "val",
        train_rows=group.train_rows,
        start=group.start,
        models=models,
        rows=tuple(
            _row(
                by_property[name],
                models,
                best_classical(classical, name, group.protocol),
                [run for run in single if run.spec.property == name],
                tuple(_missing(gaps, model, name) for model in models),
            )
            for name in sorted(by_property, key=_property_order)
        ),
        stale=group.recipe.stale,
        source=runs[0].result.pack_identity.get("source"),
        held_out=runs[0].split_identity.get("by") in ("element", "family"),
        splits=tuple(sorted({run.split for run in runs if run.split is not None})),
        joint=group.joint,
    )


def _property_order(name: str) -> tuple[int, str]:
    """Return a sort key: known properties in the order of PROPERTIES, then all others by name."""
    known = list(PROPERTIES)
    return known.index(name) if name in known else len(known), name


def _rivals(
    group: Group, classical: Sequence[FinishedRun], single: Sequence[FinishedRun]
) -> tuple[list[FinishedRun], list[FinishedRun]]:
    """Select the runs with which the networks of a group are compared.

    Returns:
        The classical runs, and for a joint group the single-property runs, that have the same
        training rows.
    """
    n_rows = group.train_rows
    # If only some of the first n rows report a property, no single-property run has these rows.
    unlike = {
        run.spec.property
        for run in group.runs
        if group.joint and run.result.n_train < (n_rows or 0)
    }
    # Classical models are not compared with themselves.
    others = [] if group.runs[0].spec.is_classical else classical
    alike = [run for run in others if run.spec.train_rows == n_rows]
    return (
        [run for run in alike if run.spec.property not in unlike],
        [run for run in single if run.spec.property not in unlike],
    )


def _missing(gaps: Iterable[tuple[GapState, RunSpec]], model: Model, name: str) -> Missing:
    """Explain an empty cell from the states of its runs."""
    states = {state for state, spec in gaps if model_of(spec) == model and name in spec.properties}
    return next((cell for state, cell in MISSING.items() if state in states), Missing.NOT_RUN)


def _row(
    runs: Sequence[FinishedRun],
    models: Sequence[Model],
    classical: BestClassical | None,
    single: Sequence[FinishedRun],
    missing: Sequence[Missing],
) -> Row:
    """Build a row from the runs on its property."""
    _refuse_unequal_rows(runs)
    first_of_split = list({run.split: run.result for run in runs}.values())
    runs_of, single_of = (
        {model: [run for run in side if model_of(run.spec) == model] for model in models}
        for side in (runs, single)
    )
    baseline = fmean(result.baseline_mae for result in first_of_split)

    # If a model was trained on some of the splits only, its mean is over other rows than that of
    # its rivals, so it cannot be the best.
    def is_complete(side: Iterable[FinishedRun]) -> bool:
        return len({run.split for run in side}) == len(first_of_split)

    rivals = [side for side in (*runs_of.values(), classical.runs if classical else ()) if side]
    lowest = min([baseline, *(mean_mae(side) for side in rivals if is_complete(side))])
    scores = tuple(
        score_model(
            side,
            runs_of.get(Model("plain", model.depth), []),
            single_of[model],
            classical,
            is_complete(side) and mean_mae(side) == lowest,
        )
        if side
        else None
        for model, side in runs_of.items()
    )
    n_train, n_val, n_test = (
        round(fmean(getattr(result, name) for result in first_of_split))
        for name in ("n_train", "n_val", "n_test")
    )
    return Row(
        property=runs[0].spec.property,
        unit=runs[0].result.unit,
        n_train=n_train,
        n_val=n_val,
        n_test=n_test,
        baseline=baseline,
        baseline_best=baseline == lowest,
        scores=scores,
        best_classical=classical and dataclasses.replace(classical, best=classical.mae == lowest),
        missing=tuple(None if score else why for score, why in zip(scores, missing, strict=True)),
    )


def _refuse_unequal_rows(runs: Sequence[FinishedRun]) -> None:
    """Raise UserError if runs of one row differ in unit, or runs of one split differ in rows."""
    first_of_split: dict[int | None, FinishedRun] = {}
    for run in runs:
        first = first_of_split.setdefault(run.split, run)
        for field in ("unit", "n_train", "n_val", "n_test", "baseline_mae"):
            other = runs[0] if field == "unit" else first
            value, known = getattr(run.result, field), getattr(other.result, field)
            # The baseline depends only on the targets, but runs may sum it in different orders.
            if value == known or (
                field == "baseline_mae" and math.isclose(value, known, rel_tol=1e-6)
            ):
                continue
            raise UserError(
                f"{other.folder} and {run.folder} belong to one row of a table, but differ in "
                f"{field}: {known} and {value}"
            )
