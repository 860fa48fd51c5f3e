"""Hold what status says of the processes at work: who, on what, since when, how fast, how long."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.runs.state_names import CellState
from irnet_hpc.sweep import cli, journal
from irnet_hpc.sweep.at_work import minutes_left, progress_of
from irnet_hpc.sweep.board import Board
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.context import open_sweep
from irnet_hpc.sweep.estimates import Estimate, estimates
from irnet_hpc.sweep.status import duration
from irnet_hpc.sweep.watch_page import WatchPage
from tests.sweep.stand_ins import ROOT
from tests.sweep.test_board import die

HISTORY = "epoch,step,learning_rate,train_mae,val_mae,seconds\n"


@pytest.fixture
def board(place):
    """A worker of this process that sits at the board of the place's matrix."""
    path = journal.begin(place.results, "mine", "worker", process_name(os.getpid()))
    with Board(place.results, "mine", path, device="cores 0-1") as board:
        yield board


def progress(place):
    context = open_sweep(place.path, place.results, place.packs)
    ledger = read_ledger(context.matrix, place.results)
    return progress_of(context, ledger, estimates(context.matrix, ledger)), ledger


def name_of(place, model: str) -> str:
    return str(place.run_folder(model).relative_to(place.results))


def test_a_worker_is_shown_with_its_cell_its_device_and_its_speed(place, board, holder, capsys):
    name = name_of(place, "plain-10")
    assert board.take([name]) == name
    batch = place.cell("plain-10").recipe.batch
    (place.run_folder("plain-10") / "history.csv").write_text(
        HISTORY + "0,100,0.1,1.0,0.5,40.0\n1,200,0.1,1.0,0.25,45.0\n"
    )
    (process,) = progress(place)[0].at_work
    assert process.process == str(holder.pid) and process.cells == (name,)
    assert process.device == "cores 0-1"
    assert process.rows_per_s == 100 * batch / 5
    assert abs(process.since - time.time()) < 3600
    assert place.sweep("status") == 0
    (line,) = re.findall(f"running {name}: .*", capsys.readouterr().out)
    assert f"process {holder.pid}" in line and "cores 0-1" in line
    assert f"{20 * batch:,} rows/s" in line
    assert place.sweep("status", "--json") == 0
    (worker,) = json.loads(capsys.readouterr().out)["workers"]
    assert worker["cells"] == [name] and worker["rows_per_s"] == 20 * batch


def test_a_worker_without_a_lease_is_shown_until_it_dies(place, board):
    (idle,) = progress(place)[0].at_work
    assert idle.process == str(os.getpid()) and idle.cells == () and idle.since is None
    name = name_of(place, "plain-17")
    assert board.take([name], device=lambda _: "cuda:1") == name
    (starting,) = progress(place)[0].at_work
    assert starting.cells == (name,) and starting.device == "cuda:1"
    die(board)
    assert progress(place)[0].at_work == ()


def test_a_cell_of_a_worker_is_running_and_of_a_killed_one_untouched(place):
    """Compare the journal of this process with those of processes that have ended."""
    for driver, model in ((process_name(os.getpid()), "plain-10"), ("999999999@1", "plain-17")):
        path = journal.begin(place.results, "mine", "worker", driver)
        cell = {"cell": name_of(place, model), "process": driver, "ended": None, "log": "a.log"}
        journal.note(path, [cell])
    assert place.states()["plain-10"] == "running"
    assert place.states()["plain-17"] == "missing"
    assert "killed" in place.details()["plain-17"]


def test_the_time_left_is_that_of_the_estimates_over_the_processes(place):
    place.finish("plain-10", device_hours=0.5)
    _, ledger = progress(place)
    assert [s.state for s in ledger.cells].count(CellState.MISSING) == 5
    each = [Estimate(minutes=m) for m in (999.0, 10.0, 20.0, 30.0, 40.0, 60.0)]
    assert ledger.cells[0].state == CellState.DONE
    assert minutes_left(ledger, each, 2, time.time()) == 80
    assert minutes_left(ledger, each, 5, time.time()) == 60  # no less than the longest
    assert minutes_left(ledger, each, 0, time.time()) is None
    # The cell without an estimate counts as the done cell took.
    each[1] = Estimate(unknown="no model")
    assert minutes_left(ledger, each, 1, time.time()) == 30 + 20 + 30 + 40 + 60


def test_the_time_left_is_unknown_if_nothing_is_known_of_a_cell(place):
    _, ledger = progress(place)
    each = [Estimate(minutes=1.0)] * 5 + [Estimate(unknown="no model")]
    assert minutes_left(ledger, each, 1, time.time()) is None


@pytest.mark.parametrize(
    ("minutes", "text"),
    ((0.2, "1 min"), (59.5, "1 h 0 min"), (61, "1 h 1 min"), (1501, "1 d 1 h")),
)
def test_durations_are_rounded_up_to_minutes(minutes, text):
    assert duration(minutes) == text


def page_text(place, width: int, height: int) -> str:
    context = open_sweep(place.path, place.results, place.packs)
    now, ledger = progress(place)
    output = io.StringIO()
    console = Console(file=output, width=width, height=height, force_terminal=False)
    console.print(WatchPage(context.matrix, ledger, now, 10))
    return output.getvalue()


@pytest.mark.parametrize("width", (60, 80, 200))
def test_the_page_fits_its_terminal(place, board, width):
    for name in [name_of(place, model) for model in ("plain-10", "plain-17", "plain-24")]:
        path = journal.begin(place.results, "mine", "worker", process_name(os.getpid()))
        other = Board(place.results, "mine", path, device="a device with a long name").__enter__()
        assert other.take([name]) == name
    lines = page_text(place, width, 11).splitlines()
    assert len(lines) <= 11 and max(map(len, lines)) <= width
    assert "mine  0 of 6 cells done" in lines[0]
    assert any("and 3 more" in line for line in lines)
    assert len(page_text(place, width, 40).splitlines()) <= 40
    assert "plain-24" in page_text(place, 200, 40)


def test_watch_ends_when_the_last_worker_has_left(place, board, capsys, monkeypatch):
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            die(board)

    monkeypatch.setattr(cli.time, "sleep", sleep)
    assert place.sweep("status", "--watch", "7") == 0
    assert looks == [7, 7]
    assert capsys.readouterr().out.count("worker without a cell") == 2


def test_watch_on_a_terminal_shows_a_page_and_leaves_the_states(place, board):
    """Run the command in a pseudo-terminal; its screen is entered and left."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "irnet_hpc.sweep", *place.command("status", "--watch", "0.2")],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        stdout=side,
        stdin=side,
    )
    os.close(side)
    shown = b""
    while b"looks for a cell" not in shown:
        shown += os.read(main, 65536)
    die(board)
    while True:
        try:
            shown += (more := os.read(main, 65536))
        except OSError:  # the terminal has no other side any more
            break
        if not more:
            break
    assert process.wait(600) == 0
    assert b"\x1b[?1049h" in shown and b"\x1b[?1049l" in shown
    after = shown.rpartition(b"\x1b[?1049l")[2].decode()
    assert "6 missing" in after and "next:" in after
