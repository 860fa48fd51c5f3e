"""Show our results on benchmarks among the published ones."""

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Section, TableBlock, Text, line_of, one_line
from irnet_hpc.aggregate.leaderboards import WITH_STRUCTURES, Leaderboard, leaderboards_of
from irnet_hpc.aggregate.mae_table import row_format, score_text

TEXT = (
    "Published MAEs on the same test rows as ours, the lowest first; our line is bold. Val chooses "
    "it among all models that were trained on the task with protocol honest, so the test rows of a "
    "run took no part in the choice. For Matbench, MAEs and the choice are means over the five "
    "official folds; since val rows of one fold are test rows of another, a choice among many "
    "models may look better than it is. Training rows are "
    "those that the benchmark gives, of which some trainings use a part as val. After ±, the "
    "published sd over folds divides by their number, ours by one less."
)


def section(findings: Findings) -> Section:
    """Make one block for each benchmark that has published numbers."""
    boards = leaderboards_of(findings.tasks)
    return Section(
        "leaderboard",
        "Leaderboards",
        TEXT,
        [TableBlock(_title(board), _label(board), _grid(board)) for board in boards],
        [record for board in boards for record in _records(board)],
        bold="our result",
    )


def _title(board: Leaderboard) -> str:
    title = f"{board.benchmark}, {board.task.property} ({board.task.unit})"
    if board.benchmark in WITH_STRUCTURES:
        title += "; ours by composition only, others also by structure"
    if board.differences:
        title += f"; ours does not compare: {'; '.join(board.differences)}"
    return title


def _label(board: Leaderboard) -> str:
    return f"{board.benchmark.replace(':', '-')}-{board.task.property}"


def _grid(board: Leaderboard) -> list[Line]:
    row, score = board.chosen.row, board.chosen.score
    form = row_format(row)
    lines = [
        (
            entry.mae,
            line_of(
                one_line(entry.algorithm),
                f"{entry.mae:.7g}" + (f" ± {entry.sd:.7g}" if entry.sd is not None else ""),
                "published",
                one_line(entry.source),
            ),
        )
        for entry in board.entries
    ]
    ours = [
        Text(f"ours: {board.chosen.words}", bold=True),
        Text(score_text(score, form), bold=True),
        Text("not comparable" if board.differences else f"place {board.place}"),
        Text(f"{row.n_train:,} train, {row.n_val:,} val, {row.n_test:,} test rows"),
    ]
    lines.append((score.mae, ours))
    lines.sort(key=lambda line: line[0])
    return [line_of("algorithm", "test MAE", "", "source"), *(line for _, line in lines)]


def _records(board: Leaderboard) -> list[dict]:
    common: dict[str, object] = {
        "benchmark": board.benchmark,
        "property": board.task.property,
        "unit": board.task.unit,
    }
    published = [
        common
        | {
            "algorithm": entry.algorithm,
            "test_mae": entry.mae,
            "test_mae_sd": entry.sd,
            "n_runs": None,
            "comparable": True,
            "source": entry.source,
        }
        for entry in board.entries
    ]
    score = board.chosen.score
    ours = common | {
        "algorithm": board.chosen.words,
        "test_mae": score.mae,
        "test_mae_sd": score.sd,
        "n_runs": score.n,
        "comparable": not board.differences,
        "source": "ours",
    }
    return [*published, ours]
