"""Packs made by many processes, killed at any moment, and typed again. Every process here is a real one."""

import contextlib
import csv
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.distributed import worker_pool as workers
from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import open_pack, verify

ROOT = Path(__file__).parents[2]
MPIRUN = ("mpirun", "-n", "2", "--oversubscribe")
METALS = [symbol for symbol in SYMBOLS[20:80] if symbol not in ("Kr", "Xe")]  # 58
N_BLOCKS = 10  # of 6 rows, the last of 4


@pytest.fixture
def place(tmp_path) -> Iterator["Place"]:
    here = Place(tmp_path)
    yield here
    here.end()


class Place:
    """A folder with a table of 58 oxides to pack; `oxides` is the pack. No process outlives the test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.parts = (
            folder,
            folder / "packs/oxides.h5",
            folder / "packs/.oxides.parts",
        )
        self.started: list[psutil.Process] = []
        self.write([f"{metal}O" for metal in METALS])

    def write(self, formulas: list[str]) -> None:
        (self.folder / "oxides.csv").write_text(
            "formula,density\n" + "".join(f"{name},5\n" for name in formulas)
        )

    def start(
        self, *options: object, launcher: tuple[str, ...] = (), row_s: float = 0.0, **variables
    ) -> subprocess.Popen:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT / 'tests/robustness/awkward'}:{ROOT}",
            "HOME": str(self.folder),
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "AWKWARD_LOG": str(self.folder / "log"),
            "AWKWARD_S": str(row_s),
        } | variables
        default = ("--source", "oxides.csv", "--name", "oxides")
        command = [*launcher, sys.executable, "-m", "irnet_hpc.pack", *default, *map(str, options)]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(psutil.Process(process.pid))
        return process

    def pack(self, *options: object, **how) -> subprocess.CompletedProcess:
        process = self.start(*options, **how)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def computed(self) -> Counter[str]:
        return Counter((self.folder / "log").read_text().split())

    def finished(self) -> dict[str, int]:
        """Part -> its inode, which a part that is written again does not keep."""
        return {path.name: path.stat().st_ino for path in self.parts.glob("[0-9]*.part")}

    def kill_when(self, n_parts: int, process: subprocess.Popen, victim=None) -> None:
        """kill -9 of the process, or of the one that `victim` picks of its descendants, once so many parts are there."""
        wait_for(lambda: len(self.finished()) >= n_parts)
        assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        (victim(family) if victim else psutil.Process(process.pid)).kill()
        if not victim:
            wait_for(
                lambda: (
                    not any(child.is_running() and child.status() != "zombie" for child in family)
                )
            )

    def rejected(self) -> dict[str, tuple[str, str]]:
        with self.path.with_name("oxides.rejected.csv").open() as file:
            return {row["formula"]: (row["reason"], row["detail"]) for row in csv.DictReader(file)}

    def end(self) -> None:
        for process in self.started:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in [*process.children(recursive=True), process]:
                    child.kill()


def wait_for(condition, limit_s: float = 600) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def worker(family: list[psutil.Process]) -> psutil.Process:
    return next(child for child in family if "spawn_main" in " ".join(child.cmdline()))


def rank_1(family: list[psutil.Process]) -> psutil.Process:
    return next(child for child in family if child.environ().get("OMPI_COMM_WORLD_RANK") == "1")


needs_mpi = pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")


def hash_of_an_undisturbed_one(place: Place, features: str) -> str:
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, place, "path", place.path)
        done = place.pack("--features", features, "--pack-dir", "undisturbed")
        assert done.returncode == 0, done.stderr
    return verify(place.folder / "undisturbed/oxides.h5")


@needs_mpi
def test_one_process_two_workers_and_two_ranks_give_the_same_content(place):
    ways = {"one": {}, "workers": {}, "ranks": {"launcher": MPIRUN}}
    source = ("--source", "alloys", "--rows", "2500", "--features", "magpie")
    for name, how in ways.items():
        done = place.pack(
            *source, "--workers", 2 if name == "workers" else 1, "--name", name, **how
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("reading alloys") == 1  # rank 0 alone speaks
        assert ("1 worker on each of 2 ranks" in done.stdout) == (name == "ranks")
    assert len({verify(place.folder / f"packs/{name}.h5") for name in ways}) == 1
    assert {path.name for path in (place.folder / "packs").iterdir()} == {
        f"{name}{ending}" for name in ways for ending in (".h5", ".rejected.csv")
    }


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_row_that_hangs_or_crashes_is_rejected_by_name_and_the_others_survive(n_workers, place):
    formulas = [f"{metal}O" for metal in METALS[:16]]
    for row, formula in ((2, "XeF2"), (3, "XeO3"), (7, "KrF2"), (11, "ArH"), (16, "NeH")):
        formulas.insert(row, formula)
    place.write(formulas)
    done = place.pack("--features", "awkward", "--workers", n_workers)
    assert done.returncode == 0, done.stderr
    memory = ("process killed, perhaps for want of memory", "")
    assert place.rejected() == {
        "XeF2": ("time limit of 1 s", ""),
        "XeO3": ("time limit of 1 s", ""),
        "KrF2": ("crash of the process that computed it", "SIGSEGV"),
        "ArH": memory,
        "NeH": memory,
    }
    with open_pack(place.path) as pack:
        x = dict(zip(pack.formulas(slice(0, 16)), pack.x(slice(0, 16)).tolist(), strict=True))
        assert pack.n_rows == 16
    assert x["FeO"] == [26 + 8, 2]
    assert place.computed()["XeF2"] == 1  # once was enough
    assert place.computed()["KrF2"] == 2  # once may have been somebody's kill -9


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param({}, {}, id="one process"),
        pytest.param({"options": ("--workers", 2)}, {}, id="two workers, then one"),
        pytest.param(
            {"launcher": MPIRUN, "victim": rank_1},
            {},
            id="a rank, then one process",
            marks=needs_mpi,
        ),
        pytest.param({}, {"launcher": MPIRUN}, id="one process, then two ranks", marks=needs_mpi),
    ],
)
def test_after_kill_9_the_same_command_keeps_what_is_finished_and_computes_the_rest_once(
    first, then, place
):
    running = place.start(
        "--features",
        "awkward",
        *first.get("options", ()),
        launcher=first.get("launcher", ()),
        row_s=0.04,
    )
    place.kill_when(3, running, first.get("victim"))
    running.communicate(timeout=600)
    assert running.returncode != 0
    assert not place.path.exists()
    finished, before = place.finished(), place.computed()
    assert 3 <= len(finished) < N_BLOCKS
    again = place.pack("--features", "awkward", **then)
    assert again.returncode == 0, again.stderr
    assert f"resuming: {len(finished)} of {N_BLOCKS} blocks are there\n" in again.stdout
    twice = [formula for formula, count in place.computed().items() if count > 1]
    assert len(twice) <= sum(before.values()) - 6 * len(
        finished
    )  # of blocks that were not finished
    assert set(place.computed()) == {f"{metal}O" for metal in METALS}
    assert sorted(path.name for path in place.path.parent.iterdir()) == [
        "oxides.h5",
        "oxides.rejected.csv",
    ]
    assert verify(place.path) == hash_of_an_undisturbed_one(place, "awkward")


def test_finished_blocks_are_not_touched_until_the_pack_is_there(place):
    for n_parts in (2, 5):
        running = place.start("--features", "awkward", row_s=0.04)
        place.kill_when(n_parts, running)
        found = place.finished()
        if n_parts == 2:
            before = found
    assert len(before) < len(found) < N_BLOCKS
    assert found | before == found  # the same files


def test_kill_9_of_a_worker_costs_no_row_where_rows_are_announced(place):
    running = place.start("--features", "awkward", "--workers", 2, row_s=0.04)
    place.kill_when(2, running, worker)
    _, err = running.communicate(timeout=600)
    if running.returncode:  # it may have been between two rows
        assert (
            err == "error: a worker process died, perhaps for want of memory; try fewer --workers\n"
        )
        assert place.pack("--features", "awkward").returncode == 0
    assert place.rejected() == {}
    assert verify(place.path) == hash_of_an_undisturbed_one(place, "awkward")


def test_kill_9_of_a_worker_is_one_sentence_where_they_are_not_and_finished_blocks_stay(place):
    running = place.start("--features", "silent", "--workers", 2, row_s=0.04)
    place.kill_when(3, running, worker)
    _, err = running.communicate(timeout=600)
    assert running.returncode == 2
    assert err == "error: a worker process died, perhaps for want of memory; try fewer --workers\n"
    n_finished = len(place.finished())
    again = place.pack("--features", "silent")
    assert f"resuming: {n_finished} of {N_BLOCKS} blocks are there\n" in again.stdout
    assert verify(place.path) == hash_of_an_undisturbed_one(place, "silent")


@needs_mpi
def test_a_rank_that_fails_ends_all_with_its_sentence_and_status_2(place):
    running = place.start("--features", "silent", "--workers", 2, launcher=MPIRUN, row_s=0.04)
    wait_for(lambda: len(place.finished()) >= 2)
    place.kill_when(2, running, lambda family: worker(rank_1(family).children()))
    _, err = running.communicate(timeout=600)
    assert running.returncode == 2
    assert err.startswith(
        "error: a worker process died, perhaps for want of memory; try fewer --workers\n"
    )
    assert "Traceback" not in err
    assert len(place.finished()) < N_BLOCKS and not place.path.exists()


@needs_mpi
def test_a_folder_that_not_every_rank_sees_is_refused_before_any_work(place):
    here, there = place.folder / "here", place.folder / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / "oxides.csv").write_bytes((place.folder / "oxides.csv").read_bytes())
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.pack",
        "--source",
        "oxides.csv",
        "--features",
        "awkward",
    ]
    # mpirun starts each rank in a folder of its own: `here` and `there` stand for the disks of two nodes
    launcher = (
        "mpirun",
        "--oversubscribe",
        "-n",
        "1",
        "-wdir",
        str(here),
        *command,
        ":",
        "-n",
        "1",
        "-wdir",
        str(there),
    )
    done = place.pack("--features", "awkward", launcher=launcher, row_s=1000)
    assert done.returncode == 2
    assert "rank 1: packs/.oxides-awkward.parts" in done.stderr
    assert not (there / "packs").exists()


def test_a_damaged_or_torn_part_is_found_and_computed_again(place):
    running = place.start("--features", "awkward", row_s=0.04)
    place.kill_when(4, running)
    names = sorted(place.finished())
    damaged = bytearray((place.parts / names[1]).read_bytes())
    damaged[-3] ^= 16
    (place.parts / names[1]).write_bytes(damaged)
    (place.parts / names[2]).write_bytes((place.parts / names[2]).read_bytes()[:40])
    (place.parts / names[3]).write_bytes(b"")
    again = place.pack("--features", "awkward")
    said = f"resuming: {len(names) - 3} of {N_BLOCKS} blocks are there; 3 damaged, to be computed again\n"
    assert said in again.stdout
    assert verify(place.path) == hash_of_an_undisturbed_one(place, "awkward")


def test_what_is_left_of_another_pack_of_that_name_is_not_used(place):
    running = place.start("--features", "awkward", row_s=0.04)
    place.kill_when(3, running)
    place.write([f"{metal}2O" for metal in METALS])
    again = place.pack("--features", "awkward")
    assert "its source_sha256, rows differ\n" in again.stdout
    assert "resuming" not in again.stdout
    assert verify(place.path) == hash_of_an_undisturbed_one(place, "awkward")


def test_the_second_of_two_packs_of_one_name_says_who_makes_the_first_and_stops(place):
    running = place.start("--features", "awkward", row_s=0.04)
    wait_for(lambda: place.finished())
    second = place.pack("--features", "awkward")
    assert second.returncode == 2
    host = re.escape(os.uname().nodename)
    assert re.fullmatch(
        rf"error: packs/oxides\.h5 .* process {running.pid} on {host} since [-0-9]+ [:0-9]+; .*\n",
        second.stderr,
    )
    assert "featurising" not in second.stdout
    assert place.pack("--features", "awkward", "--name", "other").returncode == 0
    running.communicate(timeout=600)
    assert running.returncode == 0
    assert verify(place.path) == verify(place.path.with_name("other.h5"))


def test_the_unfinished_file_of_a_killed_pack_goes_with_the_next_and_no_other(place):
    (place.folder / "packs").mkdir()
    stale = [".oxides.0123abcd.tmp.h5", ".oxides.rejected.0123abcd.tmp.csv", ".oxides.lock"]
    foreign = [".oxides.b.0123abcd.tmp.h5", ".other.0123abcd.tmp.h5", ".oxides.tmp.h5"]
    for name in stale + foreign:
        (place.folder / "packs" / name).write_text("half of it")
    assert place.pack("--features", "elements").returncode == 0
    left = {path.name for path in (place.folder / "packs").iterdir()}
    assert left == {*foreign, "oxides.h5", "oxides.rejected.csv"}


def test_a_disk_that_fills_up_leaves_nothing_that_looks_finished_and_then_it_goes_on(place):
    packs = place.folder / "packs"
    packs.mkdir()
    # 6,000 rows of 86 features are 2 MiB in parts; 4 are reserved for the pack, by whole chunks
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", packs], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        arguments = ("--source", "alloys", "--rows", 6000, "--features", "elements")
        done = place.pack(*arguments)
        assert done.returncode == 2
        assert re.fullmatch(
            r"error: packs/.oxides.parts cannot take block \d: No space left on device\n",
            done.stderr,
        )
        n_finished = len(place.finished())
        assert 0 < n_finished < 6
        assert [path.name for path in packs.iterdir()] == [".oxides.parts"]
        subprocess.run(["mount", "-o", "remount,size=9m", packs], check=True)
        again = place.pack(*arguments)
        assert again.returncode == 0, again.stderr
        assert f"resuming: {n_finished} of 6 blocks are there\n" in again.stdout
        verify(place.path)
        subprocess.run(["mount", "-o", "remount,ro", packs], check=True)
        assert "already packed: packs/oxides.h5\n" in place.pack(*arguments).stdout
    finally:
        subprocess.run(["umount", packs], check=True)


RANK_0_OF_2 = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
TASK_0_OF_2 = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_STEP_TASKS_PER_NODE": "2",
}  # fmt: skip


def test_ranks_that_mpi_does_not_know_never_pack(place):
    done = place.pack("--features", "elements", **RANK_0_OF_2)
    assert done.returncode == 2
    assert done.stderr.startswith("error: size must equal what torchrun started")
    done = place.pack("--features", "elements", **TASK_0_OF_2)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: packing over several tasks runs over MPI, so srun must be given one that MPI"
    )
    assert not (place.folder / "packs").exists()


def double(block: list[int], left_out: workers.LeftOut) -> list[int]:
    time.sleep(0.05 * (3 - block[0] % 4))  # later blocks are done first
    if -1 in block:
        raise UserError(f"no block may hold -1, however: {block}")
    if -2 in block:
        raise ZeroDivisionError("a bug")
    return [2 * value for value in block]


def test_results_come_in_the_order_of_the_blocks_and_few_blocks_are_in_flight():
    taken = []
    blocks = ([number] for number in range(12) if not taken.append(number))
    found = []
    for result in workers.in_order(double, blocks, workers=2):
        found += result
        assert len(taken) <= len(found) + workers.AHEAD * 2
    assert found == [2 * number for number in range(12)]


def test_what_a_worker_raises_is_raised_with_where_it_came_from():
    with pytest.raises(UserError, match=r"no block may hold -1, however: \[-1\]"):
        list(workers.in_order(double, [[0], [-1], [2]], workers=2))
    with pytest.raises(ZeroDivisionError) as caught:
        list(workers.in_order(double, [[-2]], workers=1, limit_s=60))
    assert "in double" in caught.value.__notes__[0]


def test_workers_that_never_come_back_to_python_die_with_their_parent(place):
    place.write(["XeF2"] + [f"{metal}O" for metal in METALS])
    (place.folder / "patient").mkdir()
    awkward = (ROOT / "tests/robustness/awkward/sitecustomize.py").read_text()
    (place.folder / "patient/sitecustomize.py").write_text(
        awkward.replace("limit_s=1.0 if", "limit_s=1000.0 if")
    )
    running = place.start("--features", "awkward", PYTHONPATH=f"{place.folder / 'patient'}:{ROOT}")
    wait_for(lambda: (place.folder / "log").exists() and "XeF2" in place.computed())
    time.sleep(0.2)  # from the log to the library
    family = psutil.Process(running.pid).children(recursive=True)
    assert family
    running.kill()
    wait_for(
        lambda: not any(child.is_running() and child.status() != "zombie" for child in family),
        limit_s=10,
    )
