"""Show ensembles: the MAE of the mean of the seeds' predictions.

An ensemble is a separate model; the mean MAE of the seeds never includes it.
"""

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, missing
from irnet_hpc.aggregate.mae_table import row_format
from irnet_hpc.aggregate.scores import Model, ModelScore, mean_over_splits
from irnet_hpc.aggregate.tables import Row, Table

TEXT = (
    "An ensemble predicts the mean of the predictions of all seeds of a split. Each number is the "
    "test MAE of the ensemble, averaged over splits; the percentage is how far it is below the "
    "mean of the seeds' MAEs, averaged over splits, too. An ensemble costs as many trainings as "
    "there are seeds, so the tables above do not include it. It is shown only if the predictions "
    "of all runs of a model can be read."
)


def section(findings: Findings) -> Section:
    """Make a block for each table that has an ensemble. The numbers are also in mae.csv."""
    blocks = [
        TableBlock(table.title, table.name, _grid(table))
        for table in findings.tables
        if any(score.ensemble_mae for _, _, score in table.scored())
    ]
    return Section("ensembles", "Mean of the seeds' predictions", TEXT, blocks)


def _grid(table: Table) -> list[Line]:
    lines = [line_of("property", *map(str, table.models))]
    for row in table.rows:
        if any(score and score.ensemble_mae is not None for score in row.scores):
            lines.append(line_of(row.label, *(_cell(table, row, model) for model in table.models)))
    return lines


def _cell(table: Table, row: Row, model: Model) -> Text:
    score = table.score(row, model)
    if score is None:
        return missing(table.missing(row, model))
    if score.ensemble_mae is None:
        few = score.n <= max(1, len(score.splits))
        return missing("one seed per split" if few else "no predictions")
    return Text(_ensemble_text(score, score.ensemble_mae, row_format(row)))


def _ensemble_text(score: ModelScore, ensemble_mae: float, form: str) -> str:
    # Not the mean over runs of the tables: a split with more seeds would weigh more in it.
    mae = mean_over_splits(score.runs, "test_mae")
    gain = f", {100 * (mae - ensemble_mae) / mae:+.1f} %" if mae else ""
    n_splits = max(1, len(score.splits))
    whole, rest = divmod(score.n, n_splits)
    members = f"of {whole}" + (f", {n_splits} splits" if n_splits > 1 else "")
    if rest:  # splits have different numbers of seeds
        members = f"of {score.n} in {n_splits} splits"
    return f"{ensemble_mae:{form}} ({members}{gain})"
