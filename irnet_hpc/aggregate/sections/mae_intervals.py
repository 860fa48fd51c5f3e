"""Show an interval for each MAE, and which models are as good as the best one of their row."""

from collections.abc import Iterator

from irnet_hpc.aggregate.few_rows import FEW
from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, missing
from irnet_hpc.aggregate.mae_table import BEST, interval_text, p_text, row_format, score_text
from irnet_hpc.aggregate.scores import MIN_RUNS, Score
from irnet_hpc.aggregate.significance import LEVEL
from irnet_hpc.aggregate.tables import Row, Table

HEADING = "Intervals of the MAE, and models that do not differ from the best"
TEXT = (
    "interval: 95 % of a bootstrap of the MAE that redraws splits, seeds and test rows (by "
    "formula). against the best: the probability of a difference this large from the best of the "
    "row if the two models were equally good. It comes from paired differences of absolute errors "
    "on the test rows, splits and seeds that both have, with Holm's correction over the row, or, "
    "if the best of the row is the lowest of all models on these rows, over all of them. "
    f"Models with a probability of {LEVEL} or more are bold like the best. With fewer than "
    f"{MIN_RUNS} runs of a network neither is given. The baseline has no predictions of its own "
    "and is compared by its MAE alone. half of it from: the fewest test rows that make half of the "
    f"MAE; few: they are at most {100 * FEW:.0f} % of the rows, or a single one."
)


def section(findings: Findings) -> Section:
    """Make a block for each table that has an interval. The numbers are also in mae.csv."""
    blocks = [
        TableBlock(table.title, table.name, _grid(table))
        for table in findings.tables
        if any(score.interval or score.p_against_best is not None for _, _, score in _scores(table))
    ]
    return Section("intervals", HEADING, TEXT, blocks, bold=BEST)


def _scores(table: Table) -> Iterator[tuple[Row, str, Score]]:
    for row in table.rows:
        for model, score in zip(table.models, row.scores, strict=True):
            if score:
                yield row, str(model), score
        if row.best_classical:
            yield row, f"best classical: {row.best_classical.model}", row.best_classical


def _grid(table: Table) -> list[Line]:
    header = ("property", "model", "test MAE", "95 % interval", "against the best")
    lines = [line_of(*header, "half of it from")]
    for row, name, score in _scores(table):
        form = row_format(row)
        interval = interval_text(*score.interval, form) if score.interval else no_interval(score)
        mae = Text(score_text(score, form), score.best)
        cells = row.label, Text(name, score.best), mae, interval, _tested(score), _half(score)
        lines.append(line_of(*cells))
    return lines


def _half(score: Score) -> Text:
    """Say how many test rows cause half of the MAE."""
    if score.half is None:
        return missing("MAE is 0" if not score.mae else "not counted")
    few = " (few)" if score.half.are_few else ""
    return Text(f"{score.half.n:,} of {score.half.n_rows:,} rows{few}")


def no_interval(score: Score) -> Text:
    """Return the reason why a score has no interval."""
    return missing("no predictions" if score.has_enough_runs else f"n < {MIN_RUNS}")


def _tested(score: Score) -> Text:
    if score.p_against_best is not None:
        return Text(p_text(score.p_against_best))
    if score.best:
        return Text("is the lowest of this table")
    return missing("not compared") if score.has_enough_runs else no_interval(score)
