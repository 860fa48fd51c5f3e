"""Ranks are read from the launcher's variables; two real processes meet."""

import json
import multiprocessing
import socket
import time

import pytest

from irnet_hpc.distributed import launch
from irnet_hpc.errors import UserError

STEP = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_NTASKS": "3",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_NNODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}  # fmt: skip


def test_a_process_started_by_itself_has_no_launch():
    assert launch.detect({"PATH": "/bin"}) is None


def test_srun_gives_rank_size_and_place():
    found = launch.detect(STEP)
    assert found[:-1] == (
        "srun", 2, 3, 0, 1, 1, 2,
    )  # fmt: skip


def test_ranks_follow_the_nodes_even_under_a_cyclic_distribution():
    """Cyclic: task 1 is the first of node 1. Horovod numbers node by node, so it is rank 2."""
    cyclic = STEP | {
        "SLURM_PROCID": "1",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    }
    assert launch.detect(cyclic).rank == 2


@pytest.mark.parametrize("launcher", ["OMPI_COMM_WORLD", "HOROVOD"])
def test_a_launcher_inside_a_job_wins_over_slurm(launcher):
    found = launch.detect(
        STEP | {f"{launcher}_RANK": "1", f"{launcher}_SIZE": "2", f"{launcher}_LOCAL_SIZE": "2"}
    )
    assert (found.rank, found.size) == (1, 2) and found.launcher != "srun"


def test_mpich_and_intel_mpi_say_it_in_words_of_their_own_that_srun_shares():
    shared = {"PMI_RANK": "1", "PMI_SIZE": "2"}
    found = launch.detect(shared | {"MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"})
    assert (found.launcher, found.rank, found.size, found.local_rank, found.n_nodes) == (
        "mpiexec",
        1,
        2,
        1,
        1,
    )
    assert launch.detect(STEP | shared).launcher == "srun"  # --mpi=pmi2


def test_one_process_in_a_job_of_several_tasks_is_refused():
    """The batch script runs once, whatever --ntasks says: it would train on one task of three."""
    batch = {name: value for name, value in STEP.items() if "STEP" not in name}
    with pytest.raises(UserError, match=r"size must equal SLURM_NTASKS, got 1 and 3"):
        launch.detect(batch)
    assert launch.detect(batch | {"SLURM_NTASKS": "1"}) is None


def test_an_engine_that_found_fewer_ranks_than_were_started_is_refused():
    with pytest.raises(UserError, match="must equal SLURM_NTASKS, got 1 and 3"):
        launch.check_size(1, launch.detect(STEP), STEP)
    launch.check_size(3, launch.detect(STEP), STEP)
    launch.check_size(1, None, {})
    torchrun = launch.detect({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="what torchrun started, got 1 and 2"):
        launch.check_size(1, torchrun, {})


@pytest.mark.parametrize(
    ("text", "tasks"), [("1", [1]), ("2(x2),1", [2, 2, 1]), ("4(x3)", [4, 4, 4])]
)
def test_slurms_shorthand_is_read(text, tasks):
    assert launch.tasks_per_node(text) == tasks


def test_threads_are_the_users_word_the_schedulers_or_an_equal_share():
    assert launch.n_threads(launch.detect(STEP), {"SLURM_CPUS_PER_TASK": "3"}) == 3
    assert (
        launch.n_threads(
            launch.detect(STEP), {"SLURM_CPUS_PER_TASK": "3", "OMP_NUM_THREADS": "4,2"}
        )
        == 4
    )
    many = launch.Launch("horovodrun", 0, 10_000, 0, 10_000, 0, 1, "")
    assert (
        launch.n_threads(many, {"SLURM_CPUS_PER_TASK": "3"}) == 1
    )  # the ranks of one task share it


def _arrive(rank: int, folder, queue) -> None:
    where = launch.Launch("test", rank, 3, rank, 3, 0, 1, "meet")
    with launch.meeting(where, folder, lambda host: 4711) as met:
        queue.put(met)


def test_processes_meet_through_a_private_file_that_does_not_stay(tmp_path):
    context, folder = multiprocessing.get_context("spawn"), tmp_path / "meet"
    queue = context.Queue()
    processes = [context.Process(target=_arrive, args=(rank, folder, queue)) for rank in range(3)]
    for process in processes[:2]:
        process.start()
    while not (folder / "test-meet.json").exists():
        time.sleep(0.01)
    assert (folder / "test-meet.json").stat().st_mode & 0o777 == 0o600
    # Strangers at the door: one without the token, one that hangs up.
    door = json.loads((folder / "test-meet.json").read_text())["door"]
    with socket.create_connection(("127.0.0.1", door)) as stranger:
        stranger.sendall(b"wrong 2")
    socket.create_connection(("127.0.0.1", door)).close()
    time.sleep(0.5)
    assert queue.empty()  # nobody goes ahead before all are there
    processes[2].start()
    assert {queue.get(timeout=600) for _ in processes} == {("127.0.0.1", 4711, "lo")}
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    assert not list(folder.iterdir())


def test_rank_0_says_who_did_not_come(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "TIMEOUT_S", 0.3)
    where = launch.Launch("test", 0, 3, 0, 3, 0, 1, "alone")
    with (
        pytest.raises(UserError, match="ranks 1, 2 of 3 did not come"),
        launch.meeting(where, tmp_path, lambda host: 0),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_rank_that_nobody_meets_gives_up_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "TIMEOUT_S", 0.3)
    where = launch.Launch("test", 1, 2, 1, 2, 0, 1, "alone")
    (tmp_path / "test-alone.json").write_text(
        json.dumps({"addresses": ["127.0.0.1"], "door": 1, "port": 1, "token": ""})
    )
    with (
        pytest.raises(UserError, match="rank 1 waited"),
        launch.meeting(where, tmp_path, lambda host: 0),
    ):
        pass
