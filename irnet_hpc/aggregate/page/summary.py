"""The results in words: sentences that follow from the tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.aggregate.render import row_format
from irnet_hpc.aggregate.sections.differences import FEWEST
from irnet_hpc.aggregate.sections.ranks import FEWEST_TASKS, Ranking
from irnet_hpc.aggregate.sections.tasks import Task, percent_below
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.runs.collect import FinishedRun, Gap
from irnet_hpc.runs.spec import model_name

NAMES = {"plain": "the plain network", "srnet": "SRNet", "irnet": "IRNet"}


class Sentence(NamedTuple):
    about: str  # empty: everything
    text: str


def summary(
    runs: Sequence[FinishedRun],
    tables: Sequence[Table],
    tasks: Sequence[Task],
    ranking: Ranking | None,
    gaps: Mapping[Path, Gap],
) -> list[Sentence]:
    """The widest first: what there is, the best of each task, depth, ranks, what is missing."""
    found = [
        Sentence("", _extent(runs, tables, tasks)),
        *(Sentence(task.name, _best(task)) for task in tasks),
    ]
    found += [
        Sentence(f"Depth, {row.property}", sentence)
        for table in tables
        for row in table.rows
        if (sentence := _depth(table, row))
    ]
    found += [Sentence("Ranks", _ranks(ranking))] if ranking else []
    found.append(Sentence("What is claimed", _claims(tables)))
    return found + ([Sentence("Missing", _missing(gaps))] if gaps else [])


def _extent(runs: Sequence[FinishedRun], tables: Sequence[Table], tasks: Sequence[Task]) -> str:
    models = {model for table in tables for model in table.models}
    hours = sum(run.result.device_hours for run in runs)
    return (
        f"{_count(len(runs), 'finished run')} of {_count(len(models), 'model')} on {_count(len(tasks), 'task')}, "
        f"{hours:,.3g} device-hours together."
    )


def _best(task: Task) -> str:
    best, form = task.best, row_format(task.best.row)
    below = percent_below(best.cell.mae, best.row.baseline)
    of = f", the best of {len(task.entries)} by val," if len(task.entries) > 1 else ""
    text = f"{best.name}{of} has a test MAE of {best.cell.mae:{form}} {task.unit} from {best.row.n_train:,} training rows"
    text += f", {_below(below)} the baseline" if below is not None else ""
    theirs = best.row.best_classical
    over = theirs and percent_below(best.cell.mae, theirs.mae)
    text += (
        f" and {_below(over)} the best classical model ({theirs.model})"
        if theirs and over is not None
        else ""
    )
    if line := task.published:
        text += f"; the least published is {line.mae:.3g} ({model_name(line.model, line.depth)}), of other rows"
    return text + "."


def _below(percent: float) -> str:
    return f"{abs(percent):.0f} % {'below' if percent >= 0 else 'above'}"


def _depth(table: Table, row: Row) -> str | None:
    """The papers' claim: from the least to the greatest depth that an architecture was trained at."""
    form, parts = row_format(row), []
    for architecture in ("plain", "srnet", "irnet"):
        found = [
            (depth, cell)
            for depth in _depths(table)
            if (cell := table.cell(row, architecture, depth))
        ]
        if len(found) > 1:
            (least, first), (most, last) = found[0], found[-1]
            change = 100 * (last.mae / first.mae - 1) if first.mae else 0.0
            parts.append(
                f"{NAMES[architecture]} goes from {first.mae:{form}} to {last.mae:{form}} ({round(change) or 0:+d} %) "
                f"between {least} and {most} layers"
            )
    if len(parts) < 2:
        return None
    return f"{'; '.join(parts)} ({row.unit}; {table.title})."


def _depths(table: Table) -> list[int]:
    return sorted({depth for _, depth in table.models if depth})


def _ranks(ranking: Ranking) -> str:
    text = (
        f"Over {len(ranking.tasks)} tasks that {len(ranking.models)} models have in common, {ranking.models[0]} ranks best "
        f"({ranking.ranks[0]:.2f} on average)"
    )
    if ranking.critical_difference is None:
        return f"{text}; differences of ranks are claimed from {FEWEST_TASKS} tasks on."
    return f"{text}; mean ranks must differ by {ranking.critical_difference:.2f} to be distinguishable."


def _claims(tables: Sequence[Table]) -> str:
    cells = [cell for table in tables for row in table.rows for cell in row.cells if cell]
    enough = sum(cell.n >= FEWEST for cell in cells)
    return f"{enough} of {_count(len(cells), 'cell')} have {FEWEST} runs or more; of the others nothing is claimed but their MAE."


def _missing(gaps: Mapping[Path, Gap]) -> str:
    counts = Counter(gap.state for gap in gaps.values())
    return f"Without a result: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}."


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
