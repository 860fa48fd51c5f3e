"""Hold how much memory cells may take, and that no more are trained at once than it allows."""

import os
from pathlib import Path

import pytest

from irnet_hpc.distributed import memory
from irnet_hpc.sweep import crew, journal
from irnet_hpc.sweep.board import Board
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.context import SweepContext, SweepOptions
from irnet_hpc.sweep.crew import Crew
from irnet_hpc.sweep.memory_needs import LIBRARIES_GB, MARGIN, MemoryNeeds
from irnet_hpc.sweep.places import Place, Places
from tests.builders import write_pack
from tests.sweep.stand_ins import MODELS, SMALL
from tests.sweep.test_crew import told  # noqa: F401, a fixture

GB = 2**30


def needs_of(place, text: str | None = None, rows: int = 10, **options):
    """Return the needs of a matrix on a pack of so many rows of one feature, and its cells."""
    if text:
        place.path.write_text(text)
    (place.packs / "alloys-magpie.h5").unlink()
    write_pack(
        place.packs, "alloys-magpie", {"mixing_enthalpy": "eV/atom", "size_mismatch": "%"}, rows
    )
    context = SweepContext(place.matrix, place.results, place.packs, SweepOptions(**options))
    needs = MemoryNeeds(context, has_gpu=False)
    return needs, read_ledger(context.matrix, place.results).cells


def test_rows_weights_and_batches_add_up(place):
    """By hand: each row more is a float32, each layer more its weights and activations."""
    few, cells = needs_of(place, rows=1_000)
    small = {s.cell.spec.model: few.gb((s,)) for s in cells}
    assert LIBRARIES_GB < small["irnet-10"] < small["irnet-17"] < small["irnet-24"]
    many, cells = needs_of(place, rows=201_000)
    for status in cells:
        more = many.gb((status,)) - small[status.cell.spec.model]
        assert more == pytest.approx(200_000 * 4 / GB)


def test_a_worker_may_keep_the_rows_of_other_cells(place):
    two = SMALL.replace("[mixing_enthalpy]", "[mixing_enthalpy, size_mismatch]")
    one, cells = needs_of(place, SMALL, rows=100_000)
    alone = one.gb(cells[:1])
    both, cells = needs_of(place, two, rows=100_000)
    assert both.gb(cells[:1]) - alone == pytest.approx(100_000 * 4 / GB)


def test_what_the_matrix_states_wins_until_less_was_measured(place):
    stated = SMALL.replace("minutes: 30", "minutes: 30, memory_gb: 2.5")
    needs, cells = needs_of(place, stated)
    bundle = cells[:1]
    assert needs.gb(bundle) == 2.5
    needs.note_peak(bundle, 0.4)
    assert needs.gb(bundle) == MARGIN * 0.4
    needs.note_peak(bundle, 9.0)
    assert needs.gb(bundle) == 2.5


def test_a_peak_above_the_estimate_counts(place):
    needs, cells = needs_of(place, SMALL)
    (bundle, other) = cells[:1], cells[1:2]
    expected = needs.gb(bundle)
    needs.note_peak(bundle, 2 * expected)
    assert needs.gb(bundle) == MARGIN * 2 * expected
    assert needs.gb(other) == pytest.approx(expected, rel=0.2)  # the next depth is as before


def test_each_rank_has_a_process_of_its_own(place):
    needs, cells = needs_of(place, SMALL, n_ranks=2)
    one, _ = needs_of(place, SMALL)
    assert one.gb(cells[:1]) < needs.gb(cells[:1]) <= 2 * one.gb(cells[:1])
    needs.note_peak(cells[:1], 0.2)
    assert needs.gb(cells[:1]) == 2 * MARGIN * 0.2


def test_where_nothing_can_be_estimated_the_default_counts(place):
    needs, cells = needs_of(place, SMALL)
    needs.has_gpu = True
    assert needs.gb(cells[:1]) == 8.0
    (place.packs / "alloys-magpie.h5").unlink()
    place.path.write_text(SMALL)
    context = SweepContext(place.matrix, place.results, place.packs)
    assert MemoryNeeds(context, has_gpu=False).gb(cells[:1]) == 8.0


# Notes how many are under way, and waits until there were as many as may be.
COUNT = (
    "touch {0}/$$.up; n=$(ls {0}/*.up | wc -l); echo $n >>{0}/counts; "
    "[ $n -ge MOST ] && touch {0}/most; until [ -e {0}/most ]; do sleep 0.02; done; "
    "sleep 0.3; rm {0}/$$.up; "
)


@pytest.mark.parametrize(("stated", "most"), [(None, 2), (1.2, 1), (0.1, 4)])
def test_a_control_group_decides_how_many_cells_are_trained_at_once(
    place,
    told,  # noqa: F811
    monkeypatch,
    stated,
    most,
):
    text = SMALL if stated is None else SMALL.replace("30}", f"30, memory_gb: {stated}}}")
    needs, cells = needs_of(place, text)
    needs_gb = sorted(needs.estimated_gb((status,)) for status in cells)
    limit_gb = sum(needs_gb[-2:]) + 0.1
    assert 1.2 <= limit_gb < min(2.4, sum(needs_gb[:3]))
    root, free_bytes = control_group(place.folder / "root", limit_gb), MemoryFree.real
    monkeypatch.setattr(memory, "free_bytes", lambda environment: free_bytes(root, environment))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    told(COUNT.replace("MOST", str(most)))
    assert place.sweep("run", "--workers", "auto") == 0
    counts = [int(line) for line in (place.folder / "counts").read_text().split()]
    assert max(counts) == most and len(counts) == len(MODELS)


class MemoryFree:
    """The function that reads control groups, before fixtures replace it."""

    real = staticmethod(memory.free_bytes)


def control_group(root: Path, limit_gb: float) -> Path:
    """Make the files of a control group of version 2 with a limit, below `root`."""
    group = root / "sys/fs/cgroup/job"
    (root / "proc/self").mkdir(parents=True)
    group.mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemAvailable: 999999999 kB\n")
    (root / "proc/self/cgroup").write_text("0::/job\n")
    (group / "memory.max").write_text(f"{round(limit_gb * GB)}\n")
    (group / "memory.current").write_text("0\n")
    (group / "memory.stat").write_text("inactive_file 0\n")
    return root


class Idle:
    """A worker whose warm process holds memory."""

    def __init__(self, gb: float) -> None:
        self.gb, self.closed = gb, False
        self.pack = None

    def held_gb(self) -> float:
        return 0.0 if self.closed else self.gb

    def let_go(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_idle_processes_end_when_a_cell_needs_the_memory_that_they_hold(place, monkeypatch):
    context = SweepContext(place.matrix, place.results, place.packs)
    held = {1: 1.0, 2: 3.0, 3: 2.0, 4: 0.0}
    spots = tuple(Place(number) for number in held)
    monkeypatch.setattr(crew, "WorkerProcess", lambda spot, *_: Idle(held[spot.number]))
    path = journal.begin(place.results, "mine", "local", "1@1")
    with Board(place.results, "mine", path) as board:
        here = Crew(context, path, board, Places(spots, memory_gb=6.0))
    for memory_gb, expected in ((2.5, [False, True, False, False]), (5.5, [False, True, True])):
        here._make_room(memory_gb, spots[0])
        assert [worker.closed for worker in here.workers.values()][: len(expected)] == expected
