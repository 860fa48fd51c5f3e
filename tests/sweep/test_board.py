"""Hold that each cell on a board has one worker, whatever is killed, cut short or started anew."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.sweep import board as board_file
from irnet_hpc.sweep import journal
from irnet_hpc.sweep.board import Board, board_path, read_standing

ROOT = Path(__file__).parents[2]
CELLS = tuple(f"pack/property/plain-10/tiny/honest/seed{i}" for i in range(6))


def seat(results: Path, host: str = "", **identity: object) -> Board:
    """Make a worker of a host that is not this machine; without a host, of this process."""
    path = journal.begin(results, "mine", "worker", process_name(os.getpid()))
    board = Board(results, "mine", path)
    if host:
        elsewhere = msgspec.structs.replace(
            board.seat.identity, host=host, machine=f"boot of {host}", **identity
        )
        board.seat = msgspec.structs.replace(board.seat, identity=elsewhere)
    return board


def journal_of(board: Board) -> Path:
    return board.path.parent / board.seat.journal


def die(board: Board) -> None:
    """Let the last heartbeat of a worker be an hour old."""
    age = journal_of(board).stat().st_mtime - 3600
    os.utime(journal_of(board), (age, age))


def test_each_candidate_goes_to_one_worker_in_the_callers_order(tmp_path):
    with seat(tmp_path, "a") as a, seat(tmp_path, "b") as b:
        assert [a.take(CELLS), b.take(CELLS), a.take(CELLS)] == list(CELLS[:3])
        assert b.take(list(reversed(CELLS))) == CELLS[5]
        assert a.take_several(CELLS, 5) == list(CELLS[3:5])
        assert b.take(CELLS) is None
        a.done(CELLS[0])
        b.give_back(CELLS[1], "the job ends")
        assert a.take(CELLS) == CELLS[1]
        assert a.take(CELLS) is None


def test_the_cells_of_a_dead_worker_are_free_and_those_of_a_live_one_are_not(tmp_path):
    with seat(tmp_path, "a") as a, seat(tmp_path, "b") as b:
        assert a.take(CELLS[:1]) == CELLS[0]
        assert b.take(CELLS[:1]) is None
        die(a)
        b.refresh()
        assert b.take(CELLS[:1]) == CELLS[0]
        a.failed(CELLS[0], "too late")  # it wakes up; the cell is no longer its own
        assert a.take(CELLS) == CELLS[1]
        assert read_standing(a.path).taken.keys() == {CELLS[0], CELLS[1]}
        assert read_standing(a.path).failures == {}


def test_a_dead_process_of_this_machine_frees_its_cells_at_once(tmp_path):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.sweep.test_board import CELLS, seat\n"
        "board = seat(Path(sys.argv[1])).__enter__()\n"
        "print(board.take(CELLS), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    with seat(tmp_path) as board:
        other = run(code, tmp_path)
        assert other.communicate()[0].split() == [CELLS[0]]
        assert board.take(CELLS[:1]) == CELLS[0]
        assert board.standing.deaths == {CELLS[0]: 1}


def test_an_earlier_start_of_the_same_slurm_job_is_dead(tmp_path):
    with seat(tmp_path, "a", job="17", restart=0) as a:
        assert a.take(CELLS[:1]) == CELLS[0]
        with seat(tmp_path, "b", job="17", restart=1) as b:
            b.refresh()
            assert b.take(CELLS[:1]) == CELLS[0]


def test_a_cell_with_which_two_workers_died_is_taken_last(tmp_path):
    with seat(tmp_path, "a") as a:
        for _ in range(2):
            other = seat(tmp_path, "b").__enter__()
            assert other.take(CELLS) == CELLS[0]
            die(other)
            a.refresh()
        assert [a.take(CELLS) for _ in CELLS] == [*CELLS[1:], CELLS[0]]


def test_a_cell_with_which_two_gpus_were_lost_is_taken_last(tmp_path):
    with seat(tmp_path, "a") as a:
        for _ in range(2):
            assert a.take(CELLS[:2]) == CELLS[0]
            a.give_back(CELLS[0], "the GPU is lost", is_lost=True)
        assert [a.take(CELLS[:2]), a.take(CELLS[:2])] == [CELLS[1], CELLS[0]]


def test_a_cell_that_failed_is_left_to_other_hosts_and_after_three_to_none(tmp_path):
    with seat(tmp_path, "a") as a, seat(tmp_path, "a") as a2, seat(tmp_path, "b") as b:
        assert a.take(CELLS[:1]) == CELLS[0]
        a.failed(CELLS[0], "no such element")
        assert a.take(CELLS[:1]) is None and a2.take(CELLS[:1]) is None
        assert b.take(CELLS[:1]) == CELLS[0]
        assert b.standing.why_left_alone(CELLS[0]) is None
        b.failed(CELLS[0], "no such element")
        with seat(tmp_path, "c") as c, seat(tmp_path, "d") as d:
            assert c.take(CELLS[:1]) == CELLS[0]
            c.failed(CELLS[0], "no such element here")
            assert d.take(CELLS[:1]) is None
            why = d.standing.why_left_alone(CELLS[0])
            assert all(text in why for text in ("a, b, c", "no such element here", CELLS[0]))


def fail(board: Board, *names: str) -> None:
    for name in names:
        assert board.take((name,)) == name
        board.failed(name, "the disk is full")


def test_a_host_that_fails_three_in_a_row_is_left_alone_if_others_work(tmp_path):
    with seat(tmp_path, "a") as a, seat(tmp_path, "bad") as bad:
        assert a.take(CELLS[:1]) == CELLS[0]
        fail(bad, CELLS[1], CELLS[2])
        assert bad.why_leave() is None
        fail(bad, CELLS[3])
        # a still trains the cell that it took before these
        assert "the disk is full" in bad.why_leave() and a.why_leave() is None
        assert bad.take(CELLS) is None
        assert a.take(CELLS) == CELLS[1]


def test_a_host_is_not_blamed_for_cells_that_fail_elsewhere_too(tmp_path):
    with seat(tmp_path, "a") as a, seat(tmp_path, "b") as b:
        assert a.take(CELLS[:1]) == CELLS[0]
        fail(b, *CELLS[1:3])
        fail(a, *CELLS[1:3])
        fail(b, CELLS[3])
        assert b.why_leave() is None
        assert b.take(CELLS) == CELLS[4]


def test_a_host_alone_is_never_left_alone(tmp_path):
    with seat(tmp_path, "a") as a, seat(tmp_path, "a") as other:
        assert other.take(CELLS[5:]) == CELLS[5]
        fail(a, *CELLS[:4])
        assert a.why_leave() is None
        other.done(CELLS[5])
        assert a.take(CELLS) == CELLS[4]


def test_failures_of_an_ended_sweep_do_not_bind_the_next(tmp_path):
    with seat(tmp_path, "a") as a:
        fail(a, CELLS[0])
        with seat(tmp_path, "a") as late:
            assert late.take(CELLS[:1]) is None
    with seat(tmp_path, "a") as again:
        assert again.take(CELLS[:1]) == CELLS[0]


@pytest.mark.parametrize("n_bytes", (1, 20, 60))
def test_a_line_that_a_kill_cut_short_has_no_effect(tmp_path, n_bytes):
    with seat(tmp_path, "a") as a, seat(tmp_path, "b") as b:
        assert a.take(CELLS) == CELLS[0]
        text = a.path.read_bytes()
        assert b.take(CELLS) == CELLS[1]
        line = b.path.read_bytes()[len(text) :]
        assert len(line) > 60
        os.truncate(a.path, len(text))
        with a.path.open("ab") as file:
            file.write(line[:n_bytes])
        with seat(tmp_path, "c") as c:
            assert c.take(CELLS) == CELLS[1]
            assert a.take(CELLS) == CELLS[2]
            standing = read_standing(a.path)
            assert {name: taken.token for name, taken in standing.taken.items()} == {
                CELLS[0]: a.token,
                CELLS[1]: c.token,
                CELLS[2]: a.token,
            }


@pytest.mark.parametrize("line", ("7", '"take"', "[" * 3000, '{"event":"take"}', "\udcff\0", "{}"))
def test_a_line_that_no_worker_wrote_has_no_effect(tmp_path, line):
    with seat(tmp_path, "a") as a:
        with a.path.open("a", errors="surrogateescape") as file:
            file.write(line + "\n")
        assert [a.take(CELLS), a.take(CELLS)] == [CELLS[0], CELLS[1]]


def test_a_board_that_was_removed_or_replaced_is_read_anew(tmp_path):
    with seat(tmp_path, "a") as a:
        assert a.take(CELLS) == CELLS[0]
        a.path.unlink()
        assert a.take(CELLS[1:]) == CELLS[1]
        assert read_standing(a.path).workers.keys() == {a.token}


def test_a_result_counts_though_its_worker_was_taken_for_dead(tmp_path):
    with seat(tmp_path, "a") as a, seat(tmp_path, "b") as b:
        assert a.take(CELLS) == CELLS[0]
        die(a)
        b.refresh()
        a.done(CELLS[0])
        a.refresh()
        assert b.take(CELLS) == CELLS[1]


def test_a_done_cell_is_recorded_with_the_next_that_is_taken(tmp_path):
    with seat(tmp_path, "a") as a, seat(tmp_path, "b") as b:
        assert a.take(CELLS) == CELLS[0]
        a.done(CELLS[0])
        assert b.take(CELLS) == CELLS[1]
        assert a.take(CELLS) == CELLS[2]
        assert read_standing(a.path).done == {CELLS[0]}
        a.done(CELLS[2])
        assert a.take(CELLS[:1]) is None
        assert read_standing(a.path).done == {CELLS[0], CELLS[2]}
        b.done(CELLS[1])
    assert read_standing(a.path).done == {CELLS[0], CELLS[1], CELLS[2]}


def test_a_cell_that_a_user_asks_for_again_is_free_unless_it_is_being_trained(tmp_path):
    with seat(tmp_path, "a") as a, seat(tmp_path, "b") as b:
        fail(a, CELLS[0])
        assert a.take(CELLS) == CELLS[1]
        a.done(CELLS[1])
        assert b.take(CELLS[2:]) == CELLS[2]
        a.reopen(CELLS[:3])
        assert [a.take(CELLS), a.take(CELLS), a.take(CELLS)] == [CELLS[0], CELLS[1], CELLS[3]]
        assert a.why_leave() is None


def test_one_worker_asks_the_file_server_for_all(tmp_path, monkeypatch):
    """Count the questions; without the record of a look, each worker would ask in every beat."""
    asked = []
    with seat(tmp_path, "a") as a, seat(tmp_path, "b") as b:
        a.refresh()
        b.refresh()
        a.refresh()
        monkeypatch.setattr(board_file.lease, "file_server_time", asked.append)
        a._looked_s = b._looked_s = float("-inf")  # a beat has passed
        assert a.take(CELLS) == CELLS[0] and len(asked) == 1
        assert b.take(CELLS) == CELLS[1] and b.take(CELLS[:1]) is None and len(asked) == 1
        b.refresh()
        assert len(asked) == 2


# -------------------------------------------------------------------------------- any interleaving

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("join", "take", "take", "done", "failed", "back", "kill", "leave", "tear")
        ),
        st.integers(0, 3),  # the worker
        st.integers(0, 5),  # where its candidates begin
    ),
    max_size=60,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_no_interleaving_gives_a_cell_to_two_or_loses_one(tmp_path_factory, steps):
    """Compare with a model: who holds what, what is done, and on which hosts a cell failed."""
    results = tmp_path_factory.mktemp("board")
    boards: dict[int, Board] = {}
    held: dict[str, int] = {}
    done: set[str] = set()
    failed: dict[str, set[int]] = {name: set() for name in CELLS}
    for what, k, at in steps:
        if what == "join" and k not in boards:
            boards[k] = seat(results, f"host{k}").__enter__()
            if len(boards) == 1:  # the board begins anew
                done.clear()
                failed = {name: set() for name in CELLS}
        if what == "tear" and board_path(results, "mine").exists():
            with board_path(results, "mine").open("ab") as file:
                file.write(b'{"event":"take","by":"')
        if k not in boards:
            continue
        board, mine = boards[k], [name for name, holder in held.items() if holder == k]
        if what == "take" and board.why_leave() is None:
            candidates = CELLS[at:] + CELLS[:at]
            free = [
                name
                for name in candidates
                if not (name in held or name in done or k in failed[name] or len(failed[name]) > 2)
            ]
            name = board.take(candidates)
            if board.why_leave() is None:
                free.sort(key=lambda name: board.standing.deaths[name] >= 2)
                assert name == (free[0] if free else None)
            if name:
                held[name] = k
        elif what in ("done", "failed", "back") and mine:
            name = mine[at % len(mine)]
            del held[name]
            if what == "done":
                board.done(name)
                board.refresh()
                done.add(name)
            elif what == "failed":
                board.failed(name, "an error")
                failed[name].add(k)
            else:
                board.give_back(name, "stopped")
        elif what in ("kill", "leave"):
            if what == "kill":
                die(board)
                for other in boards.values():
                    if other is not board:
                        other.refresh()
            else:
                board.__exit__()
            del boards[k]
            held = {name: holder for name, holder in held.items() if holder != k}
    standing = read_standing(board_path(results, "mine"))
    alive = {board.token: k for k, board in boards.items()}
    if boards:
        assert {n: alive.get(t.token) for n, t in standing.taken.items()} == held
        assert standing.done == done
        assert {n: {f"host{k}" for k in hosts} for n, hosts in failed.items() if hosts} == {
            n: set(hosts) for n, hosts in standing.failures.items()
        }


# ---------------------------------------------------------------------------------- real processes

TAKER = """
import sys
from pathlib import Path
from tests.sweep.test_board import seat
names = tuple(f"cell{i}" for i in range(int(sys.argv[2])))
with seat(Path(sys.argv[1])) as board:
    print("ready", flush=True)
    sys.stdin.readline()
    while (name := board.take(names)) is not None:
        print(name, flush=True)
        board.done(name)
"""


def run(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_eight_processes_take_five_hundred_cells_and_none_twice(tmp_path):
    processes = [run(TAKER, tmp_path, 500) for _ in range(8)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 8
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [process.communicate(timeout=600)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert sorted(name for names in taken for name in names) == sorted(
        f"cell{i}" for i in range(500)
    )


def test_without_locks_too_no_cell_is_taken_twice(tmp_path):
    code = TAKER.replace(
        "import sys",
        "import sys\nfrom irnet_hpc import files\nfiles.lock = lambda *_, **__: True",
        1,
    )
    processes = [run(code, tmp_path, 200) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [process.communicate(timeout=600)[0].split() for process in processes]
    assert sorted(name for names in taken for name in names) == sorted(
        f"cell{i}" for i in range(200)
    )
