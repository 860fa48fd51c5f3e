"""Show a fitted model as HTML, for notebooks. Every text is escaped."""

from html import escape
from typing import TYPE_CHECKING

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
    frame = model.comparison
    row, baseline = frame.loc[model.name], frame.iloc[-1]
    head = (
        f"<p><b>{escape(model.property)}</b> ({escape(model.unit)}): <b>{escape(model.name)}</b> "
        f"has the lowest MAE on {row['n_val']:,.0f} val rows. On {row['n_test']:,.0f} test rows, "
        f"which chose nothing, its MAE is {row['test_mae']:.{DIGITS}g} (95 % interval "
        f"{row['low']:.{DIGITS}g} to {row['high']:.{DIGITS}g}); the training median alone has "
        f"{baseline['test_mae']:.{DIGITS}g}.</p>"
    )
    return f"<div>{head}{_table(model)}{_counts(model)}{_failures(model)}</div>"


def _table(model: "FittedModel") -> str:
    shown = model.comparison.copy()
    shown.insert(0, "interval", "")
    known = shown["low"].notna()
    shown.loc[known, "interval"] = [
        f"{low:.{DIGITS}g} to {high:.{DIGITS}g}"
        for low, high in zip(shown.loc[known, "low"], shown.loc[known, "high"], strict=True)
    ]
    numbers = shown[list(WORDS)].rename(columns=WORDS)
    numbers.index.name = None
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
    lines = [f"{name} could not be trained: {why}" for name, why in model.failed.items()]
    return "".join(f"<p>{escape(line)}</p>" for line in lines)
