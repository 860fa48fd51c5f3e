"""Show a fitted model as HTML, for notebooks. Every text is escaped."""

from html import escape
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.words import model_words, property_words

if TYPE_CHECKING:
    from irnet_hpc.fitting.fitted import FittedModel

DIGITS = 4
WORDS = {
    "val_mae": "MAE on val",
    "test_mae": "MAE on test",
    "interval": "95 % interval",
    "test_rmse": "RMSE on test",
    "test_r2": "R² on test",
    "seconds": "seconds",
}


def model_html(model: "FittedModel") -> str:
    """Return a sentence about the chosen model, a table of all models, and the rows left out."""
    title = f"<b>{escape(property_words(model.property))}</b> ({escape(model.unit)})"
    head = f"<p>{title}: {_sentences(model)}</p>"
    return f"<div>{head}{_table(model)}{_counts(model)}{_failures(model)}</div>"


def _sentences(model: "FittedModel") -> str:
    row, baseline = model.comparison.loc[model.name], model.comparison.iloc[-1]
    low, high = model.test_interval
    name, numbers = escape(model_words(model.name)), f"{model.test_mae:.{DIGITS}g}"
    interval = f"(95 % interval {low:.{DIGITS}g} to {high:.{DIGITS}g})"
    median = f"; the training median alone has {baseline['test_mae']:.{DIGITS}g}."
    if worse := ", ".join(map(model_words, model.worse_than_median)):
        median += f" It is better than {escape(worse)}."
    if model.n_folds == 1:
        return (
            f"<b>{name}</b> was chosen by its MAE on {row['n_val']:,.0f} val rows. On "
            f"{row['n_test']:,.0f} test rows, which chose nothing, its MAE is {numbers} "
            f"{interval}{median}"
        )
    return (
        f"<b>{name}</b> was chosen by its MAE on the val rows of {model.n_folds} folds. On all "
        f"{row['n_test']:,.0f} rows, each predicted by the model that was chosen on val in its "
        f"fold and had not seen the row, the MAE is {numbers} {interval}{median}"
    )


def _table(model: "FittedModel") -> str:
    shown = model.comparison.copy()
    shown.insert(0, "interval", "")
    known = shown["low"].notna()
    shown.loc[known, "interval"] = [
        f"{low:.{DIGITS}g} to {high:.{DIGITS}g}"
        for low, high in zip(shown.loc[known, "low"], shown.loc[known, "high"], strict=True)
    ]
    numbers = shown[list(WORDS)].rename(columns=WORDS)
    numbers.index = numbers.index.map(model_words).rename(None)
    # pandas escapes every text of the table unless it is told not to.
    return numbers.to_html(escape=True, na_rep="", float_format=lambda x: f"{x:.{DIGITS}g}")


def _counts(model: "FittedModel") -> str:
    counts = dict(model.counts)
    read, packed = counts.pop("read"), counts.pop("packed")
    reasons = "; ".join(f"{n:,} {why}" for why, n in counts.items())
    text = f"{packed:,} of {read:,} rows are used."
    if reasons:
        text += f" Left out, and listed in .rejected: {reasons}."
    return f"<p>{escape(text)}</p>"


def _failures(model: "FittedModel") -> str:
    lines = [
        f"{model_words(name)} could not be trained: {why}" for name, why in model.failed.items()
    ]
    return "".join(f"<p>{escape(line)}</p>" for line in lines)
