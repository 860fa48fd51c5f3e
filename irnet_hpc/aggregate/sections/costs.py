"""Show the cost of each MAE: the model's parameters and device-hours."""

from collections.abc import Iterable, Iterator

from irnet_hpc.aggregate.all_models import AllModels, ModelLine
from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, missing
from irnet_hpc.aggregate.mae_table import row_format, score_text
from irnet_hpc.aggregate.scores import ModelScore

HEADER = (
    *("model", "training", "property", "parameters", "device-hours a run", "runs", "test MAE"),
    "best buy",
)
TEXT = (
    "device-hours: the wall time of a training times its number of ranks, averaged over the runs "
    "of a model (a network of several properties counts in equal shares for each). best buy: no "
    "other model has both a lower MAE and fewer device-hours. Do not compare hours of different "
    "devices or of different numbers of ranks; result.json states them."
)


def section(findings: Findings) -> Section:
    """Make a block for the models of each pack and protocol, if there are several."""
    blocks = [
        TableBlock(models.title, models.name, _grid(models))
        for models in findings.all_models
        if any(len(known.lines) > 1 for known in models.properties)
    ]
    return Section("costs", "Cost", TEXT, blocks)


def on_front(score: ModelScore, others: Iterable[ModelScore]) -> bool:
    """Return True if a score is on the Pareto front of MAE and device-hours.

    That is, no other score is at least as good in both and better in one of them.
    """
    own = (score.mae, score.hours)
    rivals = [(other.mae, other.hours) for other in others if other is not score]
    return not any(
        mae <= own[0] and hours <= own[1] and (mae, hours) != own for mae, hours in rivals
    )


def _grid(models: AllModels) -> list[Line]:
    lines = [line_of(*HEADER)]
    for known in models.properties:
        scores = [line.score for line in known.lines]
        for line in known.lines:
            cells = _cells(line, models.training(line), on_front(line.score, scores))
            lines.append(line_of(*cells))
    if not any(line[1].text for line in lines[1:]):  # the title has the training of all
        lines = [[cell for number, cell in enumerate(line) if number != 1] for line in lines]
    return lines


def _cells(line: ModelLine, training: str, front: bool) -> Iterator[str | Text]:
    score = line.score
    yield str(line.model)
    yield training
    yield line.row.label
    yield f"{score.n_parameters:,}" if score.n_parameters is not None else missing("not counted")
    yield f"{score.hours:.3g}"
    yield str(score.n)
    yield score_text(score, row_format(line.row))
    yield "yes" if front else "no"
