"""Is one model better than another? The mean difference of their errors on the same test rows, with a 95 % interval.

IRNet is compared with the plain network of its depth and with the row's best classical model; a run that starts from another's weights with the same model trained
from scratch, and with the best classical model.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.render import difference_format
from irnet_hpc.aggregate.scores import Cell, Measured
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.predictions import SplitRows, by_split, pools_of, read_rows
from irnet_hpc.runs.spec import model_name

FEWEST = 3  # runs, below which nothing is claimed
SAID = (
    "Mean of the model's absolute errors less those of what it is compared with, on the same test rows, over the splits that "
    "both have; below zero the model is better. interval: 95 % of a bootstrap that draws splits, seeds and test rows (by "
    "formula) again, widened where runs are few (irnet_hpc/aggregate/statistics.py). Where it holds zero, the two may be equally good. "
    f"Below {FEWEST} runs of a network there is no interval. Each line is a comparison of its own: of twenty, one interval "
    "is expected to miss."
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of one model's MAE less another's, in the property's unit."""

    property: str
    unit: str
    model: str
    against: str
    mean: float  # over splits, seeds and test rows
    percent: float | None  # of the other's MAE
    low: float | None  # None: fewer than FEWEST runs
    high: float | None
    n_splits: int
    n_runs: int  # of the model
    n_runs_against: int
    n_test: int  # rows of all splits; those that several splits share count once

    @property
    def excludes_zero(self) -> bool | None:
        return None if self.low is None else self.low > 0 or self.high < 0


def differences(
    tables: Sequence[Table], problems: dict[Path, str]
) -> list[tuple[Table, tuple[Difference, ...]]]:
    """Every table that has something to compare. `problems` gets a sentence for each run whose predictions are not there."""
    found = []
    for table in tables:
        scratch = _from_scratch(table, tables) if table.start_from else []
        of_table = []
        for row in table.rows:
            pairs = list(_pairs(table, row, scratch))
            runs = {
                run.folder: run for _, cell, _, other in pairs for run in (*cell.runs, *other.runs)
            }
            rows = read_rows(runs.values(), problems) if pairs else {}
            made = [_difference(row, rows, *pair) for pair in pairs]
            of_table += [difference for difference in made if difference]
        if of_table:
            found.append((table, tuple(of_table)))
    return found


def _from_scratch(table: Table, tables: Iterable[Table]) -> list[tuple[str, Table]]:
    """(in words, table) of what starts from nothing and is else the same, by the table's recipe and by the others: one that is
    made for going on, in few epochs at a low rate, is a rival too weak from scratch."""
    alike = [
        other
        for other in tables
        if other.start_from is None and _but_for_recipe(other) == _but_for_recipe(table)
    ]
    same = [("from scratch", other) for other in alike if other.recipe == table.recipe]
    return same + [
        (f"from scratch, recipe {other.recipe}", other)
        for other in alike
        if other.recipe != table.recipe and not other.recipe.endswith("(stale)")
    ]


def _but_for_recipe(table: Table) -> tuple:
    return table.pack, table.protocol, table.train_rows, table.joint


def _pairs(
    table: Table, row: Row, scratch: Iterable[tuple[str, Table]]
) -> Iterator[tuple[str, Cell, str, Measured]]:
    """(model, its cell, what it is compared with, its cell)."""
    for model, cell in zip(table.models, row.cells, strict=True):
        for words, table_of_scratch in scratch if cell else ():
            for other_row in table_of_scratch.rows:
                other = table_of_scratch.cell(other_row, *model)
                if other and (other_row.property, other_row.unit) == (row.property, row.unit):
                    yield model_name(*model), cell, words, other
        plain = table.cell(row, "plain", model[1])
        if cell and plain and model[0] == "irnet":
            yield model_name(*model), cell, model_name("plain", model[1]), plain
        if cell and row.best_classical and (table.start_from or model[0] == "irnet"):
            yield model_name(*model), cell, row.best_classical.model, row.best_classical


def _difference(
    row: Row,
    rows: dict[int | None, SplitRows],
    model: str,
    cell: Cell,
    against: str,
    other: Measured,
) -> Difference | None:
    """None where no split has predictions of both."""
    import numpy as np  # here, for tables without predictions need no numpy

    from irnet_hpc.aggregate.statistics import paired_interval

    ours, theirs = by_split(cell.runs, rows), by_split(other.runs, rows)
    splits = [split for split in ours if split in theirs]
    if not splits:
        return None
    pools = pools_of(splits, rows)
    a = [np.concatenate([rows[split].errors(ours[split]) for split in pool]) for pool in pools]
    b = [np.concatenate([rows[split].errors(theirs[split]) for split in pool]) for pool in pools]
    interval = paired_interval(a, b, [rows[pool[0]].formula for pool in pools])
    n_runs, n_against = sum(map(len, a)), sum(map(len, b))
    # A classical model is often the same for every seed, and has one.
    known = min([n_runs] + ([] if other.runs[0].spec.is_classical else [n_against])) >= FEWEST
    mae = sum(float(errors.mean()) for errors in b) / len(b)
    return Difference(
        property=row.property,
        unit=row.unit,
        model=model,
        against=against,
        mean=interval.mean,
        percent=100 * interval.mean / mae if mae else None,
        low=interval.low if known else None,
        high=interval.high if known else None,
        n_splits=len(splits),
        n_runs=n_runs,
        n_runs_against=n_against,
        n_test=sum(errors.shape[1] for errors in a),
    )


def differences_section(tables: Sequence[Table], problems: dict[Path, str]) -> Section:
    found = differences(tables, problems)
    blocks = tuple(Block(table.title, table.name, _grid(made)) for table, made in found)
    records = [_record(table, difference) for table, made in found for difference in made]
    return Section("differences", "Differences", SAID, blocks, records)


def _grid(made: Sequence[Difference]) -> list[list[Text]]:
    header = (
        "property",
        "model",
        "against",
        "difference",
        "%",
        "95 % interval",
        "excludes zero",
        "splits × seeds",
    )
    lines = [[Text(text) for text in (*header, "against them", "test rows")]]
    for one in made:
        form = difference_format([one.mean], [] if one.low is None else [(one.high - one.low) / 4])
        texts = [f"{one.property} ({one.unit})", one.model, one.against, f"{one.mean:{form}}"]
        texts += ["of zero" if one.percent is None else f"{one.percent:+.1f} %"]
        texts += [f"n < {FEWEST}" if one.low is None else f"{one.low:{form}} to {one.high:{form}}"]
        texts += [{None: f"n < {FEWEST}", True: "yes", False: "no"}[one.excludes_zero]]
        texts += [
            _runs(one.n_splits, one.n_runs),
            _runs(one.n_splits, one.n_runs_against),
            f"{one.n_test:,}",
        ]
        lines.append([Text(text) for text in texts])
    return lines


def _runs(n_splits: int, n_runs: int) -> str:
    """Splits × seeds, and where splits have unlike numbers of seeds, the runs."""
    whole, rest = divmod(n_runs, n_splits)
    return f"{n_splits} ({n_runs} runs)" if rest else f"{n_splits} × {whole}"


def _record(table: Table, one: Difference) -> dict:
    return {
        **table.settings,
        "joint": table.joint,
        **dataclasses.asdict(one),
        "excludes_zero": None if one.excludes_zero is None else int(one.excludes_zero),
    }
