"""Write the table of all models as lines of text, with its names in words."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from irnet_hpc.aggregate.all_models import AllModels, ModelLine, PropertyLines
from irnet_hpc.aggregate.formats import (
    Line,
    Text,
    aligned,
    escape_latex,
    latex_float,
    latex_line,
    latex_tabular,
    line_of,
    missing,
)
from irnet_hpc.aggregate.mae_table import interval_text, number_format
from irnet_hpc.aggregate.scores import Score, model_of
from irnet_hpc.aggregate.significance import LEVEL
from irnet_hpc.aggregate.words import model_words, property_words

BASELINE = "Training median"
CHOSEN = "Chosen on val in each fold"
MARKS = "¹²³⁴⁵⁶⁷⁸⁹"
MAX_TRAINING = 20  # characters of a training that stays in its column in LaTeX
HEADER = ("property", "model", "training", "MAE", "RMSE", "R²", "runs", "training rows")
LAST = ("test rows", "remark")
WORDS = ("model", "training", "remark")  # columns of words, which are aligned to the left
SHORT = {"training rows": "Train", "test rows": "Test"}  # in LaTeX, where a line has less room
BOLD = (
    "Bold: the lowest MAE of a property, and every MAE that a test cannot tell apart "
    f"from it (p ≥ {LEVEL:g}, paired over common test rows and seeds, Holm's correction over the "
    "property). With fewer than three runs of a network nothing is tested, and the lowest MAE "
    "alone is bold."
)
TEXT = (
    "Errors on test rows: mean ± standard deviation over the runs. MAE and RMSE are in the unit of "
    f"the property. {BOLD} {BASELINE}: the baseline, which predicts the median of the training "
    "rows for every row. If rows were dealt to folds, errors are over all rows, and a single run "
    f"has the 95 % interval in brackets. {CHOSEN}: in each fold the model with the lowest MAE on "
    "val predicts; this is the error to expect of the best model, while the lowest MAE of the "
    "others was found on the test rows themselves."
)


def lines_of(
    all_models: AllModels,
    is_sorted: bool = False,
    repeats: bool = False,
    only: PropertyLines | None = None,
) -> list[Line]:
    """Show the table of all models as lines of text, the header first.

    Columns that say nothing are left out: the training, if the title says it for all models, and
    the remarks, if there are none.

    Args:
        all_models: the table.
        is_sorted: True to order the models of each property by MAE.
        repeats: True to write the property in each line, and not only in its first one.
        only: the only property to show; None: all.
    """
    lines = [line_of(*HEADER, *LAST)]
    for known in [only] if only else all_models.properties:
        shown = sorted(known.lines, key=lambda line: line.score.mae) if is_sorted else known.lines
        body = [_baseline(known), *([_chosen(known, known.chosen)] if known.chosen else [])]
        body += [_line(known, line, all_models.training(line)) for line in shown]
        label = Text(f"{property_words(known.property)} ({known.unit})")
        lines += [
            [label if repeats or number == 0 else Text(""), *cells]
            for number, cells in enumerate(body)
        ]
    is_empty = [not any(line[number].text for line in lines[1:]) for number in range(len(lines[0]))]
    kept = [number for number, empty in enumerate(is_empty) if not empty]
    return [[line[number] for number in kept] for line in lines]


def _baseline(known: PropertyLines) -> Line:
    form = number_format_of(known)
    baseline = Text(f"{known.baseline:{form}}", known.baseline_best)
    return line_of(BASELINE, "", baseline, *[missing("–")] * 4, f"{known.n_test:,}", "")


def _line(known: PropertyLines, line: ModelLine, training: str) -> Line:
    form, score = number_format_of(known), line.score
    r2 = score.mean("test_r2")
    # The number of runs shows if the model has a seed, and the pack's name has the folds.
    remarks = [
        remark
        for remark in score.remarks
        if remark != "no seed" and not remark.endswith(" folds each")
    ]
    return line_of(
        Text(model_words(line.model), line.best),
        training,
        Text(_mae(score, form), line.best),
        _spread(score.mean("test_rmse"), score.sd_of("test_rmse"), form),
        missing("–") if r2 is None else f"{r2:.3f}",
        str(score.n),
        f"{line.row.n_train:,}",
        f"{line.row.n_test:,}",
        "; ".join(remarks),
    )


def _chosen(known: PropertyLines, score: Score) -> Line:
    """Show what val chooses in each fold; the column of trainings says what it is."""
    form, r2 = number_format_of(known), score.mean("test_r2")
    counts = Counter(
        " ".join(
            [model_words(model_of(run.spec)), "" if run.spec.is_classical else run.spec.recipe]
        )
        for joined in score.runs
        for run in joined.folds
    )
    of_folds = ", ".join(f"{name.strip()} ×{count}" for name, count in counts.most_common())
    n_train = round(sum(run.result.n_train for run in score.runs) / score.n)
    return line_of(
        CHOSEN,
        of_folds,
        _mae(score, form),
        _spread(score.mean("test_rmse"), score.sd_of("test_rmse"), form),
        missing("–") if r2 is None else f"{r2:.3f}",
        str(score.n),
        f"{n_train:,}",
        f"{known.n_test:,}",
        "",
    )


def _mae(score: Score, form: str) -> str:
    """Show a MAE with its spread over the runs, or a single run of folds with its interval."""
    if score.interval and _shows_interval(score):
        return f"{score.mae:{form}} ({interval_text(*score.interval, form)})"
    return _spread(score.mae, score.sd, form)


def _shows_interval(score: Score) -> bool:
    return score.sd is None and any(run.folds for run in score.runs)


def _spread(mean: float | None, sd: float | None, form: str) -> str:
    spread = "" if sd is None else f" ± {sd:{form}}"
    return "–" if mean is None else f"{mean:{form}}{spread}"


def number_format_of(known: PropertyLines) -> str:
    """Return the number format of all errors of a property, so that they line up."""
    scores = [line.score for line in known.lines]
    spreads = [score.sd for score in scores if score.sd]
    if not spreads:  # a quarter of a 95 % interval is about a standard deviation
        shown = [score.interval for score in scores if _shows_interval(score)]
        spreads = [(high - low) / 4 for low, high in filter(None, shown) if high > low]
    return number_format(min(score.mae for score in scores), median(spreads) if spreads else None)


def model_markdown(all_models: AllModels, width: int | None = None) -> str:
    """Write the table of all models as Markdown, with its title."""
    return f"## {title_of(all_models)}\n\n{aligned(lines_of(all_models), width, WORDS)}"


def title_of(all_models: AllModels) -> str:
    """Return the title of the table of all models."""
    return f"All models: {all_models.title}"


def model_latex(all_models: AllModels) -> str:
    """Write the table of all models for LaTeX, as one tabular; the caption says what is bold."""
    caption = (
        f"Errors on the test rows of {all_models.title}: mean ± standard deviation over the runs. "
        "MAE and RMSE are in the unit of the property; Train and Test are numbers of rows. "
        f"{BOLD}"
    )
    if any(_shows_interval(line.score) for line in all_models.lines):
        caption += " In brackets: the 95 % interval of a single run on all folds."
    header, lines, notes = _with_notes(*lines_of(all_models))
    short = [SHORT.get(cell.text, cell.text) for cell in header[1:]]
    heads = line_of(*(text[:1].upper() + text[1:] for text in short))
    body: list[str] = []
    for line in lines:
        if line[0].text:  # the property, in a line of its own
            body += [r"\addlinespace"] if body else []
            label = escape_latex(line[0].text)
            body.append(rf"\multicolumn{{{len(heads)}}}{{l}}{{\emph{{{label}}}}} \\")
        body.append(latex_line(line[1:]))
    # Numbers are aligned to the right, and words to the left.
    columns = "".join("l" if head.text.lower() in WORDS else "r" for head in heads)
    below = "".join(f"\n\n\\smallskip\n{escape_latex(note)}" for note in notes)
    # Intervals need the room; the length is that of this table only.
    tabular = "\\setlength{\\tabcolsep}{3pt}\n" + latex_tabular(columns, heads, body)
    return latex_float(caption, all_models.name, tabular + below)


def _with_notes(header: Line, *lines: Line) -> tuple[Line, list[Line], list[str]]:
    """Move remarks and long trainings from the columns to notes below, with a mark at the model."""
    names = [cell.text for cell in header]
    marks: dict[str, str] = {"": ""}
    marked = []
    for line in lines:
        cells = dict(zip(names, line, strict=True))
        training, remark = (
            cells[name].text if name in cells else "" for name in ("training", "remark")
        )
        is_long = len(training) > MAX_TRAINING
        note = "; ".join(part for part in (training if is_long else "", remark) if part)
        mark = marks.setdefault(note, MARKS[(len(marks) - 1) % len(MARKS)])
        cells["model"] = cells["model"]._replace(text=cells["model"].text + mark)
        if is_long:
            cells["training"] = Text("")
        marked.append(cells)
    kept = [
        name
        for name in names
        if name != "remark"
        and (name != "training" or any(cells["training"].text for cells in marked))
    ]
    return (
        line_of(*kept),
        [[cells[name] for name in kept] for cells in marked],
        [f"{mark} {note}" for note, mark in marks.items() if note],
    )


def records_of(tables: Iterable[AllModels]) -> Iterator[dict]:
    """Yield a record for each table of all models, for mae.json."""
    for all_models in tables:
        table = all_models.tables[0]
        yield {
            "title": all_models.title,
            "pack": table.pack,
            "protocol": table.protocol,
            "selected_on": table.selected_on,
            "train_rows": table.train_rows,
            "properties": [_property_record(known) for known in all_models.properties],
        }


def _property_record(known: PropertyLines) -> dict:
    return {
        "property": known.property,
        "property_name": property_words(known.property),
        "unit": known.unit,
        "n_test": known.n_test,
        "baseline_mae": known.baseline,
        "baseline_best": known.baseline_best,
        "models": [_model_record(line) for line in known.lines],
        "chosen_on_val_in_each_fold": known.chosen
        and {
            "test_mae_mean": known.chosen.mae,
            "test_rmse_mean": known.chosen.mean("test_rmse"),
            "test_r2_mean": known.chosen.mean("test_r2"),
            "interval": known.chosen.interval and list(known.chosen.interval),
            "n_runs": known.chosen.n,
        },
    }


def _model_record(line: ModelLine) -> dict:
    return {
        "model": str(line.model),
        "model_name": model_words(line.model),
        "recipe": line.table.recipe_label,
        "start_from": line.table.start_from,
        "joint": line.table.joint,
        "n_train": line.row.n_train,
        "n_runs": line.score.n,
        "test_mae_mean": line.score.mae,
        "test_mae_sd": line.score.sd,
        "test_rmse_mean": line.score.mean("test_rmse"),
        "test_rmse_sd": line.score.sd_of("test_rmse"),
        "test_r2_mean": line.score.mean("test_r2"),
        "test_median_error": line.score.median_error,
        "val_mae_mean": line.score.mean("val_mae"),
        "p_against_best": line.p_against_best,
        "best": line.best,
    }


def shown_rows(lines: Sequence[ModelLine]) -> str:
    """Say how many rows the models of a property were trained and tested on, if all have equal."""
    counts = {(line.row.n_train, line.row.n_test) for line in lines}
    if len(counts) > 1:
        return ""
    ((n_train, n_test),) = counts
    return f"{n_train:,} training and {n_test:,} test rows"
