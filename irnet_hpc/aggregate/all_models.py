"""Put all models that were trained on the same rows into one table: networks and classical ones.

The tables of tables.py have a recipe each, and classical models apart. Here models of all recipes
and starts are side by side, as in a paper, and the best of them is tested against all the others.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence

from irnet_hpc.aggregate.scores import Model, ModelScore, Score
from irnet_hpc.aggregate.significance import LEVEL, interval_of, p_against
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
        parts += ["seen" if _has_seen_test(table) else None, "stale" if table.stale else None]
        return "-".join(str(part) for part in ["all", *parts] if part)


def all_models(tables: Iterable[Table], predictions: Predictions) -> tuple[AllModels, ...]:
    """Join the tables of each pack, protocol and number of training rows.

    Stale results, and results whose start has seen test formulas, are joined apart from the others.

    Args:
        tables: the tables, with intervals and ensembles.
        predictions: the reader of the predictions, by which the models are compared.
    """
    groups: dict[tuple, list[Table]] = defaultdict(list)
    for table in tables:
        key = table.pack, table.protocol, table.train_rows, table.stale, _has_seen_test(table)
        groups[key].append(table)
    return tuple(
        AllModels(tuple(group), tuple(_properties(group, predictions))) for group in groups.values()
    )


def _has_seen_test(table: Table) -> bool:
    return table.start is not None and table.start.has_seen_test


def _properties(tables: Sequence[Table], predictions: Predictions) -> Iterable[PropertyLines]:
    """Yield the lines of each property, in the order in which the tables have the properties."""
    entries: dict[tuple, list[tuple[Table, Row, Model, ModelScore]]] = defaultdict(list)
    for table in tables:
        for row, model, score in table.scored():
            entries[row.property, row.unit, row.n_test].append((table, row, model, score))
    for (name, unit, n_test), known in entries.items():
        # Python's sort is stable: the tables' order decides between recipes.
        known.sort(key=lambda entry: (entry[3].runs[0].spec.is_classical, entry[2].order))
        yield _compared(name, unit, n_test, known, predictions)


def _compared(
    name: str,
    unit: str,
    n_test: int,
    known: Sequence[tuple[Table, Row, Model, ModelScore]],
    predictions: Predictions,
) -> PropertyLines:
    scores = [score for *_, score in known]
    # The baseline of a network for one property; that of a joint one is of other training rows.
    baseline = next((row for table, row, *_ in known if not table.joint), known[0][1]).baseline
    n_splits = max(len(score.splits) for score in scores)
    complete = [score for score in scores if len(score.splits) == n_splits]
    lowest = min(complete, key=lambda score: score.mae)
    baseline_best = baseline <= lowest.mae
    p = {} if baseline_best else p_against(lowest, scores, predictions)
    lines = tuple(
        ModelLine(
            *entry,
            best=not baseline_best and (entry[3] is lowest or p.get(id(entry[3]), 0.0) >= LEVEL),
            p_against_best=p.get(id(entry[3])),
        )
        for entry in known
    )
    chosen = _chosen(scores, predictions)
    return PropertyLines(name, unit, n_test, baseline, baseline_best, lines, chosen)


def _chosen(scores: Iterable[Score], predictions: Predictions) -> Score | None:
    """Score what val chooses in each fold."""
    runs = chosen_on_val(run for score in scores for run in score.runs)
    if not runs:
        return None
    score = Score.from_runs(runs)
    return dataclasses.replace(score, interval=interval_of(score, predictions))
