"""Write the predictions: select the rows and their order, and format the numbers.

The columns of the input come first. Each property adds `predicted_`; `low_` and `high_` if it has
an interval; and `sd_` if several members predict it. The last columns are `distance`, `outside`,
`seen_as` of a portable model, and `problem`. The units are in the file `about.json` beside the
predictions.
"""

import contextlib
import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from irnet_hpc.errors import UserError
from irnet_hpc.files import followed, replacing
from irnet_hpc.predict.screening import Ensemble, ScreenedBatch

ENDINGS = (".csv", ".csv.gz")
# Significant digits of a number, by the first word of its column.
DIGITS = {"predicted": 6, "low": 6, "high": 6, "sd": 4, "distance": 3}


class RowFilter(NamedTuple):
    """The rule for the rows to keep: those within bounds, or only the `top` best of them."""

    minimum: dict[str, float]  # property -> lowest prediction to keep, in its unit
    maximum: dict[str, float]  # property -> highest prediction to keep, in its unit
    top: int | None = None
    by: str = ""
    lowest: bool = False  # whether the best rows are those with the lowest predictions

    @property
    def keeps_all(self) -> bool:
        """Return True if every row is kept, even one without a prediction."""
        return not self.minimum and not self.maximum and self.top is None


# A distance below it is that of a row with the features of a training row, but for rounding.
SEEN = 1e-5


class Tally(NamedTuple):
    """The numbers of rows that were read, kept and marked so far."""

    n_rows: int = 0
    n_problems: int = 0
    n_outside: int = 0
    n_kept: int = 0
    n_seen: int = 0  # rows with the features of a training row
    # Rows whose formula the model has seen; always 0 unless the model states its formulas.
    n_known: int = 0


class OutputBatch(NamedTuple):
    """Rows to write, as text, and the counts up to and including them."""

    rows: list[list[str]]
    tally: Tally


def output_header(columns: Sequence[str], ensemble: Ensemble) -> list[str]:
    """Return the names of the output's columns.

    Args:
        columns: Names of the input's columns, which are copied.
        ensemble: The models that predict.

    Raises:
        UserError: If a column of the input has the name of a column that predictions add.
    """
    own = [name for property in ensemble.properties for name in _names(ensemble, property)]
    own += ["distance", *flag_names(ensemble)]
    if taken := [name for name in own if name in columns]:
        raise UserError(
            f"the table already has a column {taken[0]!r}, a name that predictions need; "
            "rename that column"
        )
    return [*columns, *own]


def _names(ensemble: Ensemble, property: str) -> list[str]:
    names = [f"predicted_{property}"]
    names += [f"low_{property}", f"high_{property}"] if ensemble.intervals[property] else []
    return names + ([f"sd_{property}"] if ensemble.n_members(property) > 1 else [])


def number_columns(ensemble: Ensemble, batch: ScreenedBatch) -> dict[str, np.ndarray]:
    """Return the columns that hold numbers: name -> (n_rows,) float64, in the property's unit.

    They have the names and the order of the header's columns. A row without a number has NaN.
    """
    columns: dict[str, np.ndarray] = {}
    for property in ensemble.properties:
        spread = batch.spreads[property]
        bounds = ensemble.bounds(property, spread)
        values = [spread.mean, *(bounds or ()), spread.sd]
        columns |= dict(zip(_names(ensemble, property), values, strict=False))
    return columns | {"distance": batch.distance}


def flag_names(ensemble: Ensemble) -> list[str]:
    """Return the names of the columns that hold text, in their order."""
    return ["outside", *(["seen_as"] if ensemble.known else []), "problem"]


def flag_columns(batch: ScreenedBatch) -> dict[str, list[str]]:
    """Return the columns that hold text: name -> (n_rows,), as flag_names lists them.

    A row with a problem has an empty `outside`.
    """
    n_rows, problems = len(batch.outside), batch.problems
    outside = ["" if row in problems else batch.outside[row] for row in range(n_rows)]
    seen_as = {} if batch.seen_as is None else {"seen_as": batch.seen_as}
    problem = [problems.get(row, "") for row in range(n_rows)]
    return {"outside": outside, **seen_as, "problem": problem}


def format_rows(
    ensemble: Ensemble, batches: Iterable[ScreenedBatch], row_filter: RowFilter
) -> Iterator[OutputBatch]:
    """Format the rows that are kept, batch by batch.

    With `row_filter.top`, the rows to keep are known only at the end; then there is one batch, with
    the best row first.
    """
    best: list[tuple[float, list[str]]] = []
    tally = Tally()
    for batch in batches:
        rows = _kept_rows(batch, row_filter)
        n_outside = sum(
            bool(text) and row not in batch.problems for row, text in enumerate(batch.outside)
        )
        tally = Tally(
            tally.n_rows + len(batch.outside),
            tally.n_problems + len(batch.problems),
            tally.n_outside + n_outside,
            tally.n_kept + len(rows),
            tally.n_seen + int((batch.distance < SEEN).sum()),
            tally.n_known + sum(map(bool, batch.seen_as or ())),
        )
        if row_filter.top is None:
            yield OutputBatch(_format(ensemble, batch, rows), tally)
            continue
        value = batch.spreads[row_filter.by].mean[rows] * (1 if row_filter.lowest else -1)
        first = np.argsort(value, kind="stable")[: row_filter.top]
        best += zip(value[first].tolist(), _format(ensemble, batch, rows[first]), strict=True)
        best = sorted(best, key=lambda entry: entry[0])[: row_filter.top]
        tally = tally._replace(n_kept=len(best))
        yield OutputBatch([], tally)
    if row_filter.top is not None:
        yield OutputBatch([text for _, text in best], tally)


def _kept_rows(batch: ScreenedBatch, row_filter: RowFilter) -> np.ndarray:
    """Return the numbers of the rows to keep. A row without a prediction is never within bounds."""
    if row_filter.keeps_all:
        return np.arange(len(batch.outside))
    keep = np.ones(len(batch.outside), bool)
    for spread in batch.spreads.values():
        keep &= ~np.isnan(spread.mean)
    for name, minimum in row_filter.minimum.items():
        keep &= batch.spreads[name].mean >= minimum
    for name, maximum in row_filter.maximum.items():
        keep &= batch.spreads[name].mean <= maximum
    return np.flatnonzero(keep)


def _format(ensemble: Ensemble, batch: ScreenedBatch, rows: np.ndarray) -> list[list[str]]:
    numbers = [
        _format_numbers(values[rows], DIGITS[name.partition("_")[0]])
        for name, values in number_columns(ensemble, batch).items()
    ]
    flags = flag_columns(batch).values()
    fields = batch.batch.fields
    return [
        [*fields[row], *texts, *(flag[row] for flag in flags)]
        for row, *texts in zip(rows.tolist(), *numbers, strict=True)
    ]


def _format_numbers(values: np.ndarray, digits: int) -> list[str]:
    pattern = f"%.{digits}g"
    return ["" if value != value else pattern % value for value in values.tolist()]


@contextlib.contextmanager
def open_output(path: str, stdout: TextIO) -> Iterator[TextIO]:
    """Open a text file for writing, under a temporary name until it is complete.

    Args:
        path: A name that ends in .csv or .csv.gz, or `-` for stdout.
        stdout: The stream that `-` stands for.

    Raises:
        UserError: If the name has another ending.
    """
    if path == "-":
        if isinstance(stdout, io.TextIOWrapper):
            stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
        yield stdout
        return
    check_output(path)
    with replacing(followed(path)) as temporary:
        opener = gzip.open if path.endswith(".gz") else open
        with opener(
            temporary, "wt", encoding="utf-8", errors="surrogateescape", newline=""
        ) as stream:
            yield stream


def check_output(path: str) -> None:
    """Check the name of the file for predictions.

    Raises:
        UserError: If the name has an ending that is not in ENDINGS, or if there is a folder of that
            name.
    """
    if path != "-" and not path.endswith(ENDINGS):
        raise UserError(
            f"the output must be named {' or '.join('*' + ending for ending in ENDINGS)}, or -, "
            f"got {path}"
        )
    if path != "-" and Path(path).is_dir():
        raise UserError(f"the output must be a file, got the folder {path}")
