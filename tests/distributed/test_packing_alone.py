"""One process packs in a job of several tasks; one of several unknown processes does not."""

import pytest

from irnet_hpc.distributed import mpi
from irnet_hpc.errors import UserError


@pytest.fixture
def job(monkeypatch):
    """Stand in a batch script of a SLURM job of two tasks."""
    for name in ("SLURM_PROCID", "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    return monkeypatch


def test_one_process_packs_in_a_job_of_two_tasks(job):
    ranks = []
    assert mpi.run(ranks.append) == 0
    assert [(rank.rank, rank.size) for rank in ranks] == [(0, 1)]


def test_processes_of_an_unknown_launcher_do_not_pack(job):
    job.setenv("MV2_COMM_WORLD_RANK", "1")
    with pytest.raises(UserError):
        mpi.run(lambda ranks: pytest.fail("it has packed"))
