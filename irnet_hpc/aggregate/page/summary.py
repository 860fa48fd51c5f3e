"""State the results in sentences, which are made from the tables."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.mae_table import difference_format, interval_text, p_text, row_format
from irnet_hpc.aggregate.ranking import MIN_TASKS, Ranking
from irnet_hpc.aggregate.scores import (
    MIN_RUNS,
    NAMES,
    Model,
    Score,
    mean_mae,
    percent_below,
)
from irnet_hpc.aggregate.sections.differences import Difference, Pair, compare
from irnet_hpc.aggregate.tables import Row, Table
from irnet_hpc.aggregate.task_results import Task, TaskResult
from irnet_hpc.runs.folds import chosen_on_val


class Sentence(NamedTuple):
    """A sentence of the summary and its topic."""

    about: str
    text: str


def extent(findings: Findings) -> str:
    """Say in one sentence how much was trained."""
    runs = findings.runs
    hours = sum(run.result.device_hours for run in runs)
    return (
        f"{count(len(runs), 'finished run')} of {count(len(findings.models), 'model')} on "
        f"{count(len(findings.tasks), 'task')}, {hours:,.3g} device-hours in total."
    )


def sentences(findings: Findings) -> Iterator[Sentence]:
    """Yield sentences on each task's best model, on depth and ranks, and on missing results."""
    for task in findings.tasks:
        yield Sentence(task.name, _best(task, findings))
    for table in findings.tables:
        for row in table.rows:
            if sentence := _depth(table, row, findings):
                yield Sentence(f"Depth, {row.property}", sentence)
    if findings.ranking:
        yield Sentence("Ranks", _ranks(findings.ranking))
    yield Sentence("Claims", _claims(findings))
    if findings.gaps:
        states = Counter(gap.state for gap in findings.gaps.values())
        counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
        yield Sentence("Missing", f"Without a result: {counts}.")


def _best(task: Task, findings: Findings) -> str:
    best, row, form = task.best, task.best.row, row_format(task.best.row)
    score, rivals = best.score, _rivals(task)
    text = f"{best.model}{rivals} has a test MAE of {score.mae:{form}} {task.unit}"
    text += f" from {row.n_train:,} training rows{_against_baseline(score, row, form)}"
    if row.best_classical:
        pair = Pair(best.model, score, row.best_classical.model, row.best_classical)
        difference = compare(row, pair, findings.predictions)
        text += _against_classical(row, pair, difference, are_alike(pair, findings))
    parts = [text, *_chosen_in_each_fold(task, form), *_doubts(task, findings)]
    if line := task.published:
        parts.append(f"the lowest published is {line.mae:.3g} ({line.their_model}), on other rows")
    return f"{'; '.join(parts)}."


def _chosen_in_each_fold(task: Task, form: str) -> Iterator[str]:
    """Yield the honest error of the choice, if rows were dealt to folds.

    The choice over all folds has seen the test rows, since val rows of a fold are test rows of
    another one.
    """
    nested = chosen_on_val(run for result in task.results for run in result.score.runs)
    if nested:
        yield (
            f"chosen on val anew in each fold, the models have {mean_mae(nested):{form}}, which is "
            "the error to expect, since val rows of one fold are test rows of another"
        )


def _rivals(task: Task) -> str:
    n = len(task.comparable)
    return f", chosen by val among {n}," if n > 1 else ""


def _doubts(task: Task, findings: Findings) -> Iterator[str]:
    """Yield warnings.

    Runs failed, the median is better than a model, few rows decide an MAE, or a different model is
    best on test.
    """
    best, row, form = task.best, task.best.row, row_format(task.best.row)
    if far := best.score.far_above_baseline:
        times = max(run.result.times_baseline for run in far)
        yield (
            f"{len(far)} of {count(best.score.n, 'run')} failed: the MAE on val or test is up to "
            f"{times:,.3g} times the baseline's; do not use it"
        )
    worse = [result for result in task.comparable if result.score.mae > result.row.baseline]
    if worse:
        named = ", ".join(dict.fromkeys(str(result.model) for result in worse))
        yield f"predicting the training median has a lower test MAE than {named}"
    known: list[tuple[str, Score]] = [(str(best.model), best.score)]
    known += [(row.best_classical.model, row.best_classical)] if row.best_classical else []
    for name, score in known:
        if score.half and score.half.are_few:
            yield f"a few rows decide the MAE of {name}: {score.half.words(form, task.unit)}"
    lowest = min(task.comparable, key=lambda result: result.score.mae)
    if lowest.score.mae < best.score.mae:
        yield _lowest_on_test(task, lowest, findings)


def _lowest_on_test(task: Task, lowest: TaskResult, findings: Findings) -> str:
    """Say why the model with the lowest test MAE, which a table shades, is not the one named."""
    best, form = task.best, row_format(task.best.row)
    pair = Pair(lowest.model, lowest.score, str(best.model), best.score)
    difference = compare(best.row, pair, findings.predictions)
    if lowest.val_mae is None or best.val_mae is None:
        no_val = "it has no MAE on val"
    else:
        maes = f"{lowest.val_mae:{form}} against {best.val_mae:{form}} on {best.row.n_val:,} rows"
        no_val = f"its MAE on val is higher ({maes})"
    settings = ", ".join(filter(None, (lowest.training, lowest.features)))
    text = (
        f"the lowest MAE on test, {lowest.score.mae:{form}}, is that of {lowest.model} "
        f"({settings}), but {no_val}, and only val chooses"
    )
    if difference is None or difference.interval is None:
        return text
    if difference.excludes_zero and not are_alike(pair, findings):
        return f"{text}; on test the two differ, {_interval(difference)}"
    return f"{text}; on test the two cannot be told apart, {_interval(difference)}"


def _against_baseline(score: Score, row: Row, form: str) -> str:
    """Compare the best model with the baseline.

    A difference is claimed only if the interval excludes the baseline; otherwise both numbers are
    stated.
    """
    below = percent_below(score.mae, row.baseline)
    if below is None or score.interval is None:
        return f" (baseline {row.baseline:{form}})"
    low, high = score.interval
    if low <= row.baseline <= high:
        return f", not distinguishable from the baseline's {row.baseline:{form}}"
    return f", {_below(below)} the baseline"


def _against_classical(row: Row, pair: Pair, difference: Difference | None, alike: bool) -> str:
    """Compare with the best classical model. A difference is claimed only if it is significant."""
    form, other = row_format(row), pair.other
    named = f"the best classical model ({pair.against}, {other.mae:{form}})"
    if difference is None or difference.interval is None or difference.percent is None:
        return f"; {named} is not compared: fewer than {MIN_RUNS} runs, or no predictions"
    few = ""
    if difference.half and difference.half.are_few:
        words = difference.half.words(difference_format([difference.mean], []), row.unit)
        few = f"; a few rows decide this difference: {words}"
    if is_claimed(pair, difference) and not alike:
        return f", and {_below(-difference.percent)} {named}, {_interval(difference)}{few}"
    return f"; it cannot be distinguished from {named}, {_interval(difference)}{few}"


def is_claimed(pair: Pair, difference: Difference) -> bool:
    """Return True if the interval excludes zero and the test of the row is significant."""
    return bool(difference.excludes_zero) and not (pair.score.best and pair.other.best)


def are_alike(pair: Pair, findings: Findings) -> bool:
    """Return True if a table marks both models of a pair as the best.

    Such a table cannot tell them apart, so no sentence may claim a difference. The table of all
    models tests more models together than that of one recipe, and may deny what that one finds.
    """
    both = [{run.folder for run in score.runs} for score in (pair.score, pair.other)]
    rows = [
        [score for score in (*row.scores, row.best_classical) if score and score.best]
        for table in findings.tables
        for row in table.rows
    ]
    rows += [
        [line.score for line in known.lines if line.best]
        for table in findings.all_models
        for known in table.properties
    ]
    folders = ([{run.folder for run in score.runs} for score in best] for best in rows)
    return any(all(side in found for side in both) for found in folders)


def _interval(difference: Difference) -> str:
    low, high = difference.interval or (difference.mean, difference.mean)
    form = difference_format([difference.mean], [(high - low) / 4])
    return f"difference {difference.mean:{form}} (95 % interval {interval_text(low, high, form)})"


def _below(percent: float) -> str:
    return f"{abs(percent):.0f} % {'below' if percent >= 0 else 'above'}"


def _depth(table: Table, row: Row, findings: Findings) -> str | None:
    """Compare the smallest with the greatest depth of each architecture, as the papers do."""
    parts = []
    for architecture in ("plain", "srnet", "irnet"):
        models = [Model(architecture, depth) for depth in table.depths]
        known = [(model, score) for model in models if (score := table.score(row, model))]
        if len(known) > 1:
            (first, low), (last, high) = known[0], known[-1]
            pair = Pair(last, high, str(first), low)
            difference = compare(row, pair, findings.predictions)
            alike = are_alike(pair, findings)
            parts.append(_between_depths(row, first, pair, difference, alike))
    return f"{'; '.join(parts)} ({row.unit}; {table.title})." if len(parts) > 1 else None


def _between_depths(
    row: Row, first: Model, pair: Pair, difference: Difference | None, alike: bool
) -> str:
    """Compare two depths of an architecture, of which `first` is the smaller one."""
    form, architecture = row_format(row), first.architecture
    name = "the plain network" if architecture == "plain" else NAMES[architecture]
    low, high = f"{pair.other.mae:{form}}", f"{pair.score.mae:{form}}"
    depths = f"{first.depth} and {pair.model.depth} layers"
    if difference is None or difference.interval is None:
        return f"{name} has {low} and {high} with {depths}, which is not tested"
    if alike or not difference.excludes_zero:
        return (
            f"{name} has {low} and {high} with {depths}, which cannot be told apart, "
            f"{_interval(difference)}"
        )
    change = round(difference.percent or 0) or 0
    return (
        f"{name} goes from {low} to {high} ({change:+d} %) between {depths}, "
        f"{_interval(difference)}"
    )


def _ranks(ranking: Ranking) -> str:
    """Name the model with the best mean rank, and say whether it differs from the others."""
    n_best = sum(rank == ranking.ranks[0] for rank in ranking.ranks)
    n_alike = sum(map(ranking.is_as_good_as_best, ranking.ranks[n_best:]))
    best = " and ".join(map(str, ranking.models[:2])) if n_best <= 2 else f"{n_best} models"
    verb = f"{best} share" if n_best > 1 else f"{ranking.models[0]} has"
    text = (
        f"Over the {len(ranking.tasks)} tasks that {len(ranking.models)} models have in common, "
        f"{verb} the lowest mean rank ({ranking.ranks[0]:.2f})"
    )
    if ranking.critical_difference is None or ranking.p is None:
        return f"{text}; at least {MIN_TASKS} tasks are needed to say which ranks differ."
    if not ranking.any_differ:
        return f"{text}, but no ranks differ (Friedman's test, {p_text(ranking.p)})."
    pronoun = "them" if n_best > 1 else "it"
    alike = f"{n_alike} of the others cannot be distinguished from {pronoun}"
    others = alike if n_alike else "the others differ"
    return f"{text}; {others} (critical difference {ranking.critical_difference:.2f})."


def _claims(findings: Findings) -> str:
    scores = [score for table in findings.tables for _, _, score in table.scored()]
    n_enough = sum(score.has_enough_runs for score in scores)
    return (
        f"Models with {MIN_RUNS} runs or more, or without a seed: {n_enough} of {len(scores)}. "
        "Nothing is claimed about the others; only their MAE is stated."
    )


def count(n: int, noun: str) -> str:
    """Format a number of things, e.g. `2 tasks`."""
    return f"{n:,} {plural(n, noun)}"


def plural(n: int, noun: str) -> str:
    """Return a noun in the singular if n is 1, else in the plural."""
    return noun if n == 1 else f"{noun}s"
