"""Ranks are read from the launcher's variables; two real processes meet."""

import os
import subprocess
import sys
from pathlib import Path

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
    assert launch.detect(STEP) == ("srun", 2, 3, 0, 1, 1, 2, "7-0-0", (2, 1))


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


# The variables of SLURM 22.05 in jobs of several kinds, as two nodes of two processors gave them.
BATCH = {"SLURM_JOB_ID": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
ONE_NODE = {"SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1"}
TWO_NODES = {"SLURM_NNODES": "2", "SLURM_JOB_NUM_NODES": "2", "SLURM_TASKS_PER_NODE": "1(x2)"}
TWO_TASKS = ONE_NODE | {"SLURM_NPROCS": "2", "SLURM_NTASKS": "2", "SLURM_TASKS_PER_NODE": "2"}
ONE_STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}
EXCLUSIVE = {"SLURM_JOB_CPUS_PER_NODE": "2", "SLURM_TASKS_PER_NODE": "2"}
FEW_TASKS = {"SLURM_NTASKS": "1", "SLURM_TASKS_PER_NODE": "1"}


@pytest.mark.parametrize(
    ("environment", "n_tasks"),
    [
        pytest.param(BATCH | TWO_NODES, 2, id="sbatch --nodes=2"),
        pytest.param(BATCH | TWO_TASKS, 2, id="sbatch -n 2"),
        pytest.param(
            BATCH | TWO_NODES | {"SLURM_NTASKS_PER_NODE": "4", "SLURM_TASKS_PER_NODE": "4(x2)"}, 8,
            id="sbatch --nodes=2 --ntasks-per-node=4, without SLURM_NTASKS",
        ),
        pytest.param(BATCH | {"SLURM_NPROCS": "3"}, 3, id="only SLURM_NPROCS"),
        pytest.param(BATCH | {"SLURM_TASKS_PER_NODE": "3,2"}, 5, id="only SLURM_TASKS_PER_NODE"),
        pytest.param({"SLURM_JOB_ID": "16"} | TWO_TASKS, 2, id="salloc -n 2"),
        pytest.param({"SLURM_JOB_ID": "17"} | TWO_NODES, 2, id="salloc -N 2"),
        pytest.param({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "8"}, 8, id="rank missing"),
        pytest.param(BATCH | ONE_STEP | {"SLURM_NTASKS": "2"}, 2, id="interactive step of -n 2"),
        pytest.param(BATCH | ONE_STEP | TWO_NODES, 2, id="interactive step of -N 2"),
        pytest.param(
            BATCH | ONE_NODE | {"SLURM_HET_SIZE": "2", "SLURM_NTASKS": "2"}, 2, id="sbatch of het"
        ),
    ],
)  # fmt: skip
def test_one_process_in_a_job_of_several_tasks_is_refused(environment, n_tasks):
    """The batch script runs once, whatever --ntasks says: it would train on one task of three."""
    with pytest.raises(UserError, match=rf"got 1 and {n_tasks}\b.*--engine none"):
        launch.check_alone(launch.detect(environment), environment)


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="no job"),
        pytest.param(BATCH | ONE_NODE | FEW_TASKS, id="sbatch -n 1"),
        pytest.param(BATCH | ONE_NODE | {"SLURM_TASKS_PER_NODE": "1"}, id="sbatch"),
        pytest.param(BATCH | ONE_NODE | EXCLUSIVE, id="sbatch --exclusive"),
        pytest.param({"SLURM_JOB_ID": "18"} | ONE_NODE | EXCLUSIVE, id="salloc --exclusive"),
        pytest.param(
            BATCH | ONE_NODE | EXCLUSIVE
            | {"SLURM_JOB_CPUS_PER_NODE": "8", "SLURM_CPUS_PER_TASK": "4"},
            id="sbatch --exclusive -c 4",
        ),
        pytest.param({"SLURM_JOB_ID": "7"}, id="ssh to the node"),
        pytest.param(
            BATCH | ONE_STEP | FEW_TASKS | {"SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "2"},
            id="salloc -N 2 srun -n 1",
        ),
        pytest.param(
            BATCH | ONE_STEP | FEW_TASKS | ONE_NODE | {"SLURM_NTASKS_PER_NODE": "2"},
            id="salloc --ntasks-per-node=2 srun -n 1",
        ),
        pytest.param({"PMI_RANK": "0", "PMI_SIZE": "1"}, id="mpiexec of one"),
    ],
)  # fmt: skip
def test_one_process_where_one_was_asked_for_is_alone(environment):
    where = launch.detect(environment)
    launch.check_alone(where, environment)
    assert where is None or where.size == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"PMIX_RANK": "3", "PMIX_NAMESPACE": "x"},
        {"PMI_RANK": "1", "PMI_SIZE": "2"},
        {"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "4"},
        {"FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "2"},
    ],
)
def test_a_rank_of_an_unknown_launcher_is_refused(environment):
    size = {"PMI_RANK": "2", "MV2_COMM_WORLD_RANK": "4", "FLUX_TASK_RANK": "2"}
    rank = next(iter(environment))
    how_many = size.get(rank, "an unknown number of")
    with pytest.raises(UserError, match=f"{rank} .* one of {how_many} processes"):
        launch.check_alone(launch.detect(environment), environment)


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "", "WORLD_SIZE": ""},
        {"RANK": "3"},
        {"WORLD_SIZE": "4"},
        {"RANK": "0", "WORLD_SIZE": "two"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "", "LOCAL_WORLD_SIZE": "2"},
        {"OMPI_COMM_WORLD_RANK": "1"},
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "-2"},
        {"HOROVOD_SIZE": "2"},
        {"SUBMITIT_LOCAL_GLOBALID": "0", "SUBMITIT_LOCAL_NTASKS": "0"},
        BATCH | {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "", "SLURM_TASKS_PER_NODE": "1"},
        BATCH | {"SLURM_STEP_ID": "0"},
        BATCH | {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"},
        STEP | {"SLURM_STEP_TASKS_PER_NODE": "2;1"},
        STEP | {"SLURM_NODEID": "5"},
        STEP | {"SLURM_LOCALID": "1"},
        STEP | {"SLURM_STEP_NUM_TASKS": "8"},
        STEP | {
            "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2",
            "SLURM_NTASKS": "4", "SLURM_HET_SIZE": "2",
        },
    ],
)  # fmt: skip
def test_variables_that_are_empty_missing_or_contrary_are_a_sentence(environment):
    with pytest.raises(UserError):
        launch.detect(environment)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({}, ["SLURM_NTASKS"]),
        ({"SLURM_NPROCS": "8"}, ["SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"]),
        ({"SLURM_TASKS_PER_NODE": "4(x2)"}, ["SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS"]),
        ({}, ["SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]),
    ],
)
def test_a_rank_of_a_step_is_known_by_what_is_left_of_its_variables(changes, missing):
    whole = STEP | {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}
    whole |= {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}
    left = {name: value for name, value in (whole | changes).items() if name not in missing}
    assert launch.detect(left)[:7] == ("srun", 5, 8, 1, 4, 1, 2)


def test_one_srun_over_the_components_of_a_heterogeneous_job_is_one_launch():
    """salloc -n2 : -n1 srun --het-group=0,1 (SLURM 22.05): the variables are of all components."""
    step = BATCH | {
        "SLURM_STEP_ID": "0", "SLURM_HET_SIZE": "2", "SLURM_PROCID": "2", "SLURM_NODEID": "1",
        "SLURM_NTASKS": "3", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1",
    }  # fmt: skip
    assert launch.detect(step)[:7] == ("srun", 2, 3, 0, 1, 1, 2)


def test_an_engine_that_found_fewer_ranks_than_were_started_is_refused():
    with pytest.raises(UserError, match="srun started, got 1 and 3"):
        launch.check_size(1, launch.detect(STEP))
    launch.check_size(3, launch.detect(STEP))
    launch.check_size(1, None)
    torchrun = launch.detect({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="as many ranks as torchrun started, got 1 and 2"):
        launch.check_size(1, torchrun)


@pytest.mark.parametrize(
    ("text", "numbers"), [("1", [1]), ("2(x2),1", [2, 2, 1]), ("4(x3)", [4, 4, 4]), ("", [])]
)
def test_slurms_shorthand_is_read(text, numbers):
    assert launch.numbers_per_node({"TASKS": text}, "TASKS") == numbers


@pytest.mark.parametrize("name", ["SLURM_TASKS_PER_NODE", "SLURM_JOB_CPUS_PER_NODE"])
def test_the_variable_that_cannot_be_read_is_named(name):
    with pytest.raises(UserError, match=rf"^{name} must be like"):
        launch.check_alone(None, BATCH | ONE_NODE | EXCLUSIVE | {name: "two"})


@pytest.mark.parametrize(
    ("environment", "n_cores", "n_threads"),
    [
        ({"SLURM_CPUS_PER_TASK": "3"}, 8, 3),
        ({"SLURM_CPUS_PER_TASK": "3"}, 1, 1),  # bound to one: more would wait for each other
        ({"SLURM_CPUS_PER_TASK": "3", "OMP_NUM_THREADS": "4,2"}, 1, 4),
        ({"SLURM_CPUS_PER_TASK": "²"}, 8, 8),
        ({}, 8, 8),
        # On a cluster that binds nothing, a job of four tasks with a processor each.
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "4"}, 64, 4),
        ({"SLURM_CPUS_ON_NODE": "4"}, 64, 64),  # no job
    ],
)
def test_threads_are_the_users_word_the_schedulers_or_the_cores(
    environment, n_cores, n_threads, monkeypatch
):
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda pid: set(range(n_cores)))
    assert launch.n_threads(launch.detect(STEP), environment) == n_threads


def test_ranks_on_one_node_share_its_cores_unless_their_launcher_has_bound_them(monkeypatch):
    masks = {0: set(range(8)), launch.os.getppid(): set(range(8))}
    monkeypatch.setattr(launch.os, "sched_getaffinity", masks.__getitem__)
    four = launch.Launch("mpirun", 0, 4, 0, 4, 0, 1, "")
    assert launch.n_threads(four, {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "4"}) == 1
    assert launch.n_threads(four, {}) == 2
    assert launch.n_threads(four, {"OMPI_MCA_orte_bound_at_launch": "1"}) == 8
    masks[launch.os.getppid()] = set(range(32))
    assert launch.n_threads(four, {}) == 8
    many = launch.Launch("horovodrun", 0, 10_000, 0, 10_000, 0, 1, "")
    masks[launch.os.getppid()] = masks[0]
    assert launch.n_threads(many, {"SLURM_CPUS_PER_TASK": "3"}) == 1


PRINT_THREADS = """
import os, sys
from irnet_hpc.distributed import launch
os.sched_getaffinity = lambda pid: set(range(8))
where = launch.detect()
line = f"{where.launcher} {where.size} {launch.n_threads(where)}"
sys.stdout.write(line + chr(10))
"""


@pytest.mark.parametrize("stated", ["", "1"])
def test_torchruns_own_number_of_threads_is_not_the_users_word(stated, tmp_path, monkeypatch):
    """torchrun sets OMP_NUM_THREADS=1 in its ranks where the user has set nothing."""
    (tmp_path / "ranks.py").write_text(PRINT_THREADS)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if stated:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "ranks.py"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("torchrun")]
    assert lines == [["torchrun", "2", stated or "4"]] * 2, done.stderr
