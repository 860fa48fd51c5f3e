"""Which model is best over all tasks: mean ranks, and from eight tasks on what of them is distinguishable.

Demsar, Journal of Machine Learning Research 7, 1 (2006): Friedman's test on the ranks, then Nemenyi's critical difference.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from irnet_hpc.aggregate.formats import Block, Section, Text
from irnet_hpc.aggregate.sections.tasks import Entry, Task, tasks_of
from irnet_hpc.aggregate.tables import Table

FEWEST_TASKS = 8  # below which no difference of ranks is claimed
LEVEL = 0.05
SAID = (
    "Mean over tasks of a model's rank by test MAE, 1 the best, equal MAEs sharing theirs; a model here is an architecture, depth "
    "and recipe, and a task a property of a pack, with its number of training rows. Ranked are the models and tasks of which "
    f"nothing is missing. From {FEWEST_TASKS} tasks on: Friedman's test, whether any differ, and Nemenyi's critical difference, by "
    "which two mean ranks must differ. Tasks that share their materials are less independent than the test supposes."
)


@dataclasses.dataclass(frozen=True)
class Ranking:
    models: tuple[str, ...]  # by mean rank, the best first
    ranks: tuple[float, ...]
    wins: tuple[int, ...]  # tasks of which each has the least MAE
    tasks: tuple[str, ...]
    left_out: tuple[
        tuple[str, int], ...
    ]  # models that lack some of the tasks, and of how many of all tasks they have a result
    n_all_tasks: int
    chi2: float | None = None  # None: too few tasks
    p: float | None = None
    critical_difference: float | None = None

    @property
    def cliques(self) -> tuple[tuple[int, int], ...]:
        """First and last place of each longest run of models that are not distinguishable, in the order of their ranks."""
        if self.critical_difference is None:
            return ()
        ends = [
            max(
                last
                for last in range(first, len(self.ranks))
                if self.ranks[last] - start < self.critical_difference
            )
            for first, start in enumerate(self.ranks)
        ]
        return tuple(
            (first, last)
            for first, last in enumerate(ends)
            if last > first and (first == 0 or ends[first - 1] < last)
        )


def ranking_of(tables: Iterable[Table]) -> Ranking | None:
    """Over everything of protocol honest; None where no two models have two tasks in common."""
    maes: dict[str, dict[str, float]] = {}  # model -> task -> MAE
    for task in tasks_of(tables):
        for entry in task.entries:
            maes.setdefault(f"{entry.name}, {entry.how}", {}).setdefault(
                _task_name(task, entry), entry.cell.mae
            )
    models, names = _without_gaps(maes)
    if not names:
        return None
    import numpy as np
    from scipy.stats import rankdata

    from irnet_hpc.aggregate.statistics import friedman

    errors = np.array([[maes[model][name] for model in models] for name in names])
    ranks = rankdata(errors, axis=1)
    order = sorted(range(len(models)), key=lambda place: (ranks.mean(axis=0)[place], models[place]))
    found = friedman(errors, LEVEL) if len(names) >= FEWEST_TASKS else None
    return Ranking(
        models=tuple(models[place] for place in order),
        ranks=tuple(float(ranks.mean(axis=0)[place]) for place in order),
        wins=tuple(int((errors[:, place] == errors.min(axis=1)).sum()) for place in order),
        tasks=tuple(names),
        left_out=tuple(
            sorted((model, len(of)) for model, of in maes.items() if model not in models)
        ),
        n_all_tasks=len({name for of in maes.values() for name in of}),
        chi2=found and found.chi2,
        p=found and found.p,
        critical_difference=found and found.critical_difference,
    )


def _task_name(task: Task, entry: Entry) -> str:
    rows = f", first {entry.table.train_rows:,} rows" if entry.table.train_rows else ""
    return f"{task.property} of {entry.table.pack}{rows}"


def _without_gaps(maes: dict[str, dict[str, float]]) -> tuple[list[str], list[str]]:
    """The models and tasks of the largest block without gaps among those in which models are taken by their number of tasks:
    Friedman's test knows no missing values."""
    best: tuple[list[str], list[str]] = ([], [])
    for least in sorted({len(of) for of in maes.values()}, reverse=True):
        models = [model for model, of in maes.items() if len(of) >= least]
        common = set.intersection(*(set(maes[model]) for model in models))
        if (
            len(models) > 1
            and len(common) > 1
            and len(models) * len(common) > len(best[0]) * len(best[1])
        ):
            best = (models, sorted(common))
    return best


def rankings_section(ranking: Ranking | None) -> Section:
    blocks = () if ranking is None else (Block(_title(ranking), "ranks", _grid(ranking)),)
    records = [] if ranking is None else _records(ranking)
    return Section("ranks", "Ranks over all tasks", SAID, blocks, records)


def _title(ranking: Ranking) -> str:
    title = f"{len(ranking.models)} models over {len(ranking.tasks)} tasks"
    if ranking.critical_difference is None:
        return f"{title}: too few for a critical difference, which needs {FEWEST_TASKS}"
    p = "p < 0.001" if ranking.p < 0.001 else f"p = {ranking.p:.2g}"
    return f"{title}: Friedman {p}, critical difference {ranking.critical_difference:.2f} at {LEVEL:.0%}"


def _grid(ranking: Ranking) -> list[list[Text]]:
    lines = [[Text(text) for text in ("model", "mean rank", "best of", "tasks")]]
    for model, rank, wins in zip(ranking.models, ranking.ranks, ranking.wins, strict=True):
        bold = rank == ranking.ranks[0] or (
            ranking.critical_difference is not None
            and rank - ranking.ranks[0] < ranking.critical_difference
        )
        lines.append(
            [Text(model), Text(f"{rank:.2f}", bold), Text(str(wins)), Text(str(len(ranking.tasks)))]
        )
    if ranking.left_out:
        most = max(n_tasks for _, n_tasks in ranking.left_out)
        others = Text(f"{len(ranking.left_out)} others, each without some of these tasks")
        lines.append(
            [others, *[Text("tasks missing")] * 2, Text(f"at most {most} of {ranking.n_all_tasks}")]
        )
    return lines


def _records(ranking: Ranking) -> Sequence[dict]:
    return [
        {
            "model": model,
            "mean_rank": rank,
            "best_of": wins,
            "n_tasks": len(ranking.tasks),
            "friedman_chi2": ranking.chi2,
            "friedman_p": ranking.p,
            "critical_difference": ranking.critical_difference,
        }
        for model, rank, wins in zip(ranking.models, ranking.ranks, ranking.wins, strict=True)
    ]
