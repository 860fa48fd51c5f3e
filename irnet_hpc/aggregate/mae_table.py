"""Write a table as Markdown, LaTeX and records of a CSV. Only Markdown and LaTeX are rounded."""

from collections.abc import Iterable, Iterator, Mapping
from statistics import median

from irnet_hpc.aggregate.formats import Line, Text, aligned, csv_text, latex_table, line_of, missing
from irnet_hpc.aggregate.scores import Model, ModelScore, Score
from irnet_hpc.aggregate.tables import Missing, Row, Table
from irnet_hpc.aggregate.words import in_words, model_words, property_words
from irnet_hpc.runs.result import FAR_ABOVE

BEST = "the best of a row, and every model that the test cannot tell apart from it"
BOLD = (
    "Bold marks the best "
    "of a row and, from three runs on, every model that does not differ significantly from it "
    "(paired over common test rows and seeds, Holm's correction over the row). With fewer than "
    "three runs, bold marks the lowest MAE and claims nothing."
)
HOW_TO_READ = (
    "Each number is a test MAE: mean ± sd over seeds (n = number of seeds). "
    f"{BOLD} baseline: predict the median of "
    "the training rows for every test row. no seed: all seeds of the model give the same "
    "result, so it counts once for each split. far above the baseline: a run whose MAE on val or "
    f"test is more than {FAR_ABOVE:g} times the baseline's, so do not use it. N rows make P %: "
    "only N test rows cause half or more of the MAE. irnet vs plain: by how many per cent IRNet's "
    "MAE is below that of the plain network of the same depth; its interval is among the "
    "differences."
)
HOW_TO_READ_CLASSICAL = (
    "best classical: the test MAE of the classical model with the lowest MAE on val, trained on "
    "the same rows. It is never chosen by test; protocol paper has no val, so there the val MAE of "
    "the same model's honest runs decides. irnet vs classical: by how many per cent IRNet's MAE is "
    "below it."
)
HOW_TO_READ_JOINT = (
    "one network for several properties: it is trained on the rows that report at least one of "
    "them, and selected by the mean of the errors relative to the sd of the training targets. vs "
    "one each: by how many per cent its MAE is below that of the same model trained for the "
    "property alone, over the splits and seeds that both have. With the first n training rows, "
    "they are compared only where all of these rows report the property."
)
HOW_TO_READ_SPLITS = (
    "splits: packs that differ only in the seed of their split share a table. Mean ± sd is then "
    "over the runs of all splits and seeds (n = number of runs); numbers of rows and the baseline "
    "are means over the splits. irnet vs plain is over the splits and seeds that both have, irnet "
    "vs classical over the splits that both have. Only a model that was trained on all splits of a "
    "row can be its best."
)


def row_format(row: Row) -> str:
    """Return the number format that all numbers of a row share, so that they line up.

    It shows two significant digits of the median sd over seeds, but at most five significant digits
    of the lowest MAE. If there is no sd, it shows four significant digits of the lowest MAE.
    """
    scores = [score for score in row.scores if score]
    sds = [score.sd for score in scores if score.sd]
    return number_format(min(score.mae for score in scores), median(sds) if sds else None)


def number_format(lowest: float, sd: float | None) -> str:
    """Return the number format of errors, the lowest of which and a typical sd are given."""
    if not 1e-4 <= lowest < 1e6:
        return ".3e"
    if sd is None:
        return f".{_decimals(lowest, 4)}f"
    return f".{min(_decimals(sd, 2), _decimals(lowest, 5))}f"


def difference_format(differences: Iterable[float], spreads: Iterable[float | None]) -> str:
    """Return the number format of differences, which shows the sign.

    It shows two significant digits of the median spread. If there is no spread, it shows three
    significant digits of the largest difference.
    """
    known = [spread for spread in spreads if spread]
    value, digits = (median(known), 2) if known else (max(map(abs, differences)), 3)
    if value and not 1e-5 <= value < 1e6:
        return "+.1e"
    return f"+.{_decimals(value, digits) if value else 1}f"


def _decimals(value: float, digits: int) -> int:
    """Return the number of decimal places that show `digits` significant digits of a value."""
    # Take the exponent of the rounded value: 0.0996 is rounded to 0.10.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return max(0, digits - 1 - exponent)


def percent_text(percent: float | None, otherwise: str) -> Text:
    """Show a percentage with its sign, or the text `otherwise` if it is None."""
    return missing(otherwise) if percent is None else Text(f"{percent:+.1f} %")


def interval_text(low: float, high: float, form: str) -> str:
    """Show an interval, e.g. `0.11 to 0.14`."""
    return f"{low:{form}} to {high:{form}}"


def p_text(p: float) -> str:
    """Show a probability, e.g. `p = 0.03`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def score_text(score: Score, form: str) -> str:
    """Show a score as mean ± sd (n), with the warnings that belong to it."""
    return spread_text(score.mae, score.sd, score.n, form, score.remarks)


def spread_text(
    mean: float, sd: float | None, n: int, form: str, remarks: Iterable[str] = ()
) -> str:
    """Show mean ± sd (n; remarks). If the format `form` has a sign, only the mean gets it."""
    spread = "" if sd is None else f" ± {sd:{form.lstrip('+')}}"
    return f"{mean:{form}}{spread} ({'; '.join([f'n={n}', *remarks])})"


def score_cell(table: Table, row: Row, model: Model) -> Text:
    """Show the score of a model in a row, or the reason why it has none."""
    score = table.score(row, model)
    if score is None:
        return missing(table.missing(row, model))
    return Text(score_text(score, row_format(row)), score.best)


def classical_cell(row: Row) -> Text:
    """Show the best classical model of a row and its score."""
    best = row.best_classical
    if best is None:
        return missing(Missing.NOT_RUN)
    return Text(f"{best.model} {score_text(best, row_format(row))}", best.best)


def grid(table: Table) -> list[Line]:
    """Show the table as lines of text.

    The columns are property, baseline, best classical model, the models and the comparisons.
    """
    irnets = [
        model for model in table.models if model.architecture == "irnet" and table.has_classical
    ]
    header = ["property", "baseline"] + (["best classical"] if table.has_classical else [])
    header += [str(model) for model in table.models]
    header += [f"irnet vs plain, {depth}" for depth in table.compared_depths]
    header += [f"irnet vs classical, {model.depth}" for model in irnets]
    header += [f"{model} vs one each" for model in table.compared_with_single]
    lines = [line_of(*header)]
    for row in table.rows:
        cells = [Text(row.label), Text(f"{row.baseline:{row_format(row)}}", row.baseline_best)]
        cells += [classical_cell(row)] if table.has_classical else []
        cells += [score_cell(table, row, model) for model in table.models]
        cells += [_over_plain(table, row, depth) for depth in table.compared_depths]
        cells += [_over_classical(table, row, model) for model in irnets]
        cells += [_over_single(table, row, model) for model in table.compared_with_single]
        lines.append(cells)
    return lines


def _over_plain(table: Table, row: Row, depth: int) -> Text:
    plain, irnet = (table.score(row, Model(name, depth)) for name in ("plain", "irnet"))
    why = "no plain" if irnet else "no irnet"
    return percent_text(
        irnet.improvement_over_plain if irnet else None,
        "no common seed" if irnet and plain else why,
    )


def _over_classical(table: Table, row: Row, model: Model) -> Text:
    irnet = table.score(row, model)
    why = "no classical" if irnet else "no irnet"
    return percent_text(
        irnet.improvement_over_classical if irnet else None,
        "no common seed" if irnet and row.best_classical else why,
    )


def _over_single(table: Table, row: Row, model: Model) -> Text:
    score = table.score(row, model)
    return percent_text(
        score.improvement_over_single if score else None,
        "no own network" if score else f"no {model}",
    )


def markdown(table: Table, width: int | None = None) -> str:
    """Write the table as aligned Markdown. Columns that do not fit into `width` are shown below."""
    return aligned(grid(table), width)


def latex(table: Table) -> str:
    """Write the table for LaTeX, in words. The document must load the package booktabs."""
    properties = {row.property for row in table.rows}
    return latex_table(
        f"Test MAE. {table.title}. {BOLD}",
        table.name,
        grid(table),
        lambda text: in_words(text, properties),
    )


def tidy_records(tables: Iterable[Table]) -> Iterator[dict]:
    """Yield a record for each score: numbers in full precision, improvements in per cent."""
    tables = list(tables)
    with_classical = any(table.has_classical for table in tables)
    with_joint = any(table.joint for table in tables)
    for table in tables:
        for row, model, score in table.scored():
            record = _record(table, row, model, score)
            if with_classical:
                best = row.best_classical
                record["best_classical"] = best and best.model
                record["best_classical_mae"] = best and best.mae
                record["improvement_over_classical"] = score.improvement_over_classical
            if with_joint:
                record["joint"] = table.joint
                record["improvement_over_single"] = score.improvement_over_single
            yield record | _added(row, model, score)


def _record(table: Table, row: Row, model: Model, score: ModelScore) -> dict:
    low, high = score.interval or (None, None)
    return {
        "pack": table.pack,
        "property": row.property,
        "model": str(model),
        "architecture": model.architecture,
        "depth": model.depth,
        "recipe": table.recipe_label,
        "protocol": table.protocol,
        "selected_on": table.selected_on,
        "train_rows": table.train_rows,
        "start_from": table.start_from,
        "n_train": row.n_train,
        "n_val": row.n_val,
        "n_test": row.n_test,
        "unit": row.unit,
        "test_mae_mean": score.mae,
        "test_mae_sd": score.sd,
        "n_seeds": len(score.seeds),
        "seeds": " ".join(map(str, score.seeds)),
        "uses_seed": int(score.uses_seed),
        "n_runs": score.n,
        "splits": " ".join(map(str, score.splits)),
        "test_mae_low": low,
        "test_mae_high": high,
        "p_against_best": score.p_against_best,
        "n_rows_of_half": score.half and score.half.n,
        "test_mae_without_them": score.half and score.half.mae_without,
        "n_far_above_baseline": len(score.far_above_baseline),
        "ensemble_mae": score.ensemble_mae,
        "baseline_mae": row.baseline,
        "improvement_over_plain": score.improvement_over_plain,
        "best": int(score.best),
        "n_parameters": score.n_parameters,
        "device_hours": score.device_hours,
    }


def _added(row: Row, model: Model, score: ModelScore) -> dict:
    """Return the columns that were added last; they come after all others.

    So a script that counts columns reads the same ones as before.
    """
    return {
        "test_rmse_mean": score.mean("test_rmse"),
        "test_rmse_sd": score.sd_of("test_rmse"),
        "test_r2_mean": score.mean("test_r2"),
        "test_r2_sd": score.sd_of("test_r2"),
        "test_median_error": score.median_error,
        "model_name": model_words(model),
        "property_name": property_words(row.property),
        "val_mae_mean": score.mean("val_mae"),
    }


def tidy_csv(tables: Iterable[Table]) -> str:
    """Write all tables as one CSV with a line for each score."""
    return csv_text(tidy_records(tables))


def settings_of(table: Table) -> Mapping[str, str | int | None]:
    """Return the first columns of a section's CSV: the settings of the table, and `joint`.

    `joint` lists the properties that each network predicts together.
    """
    return {**table.settings, "joint": table.joint}
