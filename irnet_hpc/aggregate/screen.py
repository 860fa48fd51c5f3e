"""Write the report as one screen: the best models, published and missing results, written files.

mae.md has everything; the screen has what one reads first, in lines that fit into the terminal.
"""

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from irnet_hpc.aggregate.all_models import AllModels
from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import Line, Text, line_of, one_line
from irnet_hpc.aggregate.leaderboards import WITH_STRUCTURES, Leaderboard, leaderboards_of
from irnet_hpc.aggregate.mae_table import row_format, spread_text
from irnet_hpc.aggregate.model_table import WORDS, lines_of, shown_rows
from irnet_hpc.aggregate.page.summary import sentences
from irnet_hpc.aggregate.report import Report
from irnet_hpc.aggregate.scores import MIN_RUNS
from irnet_hpc.aggregate.task_results import Task
from irnet_hpc.aggregate.words import in_words, model_words, property_words

MIN_WIDTH = 40  # columns; a narrower terminal wraps the lines itself
MAX_LINES = 16  # of models or of tasks
MAX_PROPERTIES = 4
MAX_SENTENCES = 2
MAX_BEST = 3  # of the published numbers, beside those next to ours
TASK_WORDS = ("task", "best by val")  # columns of words in the list of tasks
MARK = "*"
TESTED = f"{MARK} the lowest MAE, and every MAE that the test cannot tell apart from it"
UNTESTED = f"{MARK} the lowest MAE; nothing is tested, since that takes {MIN_RUNS} runs"
# The columns that a narrow terminal goes without, the least needed first.
SPARED = ("test rows", "training rows", "runs", "R²", "RMSE")
MIN_WORDS = 8  # characters of a word that is shortened


def screen(report: Report, width: int) -> str:
    """Write the best models, and published and missing results, in lines of `width` at most."""
    width = max(MIN_WIDTH, width)
    findings = report.findings
    parts = [_best(findings, width)]
    if len(findings.tasks) <= MAX_SENTENCES:
        parts += _conclusions(findings, width)
    parts += _published(findings, width)
    parts += _missing(report, width)
    return "\n\n".join(parts)


def written_lines(files: Iterable[Path], width: int) -> list[str]:
    """List the written files in a line for each folder: those of mae first, figures counted."""
    of_folder: dict[Path, list[Path]] = {}
    for path in files:
        of_folder.setdefault(path.parent, []).append(path)
    lines = []
    for folder, paths in of_folder.items():
        names = [path.name for path in paths if path.suffix not in (".png", ".pdf")]
        n_figures = len({path.stem for path in paths if path.suffix in (".png", ".pdf")})
        figures = f"{n_figures} figure{'' if n_figures == 1 else 's'} (.png, .pdf)"
        names += [figures] if n_figures else []
        lines += _wrapped(f"wrote to {folder}: {', '.join(names)}", width)
    return lines


def _best(findings: Findings, width: int) -> str:
    """Show the models of the one table, or the best model of each task if there are several."""
    first, *others = findings.all_models
    are_many = bool(others) or len(first.properties) > MAX_PROPERTIES
    if are_many and findings.tasks:
        return _of_tasks(findings.tasks, width)
    shown = AllModels(first.tables, first.properties[:MAX_PROPERTIES])
    text = _of_models(shown, width)
    return f"{text}\nmae.md has more tables and properties" if are_many else text


def _of_models(all_models: AllModels, width: int) -> str:
    parts = _wrapped(all_models.title, width)
    room = max(3, MAX_LINES // len(all_models.properties))
    for known in all_models.properties:
        header, *body = lines_of(all_models, is_sorted=True, only=known)
        baseline, *models = body
        rows, left_out = shown_rows(known.lines), len(models) - room
        idle = {"property"} | ({"training rows", "test rows"} if rows else set())
        lines = [header, *models[:room], baseline]
        kept = [column for column, cell in enumerate(header) if cell.text not in idle]
        label = f"{property_words(known.property)} ({known.unit})"
        parts += ["", *_wrapped(f"{label}, {rows}" if rows else label, width)]
        parts += _table([[line[column] for column in kept] for line in lines], width)
        parts += [f"and {left_out} more, in mae.md"] if left_out > 0 else []
    is_tested = any(line.p_against_best is not None for line in all_models.lines)
    return "\n".join([*parts, *_wrapped(TESTED if is_tested else UNTESTED, width)])


def _of_tasks(tasks: Sequence[Task], width: int) -> str:
    lines = [line_of("task", "best by val", "test MAE", "baseline", "models tried")]
    for task in tasks[:MAX_LINES]:
        best, form = task.best, row_format(task.best.row)
        score = spread_text(best.score.mae, best.score.sd, best.score.n, form)
        lines.append(
            line_of(
                f"{property_words(task.property)} ({task.unit}), {task.dataset}",
                model_words(best.model),
                score,
                f"{best.row.baseline:{form}}",
                str(len(task.results)),
            )
        )
    more = len(tasks) - MAX_LINES
    return "\n".join(
        [
            *_wrapped("The best model of each task, chosen by its error on val", width),
            *_table(lines, width),
            *([f"and {more} more, in mae.md"] if more > 0 else []),
        ]
    )


def _conclusions(findings: Findings, width: int) -> Iterator[str]:
    """Say in words what the table supports."""
    tasks = {task.name: task for task in findings.tasks}
    for sentence in sentences(findings):
        if task := tasks.get(sentence.about):
            label = f"{property_words(task.property)}, {task.dataset}"
            yield "\n".join(_wrapped(f"{label}: {in_words(sentence.text)}", width))


def _published(findings: Findings, width: int) -> Iterator[str]:
    """Put our result on each benchmark between the published ones, a paragraph for all of them."""
    if boards := leaderboards_of(findings.tasks):
        lines = _wrapped("Published test MAEs on the same rows, and ours that val chooses", width)
        for board in boards[:MAX_LINES]:
            lines += _wrapped(_standing(board), width)
        more = len(boards) - MAX_LINES
        yield "\n".join([*lines, *([f"and {more} more, in mae.md"] if more > 0 else [])])


def _standing(board: Leaderboard) -> str:
    """Write a leaderboard in a line: the best ones, ours, and those next to ours."""
    score, form = board.chosen.score, row_format(board.chosen.row)
    ours = (
        f"OURS {spread_text(score.mae, score.sd, score.n, form)} {model_words(board.chosen.model)}"
    )
    n_better = sum(entry.mae < score.mae for entry in board.entries)
    shown = [*range(MAX_BEST), *range(n_better - 1, n_better + 1)]
    texts = [
        f"{entry.algorithm} {entry.mae:.4g}" if number in shown else "..."
        for number, entry in enumerate(board.entries)
    ]
    texts.insert(n_better, ours)
    texts = [text for text, _ in itertools.groupby(texts)]
    if board.differences:
        verdict = f"does not compare: {'; '.join(board.differences)}"
    else:
        verdict = f"place {board.place} of {len(board.entries) + 1}"
    if board.benchmark in WITH_STRUCTURES:
        verdict += "; ours by composition only, others also by structure"
    return f"{board.benchmark} ({board.task.unit}), {verdict}: {', '.join(texts)}"


def _missing(report: Report, width: int) -> Iterator[str]:
    """Count the runs without a result, with an example of each state."""
    done = [note.heading for note in report.notes if note.heading.endswith("cells are done")]
    notes = [f"{count} ({matrix})" for matrix, _, count in (note.rpartition(": ") for note in done)]
    gaps = report.findings.gaps
    counts = Counter(gap.state for gap in gaps.values())
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    lines = notes + ([f"without a result: {states}"] if states else [])
    for state in sorted(counts):
        folder, gap = min(item for item in gaps.items() if item[1].state == state)
        lines += [one_line(f"{state}, for example {folder}: {gap.why}")] if gap.why else []
    if lines:
        yield "\n".join(shown for line in lines for shown in _wrapped(line, width))


def _table(lines: Sequence[Line], width: int) -> list[str]:
    """Align lines of cells, the header first; columns that do not fit are left out.

    Instead of bold, a number gets a mark.
    """
    header = [cell.text for cell in lines[0]]
    texts = [list(line) for line in zip(*map(_marked, zip(*lines, strict=True)), strict=True)]
    kept = [number for number in range(len(header)) if any(line[number] for line in texts[1:])]
    for name in SPARED:
        if _needed(texts, kept) > width:
            kept = [number for number in kept if header[number] != name]
    words = {number for number in kept if header[number] in (*WORDS, *TASK_WORDS)}
    # Long starts and remarks are shortened first, and names last.
    for number in sorted(words, reverse=True):
        if (rest := _needed(texts, kept) - width) > 0:
            longest = max(len(line[number]) for line in texts)
            for line in texts:
                line[number] = _clipped(line[number], max(MIN_WORDS, longest - rest))
    widths = {number: max(len(line[number]) for line in texts) for number in kept}
    rows = [
        "  ".join(
            line[number].ljust(widths[number])
            if number in words
            else line[number].rjust(widths[number])
            for number in kept
        )
        for line in texts
    ]
    return [_clipped(row.rstrip(), width) for row in rows]


def _marked(column: Sequence[Text]) -> list[str]:
    """Mark the bold numbers of a column, so that all its numbers stay below each other."""
    texts = [one_line(cell.text) for cell in column]
    is_marked = [cell.bold and cell.text[:1].isdigit() for cell in column]
    if not any(is_marked):
        return texts
    marks = [MARK if marked else " " for marked in is_marked]
    return [f"{text} {mark}" for text, mark in zip(texts, marks, strict=True)]


def _needed(texts: Sequence[Sequence[str]], kept: Sequence[int]) -> int:
    return sum(max(len(line[number]) for line in texts) + 2 for number in kept) - 2


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines. A path stays whole, so that it can be copied."""
    return textwrap.wrap(
        one_line(text),
        width,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
