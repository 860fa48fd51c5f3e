"""Put all models that were trained on the same rows into one table: networks and classical ones.

The tables of tables.py have a recipe each, and classical models apart. Here models of all recipes
and starts are side by side, as in a paper, and the best of them is tested against all the others.
"""

import dataclasses
from collections.abc import Iterable

from irnet_hpc.aggregate.same_rows import SameRows, groups_of, has_seen_test, same_rows
from irnet_hpc.aggregate.scores import Model, ModelScore, Score
from irnet_hpc.aggregate.significance import LEVEL, interval_of
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.folds import chosen_on_val
from irnet_hpc.runs.predictions import Predictions


@dataclasses.dataclass(frozen=True)
class ModelLine:
    """One model on one property."""

    table: Table
    row: Row
    model: Model
    score: ModelScore
    # True if the MAE is the lowest of the property, baseline included, or if the test
    # cannot tell it apart from the lowest.
    best: bool
    p_against_best: float | None  # None: not tested, or this is the lowest MAE

    @property
    def recipe(self) -> str:
        """The recipe; empty for a classical model, which has but one."""
        return "" if self.score.runs[0].spec.is_classical else self.table.recipe_label

    @property
    def origin(self) -> str:
        """The start and the properties that are trained together, in words; empty: neither."""
        return self.table.origin_words.removeprefix(", ")


@dataclasses.dataclass(frozen=True)
class PropertyLines:
    """All models on one property, and the baseline."""

    property: str
    unit: str
    n_test: int
    baseline: float
    baseline_best: bool  # whether no model has a lower MAE than the baseline
    lines: tuple[ModelLine, ...]  # networks by architecture and depth, then classical models
    # What val chooses among the lines in each fold; None: the rows were not dealt to folds, or
    # there is nothing to choose from.
    chosen: Score | None = None


@dataclasses.dataclass(frozen=True)
class AllModels:
    """All models that were trained on the rows of one pack, with one protocol."""

    tables: tuple[Table, ...]
    properties: tuple[PropertyLines, ...]

    @property
    def lines(self) -> list[ModelLine]:
        """The lines of all properties."""
        return [line for known in self.properties for line in known.lines]

    @property
    def recipes(self) -> list[str]:
        """The recipes of the networks, each once."""
        return list(dict.fromkeys(line.recipe for line in self.lines if line.recipe))

    def training(self, line: ModelLine) -> str:
        """Say how a model was trained, as far as the title does not say it for all models."""
        recipe = line.recipe if len(self.recipes) > 1 else ""
        return ", ".join(part for part in (recipe, line.origin) if part)

    @property
    def title(self) -> str:
        """The settings that all lines share, in words."""
        table = self.tables[0]
        parts = [table.pack] + ([f"{len(table.splits)} splits"] if len(table.splits) > 1 else [])
        parts += [f"recipe {self.recipes[0]}"] if len(self.recipes) == 1 else []
        parts.append(f"protocol {table.protocol}{table.selection_words}")
        parts += [f"first {table.train_rows:,} training rows"] if table.train_rows else []
        return ", ".join(parts) + (" (stale)" if table.stale else "")

    @property
    def name(self) -> str:
        """The name of the table in labels; no other table of all models has the same name."""
        table = self.tables[0]
        parts = [table.pack, table.protocol, table.train_rows and f"n{table.train_rows}"]
        parts += ["seen" if has_seen_test(table) else None, "stale" if table.stale else None]
        return "-".join(str(part) for part in ["all", *parts] if part)


def all_models(tables: Iterable[Table], predictions: Predictions) -> tuple[AllModels, ...]:
    """Join the tables of each pack, protocol and number of training rows.

    Stale results, and results whose start has seen test formulas, are joined apart from the others.

    Args:
        tables: the tables, with intervals, ensembles and p-values (significance.judge).
        predictions: the reader of the predictions, for the interval of what val chooses.
    """
    return tuple(
        AllModels(tuple(group), tuple(_lines(known, predictions) for known in same_rows(group)))
        for group in groups_of(tables)
    )


def _lines(known: SameRows, predictions: Predictions) -> PropertyLines:
    lowest = known.lowest
    lines = tuple(
        ModelLine(
            *entry,
            best=lowest is not None
            and (entry.score is lowest or (entry.score.p_among_all or 0.0) >= LEVEL),
            p_against_best=entry.score.p_among_all,
        )
        for entry in known.entries
    )
    chosen = _chosen([entry.score for entry in known.entries], predictions)
    return PropertyLines(
        known.property, known.unit, known.n_test, known.baseline, lowest is None, lines, chosen
    )


def _chosen(scores: Iterable[Score], predictions: Predictions) -> Score | None:
    """Score what val chooses in each fold."""
    runs = chosen_on_val(run for score in scores for run in score.runs)
    if not runs:
        return None
    score = Score.from_runs(runs)
    return dataclasses.replace(score, interval=interval_of(score, predictions))
