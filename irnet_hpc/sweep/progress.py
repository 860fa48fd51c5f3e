"""The bar of a sweep here: how many cells are through, where the one at work is, about how long the rest takes; on a terminal
only.

What a cell will take is its estimate (estimates.py), corrected by what those before it took. Cells without one, as classical
models are, count as the median of the others.
"""

import contextlib
import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping

from tqdm import tqdm

from irnet_hpc.sweep.ledger import Entry

FORMAT = "{n_fmt}/{total_fmt} cells |{bar}|{postfix}"
LOOK_S = 1.0  # between two looks at a training


@dataclasses.dataclass
class Cells:
    """Those of a sweep, by their names, and what is known of how long they take, in seconds."""

    bar: tqdm
    estimated: dict[str, float]  # those without an estimate are not there
    left: list[str]  # not through yet, the one at work among them
    through: list[str] = dataclasses.field(default_factory=list)
    spent: float = 0.0  # on those


@contextlib.contextmanager
def shown(names: Iterable[str], minutes: Mapping[str, float | None]) -> Iterator[Cells]:
    """The bar of these cells, gone when it is over. `minutes`: the estimate of each, where there is one."""
    left = list(names)
    estimated = {name: 60 * value for name in left if (value := minutes.get(name)) is not None}
    # disable=None: only on a terminal
    with tqdm(
        total=len(left), disable=None, bar_format=FORMAT, leave=False, dynamic_ncols=True
    ) as bar:
        yield Cells(bar, estimated, left)


def say(text: str) -> None:
    """Print a line, at once, above the bar where there is one."""
    tqdm.write(text)
    sys.stdout.flush()


def waited(cells: Cells, process: subprocess.Popen, entry: Entry) -> int:
    """The exit status of the training of a cell; until it comes, the bar says where it is."""
    if cells.bar.disable:
        return process.wait()
    began = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(LOOK_S)
        seconds = left_s(cells, time.monotonic() - began)
        left = "" if seconds is None else f", about {tqdm.format_interval(seconds)} left"
        cells.bar.set_postfix_str(f"{entry.cell.spec.model}{progress(entry)}{left}")


def left_s(cells: Cells, at_work_s: float) -> float | None:
    """Of all that are left, of which so much has gone into the one at work; None while nothing can be said."""
    usual = statistics.median(cells.estimated.values()) if cells.estimated else 1.0
    of_left, of_through = (
        sum(cells.estimated.get(name, usual) for name in names)
        for names in (cells.left, cells.through)
    )
    if not cells.estimated and not cells.through:
        return None
    return max(0.0, of_left * (cells.spent / of_through if cells.through else 1.0) - at_work_s)


def are_through(cells: Cells, names: Collection[str], seconds: float) -> None:
    """Whatever came of them, in so many seconds together."""
    cells.left = [name for name in cells.left if name not in names]
    cells.through, cells.spent = [*cells.through, *names], cells.spent + seconds
    cells.bar.update(len(names))


def are_tried_again(cells: Cells, names: Collection[str]) -> None:
    cells.left += names
    cells.bar.total += len(names)


def progress(entry: Entry) -> str:
    """Where a running cell is, from the last line of its history."""
    try:
        epoch, *_, mae, _seconds = (
            (entry.folder / "history.csv").read_text().splitlines()[-1].split(",")
        )
        return (
            f", epoch {int(epoch) + 1} of at most {entry.cell.recipe.epochs}, MAE {float(mae):.4g}"
        )
    except (OSError, ValueError, IndexError):
        return ""
