"""Test the checks of SLURM on commands that are broken on purpose."""

import pytest

from irnet_hpc.doctor import cluster

CONFIGURATION = "; ".join(
    f"echo '{line}'"
    for line in (
        "MaxArraySize = 1001",
        "JobRequeue = 1",
        "ClusterName = big",
        "PreemptMode = OFF",
    )
)
MPI_LIST = "echo 'MPI plugin types are...' >&2; for t in none pmi2 pmix; do echo \" $t\" >&2; done"
ACCEPTED = "sbatch: Job 7 to start at 2026-11-25T12:00:00 using 1 processors"
NO_CLUSTER = "echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1"
GOOD = {
    "scontrol": CONFIGURATION,
    "squeue": "true",
    "sacct": "echo '1|COMPLETED'",
    "srun": MPI_LIST,
    "sbatch": f"echo '{ACCEPTED}' >&2; echo \"$@\" >$0.arguments",
}


def test_a_slurm_that_works_passes_with_its_limits(put_on_path, run_doctor, tmp_path):
    site = tmp_path / "mine.yaml"
    site.write_text(
        "account: ours\npartition: gpu\nsbatch: {exclusive: true, mail_type: FAIL, "
        "nice: 0, requeue: false, hold: false}\nsrun_args: [--mpi=pmix]\n"
    )
    put_on_path(**GOOD)
    status, checks = run_doctor("--only", "slurm", "--site", site)
    assert status == 0 and {verdict["level"] for verdict in checks.values()} == {"ok"}
    assert checks["arrays"]["facts"] == {"max_array_size": 1001}
    assert "none, pmi2, pmix" in checks["srun --mpi"]["found"]
    assert "--mpi=pmix" in checks["srun --mpi"]["found"]
    arguments = (tmp_path / "bin" / "sbatch.arguments").read_text()
    assert "--test-only" in arguments
    # The options of a sweep's own jobs: 0 is a value, and what is false is left out.
    assert (
        "--account=ours --partition=gpu --kill-on-invalid-dep=yes --exclusive --mail-type=FAIL "
        "--nice=0 --no-requeue --wrap" in arguments
    )


@pytest.mark.parametrize(
    ("broken", "check", "level", "words"),
    [
        (
            {"scontrol": "echo 'Unable to contact slurm controller' >&2; exit 1"},
            *("SLURM", "failure", "Unable to contact slurm"),
        ),
        ({"scontrol": "sleep 300"}, "SLURM", "failure", "scontrol did not answer within"),
        (
            {"squeue": "echo 'squeue: error: no permission' >&2; exit 1"},
            *("SLURM", "failure", "squeue: error: no permission"),
        ),
        ({"srun": "exit 1"}, "srun --mpi", "failure", "status 1"),
        (
            {"sbatch": "echo 'sbatch: error: Invalid account' >&2; exit 1"},
            *("sbatch", "failure", "Invalid account"),
        ),
        (
            {"sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1"},
            *("accounting", "warning", "disabled"),
        ),
        ({"scontrol": "echo 'MaxArraySize = 0'"}, "arrays", "failure", "MaxArraySize"),
        (
            {"scontrol": "echo 'MaxArraySize = 9'; echo 'JobRequeue = 0'"},
            *("requeue", "note", "JobRequeue is 0"),
        ),
        (
            {"scontrol": "echo 'MaxArraySize = 9'; echo 'PreemptMode = CANCEL'"},
            *("requeue", "note", "CANCEL"),
        ),
    ],
)
def test_a_broken_slurm_is_reported_by_the_check_that_it_concerns(
    put_on_path, run_doctor, monkeypatch, broken, check, level, words
):
    if "sleep" in str(broken):
        monkeypatch.setattr("irnet_hpc.doctor.commands.DEFAULT_LIMIT_S", 2.0)
    put_on_path(**(GOOD | broken))
    status, checks = run_doctor("--only", "slurm")
    assert (checks[check]["level"], words in checks[check]["found"]) == (level, True), checks[check]
    assert status == (level == "failure")


def test_an_mpi_type_that_srun_does_not_know_is_a_failure(put_on_path, run_doctor, monkeypatch):
    put_on_path(**GOOD)
    monkeypatch.setenv("IRNET_SRUN_ARGS", "--mpi=pmi9")
    status, checks = run_doctor("--only", "slurm")
    assert status == 1 and checks["srun --mpi"]["level"] == "failure"
    assert "pmi9" in checks["srun --mpi"]["found"]


def test_no_slurm_is_a_note_and_half_of_one_a_failure(put_on_path, run_doctor):
    put_on_path(alone=True)
    assert run_doctor("--only", "slurm")[1]["SLURM"]["level"] == "note"
    put_on_path(alone=True, sbatch="true")
    cluster.read_configuration.cache_clear()
    status, checks = run_doctor("--only", "slurm")
    assert status == 1 and checks["SLURM"]["level"] == "failure"
    for command in ("srun", "scontrol", "squeue"):
        assert command in checks["SLURM"]["found"]


def test_a_slurm_without_a_cluster_is_a_note(put_on_path, run_doctor):
    put_on_path(**(GOOD | {"scontrol": NO_CLUSTER}))
    status, checks = run_doctor("--only", "slurm")
    assert status == 0 and checks.keys() == {"SLURM"} and checks["SLURM"]["level"] == "note"
