"""Lay out the page of `status --watch`: what is done, who trains what, and the time left."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep.at_work import AtWork, Progress
from irnet_hpc.sweep.cell_states import Ledger
from irnet_hpc.sweep.matrix.matrix import Matrix
from irnet_hpc.sweep.status import clock_time, duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

COLORS = {
    CellState.DONE: "green",
    CellState.RUNNING: "cyan",
    CellState.QUEUED: "blue",
    CellState.STALE: "magenta",
    CellState.PREEMPTED: "yellow",
    CellState.FAILED: "red",
    CellState.MISSING: "bright_black",
}
# The lines that the page shows of cells that have failed, at most.
N_FAILURES = 5
# The lines of a page beside those of processes and failures: title, bar, counts, time, headings.
N_OTHER_LINES = 9


class WatchPage:
    """The page, laid out anew for each size of the terminal.

    Args:
        matrix: The matrix.
        ledger: The states of its cells.
        now: Who is at work on them.
        watch_s: The seconds after which the states are read again.
    """

    def __init__(self, matrix: Matrix, ledger: Ledger, now: Progress, watch_s: float) -> None:
        self.matrix, self.ledger, self.now, self.watch_s = matrix, ledger, now, watch_s
        self.read_at = time.time()

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[RenderableType]":
        """Yield the parts of the page, as rich asks."""
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        counts, n_cells = self.ledger.counts(), len(self.ledger.cells)
        n_done = counts[CellState.DONE]
        read = f"as of {datetime.fromtimestamp(self.read_at):%H:%M:%S}"
        yield Text.assemble(
            (self.matrix.name, "bold"),
            f"  {n_done:,} of {n_cells:,} cells done  ",
            (f"{read}, again every {self.watch_s:g} s; Ctrl-C ends", "bright_black"),
            no_wrap=True,
            overflow="ellipsis",
        )
        yield ProgressBar(total=max(1, n_cells), completed=n_done, width=options.max_width)
        shown = [(f"{n:,} {state}  ", COLORS[state]) for state, n in counts.items() if n]
        yield Text.assemble(*shown, no_wrap=True, overflow="ellipsis")
        yield Text(self.time_line(), no_wrap=True, overflow="ellipsis")
        yield Text("")
        failed = [s for s in self.ledger.cells if s.state == CellState.FAILED]
        lines = [*self.now.left_alone, *(f"failed {s.name}: {s.detail}" for s in failed)]
        n_rows = options.size.height - N_OTHER_LINES - min(len(lines), N_FAILURES)
        processes = self.now.at_work
        is_cut = len(processes) > max(1, n_rows)
        n_shown = max(0, n_rows - 1) if is_cut else len(processes)
        yield self.table(processes[:n_shown])
        if is_cut:
            yield Text(f"and {len(processes) - n_shown:,} more", style="bright_black")
        for line in lines[:N_FAILURES]:
            yield Text(line, style="red", no_wrap=True, overflow="ellipsis")
        if len(lines) > N_FAILURES:
            yield Text(
                f"and {len(lines) - N_FAILURES:,} more; without --watch all are listed", style="red"
            )

    def time_line(self) -> str:
        """Say how long the cells will take the processes that are at work."""
        n_busy = sum(1 for process in self.now.at_work if process.cells)
        minutes = self.now.minutes_left
        at_work = f"{n_busy} process{'' if n_busy == 1 else 'es'} at work"
        if minutes is None:
            return f"{at_work}; the time left is unknown as yet"
        end = clock_time(self.read_at + 60 * minutes)
        return f"{at_work}; about {duration(minutes)} left, until {end}"

    def table(self, processes: Sequence[AtWork]) -> "Table":
        """Lay out processes, a row each."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, expand=True)
        for heading in ("host", "process", "device"):
            table.add_column(heading, no_wrap=True, overflow="ellipsis")
        table.add_column("cell", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("since", no_wrap=True)
        table.add_column("rows/s", justify="right", no_wrap=True)
        table.add_column("epoch", no_wrap=True, overflow="ellipsis")
        for process in processes:
            table.add_row(*self.row(process))
        return table

    def row(self, process: AtWork) -> list[str]:
        """Return the cells of a process's row."""
        more = f" and {len(process.cells) - 1} more" if len(process.cells) > 1 else ""
        rate = "" if process.rows_per_s is None else f"{process.rows_per_s:,.0f}"
        since = "" if process.since is None else clock_time(process.since)
        cell = process.cells[0] + more if process.cells else "looks for a cell"
        return [process.host, process.process, process.device, cell, since, rate, process.epoch]
