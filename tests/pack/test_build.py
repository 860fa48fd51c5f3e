"""Packs made by many processes and ranks, some of which die. Every process here is a real one."""

import sys
import time

import psutil
import pytest

from irnet_hpc.pack.store import open_pack, verify
from tests.pack.builders import (
    METALS,
    MPIRUN,
    N_BLOCKS,
    ROOT,
    needs_mpi,
    rank_1,
    undisturbed_hash,
    wait_for,
    worker,
)


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
    memory = ("process killed, perhaps because memory ran out", "")
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


def test_kill_9_of_a_worker_costs_no_row_where_rows_are_announced(place):
    running = place.start("--features", "awkward", "--workers", 2, row_s=0.04)
    place.kill_when(2, running, worker)
    _, err = running.communicate(timeout=600)
    if running.returncode:  # it may have been between two rows
        assert (
            err
            == "error: a worker process died, perhaps because memory ran out; try fewer --workers\n"
        )
        assert place.pack("--features", "awkward").returncode == 0
    assert place.rejected() == {}
    assert verify(place.path) == undisturbed_hash(place, "awkward")


def test_kill_9_of_a_worker_is_one_sentence_where_rows_are_not_announced(place):
    running = place.start("--features", "silent", "--workers", 2, row_s=0.04)
    place.kill_when(3, running, worker)
    _, err = running.communicate(timeout=600)
    assert running.returncode == 2
    assert (
        err == "error: a worker process died, perhaps because memory ran out; try fewer --workers\n"
    )
    n_finished = len(place.finished())
    again = place.pack("--features", "silent")
    assert f"resuming: {n_finished} of {N_BLOCKS} blocks are finished\n" in again.stdout
    assert verify(place.path) == undisturbed_hash(place, "silent")


@needs_mpi
def test_a_rank_that_fails_ends_all_with_its_sentence_and_status_2(place):
    running = place.start("--features", "silent", "--workers", 2, launcher=MPIRUN, row_s=0.04)
    wait_for(lambda: len(place.finished()) >= 2)
    place.kill_when(2, running, lambda family: worker(rank_1(family).children()))
    _, err = running.communicate(timeout=600)
    assert running.returncode == 2
    assert err.startswith(
        "error: a worker process died, perhaps because memory ran out; try fewer --workers\n"
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
    # mpirun starts each rank in a folder of its own: the two stand for the disks of two nodes.
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
    assert "rank 1 lacks packs/.oxides-awkward.parts" in done.stderr
    assert not (there / "packs").exists()


RANK_0_OF_2 = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


TASK_0_OF_2 = {
    **{f"SLURM_{name}": "0" for name in ("STEP_ID", "PROCID", "LOCALID", "NODEID")},
    **{f"SLURM_{name}": "2" for name in ("NTASKS", "STEP_NUM_TASKS", "STEP_TASKS_PER_NODE")},
    "SLURM_JOB_ID": "7",
    "SLURM_NNODES": "1",
}


def test_ranks_that_mpi_does_not_know_never_pack(place):
    done = place.pack("--features", "elements", **RANK_0_OF_2)
    assert done.returncode == 2
    assert done.stderr.startswith("error: MPI must find as many ranks as torchrun started")
    done = place.pack("--features", "elements", **TASK_0_OF_2)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: packing on several ranks needs MPI, but srun started these ranks without it"
    )
    assert not (place.folder / "packs").exists()


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
