"""Rank models over all tasks, and find which of their ranks differ significantly.

The method is that of Demsar, Journal of Machine Learning Research 7, 1 (2006): Friedman's test on
the ranks, then Nemenyi's critical difference.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from irnet_hpc.aggregate.task_results import Task, TaskResult

MIN_TASKS = 8  # with fewer tasks, no difference of ranks is claimed
LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The ranks of models over the tasks that all of these models have."""

    models: tuple[str, ...]  # ordered by mean rank, the best first
    ranks: tuple[float, ...]  # mean rank of each model over the tasks
    wins: tuple[int, ...]  # for each model, the number of tasks in which its MAE is the lowest
    tasks: tuple[str, ...]
    left_out: tuple[tuple[str, int], ...]  # (model that lacks some tasks, its number of tasks)
    n_all_tasks: int
    chi2: float | None = None  # Friedman's statistic; None: too few tasks
    p: float | None = None
    critical_difference: float | None = None

    @property
    def any_differ(self) -> bool:
        """True if Friedman's test finds that the models differ.

        Nemenyi's critical difference may be used only in this case.
        """
        return self.p is not None and self.p < LEVEL

    @property
    def told_apart(self) -> float | None:
        """The smallest significant difference of two mean ranks; None if there are too few tasks.

        It is infinite if Friedman's test finds no difference.
        """
        return self.critical_difference if self.p is None or self.any_differ else math.inf

    def is_as_good_as_best(self, rank: float) -> bool:
        """Return True if a mean rank does not differ significantly from the lowest mean rank."""
        gap = rank - self.ranks[0]
        return gap == 0 or (self.told_apart is not None and gap < self.told_apart)

    @property
    def cliques(self) -> tuple[tuple[int, int], ...]:
        """The longest sequences of models whose ranks do not differ significantly.

        Each is given by the positions of its first and last model.
        """
        least = self.told_apart
        if least is None:
            return ()
        ends = [
            max(last for last in range(first, len(self.ranks)) if self.ranks[last] - start < least)
            for first, start in enumerate(self.ranks)
        ]
        return tuple(
            (first, last)
            for first, last in enumerate(ends)
            if last > first and (first == 0 or ends[first - 1] < last)
        )


def rank_models(tasks: Iterable[Task]) -> Ranking | None:
    """Rank models, which differ in architecture, depth or recipe, over all tasks.

    Returns None if no two models have two tasks in common.
    """
    maes: dict[str, dict[str, float]] = {}  # model -> task -> MAE
    for task in tasks:
        for result in task.comparable:
            model = ", ".join(filter(None, (str(result.model), result.training)))
            maes.setdefault(model, {}).setdefault(_task_name(task, result), result.score.mae)
    models, names = _largest_complete_block(maes)
    if not names:
        return None
    import numpy as np

    from irnet_hpc.aggregate.statistics import compare_ranks, mean_ranks

    errors = np.array([[maes[model][name] for model in models] for name in names])
    ranks = mean_ranks(errors).tolist()
    wins = (errors == errors.min(axis=1, keepdims=True)).sum(axis=0).tolist()
    order = sorted(range(len(models)), key=lambda place: (ranks[place], models[place]))
    test = compare_ranks(errors, LEVEL) if len(names) >= MIN_TASKS else None
    return Ranking(
        models=tuple(models[place] for place in order),
        ranks=tuple(ranks[place] for place in order),
        wins=tuple(wins[place] for place in order),
        tasks=tuple(names),
        left_out=tuple(
            sorted((model, len(known)) for model, known in maes.items() if model not in models)
        ),
        n_all_tasks=len({name for known in maes.values() for name in known}),
        chi2=test and test.chi2,
        p=test and test.p,
        critical_difference=test and test.critical_difference,
    )


def _task_name(task: Task, result: TaskResult) -> str:
    rows = f", first {result.table.train_rows:,} rows" if result.table.train_rows else ""
    return f"{task.property} of {result.table.pack}{rows}"


def _largest_complete_block(
    maes: Mapping[str, Mapping[str, float]],
) -> tuple[list[str], list[str]]:
    """Choose models and tasks such that every model has every task, as Friedman's test requires.

    For each n there is a candidate: all models with at least n tasks, and the tasks that these
    models share. The candidate with the most MAEs is chosen.
    """
    best: tuple[list[str], list[str]] = ([], [])
    for n_tasks in sorted({len(known) for known in maes.values()}, reverse=True):
        models = [model for model, known in maes.items() if len(known) >= n_tasks]
        common = set.intersection(*(set(maes[model]) for model in models))
        is_larger = len(models) * len(common) > len(best[0]) * len(best[1])
        if len(models) > 1 and len(common) > 1 and is_larger:
            best = (models, sorted(common))
    return best
