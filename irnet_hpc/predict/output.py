"""The list of predictions: which rows are in it, in which order, and how they are written.

Columns as they came, then for each property `predicted_`, with an interval `low_` and `high_`, with several members `sd_`;
then `distance`, `outside` and `problem`. Units stand in the file beside it, and in what is said.
"""

import contextlib
import csv
import gzip
import io
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from irnet_hpc.data.properties import floor_of
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import replacing
from irnet_hpc.predict.screening import Screen, Screened

ENDINGS = (".csv", ".csv.gz")


class Wanted(NamedTuple):
    """Which rows are kept: those between least and most, and of these the first so many by a property."""

    least: dict[str, float]  # property -> in its unit
    most: dict[str, float]
    top: int | None = None
    by: str = ""
    lowest: bool = False  # whether the first are those of the lowest values

    @property
    def everything(self) -> bool:
        return not self.least and not self.most and self.top is None


class Tally(NamedTuple):
    n_rows: int = 0
    n_problems: int = 0
    n_outside: int = 0
    n_kept: int = 0


def bounds(pairs: Sequence[str], option: str, properties: Sequence[str]) -> dict[str, float]:
    """`[PROPERTY=]VALUE` -> property -> value; without a property, that of the only one. Raises UserError."""
    found: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.rpartition("=")
        if not name and len(properties) > 1:
            raise UserError(
                f"{option} must name a property, {', '.join(properties)}, however: {pair!r}"
            )
        name = check_choice("predicted property", name or properties[0], properties)
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = math.nan
        if math.isnan(found[name]):
            raise UserError(f"{option} must be [PROPERTY=]NUMBER, however: {pair!r}")
    return found


def header(columns: Sequence[str], screen: Screen) -> list[str]:
    """The names of the columns. Raises UserError where one of ours is there already."""
    ours = []
    for name, interval in screen.intervals.items():
        ours += [f"predicted_{name}", *([f"low_{name}", f"high_{name}"] if interval else [])]
        ours += [f"sd_{name}"] if _n_members(screen, name) > 1 else []
    ours += ["distance", "outside", "problem"]
    if taken := [name for name in ours if name in columns]:
        raise UserError(
            f"the table already has a column {taken[0]!r}; rename it: predictions get one of that name"
        )
    return [*columns, *ours]


def _n_members(screen: Screen, name: str) -> int:
    return sum(name in member.units for member in screen.members)


def lines(
    screen: Screen, blocks: Iterable[Screened], wanted: Wanted, tallies: list[Tally]
) -> Iterator[list[list[str]]]:
    """Rows as text, block by block; where only the first are wanted, all with the last block, the best first.

    `tallies` gets how many rows there were after each block.
    """
    best: list[tuple[float, list[str]]] = []
    tally = Tally()
    for block in blocks:
        rows = _rows_wanted(block, wanted)
        n_outside = sum(
            bool(text) and row not in block.problems for row, text in enumerate(block.outside)
        )
        tally = Tally(
            tally.n_rows + len(block.outside),
            tally.n_problems + len(block.problems),
            tally.n_outside + n_outside,
        )._replace(n_kept=tally.n_kept + len(rows))
        tallies.append(tally)
        if wanted.top is None:
            yield _text(screen, block, rows)
            continue
        value = block.spreads[wanted.by].mean[rows] * (1 if wanted.lowest else -1)
        first = np.argsort(value, kind="stable")[: wanted.top]
        best += zip(value[first].tolist(), _text(screen, block, rows[first]), strict=True)
        best = sorted(best, key=lambda entry: entry[0])[: wanted.top]
        tallies[-1] = tally._replace(n_kept=len(best))
        yield []
    if wanted.top is not None:
        yield [text for _, text in best]


def _rows_wanted(block: Screened, wanted: Wanted) -> np.ndarray:
    """Numbers of the rows that are kept. A row without a prediction is within no bounds, and no first one."""
    if wanted.everything:
        return np.arange(len(block.outside))
    keep = np.ones(len(block.outside), bool)
    for spread in block.spreads.values():
        keep &= ~np.isnan(spread.mean)
    for name, least in wanted.least.items():
        keep &= block.spreads[name].mean >= least
    for name, most in wanted.most.items():
        keep &= block.spreads[name].mean <= most
    return np.flatnonzero(keep)


def _text(screen: Screen, block: Screened, rows: np.ndarray) -> list[list[str]]:
    numbers = []
    for name, interval in screen.intervals.items():
        mean, sd = (values[rows] for values in block.spreads[name])
        numbers.append(_formatted(mean))
        if interval:
            half = interval.half_width(sd)
            numbers += [
                _formatted(np.maximum(mean - half, np.minimum(floor_of(name), mean))),
                _formatted(mean + half),
            ]
        if _n_members(screen, name) > 1:
            numbers.append(_formatted(sd, 4))
    numbers.append(_formatted(block.distance[rows], 3))
    kept, problems, outside = rows.tolist(), block.problems, block.outside
    flags = [("" if row in problems else outside[row], problems.get(row, "")) for row in kept]
    fields = block.block.fields
    return [
        [*fields[row], *of, *flag] for row, *of, flag in zip(kept, *numbers, flags, strict=True)
    ]


def _formatted(values: np.ndarray, digits: int = 6) -> list[str]:
    """Text of so many significant digits, empty for NaN."""
    pattern = f"%.{digits}g"
    return ["" if value != value else pattern % value for value in values.tolist()]


@contextlib.contextmanager
def written_to(path: str) -> Iterator[TextIO]:
    """A text file that gets its name when all is in it; `-` is stdout. Raises UserError for another ending."""
    if path == "-":
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="")
        yield sys.stdout
        return
    check_output(path)
    with replacing(path) as temporary:
        opener = gzip.open if path.endswith(".gz") else open
        with opener(
            temporary, "wt", encoding="utf-8", errors="surrogateescape", newline=""
        ) as stream:
            yield stream


def check_output(path: str) -> None:
    if path != "-" and not path.endswith(ENDINGS):
        raise UserError(
            f"predictions are written to a name that ends in {' or '.join(ENDINGS)}, or to -, however: {path}"
        )
    if path != "-" and Path(path).is_dir():
        raise UserError(f"{path} is a folder")


def write(stream: TextIO, head: list[str], blocks: Iterable[list[list[str]]]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for rows in blocks:
        writer.writerows(rows)
