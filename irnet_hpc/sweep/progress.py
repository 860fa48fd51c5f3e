"""Show the progress of a sweep on this machine as a bar, on a terminal only.

The time of a cell is its estimate, corrected by the measured times of the cells before it. Cells
without an estimate, such as classical models, count as the median of the others.
"""

import contextlib
import statistics
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from irnet_hpc.sweep.cell_states import CellStatus

if TYPE_CHECKING:
    from tqdm import tqdm

FORMAT = "{n_fmt}/{total_fmt} cells |{bar}|{postfix}"
# The seconds between two looks at the trainings.
LOOK_S = 1.0


class CellsBar:
    """The cells of a sweep, the bar that shows them, and an estimate of the time left."""

    def __init__(
        self,
        bar: "tqdm",
        names: Iterable[str],
        seconds: Mapping[str, float],
        n_at_once: int = 1,
    ) -> None:
        self.bar = bar
        # How many cells are trained at the same time.
        self.n_at_once = n_at_once
        # Cell -> estimate in seconds; cells without an estimate are missing.
        self.seconds = seconds
        # The cells that are not finished yet, including the current one.
        self.left = list(names)
        self.finished: list[str] = []
        self.spent_s = 0.0

    def advance(self, names: Collection[str], seconds: float) -> None:
        """Count cells as finished, successfully or not; together they took `seconds`."""
        self.left = [name for name in self.left if name not in names]
        self.finished += names
        self.spent_s += seconds
        self.bar.update(len(names))

    def add(self, names: Collection[str]) -> None:
        """Add cells that will be tried again."""
        self.left += names
        self.bar.total = (self.bar.total or 0) + len(names)

    def seconds_left(self, elapsed_s: float) -> float | None:
        """Estimate the seconds that the remaining cells need; None if nothing is known yet.

        `elapsed_s` is the time already spent on the current cells, added up.
        """
        if not self.seconds and not self.finished:
            return None
        usual = statistics.median(self.seconds.values()) if self.seconds else 1.0
        left_s, finished_s = (
            sum(self.seconds.get(name, usual) for name in names)
            for names in (self.left, self.finished)
        )
        slower = self.spent_s / finished_s if self.finished else 1.0
        return max(0.0, left_s * slower - elapsed_s) / self.n_at_once


@contextlib.contextmanager
def cells_bar(
    names: Iterable[str], minutes: Mapping[str, float | None], n_at_once: int = 1
) -> Iterator[CellsBar]:
    """Show the bar of these cells until the context ends; print other lines above the bar.

    Args:
        names: The cells, in the order in which they are trained.
        minutes: Cell -> its estimate in minutes; None: unknown.
        n_at_once: How many cells are trained at the same time.
    """
    # Importing tqdm takes as long as planning thousands of cells.
    from tqdm import tqdm
    from tqdm.contrib import DummyTqdmFile

    left = list(names)
    seconds = {name: 60 * value for name in left if (value := minutes.get(name)) is not None}
    with contextlib.ExitStack() as stack:
        # disable=None shows the bar only on a terminal.
        bar = stack.enter_context(
            tqdm(total=len(left), disable=None, bar_format=FORMAT, leave=False, dynamic_ncols=True)
        )
        if not bar.disable:
            # tqdm documents this use, but its types do not declare the object as a file.
            above: IO[str] = DummyTqdmFile(sys.stdout)  # type: ignore[assignment]
            stack.enter_context(contextlib.redirect_stdout(above))
        yield CellsBar(bar, left, seconds, n_at_once)


def show(cells: CellsBar, running: Sequence[tuple[CellStatus, float]]) -> None:
    """Update the bar.

    Args:
        cells: The bar.
        running: The cells that are trained now, each with the seconds since it was started.
    """
    if cells.bar.disable or not running:
        return
    seconds = cells.seconds_left(sum(elapsed_s for _, elapsed_s in running))
    left = "" if seconds is None else f", about {cells.bar.format_interval(seconds)} left"
    if cells.n_at_once > 1:
        text = f"{len(running)} at once"
    else:
        text = f"{running[0][0].cell.spec.model}{progress(running[0][0])}"
    cells.bar.set_postfix_str(f"{text}{left}")


def progress(status: CellStatus) -> str:
    """Describe the epoch of a running cell as the end of a line; "" if it is unknown."""
    text = epoch_text(status)
    return f", {text}" if text else ""


def epoch_text(status: CellStatus) -> str:
    """Describe the epoch of a running cell, from the last line of its history."""
    try:
        lines = (status.folder / "history.csv").read_text().splitlines()
        epoch, *_, mae, _seconds = lines[-1].split(",")
        n_epochs = status.cell.recipe.epochs  # type: ignore[union-attr]  # a grid has no history
        return f"epoch {int(epoch) + 1} of at most {n_epochs}, MAE {float(mae):.4g}"
    except (OSError, ValueError, IndexError, AttributeError):
        return ""
