"""Show the mean ranks of models over all tasks, and which ranks differ significantly."""

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, missing
from irnet_hpc.aggregate.mae_table import p_text
from irnet_hpc.aggregate.ranking import LEVEL, MIN_TASKS, Ranking

TEXT = (
    "A model's rank by test MAE (1 is the best, equal MAEs share theirs), averaged over tasks. A "
    "model here is an architecture, depth and recipe; a task is a property of a pack with its "
    "number of training rows. Only models and tasks without gaps are ranked; a model that was "
    "trained on some of a task's splits only has a gap. From "
    f"{MIN_TASKS} tasks on, Friedman's test says whether any models differ, and if so, Nemenyi's "
    "critical difference says by how much two mean ranks must differ. Tasks that share their "
    "materials are less independent than the test supposes."
)


def section(findings: Findings) -> Section:
    """Make one block if models can be ranked, else no block."""
    ranking = findings.ranking
    blocks = [TableBlock(_title(ranking), "ranks", _grid(ranking))] if ranking else []
    records = _records(ranking) if ranking else []
    bold = "the lowest mean rank, and every rank that does not differ from it"
    return Section("ranks", "Ranks over all tasks", TEXT, blocks, records, bold)


def _title(ranking: Ranking) -> str:
    title = f"{len(ranking.models)} models over {len(ranking.tasks)} tasks"
    if ranking.critical_difference is None or ranking.p is None:
        return f"{title}: too few for a critical difference, which needs {MIN_TASKS}"
    difference = f"critical difference {ranking.critical_difference:.2f} at {LEVEL:.0%}"
    if not ranking.any_differ:
        difference = f"so no ranks differ at {LEVEL:.0%}"
    return f"{title}: Friedman {p_text(ranking.p)}, {difference}"


def _grid(ranking: Ranking) -> list[Line]:
    lines = [line_of("model", "mean rank", "best of", "tasks")]
    n_tasks = str(len(ranking.tasks))
    for model, rank, wins in zip(ranking.models, ranking.ranks, ranking.wins, strict=True):
        shown = Text(f"{rank:.2f}", ranking.is_as_good_as_best(rank))
        lines.append(line_of(model, shown, str(wins), n_tasks))
    if ranking.left_out:
        most = max(n for _, n in ranking.left_out)
        others = f"{len(ranking.left_out)} others, each without some of these tasks"
        gaps = [missing("tasks missing")] * 2
        lines.append(line_of(others, *gaps, f"at most {most} of {ranking.n_all_tasks}"))
    return lines


def _records(ranking: Ranking) -> list[dict]:
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
