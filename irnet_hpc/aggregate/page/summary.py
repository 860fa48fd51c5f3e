"""State the results in sentences that are made from the tables."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.mae_table import row_format
from irnet_hpc.aggregate.ranking import MIN_TASKS, Ranking
from irnet_hpc.aggregate.scores import NAMES, Model, percent_below
from irnet_hpc.aggregate.significance import MIN_RUNS
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.aggregate.task_results import Task


class Sentence(NamedTuple):
    """A sentence of the summary and its topic."""

    about: str
    text: str


def extent(findings: Findings) -> str:
    """Summarise how much was trained."""
    runs = findings.runs
    hours = sum(run.result.device_hours for run in runs)
    return (
        f"{count(len(runs), 'finished run')} of {count(len(findings.models), 'model')} on "
        f"{count(len(findings.tasks), 'task')}, {hours:,.3g} device-hours together."
    )


def sentences(findings: Findings) -> Iterator[Sentence]:
    """Yield sentences on each task's best model, on depth, ranks, claims and missing results."""
    for task in findings.tasks:
        yield Sentence(task.name, _best(task))
    for table in findings.tables:
        for row in table.rows:
            if sentence := _depth(table, row):
                yield Sentence(f"Depth, {row.property}", sentence)
    if findings.ranking:
        yield Sentence("Ranks", _ranks(findings.ranking))
    yield Sentence("Claims", _claims(findings))
    if findings.gaps:
        states = Counter(gap.state for gap in findings.gaps.values())
        counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        yield Sentence("Missing", f"Without a result: {counts}.")


def _best(task: Task) -> str:
    best, row, form = task.best, task.best.row, row_format(task.best.row)
    rivals = f", the best of {len(task.results)} by val," if len(task.results) > 1 else ""
    text = f"{best.model}{rivals} has a test MAE of {best.score.mae:{form}} {task.unit}"
    text += f" from {row.n_train:,} training rows"
    below = percent_below(best.score.mae, row.baseline)
    text += f", {_below(below)} the baseline" if below is not None else ""
    classical = row.best_classical
    over = percent_below(best.score.mae, classical.mae) if classical else None
    if classical and over is not None:
        text += f" and {_below(over)} the best classical model ({classical.model})"
    if line := task.published:
        text += f"; the lowest published is {line.mae:.3g} ({line.their_model}), on other rows"
    return f"{text}."


def _below(percent: float) -> str:
    return f"{abs(percent):.0f} % {'below' if percent >= 0 else 'above'}"


def _depth(table: Table, row: Row) -> str | None:
    """Compare the smallest with the greatest depth of each architecture, as the papers do."""
    form, parts = row_format(row), []
    for architecture in ("plain", "srnet", "irnet"):
        scores = [(depth, table.score(row, Model(architecture, depth))) for depth in table.depths]
        known = [(depth, score.mae) for depth, score in scores if score]
        if len(known) < 2:
            continue
        (low, first), (high, last) = known[0], known[-1]
        change = 100 * (last / first - 1) if first else 0.0
        name = "the plain network" if architecture == "plain" else NAMES[architecture]
        parts.append(
            f"{name} goes from {first:{form}} to {last:{form}} ({round(change) or 0:+d} %) between "
            f"{low} and {high} layers"
        )
    return f"{'; '.join(parts)} ({row.unit}; {table.title})." if len(parts) > 1 else None


def _ranks(ranking: Ranking) -> str:
    text = (
        f"Over the {len(ranking.tasks)} tasks that {len(ranking.models)} models have in common, "
        f"{ranking.models[0]} ranks best ({ranking.ranks[0]:.2f} on average)"
    )
    if ranking.critical_difference is None:
        return f"{text}; differences of ranks are claimed from {MIN_TASKS} tasks on."
    difference = ranking.critical_difference
    return f"{text}; mean ranks that differ by less than {difference:.2f} cannot be told apart."


def _claims(findings: Findings) -> str:
    scores = [score for table in findings.tables for _, _, score in table.scored()]
    n_enough = sum(score.n >= MIN_RUNS for score in scores)
    return (
        f"Models with {MIN_RUNS} runs or more: {n_enough} of {len(scores)}. For the others only "
        "their MAE is stated."
    )


def count(n: int, noun: str) -> str:
    """Format a number of things, e.g. `2 tasks`."""
    return f"{n:,} {plural(n, noun)}"


def plural(n: int, noun: str) -> str:
    """Return a noun in the singular or the plural, depending on n."""
    return noun if n == 1 else f"{noun}s"
